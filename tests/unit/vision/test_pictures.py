"""Pictures: which files are read as what, and the exact tensors made of them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.errors import DataError
from edge_runtime.vision.picture_header import read_header
from edge_runtime.vision.pictures import read_picture, to_tensor
from edge_runtime.vision.preprocess import Preprocessing

BLUE, GREEN, RED, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]
# No two of its eight orientations look alike.
CORNERS = np.kron(
    np.array([[BLUE, GREEN, RED], [WHITE, RED, RED]], np.uint8), np.ones((16, 16, 1), np.uint8)
)


def encoded(ending: str, picture: np.ndarray) -> bytes:
    return cv2.imencode(ending, picture)[1].tobytes()


def exif(orientation: int, order: str = ">") -> bytes:
    """A TIFF block with the orientation behind another tag (EXIF 2.32, table 4)."""
    mark = b"MM\0*" if order == ">" else b"II*\0"
    model = struct.pack(order + "HHII", 0x0110, 2, 4, 0)
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(order + "IH", 8, 2) + model + entry + bytes(4)


def jpeg_with(picture: bytes, block: bytes) -> bytes:
    content = b"Exif\0\0" + block
    return picture[:2] + struct.pack(">BBH", 255, 0xE1, len(content) + 2) + content + picture[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png(
    width: int, height: int, *, depth: int, color: int, rows: bytes, extra: bytes = b""
) -> bytes:
    """A PNG file; each row of `rows` starts with a 0 for "no filter"."""
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = extra + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def read(tmp_path: Path, data: bytes) -> np.ndarray:
    (tmp_path / "picture").write_bytes(data)
    picture = read_picture(tmp_path / "picture")
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert picture.flags.writeable
    return picture


@pytest.mark.parametrize("ending", [".png", ".bmp", ".webp", ".jpg"])
def test_each_kind_is_read_whatever_its_file_is_called(tmp_path: Path, ending: str) -> None:
    picture = read(tmp_path, encoded(ending, CORNERS))
    assert picture.shape == CORNERS.shape
    # JPEG and lossy WebP blur the colours, most of all where two meet.
    np.testing.assert_allclose(picture[8::16, 8::16], CORNERS[8::16, 8::16], atol=8)


def test_exif_orientation_is_applied_as_opencv_does(tmp_path: Path) -> None:
    stored = encoded(".jpg", CORNERS)
    seen = []
    for orientation in range(1, 9):
        data = jpeg_with(stored, exif(orientation))
        picture = read(tmp_path, data)
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(picture, expected)
        seen.append(picture.tobytes())
    assert len(set(seen)) == 8


def test_orientation_6_is_a_quarter_turn_clockwise_in_either_byte_order(tmp_path: Path) -> None:
    stored = encoded(".jpg", CORNERS)
    for order in "<>":
        turned = read(tmp_path, jpeg_with(stored, exif(6, order)))
        np.testing.assert_array_equal(turned, np.rot90(read(tmp_path, stored), -1))


@pytest.mark.parametrize("block", [exif(0), exif(9), exif(6)[:20], b"", b"XX*\0" + exif(6)[4:]])
def test_a_damaged_orientation_leaves_the_picture_as_stored(tmp_path: Path, block: bytes) -> None:
    stored = encoded(".jpg", CORNERS)
    np.testing.assert_array_equal(read(tmp_path, jpeg_with(stored, block)), read(tmp_path, stored))


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    pixels = [200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51], [100, 100, 100, 127]
    picture = read(tmp_path, png(4, 1, depth=8, color=6, rows=b"\0" + b"".join(map(bytes, pixels))))
    # 51 / 255 = 1/5: 0.2 * 200 + 0.8 * 255 = 244. The last is 177.8 before it is rounded.
    expected = [[0, 100, 200], [255, 255, 255], [204, 224, 244], [178, 178, 178]]
    assert picture.tolist() == [expected]


def test_a_turned_picture_with_transparency(tmp_path: Path) -> None:
    rows = b"\0" + bytes([10, 20, 30, 255]) + bytes([0, 0, 0, 0])
    data = png(2, 1, depth=8, color=6, rows=rows, extra=chunk(b"eXIf", exif(8)))
    assert read(tmp_path, data).tolist() == [[[255, 255, 255]], [[30, 20, 10]]]


def test_a_transparent_webp(tmp_path: Path) -> None:
    alpha = np.full((32, 48, 1), 255, np.uint8)
    alpha[:, :24] = 0
    picture = read(tmp_path, encoded(".webp", np.dstack([CORNERS, alpha])))
    assert (picture[:, :24] == 255).all()
    np.testing.assert_allclose(picture[8::16, 40], CORNERS[8::16, 40], atol=8)


def test_a_turned_webp(tmp_path: Path) -> None:
    def part(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    pixels = cv2.imencode(".webp", CORNERS, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()[12:]
    canvas = part(b"VP8X", b"\x08\0\0\0" + b"".join(n.to_bytes(3, "little") for n in (47, 31)))
    for prefix in (b"", b"Exif\0\0"):
        odd = part(b"NOTE", b"odd") + part(b"EXIF", prefix + exif(3))
        body = b"WEBP" + canvas + pixels + odd
        data = b"RIFF" + struct.pack("<I", len(body)) + body
        np.testing.assert_array_equal(read(tmp_path, data), CORNERS[::-1, ::-1])


def test_the_unused_channel_of_a_bmp_is_not_taken_for_transparency(tmp_path: Path) -> None:
    data = encoded(".bmp", np.dstack([CORNERS, np.zeros((32, 48), np.uint8)]))
    np.testing.assert_array_equal(read(tmp_path, data), CORNERS)


def test_16_bits_are_rounded_to_8(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">6H", 0, 128, 129, 257 * 200, 257 * 200 + 128, 65535)
    picture = read(tmp_path, png(6, 1, depth=16, color=0, rows=rows))
    assert picture[0].tolist() == [[value] * 3 for value in (0, 0, 1, 200, 200, 255)]


def test_gray_is_three_equal_channels(tmp_path: Path) -> None:
    gray = CORNERS[..., 1]
    np.testing.assert_array_equal(read(tmp_path, encoded(".png", gray)), np.dstack([gray] * 3))


BROKEN = {
    "empty": b"",
    "text": b"hello, I am no picture",
    "gif": b"GIF89a" + bytes(40),
    "jpeg without a frame": b"\xff\xd8\xff\xe0\x00\x02" * 3,
    "damaged": encoded(".png", CORNERS)[:-30] + b"\xaa" + encoded(".png", CORNERS)[-29:],
    "no pixels": png(0, 5, depth=8, color=0, rows=b""),
    "a gigabyte when unpacked": png(32_000, 32_000, depth=8, color=0, rows=b""),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, data)
    assert str(tmp_path / "picture") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".webp", ".jpg"])
def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path, ending: str) -> None:
    # A thumbnail has an end marker of its own.
    whole = jpeg_with(encoded(ending, CORNERS), exif(1) + encoded(".jpg", CORNERS[:8, :8]))
    whole = whole if ending == ".jpg" else encoded(ending, CORNERS)
    for length in (2, 20, len(whole) // 4, len(whole) // 2, len(whole) - 20, len(whole) - 1):
        with pytest.raises(DataError):
            read(tmp_path, whole[:length])


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.png"):
        with pytest.raises(DataError, match=path.name):
            read_picture(path)


def oversized(data: bytes) -> bytes:
    """`data` with 32000 for each side in its header."""
    if data.startswith(b"RIFF"):
        # VP8L: 14 bits a side, less one; the 14-bit field ends at 16384.
        return data[:21] + struct.pack("<I", 0x0FFFFFFF) + data[25:]
    if data.startswith(b"BM"):
        return data[:18] + struct.pack("<ii", 32_000, -32_000) + data[26:]
    if data.startswith(b"\x89PNG"):
        return data[:16] + struct.pack(">II", 32_000, 32_000) + data[24:]
    frame = data.index(b"\xff\xc0") + 5
    return data[:frame] + struct.pack(">HH", 32_000, 32_000) + data[frame + 4 :]


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".bmp"])
def test_an_oversized_picture_is_refused_before_it_is_decoded(tmp_path: Path, ending: str) -> None:
    with pytest.raises(DataError, match="100 million"):
        read(tmp_path, oversized(encoded(ending, CORNERS)))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"VP8X", bytes(4) + (999).to_bytes(3, "little") + (69_999).to_bytes(3, "little")),
        (b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 1000, 500 | 1 << 14)),
    ],
)
def test_the_size_of_other_webp_forms(kind: bytes, content: bytes) -> None:
    data = b"RIFF\0\0\0\0WEBP" + kind + struct.pack("<I", len(content)) + content
    header = read_header(data, "x")
    assert (header.width, header.height) == (1000, 70_000 if kind == b"VP8X" else 500)


SMALL = [
    jpeg_with(encoded(".jpg", CORNERS), exif(5)),
    png(2, 1, depth=8, color=6, rows=b"\0" + bytes(range(8)), extra=chunk(b"eXIf", exif(3))),
    encoded(".webp", CORNERS),
    encoded(".bmp", CORNERS[:4, :4]),
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_does_more_than_a_data_error(tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(SMALL)))
    # Most of what our own reader sees lies in the first bytes.
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, 60) | st.integers(0, len(damaged) - 1))
        damaged[at % len(damaged)] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    try:
        picture = read(tmp_path, bytes(damaged))
    except DataError:
        return
    assert picture.shape[2] == 3


# 1 row, 2 columns: blue, green, red.
PAIR = np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8)


def test_the_formula_and_the_order_of_channels() -> None:
    declared = Preprocessing(size=(1, 2), scale=0.5, mean=(1, 2, 3), std=(2, 4, 8))
    tensor = to_tensor(PAIR, declared)
    # rgb: (30 * 0.5 - 1) / 2 = 7 is red's first.
    assert tensor.tolist() == [[[[7, 14.5]], [[2, 5.75]], [[0.25, 2.125]]]]
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous


def test_nhwc_bytes_are_the_pixels_and_not_a_view_of_them() -> None:
    picture = PAIR.copy()
    declared = Preprocessing(size=(1, 2), color="bgr", layout="nhwc", dtype="uint8", scale=1)
    tensor = to_tensor(picture, declared)
    picture[:] = 0
    assert tensor.dtype == np.uint8
    assert tensor.tolist() == [[[[10, 20, 30], [40, 50, 60]]]]
    assert tensor.flags.c_contiguous


def test_gray_weighs_the_channels() -> None:
    picture = np.array([[BLUE, GREEN, RED, WHITE]], np.uint8)
    tensor = to_tensor(picture, Preprocessing(size=(1, 4), color="gray", scale=1))
    # ITU-R BT.601: 0.114, 0.587 and 0.299 of 255.
    assert tensor.tolist() == [[[[29, 150, 76, 255]]]]


def test_values_are_rounded_once_to_half_precision() -> None:
    tensor = to_tensor(PAIR, Preprocessing(size=(1, 2), dtype="float16", mean=0.485, std=0.229))
    assert tensor.dtype == np.float16
    assert tensor[0, 0, 0, 0] == np.float16((30 / 255 - 0.485) / 0.229)


COLUMNS = np.repeat(np.array([[0, 50, 100, 150]], np.uint8), 2, axis=0)[..., None].repeat(3, axis=2)


def gray(picture: np.ndarray, **settings: object) -> list[list[float]]:
    declared = Preprocessing(color="gray", scale=1, **settings)
    rows: list[list[float]] = to_tensor(picture, declared)[0, 0].tolist()
    return rows


def test_letterbox_pads_above_and_below() -> None:
    row = [0, 50, 100, 150]
    assert gray(COLUMNS, size=4, resize="letterbox") == [[114] * 4, row, row, [114] * 4]
    assert gray(COLUMNS, size=(3, 4), resize="letterbox", pad=7) == [row, row, [7] * 4]


def test_letterbox_pads_left_and_right() -> None:
    tall = COLUMNS[:, :2].swapaxes(0, 1)
    assert gray(tall, size=(2, 4), resize="letterbox", pad=0) == [[0, 0, 0, 0], [0, 50, 50, 0]]


def test_crop_cuts_the_centre() -> None:
    assert gray(COLUMNS, size=2, resize="crop") == [[50, 100]] * 2
    assert gray(COLUMNS, size=(1, 2), resize="crop", short_side=2) == [[50, 100]]
    assert gray(COLUMNS.swapaxes(0, 1), size=2, resize="crop") == [[50, 50], [100, 100]]


def test_stretch_and_the_interpolations() -> None:
    assert gray(COLUMNS, size=(1, 2), interpolation="area") == [[25, 125]]
    assert gray(COLUMNS, size=(1, 2), interpolation="nearest") == [[0, 100]]
    assert gray(COLUMNS, size=(2, 8), interpolation="linear")[0] == pytest.approx(
        [0, 12.5, 37.5, 62.5, 87.5, 112.5, 137.5, 150], abs=0.5
    )
    cubic = gray(COLUMNS, size=(2, 8), interpolation="cubic")[0]
    assert cubic != gray(COLUMNS, size=(2, 8), interpolation="linear")[0]


def test_fit_gives_the_shape_that_the_picture_needs() -> None:
    declared = Preprocessing(size=64, resize="fit", multiple=16)
    assert to_tensor(np.zeros((100, 200, 3), np.uint8), declared).shape == (1, 3, 32, 64)
    assert to_tensor(np.zeros((33, 20, 3), np.uint8), declared).shape == (1, 3, 32, 16)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(DataError, match="uint8"):
        to_tensor(picture, Preprocessing(size=4))


def test_a_sliver_is_refused_rather_than_blown_up() -> None:
    sliver = np.zeros((1, 20_000, 3), np.uint8)
    with pytest.raises(DataError, match="narrow"):
        to_tensor(sliver, Preprocessing(size=224, resize="crop"))
    assert to_tensor(sliver, Preprocessing(size=224, resize="letterbox")).shape == (1, 3, 224, 224)
