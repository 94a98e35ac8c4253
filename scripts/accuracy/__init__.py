"""The parts of `scripts/accuracy_benchmark.py`."""
