"""The diagnosis: what is missing or wrong is named with the command that mends it, no more."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edge_runtime.backends import registry
from edge_runtime.cli.options import DEVICES
from edge_runtime.doctor import diagnose
from edge_runtime.telemetry import versions
from edge_runtime.telemetry.limits import limits


def lay(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Distributions that this interpreter is to seem not to have."""
    gone: set[str] = set()
    real = metadata.version

    def version(name: str) -> str:
        if name in gone:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(versions.metadata, "version", version)
    monkeypatch.setattr(versions, "find_spec", lambda name: None)
    return gone


def test_it_names_what_is_installed_and_what_each_backend_can_do() -> None:
    diagnosis = diagnose()
    assert diagnosis.versions["onnxruntime"] == metadata.version("onnxruntime")
    backends = {backend.name: backend for backend in diagnosis.backends}
    assert backends["cpu"].can_run
    assert backends["tensorrt"].can_build <= (diagnosis.versions["tensorrt"] is not None)
    assert all(b.reason for b in backends.values() if not (b.can_build and b.can_run))


def test_it_says_which_extra_a_core_installation_lacks(without: set[str]) -> None:
    without |= {"onnx", "opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"}
    diagnosis = diagnose()
    assert diagnosis.versions["onnx"] is None
    advice = "\n".join(diagnosis.advice)
    assert "pip install 'edge-runtime[build]'" in advice
    assert "pip install 'edge-runtime[vision]'" in advice


def test_opencv_without_metadata_counts_as_installed(
    without: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without |= {"opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"}
    monkeypatch.setattr(versions, "find_spec", lambda name: object() if name == "cv2" else None)
    diagnosis = diagnose()
    assert diagnosis.versions["opencv"] == "unknown"
    assert "vision" not in "".join(diagnosis.advice)


@pytest.mark.parametrize(
    ("field", "flags", "dot_products"),
    [
        ("flags", "avx2 avx512f", ()),
        ("flags", "avx2 avx512_vnni", ("avx512_vnni",)),
        ("flags", "avx2 avx_vnni amx_int8", ("avx_vnni", "amx_int8")),
        ("Features", "asimd fphp", ()),  # As the Cortex-A57 of the first Jetson Nano.
        ("Features", "asimd asimddp", ("asimddp",)),
        ("Features", "asimd asimddp i8mm", ("asimddp", "i8mm")),
    ],
)
def test_it_says_which_int8_arithmetic_is_safe_on_this_cpu(
    tmp_path: Path, field: str, flags: str, dot_products: tuple[str, ...]
) -> None:
    lay(tmp_path, "proc/cpuinfo", f"processor\t: 0\n{field}\t\t: {flags}\n")
    said = diagnose(tmp_path).int8
    assert "safe in mode exact" in said
    assert "mode fast" in said
    assert ("in 32 bits" in said) is bool(dot_products)
    assert ("saturate" in said) is (not dot_products)
    assert all(name in said for name in dot_products)


def test_it_says_whether_openvino_is_installed(
    without: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    without.add("openvino")
    diagnosis = diagnose()
    assert diagnosis.versions["openvino"] is None
    backend = next(entry for entry in diagnosis.backends if entry.name == "openvino")
    assert not backend.can_run
    assert "pip install 'edge-runtime[openvino]'" in backend.reason


@pytest.mark.parametrize("flags", ["avx2", "avx2 avx_vnni"])
def test_it_warns_of_saturating_kernels_without_vnni_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    lay(tmp_path, "proc/cpuinfo", f"processor\t: 0\nflags\t\t: {flags}\n")
    warned = any("saturate" in text for text in diagnose(tmp_path).advice)
    assert warned is ("vnni" not in flags)


def test_on_a_jetson_it_finds_the_tensorrt_that_a_venv_hides(
    tmp_path: Path, without: set[str]
) -> None:
    without.add("tensorrt")
    lay(tmp_path, "usr/lib/python3.12/dist-packages/tensorrt/__init__.py", "")
    assert any("--system-site-packages" in text for text in diagnose(tmp_path).advice)


# What runs plans on a GPU.

JETSON = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1\n",
    "dev/nvhost-gpu": "",
    "usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1": "",
}
PC = {"dev/nvidia0": "", "usr/lib/x86_64-linux-gnu/libcuda.so.1": ""}
NEWER = {**JETSON, "etc/nv_tegra_release": "# R38 (release), REVISION: 4.0, GCID: 1\n"}
SOUND = {"tensorrt": "10.3.0", "cuda-bindings": "12.9.4", "numpy": "1.26.4"}


def gone(files: dict[str, str], name: str) -> dict[str, str]:
    return {path: text for path, text in files.items() if name not in path}


@pytest.mark.parametrize(
    ("files", "installed", "words"),
    [
        (JETSON, SOUND, ()),
        (JETSON, {"tensorrt": "10.3.0", "pycuda": "2026.1", "numpy": "1.26.4"}, ()),
        (PC, {**SOUND, "tensorrt": "10.16.1.11", "numpy": "2.4.1"}, ()),
        (PC, {"tensorrt-rtx-cu12-bindings": "1.7.1.116", "cuda-bindings": "13.5.0"}, ()),
        ({}, {}, ()),
        ({}, {"tensorrt-rtx-cu12-bindings": "1.7.1.116"}, ()),  # It builds without a GPU.
        (JETSON, {**SOUND, "tensorrt": None}, ("apt-get install python3-libnvinfer",)),
        (PC, {**SOUND, "tensorrt": None}, ("pip install tensorrt",)),
        (
            {**JETSON, "usr/lib/python3.10/dist-packages/tensorrt/__init__.py": ""},
            {**SOUND, "tensorrt": None},
            ("--system-site-packages",),
        ),
        (JETSON, {**SOUND, "cuda-bindings": None}, ("install 'cuda-bindings>=12.9,<13'",)),
        (NEWER, {**SOUND, "cuda-bindings": None}, ("install 'cuda-bindings>=13,<14'",)),
        (PC, {**SOUND, "cuda-bindings": None}, ("pip install 'edge-runtime[cuda]'",)),
        (JETSON, {**SOUND, "cuda-bindings": "13.0.1"}, ("13.0.1 is made for CUDA 13",)),
        (NEWER, {**SOUND, "cuda-bindings": "13.0.1"}, ()),
        (gone(JETSON, "libcuda"), SOUND, ("apt-get install nvidia-l4t-cuda",)),
        (gone(PC, "libcuda"), SOUND, ("libcuda.so.1 is not here",)),
        (gone(JETSON, "nvhost"), SOUND, ("--runtime nvidia",)),
        (gone(PC, "nvidia0"), SOUND, ("--gpus all",)),
        ({}, SOUND, ("--gpus all", "libcuda.so.1 is not here")),
        (JETSON, {**SOUND, "numpy": "2.2.6"}, ("pip install 'numpy>=1.26,<2'",)),
        (NEWER, {**SOUND, "tensorrt": "10.15.1.29", "numpy": "2.0"}, ("as zeros",)),
        (JETSON, {**SOUND, "tensorrt": "8.6.2", "numpy": "2.2.6"}, ("needs 10.3 or newer",)),
    ],
)
def test_each_link_that_is_missing_is_named_with_what_mends_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    installed: dict[str, str | None],
    words: tuple[str, ...],
) -> None:
    for name, text in files.items():
        lay(tmp_path, name, text)
    rest = dict.fromkeys(("onnx", "opencv-python", "numpy"), "1.0")

    def version(name: str) -> str:
        found = {**rest, **installed}.get(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr(versions.metadata, "version", version)
    monkeypatch.setattr(versions, "find_spec", lambda name: None)
    advice = diagnose(tmp_path).advice
    assert len(advice) == len(words), advice
    for line, word in zip(advice, words, strict=True):
        assert word in line


def test_nothing_is_imported_for_it() -> None:
    code = (
        "import sys; from edge_runtime.doctor import diagnose; diagnose(); "
        "print({'onnx', 'onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx_bindings', 'pycuda',"
        " 'cuda.bindings'} & sys.modules.keys())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "set()\n"


def test_on_an_unknown_jetson_linux_it_says_so(tmp_path: Path) -> None:
    lay(tmp_path, "etc/nv_tegra_release", "# R44 (release), REVISION: 1.0, GCID: 1\n")
    assert any("44.1.0" in text for text in diagnose(tmp_path).advice)


def test_json_holds_all_of_it() -> None:
    diagnosis = diagnose()
    plain = json.loads(json.dumps(diagnosis.to_json()))
    assert set(plain) == {
        "board",
        "python",
        "versions",
        "int8",
        "backends",
        "advice",
        "limits",
        "conditions",
    }
    assert plain["conditions"] == diagnosis.conditions.to_json()
    assert plain["versions"] == diagnosis.versions
    assert {backend["name"] for backend in plain["backends"]} == {*DEVICES} - {"auto"}
    assert plain["board"]["architecture"] == diagnosis.board.architecture


def test_it_says_what_limits_a_benchmark_on_this_machine(tmp_path: Path) -> None:
    assert diagnose(tmp_path).limits == ()
    lay(tmp_path, "proc/loadavg", "3.00 2.00 1.00 2/345 6789\n")
    lay(tmp_path, "var/lib/nvpmodel/status", "pmode:0001\n")
    modes = "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=15W >\n"
    lay(tmp_path, "etc/nvpmodel.conf", modes)
    diagnosis = diagnose(tmp_path)
    assert list(diagnosis.limits) == limits(diagnosis.conditions)
    mode, load = diagnosis.limits
    assert "sudo nvpmodel -m 0" in mode
    assert "Other programs run" in load
