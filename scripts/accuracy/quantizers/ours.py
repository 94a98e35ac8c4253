"""This project: a bundle is built, and its graph taken out."""

from __future__ import annotations

from job import Job, run

import edge_runtime as er
from edge_runtime.config import CalibrationConfig


def quantize(job: Job) -> None:
    config = er.BuildConfig(
        precision="int8", calibration=CalibrationConfig(**job.options), backend="cpu"
    )
    output = job.output.with_suffix(".edge")
    bundle = er.build(job.model, config, output=output, calibration=job.calibration)
    job.output.write_bytes(bundle.read("graph.onnx"))
    output.unlink()


if __name__ == "__main__":
    run(quantize)
