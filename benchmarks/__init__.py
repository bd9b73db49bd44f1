"""Measure and print speed and memory; nothing is asserted."""
