"""What to build: frozen settings whose digest is, with the model's, the key of a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from edge_runtime.choices import member, settings
from edge_runtime.errors import ConfigError
from edge_runtime.gpu_config import TensorRTConfig
from edge_runtime.guard_config import GuardConfig


class Precision(str, Enum):
    """The precision of a bundle's graph. One value: flags that contradict cannot be written."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class CalibrationMethod(str, Enum):
    """How the range of a tensor is chosen from what was observed.

    `MAX` takes the largest absolute value; `PERCENTILE` clips the top share of values (Wu et al.
    2020, arXiv 2004.09602); `MSE` takes the range with the least expected squared quantization
    error; `ENTROPY` the one with the least KL divergence (Migacz, GTC 2017). `AUTO` takes, tensor
    by tensor, that of their ranges with which the layers that read the tensor err least.
    """

    MAX = "max"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"
    AUTO = "auto"


class Effort(str, Enum):
    """How long the rounding of INT8 weights may take.

    `DEFAULT` rounds each by itself, or with those of its kernel. `HIGH` chooses the levels of a
    layer together, so that its outputs on the samples come out best; it needs the samples, and
    minutes.
    """

    DEFAULT = "default"
    HIGH = "high"


class CpuMode(str, Enum):
    """How a CPU runs an INT8 bundle.

    `EXACT` computes what a GPU does, on every CPU alike. `FAST` runs a second form of the graph,
    whose 7-bit weights cannot overflow the CPU's INT8 instructions: quicker, not quite the same.
    """

    EXACT = "exact"
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class CalibrationConfig:
    """How ranges are chosen.

    Attributes:
        method: See `CalibrationMethod`.
        percentile: Share of the absolute values other than zero that stays inside the range, in
            percent; only for `PERCENTILE` and `AUTO`.
        equalize: Whether channels of unequal ranges are scaled alike before, where that makes the
            layers err less (Nagel et al. 2019, arXiv 1906.04721).
        bias_correction: Whether the mean error that rounded weights make is taken off the bias
            (the same paper).
        effort: See `Effort`.
    """

    method: CalibrationMethod = CalibrationMethod.MSE
    percentile: float = 99.99
    equalize: bool = True
    bias_correction: bool = True
    effort: Effort = Effort.DEFAULT

    if TYPE_CHECKING:  # What may be passed is wider than what is kept.

        def __init__(
            self,
            method: CalibrationMethod | str = ...,
            percentile: float = ...,
            equalize: bool = ...,
            bias_correction: bool = ...,
            effort: Effort | str = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", member(CalibrationMethod, self.method, "method"))
        object.__setattr__(self, "effort", member(Effort, self.effort, "effort"))
        if not 50 < self.percentile <= 100:
            raise ConfigError(f"percentile is {self.percentile}; it must be above 50, at most 100.")
        object.__setattr__(self, "percentile", float(self.percentile))  # 100 is 100.0.


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The shapes of one input that an optimization profile covers.

    Attributes:
        min: Smallest shape.
        opt: The shape that the builder optimises for.
        max: Largest shape.
    """

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("min", "opt", "max"):
            object.__setattr__(self, name, tuple(int(size) for size in getattr(self, name)))
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ConfigError(f"Shape {self}: min, opt and max must have the same rank.")
        if not all(0 < a <= b <= c for a, b, c in zip(self.min, self.opt, self.max, strict=True)):
            raise ConfigError(f"Shape {self}: each size must be positive, min <= opt <= max.")

    @classmethod
    def parse(cls, text: str) -> ShapeRange:
        """Reads `1x3x32x32,1x3x640x640,4x3x960x960`, or one shape that serves as all three."""
        try:
            shapes = [tuple(int(size) for size in part.split("x")) for part in text.split(",")]
        except ValueError:
            shapes = []
        if len(shapes) == 1:
            shapes *= 3
        if len(shapes) != 3:
            raise ConfigError(
                f"Shape {text!r} is not of the form MIN,OPT,MAX, such as "
                "1x3x32x32,1x3x64x64,4x3x96x96."
            )
        return cls(*shapes)

    def __str__(self) -> str:
        return ",".join("x".join(map(str, shape)) for shape in (self.min, self.opt, self.max))


OptimizationProfile = Mapping[str, ShapeRange]
"""One shape range for each input that has a dynamic dimension (TensorRT's optimization profile)."""

GivenProfile = Mapping[str, ShapeRange | str]
"""The same as it may be given: text such as `1x3x32x32,1x3x64x64,4x3x96x96` for a range."""

PLAN_SETTINGS = ("profiles", "tensorrt")
"""Fields of `BuildConfig` that a plan depends on and its key does not say."""


@dataclass(frozen=True, slots=True)
class BuildConfig:
    """Everything about a build that changes its result, but for the model and the data.

    Attributes:
        precision: `fp32`, `fp16`, `bf16` or `int8`.
        calibration: How ranges are chosen from the data.
        profiles: Optimization profiles, needed by TensorRT for inputs with dynamic dimensions. Each
            maps the names of such inputs to a shape range, or its text such as
            `1x3x32x32,1x3x64x64,4x3x96x96` (min, opt, max; one shape serves as all three). A
            single one may be given as it is. At run time the first that holds the shapes is used.
        exclude: Names of nodes that keep FP32 whatever the precision; in INT8, `rest`.
        high_precision: What is not INT8 in an INT8 graph: `fp32`, `fp16` or `bf16`. None is FP16
            under a guard, which leaves layers out of INT8 that should still be fast, else FP32.
        guard: The accuracy that INT8 may cost; layers leave INT8 until it is kept. None sets no
            limit.
        cpu_mode: `fast` adds the form that a CPU runs quickly to an INT8 bundle.
        backend: Whose plan the bundle carries beside the CPU graph: `auto` takes what this machine
            can build, `cpu` none; `tensorrt` or `tensorrt-rtx` must succeed.
        targets: GPU architectures for TensorRT-RTX, such as `sm86`; none means all from Ampere on.
        tensorrt: What TensorRT's builder is told beside the graph: a `TensorRTConfig`, or some of
            its fields with their values.
    """

    precision: Precision = Precision.FP32
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    profiles: tuple[OptimizationProfile, ...] = ()
    exclude: tuple[str, ...] = ()
    high_precision: Precision | None = None
    guard: GuardConfig | None = None
    cpu_mode: CpuMode = CpuMode.EXACT
    backend: str = "auto"
    targets: tuple[str, ...] = ()
    tensorrt: TensorRTConfig = field(default_factory=TensorRTConfig)

    if TYPE_CHECKING:  # What may be passed is wider than what is kept.

        def __init__(
            self,
            precision: Precision | str = ...,
            calibration: CalibrationConfig | Mapping[str, Any] = ...,
            profiles: GivenProfile | Iterable[GivenProfile] = ...,
            exclude: Iterable[str] = ...,
            high_precision: Precision | str | None = ...,
            guard: GuardConfig | Mapping[str, Any] | None = ...,
            cpu_mode: CpuMode | str = ...,
            backend: str = ...,
            targets: Iterable[str] = ...,
            tensorrt: TensorRTConfig | Mapping[str, Any] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", member(Precision, self.precision, "precision"))
        if self.high_precision is not None:
            rest = member(Precision, self.high_precision, "high_precision")
            object.__setattr__(self, "high_precision", rest)
        object.__setattr__(self, "cpu_mode", member(CpuMode, self.cpu_mode, "cpu_mode"))
        ranges = settings(CalibrationConfig, self.calibration, "calibration")
        object.__setattr__(self, "calibration", ranges)
        if self.guard is not None:
            object.__setattr__(self, "guard", settings(GuardConfig, self.guard, "guard"))
        self._check_int8_only()
        given: Any = self.profiles
        profiles = [given] if isinstance(given, Mapping) else given
        kept = tuple(_profile(profile) for profile in profiles if profile)
        for name in ("exclude", "targets"):
            if isinstance(getattr(self, name), str):  # It is a sequence too, of letters.
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be a list of names.")
        object.__setattr__(self, "profiles", kept)
        object.__setattr__(self, "tensorrt", settings(TensorRTConfig, self.tensorrt, "tensorrt"))
        object.__setattr__(self, "exclude", tuple(sorted(set(self.exclude))))
        object.__setattr__(self, "targets", tuple(sorted({t.lower() for t in self.targets})))
        if self.backend not in ("auto", "cpu", "tensorrt", "tensorrt-rtx"):
            raise ConfigError(
                f"backend is {self.backend!r}; it must be auto, cpu, tensorrt or tensorrt-rtx."
            )
        if self.targets and self.backend in ("cpu", "tensorrt"):
            raise ConfigError(
                f"targets were given, but backend {self.backend!r} has none: they are for "
                "tensorrt-rtx (a TensorRT plan is for the GPU that it is built on)."
            )

    def _check_int8_only(self) -> None:
        """Refuses settings of INT8 for another precision, which they would do nothing for."""
        if self.high_precision is Precision.INT8:
            raise ConfigError("high_precision is int8; it must be fp32, fp16 or bf16.")
        if self.precision is Precision.INT8:
            return
        given = {
            "high_precision": self.high_precision not in (None, Precision.FP32),
            "guard": self.guard is not None,
            "cpu_mode": self.cpu_mode is not CpuMode.EXACT,
        }
        for name in (name for name, is_given in given.items() if is_given):
            raise ConfigError(f"{name} is for int8, not for {self.precision.value}; leave it out.")

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values, as they stand in a bundle's manifest."""
        plain = asdict(self)
        plain["precision"] = self.precision.value
        plain["calibration"]["method"] = self.calibration.method.value
        plain["calibration"]["effort"] = self.calibration.effort.value
        plain["high_precision"] = self.high_precision and self.high_precision.value
        plain["cpu_mode"] = self.cpu_mode.value
        plain["profiles"] = [
            {name: str(shapes) for name, shapes in sorted(profile.items())}
            for profile in self.profiles
        ]
        level = self.tensorrt.hardware_compatibility
        plain["tensorrt"]["hardware_compatibility"] = level.value
        plain["exclude"] = list(self.exclude)
        plain["targets"] = list(self.targets)
        return plain

    @property
    def rest(self) -> Precision:
        """What is not INT8 in an INT8 graph."""
        if self.high_precision is not None:
            return self.high_precision
        return Precision.FP32 if self.guard is None else Precision.FP16

    @property
    def plan_settings(self) -> dict[str, Any]:
        """Those of `to_json` that a plan depends on and its key does not say."""
        plain = self.to_json()
        return {name: plain[name] for name in PLAN_SETTINGS}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> BuildConfig:
        """The inverse of `to_json`.

        Raises:
            ConfigError: An unknown or missing setting, or one of the wrong kind.
        """
        try:
            return cls(
                **{
                    **plain,
                    **{field.name: plain[field.name] for field in fields(cls)},  # None is missing.
                    "calibration": CalibrationConfig(**plain["calibration"]),
                    "guard": None if plain["guard"] is None else GuardConfig(**plain["guard"]),
                    "tensorrt": TensorRTConfig(**plain["tensorrt"]),
                    "exclude": tuple(plain["exclude"]),
                    "targets": tuple(plain["targets"]),
                }
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"These build settings cannot be read: {error}.") from error


def canonical_json(value: object) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(value: object) -> str:
    """SHA-256 of bytes, or of the canonical JSON of anything else, as `sha256:<hex>`."""
    data = value if isinstance(value, bytes) else canonical_json(value)
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _profile(given: GivenProfile) -> OptimizationProfile:
    """A profile with its texts read."""
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"A profile is {given!r}; it must map the names of inputs to their shape ranges."
        )
    profile = {
        name: ShapeRange.parse(shapes) if isinstance(shapes, str) else shapes
        for name, shapes in given.items()
    }
    for name, shapes in profile.items():
        if not isinstance(shapes, ShapeRange):
            raise ConfigError(
                f"The profile of input {name!r} is {shapes!r}; it must be a ShapeRange, or "
                "text such as 1x3x32x32,1x3x64x64,4x3x96x96."
            )
    return profile
