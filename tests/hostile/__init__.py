"""Kills, damaged files, bad inputs and outages, on purpose: `make test-hostile` runs them and counts what happened."""
