"""Observes the channels of a prepared net, as calibration does."""

from __future__ import annotations

from onnx import ModelProto

from edge_runtime.data import Samples
from edge_runtime.precision.corrections.channel_rules import map_channels
from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import Placement
from edge_runtime.precision.observing.calibrator import Observer
from edge_runtime.precision.observing.channels import (
    ChannelCounter,
    ChannelStats,
    channel_counters,
    channel_places,
    channel_stats,
)


def observe_channels(
    proto: ModelProto, placement: Placement, samples: Samples, *also: str
) -> dict[str, ChannelStats]:
    """What is seen of the channels, and of those along axis 1 of more tensors."""
    graph = Graph(proto)
    counters = channel_counters(graph, placement, map_channels(graph))
    for name in also:
        counters.setdefault(name, ChannelCounter(1))
    chosen = channel_places(samples)
    observer = Observer(proto, counters.keys())
    observer.run(samples.take(chosen), counters, total=len(chosen))
    return channel_stats(counters)
