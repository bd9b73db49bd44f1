"""Shared utilities: atomic files, progress, signals, devices, cores, errors."""
