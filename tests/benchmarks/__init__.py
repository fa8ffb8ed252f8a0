"""Benchmarks: each prints a ratio to a reference that runs beside it in the same process; none asserts a time."""
