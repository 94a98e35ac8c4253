"""Reads a scanned page with an INT8 text detector and an FP16 recogniser, beside FP32."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import onnxruntime
from rich.console import Console

import edge_runtime as er
from demo_ocr import bundles, figures
from demo_ocr.detector import Network
from demo_ocr.draw import annotate
from demo_ocr.fetch import DETECTOR, RECOGNISER, FetchError, fetch
from demo_ocr.pictures import read_page, write_calibration_pictures
from demo_ocr.reading import Reader
from demo_ocr.recogniser import read_alphabet
from demo_ocr.report import Steps, print_report

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Runs the demo; the exit code is 1 where it could not."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=ROOT / "build" / "demo",
        help="where demo.png and the bundles go (default: build/demo in the repository)",
    )
    arguments = parser.parse_args()
    try:
        with Steps(Console(stderr=True)) as steps:
            result = run(ROOT / ".cache" / "demo", arguments.output, steps)
    except (FetchError, er.EdgeRuntimeError, OSError) as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        print_report(result, Console())
    return 0


def run(cache: Path, output: Path, steps: Steps) -> dict[str, Any]:
    """Fetches, builds, reads and measures; the figures as plain JSON values."""
    output.mkdir(parents=True, exist_ok=True)
    # What NVIDIA's builder remarks on goes here, and would break the list of steps.
    logging.basicConfig(filename=output / "demo.log", filemode="w", level=logging.INFO)
    fetch(cache, steps)
    page = read_page(cache)
    pictures = write_calibration_pictures(cache)
    detector = bundles.build_detector(cache, pictures, output / "detector.edge", steps)
    recogniser = bundles.build_recogniser(cache, output / "recogniser.edge", steps)
    alphabet = read_alphabet(cache / RECOGNISER)
    with ExitStack() as stack:
        reader = Reader(
            bundle_network(stack.enter_context(er.load(detector, device="cpu"))),
            bundle_network(stack.enter_context(er.load(recogniser, device="cpu"))),
            alphabet,
        )
        fp32 = Reader(fp32_network(cache / DETECTOR), fp32_network(cache / RECOGNISER), alphabet)
        reading = steps.step("Reading with the bundles", lambda: reader.read(page))
        wanted = steps.step("Reading with the FP32 models", lambda: fp32.read(page))
        same_boxes = reader.read_boxes(page, wanted.boxes)
        latency = steps.step(
            "Measuring latency", lambda: figures.latency(page, fp32, reader, wanted.boxes)
        )
    picture = output / "demo.png"
    _, png = cv2.imencode(".png", annotate(page, reading.boxes, reading.lines))
    picture.write_bytes(png.tobytes())
    return {
        "text": {"fp32": wanted.lines, "bundles": reading.lines},
        "agreement": figures.agreement(wanted, reading, same_boxes),
        "accuracy": figures.accuracy(wanted, reading),
        "latency_ms": latency,
        "bundles": {
            "detector": figures.bundle_facts(detector, cache / DETECTOR),
            "recogniser": figures.bundle_facts(recogniser, cache / RECOGNISER),
        },
        "picture": str(picture),
    }


def fp32_network(model: Path) -> Network:
    """A published FP32 model in plain ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda array: session.run(None, {name: array})[0]


def bundle_network(session: er.Session) -> Network:
    """A bundle with one input and one output."""
    (source,), (target,) = session.inputs, session.outputs
    return lambda array: session.run({source.name: array})[target.name]


if __name__ == "__main__":
    sys.exit(main())
