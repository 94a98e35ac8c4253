"""Writes FP16 and BF16."""
