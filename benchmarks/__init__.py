"""Timings that anyone can rerun: ``python -m benchmarks`` from a checkout; see README.md here."""
