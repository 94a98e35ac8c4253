"""NVIDIA ModelOpt's `quantize` for ONNX, calibrated on the CPU; what is not INT8 stays FP32."""

from __future__ import annotations

from job import Feeds, Job, run
from modelopt.onnx.quantization import quantize as modelopt_quantize
from onnxruntime.quantization.calibrate import CalibrationDataReader


class Reader(CalibrationDataReader):
    """The job's samples, one by one, as often as they are asked for."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.rewind()

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)

    def get_first(self) -> Feeds:
        return next(self._job.feeds())

    def rewind(self) -> None:
        self._feeds = self._job.feeds()


def quantize(job: Job) -> None:
    modelopt_quantize(
        str(job.model),
        quantize_mode="int8",
        calibration_data_reader=Reader(job),
        calibration_method=job.options["method"],
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(job.output),
        log_level="ERROR",
    )


if __name__ == "__main__":
    run(quantize)
