"""Runs a bundle on the device and on the CPU: do they agree, and how long does a call take?

Latency is the simplest there is: one picture, one context, 20 calls to warm up and 500 that count,
each from the host's arrays to the host's arrays. Figures go to a file beside the bundle.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

import edge_runtime as er

BATCH = 30


def main() -> int:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="an .npz with the input `image`")
    parser.add_argument("--device", default="tensorrt")
    parser.add_argument("--fail-below", type=float, default=0.0, metavar="DB")
    given = parser.parse_args()
    with np.load(given.data) as arrays:
        pictures = arrays["image"]
    decibels, top1 = _agreement(given.bundle, pictures, given.device)
    figures = {
        "sqnr_db": decibels if np.isfinite(decibels) else str(decibels),
        "same_top1": top1,
        "milliseconds": {
            device: _latency(given.bundle, pictures[:1], device)
            for device in dict.fromkeys((given.device, "cpu"))
        },
    }
    given.bundle.with_suffix(".json").write_text(json.dumps(figures), encoding="utf-8")
    print(json.dumps(figures, indent=1))
    if not decibels >= given.fail_below:  # Not a number is no agreement either.
        print(f"{given.device} is {decibels:.1f} dB from cpu; {given.fail_below:g} were expected.")
        return 1
    return 0


def _agreement(bundle: Path, pictures: np.ndarray, device: str) -> tuple[float, float]:
    """Signal to noise of the device's logits against the CPU's in dB, and the share of same digits.

    The first is infinite where they are equal.
    """
    starts = range(0, len(pictures), BATCH)
    with er.load(bundle, device=device) as session, er.load(bundle, device="cpu") as twin:
        found, expected = (
            np.concatenate([each.run({"image": pictures[s : s + BATCH]})["logits"] for s in starts])
            for each in (session, twin)
        )
    noise = float(((expected.astype(np.float64) - found) ** 2).sum())
    signal = float((expected.astype(np.float64) ** 2).sum())
    same = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return (10 * float(np.log10(signal / noise)) if noise else float("inf")), same


def _latency(bundle: Path, picture: np.ndarray, device: str) -> dict[str, float]:
    seconds = []
    with er.load(bundle, device=device) as session:
        for _ in range(520):
            start = time.perf_counter()
            session.run({"image": picture})
            seconds.append(time.perf_counter() - start)
    counted = np.sort(seconds[20:]) * 1e3
    return {f"p{share}": round(float(np.percentile(counted, share)), 4) for share in (50, 95, 99)}


if __name__ == "__main__":
    sys.exit(main())
