"""NNCF's `quantize` with its defaults; `transformer` tells it the kind of model, as it asks."""

from __future__ import annotations

import nncf
import onnx
from job import Job, run


def quantize(job: Job) -> None:
    kind = nncf.ModelType.TRANSFORMER if job.options["transformer"] else None
    model = nncf.quantize(
        onnx.load(job.model),
        nncf.Dataset(list(job.feeds())),
        subset_size=len(job.files),
        model_type=kind,
    )
    onnx.save(model, job.output)


if __name__ == "__main__":
    run(quantize)
