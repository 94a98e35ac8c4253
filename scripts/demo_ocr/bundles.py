"""Builds the two bundles with edge_runtime's public API."""

from __future__ import annotations

from pathlib import Path

import edge_runtime as er
from demo_ocr.fetch import DETECTOR, RECOGNISER, Progress

# The shapes that a TensorRT plan is built for: smallest, usual (the page's) and largest.
DETECTOR_CONFIG = er.BuildConfig(
    precision="int8", profiles={"x": "1x3x448x448,1x3x448x896,1x3x1920x1920"}
)
RECOGNISER_CONFIG = er.BuildConfig(
    precision="fp16", profiles={"x": "1x3x48x320,6x3x48x960,6x3x48x1920"}
)
DETECTOR_INPUT = er.Preprocessing(
    size=1920, resize="fit", multiple=32, color="bgr", scale=1 / 255, mean=0.5, std=0.5
)


def build_detector(cache: Path, pictures: Path, output: Path, progress: Progress) -> er.Bundle:
    """The detector in INT8, calibrated on a folder of pictures."""
    return er.build(
        cache / DETECTOR,
        DETECTOR_CONFIG,
        calibration=er.ImageFolder(pictures, DETECTOR_INPUT),
        output=output,
        progress=lambda what, done, total: progress(f"Detector, INT8: {what}", done, total),
    )


def build_recogniser(cache: Path, output: Path, progress: Progress) -> er.Bundle:
    """The recogniser in FP16, which needs no calibration."""
    return er.build(
        cache / RECOGNISER,
        RECOGNISER_CONFIG,
        output=output,
        progress=lambda what, done, total: progress(f"Recogniser, FP16: {what}", done, total),
    )
