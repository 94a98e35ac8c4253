"""Reads a recipe: the TOML file that says what to build, from which data, all in one place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails

from edge_runtime.config import (
    BuildConfig,
    CalibrationConfig,
    CalibrationMethod,
    CpuMode,
    Effort,
    Precision,
    ShapeRange,
)
from edge_runtime.data.evaluation import Evaluation
from edge_runtime.errors import ConfigError
from edge_runtime.files import StrPath, open_file
from edge_runtime.gpu_config import HardwareCompatibility, TensorRTConfig
from edge_runtime.guard_config import GuardConfig
from edge_runtime.vision.preprocess import (
    Color,
    Interpolation,
    Layout,
    PixelType,
    Preprocessing,
    Resize,
    read_fraction,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a recipe says. Paths in it are relative to its folder; here they are joined to it.

    Attributes:
        path: The recipe's own file.
        build: The build settings.
        preprocessing: How a picture becomes an input tensor; None if the recipe does not say.
        data: Where the samples for calibration are; None if the recipe does not say.
        limit: The most samples to take; None takes all.
        model: The ONNX file; None if the recipe does not say.
        model_digest: What the model's bytes must hash to, as `sha256:<hex>`; None takes any.
        evaluation: What the accuracy guard judges on; None if the recipe has no guard.
    """

    path: Path
    build: BuildConfig
    preprocessing: Preprocessing | None = None
    data: Path | None = None
    limit: int | None = None
    model: Path | None = None
    model_digest: str | None = None
    evaluation: Evaluation | None = None


def load_recipe(path: StrPath) -> Recipe:
    """Reads a recipe, such as `engines/<model>/recipe.toml`.

    Whether the files that it names are there is left to those who read them.

    Raises:
        ConfigError: The file cannot be read or is no TOML, or settings are unknown, missing or
            wrong: all of them, one a line, by dotted name.
    """
    with open_file(path, error=ConfigError) as file:
        try:
            tables = tomllib.load(file)
        except ValueError as error:
            raise ConfigError(f"{path} is no TOML: {error}.") from error
    try:
        contents = _File.model_validate(tables)
    except ValidationError as error:
        mistakes = [_describe(mistake) for mistake in error.errors(include_url=False)]
        count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise ConfigError("\n  ".join([f"{path} has {count}:", *mistakes])) from None
    return contents.recipe(Path(path))


def _checked(make: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """Calls `make`; its ConfigError becomes the ValueError that pydantic collects."""
    try:
        return make(*args, **settings)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _backend(value: str) -> str:
    _checked(BuildConfig, backend=value)
    return value


def _percentile(value: float) -> float:
    _checked(CalibrationConfig, percentile=value)
    return value


def _one_or_each(value: Any, handler: Callable[[Any], Any]) -> Any:
    try:
        return handler(value)
    except ValidationError:
        raise ValueError("must be one number or a list of numbers") from None


def _fraction(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return read_fraction(value)
    except (ValueError, ZeroDivisionError):
        raise ValueError('must be a number, or a fraction such as "1/255"') from None


def _shape_range(value: Any) -> ShapeRange:
    if not isinstance(value, str):
        raise ValueError('must be text such as "1x3x32x32,1x3x640x640,4x3x960x960"')  # noqa: TRY004
    shapes: ShapeRange = _checked(ShapeRange.parse, value)
    return shapes


def _workspace(value: Any) -> int | None:
    _checked(TensorRTConfig, workspace=value)
    return TensorRTConfig(workspace=value).workspace


def _max_drop(value: Any) -> Any:
    _checked(GuardConfig, value, "sqnr")  # It takes levels too; whether they fit, all settings say.
    return value


def _metric(value: str | None) -> str | None:
    if value is not None:
        _checked(GuardConfig, 0.0, value)
    return value


def _form(value: Any) -> str | None:
    if isinstance(value, dict):
        return "table"
    return "tables" if isinstance(value, list) else None


_Each = WrapValidator(_one_or_each)
_Profile = dict[str, Annotated[Any, PlainValidator(_shape_range)]]
_OneOrMore = Annotated[
    Annotated[_Profile, Tag("table")] | Annotated[list[_Profile], Tag("tables")],
    Discriminator(
        _form,
        custom_error_type="form",
        custom_error_message="must be a table [profile], or tables [[profile]]",
    ),
]


class _Table(BaseModel):
    """A table whose keys are all optional: what is left out stays None.

    Defaults are the configuration classes' own.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    def given(self, *, without: set[str] | None = None) -> dict[str, Any]:
        return self.model_dump(exclude_none=True, exclude=without)


class _Build(_Table):
    precision: Annotated[Precision | None, Field(strict=False)] = None
    backend: Annotated[str | None, AfterValidator(_backend)] = None
    targets: list[str] | None = None
    exclude: list[str] | None = None
    high_precision: Annotated[Precision | None, Field(strict=False)] = None
    cpu_mode: Annotated[CpuMode | None, Field(strict=False)] = None

    @model_validator(mode="after")
    def _allowed(self) -> _Build:
        _checked(BuildConfig, **self.given())
        return self


class _Calibration(_Table):
    method: Annotated[CalibrationMethod | None, Field(strict=False)] = None
    percentile: Annotated[float | None, AfterValidator(_percentile)] = None
    equalize: bool | None = None
    bias_correction: bool | None = None
    effort: Annotated[Effort | None, Field(strict=False)] = None
    data: Annotated[str | None, Field(min_length=1)] = None
    limit: Annotated[int | None, Field(ge=1)] = None

    @model_validator(mode="after")
    def _allowed(self) -> _Calibration:
        clips = (CalibrationMethod.PERCENTILE, CalibrationMethod.AUTO)
        if self.percentile is not None and self.method not in clips:
            raise ValueError('percentile is only for method = "percentile" or "auto"')
        _checked(self.config)
        return self

    def config(self) -> CalibrationConfig:
        return CalibrationConfig(**self.given(without={"data", "limit"}))


class _Guard(_Table):
    max_drop: Annotated[Any, PlainValidator(_max_drop)]
    metric: Annotated[str | None, AfterValidator(_metric)] = None
    confident: bool | None = None
    data: Annotated[str | None, Field(min_length=1)] = None
    labels: Annotated[str | None, Field(min_length=1)] = None
    limit: Annotated[int | None, Field(ge=1)] = None

    @model_validator(mode="after")
    def _allowed(self) -> _Guard:
        if self.limit is not None and self.data is None:
            raise ValueError("limit is of the samples in data, which is missing")
        _checked(self.config)
        return self

    def config(self) -> GuardConfig:
        return GuardConfig(**self.given(without={"data", "labels", "limit"}))

    def evaluation(self, folder: Path) -> Evaluation:
        data, labels = (folder / path if path else None for path in (self.data, self.labels))
        return Evaluation(data, labels, self.limit)


class _Preprocessing(_Table):
    size: Annotated[int | list[int], _Each]
    resize: Resize | None = None
    color: Color | None = None
    layout: Layout | None = None
    scale: Annotated[float | None, BeforeValidator(_fraction)] = None
    mean: Annotated[float | list[float] | None, _Each] = None
    std: Annotated[float | list[float] | None, _Each] = None
    dtype: PixelType | None = None
    interpolation: Interpolation | None = None
    pad: int | None = None
    multiple: int | None = None
    short_side: int | None = None

    @model_validator(mode="after")
    def _allowed(self) -> _Preprocessing:
        _checked(self.config)
        return self

    def config(self) -> Preprocessing:
        return Preprocessing(**self.given())


class _TensorRT(_Table):
    workspace: Annotated[int | None, BeforeValidator(_workspace)] = None
    optimization_level: int | None = None
    max_aux_streams: int | None = None
    tf32: bool | None = None
    sparse_weights: bool | None = None
    version_compatible: bool | None = None
    hardware_compatibility: Annotated[HardwareCompatibility | None, Field(strict=False)] = None
    refit: bool | None = None
    strip_weights: bool | None = None
    weight_streaming: bool | None = None
    dla_core: int | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _allowed(self) -> _TensorRT:
        _checked(self.config)
        return self

    def config(self) -> TensorRTConfig:
        return TensorRTConfig(**self.given())


class _Model(_Table):
    path: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str | None, Field(pattern="^[0-9a-f]{64}$")] = None


class _File(_Table):
    build: _Build = Field(default_factory=_Build)
    calibration: _Calibration = Field(default_factory=_Calibration)
    preprocessing: _Preprocessing | None = None
    profile: _OneOrMore = Field(default_factory=dict)
    tensorrt: _TensorRT = Field(default_factory=_TensorRT)
    model: _Model | None = None
    guard: _Guard | None = None

    @model_validator(mode="after")
    def _allowed(self) -> _File:
        if self.guard is not None and self.build.precision is not Precision.INT8:
            raise ValueError('guard: is for precision = "int8"')
        return self

    def recipe(self, path: Path) -> Recipe:
        data, model, pictures = self.calibration.data, self.model, self.preprocessing
        return Recipe(
            path=path,
            build=BuildConfig(
                **self.build.given(),
                calibration=self.calibration.config(),
                profiles=self.profile,
                tensorrt=self.tensorrt.config(),
                guard=self.guard.config() if self.guard else None,
            ),
            preprocessing=pictures.config() if pictures else None,
            data=path.parent / data if data else None,
            limit=self.calibration.limit,
            model=path.parent / model.path if model else None,
            model_digest=f"sha256:{model.sha256}" if model and model.sha256 else None,
            evaluation=self.guard.evaluation(path.parent) if self.guard else None,
        )


_KEYS: dict[tuple[int | str, ...], type[_Table]] = {
    (): _File,
    ("build",): _Build,
    ("calibration",): _Calibration,
    ("preprocessing",): _Preprocessing,
    ("tensorrt",): _TensorRT,
    ("model",): _Model,
    ("guard",): _Guard,
}


def _describe(mistake: ErrorDetails) -> str:
    """One line: the dotted name, what is wrong and what was found."""
    where = mistake["loc"]
    if not where:
        return str(mistake["ctx"]["error"])
    if where[0] == "profile":  # Then comes the tag that says which of the two forms it has.
        where = (*where[:1], *where[2:])
    name = ".".join(map(str, where))
    if mistake["type"] == "extra_forbidden":
        return f"{name}: unknown; there are {', '.join(_KEYS[where[:-1]].model_fields)}"
    if mistake["type"] == "missing":
        return f"{name}: is needed, but missing"
    if mistake["type"] == "value_error":
        return f"{name}: {mistake['ctx']['error']}"
    return f"{name}: {mistake['msg']}, but is {mistake['input']!r}"
