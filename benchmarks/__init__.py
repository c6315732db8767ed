"""Timings that anyone can rerun: ``python -m benchmarks`` from a checkout."""
