"""TensorRT's own calibration cache, a text file, read and written exactly.

    TRT-8401-EntropyCalibration2
    input: 3c010204
    (Unnamed Layer* 64) [Shuffle]_output: 40b7daf4
    always_zero: 0

The first line holds `NV_TENSORRT_VERSION` (`version_number`) and the calibrator. Each other line is
a tensor's name, `": "`, and the bits of an IEEE 754 binary32 as a big-endian hexadecimal number:
the scale, amax / 127. Names may hold colons and spaces, so a line is split at its last `": "`.
Zero is written as a bare `0`. NVIDIA documents no format; this is what the files of TensorRT 7 to
10 look like.

The file says neither which model nor which data it is of, so it is an interchange format only.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from statistics import median

from edge_runtime.errors import CalibrationCacheError
from edge_runtime.precision.ranging.calibration_cache import (
    MAX_BYTES,
    CalibrationCache,
    TensorRange,
)

_HEADER = re.compile(r"TRT-([0-9]{4,6})-([A-Za-z0-9]+)")
_FLOAT = struct.Struct(">f")

# Some programs write 127 / amax. One scale cannot tell: 127 may be an amax of 16129, or of 1. Many
# can: half of a network's tensors do not exceed 1000, but 127 / amax is above 8 where amax < 16.
_INVERTED_MEDIAN = 8.0
_INVERTED_COUNT = 8


@dataclass(frozen=True, slots=True)
class TrtCache:
    """A TensorRT calibration cache.

    Attributes:
        version: TensorRT's version as `version_number` gives it.
        algorithm: The calibrator, such as `EntropyCalibration2` or `MinMaxCalibration`.
        scales: The scale of each tensor, amax / 127, in the file's order; rounded to float32.
    """

    version: int
    algorithm: str
    scales: Mapping[str, float]

    def __post_init__(self) -> None:
        if not _HEADER.fullmatch(self._header()):
            raise CalibrationCacheError(
                f"{self._header()!r} is not a header of TensorRT's, such as "
                "TRT-100300-EntropyCalibration2."
            )
        scales = {}
        for name, scale in self.scales.items():
            if not name or re.search(r"[\n\r\0]", name):
                raise CalibrationCacheError(
                    f"TensorRT's calibration cache cannot hold a tensor named {name!r}."
                )
            scales[name] = _float32(name, scale)
        object.__setattr__(self, "scales", scales)

    @classmethod
    def parse(cls, text: str | bytes, *, where: str = "The calibration cache") -> TrtCache:
        """Reads a file's content.

        Args:
            text: The content.
            where: The file it is from, for messages.

        Raises:
            CalibrationCacheError: It is not of this format, or no calibrator can have written it: a
                name comes twice, a scale is negative, infinite, not a number or cut off, or the
                scales are inverted (at least 8 tensors, half of them with a range above 1000).
        """
        lines = _lines(text, where)
        header = _HEADER.fullmatch(lines[0])
        if not header:
            raise CalibrationCacheError(
                f"{where}: line 1 is {lines[0][:40]!r}; TensorRT's calibration cache starts with a "
                "line such as TRT-100300-EntropyCalibration2."
            )
        scales: dict[str, float] = {}
        for number, line in enumerate(lines[1:], 2):
            name, scale = _scale(line, f"{where}: line {number}")
            if name in scales:
                raise CalibrationCacheError(f"{where}: line {number}: {name!r} is there twice.")
            scales[name] = scale
        nonzero = [scale for scale in scales.values() if scale]
        if len(nonzero) >= _INVERTED_COUNT and median(nonzero) > _INVERTED_MEDIAN:
            raise CalibrationCacheError(
                f"{where}: half of the scales are above {_INVERTED_MEDIAN:g}, ranges above 1000; "
                "they look like 127 / amax where TensorRT writes amax / 127. Calibrate again."
            )
        return cls(int(header[1]), header[2], scales)

    def format(self) -> str:
        """The file's content; the inverse of `parse`, byte by byte for what TensorRT writes."""
        lines = [self._header()]
        for name, scale in self.scales.items():
            lines.append(f"{name}: {_FLOAT.pack(scale).hex() if scale else '0'}")
        return "\n".join(lines) + "\n"

    def to_ranges(self) -> dict[str, TensorRange]:
        """The range of each tensor; what was observed is unknown and taken to be the range."""
        return {name: TensorRange(127 * s, 127 * s) for name, s in self.scales.items()}

    @classmethod
    def from_cache(
        cls, cache: CalibrationCache, *, version: int, algorithm: str = "EntropyCalibration2"
    ) -> TrtCache:
        """The ranges of a cache of ours, sorted by name.

        Args:
            cache: The cache.
            version: TensorRT's, from `version_number`: it skips a file of another version.
            algorithm: The calibrator that is to read it.

        Raises:
            CalibrationCacheError: A name or a range cannot be written, or channels were equalized:
                the ranges are then those of another graph than TensorRT would read them for.
        """
        if cache.equalization:
            raise CalibrationCacheError(
                f"The channels of {len(cache.equalization)} tensors were equalized, so the ranges "
                "are not those of the ONNX file that TensorRT reads its cache for. Calibrate with "
                "--no-equalize for that."
            )
        scales = {name: bounds.amax / 127 for name, bounds in sorted(cache.ranges.items())}
        return cls(version, algorithm, scales)

    def _header(self) -> str:
        return f"TRT-{self.version}-{self.algorithm}"


def version_number(version: str) -> int:
    """`NV_TENSORRT_VERSION` of a version: 8.4.1 is 8401, 10.3.0 is 100300 (NvInferRuntimeBase.h).

    Raises:
        CalibrationCacheError: It is not of the form MAJOR.MINOR.PATCH; more may follow.
    """
    parts = re.match(r"([0-9]+)\.([0-9]+)\.([0-9]+)(?![0-9])", version)
    if not parts:
        raise CalibrationCacheError(
            f"{version!r} is not a version of TensorRT, such as 10.3.0 or 8.4.1."
        )
    major, minor, patch = map(int, parts.groups())
    return major * (10000 if major >= 10 else 1000) + minor * 100 + patch


def _lines(text: str | bytes, where: str) -> list[str]:
    if len(text) > MAX_BYTES:
        raise CalibrationCacheError(f"{where} is larger than {MAX_BYTES >> 20} MiB.")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError:
            raise CalibrationCacheError(f"{where} is not text.") from None
    if "\0" in text:
        raise CalibrationCacheError(f"{where} is not text.")
    if "\r" in text:
        raise CalibrationCacheError(
            f"{where} has the line ends of Windows; TensorRT writes those of Unix. Convert it."
        )
    return text.removesuffix("\n").split("\n")


def _scale(line: str, where: str) -> tuple[str, float]:
    name, colon, digits = line.rpartition(": ")
    if not name or not colon:
        raise CalibrationCacheError(f"{where} is {line[:80]!r}, not NAME: HEX.")
    # A number below 0x10000000 is a scale below 3e-29, which no tensor has: digits are missing.
    if digits != "0" and not re.fullmatch(r"[0-9a-fA-F]{8}", digits):
        raise CalibrationCacheError(
            f"{where}: the scale of {name!r} is {digits[:40]!r}; it must be 8 hexadecimal digits, "
            "or 0."
        )
    bits = int(digits, 16)
    scale: float = _FLOAT.unpack(bits.to_bytes(4, "big"))[0]
    if bits >> 31 or not isfinite(scale):
        raise CalibrationCacheError(
            f"{where}: the scale of {name!r} is {digits} ({scale}); it must be finite, at least 0."
        )
    return name, scale


def _float32(name: str, scale: float) -> float:
    try:
        rounded: float = _FLOAT.unpack(_FLOAT.pack(scale))[0]
    except OverflowError:
        rounded = float("inf")
    if not (isfinite(rounded) and rounded >= 0):
        raise CalibrationCacheError(
            f"The scale of {name!r} is {scale}; it must be at least 0 and fit in a float32."
        )
    return rounded
