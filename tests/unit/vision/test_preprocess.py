"""Preprocessing: its checks, its two written forms and the geometry of a resize."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import ConfigError
from edge_runtime.vision.preprocess import EXAMPLE, Preprocessing

number = st.floats(-1e3, 1e3)
positive = st.floats(1e-3, 1e3)


@st.composite
def settings(draw: st.DrawFn) -> dict[str, object]:
    """Settings that are allowed, as a caller would write them."""
    color = draw(st.sampled_from(["rgb", "bgr", "gray"]))
    channels = 1 if color == "gray" else 3
    resize = draw(st.sampled_from(["stretch", "letterbox", "crop", "fit"]))
    side = st.integers(1, 512)
    chosen: dict[str, object] = {
        "size": draw(st.one_of(side, st.tuples(side, side))),
        "resize": resize,
        "color": color,
        "layout": draw(st.sampled_from(["nchw", "nhwc"])),
        "scale": draw(positive),
        "mean": draw(st.one_of(number, st.tuples(*[number] * channels))),
        "std": draw(st.one_of(positive, st.tuples(*[positive] * channels))),
        "interpolation": draw(st.sampled_from(["linear", "area", "cubic", "nearest"])),
    }
    if resize == "letterbox":
        chosen["pad"] = draw(st.integers(0, 255))
    if resize == "crop":
        chosen["short_side"] = draw(st.integers(512, 1024))
    if resize == "fit":
        chosen["multiple"] = draw(st.integers(1, 64))
        chosen["size"] = chosen["multiple"] * draw(st.integers(1, 8))
    return chosen


def written(value: object) -> str:
    separator = "x" if isinstance(value, tuple) and isinstance(value[0], int) else "/"
    return separator.join(map(str, value)) if isinstance(value, tuple) else str(value)


@given(settings())
def test_text_says_the_same_as_keywords(chosen: dict[str, object]) -> None:
    text = ", ".join(f"{name}={written(value)}" for name, value in chosen.items())
    assert Preprocessing.from_text(text) == Preprocessing(**chosen)


@given(settings())
def test_json_gives_back_equal_settings(chosen: dict[str, object]) -> None:
    declared = Preprocessing(**chosen)
    assert Preprocessing.from_json(json.loads(json.dumps(declared.to_json()))) == declared


@given(st.text(alphabet="sizecolrmeanstdpx=,/.0123456789- ") | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ConfigError):
        assert Preprocessing.from_text(text).height > 0


def test_the_example_is_what_imagenet_models_take() -> None:
    assert Preprocessing.from_text(EXAMPLE).to_json() == {
        "size": [224, 224],
        "resize": "crop",
        "color": "rgb",
        "layout": "nchw",
        "scale": 1 / 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "dtype": "float32",
        "interpolation": "linear",
        "pad": 114,
        "multiple": 32,
        "short_side": None,
    }


def test_two_ways_to_say_the_same_are_equal() -> None:
    assert Preprocessing(size=8, mean=0.5) == Preprocessing(size=(8, 8), mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "size"),
        ("resize=crop", "size"),
        ("size=224,zoom=2", "zoom"),
        ("size=224,size=225", "size"),
        ("size=224,resize", "resize"),
        ("size=224,resize=zoom", "resize"),
        ("size=224,dtype=int8", "dtype"),
        ("size=2x2x2", "size"),
        ("size=0", "size"),
        ("size=99999", "size"),
        ("size=8,scale=1/0", "scale"),
        ("size=8,scale=0", "scale"),
        ("size=8,scale=nan", "scale"),
        ("size=8,mean=1/2", "mean"),
        ("size=8,color=gray,mean=1/2/3", "mean"),
        ("size=8,std=1/0/1", "std"),
        ("size=8,std=inf", "std"),
        ("size=8,resize=letterbox,pad=256", "pad"),
        ("size=8,resize=letterbox,pad=1.5", "pad"),
        ("size=8,pad=0", "letterbox"),
        ("size=8,multiple=16", "fit"),
        ("size=8,short_side=16", "crop"),
        ("size=100,resize=fit", "multiple of 32"),
        ("size=64x96,resize=fit", "one number"),
        ("size=8x16,resize=crop,short_side=12", "short_side"),
        ("size=8,dtype=uint8", "scale=1"),
        ("size=8,dtype=uint8,scale=1,mean=1", "scale=1"),
        ("size=8,dtype=float16,std=0.00001", "float16"),
    ],
)
def test_a_mistake_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Preprocessing.from_text(text)
    assert named in str(caught.value)
    assert EXAMPLE in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "plain",
    [
        {"size": 8, "flip": True},
        {"color": "rgb"},
        {"size": True},
        {"size": "8"},
        {"size": 8, "scale": "1/255"},
        {"size": 8, "scale": True},
        {"size": 8, "scale": 10**400},
        {"size": 8, "mean": None},
        {"size": 8, "mean": []},
        {"size": 8, "resize": ["crop"]},
        {"size": 8, "resize": "letterbox", "pad": 1.0},
    ],
)
def test_json_is_read_strictly(plain: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Preprocessing.from_json(plain)


sides = st.integers(1, 5000)
inputs = st.tuples(st.integers(1, 700), st.integers(1, 700))


@given(sides, sides, inputs)
def test_letterbox_shows_the_whole_picture_centred(
    height: int, width: int, size: tuple[int, int]
) -> None:
    (rows, columns), output, top, left = Preprocessing(size=size, resize="letterbox").place(
        height, width
    )
    assert output == size
    assert rows == size[0] or columns == size[1]
    assert 0 <= top == (size[0] - rows) // 2
    assert 0 <= left == (size[1] - columns) // 2
    if min(rows, columns) > 1:
        # Each side is within half a pixel of the exact one, whatever the ratio.
        ratio = min(size[0] / height, size[1] / width)
        assert abs(rows - height * ratio) <= 0.5
        assert abs(columns - width * ratio) <= 0.5


@given(sides, sides, inputs, st.none() | st.integers(700, 1000))
def test_crop_fills_the_input_from_the_centre(
    height: int, width: int, size: tuple[int, int], short_side: int | None
) -> None:
    declared = Preprocessing(size=size, resize="crop", short_side=short_side)
    (rows, columns), output, top, left = declared.place(height, width)
    assert output == size
    assert -top == (rows - size[0]) // 2 >= 0
    assert -left == (columns - size[1]) // 2 >= 0
    if short_side is None:
        assert rows == size[0] or columns == size[1]
    else:
        assert min(rows, columns) == short_side


@given(sides, sides, st.integers(1, 64), st.integers(1, 20))
def test_fit_gives_multiples_and_never_enlarges_beyond_rounding(
    height: int, width: int, multiple: int, steps: int
) -> None:
    size = multiple * steps
    declared = Preprocessing(size=size, resize="fit", multiple=multiple)
    (rows, columns), output, top, left = declared.place(height, width)
    assert (rows, columns) == output
    assert (top, left) == (0, 0)
    ratio = min(1.0, size / max(height, width))
    for got, side in ((rows, height), (columns, width)):
        assert got % multiple == 0
        assert multiple <= got <= size
        assert got == multiple or abs(got - side * ratio) <= multiple / 2


def test_known_placements() -> None:
    yolo = Preprocessing(size=640, resize="letterbox")
    assert yolo.place(1080, 1920) == ((360, 640), (640, 640), 140, 0)
    imagenet = Preprocessing(size=224, resize="crop", short_side=256)
    assert imagenet.place(512, 768) == ((256, 384), (224, 224), -16, -80)
    detector = Preprocessing(size=960, resize="fit")
    assert detector.place(2000, 1000) == ((960, 480), (960, 480), 0, 0)
    assert detector.place(100, 20) == ((96, 32), (96, 32), 0, 0)
