"""ONNX to ONNX: the precision is written into the graph itself."""
