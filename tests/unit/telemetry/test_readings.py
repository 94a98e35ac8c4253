"""A reading: total power by the board's rule, several sources in one, JSON there and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import DataError
from edge_runtime.strict_json import parse
from edge_runtime.telemetry.readings import Reading, merged


def read_back(plain: object) -> Reading:
    return Reading.from_json(parse(json.dumps(plain).encode(), where="a.json", error=DataError))


@pytest.mark.parametrize(
    ("power", "total"),
    [
        ({"VDD_IN": 5.3, "VDD_CPU_GPU_CV": 0.8, "VDD_SOC": 1.4}, 5.3),
        ({"VDD_GPU": -0.4, "VDD_CPU_SOC_MSS": 3.9, "VIN_SYS_5V0": 5.1, "VIN": 15.0}, 15.0),
        ({"VDD_GPU_SOC": 4.94, "VDD_CPU_CV": 0.988, "VIN_SYS_5V0": 4.442, "X": 9.0}, 10.37),
        ({"VDD_GPU_SOC": 4.94, "VDD_CPU_CV": 0.988}, None),
        ({"VDD_GPU": 2.0, "VDD_CPU_SOC_MSS": 5.5, "VIN_SYS_5V0": 5.0}, None),
        ({"NVML_GPU": 30.0}, None),
        ({}, None),
        (None, None),
    ],
)
def test_total_power_is_that_of_the_boards_inputs(
    power: dict[str, float] | None, total: float | None
) -> None:
    assert Reading(0.0, power=power).total_watts == total


def test_the_first_source_that_knows_a_value_has_it() -> None:
    files = Reading(1.0, power={"VIN": 9.0}, temperatures={"cpu": 40.0}, throttled=("a",))
    nvml = Reading(
        1.1,
        power={"VIN": 8.0, "NVML_GPU": 3.0},
        temperatures={"nvml_gpu": 50.0},
        gpu_load=0.0,
        throttled=("a", "b"),
        cpu_loads=(0.5,),
    )
    late = Reading(1.2, gpu_load=0.7, cpu_loads=(0.1, 0.2))
    assert merged(2.0, [files, nvml, late]) == Reading(
        2.0,
        power={"VIN": 9.0, "NVML_GPU": 3.0},
        temperatures={"cpu": 40.0, "nvml_gpu": 50.0},
        gpu_load=0.0,
        throttled=("a", "b"),
        cpu_loads=(0.5,),
    )
    assert merged(2.0, []) == Reading(2.0)


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
finite = st.floats(-1e9, 1e9)
positive = st.floats(0, 1e9)
shares = st.floats(0, 1)
readings = st.builds(
    Reading,
    seconds=finite,
    power=st.none()
    | st.dictionaries(st.sampled_from(["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]), finite)
    | st.dictionaries(names, finite),
    temperatures=st.none() | st.dictionaries(names, finite),
    gpu_load=st.none() | shares,
    gpu_mhz=st.none() | positive,
    cpu_loads=st.none() | st.lists(st.none() | shares, max_size=3).map(tuple),
    cpu_mhz=st.none() | st.lists(st.none() | positive, max_size=3).map(tuple),
    emc_load=st.none() | shares,
    emc_mhz=st.none() | positive,
    memory_used=st.none() | st.integers(0, 2**40),
    memory_total=st.none() | st.integers(0, 2**40),
    swap_used=st.none() | st.integers(0, 2**40),
    throttled=st.none() | st.lists(names, max_size=2).map(tuple),
    over_current=st.none() | st.dictionaries(names, st.integers(0, 99)),
    load_average=st.none() | st.tuples(positive, positive, positive),
)


@given(readings)
def test_json_there_and_back_is_the_same_reading(reading: Reading) -> None:
    assert read_back(reading.to_json()) == reading


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gpu_load": 1.5}, "gpu_load is 1.5; it must be from 0 to 1"),
        ({"gpu_load": "a"}, "gpu_load"),
        ({"cpu_loads": [0.5, -0.1]}, r"cpu_loads\[1\]"),
        ({"gpu_mhz": -1}, "must not be negative"),
        ({"swap_used": 1.5}, "swap_used"),
        ({"over_current": {"oc1": True}}, "over_current.oc1"),
        ({"seconds": None}, "seconds"),
        ({"total_watts": 4.0}, "total_watts does not fit .power, which makes it 5.0"),
        ({"total_watts": None}, "total_watts"),
        ({"fan": 1}, "unknown key 'fan'"),
    ],
)
def test_what_is_not_a_reading_is_refused_by_field(change: dict[str, object], words: str) -> None:
    plain = Reading(0.0, power={"VIN": 5.0}).to_json()
    assert plain["total_watts"] == 5.0
    with pytest.raises(DataError, match=words):
        read_back({**plain, **change})


def test_a_field_that_is_missing_is_refused() -> None:
    plain = Reading(0.0).to_json()
    del plain["emc_mhz"]
    with pytest.raises(DataError, match="lacks the key 'emc_mhz'"):
        read_back(plain)
