"""ONNX Runtime's `quantize_static`.

With the option `tensorrt`, as its documentation says for TensorRT: signed and symmetric, a scale
for each channel of the weights, biases left alone. Without it, all as it is by default.
"""

from __future__ import annotations

from job import Feeds, Job, run
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)


class Reader(CalibrationDataReader):
    """The job's samples, one by one."""

    def __init__(self, job: Job) -> None:
        self._feeds = job.feeds()

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


FOR_TENSORRT = {
    "quant_format": QuantFormat.QDQ,
    "per_channel": True,
    "activation_type": QuantType.QInt8,
    "weight_type": QuantType.QInt8,
    "extra_options": {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
    },
}


def quantize(job: Job) -> None:
    settings = FOR_TENSORRT if job.options["tensorrt"] else {}
    method = CalibrationMethod[job.options["method"]]
    quantize_static(job.model, job.output, Reader(job), calibrate_method=method, **settings)


if __name__ == "__main__":
    run(quantize)
