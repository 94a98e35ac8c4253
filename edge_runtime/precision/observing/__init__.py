"""Runs a model on samples and keeps what its tensors show."""
