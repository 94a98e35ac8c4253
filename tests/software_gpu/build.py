"""Builds the software GPU's `libcuda.so.1` with gcc, once per state of its sources."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "libcuda"
FLAGS = ["-std=gnu11", "-O2", "-g", "-fPIC", "-fvisibility=hidden", "-pthread", "-D_GNU_SOURCE"]
WARNINGS = ["-Wall", "-Wextra"]


def compiler() -> str | None:
    """The C compiler's path, or None where there is none."""
    return shutil.which(os.environ.get("CC", "gcc"))


def cache() -> Path:
    """The folder of built libraries."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "edge_runtime_software_gpu"


def build(*extra: str) -> Path:
    """The built library's path. `extra` are more flags for gcc, such as a sanitizer's."""
    names = [*sorted(SOURCES.glob("*.[ch]")), SOURCES / "unsupported.txt"]
    recipe = [*FLAGS, *WARNINGS, *extra, ctypes.sizeof(ctypes.c_void_p), os.uname().machine]
    digest = hashlib.sha256(repr(recipe).encode())
    for name in names:
        digest.update(name.read_bytes())
    target = cache() / digest.hexdigest()[:16] / "libcuda.so.1"
    if target.exists():
        return target
    gcc = compiler()
    if gcc is None:
        raise FileNotFoundError("gcc is missing: install a C compiler to build the software GPU")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        stubs = Path(work) / "unsupported.c"
        stubs.write_text(_stubs(names))
        files = [str(name) for name in names if name.suffix == ".c"]
        made = Path(work) / "libcuda.so.1"
        command = [gcc, *FLAGS, *WARNINGS, *extra, f"-I{SOURCES}", *files, str(stubs)]
        command += ["-shared", "-Wl,-soname,libcuda.so.1", "-o", str(made), "-ldl"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"gcc could not build the software GPU:\n{result.stderr}")
        made.replace(target)
    return target


def _stubs(names: list[Path]) -> str:
    """C code of the functions that exist only to say CUDA_ERROR_NOT_SUPPORTED."""
    code = "".join(name.read_text() for name in names if name.suffix == ".c")
    written = set(re.findall(r"\bENTRY\(\w+, (cu\w+)", code))
    written |= {f"cuMemsetD{bits}{form}" for bits in (8, 16, 32) for form in ("_v2", "Async")}
    wanted = sorted(set((SOURCES / "unsupported.txt").read_text().split()) - written)
    lines = [f"ENTRY(ANYTIME, {name}, (void), ()) {{ return NOT_SUPPORTED; }}" for name in wanted]
    return "\n".join(['#include "core.h"', *lines, ""])


if __name__ == "__main__":
    print(build())
