"""Which plan runs on which machine, and the words for one that does not."""

from __future__ import annotations

import pytest

from edge_runtime.backends.base import PlanKey
from edge_runtime.backends.tensorrt.match import check_header, mismatch
from edge_runtime.errors import BundleError

ORIN = PlanKey("tensorrt", "10.3.0", ("sm87",), "linux-aarch64")


def plan(**changes: object) -> PlanKey:
    fields = {
        "backend": "tensorrt",
        "version": "10.3.0",
        "compute_capabilities": ("sm87",),
        "platform": "linux-aarch64",
        "traits": (),
    }
    return PlanKey(**{**fields, **changes})


@pytest.mark.parametrize(
    "key",
    [
        plan(),
        plan(version="10.3.0.26"),
        plan(compute_capabilities=("sm86", "sm87")),
        plan(compute_capabilities=()),
        plan(traits=("stripped",)),
        plan(version="10.0.1", traits=("version-compatible",)),
        plan(version="8.6.2", traits=("version-compatible",)),
    ],
)
def test_it_runs(key: PlanKey) -> None:
    assert mismatch(key, ORIN) == ""


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (plan(backend="tensorrt-rtx"), "for tensorrt-rtx, not tensorrt"),
        (plan(platform="linux-x86_64"), "for linux-x86_64, this is linux-aarch64"),
        (plan(version="10.3.1"), "for tensorrt 10.3.1, here is 10.3.0"),
        (plan(version="10.13.3.9"), "for tensorrt 10.13.3.9, here is 10.3.0"),
        (plan(version="10.0.1"), "for tensorrt 10.0.1, here is 10.3.0"),
        (plan(version="10.7.0", traits=("version-compatible",)), "10.7.0, here is 10.3.0"),
        (plan(compute_capabilities=("sm86",)), "for sm86, the GPU here is sm87"),
        (plan(traits=("dla",)), "for a DLA, and this machine has none"),
    ],
)
def test_it_does_not_run_and_says_why(key: PlanKey, words: str) -> None:
    assert words in mismatch(key, ORIN)


def test_version_compatible_plans_run_one_major_version_further() -> None:
    def machine(version: str) -> PlanKey:
        return PlanKey("tensorrt", version, ("sm87",), "linux-aarch64")

    ten = plan(version="10.3.0", traits=("version-compatible",))
    eight = plan(version="8.6.1", traits=("version-compatible",))
    assert not mismatch(ten, machine("11.4.0"))
    assert not mismatch(eight, machine("10.3.0"))
    assert mismatch(eight, machine("11.4.0"))
    assert mismatch(plan(version="11.0.0", traits=("version-compatible",)), machine("10.16.1"))


def test_ampere_and_newer_is_no_older_gpu() -> None:
    xavier = PlanKey("tensorrt", "10.3.0", ("sm72",), "linux-aarch64")
    assert "Ampere and newer" in mismatch(plan(compute_capabilities=()), xavier)


def test_a_machine_with_a_dla_runs_plans_for_it() -> None:
    machine = PlanKey("tensorrt", "10.3.0", ("sm87",), "linux-aarch64", ("dla",))
    assert not mismatch(plan(traits=("dla",)), machine)


def header(kind: bytes = b"ftrt", version: tuple[int, ...] = (10, 3, 0, 26)) -> bytes:
    return kind.ljust(24, b"\0") + bytes(version) + bytes(36)


def test_a_plan_whose_bytes_agree_with_the_bundle() -> None:
    check_header(header(), plan())
    check_header(header(), plan(version="10.3.0.26"))


@pytest.mark.parametrize(
    "data", [header(version=(10, 7, 0, 26)), header(version=(11, 3, 0, 26)), b"PK\3\4", b""]
)
def test_a_plan_whose_bytes_contradict_the_bundle(data: bytes) -> None:
    with pytest.raises(BundleError):
        check_header(data, plan())
