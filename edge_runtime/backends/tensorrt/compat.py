"""What one version of TensorRT has and another has not, asked of the module by name.

Numbers are of no use: those of the enum members move from version to version (bit 0 of a network's
creation flags is EXPLICIT_BATCH in TensorRT 10 and STRONGLY_TYPED in 11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_runtime.errors import BackendUnavailableError, BuildError, ConfigError


def network_flags(trt: Any) -> int:
    """The creation flags of a strongly typed network, whose precision is the graph's own.

    TensorRT 10 has the flag; 11 has it too but types strongly without it.

    Raises:
        BackendUnavailableError: This TensorRT can only choose precisions by itself (before 10).
    """
    flags = trt.NetworkDefinitionCreationFlag
    if hasattr(flags, "STRONGLY_TYPED"):
        return 1 << int(flags.STRONGLY_TYPED)
    if hasattr(trt.BuilderFlag, "FP16"):
        raise BackendUnavailableError(
            f"TensorRT {trt.__version__} has no strongly typed networks, so it would not keep the "
            "graph's precision; TensorRT 10.3 or newer is needed."
        )
    return 0


def target_names(trt: Any) -> tuple[str, ...]:
    """The GPU architectures that can be built for, such as `sm86`, oldest first.

    Empty where the module builds for the GPU it runs on and no other: all but TensorRT-RTX.
    """
    if not hasattr(trt, "ComputeCapability"):
        return ()
    names = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    return tuple(sorted((name.lower() for name in names), key=target_number))


def target_number(target: str) -> int:
    """86 for `sm86`."""
    return int(target[2:])


def set_targets(trt: Any, config: Any, targets: Sequence[str]) -> None:
    """Makes `config` build for these architectures; for none, RTX takes all from Ampere on.

    Nothing is asked of a TensorRT that builds for the GPU it runs on and no other.

    Raises:
        BuildError: The library refused one.
    """
    if not target_names(trt):
        return
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        member = getattr(trt.ComputeCapability, target.upper())
        if not config.set_compute_capability(member, index):
            raise BuildError(f"TensorRT-RTX {trt.__version__} does not build for {target}.")


def enum_member(trt: Any, enum: str, name: str, *, option: str) -> Any:
    """A member of one of the module's enums, such as `SPARSE_WEIGHTS` of `BuilderFlag`.

    Args:
        trt: The module.
        enum: Name of the enum.
        name: Name of the member.
        option: The setting that needs it, for the message.

    Raises:
        ConfigError: This TensorRT lacks it.
    """
    member = getattr(getattr(trt, enum, None), name, None)
    if member is None:
        raise ConfigError(
            f"{option}: TensorRT {trt.__version__} cannot do this (it has no {enum}.{name}). Leave "
            "the option out, or build with a TensorRT that has it."
        )
    return member


def onnx_layers(metadata: str) -> tuple[str, ...]:
    """The names of ONNX nodes in the metadata that the parser gives a layer.

    It is `[ONNX Layer: conv1]`; a layer fused from several has them all, with U+001E between.
    """
    parts = metadata.split("[ONNX Layer: ")[1:]
    return tuple(part.rpartition("]")[0] or part for part in parts)
