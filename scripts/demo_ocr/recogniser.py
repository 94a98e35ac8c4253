"""From a box in a picture to its text: perspective crop, batches, CTC greedy decoding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx

from demo_ocr.detector import Array, Network

HEIGHT = 48
SMALLEST_WIDTH = 320
BATCH = 6
BLANK = 0


@dataclass(frozen=True)
class Text:
    """What the recogniser read in one box.

    Attributes:
        text: The characters.
        confidence: Mean probability of the characters kept, 0 to 1; 0 where there are none.
    """

    text: str
    confidence: float


def read_alphabet(model: Path) -> tuple[str, ...]:
    """The recogniser's classes: CTC's blank, the characters in the model's metadata, a space."""
    properties = {
        entry.key: entry.value
        for entry in onnx.load(str(model), load_external_data=False).metadata_props
    }
    return ("", *properties["character"].splitlines(), " ")


def crop(picture: Array, corners: Array) -> Array:
    """The inside of a box as an upright picture, uint8[h, w, 3].

    Args:
        picture: uint8[H, W, 3].
        corners: float32[4, 2], top left, top right, bottom right, bottom left.
    """
    top_left, top_right, bottom_right, bottom_left = corners
    width = max(_length(top_right - top_left), _length(bottom_right - bottom_left))
    height = max(_length(bottom_left - top_left), _length(bottom_right - top_right))
    to_flat = cv2.getPerspectiveTransform(corners, upright(width, height))
    straight = cv2.warpPerspective(
        picture, to_flat, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    # A box half as high again as it is wide holds a line that runs upwards.
    return np.rot90(straight) if height >= 1.5 * width else straight


def upright(width: int, height: int) -> Array:
    """The corners of a rectangle at the origin, as `Box` orders them: float32[4, 2]."""
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)


def _length(side: Array) -> int:
    return max(1, int(np.hypot(*side)))


def batches(lines: list[Array]) -> list[tuple[list[int], Array]]:
    """Groups lines of similar width into the recogniser's inputs.

    Args:
        lines: Pictures, uint8[h, w, 3] in BGR.

    Returns:
        For each batch the indices into `lines`, and float32[n, 3, 48, W] in -1..1, padded with 0.
    """
    widths = [int(np.ceil(HEIGHT * line.shape[1] / line.shape[0])) for line in lines]
    order = sorted(range(len(lines)), key=widths.__getitem__)
    result = []
    for start in range(0, len(order), BATCH):
        members = order[start : start + BATCH]
        widest = max(SMALLEST_WIDTH, widths[members[-1]])
        array = np.zeros((len(members), 3, HEIGHT, widest), np.float32)
        for row, member in enumerate(members):
            resized = cv2.resize(lines[member], (widths[member], HEIGHT)).astype(np.float32)
            array[row, :, :, : widths[member]] = (resized / 127.5 - 1).transpose(2, 0, 1)
        result.append((members, array))
    return result


def recognise(network: Network, lines: list[Array], alphabet: tuple[str, ...]) -> list[Text]:
    """The text of each line, in the order of `lines`, which are uint8[h, w, 3] in BGR."""
    texts = {}
    for members, array in batches(lines):
        for member, probabilities in zip(members, network(array), strict=True):
            texts[member] = ctc_greedy(probabilities, alphabet)
    return [texts[index] for index in range(len(lines))]


def ctc_greedy(probabilities: Array, alphabet: tuple[str, ...]) -> Text:
    """Best path decoding: the likeliest class of each step, repeats merged, blanks dropped.

    From Graves et al. 2006, "Connectionist Temporal Classification", section 3.2.

    Args:
        probabilities: float[steps, classes].
        alphabet: One string a class; class 0 is the blank.
    """
    best = probabilities.argmax(axis=1)
    starts = np.concatenate([[True], best[1:] != best[:-1]])
    kept = np.flatnonzero(starts & (best != BLANK))
    text = "".join(alphabet[index] for index in best[kept])
    confidence = float(probabilities[kept, best[kept]].mean()) if kept.size else 0.0
    return Text(text, confidence)
