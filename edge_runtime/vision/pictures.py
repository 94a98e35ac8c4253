"""Reads a picture file, and makes a picture an input tensor."""

from __future__ import annotations

import cv2
import numpy as np

from edge_runtime.errors import DataError
from edge_runtime.files import StrPath, read_file
from edge_runtime.tensors import Array
from edge_runtime.vision.picture_header import read_header
from edge_runtime.vision.preprocess import Placement, Preprocessing

Picture = Array
"""uint8: height x width x 3 channels, blue first, as OpenCV has them."""

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: a small file may unpack to gigabytes."""
MAX_BYTES = 1 << 30
"""Larger files are refused before they are read."""

_INTERPOLATION = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}


def read_picture(path: StrPath) -> Picture:
    """Reads a JPEG, PNG, WebP or BMP file as it is meant to be seen.

    The EXIF orientation is applied. Transparent pixels lie on white. 16-bit values are rounded to
    8 bits; gray becomes three equal channels; an animation gives its first frame.

    Returns:
        A new uint8 array [height, width, 3], BGR, contiguous, owned by the caller.

    Raises:
        DataError: The file cannot be read, is broken or of another kind, has more than `MAX_BYTES`
            bytes, or the picture has more than `MAX_PIXELS` pixels.
    """
    data = read_file(path, limit=MAX_BYTES, error=DataError)
    header = read_header(data, str(path))
    if header.height * header.width > MAX_PIXELS:
        raise DataError(
            f"{path} is a picture of {header.width}x{header.height} pixels; more than "
            f"{MAX_PIXELS // 1_000_000} million are refused. Scale it down."
        )
    # The fourth channel of a BMP is mostly unused and 0. The others are decoded as they are stored:
    # that keeps alpha and 16 bits, and leaves the orientation to us.
    flags = cv2.IMREAD_COLOR if header.kind == "bmp" else cv2.IMREAD_UNCHANGED
    try:
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        stored = None
    if stored is None or stored.size == 0:
        raise DataError(
            f"{path} is a broken {header.kind.upper()} picture; remove it or copy it again."
        )
    picture = _on_white(_as_bgr(_as_8_bits(stored)))
    return np.ascontiguousarray(_oriented(picture, header.orientation))


def to_tensor(picture: Picture, preprocessing: Preprocessing) -> Array:
    """Makes a picture an input tensor; see `Preprocessing` for the formula.

    Values are computed in double precision and rounded once to the tensor's type.

    Args:
        picture: uint8 [height, width, 3], BGR; is only read.
        preprocessing: What the model wants.

    Returns:
        A new contiguous array [1, C, H, W] or [1, H, W, C], owned by the caller.

    Raises:
        DataError: `picture` is no such array, or is so narrow that resizing it would take more than
            `MAX_PIXELS` pixels.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise DataError(
            f"A picture must be uint8[height, width, 3] with the channels blue, green, red, "
            f"but is {picture.dtype.name}{list(picture.shape)}."
        )
    height, width = picture.shape[:2]
    placement = preprocessing.place(height, width)
    if placement.resized[0] * placement.resized[1] > MAX_PIXELS:
        raise DataError(
            f"A picture of {width}x{height} pixels is too narrow for "
            f"resize={preprocessing.resize}: its sides would become "
            f"{placement.resized[1]}x{placement.resized[0]}. Leave it out or cut it."
        )
    pixels = _placed(_resized(picture, placement, preprocessing), placement, preprocessing.pad)
    if preprocessing.color == "gray":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)[..., None]
    elif preprocessing.color == "rgb":
        pixels = pixels[..., ::-1]
    levels = np.arange(256)[:, None] * preprocessing.scale
    values = ((levels - preprocessing.mean) / preprocessing.std).astype(preprocessing.dtype)
    planes = [values[:, c][pixels[..., c]] for c in range(preprocessing.channels)]
    return np.stack(planes, axis=0 if preprocessing.layout == "nchw" else -1)[None]


def _as_8_bits(stored: Array) -> Picture:
    # 65535 / 255 = 257. No value lies halfway, so that the rounding is exact.
    return stored if stored.dtype == np.uint8 else cv2.convertScaleAbs(stored, alpha=1 / 257)


def _as_bgr(picture: Picture) -> Picture:
    return cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if picture.ndim == 2 else picture


def _on_white(picture: Picture) -> Picture:
    if picture.shape[2] == 3:
        return picture
    color, alpha = picture[..., :3].astype(np.uint16), picture[..., 3:].astype(np.uint16)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _oriented(picture: Picture, orientation: int) -> Picture:
    """Applies EXIF's orientation: 5 to 8 swap the sides, then rows or columns are reversed."""
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return picture


def _resized(picture: Picture, placement: Placement, preprocessing: Preprocessing) -> Picture:
    height, width = placement.resized
    interpolation = _INTERPOLATION[preprocessing.interpolation]
    return cv2.resize(picture, (width, height), interpolation=interpolation)


def _placed(picture: Picture, placement: Placement, pad: int) -> Picture:
    """Cuts or pads a resized picture to the size of the input."""
    (rows, columns), (height, width), top, left = placement
    if (rows, columns) == (height, width):
        return picture
    cut = picture[max(0, -top) : height - top, max(0, -left) : width - left]
    placed = np.full((height, width, 3), pad, np.uint8)
    top, left = max(0, top), max(0, left)
    placed[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return placed
