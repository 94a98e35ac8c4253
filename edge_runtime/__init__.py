"""Build INT8 and FP16 bundles of ONNX models for edge GPUs, and run them anywhere.

    import edge_runtime as er

    bundle = er.build("model.onnx", er.BuildConfig(precision="int8"), output="model.edge",
                      calibration=er.ImageFolder("pictures/", er.Preprocessing(size=(224, 224))))
    with er.load("model.edge") as session:
        outputs = session.run({"x": array})

Each name is imported when it is first used, so that importing the package costs nothing, and a
device that only runs bundles needs none of the libraries that build them.
"""

from __future__ import annotations

from importlib import import_module

from edge_runtime.version import __version__ as __version__

TYPE_CHECKING = False  # What type checkers take as true; `typing` itself takes 15 ms to import.
if TYPE_CHECKING:
    from edge_runtime.building import build, calibrate
    from edge_runtime.bundle import Bundle
    from edge_runtime.comparison import compare
    from edge_runtime.config import BuildConfig
    from edge_runtime.data import ImageFolder
    from edge_runtime.errors import EdgeRuntimeError
    from edge_runtime.preflight import check_model as check
    from edge_runtime.session import Session, load
    from edge_runtime.tensors import TensorSpec
    from edge_runtime.vision.preprocess import Preprocessing

__all__ = [
    "BuildConfig",
    "Bundle",
    "EdgeRuntimeError",
    "ImageFolder",
    "Preprocessing",
    "Session",
    "TensorSpec",
    "build",
    "calibrate",
    "check",
    "compare",
    "load",
]

_HOMES = {
    "BuildConfig": ("config", "BuildConfig"),
    "Bundle": ("bundle", "Bundle"),
    "EdgeRuntimeError": ("errors", "EdgeRuntimeError"),
    "ImageFolder": ("data", "ImageFolder"),
    "Preprocessing": ("vision.preprocess", "Preprocessing"),
    "Session": ("session", "Session"),
    "TensorSpec": ("tensors", "TensorSpec"),
    "build": ("building", "build"),
    "calibrate": ("building", "calibrate"),
    "check": ("preflight", "check_model"),
    "compare": ("comparison", "compare"),
    "load": ("session", "load"),
}


if not TYPE_CHECKING:  # A type checker that saw it would take any name for one of ours.

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home[0]}"), home[1])
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
