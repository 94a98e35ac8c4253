"""PP-OCRv4's text recogniser, and lines of print whose text is known because they are set here.

Sentences of Python's own reference in nine fonts of Debian, several sizes and colours, some blurred
or noisy. The lines that calibrate are others than those that are read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from accuracy.fetch import debian
from accuracy.prepare.minilm import sentences
from accuracy.prepare.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from demo_ocr.fetch import RECOGNISER, fetch

FONTS = {
    "fonts-dejavu-core": ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf"),
    "fonts-liberation": (
        "LiberationSans-Regular.ttf",
        "LiberationSerif-Italic.ttf",
        "LiberationMono-Bold.ttf",
    ),
    "fonts-freefont-ttf": ("FreeSans.ttf", "FreeSerif.ttf", "FreeSerifBold.ttf"),
}
HEIGHT, SMALLEST_WIDTH = 48, 320
CALIBRATION, TEST, GUARD = 64, 300, 48
LONGEST = 44


def lines(count: int) -> list[str]:
    """Parts of sentences, cut at a space, 12 to 44 characters long."""
    result = []
    for sentence in sentences():
        text = sentence[:LONGEST].rpartition(" ")[0]
        if len(text) >= 12 and text.isascii():
            result.append(text)
    return result[:count]


def draw(text: str, font: Path, random: np.random.Generator) -> np.ndarray:
    """A line of print as a picture, uint8 [h, w, 3]."""
    size = int(random.integers(14, 44))
    face = ImageFont.truetype(str(font), size)
    left, top, right, bottom = face.getbbox(text)
    margin = int(random.integers(2, 7))
    paper, ink = int(random.integers(190, 256)), int(random.integers(0, 90))
    box = (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin)
    picture = Image.new("RGB", box, (paper, paper, int(paper * random.uniform(0.85, 1))))
    ImageDraw.Draw(picture).text((margin - left, margin - top), text, (ink, ink, ink), face)
    if random.random() < 0.4:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.3, size / 24)))
    noise = random.normal(0, random.choice([0, 4, 12]), np.asarray(picture).shape)
    return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)


def as_input(picture: np.ndarray) -> np.ndarray:
    """float32 [1, 3, 48, W] in BGR, -1 to 1, at least 320 wide and padded with 0 on the right."""
    width = int(np.ceil(HEIGHT * picture.shape[1] / picture.shape[0]))
    resized = Image.fromarray(picture).resize((width, HEIGHT), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.float32)[:, :, ::-1].transpose(2, 0, 1) / np.float32(127.5) - 1
    array = np.zeros((1, 3, HEIGHT, max(width, SMALLEST_WIDTH)), np.float32)
    array[0, :, :, :width] = pixels
    return array


def prepare(store: Store, downloads: Path) -> None:
    cache = downloads.parents[1] / "demo"  # The demo's, which has this model as well.
    fetch(cache, lambda *_: None)
    store.model.write_bytes((cache / RECOGNISER).read_bytes())
    fonts = [
        next(debian(package, downloads).rglob(name))
        for package, names in FONTS.items()
        for name in names
    ]
    random = np.random.default_rng(0)
    texts = lines(CALIBRATION + TEST + GUARD)
    for index, text in enumerate(texts):
        array = as_input(draw(text, fonts[index % len(fonts)], random))
        if index < CALIBRATION:
            store.calibration({"x": array})
        elif index < CALIBRATION + TEST:
            store.test({"x": array})
        else:
            store.guard({"x": array})
    properties = {entry.key: entry.value for entry in onnx.load(store.model).metadata_props}
    store.truth = {
        "texts": texts[CALIBRATION : CALIBRATION + TEST],
        "alphabet": ["", *properties["character"].splitlines(), " "],
    }
    store.about = (
        f"{TEST} lines of print, set in {len(fonts)} fonts; calibrated on {CALIBRATION} others"
    )
