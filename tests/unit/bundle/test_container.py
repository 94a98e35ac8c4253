"""The container against other people's unzip, and against damaged and hostile files."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import struct
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.bundle import Bundle
from edge_runtime.bundle.container import ALIGNMENT, MAX_MANIFEST, MAX_SIZE, Entry, Layout
from edge_runtime.config import canonical_json
from edge_runtime.errors import BundleError


def refusal(data: bytes) -> str:
    """The one line that refuses these bytes as a bundle, on opening or on verifying."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "some.edge")
        path.write_bytes(data)
        with pytest.raises(BundleError) as caught:
            Bundle.open(path).verify()
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        return message


def forged(plain: dict, contents: dict[str, bytes]) -> bytes:
    """A file laid out as a bundle is, whatever its manifest says."""
    entries = [
        replace(Entry.of("cpu.onnx", content or b"-"), name=name, size=len(content))
        for name, content in contents.items()
    ]
    pieces: list[bytes] = []
    layout = Layout(canonical_json(plain), entries, "forged")
    layout.write(pieces.append, lambda entry: [contents[entry.name]])
    return b"".join(pieces)


# --- what others make of it


def test_python_unzips_it(bundle, contents) -> None:
    with zipfile.ZipFile(bundle.path) as file:
        assert file.testzip() is None
        assert file.namelist()[:2] == ["manifest.json", "graph.onnx"]
        assert {name: file.read(name) for name in file.namelist()[1:]} == contents
        assert json.loads(file.read("manifest.json")) == bundle.manifest.to_json()


def test_unzip_unzips_it(bundle, contents, tmp_path) -> None:
    unzip = shutil.which("unzip")
    if not unzip:
        pytest.skip("there is no unzip here")
    tested = subprocess.run([unzip, "-t", bundle.path], capture_output=True, text=True, check=True)
    assert "No errors detected" in tested.stdout
    assert "warning" not in tested.stdout + tested.stderr
    subprocess.run([unzip, "-q", bundle.path, "-d", tmp_path / "out"], check=True)
    for name, content in contents.items():
        path = tmp_path / "out" / name
        assert path.read_bytes() == content
        assert path.stat().st_mode & stat.S_IRUSR


def test_every_content_stands_at_a_page(bundle, contents, sound) -> None:
    for content in contents.values():
        start = next(at for at in range(0, len(sound), ALIGNMENT) if sound.startswith(content, at))
        assert sound[start : start + len(content)] == content


def test_every_field_of_the_zip_is_the_plainest(bundle, sound) -> None:
    with zipfile.ZipFile(bundle.path) as file:
        assert file.comment == b""
        infos = file.infolist()
    for info in infos:
        assert info.date_time == (1980, 1, 1, 0, 0, 0)
        assert (info.compress_type, info.flag_bits, info.create_version) == (0, 0, 10)
        assert (info.create_system, info.external_attr, info.internal_attr) == (0, 0, 0)
        assert (info.extra, info.comment) == (b"", b"")
        name, extra = struct.unpack_from("<HH", sound, info.header_offset + 26)
        start = info.header_offset + 30 + name
        record = struct.unpack_from("<HHH", sound, start)
        assert record == (0xD935, extra - 4, ALIGNMENT)
        assert sound[start + 6 : start + extra] == bytes(extra - 6)
        assert (start + extra) % ALIGNMENT == 0


def test_the_format_is_pinned() -> None:
    """Bundles that are out there must stay readable: another digest needs another schema."""
    data = forged({"schema": 1}, {"graph.onnx": b"graph", "plans/a.plan": bytes(range(256))})
    assert (
        hashlib.sha256(data).hexdigest()
        == "de2b99d1800630ae2fe007f98d02a90c35e07ee53ff5bc722c11cafbae32a68d"
    )


# --- damage


@settings(max_examples=400)
@given(st.data())
def test_any_flipped_bit_is_refused(sound, data) -> None:
    at = data.draw(st.integers(0, len(sound) - 1))
    bit = data.draw(st.integers(0, 7))
    refusal(sound[:at] + bytes([sound[at] ^ 1 << bit]) + sound[at + 1 :])


def test_a_flipped_bit_in_any_field_of_the_ends_is_refused(sound) -> None:
    for at in [*range(60), *range(sound.index(b"PK\1\2"), len(sound))]:
        refusal(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])


def test_a_changed_manifest_is_refused_by_its_checksum(sound) -> None:
    assert "CRC-32 of its manifest" in refusal(sound.replace(b"1.23.0", b"1.24.0"))


@given(st.data())
def test_any_truncation_is_refused(sound, data) -> None:
    message = refusal(sound[: data.draw(st.integers(1, len(sound) - 1))])
    assert "truncated" in message


@given(st.binary(min_size=1, max_size=100))
def test_anything_appended_is_refused(sound, tail) -> None:
    assert "appended" in refusal(sound + tail)


@given(st.binary(min_size=1, max_size=5000))
def test_anything_prepended_is_refused(sound, head) -> None:
    refusal(head + sound)


@given(st.binary(max_size=5000))
def test_garbage_is_refused(data) -> None:
    refusal(data)


@given(st.binary(max_size=300))
def test_garbage_behind_a_bundles_start_is_refused(sound, data) -> None:
    refusal(sound[:ALIGNMENT] + data)


# --- other files, named for what they are


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"schema = 1\n", r"it starts with b'schema =' where a bundle starts with"),
        (
            b"\x08\x0a\x12\x07pytorch\x1a\x052.4.0:" + bytes(5000),
            "ONNX model; .*edge-runtime build",
        ),
        (b"\x7fELF" + bytes(5000), "not an edge_runtime bundle"),
        (b"PK\5\6" + bytes(18), "a zip file that another program wrote"),
    ],
)
def test_another_kind_of_file_is_named(data, reason) -> None:
    assert re.search(reason, refusal(data))


# --- zip tricks


def absolute(file: zipfile.ZipFile) -> None:
    file.writestr("/etc/cron.d/job", b"* * * * *")


def climbing(file: zipfile.ZipFile) -> None:
    file.writestr("../../escaped", b"x")


def twice(file: zipfile.ZipFile) -> None:
    file.writestr("graph.onnx", b"another")


def link(file: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("plans/link.plan")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    file.writestr(info, "/etc/passwd")


def bomb(file: zipfile.ZipFile) -> None:
    file.writestr("plans/bomb.plan", bytes(1 << 20), zipfile.ZIP_DEFLATED)


def comment(file: zipfile.ZipFile) -> None:
    file.comment = b"signed by nobody"


def nothing(file: zipfile.ZipFile) -> None:
    """A rewrite alone makes another file of it."""


# Python warns about a repeated name, which is what one of the tricks is.
ignore_repeated_name = pytest.mark.filterwarnings("ignore:Duplicate name")

TRICKS = [absolute, climbing, twice, link, bomb, comment]


@ignore_repeated_name
@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_added_to_a_bundle_is_refused(bundle, trick: Callable) -> None:
    with zipfile.ZipFile(bundle.path, "a") as file:
        trick(file)
    refusal(bundle.path.read_bytes())


@ignore_repeated_name
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("trick", [nothing, *TRICKS])
def test_a_zip_of_another_program_is_refused(bundle, tmp_path, trick, compression) -> None:
    path = tmp_path / "other.edge"
    with zipfile.ZipFile(bundle.path) as source, zipfile.ZipFile(path, "w", compression) as file:
        for name in source.namelist():
            file.writestr(name, source.read(name))
        trick(file)
    assert "not an edge_runtime bundle" in refusal(path.read_bytes())


def test_a_forger_who_knows_the_layout_can_make_a_bundle(bundle, contents, sound) -> None:
    """The tests below depend on it: what they change is the only thing that is wrong."""
    ordered = {entry.name: contents[entry.name] for entry in bundle.manifest.entries}
    assert forged(bundle.manifest.to_json(), ordered) == sound


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "plans/../x.plan", "plans/a/b.plan", "plans/-x.plan", "plans/A.plan",
     "plans/.plan", "plans/x.plan\n", "plans/é.plan", "manifest.json", "", "C:\\x"],
)  # fmt: skip
def test_a_forged_name_is_refused(bundle, name) -> None:
    plain = bundle.manifest.to_json()
    plain["entries"][-1]["name"] = name
    assert f"entries[{len(plain['entries']) - 1}].name" in refusal(forged(plain, {}))


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 0), ("size", -1), ("size", 2**32), ("size", 5e3), ("size", True), ("crc32", -1),
     ("crc32", 2**32), ("sha256", "0" * 63), ("sha256", "A" * 64), ("sha256", None)],
)  # fmt: skip
def test_a_forged_entry_is_refused(bundle, contents, field, value) -> None:
    plain = bundle.manifest.to_json()
    plain["entries"][0][field] = value
    assert f"entries[0].{field}" in refusal(forged(plain, contents))


def test_a_forged_size_that_adds_up_to_more_than_the_file_is_refused(bundle, contents) -> None:
    plain = bundle.manifest.to_json()
    plain["entries"][0]["size"] = MAX_SIZE - 100_000
    assert "truncated" in refusal(forged(plain, contents))
    plain["entries"][0]["size"] = MAX_SIZE
    assert "too large" in refusal(forged(plain, contents))


def test_a_huge_manifest_is_refused_unread(sound) -> None:
    size = (MAX_MANIFEST + 1).to_bytes(4, "little")
    assert "at most" in refusal(sound[:18] + size * 2 + sound[26:])


# --- sizes


def test_four_gibibytes_less_one_is_the_end() -> None:
    entry = Entry("graph.onnx", 1, 0, "0" * 64)
    room = MAX_SIZE - Layout(b"{}", [entry], "it").size
    assert Layout(b"{}", [replace(entry, size=1 + room)], "it").size == MAX_SIZE
    with pytest.raises(BundleError, match="too large"):
        Layout(b"{}", [replace(entry, size=2 + room)], "it")
    plan = replace(entry, name="plans/x.plan", size=2**31)
    with pytest.raises(BundleError, match="too large"):
        Layout(b"{}", [replace(entry, size=2**31), plan], "it")


def test_a_manifest_that_could_not_be_read_is_not_written() -> None:
    Layout(bytes(MAX_MANIFEST), [], "it")
    with pytest.raises(BundleError, match="too large"):
        Layout(bytes(MAX_MANIFEST + 1), [], "it")
