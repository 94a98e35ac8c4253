r"""The container of a bundle: a zip file that can be written in one way only.

Every byte outside the entries' contents follows from the manifest:

* `manifest.json` comes first; the manifest lists the other entries in the order of `entry_order`.
* An entry is stored, not compressed, and its content starts at a multiple of 4096 bytes. The gap is
  the extra field of its local header: one alignment record (ID 0xD935, the Android Open Source
  Project's, which archivers skip) that says 4096 and is filled with zeros.
* There is no flag, comment, data descriptor, zip64 record or file attribute, versions are 1.0 on
  FAT (so that `unzip` sets usual permissions), and the date is 1 January 1980.
* The central directory and the end record follow the last content; nothing follows them.

A reader therefore parses no zip structure. It computes the file from the manifest and compares:
repeated names, `..`, links, bombs, overlaps, data before or behind, headers that contradict each
other are all simply not that file. Field layout: PKWARE's APPNOTE.TXT, 4.3.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from edge_runtime.errors import BundleError

ALIGNMENT = 4096
MANIFEST = "manifest.json"
MAX_MANIFEST = 16 << 20
MAX_ENTRIES = 1024
MAX_SIZE = 2**32 - 1
"""Largest bundle in bytes: what zip without zip64 can address."""

GRAPH = "graph.onnx"
CPU_GRAPH = "cpu.onnx"
CPU_FAST_GRAPH = "cpu_fast.onnx"
ENTRY_NAMES = (GRAPH, CPU_GRAPH, CPU_FAST_GRAPH, "calibration.json", "calibration.cache")
"""Names that an entry may have, beside `plans/<name>.plan`."""

_PLAN_NAME = re.compile(r"plans/[a-z0-9][a-z0-9._-]{0,199}\.plan")

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_PADDING = struct.Struct("<3H")
_LOCAL_SIGNATURE, _CENTRAL_SIGNATURE, _END_SIGNATURE = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_PADDING_ID = 0xD935
_VERSION = 10
_DATE = 1 << 5 | 1  # 1 January of year 0, which is 1980.
_CHECKSUM_AT = slice(14, 26)  # CRC-32 and both sizes in a local header.


@dataclass(frozen=True, slots=True)
class Entry:
    """What the manifest says of one file in the bundle.

    Attributes:
        name: Its name, one that `entry_order` takes.
        size: Bytes of its content; at least 1.
        crc32: CRC-32 of the content, for other people's unzip.
        sha256: SHA-256 of the content, 64 hexadecimal digits.
    """

    name: str
    size: int
    crc32: int
    sha256: str

    @classmethod
    def of(cls, name: str, content: bytes) -> Entry:
        """The entry of a content."""
        entry_order(name)
        if not content:
            raise BundleError(f"Entry {name!r} has no content; a bundle holds no empty entries.")
        return cls(name, len(content), zlib.crc32(content), hashlib.sha256(content).hexdigest())


def entry_order(name: str) -> tuple[int, str]:
    """Sorts entries as they stand in the file.

    Raises:
        BundleError: No entry may have this name.
    """
    if name in ENTRY_NAMES:
        return ENTRY_NAMES.index(name), name
    if not _PLAN_NAME.fullmatch(name):
        raise BundleError(
            f"{name!r} cannot be the name of a bundle's entry; it must be "
            f"{', '.join(ENTRY_NAMES)} or plans/NAME.plan, where NAME is of a-z 0-9 . _ -"
        )
    return len(ENTRY_NAMES), name


class Layout:
    """Where everything in a bundle stands.

    Attributes:
        frame: Offset, bytes and name of every piece outside the entries' contents. The manifest is
            part of the frame.
        offsets: Where each entry's content starts.
        size: Bytes of the whole file.
    """

    def __init__(self, manifest: bytes, entries: Sequence[Entry], where: str) -> None:
        """Computes it; `where` is the file, for messages.

        Raises:
            BundleError: The bundle would be larger than 4 GiB - 1, or its manifest than 16 MiB.
        """
        if len(manifest) > MAX_MANIFEST:
            raise BundleError(
                f"{where}: a manifest of {len(manifest)} bytes is too large; at most "
                f"{MAX_MANIFEST} are read. Shorten its precision report."
            )
        self.frame: list[tuple[int, bytes, str]] = []
        self.offsets: dict[str, int] = {}
        self._entries = tuple(entries)
        directory = []
        header = _local_header(MANIFEST, zlib.crc32(manifest), len(manifest), 0)
        self.frame.append((0, header + manifest, MANIFEST))
        directory.append(_central_header(MANIFEST, zlib.crc32(manifest), len(manifest), 0))
        end = len(header) + len(manifest)
        for entry in entries:
            directory.append(_central_header(entry.name, entry.crc32, entry.size, end))
            header = _local_header(entry.name, entry.crc32, entry.size, end)
            self.frame.append((end, header, f"the header of {entry.name}"))
            self.offsets[entry.name] = end + len(header)
            end += len(header) + entry.size
            _check_size(end, where)
        tail = b"".join(directory)
        count = len(directory)
        tail += _END.pack(_END_SIGNATURE, 0, 0, count, count, len(tail), end, 0)
        self.frame.append((end, tail, "the directory at the end"))
        self.size = end + len(tail)
        _check_size(self.size, where)

    def write(
        self, write: Callable[[bytes], object], content: Callable[[Entry], Iterable[bytes]]
    ) -> None:
        """Writes the file in order; `content` gives the chunks of an entry, as the entry says."""
        *pieces, (_, tail, _) = self.frame
        for (_, piece, _), entry in zip(pieces, (None, *self._entries), strict=True):
            write(piece)
            for chunk in content(entry) if entry else ():
                write(chunk)
        write(tail)

    def check(self, file: BinaryIO, where: str) -> None:
        """Compares a file with the layout, but for the entries' contents.

        Raises:
            BundleError: It differs.
        """
        size = os.fstat(file.fileno()).st_size
        if size < self.size:
            raise BundleError(
                f"{where} is truncated: it has {size} bytes where its manifest asks for "
                f"{self.size}. Copy it again."
            )
        if size > self.size:
            raise BundleError(
                f"{where} has {size} bytes where its manifest asks for {self.size}: something was "
                "appended. Copy or build it again."
            )
        for offset, piece, name in self.frame:
            file.seek(offset)
            if file.read(len(piece)) != piece:
                raise BundleError(
                    f"{where} is damaged or was changed by another program: {name} is not what "
                    "the manifest asks for. Copy or build it again."
                )


def read_manifest(file: BinaryIO, where: str) -> bytes:
    """Reads the manifest from the start of a file.

    Raises:
        BundleError: The file does not start as every bundle does, or the manifest's CRC-32 differs.
    """
    head = file.read(ALIGNMENT)
    start = _local_header(MANIFEST, 0, 0, 0)[: _CHECKSUM_AT.start]
    if head[: len(start)] != start[: len(head)] or not head:
        raise BundleError(f"{where} is not an edge_runtime bundle: {_what_else(head)}.")
    if len(head) < ALIGNMENT:
        raise BundleError(f"{where} is truncated: it has only {len(head)} bytes. Copy it again.")
    crc32, size, _ = struct.unpack("<3I", head[_CHECKSUM_AT])
    if head != _local_header(MANIFEST, crc32, size, 0):
        raise BundleError(
            f"{where} is not an edge_runtime bundle, or is damaged: its first header is not that "
            "of a stored manifest.json. Copy or build it again."
        )
    if size > MAX_MANIFEST:
        raise BundleError(
            f"{where} has a manifest of {size} bytes; at most {MAX_MANIFEST} are read. It is "
            "damaged: copy or build it again."
        )
    manifest = file.read(size)
    if len(manifest) < size:
        raise BundleError(f"{where} is truncated: it ends inside its manifest. Copy it again.")
    if zlib.crc32(manifest) != crc32:
        raise BundleError(
            f"{where} is damaged: the CRC-32 of its manifest is not what its header says. Copy or "
            "build it again."
        )
    return manifest


def _what_else(head: bytes) -> str:
    """What a file is that is not a bundle."""
    if not head:
        return "it is empty"
    if head.startswith(b"PK"):
        return "it is a zip file that another program wrote"
    # Field 1 of an ONNX ModelProto is ir_version, a small number; exporters write it first.
    if head[0] == 0x08 and head[1:2] and 0 < head[1] < 32:
        return "it looks like an ONNX model; build a bundle of it first with `edge-runtime build`"
    return f"it starts with {head[:8]!r} where a bundle starts with {_LOCAL_SIGNATURE!r}"


def _local_header(name: str, crc32: int, size: int, offset: int) -> bytes:
    """A local header at `offset`, padded so that the content behind it is aligned."""
    unpadded = offset + _LOCAL.size + len(name) + _PADDING.size
    zeros = -unpadded % ALIGNMENT
    return b"".join(
        (
            _LOCAL.pack(
                _LOCAL_SIGNATURE,
                *(_VERSION, 0, 0, 0, _DATE),  # version needed, flags, method, time, date
                *(crc32, size, size),
                *(len(name), _PADDING.size + zeros),
            ),
            name.encode("ascii"),
            _PADDING.pack(_PADDING_ID, 2 + zeros, ALIGNMENT),
            bytes(zeros),
        )
    )


def _central_header(name: str, crc32: int, size: int, offset: int) -> bytes:
    return _CENTRAL.pack(
        _CENTRAL_SIGNATURE,
        *(_VERSION, _VERSION, 0, 0, 0, _DATE),  # made by, needed, flags, method, time, date
        *(crc32, size, size),
        *(len(name), 0, 0, 0, 0),  # name, extra field, comment, disk, internal attributes
        *(0, offset),  # external attributes
    ) + name.encode("ascii")


def _check_size(size: int, where: str) -> None:
    if size > MAX_SIZE:
        raise BundleError(
            f"{where}: a bundle of {size} bytes or more is too large; the format ends at "
            "4 GiB - 1. Keep fewer plans in it."
        )
