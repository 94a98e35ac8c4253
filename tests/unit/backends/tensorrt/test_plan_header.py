"""The header of a plan: what it says, and that no bytes confuse its reader."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.backends.tensorrt.plan_header import HEADER_BYTES, PlanHeader, read_plan_header
from edge_runtime.errors import BundleError

# The first 64 bytes of a plan that TensorRT-RTX 1.7.1.116 built for sm86, 266196 bytes long.
REAL = bytes.fromhex(
    "76747274000000000200000000000000d40f0400000000000107017476747274"
    "040000000000000000000000000000000000000000000000b002000000000000"
)


def plan(
    tag: bytes = b"vtrt", *, size: int = 100, mask: int = 4, claimed: int | None = None
) -> bytes:
    head = bytearray(REAL)
    head[:4] = tag
    struct.pack_into("<Q", head, 16, size if claimed is None else claimed)
    struct.pack_into("<Q", head, 32, mask)
    return bytes(head).ljust(size, b"\0")


def test_a_real_rtx_plan() -> None:
    header = read_plan_header(REAL.ljust(266196, b"\0"))
    assert header == PlanHeader("tensorrt-rtx", "1.7.1.116", 266196, ("sm86",))


def test_a_tensorrt_plan_gives_its_version_only() -> None:
    header = read_plan_header(plan(b"ftrt", claimed=7))
    assert header == PlanHeader("tensorrt", "1.7.1.116", None, None)


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        (0, ()),
        (0b000001, ("sm75",)),
        (0b1111110, ("sm80", "sm86", "sm89", "sm120", "sm121")),
        (1 << 63, ()),
    ],
)
def test_architectures(mask: int, names: tuple[str, ...]) -> None:
    assert read_plan_header(plan(mask=mask)).compute_capabilities == names


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes are not a TensorRT plan"),
        (b"hello world" * 10, "start with b'hell'"),
        (REAL[:40], "cut off"),
        (REAL, "its header says 266196"),
        (plan(claimed=99), "its header says 99"),
    ],
)
def test_what_is_no_whole_plan_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        read_plan_header(data)


@given(st.sampled_from([b"", b"ftrt", b"vtrt"]), st.binary(max_size=3 * HEADER_BYTES))
def test_any_bytes_are_read_or_refused(tag: bytes, rest: bytes) -> None:
    try:
        header = read_plan_header(memoryview(tag + rest))
    except BundleError:
        return
    assert header.kind in ("tensorrt", "tensorrt-rtx")
    assert header.size in (None, len(tag + rest))


@given(st.integers(HEADER_BYTES, 300), st.integers(0, 2**64 - 1))
def test_a_plan_cut_anywhere_is_refused(size: int, mask: int) -> None:
    whole = plan(size=size, mask=mask)
    assert read_plan_header(whole).size == size
    for end in (size - 1, HEADER_BYTES - 1, 5):
        with pytest.raises(BundleError):
            read_plan_header(whole[:end])
