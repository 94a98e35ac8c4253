"""What a picture file says about itself: its kind, size and orientation, before it is decoded.

Formats: JPEG, ITU-T T.81 annex B; PNG, W3C PNG 3rd edition, section 11; WebP, RFC 9649; BMP,
Microsoft BITMAPCOREHEADER and BITMAPINFOHEADER; orientation, EXIF 2.32 (CIPA DC-008), tag 0x0112.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from edge_runtime.errors import DataError

_ORIENTATION_TAG = 0x0112
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"  # between segments and in a scan, only the end is written so
# SOF0 to SOF15; 0xC4, 0xC8 and 0xCC among them are other segments.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class PictureHeader(NamedTuple):
    """Facts about a picture file.

    Attributes:
        kind: `jpeg`, `png`, `webp` or `bmp`.
        height: Rows as stored, before `orientation` is applied.
        width: Columns as stored.
        orientation: EXIF's number from 1 (as stored) to 8; 1 where the file has no valid one.
    """

    kind: str
    height: int
    width: int
    orientation: int


def read_header(data: bytes, name: str) -> PictureHeader:
    """Reads the header of a whole picture file; `name` is for the message.

    Raises:
        DataError: The file is empty, of another kind, or is cut off.
    """
    if not data:
        raise DataError(f"{name} is empty (0 bytes); remove it or copy it again.")
    if data.startswith(b"\xff\xd8"):
        reader = _jpeg
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        reader = _png
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        reader = _webp
    elif data.startswith(b"BM"):
        reader = _bmp
    else:
        raise DataError(f"{name} is not a JPEG, PNG, WebP or BMP picture; convert it, say to PNG.")
    try:
        return reader(data)
    except struct.error:
        raise DataError(
            f"{name} is a broken picture: it ends early; remove it or copy it again."
        ) from None


def _jpeg(data: bytes) -> PictureHeader:
    orientation, size, end = 1, None, 0
    for marker, start, length in _jpeg_segments(data):
        end = start + length
        if marker in _START_OF_FRAME:
            size = struct.unpack_from(">HH", data, start + 1)
        elif marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            orientation = _orientation(data[start + 6 : start + length])
    if size is None:
        raise struct.error("no frame header")
    # Some versions of OpenCV fill what is missing of a JPEG with gray and say nothing.
    if data.find(_END_OF_IMAGE, end) < 0:
        raise struct.error("no end marker")
    return PictureHeader("jpeg", size[0], size[1], orientation)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and length of each segment's content, up to the first scan."""
    at = 2
    while True:
        prefix, marker = struct.unpack_from("BB", data, at)
        if prefix != 0xFF or marker == _START_OF_SCAN:
            return
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield marker, at + 4, length - 2
        at += 2 + length


def _png(data: bytes) -> PictureHeader:
    width, height = struct.unpack_from(">II", data, 16)
    exif = b""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            exif = data[at + 8 : at + 8 + length]
        at += 12 + length
    return PictureHeader("png", height, width, _orientation(exif))


def _webp(data: bytes) -> PictureHeader:
    size = None
    exif = b""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        start = at + 8
        if kind == b"VP8X":
            low, high, low2, high2 = struct.unpack_from("<HBHB", data, start + 4)
            size = (low2 | high2 << 16) + 1, (low | high << 16) + 1
        elif kind == b"VP8 " and size is None:
            width, height = struct.unpack_from("<HH", data, start + 6)
            size = height & 0x3FFF, width & 0x3FFF
        elif kind == b"VP8L" and size is None:
            (bits,) = struct.unpack_from("<I", data, start + 1)
            size = (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
        elif kind == b"EXIF":
            exif = data[start : start + length].removeprefix(b"Exif\0\0")
        at = start + length + length % 2
    if size is None:
        raise struct.error("no VP8X, VP8 or VP8L chunk")
    return PictureHeader("webp", *size, _orientation(exif))


def _bmp(data: bytes) -> PictureHeader:
    (length,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", data, 18)
    return PictureHeader("bmp", abs(height), abs(width), 1)


def _orientation(exif: bytes) -> int:
    """The orientation in a TIFF block; 1 where that is missing or damaged, as every viewer does."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == _ORIENTATION_TAG:
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
