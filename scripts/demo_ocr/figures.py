"""Everything the demo measures, as plain JSON values."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import onnxruntime

import edge_runtime as er
from demo_ocr.detector import Array, prepare
from demo_ocr.measure import character_error_rate, matches, median_times
from demo_ocr.pictures import TRANSCRIPTION
from demo_ocr.reading import Reader, Reading
from demo_ocr.recogniser import batches, crop

ROUNDS = 7


def latency(page: Array, fp32: Reader, bundles: Reader, boxes: list[Array]) -> dict[str, Any]:
    """Median milliseconds of the networks alone, on the page and on the lines in `boxes`."""
    picture = prepare(page)
    lines = [array for _, array in batches([crop(page, corners) for corners in boxes])]
    detectors = [lambda n=n: n(picture) for n in (fp32.detector, bundles.detector)]
    recognisers = [
        lambda n=n: [n(array) for array in lines] for n in (fp32.recogniser, bundles.recogniser)
    ]
    times = median_times([*detectors, *recognisers], rounds=ROUNDS)
    return {
        "rounds": ROUNDS,
        "cores": os.cpu_count(),
        "onnxruntime": onnxruntime.__version__,
        "detector": {
            "inputs": [list(picture.shape)],
            "fp32_onnxruntime": round(times[0], 1),
            "int8_bundle_cpu": round(times[1], 1),
        },
        "recogniser": {
            "inputs": [list(array.shape) for array in lines],
            "fp32_onnxruntime": round(times[2], 1),
            "fp16_bundle_cpu": round(times[3], 1),
        },
    }


def agreement(fp32: Reading, bundles: Reading, same_boxes: list[str]) -> dict[str, Any]:
    """How far the bundles' reading is from that of FP32.

    Args:
        fp32: The FP32 models' reading.
        bundles: The bundles' reading.
        same_boxes: What the bundle's recogniser reads in the boxes of the FP32 detector.
    """
    pairs = matches(fp32.boxes, bundles.boxes)
    counterparts = {i: bundles.lines[j] for i, j, _ in pairs}
    return {
        "boxes": {
            "fp32": len(fp32.boxes),
            "int8": len(bundles.boxes),
            "matched": len(pairs),
            "mean_iou": statistics.fmean(value for _, _, value in pairs) if pairs else None,
        },
        "recogniser_alone": _lines(fp32.lines, dict(enumerate(same_boxes)), same_boxes),
        "both_bundles": _lines(fp32.lines, counterparts, bundles.lines),
    }


def _lines(reference: list[str], counterparts: dict[int, str], read: list[str]) -> dict[str, Any]:
    same = sum(counterparts.get(index) == line for index, line in enumerate(reference))
    return {
        "lines": len(reference),
        "identical_lines": same,
        "character_error_rate": character_error_rate(reference, read),
    }


def accuracy(fp32: Reading, bundles: Reading) -> dict[str, float]:
    """Character error rate of both against what stands on the page."""
    return {
        "fp32": character_error_rate(TRANSCRIPTION, fp32.lines),
        "bundles": character_error_rate(TRANSCRIPTION, bundles.lines),
    }


def bundle_facts(built: er.Bundle, model: Path) -> dict[str, Any]:
    """A bundle's file and the plans in it."""
    return {
        "path": str(built.path),
        "megabytes": round(built.path.stat().st_size / 1e6, 1),
        "model_megabytes": round(model.stat().st_size / 1e6, 1),
        "precision": built.precision.value,
        "plans": [str(key) for key in built.plans.values()],
        "no_plan": built.manifest.precision["no_plan"],
    }
