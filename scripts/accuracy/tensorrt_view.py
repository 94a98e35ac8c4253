"""How TensorRT takes a quantized file: `python -m accuracy.tensorrt_view JOB.json`.

Whether TensorRT-RTX builds it, without a GPU, and as what it reads unsigned values. The file as it
is read is written too, so that it can be run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import tensorrt_rtx_bindings as trt

from accuracy.unsigned import as_read

TARGET = "SM86"


class Log(trt.ILogger):
    """Keeps TensorRT's errors."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity <= trt.ILogger.Severity.ERROR:
            self.errors.append(" ".join(message.split()))


def refusal(data: bytes, profile: dict[str, list[list[int]]]) -> str | None:
    """Why TensorRT-RTX does not build the model; None if it does.

    Args:
        data: The ONNX file.
        profile: For each input with a dynamic axis its least, usual and largest shape.
    """
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(data):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        return _first(reasons or log.errors)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, TARGET), 0)
    if profile:
        optimization = builder.create_optimization_profile()
        for name, shapes in profile.items():
            optimization.set_shape(name, *shapes)
        config.add_optimization_profile(optimization)
    plan = builder.build_serialized_network(network, config)
    return None if plan is not None else _first(log.errors)


def _first(reasons: list[str]) -> str:
    return " ".join(reasons[0].split())[:200] if reasons else "no reason given"


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    graph = Path(job["graph"])
    result: dict[str, Any] = {"refusal": refusal(graph.read_bytes(), job["profile"])}
    result["unsigned"] = 0
    if result["refusal"] is None:
        model = onnx.load(graph)
        result["unsigned"] = as_read(model)
        if result["unsigned"]:
            onnx.save(model, job["as_read"])
    Path(job["output"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
