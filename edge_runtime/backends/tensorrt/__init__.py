"""What TensorRT and TensorRT-RTX share; the vendor's module is always handed in, never imported."""
