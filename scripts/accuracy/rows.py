"""The rows of the benchmark: networks, what is measured on them, and how TensorRT gets them."""

from __future__ import annotations

from dataclasses import dataclass, field

Shapes = dict[str, list[list[int]]]


@dataclass(frozen=True)
class Row:
    """A network with its data.

    Attributes:
        name: The module of `accuracy.prepare` that makes it, and its folder in the cache.
        title: What stands above its table.
        recipe: The folder of `engines` with its recipe; empty if there is none.
        measure: What a sample's score is.
        decisive: What decides which tool is best: `score` or `sqnr`.
        profile: For each input with a dynamic axis its least, usual and largest shape.
        timed_only: Whether only time and memory are of interest.
        transformer: Whether NNCF is told so, as it asks.
    """

    name: str
    title: str
    recipe: str = ""
    measure: str = "top-1"
    decisive: str = "score"
    profile: Shapes = field(default_factory=dict)
    timed_only: bool = False
    transformer: bool = False


_SMALL = [[1, 1, 28, 28], [1, 1, 28, 28], [8, 1, 28, 28]]

ROWS = (
    Row("fashion", "Fashion-MNIST, plain net", "fashion", profile={"image": _SMALL}),
    Row(
        "fashion_mobile",
        "Fashion-MNIST, MobileNet-like net",
        "fashion_mobile",
        profile={"image": _SMALL},
    ),
    Row("efficientnet_lite0", "EfficientNet-lite0", "efficientnet_lite0"),
    Row(
        "ppocr_rec",
        "PP-OCRv4 recogniser",
        "ppocr_rec_int8",
        measure="lines right",
        profile={"x": [[1, 3, 48, 320], [1, 3, 48, 640], [1, 3, 48, 1920]]},
    ),
    Row(
        "imbalanced",
        "Digits net with imbalanced channels",
        "digits_imbalanced",
        decisive="sqnr",
        profile={"image": [[1, 1, 16, 16], [1, 1, 16, 16], [8, 1, 16, 16]]},
    ),
    Row(
        "minilm",
        "MiniLM sentence embedding",
        "minilm",
        measure="cosine with FP32",
        transformer=True,
    ),
    Row("resnet50", "ResNet-50: time and memory", timed_only=True),
)
