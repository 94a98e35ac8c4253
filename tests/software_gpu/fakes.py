"""Fake TensorRTs for tests, made once for each version, since that takes a while."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

from tests.fakes import tensorrt
from tests.software_gpu.gpu import SoftwareGpu


def fake(version: str, gpu: SoftwareGpu, **options: Any) -> Any:
    """A fake TensorRT as new: no calls, no violations, and these options alone."""
    trt = _made(version, gpu)
    fresh = tensorrt.Options(**options)
    for field in fields(fresh):
        setattr(trt.options, field.name, getattr(fresh, field.name))
    trt.calls.clear()
    trt.violations.clear()
    return trt


@cache
def _made(version: str, gpu: SoftwareGpu) -> Any:
    return tensorrt.make(version, gpu)
