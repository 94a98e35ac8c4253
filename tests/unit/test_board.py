from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_runtime.board import Board, read_board

X86 = """\
processor\t: 0
vendor_id\t: {vendor}
model name\t: {model}
flags\t\t: fpu sse2 ssse3 avx avx2 {flags}
bugs\t\t: spectre_v1

processor\t: 1
vendor_id\t: {vendor}
model name\t: {model}
flags\t\t: fpu sse2 ssse3 avx avx2 {flags}
"""
ARM_CORE = """\
processor\t: {index}
BogoMIPS\t: 62.50
Features\t: fp asimd crc32 {features}
CPU implementer\t: {implementer}
CPU architecture: 8
CPU part\t: {part}

"""


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def arm(cores: int, implementer: str, part: str, features: str) -> str:
    fields = {"implementer": implementer, "part": part, "features": features}
    return "".join(ARM_CORE.format(index=index, **fields) for index in range(cores))


@pytest.fixture
def orin(tmp_path: Path) -> Board:
    """An AGX Orin with JetPack 6.2, whose CPU has SDOT but neither I8MM nor BF16."""
    files = {
        "proc/cpuinfo": arm(12, "0x41", "0xd42", "asimdhp asimddp"),
        "proc/meminfo": "MemTotal:       64349976 kB\nMemFree:         1024 kB\n",
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, "
        "EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
        "dev/nvhost-gpu": "",
        "dev/nvgpu/igpu0": "",
        "usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1": "",
        "usr/lib/python3.10/dist-packages/tensorrt/__init__.py": "",
    }
    return read_board(lay(tmp_path, files), architecture="aarch64")


def test_an_orin_names_its_jetpack_and_its_gpu(orin: Board) -> None:
    assert orin == Board(
        architecture="aarch64",
        cpu="Cortex-A78AE",
        cores=12,
        features=("asimddp",),
        memory=64349976 * 1024,
        jetson="NVIDIA Jetson AGX Orin Developer Kit",
        l4t="36.4.3",
        jetpack="6.2",
        gpu_nodes=("/dev/nvhost-gpu", "/dev/nvgpu/igpu0"),
        gpu_driver=None,
        libcuda="/usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1",
        system_tensorrt="/usr/lib/python3.10/dist-packages/tensorrt",
    )
    assert orin.has_int8_dot_products


def test_a_thor_has_the_desktop_kind_of_driver(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": arm(14, "0x41", "0xd83", "asimddp sve i8mm bf16"),
        "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  "
        "580.00  Release Build  (bugfix_main)\nGCC version:  gcc version 13.2.0\n",
        "etc/nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic\n",
        "dev/nvidia0": "",
        "dev/nvidiactl": "",
    }
    board = read_board(lay(tmp_path, files), architecture="aarch64")
    assert (board.cpu, board.cores) == ("Neoverse-V3AE", 14)
    assert board.features == ("asimddp", "i8mm", "bf16")
    assert (board.jetson, board.l4t, board.jetpack) == (
        "NVIDIA Jetson AGX Thor Developer Kit",
        "38.2.0",
        "7.0",
    )
    assert (board.gpu_nodes, board.gpu_driver) == (("/dev/nvidia0",), "580.00")


def test_a_jetson_linux_that_is_not_known_gets_no_jetpack(tmp_path: Path) -> None:
    board = read_board(
        lay(tmp_path, {"etc/nv_tegra_release": "# R44 (release), REVISION: 1.0, GCID: 1\n"})
    )
    assert (board.l4t, board.jetpack) == ("44.1.0", None)


@pytest.mark.parametrize(
    ("flags", "features", "dot_products"),
    [
        ("bmi2 vaes", ("avx2",), False),
        ("avx_vnni", ("avx2", "avx_vnni"), True),
        ("avx512f avx512_vnni amx_int8", ("avx2", "avx512_vnni", "amx_int8"), True),
        ("avx512f avx512_vnni_not_really", ("avx2",), False),
    ],
)
def test_x86_with_and_without_vnni(
    tmp_path: Path, flags: str, features: tuple[str, ...], dot_products: bool
) -> None:
    cpu = X86.format(vendor="GenuineIntel", model="Intel(R) Xeon(R)", flags=flags)
    board = read_board(lay(tmp_path, {"proc/cpuinfo": cpu}), architecture="x86_64")
    assert (board.cpu, board.cores, board.features) == ("Intel(R) Xeon(R)", 2, features)
    assert board.has_int8_dot_products is dot_products
    assert (board.jetson, board.l4t, board.jetpack, board.gpu_nodes) == (None, None, None, ())


def test_a_pc_with_a_gpu_gives_its_driver(tmp_path: Path) -> None:
    files = {
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  "
        "Thu Feb 22 01:44:30 UTC 2024\n",
        "dev/nvidia0": "",
        "dev/nvidia1": "",
        "usr/lib/x86_64-linux-gnu/libcuda.so.1": "",
    }
    board = read_board(lay(tmp_path, files))
    assert board.gpu_nodes == ("/dev/nvidia0", "/dev/nvidia1")
    assert board.gpu_driver == "550.54.14"
    assert board.libcuda == "/usr/lib/x86_64-linux-gnu/libcuda.so.1"


def test_another_arm_board_is_no_jetson(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": arm(4, "0x41", "0xd0b", "asimddp"),
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    }
    board = read_board(lay(tmp_path, files), architecture="aarch64")
    assert board.cpu == "Arm core, implementer 0x41, part 0xd0b"
    assert board.jetson is None


def test_an_empty_tree_gives_no_fact_and_no_error(tmp_path: Path) -> None:
    board = read_board(tmp_path, architecture="riscv64")
    assert (board.architecture, board.cpu, board.cores) == ("riscv64", None, 0)
    assert (board.features, board.memory, board.has_int8_dot_products) == ((), None, False)


def test_json_says_the_same(orin: Board) -> None:
    plain = json.loads(json.dumps(orin.to_json()))
    assert plain["jetpack"] == "6.2"
    assert plain["features"] == ["asimddp"]
    assert plain["gpu_nodes"] == list(orin.gpu_nodes)


def test_this_machine_has_cores_and_memory() -> None:
    board = read_board()
    assert board.cores > 0
    assert board.memory
