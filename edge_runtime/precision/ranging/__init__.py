"""The ranges of INT8 tensors, and the caches that hold them."""
