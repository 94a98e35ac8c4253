from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from edge_runtime import doctor
from edge_runtime.doctor import diagnose


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

    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    return gone


def test_it_names_what_is_installed_and_what_each_backend_can_do() -> None:
    diagnosis = diagnose()
    assert diagnosis.versions["onnxruntime"] == metadata.version("onnxruntime")
    assert diagnosis.versions["pycuda"] is None
    backends = {backend.name: backend for backend in diagnosis.backends}
    assert backends["cpu"].can_run
    assert not backends["tensorrt"].can_run
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
    monkeypatch.setattr(doctor, "find_spec", lambda name: object() if name == "cv2" else None)
    diagnosis = diagnose()
    assert diagnosis.versions["opencv"] == "unknown"
    assert "vision" not in "".join(diagnosis.advice)


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


def test_on_an_unknown_jetson_linux_it_says_so(tmp_path: Path) -> None:
    lay(tmp_path, "etc/nv_tegra_release", "# R44 (release), REVISION: 1.0, GCID: 1\n")
    assert any("44.1.0" in text for text in diagnose(tmp_path).advice)


def test_json_holds_all_of_it() -> None:
    diagnosis = diagnose()
    plain = json.loads(json.dumps(diagnosis.to_json()))
    assert set(plain) == {"board", "python", "versions", "backends", "advice"}
    assert plain["versions"] == diagnosis.versions
    assert {backend["name"] for backend in plain["backends"]} == {"cpu", "tensorrt", "tensorrt-rtx"}
    assert plain["board"]["architecture"] == diagnosis.board.architecture
