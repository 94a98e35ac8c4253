"""The fake's shared state, and `make`, which puts a module together."""

from __future__ import annotations

import itertools
import re
import threading
import types
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.fakes.tensorrt import dump
from tests.fakes.tensorrt.classes import make_class
from tests.fakes.tensorrt.driver import Driver
from tests.fakes.tensorrt.enums import make_enum
from tests.fakes.tensorrt.signatures import Types


@dataclass
class Options:
    """How the fake behaves and which faults it has; all may be changed at any time.

    Attributes:
        graphs: The graph to compute with, by the digest (`sha256:...`) of the one that was built:
            the CPU twin of a graph in half precision.
        seconds: What an inference takes on the GPU, in the software GPU's time model.
        null: Engines compute nothing and cost next to nothing, to measure what callers cost.
        device: The GPU's architecture where there is no software GPU to ask.
        dla_cores: How many DLA cores the machine has.
        data_dependent: Outputs whose shape depends on data; None finds them in the graph.
        shape_inputs: Inputs whose values are a shape; None finds them in the graph.
        host_outputs: Outputs that engines write to host memory, as those that are a shape may be.
        unsupported: Operators that the parser refuses beside those that no TensorRT knows.
        fell_back: Layers that run in another precision than the graph's, by name: `{"c1": "FP32"}`.
        reformats: Names of layers in front of which the engine converts the tensor's format.
        fail_build: Makes builds fail with this line.
        kill_build: Kills the process in the middle of a build, as the OOM killer does.
        fail_deserialize: Makes deserialising fail with this line.
        fail_context: Makes creating contexts fail with this line.
        fail_enqueue: The enqueue, counted from 1 from now, that returns False; 0 is none.
    """

    graphs: Mapping[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    null: bool = False
    device: str = "sm87"
    dla_cores: int = 0
    data_dependent: tuple[str, ...] | None = None
    shape_inputs: tuple[str, ...] | None = None
    host_outputs: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    fell_back: Mapping[str, str] = field(default_factory=dict)
    reformats: tuple[str, ...] = ()
    fail_build: str = ""
    kill_build: bool = False
    fail_deserialize: str = ""
    fail_context: str = ""
    fail_enqueue: int = 0


class Library:
    """What all objects of one fake module share."""

    def __init__(self, label: str, gpu: Any, options: Options) -> None:
        self.label, self.options = label, options
        self.rtx = label.startswith("rtx")
        self.name = "tensorrt_rtx_bindings" if self.rtx else "tensorrt"
        self.version = dump.header_version(label)
        self.types = Types()
        self.calls: Counter[str] = Counter()
        self.violations: list[str] = []
        self.driver = Driver(gpu, options.device)
        self.lock = threading.RLock()
        self.numbers = itertools.count()

    def log(self, logger: Any, severity: str, message: str) -> None:
        """Says a line to the caller's logger."""
        member = self.types.classes["ILogger"].Severity.__members__[severity]  # type: ignore[attr-defined]
        logger.log(member, message)

    def violation(self, text: str) -> None:
        """Notes a use for which the real library crashes or computes garbage."""
        self.violations.append(text)

    def deprecated(self, text: str) -> None:
        """The warning of a call that the real module deprecates."""
        warnings.warn(text, DeprecationWarning, stacklevel=4)

    def has(self, enum: str, member: str) -> bool:
        """Whether this version has a member of an enum."""
        return enum in self.types.enums and member in self.types.enums[enum].__members__


def make(
    version: str,
    gpu: Any = None,
    *,
    graphs: Mapping[str, bytes] | None = None,
    seconds: float = 0.0,
    **faults: Any,
) -> Any:
    """A module like `tensorrt` of that version, to be handed in.

    Beside the real module's names it has `violations` (what the caller did wrong, in words: tests
    assert that it is empty), `calls` (how often each method was called, as `"Builder.reset"`) and
    `options` (see `Options`).

    Args:
        version: The label of a dump, such as `10.3.0` or `rtx-1.7.1.116`.
        gpu: The software GPU that engines run on; None for builds only, or engines that run within
            `execute_async_v3` on addresses of the host.
        graphs: See `Options`.
        seconds: See `Options`.
        **faults: The rest of `Options`.
    """
    options = Options(graphs=graphs or {}, seconds=seconds, **faults)
    library = Library(version, gpu, options)
    api = dump.read(version)
    module = types.ModuleType(library.name)
    for name, members in api["enums"].items():
        library.types.enums[name] = make_enum(library.name, name, members)
    for name in _bases_first(api["classes"]):
        entry = api["classes"][name]
        for inner, members in entry.get("enums", {}).items():
            if f"{name}.{inner}" not in library.types.enums:
                enum = library.types.enums.get(f"ILogger.{inner}")
                enum = enum or make_enum(library.name, inner, members)
                library.types.enums[f"{name}.{inner}"] = enum
        cls = make_class(library, name, entry)
        library.types.classes[name] = cls
        for inner in entry.get("enums", {}):
            enum = library.types.enums[f"{name}.{inner}"]
            setattr(cls, inner, enum)
            for constant in entry.get("constants", {}):
                setattr(cls, constant, enum.__members__[constant])
    vars(module).update(library.types.classes)
    vars(module).update({k: v for k, v in library.types.enums.items() if "." not in k})
    for name, text in api["constants"].items():
        kind, member = re.fullmatch(r"<(\w+)\.(\w+): -?\d+>", text).groups()
        if kind in library.types.enums:
            setattr(module, name, library.types.enums[kind].__members__[member])
    _functions(module, api["functions"])
    module.__version__ = api["version"]
    module.violations, module.calls, module.options = library.violations, library.calls, options
    module._library = library
    return module


def _bases_first(classes: Mapping[str, Any]) -> list[str]:
    order: list[str] = []

    def add(name: str) -> None:
        for base in classes[name].get("bases", ()):
            add(base)
        if name not in order:
            order.append(name)

    for name in sorted(classes):
        add(name)
    return order


def _functions(module: Any, names: Mapping[str, Any]) -> None:
    """The module's own functions; those without behaviour say so."""
    numpy_types = {
        "FLOAT": np.float32,
        "HALF": np.float16,
        "INT8": np.int8,
        "INT32": np.int32,
        "INT64": np.int64,
        "BOOL": np.bool_,
        "UINT8": np.uint8,
    }

    def nptype(trt_type: Any) -> Any:
        if trt_type.name not in numpy_types:
            raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
        return numpy_types[trt_type.name]

    def volume(iterable: Any) -> int:
        return int(np.prod([int(size) for size in iterable], dtype=np.int64))

    def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
        return True

    known = {"nptype": nptype, "volume": volume, "init_libnvinfer_plugins": init_libnvinfer_plugins}
    sizes = {
        "FLOAT": 4,
        "HALF": 2,
        "BF16": 2,
        "INT8": 1,
        "INT32": 4,
        "INT64": 8,
        "BOOL": 1,
        "UINT8": 1,
        "FP8": 1,
        "INT4": 0.5,
        "FP4": 0.5,
    }
    module.DataType.itemsize = property(lambda this: sizes.get(this.name))
    for name in names:
        if name in known:
            setattr(module, name, known[name])
        else:
            setattr(module, name, _no_behaviour(name))


def _no_behaviour(name: str) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"The fake TensorRT gives {name}() no behaviour.")

    return function
