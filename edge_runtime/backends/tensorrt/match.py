"""Whether a plan runs on this machine, decided before anything is deserialised."""

from __future__ import annotations

from edge_runtime.backends.tensorrt.plan_header import read_plan_header
from edge_runtime.bundle.manifest import PlanKey
from edge_runtime.errors import BundleError

_AMPERE = 80


def mismatch(plan: PlanKey, machine: PlanKey) -> str:
    """Why a plan does not run on a machine; empty if it does.

    Args:
        plan: What the plan was built for.
        machine: The backend, its version, the GPU's compute capability and the platform. Its traits
            say what it has beside: `dla`.
    """
    if plan.backend != machine.backend:
        return f"it is for {plan.backend}, not {machine.backend}"
    if plan.platform != machine.platform:
        return f"it is for {plan.platform}, this is {machine.platform}"
    if not _version_fits(plan, machine.version):
        return f"it is for {plan.backend} {plan.version}, here is {machine.version}"
    (here,) = machine.compute_capabilities
    wanted = plan.compute_capabilities
    if not (here in wanted if wanted else int(here[2:]) >= _AMPERE):
        targets = ", ".join(wanted) or "Ampere and newer"
        return f"it is for {targets}, the GPU here is {here}"
    if "dla" in plan.traits and "dla" not in machine.traits:
        return "it is for a DLA, and this machine has none"
    return ""


def check_header(data: bytes | memoryview, key: PlanKey) -> None:
    """Refuses a plan whose own first bytes contradict what the bundle says of it.

    Raises:
        BundleError: It is no plan, is cut off, or is of another library or version.
    """
    header = read_plan_header(data)
    if header.kind != key.backend or not _same(header.version, key.version):
        raise BundleError(
            f"{key.entry} says that it is for {key.backend} {key.version}, but the plan itself "
            f"was made by {header.kind} {header.version}. Build it again."
        )


def _version_fits(plan: PlanKey, here: str) -> bool:
    """Equal versions; a version-compatible plan also runs in newer ones.

    NVIDIA's support matrix of TensorRT 11.4: plans made so by 10 run in 10 and 11, by 8 in 8 and
    10. https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/getting-started/support-matrix.html
    """
    if _same(plan.version, here):
        return True
    if "version-compatible" not in plan.traits:
        return False
    made, runs = _numbers(plan.version), _numbers(here)
    return made <= runs and (made[0], runs[0]) in {(8, 8), (8, 10), (10, 10), (10, 11), (11, 11)}


def _same(one: str, other: str) -> bool:
    """Whether versions agree as far as both say: 10.3.0 of a module is 10.3.0.26 of a plan."""
    return all(a == b for a, b in zip(_numbers(one), _numbers(other), strict=False))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]
