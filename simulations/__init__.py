"""Scenarios, the in-process grid, the simulate command, benchmarks."""
