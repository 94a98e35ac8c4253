"""Small files of the kernel: what is no number or does not answer is None."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.telemetry.sysfs import find, read_number, read_text


@pytest.mark.parametrize(
    ("content", "number"),
    [
        (b"42\n", 42),
        (b"-256000\n", -256000),
        (b" 7 \n\0", 7),
        (b"", None),
        (b"\n", None),
        (b"1.5\n", None),
        (b"1_000", None),
        (b"0x10", None),
        (b"N/A", None),
        (b"\xff\xfe1", None),
        ("٣".encode(), None),
        (b"9" * 400, None),
    ],
)
def test_a_number_is_digits(tmp_path: Path, content: bytes, number: int | None) -> None:
    (tmp_path / "a").write_bytes(content)
    assert read_number(tmp_path / "a") == number


def test_a_file_that_is_missing_or_does_not_answer_has_no_text(tmp_path: Path) -> None:
    assert read_text(tmp_path / "a") is None
    # A folder can be opened and not be read, like a sensor that is off.
    assert read_text(tmp_path) is None
    assert read_number(str(tmp_path)) is None


def test_names_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        (tmp_path / f"zone{number}").touch()
    assert [path.name for path in find(tmp_path, "zone*")] == ["zone1", "zone2", "zone10"]
