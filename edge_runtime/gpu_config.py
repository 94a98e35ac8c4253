"""What TensorRT's builder is told beside the graph, and how a session uses a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from edge_runtime.choices import member, size
from edge_runtime.errors import ConfigError


class HardwareCompatibility(str, Enum):
    """Which GPUs a TensorRT plan runs on (TensorRT's `HardwareCompatibilityLevel`).

    `NONE`: those of the model that it was built on. `SAME_COMPUTE_CAPABILITY`: all of the same
    compute capability. `AMPERE_PLUS`: Ampere and newer, slower.
    """

    NONE = "none"
    SAME_COMPUTE_CAPABILITY = "same-compute-capability"
    AMPERE_PLUS = "ampere+"


_SWITCHES = (
    *("tf32", "sparse_weights", "version_compatible", "refit", "strip_weights"),
    *("weight_streaming", "strict"),
)


@dataclass(frozen=True, slots=True)
class TensorRTConfig:
    """What TensorRT's builder is told beside the graph; all of it may change the plan.

    Attributes:
        workspace: Most bytes that a layer may use while it runs (memory pool `WORKSPACE`), or their
            text such as `512MiB`; None leaves it to TensorRT, within what the machine has.
        optimization_level: How long the builder looks for fast kernels, 0 to 5; None is TensorRT's
            own, 3.
        max_aux_streams: Most streams beside the main one that the engine may use; None leaves it to
            TensorRT.
        tf32: Lets FP32 layers compute in TF32, which has 10 bits of mantissa. TensorRT's own
            default is yes; here it is no, since then FP32 would not be FP32.
        sparse_weights: Uses kernels for weights in which two of every four are zero.
        version_compatible: Makes a plan that newer TensorRTs load too.
        hardware_compatibility: Which GPUs the plan runs on.
        refit: Lets the weights be replaced later.
        strip_weights: Leaves the weights out of the plan; they are taken from the bundle's graph
            when it is loaded.
        weight_streaming: Lets the weights stay in host memory, and come to the GPU when needed.
        dla_core: Builds for this DLA core, with the GPU for layers that the DLA does not have.
        strict: Refuses a plan whose layers do not have the precision that the graph says.
    """

    workspace: int | None = None
    optimization_level: int | None = None
    max_aux_streams: int | None = None
    tf32: bool = False
    sparse_weights: bool = False
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    refit: bool = False
    strip_weights: bool = False
    weight_streaming: bool = False
    dla_core: int | None = None
    strict: bool = False

    if TYPE_CHECKING:  # What may be passed is wider than what is kept.

        def __init__(
            self,
            workspace: int | str | None = ...,
            optimization_level: int | None = ...,
            max_aux_streams: int | None = ...,
            tf32: bool = ...,
            sparse_weights: bool = ...,
            version_compatible: bool = ...,
            hardware_compatibility: HardwareCompatibility | str = ...,
            refit: bool = ...,
            strip_weights: bool = ...,
            weight_streaming: bool = ...,
            dla_core: int | None = ...,
            strict: bool = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        level = member(HardwareCompatibility, self.hardware_compatibility, "hardware_compatibility")
        object.__setattr__(self, "hardware_compatibility", level)
        object.__setattr__(self, "workspace", size(self.workspace, "workspace"))
        for name in _SWITCHES:
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be True or False.")
        for name, lowest, highest in (
            ("workspace", 1, None),
            ("optimization_level", 0, 5),
            ("max_aux_streams", 0, None),
            ("dla_core", 0, None),
        ):
            value = getattr(self, name)
            if value is not None and type(value) is not int:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number.")
            if value is not None and (value < lowest or (highest is not None and value > highest)):
                limits = f"from {lowest} to {highest}" if highest else f"{lowest} or more"
                raise ConfigError(f"{name} is {value}; it must be {limits}.")
        if self.dla_core is not None and self.hardware_compatibility.value != "none":
            raise ConfigError(
                "A plan for a DLA cannot be hardware compatible; leave out dla_core or "
                "hardware_compatibility."
            )


DRIVERS = ("auto", "cuda-bindings", "pycuda")
"""Python's bindings of CUDA, as `GpuConfig.driver` names them."""


class DeviceErrorPolicy(str, Enum):
    """What a session does when its GPU fails: `RAISE` the error, or go on on the `CPU`."""

    RAISE = "raise"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class GpuConfig:
    """How a session uses a GPU. None of it changes a result.

    Attributes:
        driver: The Python binding of CUDA: `cuda-bindings`, `pycuda`, or `auto` for the first of
            these two that is installed.
        cuda_graphs: Captures the engine's work in a CUDA graph and replays it while shapes stay the
            same: less work for the CPU on networks of many small layers.
        mapped: Lets the GPU read inputs from, and write outputs to, host memory without a copy.
            Only for GPUs that share the host's memory, as a Jetson's does.
        share_memory: Contexts take turns on one block of activation memory: less memory, but only
            copies overlap, not the engine's own work.
        spin: Waits for the GPU with a busy CPU core: some microseconds faster.
        weight_budget: Bytes of weights that stay on the GPU, or their text such as `512MiB`, for a
            plan built with weight streaming; None leaves it to TensorRT.
        dla_core: The DLA core that runs a plan built for one.
        on_device_error: Whether a session goes on on the CPU when its GPU fails.
    """

    driver: str = "auto"
    cuda_graphs: bool = False
    mapped: bool = False
    share_memory: bool = False
    spin: bool = False
    weight_budget: int | None = None
    dla_core: int = 0
    on_device_error: DeviceErrorPolicy = DeviceErrorPolicy.RAISE

    if TYPE_CHECKING:  # What may be passed is wider than what is kept.

        def __init__(
            self,
            driver: str = ...,
            cuda_graphs: bool = ...,
            mapped: bool = ...,
            share_memory: bool = ...,
            spin: bool = ...,
            weight_budget: int | str | None = ...,
            dla_core: int = ...,
            on_device_error: DeviceErrorPolicy | str = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        policy = member(DeviceErrorPolicy, self.on_device_error, "on_device_error")
        object.__setattr__(self, "on_device_error", policy)
        if self.driver not in DRIVERS:
            raise ConfigError(f"driver is {self.driver!r}; it must be one of {', '.join(DRIVERS)}.")
        object.__setattr__(self, "weight_budget", size(self.weight_budget, "weight_budget"))
        if self.weight_budget is not None and self.weight_budget < 0:
            raise ConfigError(f"weight_budget is {self.weight_budget}; it must be 0 or more bytes.")
