"""What each test sample scores: the kinds of tasks, and how an output is judged in each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from demo_ocr.measure import edit_distance
from demo_ocr.recogniser import ctc_greedy

Array = np.ndarray
Judge = Callable[[int, Array, Array], dict[str, float]]
"""Number of the sample, FP32's output for it and the output to judge, to named figures."""


def judge_for(truth: dict[str, Any]) -> Judge:
    """How outputs are judged against what `row.json` says is true."""
    if "labels" in truth:
        return _classes(truth["labels"])
    if "texts" in truth:
        return _texts(truth["texts"], tuple(truth["alphabet"]))
    return _embedding


def _classes(labels: list[list[int]]) -> Judge:
    def judge(index: int, reference: Array, found: Array) -> dict[str, float]:
        best = int(found.argmax())
        return {
            "score": float(best in labels[index]),
            "same": float(best == int(reference.argmax())),
        }

    return judge


def _texts(texts: list[str], alphabet: tuple[str, ...]) -> Judge:
    """Whole lines right, without regard to spaces, which PaddleOCR's own measure leaves out too."""

    def read(probabilities: Array) -> str:
        return ctc_greedy(probabilities, alphabet).text.replace(" ", "")

    def judge(index: int, reference: Array, found: Array) -> dict[str, float]:
        wanted, text = texts[index].replace(" ", ""), read(found)
        return {
            "score": float(text == wanted),
            "same": float(text == read(reference)),
            "errors": float(edit_distance(wanted, text)),
            "length": float(len(wanted)),
        }

    return judge


def _embedding(index: int, reference: Array, found: Array) -> dict[str, float]:
    del index  # What is true is FP32's embedding.
    a, b = reference.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    return {"score": float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))}
