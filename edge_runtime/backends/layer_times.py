"""How long the layers of a model took, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerTime:
    """How long a layer took in each of some inferences.

    Attributes:
        name: What the backend calls it.
        milliseconds: One time for each inference, in their order.
        nodes: Names of the graph's nodes that it computes. Empty for what only the backend has,
            such as a change of layout, and where the backend does not say.
        precision: In which it computes, such as `int8`, where the backend says so.
    """

    name: str
    milliseconds: tuple[float, ...]
    nodes: tuple[str, ...] = ()
    precision: str | None = None


def layer_times(
    runs: Sequence[Iterable[tuple[str, float]]],
    nodes: Mapping[str, tuple[str, ...]] | None = None,
    precisions: Mapping[str, str] | None = None,
) -> list[LayerTime]:
    """Brings the times of inferences together by layer.

    Args:
        runs: For each inference, names of layers and milliseconds. What runs several times in an
            inference counts as their sum, and what is missing in one as 0.
        nodes: The graph's nodes of each layer, by its name.
        precisions: In which each layer computes, by its name.

    Returns:
        The layers in the order in which they first ran.
    """
    times: dict[str, list[float]] = {}
    for index, run in enumerate(runs):
        for name, milliseconds in run:
            times.setdefault(name, [0.0] * len(runs))[index] += milliseconds
    found, kinds = nodes or {}, precisions or {}
    return [
        LayerTime(name, tuple(ms), found.get(name, ()), kinds.get(name))
        for name, ms in times.items()
    ]
