"""How a picture becomes an input tensor, declared: settings, their checks and the geometry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, cast, get_args

from edge_runtime.errors import ConfigError

Resize = Literal["stretch", "letterbox", "crop", "fit"]
Color = Literal["rgb", "bgr", "gray"]
Layout = Literal["nchw", "nhwc"]
Interpolation = Literal["linear", "area", "cubic", "nearest"]
PixelType = Literal["float32", "float16", "uint8"]

EXAMPLE = (
    "size=224x224,resize=crop,color=rgb,scale=1/255,mean=0.485/0.456/0.406,std=0.229/0.224/0.225"
)
"""A preprocessing as `Preprocessing.from_text` reads it, to show in messages."""

_CHOICES = {
    "resize": get_args(Resize),
    "color": get_args(Color),
    "layout": get_args(Layout),
    "interpolation": get_args(Interpolation),
    "dtype": get_args(PixelType),
}
_LARGEST_SIDE = 16384
_LARGEST_VALUE = {"float32": 3.4028234e38, "float16": 65504.0, "uint8": 255.0}


class Placement(NamedTuple):
    """Where the picture goes in the input.

    Attributes:
        resized: Height and width that the picture is resized to.
        output: Height and width of the input.
        top: Rows above the resized picture in the input; negative where rows are cut off.
        left: Columns left of it; negative where columns are cut off.
    """

    resized: tuple[int, int]
    output: tuple[int, int]
    top: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a picture becomes an input tensor; it must be what the model was trained with.

    Each value of the tensor is `(pixel * scale - mean) / std`, where `pixel` is 0 to 255.

    Attributes:
        size: Height and width of the input, or one number for both. Kept as a pair.
        resize: `stretch` ignores the picture's aspect. `letterbox` keeps it, centres the picture
            and fills the rest with `pad` (as YOLO). `crop` keeps it, resizes the short side to
            `short_side` and cuts `size` out of the centre (as ImageNet). `fit` keeps it as far as
            `multiple` allows: the longest side becomes at most `size` and each side a multiple of
            `multiple`; smaller pictures are not enlarged (for nets with dynamic height and width).
        color: Order of the channels; `gray` is one channel, by ITU-R BT.601.
        layout: `nchw` or `nhwc`.
        scale: What a pixel is multiplied by.
        mean: Subtracted after `scale`: one number, or one for each channel in the order of `color`.
            Kept as one for each channel.
        std: Divided by after that; as `mean`.
        dtype: Element type; `uint8` takes the pixels as they are.
        interpolation: As OpenCV names them. `linear` and `cubic` do not smooth when they shrink;
            `area` does.
        pad: Pixel value from 0 to 255 around the picture; only for `letterbox`.
        multiple: Only for `fit`.
        short_side: Only for `crop`; at least both sides of `size`. ImageNet models are mostly
            trained with 256 for a size of 224. None: just enough to cover `size`.

    Raises:
        ConfigError: A setting is out of range, of the wrong kind, or has no effect with `resize`.
    """

    size: int | tuple[int, int]
    resize: Resize = "stretch"
    color: Color = "rgb"
    layout: Layout = "nchw"
    scale: float = 1 / 255
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    dtype: PixelType = "float32"
    interpolation: Interpolation = "linear"
    pad: int = 114
    multiple: int = 32
    short_side: int | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise _wrong(name, getattr(self, name), f"one of {', '.join(choices)}")
        self._set("size", self._checked_size())
        self._set("scale", _number(self.scale, "scale"))
        self._set("mean", self._each_channel("mean"))
        self._set("std", self._each_channel("std"))
        self._check_values()
        self._check_resize()

    @property
    def height(self) -> int:
        """Height of the input, in pixels; for `fit` the largest."""
        return cast(tuple[int, int], self.size)[0]

    @property
    def width(self) -> int:
        """Width of the input, in pixels; for `fit` the largest."""
        return cast(tuple[int, int], self.size)[1]

    @property
    def channels(self) -> int:
        """1 for `gray`, else 3."""
        return 1 if self.color == "gray" else 3

    def place(self, height: int, width: int) -> Placement:
        """Where a picture of `height` x `width` pixels goes in the input."""
        output = (self.height, self.width)
        if self.resize == "stretch":
            return Placement(output, output, 0, 0)
        if self.resize == "fit":
            ratio = min(1.0, self.height / max(height, width))
            step = self.multiple
            fitted = (
                max(step, round(height * ratio / step) * step),
                max(step, round(width * ratio / step) * step),
            )
            return Placement(fitted, fitted, 0, 0)
        if self.resize == "letterbox":
            ratio = min(self.height / height, self.width / width)
        elif self.short_side is None:
            ratio = max(self.height / height, self.width / width)
        else:
            ratio = self.short_side / min(height, width)
        rows, columns = max(1, round(height * ratio)), max(1, round(width * ratio))
        top, left = (self.height - rows) / 2, (self.width - columns) / 2
        return Placement((rows, columns), output, int(top), int(left))

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_json`; settings with a default may be left out.

        Raises:
            ConfigError: A setting is unknown, missing, out of range or of the wrong kind.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in plain if name not in known]
        if unknown:
            raise ConfigError(
                f"{unknown[0]!r} is no setting of the preprocessing; there are {', '.join(known)}."
            )
        if "size" not in plain:
            raise ConfigError(f"The preprocessing lacks size; an example is {EXAMPLE}.")
        return cls(**dict(plain))

    @classmethod
    def from_text(cls, text: str) -> Preprocessing:
        """Reads settings written as `key=value,key=value`; see `EXAMPLE`.

        `size` is `224`, or height and width as `480x640`; `scale` may be a fraction such as
        `1/255`; `mean` and `std` are one number, or one for each channel with slashes between.

        Raises:
            ConfigError: The text is not of that form, or a setting is not allowed.
        """
        plain: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or not value:
                raise ConfigError(
                    f"{part.strip()!r} in the preprocessing is not key=value; "
                    f"an example is {EXAMPLE}."
                )
            if name in plain:
                raise ConfigError(f"The preprocessing says {name} twice; an example is {EXAMPLE}.")
            try:
                plain[name] = _READERS.get(name, str)(value)
            except (ValueError, ZeroDivisionError):
                raise ConfigError(
                    f"{name}={value} in the preprocessing cannot be read; an example is {EXAMPLE}."
                ) from None
        try:
            return cls.from_json(plain)
        except ConfigError as error:
            hint = "" if EXAMPLE in str(error) else f" An example is {EXAMPLE}."
            raise ConfigError(f"{error}{hint}") from None

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _checked_size(self) -> tuple[int, int]:
        size: Any = self.size
        sides = (size, size) if isinstance(size, int) else size
        if not isinstance(sides, tuple | list) or len(sides) != 2:
            raise _wrong("size", size, "height and width, or one number for both")
        height, width = (_whole(side, "size", low=1, high=_LARGEST_SIDE) for side in sides)
        return height, width

    def _each_channel(self, name: str) -> tuple[float, ...]:
        value = getattr(self, name)
        values = value if isinstance(value, tuple | list) else (value,)
        if len(values) not in (1, self.channels):
            wanted = f"one number or {self.channels}, as color is {self.color}"
            raise _wrong(name, value, wanted)
        numbers = tuple(_number(number, name) for number in values)
        return numbers if len(numbers) == self.channels else numbers * self.channels

    def _check_values(self) -> None:
        means, stds = cast(tuple[float, ...], self.mean), cast(tuple[float, ...], self.std)
        if self.scale <= 0:
            raise _wrong("scale", self.scale, "above 0")
        if min(stds) <= 0:
            raise _wrong("std", self.std, "above 0")
        if self.dtype == "uint8" and (self.scale != 1 or any(means) or set(stds) != {1.0}):
            raise ConfigError(
                "dtype uint8 takes the pixels as they are: say scale=1 and leave out mean and std."
            )
        pairs = list(zip(means, stds, strict=True))
        ends = [(pixel * self.scale - m) / s for pixel in (0, 255) for m, s in pairs]
        if not all(abs(value) <= _LARGEST_VALUE[self.dtype] for value in ends):
            raise ConfigError(f"scale, mean and std give values too large for {self.dtype}.")

    def _check_resize(self) -> None:
        for name, resize, unset in (
            ("pad", "letterbox", 114),
            ("multiple", "fit", 32),
            ("short_side", "crop", None),
        ):
            if getattr(self, name) != unset and self.resize != resize:
                raise ConfigError(f"{name} is for resize={resize}, but resize is {self.resize}.")
        self._set("pad", _whole(self.pad, "pad", low=0, high=255))
        self._set("multiple", _whole(self.multiple, "multiple", low=1, high=_LARGEST_SIDE))
        if self.short_side is not None:
            low = max(self.height, self.width)
            short = _whole(self.short_side, "short_side", low=low, high=_LARGEST_SIDE)
            self._set("short_side", short)
        if self.resize == "fit" and (self.height != self.width or self.height % self.multiple):
            wanted = f"one number and a multiple of {self.multiple}, as resize is fit"
            raise _wrong("size", f"{self.height}x{self.width}", wanted)


def _wrong(name: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"{name} of the preprocessing is {value!r}; it must be {wanted}.")


def _number(value: object, name: str) -> float:
    if type(value) is bool or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise _wrong(name, value, "a finite number")
    return float(value)


def _whole(value: object, name: str, *, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _wrong(name, value, f"a whole number from {low} to {high}")
    return value


def _read_size(text: str) -> int | tuple[int, ...]:
    sides = tuple(int(side) for side in text.split("x"))
    return sides[0] if len(sides) == 1 else sides


def read_fraction(text: str) -> float:
    """Reads `1/255` or `0.5`.

    Raises:
        ValueError: It is neither.
        ZeroDivisionError: The lower number is 0.
    """
    upper, slash, lower = text.partition("/")
    return float(upper) / float(lower) if slash else float(upper)


def _read_channels(text: str) -> float | tuple[float, ...]:
    values = tuple(float(value) for value in text.split("/"))
    return values[0] if len(values) == 1 else values


_READERS: dict[str, Callable[[str], object]] = {
    "size": _read_size,
    "scale": read_fraction,
    "mean": _read_channels,
    "std": _read_channels,
    "pad": int,
    "multiple": int,
    "short_side": int,
}
