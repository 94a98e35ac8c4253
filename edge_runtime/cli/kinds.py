"""Tells the kinds of file apart by their first bytes; a name's ending says nothing."""

from __future__ import annotations

from enum import Enum

from edge_runtime.errors import ModelError
from edge_runtime.files import StrPath, open_file


class Kind(Enum):
    """What a file seems to be. Whether it is sound, its reader says."""

    BUNDLE = "bundle"
    CALIBRATION = "calibration"
    TENSORRT_CACHE = "tensorrt-cache"
    MODEL = "model"


def file_kind(path: StrPath) -> Kind:
    """The kind of a file; what is none of the others may be a model, as ONNX has no magic number.

    Raises:
        ModelError: It cannot be read, or is an archive of another program.
    """
    with open_file(path, error=ModelError) as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        if not head.startswith(b"manifest.json", 30):  # A zip's first name (APPNOTE.TXT 4.3.7).
            raise ModelError(
                f"{path} is a zip archive, but not a bundle. PyTorch's checkpoints and NumPy's "
                ".npz are such archives; export a checkpoint with torch.onnx.export."
            )
        return Kind.BUNDLE
    if head.startswith(b"TRT-"):
        return Kind.TENSORRT_CACHE
    if head.lstrip().startswith(b"{"):
        return Kind.CALIBRATION
    return Kind.MODEL
