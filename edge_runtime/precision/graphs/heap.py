"""Keeps a process small: drops what was replaced in a model, gives freed memory back."""

from __future__ import annotations

import ctypes
import sys

from onnx import ModelProto


def compact(proto: ModelProto) -> ModelProto:
    """A copy to use instead of a model whose weights were replaced; drop the model after.

    Protobuf frees the memory of what was replaced with the whole message only.
    """
    release_memory()
    copy = ModelProto()
    copy.CopyFrom(proto)
    return copy


def release_memory() -> None:
    """Returns what was freed, as far as the C library can: a step before large new arrays are made.

    glibc keeps freed blocks for later ones of their size; whatever is above 32 MB, such as a whole
    serialised model, never comes from those and grows the process (mallopt(3), malloc_trim(3)).
    Does nothing with another C library.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(ctypes.c_size_t(0))
