"""Builds pycuda's wheel on a machine without a GPU and without the CUDA toolkit.

    python tests/software_gpu/pycuda_wheel.py FOLDER

Puts a wheel for this Python into FOLDER, unless it is there already, and prints its path. It takes
some minutes and needs a C++ compiler and Python's headers. CUDA's own headers come from the wheel
`nvidia-cuda-runtime-cu12`; `libcuda.so` only has to exist while linking, so an empty one stands in.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

PYCUDA = "2026.1"
HEADERS = "12.9.79"  # Newer than any pycuda API; 12.9 is what JetPack 6's bindings are made from.

SITECONF = """
CUDA_ROOT = {root!r}
CUDA_INC_DIR = [{include!r}]
CUDADRV_LIB_DIR = [{lib!r}]
CUDA_ENABLE_CURAND = False
CUDA_ENABLE_GL = False
CXXFLAGS = ["-w", "-O1"]
LDFLAGS = ["-Wl,--no-as-needed", {libcuda!r}]  # though nothing is seen to need it
"""

# The wheel lacks this header of the toolkit; pycuda calls these functions of it.
PROFILER = """
#pragma once
#include <cuda.h>
#ifdef __cplusplus
extern "C" {
#endif
typedef enum { CU_OUT_KEY_VALUE_PAIR, CU_OUT_CSV } CUoutput_mode;
CUresult CUDAAPI cuProfilerInitialize(const char *config, const char *output, CUoutput_mode mode);
CUresult CUDAAPI cuProfilerStart(void);
CUresult CUDAAPI cuProfilerStop(void);
#ifdef __cplusplus
}
#endif
"""


def wheel(folder: Path) -> Path:
    """The wheel in `folder`, built if it is not there."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    pattern = f"pycuda-{PYCUDA}-{tag}-*.whl"
    if found := sorted(folder.glob(pattern)):
        return found[0]
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if not headers.exists():
        sys.exit(f"{headers} is missing: apt-get install python3-dev")
    with tempfile.TemporaryDirectory() as work:
        _build(Path(work), folder)
    return next(iter(sorted(folder.glob(pattern))))


def _build(work: Path, folder: Path) -> None:
    _download(work, f"nvidia-cuda-runtime-cu12=={HEADERS}")
    _download(work, f"pycuda=={PYCUDA}", "--no-binary=pycuda")
    with zipfile.ZipFile(next(work.glob("*.whl"))) as archive:
        archive.extractall(work / "cuda")
    include = work / "cuda/nvidia/cuda_runtime/include"
    (include / "cudaProfiler.h").write_text(PROFILER)
    lib = work / "lib"
    lib.mkdir()
    empty = ("-shared", "-x", "c", "/dev/null", "-Wl,-soname,libcuda.so.1")
    subprocess.run(["gcc", *empty, "-o", lib / "libcuda.so"], check=True)
    with tarfile.open(next(work.glob("pycuda-*.tar.gz"))) as archive:
        archive.extractall(work, filter="data")
    source = work / f"pycuda-{PYCUDA}"
    places = {
        "root": str(include.parent),
        "include": str(include),
        "lib": str(lib),
        "libcuda": str(lib / "libcuda.so"),
    }
    (source / "siteconf.py").write_text(SITECONF.format(**places))
    folder.mkdir(parents=True, exist_ok=True)
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(source))


def _download(folder: Path, *what: str) -> None:
    _pip("download", "--no-deps", "--dest", str(folder), *what)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    print(wheel(Path(sys.argv[1])))
