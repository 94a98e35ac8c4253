"""Lines of tegrastats: every real one that is kept here, and others that may come."""

from __future__ import annotations

import json
import re
from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import DataError
from edge_runtime.strict_json import parse
from edge_runtime.telemetry.readings import Reading
from edge_runtime.telemetry.tegrastats import parse_line

KEPT = Path(__file__).parents[2] / "data" / "tegrastats_lines.tsv"
LINES = [line.split("\t")[1] for line in KEPT.read_text("utf-8").splitlines()[1:]]
GIB = 1 << 30
MIB = 1 << 20


def line_with(words: str) -> Reading:
    """The reading of the only kept line that has these words."""
    (line,) = [line for line in LINES if words in line]
    return parse_line(line, seconds=1.0)


# Of every kept line, in order: total W, rails, zones, GPU's load and MHz, cores, and those on.
EXPECTED = [
    (5.299, 3, 9, 0.0, 611.0, 8, 4),
    (12.377, 3, 6, 0.0, 305.0, 12, 12),
    (10.37, 3, 6, 0.0, None, 12, 12),
    (12.479, 3, 6, 0.63, 621.0, 6, 6),
    (4.824, 3, 6, 0.0, None, 6, 6),
    (6.755, 4, 7, 0.0, 0.0, 12, 12),
    (8.726, 3, 5, 0.0, 0.0, 12, 12),
    (19.78, 4, 5, None, 314.0, 14, 14),
    (87.426, 4, 5, None, None, 14, 14),
    (None, 2, 5, None, None, 2, 2),
    (16.802, 4, 4, None, None, 14, 14),
    (15.004, 4, 0, None, None, 1, 1),
    (4.067, 3, 6, 0.62, 306.0, 6, 6),
    (None, 3, 6, 0.0, 76.0, 4, 4),
]


@pytest.mark.parametrize(("line", "expected"), list(zip(LINES, EXPECTED, strict=True)))
def test_every_real_line_is_read(line: str, expected: tuple[object, ...]) -> None:
    reading = parse_line(line, seconds=1.0)
    loads = reading.cpu_loads or ()
    assert expected == (
        reading.total_watts,
        len(reading.power or ()),
        len(reading.temperatures or ()),
        reading.gpu_load,
        reading.gpu_mhz,
        len(loads),
        sum(load is not None for load in loads),
    )
    assert (reading.swap_used is None) == (" SWAP " not in line)
    assert (reading.emc_mhz is None) == ("EMC_FREQ" not in line)
    assert reading.memory_total


def test_an_orin_nano_in_full() -> None:
    assert line_with("GR3D_FREQ 63%@[621]") == Reading(
        1.0,
        power={"VDD_IN": 12.479, "VDD_CPU_GPU_CV": 4.667, "VDD_SOC": 2.817},
        temperatures={
            "cpu": 53.968,
            "soc2": 52.437,
            "soc0": 50.75,
            "gpu": 53.343,
            "tj": 53.968,
            "soc1": 51.656,
        },
        gpu_load=0.63,
        gpu_mhz=621.0,
        cpu_loads=(0.15, 0.11, 0.14, 0.13, 0.11, 0.08),
        cpu_mhz=(729.0,) * 6,
        emc_load=0.43,
        emc_mhz=2133.0,
        memory_used=6185 * MIB,
        memory_total=7620 * MIB,
        swap_used=851 * MIB,
    )


def test_zones_that_are_off_and_rails_that_are_not_connected_are_left_out() -> None:
    reading = line_with("GPU@-256C")
    assert reading.temperatures == {
        "CPU": 44.562,
        "Tboard": 32.0,
        "SOC2": 40.093,
        "Tdiode": 33.0,
        "SOC0": 41.093,
        "tj": 44.343,
        "SOC1": 41.25,
    }
    assert set(reading.power or ()) == {
        "VDD_GPU_SOC",
        "VDD_CPU_CV",
        "VIN_SYS_5V0",
        "VDDQ_VDD2_1V8AO",
    }


def test_of_several_figures_the_first_is_now() -> None:
    reading = line_with("VIN 87426mW/43713mW/87426mW")
    assert (reading.power or {})["VIN"] == 87.426
    assert (line_with("gpu@41.843C/41.843C").temperatures or {})["gpu"] == 41.843
    assert (line_with("VDD_CPU_SOC_MSS 3924mW/3835mW").power or {})["VDD_CPU_SOC_MSS"] == 3.924


def test_power_may_be_negative() -> None:
    assert (line_with("-392mW").power or {})["VDD_GPU"] == -0.392


def test_old_releases_write_watts_without_a_unit_and_small_memories() -> None:
    reading = line_with("IRAM 0/252kB")
    assert (reading.memory_used, reading.memory_total) == (534 * MIB, 3964 * MIB)
    assert reading.power == {"POM_5V_IN": 1.022, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.204}


@pytest.mark.parametrize(
    ("field", "gpu"),
    [
        ("GR3D_FREQ 0%", (0.0, None)),
        ("GR3D_FREQ 99%@1300", (0.99, 1300.0)),
        ("GR3D_FREQ 100%@[0,1300]", (1.0, 1300.0)),
        ("GR3D_FREQ 7%@[1300, 1200]", (0.07, 1300.0)),
        ("GR3D_FREQ @[314,314,314]", (None, 314.0)),
        ("GR3D_FREQ @314", (None, 314.0)),
        ("GR3D_FREQ off", (None, None)),
        ("GR3D_FREQ", (None, None)),
        ("GR3D_FREQ 300%@5", (None, 5.0)),
        ("MYGR3D_FREQ 5%", (None, None)),
    ],
)
def test_the_gpu_in_all_its_spellings(field: str, gpu: tuple[float | None, float | None]) -> None:
    for line in (f"RAM 1/2MB {field} APE 174", f"RAM 1/2MB {field}"):
        reading = parse_line(line, seconds=0.0)
        assert (reading.gpu_load, reading.gpu_mhz) == gpu


@pytest.mark.parametrize(
    ("field", "loads", "clocks"),
    [
        ("CPU [5%@729,off]", (0.05, None), (729.0, None)),
        ("CPU [5%,6%]", (0.05, 0.06), None),
        ("CPU [off,off]", (None, None), None),
        ("CPU [5%@729, 6%@800]", (0.05, 0.06), (729.0, 800.0)),
        ("CPU [what,5%@729]", (None, 0.05), (None, 729.0)),
        ("CPU []", None, None),
        ("CPU [5%@729", None, None),
    ],
)
def test_cores_in_all_their_spellings(field: str, loads: object, clocks: object) -> None:
    reading = parse_line(f"RAM 1/2MB {field}", seconds=0.0)
    assert (reading.cpu_loads, reading.cpu_mhz) == (loads, clocks)


@pytest.mark.parametrize(
    ("unit", "size"), [("kB", 1 << 10), ("KB", 1 << 10), ("GB", GIB), ("B", 1)]
)
def test_memory_in_other_units(unit: str, size: int) -> None:
    reading = parse_line(f"RAM 3/4{unit} SWAP 1/2{unit}", seconds=0.0)
    assert (reading.memory_used, reading.memory_total) == (3 * size, 4 * size)
    assert reading.swap_used == size


def test_clocks_of_other_engines_are_no_power() -> None:
    line = "RAM 1/2MB VIC_FREQ 729 APE 174 NVENC 79%@166 MTS fg 0% bg 0% VDD_SOC 1424mW"
    assert parse_line(line, seconds=0.0).power == {"VDD_SOC": 1.424}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        "tegrastats: command not found",
        "Permission denied",
        "IRAM 0/252kB(lfb 252kB)",
        "RAM",
        "cpu@40C VDD_IN 5mW/5mW",
        '{"RAM": "1/2MB"}',
    ],
)
def test_another_text_is_refused_with_what_was_wanted(line: str) -> None:
    with pytest.raises(DataError, match=r"is no line of tegrastats: .* RAM 1024/7620MB") as caught:
        parse_line(line, seconds=0.0)
    assert repr(line) in str(caught.value)


def test_a_text_without_an_end_is_refused_in_a_few_words() -> None:
    with pytest.raises(DataError) as caught:
        parse_line("RAM 1/2MB " + "x" * 100_000, seconds=0.0)
    assert len(str(caught.value)) < 300


# What has not been seen: anything may stand between, before and after the fields that are known.

odd = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["off", "GR3D_FREQ", "EMC_FREQ", "@", "%", "[", "]", "CPU [", "/", "mW", "NC", "-256C", "X@1C"]
)
milliwatts = st.integers(-99_999, 999_999)


@given(st.sampled_from(LINES), st.data())
def test_a_cut_or_garbled_line_is_read_or_refused_and_fits_json(
    line: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(line)))
    end = data.draw(st.integers(start, len(line)))
    garbled = line[:start] + data.draw(odd) + line[end:]
    try:
        reading = parse_line(garbled, seconds=1.0)
    except DataError:
        assert not re.search(r"(^|\s)RAM \d+/\d+MB\b", garbled)
    else:
        plain = json.dumps(reading.to_json(), allow_nan=False).encode()
        assert Reading.from_json(parse(plain, where="a.json", error=DataError)) == reading


@given(
    st.lists(st.sampled_from(["XYZ off", "XYZ_FREQ @[1,2]", "q 12%", "A-B", "lfb", "5%@6", "z@"]))
)
def test_fields_that_are_not_known_change_nothing(unknown: list[str]) -> None:
    known = "RAM 1/2MB SWAP 3/4MB CPU [5%@729,off] GR3D_FREQ 7%@[8] cpu@9.5C VDD_IN 10mW/11mW"
    expected = parse_line(known, seconds=1.0)
    fields = re.findall(r"\S+ \[.*?\]|[A-Z3_]+ \S+|\S+", known)
    mixed = "  ".join(
        field for pair in zip_longest(fields, unknown[:6], fillvalue="") for field in pair
    )
    assert parse_line(f"11-15-2024 08:38:09  {mixed} ", seconds=1.0) == expected


@given(
    rails=st.dictionaries(
        st.from_regex(r"V[A-Z0-9_]{1,12}", fullmatch=True), milliwatts, max_size=6
    ),
    zones=st.dictionaries(
        st.from_regex(r"[a-zA-Z][a-zA-Z0-9]{0,7}", fullmatch=True),
        st.integers(-40_000, 125_000),
        max_size=9,
    ),
    cores=st.lists(st.none() | st.tuples(st.integers(0, 100), st.integers(1, 9999)), min_size=1),
    form=st.sampled_from(["{0}mW", "{0}mW/{0}mW", "{0}mW/1mW/2mW", "{0}/{0}"]),
    peak=st.sampled_from(["", "/99.5C"]),
)
def test_what_was_written_is_what_is_read(
    rails: dict[str, int],
    zones: dict[str, int],
    cores: list[tuple[int, int] | None],
    form: str,
    peak: str,
) -> None:
    cpu = ",".join("off" if core is None else f"{core[0]}%@{core[1]}" for core in cores)
    heat = " ".join(f"{zone}@{milli / 1000:g}C{peak}" for zone, milli in zones.items())
    power = " ".join(f"{rail} {form.format(milli)}" for rail, milli in rails.items())
    reading = parse_line(f"RAM 1/2MB CPU [{cpu}] {heat} {power}", seconds=0.0)
    assert (reading.power or {}) == {rail: milli / 1000 for rail, milli in rails.items()}
    assert (reading.temperatures or {}) == pytest.approx(
        {zone: float(f"{milli / 1000:g}") for zone, milli in zones.items()}
    )
    assert reading.cpu_loads == tuple(core and core[0] / 100 for core in cores)
