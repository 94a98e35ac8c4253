"""Serialised engines: the real 64-byte header, then JSON and the graph.

Header, little-endian: `ftrt` or `vtrt`, u32 0, at 24 four version bytes (trtexec
--getPlanVersionOnly reads these); TensorRT-RTX: at 16 u64 the length, at 32 u64 a bit for each
architecture [found by comparing plans].
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

HEADER = 64
ARCHITECTURES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")


@dataclass(frozen=True)
class Plan:
    """What a plan holds: `settings` is plain JSON, see `builder.settings`."""

    settings: dict[str, Any]
    graph: bytes


def write(version: tuple[int, ...], rtx: bool, settings: dict[str, Any], graph: bytes) -> bytes:
    """A plan's bytes."""
    text = json.dumps(settings, sort_keys=True).encode()
    body = struct.pack("<I", len(text)) + text + graph
    header = bytearray(HEADER)
    header[:4] = b"vtrt" if rtx else b"ftrt"
    header[24:28] = bytes(version)
    if rtx:
        targets = settings["targets"] or ARCHITECTURES[1:]
        mask = sum(1 << ARCHITECTURES.index(name) for name in targets)
        struct.pack_into("<Q", header, 16, HEADER + len(body))
        struct.pack_into("<Q", header, 32, mask)
    return bytes(header) + body


def read(data: bytes, version: tuple[int, ...], rtx: bool) -> Plan:
    """A plan from its bytes.

    Raises:
        ValueError: With the line that the real library logs.
    """
    if len(data) < HEADER:
        raise ValueError("Assertion bufferSize >= minBufferSize failed.")
    magic = b"vtrt" if rtx else b"ftrt"
    if data[:4] != magic:
        found, wanted = (int.from_bytes(tag, "little") for tag in (data[:4], magic))
        raise ValueError(
            "Error Code 1: Serialization (Serialization assertion header.magicTag == "
            "kEXPECTED_MAGIC_TAG failed.Trying to load an engine created with incompatible "
            f"serialization version ({found} != {wanted}).)"
        )
    # The text of TensorRT 10; a version-compatible plan also loads in a newer one [doc].
    other, (size,) = data[24:28], struct.unpack_from("<I", data, HEADER)
    try:
        text, graph = data[HEADER + 4 : HEADER + 4 + size], data[HEADER + 4 + size :]
        settings = json.loads(text)
    except ValueError:
        raise ValueError("Error Code 1: Serialization (the plan is cut off or damaged)") from None
    newer = settings["version_compatible"] and tuple(other) <= tuple(version)
    if other != bytes(version) and not newer:
        raise ValueError(
            "Error Code 1: Serialization (Serialization assertion stdVersionRead == "
            "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: "
            f"{'.'.join(map(str, version))}, Serialized Engine Version: "
            f"{'.'.join(map(str, other))})"
        )
    if len(graph) != settings["graph_bytes"]:
        raise ValueError(
            "Error Code 1: Serialization (Serialization assertion plan.header.size == "
            "blobSize failed.)"
        )
    return Plan(settings, graph)
