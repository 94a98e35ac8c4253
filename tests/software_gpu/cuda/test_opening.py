"""What is said where no GPU can be opened, and how to mend it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.cuda.device import open_device
from edge_runtime.errors import BackendUnavailableError, ConfigError
from tests.software_gpu.cuda.conftest import DRIVERS
from tests.software_gpu.gpu import SoftwareGpu

# A finder that knows nothing of some packages, as where they are not installed.
HIDE = """
import importlib.abc, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
for name in HIDDEN:  # cuda-bindings 12 has itself loaded at the start.
    sys.modules.pop(name, None)
"""
OPEN = """
from edge_runtime.cuda.device import open_device
from edge_runtime.errors import BackendUnavailableError
try:
    print(open_device(DRIVER).driver)
except BackendUnavailableError as error:
    print(error)
"""
LOAD = "from tests.software_gpu.gpu import load; load()\n"


def says(root: Path, program: str) -> str:
    """What a program of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("driver", "hidden", "said"),
    [
        ("auto", [], "cuda-bindings"),
        ("auto", ["cuda"], "pycuda"),
        ("auto", ["cuda.bindings"], "pycuda"),  # as with cuda-python 11
        ("pycuda", ["cuda"], "pycuda"),
        ("cuda-bindings", ["pycuda"], "cuda-bindings"),
        (
            "auto",
            ["cuda", "pycuda"],
            'Neither cuda-bindings nor pycuda is installed; run: pip install "cuda-bindings==12.*"',
        ),
        (
            "cuda-bindings",
            ["cuda"],
            'cuda-bindings is not installed; run: pip install "cuda-bindings==12.*"',
        ),
        ("pycuda", ["pycuda"], "pycuda is not installed; run: pip install pycuda"),
    ],
)
def test_which_binding_is_taken(root: Path, driver: str, hidden: list[str], said: str) -> None:
    program = f"HIDDEN, DRIVER = {hidden!r}, {driver!r}\n{LOAD}{HIDE}{OPEN}"
    assert says(root, program) == said


@pytest.mark.parametrize("driver", ["auto", *DRIVERS])
def test_without_the_driver_library(root: Path, driver: str) -> None:
    if says(root, "import ctypes.util; print(ctypes.util.find_library('cuda'))") != "None":
        pytest.skip("this machine has NVIDIA's libcuda.so.1, whose lack is tested")
    said = says(root, f"DRIVER = {driver!r}\n{OPEN}")
    assert said.startswith("NVIDIA's driver is missing (libcuda.so.1")
    assert "--gpus all" in said


def test_a_binding_that_does_not_load_is_no_reason_to_take_another(root: Path) -> None:
    broken = HIDE.replace(
        'ModuleNotFoundError(f"No module named {name!r}", name=name)',
        "ImportError('undefined symbol')",
    )
    program = f"HIDDEN, DRIVER = ['cuda.bindings.driver'], 'auto'\n{LOAD}{broken}{OPEN}"
    said = says(root, program)
    assert said.startswith("cuda-bindings is installed, but not for this machine (undefined")
    assert "--force-reinstall" in said


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (100, ("no GPU", "CUDA_ERROR_NO_DEVICE", "nvidia-smi", "CUDA_VISIBLE_DEVICES")),
        (803, ("does not start", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "restart")),
    ],
)
def test_without_a_gpu(gpu: SoftwareGpu, driver: str, code: int, words: tuple[str, ...]) -> None:
    gpu.fail("cuInit", error=code)
    with pytest.raises(BackendUnavailableError) as found:
        open_device(driver)
    for word in words:
        assert word in str(found.value)


def test_a_gpu_that_there_is_not(driver: str) -> None:
    with pytest.raises(BackendUnavailableError, match=r"no GPU number 7 \(cuDeviceGet failed"):
        open_device(driver, 7)


@pytest.mark.parametrize("call", ["cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain"])
def test_a_failed_opening_leaves_nothing(gpu: SoftwareGpu, driver: str, call: str) -> None:
    active = ctypes.c_int()
    flags = ctypes.c_uint()
    state = gpu.function("cuDevicePrimaryCtxGetState")
    open_device(driver).close()
    gpu.fail(call, error=304)
    with pytest.raises(BackendUnavailableError, match="CUDA_ERROR_OPERATING_SYSTEM"):
        open_device(driver)
    assert state(0, ctypes.byref(flags), ctypes.byref(active)) == 0
    open_device(driver).close()  # The next try may do.


def test_an_unknown_driver() -> None:
    with pytest.raises(ConfigError, match="auto, cuda-bindings or pycuda"):
        open_device("cupy")


def test_auto_shares_with_its_choice() -> None:
    device = open_device("auto")
    assert open_device(device.driver) is device
    device.close()
    device.close()


def test_importing_edge_runtime_loads_nothing_of_this(root: Path) -> None:
    program = (
        "import sys, edge_runtime\n"
        "print([m for m in sys.modules if m in ('numpy', 'ctypes', 'edge_runtime.cuda')])"
    )
    assert says(root, program) == "[]"


def test_importing_the_seam_loads_no_binding(root: Path) -> None:
    program = (
        "import sys, edge_runtime.cuda.device, edge_runtime.cuda.interop\n"
        "print([m for m in sys.modules if m.startswith(('cuda.bindings', 'pycuda'))])"
    )
    assert says(root, program) == "[]"
