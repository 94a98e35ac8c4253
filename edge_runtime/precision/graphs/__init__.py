"""ONNX graphs: look-ups, the plain form, what becomes INT8, the rules that they keep."""
