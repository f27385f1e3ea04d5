"""Benchmarks of mlapp. They report ratios of measurements from the same run on the same machine."""
