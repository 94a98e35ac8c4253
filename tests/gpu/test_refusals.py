"""Plans that are not for this machine are refused before TensorRT sees a byte of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.backends.base import Plan, PlanKey
from edge_runtime.bundle import Bundle, add_plans
from edge_runtime.errors import BackendUnavailableError, BundleError
from edge_runtime.session import load

pytestmark = pytest.mark.timeout(900)  # The first waits until TensorRT has built.


@pytest.fixture
def key(bundle: Bundle) -> PlanKey:
    """What this machine's plan is for."""
    (key,) = bundle.plans.values()
    return key


def with_plan(plain: Bundle, folder: Path, key: PlanKey, data: bytes) -> Bundle:
    """A bundle whose only plan says that it is for `key`."""
    path = shutil.copy(plain.path, folder / "other.edge")
    return add_plans(Bundle.open(path), [Plan(key, data)])


@pytest.mark.parametrize(
    "change",
    [
        {"version": "99.1.0"},
        {"compute_capabilities": ("sm61",)},
        {"platform": "linux-ppc64le"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_plan_for_another_machine_is_refused(
    bundle: Bundle, plain: Bundle, key: PlanKey, tmp_path: Path, change: dict[str, object]
) -> None:
    other = with_plan(plain, tmp_path, replace(key, **change), bundle.read(key.entry))
    with pytest.raises(BackendUnavailableError) as caught:
        load(other, device=key.backend)
    (value,) = change.values()
    assert str(value[0] if isinstance(value, tuple) else value) in str(caught.value)
    assert f"edge-runtime build {other.path}" in str(caught.value)


def test_a_plan_that_is_not_what_the_bundle_says_is_refused(
    bundle: Bundle, plain: Bundle, key: PlanKey, tmp_path: Path
) -> None:
    data = bytearray(bundle.read(key.entry))
    data[24] += 1  # The major version, in the plan's own header.
    other = with_plan(plain, tmp_path, key, bytes(data))
    with pytest.raises(BundleError, match="Build it again"):
        load(other, device=key.backend)


def test_a_plan_that_was_changed_is_refused(bundle: Bundle, key: PlanKey, tmp_path: Path) -> None:
    path = Path(shutil.copy(bundle.path, tmp_path / "changed.edge"))
    data, plan = bytearray(path.read_bytes()), bundle.read(key.entry)
    data[data.index(plan) + len(plan) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError):
        load(path, device=key.backend)
