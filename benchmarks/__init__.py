"""Benchmarks: figures as ratios against the raw limit, measured in the same run.  They are no tests."""
