"""CUDA's driver through pycuda or cuda-bindings: contexts, streams, memory and graphs."""
