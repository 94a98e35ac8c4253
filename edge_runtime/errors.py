"""Every exception that edge_runtime raises on purpose.

    EdgeRuntimeError
    ├── ConfigError               a setting, flag or recipe that is wrong or contradicts another
    ├── DataError                 calibration or comparison data, or a picture, that cannot be used
    ├── FeedError                 an input of `Session.run` that does not fit the model
    ├── ModelError                an ONNX file that is broken, hostile or beyond what we support
    ├── CalibrationCacheError     a calibration cache that is malformed, stale or of another model
    ├── BundleError               a bundle that is malformed, damaged, too new, or cannot be written
    ├── BuildError                a builder refused the graph; carries the vendor's own log lines
    ├── BackendUnavailableError   a backend asked for by name that this machine or bundle lacks
    ├── InferenceError            the backend failed on feeds of the right type and shape
    ├── DeviceError               a CUDA driver call failed
    └── SessionClosedError        a session was used after `close()`

The command line turns these, and nothing else, into one line on stderr and exit code 1. Any other
exception is a bug in edge_runtime and shows its traceback.
"""

from __future__ import annotations


class EdgeRuntimeError(Exception):
    """The base of every error that edge_runtime raises on purpose.

    The message says what was found, what was wanted and what to do.
    """


class ConfigError(EdgeRuntimeError):
    """A setting, flag or recipe is wrong or contradicts another."""


class DataError(EdgeRuntimeError):
    """Calibration or comparison data, or a picture, cannot be used."""


class FeedError(EdgeRuntimeError):
    """An input array does not fit the model.

    Attributes:
        tensor: Name of the input tensor.
        expected: What the model wants, in words.
        found: What was passed, in words.
    """

    def __init__(self, tensor: str, *, expected: str, found: str, hint: str = "") -> None:
        self.tensor = tensor
        self.expected = expected
        self.found = found
        super().__init__(
            f"Input {tensor!r}: expected {expected}, got {found}." + (f" {hint}" if hint else "")
        )


class ModelError(EdgeRuntimeError):
    """An ONNX file is broken, hostile or beyond what edge_runtime supports."""


class CalibrationCacheError(EdgeRuntimeError):
    """A calibration cache is malformed, stale or belongs to another model."""


class BundleError(EdgeRuntimeError):
    """A bundle is malformed, damaged, too new, or cannot be written."""


class BuildError(EdgeRuntimeError):
    """A builder refused the graph.

    Attributes:
        log: The vendor's own ERROR lines, in order; may be empty.
    """

    def __init__(self, message: str, *, log: tuple[str, ...] = ()) -> None:
        self.log = log
        super().__init__("\n  ".join([message, *log]))


class BackendUnavailableError(EdgeRuntimeError):
    """A backend was asked for by name, and this machine or this bundle does not have it."""


class InferenceError(EdgeRuntimeError):
    """The backend failed while it ran feeds of the right type and shape.

    Usually sizes that the model's own layers cannot combine, such as a picture whose side is not a
    multiple of the network's stride.
    """


class DeviceError(EdgeRuntimeError):
    """A CUDA driver call failed.

    Attributes:
        code: The driver's number, a `CUresult`.
        name: The driver's name for it, such as `CUDA_ERROR_OUT_OF_MEMORY`.
        call: The driver function that returned it.
    """

    def __init__(self, code: int, name: str, call: str) -> None:
        self.code = code
        self.name = name
        self.call = call
        super().__init__(f"{call} failed: {name} ({code}).")


class SessionClosedError(EdgeRuntimeError):
    """A session was used after `close()`."""

    def __init__(self) -> None:
        super().__init__("This session is closed; open another with edge_runtime.load().")
