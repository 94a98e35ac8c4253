"""AIMET's QuantizationSimModel, symmetric throughout so that TensorRT can take the result."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import onnx
from aimet_onnx import QuantizationSimModel
from job import Job, run

SYMMETRIC = {
    "defaults": {
        "ops": {"is_output_quantized": "True", "is_symmetric": "True"},
        "params": {"is_quantized": "True", "is_symmetric": "True"},
        "strict_symmetric": "False",
        "per_channel_quantization": "True",
    },
    "params": {"bias": {"is_quantized": "False"}},
    "op_type": {},
    "supergroups": [
        {"op_list": [first, last]}
        for first in ("Conv", "ConvTranspose", "Gemm", "Add")
        for last in ("Relu", "Clip")
    ],
    "model_input": {"is_input_quantized": "True"},
    "model_output": {},
}


def quantize(job: Job) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(SYMMETRIC))
        model = QuantizationSimModel(
            onnx.load(job.model),
            quant_scheme=job.options["scheme"],
            config_file=str(config),
            providers=["CPUExecutionProvider"],
        )
        model.compute_encodings(job.feeds())
        onnx.save(
            model.to_onnx_qdq(force_activation_as="signed", prequantize_constants=True), job.output
        )


if __name__ == "__main__":
    run(quantize)
