"""Reads the first 64 bytes of a plan: whose it is, its version, length and GPU architectures.

Layout, little-endian (the first three are read by NVIDIA's trtexec, `--getPlanVersionOnly`):

    0   4 bytes   `ftrt` TensorRT, `vtrt` TensorRT-RTX
    4   u32       version of the serialisation
    24  4 bytes   version of the library: major, minor, patch, build
    16  u64       TensorRT-RTX: length of the plan
    32  u64       TensorRT-RTX: a bit for each GPU architecture, see `_ARCHITECTURES`

NVIDIA documents none of TensorRT-RTX's fields: they were found by comparing plans of 1.7.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edge_runtime.errors import BundleError

HEADER_BYTES = 64
_KINDS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt-rtx"}
_ARCHITECTURES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")  # From bit 0 upward.


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What the header of a plan says.

    Attributes:
        kind: `tensorrt` or `tensorrt-rtx`.
        version: Version of the library that built it, such as `1.7.1.116`.
        size: Length of the whole plan in bytes; None where the header does not say (TensorRT).
        compute_capabilities: GPU architectures it runs on, such as `sm86`; None where the header
            does not say (TensorRT).
    """

    kind: str
    version: str
    size: int | None
    compute_capabilities: tuple[str, ...] | None


def read_plan_header(data: bytes | memoryview) -> PlanHeader:
    """Reads the header of a plan, and compares the length it gives with that of `data`.

    Raises:
        BundleError: The bytes are no plan, or the plan is cut off.
    """
    head = bytes(data[:HEADER_BYTES])
    kind = _KINDS.get(head[:4])
    if kind is None:
        raise BundleError(
            f"These {len(data)} bytes are not a TensorRT plan: they start with {head[:4]!r} "
            "instead of b'ftrt' or b'vtrt'."
        )
    if len(head) < HEADER_BYTES:
        raise BundleError(f"A plan of {len(data)} bytes is cut off: its header has {HEADER_BYTES}.")
    version = ".".join(map(str, head[24:28]))
    if kind == "tensorrt":
        return PlanHeader(kind, version, None, None)
    (size,) = struct.unpack_from("<Q", head, 16)
    (mask,) = struct.unpack_from("<Q", head, 32)
    if size != len(data):
        raise BundleError(f"A plan of {len(data)} bytes is damaged: its header says {size}.")
    names = tuple(name for bit, name in enumerate(_ARCHITECTURES) if mask >> bit & 1)
    return PlanHeader(kind, version, size, names)
