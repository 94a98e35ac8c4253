"""Benchmarks by declared protocols: what is timed, how, and what the figures mean."""
