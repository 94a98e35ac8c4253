"""Facts of the machine: CPU, memory, Jetson release, GPU driver. Only files are read."""

from __future__ import annotations

import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_FEATURES = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "bf16")
"""CPU flags that decide how INT8 runs, as Linux spells them in /proc/cpuinfo."""

_DOT_PRODUCTS = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")

_ARM_CORES = {
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd83"): "Neoverse-V3AE",
    ("0x4e", "0x004"): "Carmel",
}
"""(implementer, part) of MIDR_EL1 of the cores that Jetsons have, which publish no name."""

_JETPACK = {
    "32.6.1": "4.6",
    "32.7.1": "4.6.1",
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "35.6.1": "5.1.5",
    "35.6.2": "5.1.5",
    "36.2.0": "6.0 DP",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
"""Jetson Linux (L4T) release to JetPack (developer.nvidia.com/embedded/jetpack-archive). A release
that is not listed has no JetPack here rather than a guessed one."""

_L4T = re.compile(r"# R(\d+) \(release\), REVISION: (\d+)\.(\d+)")
_DRIVER = re.compile(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", re.MULTILINE)
_GPU_NODES = ("nvidia[0-9]*", "nvhost-gpu", "nvhost-ctrl-gpu", "nvgpu/igpu[0-9]*")
_LIBCUDA = (
    "usr/lib/*-linux-gnu/libcuda.so.1",
    "usr/lib/*-linux-gnu/nvidia/libcuda.so.1",
    "usr/lib/*-linux-gnu/tegra/libcuda.so.1",
    "usr/lib64/libcuda.so.1",
    "usr/lib/libcuda.so.1",
    "usr/lib/wsl/lib/libcuda.so.1",
)


@dataclass(frozen=True, slots=True)
class Board:
    """What is known of a machine. What its files do not say is None or empty.

    Attributes:
        architecture: The machine as `uname -m` says it, such as `x86_64` or `aarch64`.
        cpu: Name of the CPU, or of its first core on Arm.
        cores: Number of logical cores.
        features: Those of the CPU's flags that decide how INT8 runs.
        memory: Size of the main memory, in bytes.
        jetson: Model of the Jetson.
        l4t: Release of Jetson Linux, such as `36.4.3`.
        jetpack: The JetPack that ships this Jetson Linux, such as `6.2`.
        gpu_nodes: Device files of NVIDIA GPUs, such as `/dev/nvidia0` or `/dev/nvhost-gpu`.
        gpu_driver: Version of NVIDIA's kernel driver, where it publishes one.
        libcuda: Path of the CUDA driver library.
        system_tensorrt: Folder of the TensorRT package that apt installed (JetPack does), which a
            virtual environment only sees if it was made with --system-site-packages.
    """

    architecture: str
    cpu: str | None
    cores: int
    features: tuple[str, ...]
    memory: int | None
    jetson: str | None
    l4t: str | None
    jetpack: str | None
    gpu_nodes: tuple[str, ...]
    gpu_driver: str | None
    libcuda: str | None
    system_tensorrt: str | None

    @property
    def int8_dot_products(self) -> tuple[str, ...]:
        """Flags of what sums products of INT8 in 32 bits: VNNI or AMX on x86, SDOT on Arm."""
        return tuple(name for name in self.features if name in _DOT_PRODUCTS)

    @property
    def has_int8_dot_products(self) -> bool:
        """Whether the CPU sums products of INT8 in 32 bits."""
        return bool(self.int8_dot_products)

    def to_json(self) -> dict[str, Any]:
        """The facts as plain JSON values."""
        return {**asdict(self), "features": list(self.features), "gpu_nodes": list(self.gpu_nodes)}


def read_board(root: Path = Path("/"), *, architecture: str | None = None) -> Board:
    """Reads the facts from the files of a running Linux, or of a copy of some of them.

    Args:
        root: Where its file tree begins.
        architecture: Its machine; none means the machine this runs on.
    """
    cpu = _read(root / "proc/cpuinfo")
    release = _L4T.search(_read(root / "etc/nv_tegra_release"))
    l4t = ".".join(release.groups()) if release else None
    model = _read(root / "proc/device-tree/model").strip("\0\n ")
    memory = re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    driver = _DRIVER.search(_read(root / "proc/driver/nvidia/version"))
    return Board(
        architecture=architecture or platform.machine(),
        cpu=_cpu_name(cpu),
        cores=len(re.findall(r"^processor\s*:", cpu, re.MULTILINE)),
        features=_features(cpu),
        memory=int(memory[1]) * 1024 if memory else None,
        jetson=model if "jetson" in model.lower() else None,
        l4t=l4t,
        jetpack=_JETPACK.get(l4t) if l4t else None,
        gpu_nodes=tuple(_find(root, *(f"dev/{node}" for node in _GPU_NODES))),
        gpu_driver=driver[1] if driver else None,
        libcuda=next(iter(_find(root, *_LIBCUDA)), None),
        system_tensorrt=next(iter(_find(root, "usr/lib/python3*/dist-packages/tensorrt")), None),
    )


def _read(path: Path) -> str:
    """The text of a file; empty if there is none, as on a machine that is no Jetson."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(cpuinfo: str, name: str) -> str | None:
    """The first value of a field of /proc/cpuinfo."""
    found = re.search(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else None


def _cpu_name(cpuinfo: str) -> str | None:
    implementer, part = _field(cpuinfo, "CPU implementer"), _field(cpuinfo, "CPU part")
    if implementer is None or part is None:
        return _field(cpuinfo, "model name")
    unnamed = f"Arm core, implementer {implementer}, part {part}"
    return _ARM_CORES.get((implementer, part), unnamed)


def _features(cpuinfo: str) -> tuple[str, ...]:
    flags = _field(cpuinfo, "flags") or _field(cpuinfo, "Features") or ""
    present = set(flags.split())
    return tuple(name for name in _FEATURES if name in present)


def _find(root: Path, *patterns: str) -> list[str]:
    """Paths below `root` that match, as the machine itself would write them."""
    found = (path for pattern in patterns for path in sorted(root.glob(pattern)))
    return [f"/{path.relative_to(root).as_posix()}" for path in found]
