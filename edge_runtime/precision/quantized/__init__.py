"""Writes INT8: weights, Q/DQ pairs and the form that CPUs run fast."""
