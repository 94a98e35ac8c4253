"""Equalized channels and corrected biases: what makes a graph lose less in INT8."""
