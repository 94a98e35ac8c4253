"""Which Python binding of CUDA is used, and what is missing where none can be."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import import_module

from edge_runtime.cuda.driver import Driver
from edge_runtime.cuda.result import library
from edge_runtime.errors import BackendUnavailableError, ConfigError, DeviceError

# Binding: our module, its class, and the vendor's modules.
_BINDINGS = {
    "cuda-bindings": (
        "cuda_python_driver",
        "CudaPythonDriver",
        ("cuda", "cuda.bindings", "cuda.bindings.driver"),
    ),
    "pycuda": ("pycuda_driver", "PycudaDriver", ("pycuda", "pycuda.driver")),
}
_NO_DEVICE = 100
_INVALID_DEVICE = 101


def open_driver(name: str, ordinal: int) -> Driver:
    """The driver through the binding `name`, or through the first installed for `auto`.

    Raises:
        BackendUnavailableError: Says what is missing and how to mend it.
    """
    if name != "auto" and name not in _BINDINGS:
        raise ConfigError(f"driver is {name!r}; it must be auto, {' or '.join(_BINDINGS)}.")
    try:
        library()
    except OSError as error:
        raise BackendUnavailableError(
            f"NVIDIA's driver is missing ({error}). Install it; in a container, start that with "
            "--runtime nvidia or --gpus all."
        ) from error
    for binding in _BINDINGS if name == "auto" else (name,):
        made = _installed(binding)
        if made is not None:
            return _open(made, ordinal)
    wanted = "Neither cuda-bindings nor pycuda is" if name == "auto" else f"{name} is not"
    raise BackendUnavailableError(f"{wanted} installed; run: pip install {_requirement(name)}")


def _installed(binding: str) -> Callable[[int], Driver] | None:
    name, class_name, vendors = _BINDINGS[binding]
    try:
        module = import_module(f"edge_runtime.cuda.{name}")
    except ModuleNotFoundError as error:
        if error.name not in vendors:
            raise
        return None
    except ImportError as error:
        raise BackendUnavailableError(
            f"{binding} is installed, but not for this machine ({error}). Install it anew: "
            f"pip install --force-reinstall --no-cache-dir {_requirement(binding)}"
        ) from error
    driver: Callable[[int], Driver] = getattr(module, class_name)
    return driver


def _open(driver: Callable[[int], Driver], ordinal: int) -> Driver:
    try:
        return driver(ordinal)
    except DeviceError as error:
        if error.code == _NO_DEVICE:
            raise BackendUnavailableError(
                f"NVIDIA's driver finds no GPU ({error}) Look at nvidia-smi, or on a Jetson at "
                "whether this user is in the groups video and render; CUDA_VISIBLE_DEVICES may "
                "hide it."
            ) from error
        if error.code == _INVALID_DEVICE:
            raise BackendUnavailableError(
                f"There is no GPU number {ordinal} ({error}) They are counted from 0, and "
                "CUDA_VISIBLE_DEVICES may hide some."
            ) from error
        raise BackendUnavailableError(
            f"NVIDIA's driver does not start ({error}) Look at nvidia-smi; after an update of the "
            "driver, restart the machine."
        ) from error


def _requirement(name: str) -> str:
    if name == "pycuda":
        return "pycuda"
    version = ctypes.c_int()
    library().cuDriverGetVersion(ctypes.byref(version))
    return f'"cuda-bindings=={version.value // 1000}.*"'  # 12060 is CUDA 12.6
