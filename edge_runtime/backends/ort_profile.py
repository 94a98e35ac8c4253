"""Reads ONNX Runtime's profile, and finds the graph's nodes in the graph that it made of it.

The profile is a list of events in the format of Chrome's tracing, one for each node that ran, with
whole microseconds. The nodes are those of the optimized graph, in which ONNX Runtime has fused,
renamed, reordered and folded those of ours. What became of them is read off that graph, which it
writes when asked: a node that kept its name is that node, and one whose output is gone from the
graph is part of what made or read that output. Where that has no or more than one answer, none is
given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from edge_runtime.backends.onnx_graph import GraphNode, OnnxGraph

_KERNEL = "_kernel_time"
_INFERENCE = "model_run"
_CONTROL_FLOW = ("If", "Loop", "Scan")  # Their events span those of the nodes inside of them.
_LAYOUT = ("ReorderInput", "ReorderOutput", "Reshape", "Transpose")
_ADDED = re.compile(r"(/\w+Fusion/?)?(_nchwc)?(_token_\d+)?$")
"""What ONNX Runtime appends to names: a fusion, a layout of its own, and what makes them unique."""


Sizes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]
"""Element type and shape of some tensors."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A node that ran.

    Attributes:
        name: Its name.
        op: Its operator.
        microseconds: How long it took.
        inputs: Element type and shape of each input that is there, as ONNX Runtime names types.
        outputs: The same of its outputs.
    """

    name: str
    op: str
    microseconds: int
    inputs: Sizes = ()
    outputs: Sizes = ()

    def with_types(self, names: Mapping[str, str]) -> Kernel:
        """The same with the element types renamed; what has no name there keeps its own."""

        def renamed(sizes: Sizes) -> Sizes:
            return tuple((names.get(kind, kind), shape) for kind, shape in sizes)

        return replace(self, inputs=renamed(self.inputs), outputs=renamed(self.outputs))


def inferences(events: Iterable[Mapping[str, Any]]) -> list[list[Kernel]]:
    """The nodes that ran in each inference, in order; those inside of control flow are left out."""
    spans, kernels = [], []
    for event in events:
        if event["name"] == _INFERENCE:
            spans.append((event["ts"], event["ts"] + event["dur"]))
        elif event["cat"] == "Node" and event["name"].endswith(_KERNEL):
            kernels.append((event["ts"], event))
    kernels.sort(key=lambda kernel: kernel[0])
    return [
        list(_outermost(event for start, event in kernels if first <= start <= last))
        for first, last in sorted(spans)
    ]


def _outermost(events: Iterable[Mapping[str, Any]]) -> Iterator[Kernel]:
    end = -1
    for event in events:
        if event["ts"] < end:
            continue
        op = event["args"]["op_name"]
        if op in _CONTROL_FLOW:
            end = event["ts"] + event["dur"]
        yield Kernel(
            name=event["name"].removesuffix(_KERNEL),
            op=op,
            microseconds=event["dur"],
            inputs=_sizes(event["args"].get("input_type_shape")),
            outputs=_sizes(event["args"].get("output_type_shape")),
        )


def _sizes(plain: list[dict[str, list[int]]] | None) -> Sizes:
    """From `[{"float": [2, 16]}, ...]`."""
    return tuple((kind, tuple(shape)) for item in plain or () for kind, shape in item.items())


def computed_nodes(graph: OnnxGraph, optimized: OnnxGraph) -> dict[str, tuple[str, ...]]:
    """Names of the graph's nodes that each node of the optimized graph computes, by its name."""
    return _Assignment(graph, optimized).result()


class _Assignment:
    """Assigns the nodes of a graph, by their indices, to those of the optimized one, by name."""

    def __init__(self, graph: OnnxGraph, optimized: OnnxGraph) -> None:
        self._nodes = graph.nodes
        self._optimized = optimized
        self._maker = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}
        self._readers: dict[str, list[int]] = {}
        for i, node in enumerate(graph.nodes):
            for name in node.inputs:
                self._readers.setdefault(name, []).append(i)
        self._constant = _constants(graph)
        self._there = set(graph.outputs)
        self._there.update(name for node in optimized.nodes for name in _tensors(node))
        self._takers: dict[str, set[str]] = {}
        for layer in optimized.nodes:
            for name in layer.inputs:
                self._takers.setdefault(name, set()).add(layer.name)
        self._layers: dict[int, set[str]] = {}

    def result(self) -> dict[str, tuple[str, ...]]:
        self._assign_named()
        self._assign_makers(self._blocked_tensors())
        while self._assign_neighbours():
            pass
        found: dict[str, list[str]] = {node.name: [] for node in self._optimized.nodes}
        for i, node in enumerate(self._nodes):
            for layer in self._layers.get(i, ()):
                found[layer].append(node.label)
        return {name: tuple(labels) for name, labels in found.items()}

    def _assign_named(self) -> None:
        """Nodes that kept their name, or whose output the layer is named after."""
        by_name = {node.label: i for i, node in enumerate(self._nodes)}
        for layer in self._optimized.nodes:
            plain = _ADDED.sub("", layer.name)
            candidates = (by_name.get(layer.name), by_name.get(plain), self._maker.get(plain))
            index = next((i for i in candidates if i is not None), None)
            if index is not None and index not in self._layers:
                for i in self._up_to_operator(index, layer.op) if _is_blocked(layer) else [index]:
                    self._layers[i] = {layer.name}

    def _up_to_operator(self, index: int, op: str) -> list[int]:
        """From a node up to the first of an operator, such as the Conv of a Relu."""
        path = [index]
        while self._nodes[path[-1]].op != op:
            makers = [self._maker.get(name) for name in self._nodes[path[-1]].inputs]
            above = [i for i in makers if i is not None and i not in self._constant]
            if len(above) != 1:
                return [index]
            path += above
        return path

    def _blocked_tensors(self) -> dict[str, str]:
        """Which of the graph's tensors those are that are kept in blocks of channels.

        They have names of their own. A change of layout, or else a layer that reads nothing else,
        says which one it is; else the name of the layer that makes it.
        """
        found: dict[str, str] = {}
        made = {name for layer in self._optimized.nodes for name in layer.outputs}
        members: dict[str, list[GraphNode]] = {}
        for i, names in self._layers.items():
            for name in names:
                members.setdefault(name, []).append(self._nodes[i])
        for layer in self._optimized.nodes:
            if layer.op == "ReorderOutput":
                found[layer.inputs[0]] = layer.outputs[0]
            reads = [name for name in layer.inputs if name in made and name not in self._maker]
            if _is_blocked(layer) and len(reads) == 1:
                own = members.get(layer.name, [])
                inside = {name for node in own for name in node.outputs}
                outside = {
                    name
                    for node in own
                    for name in node.inputs
                    if name not in inside and self._is_activation(name)
                }
                if len(outside) == 1:
                    found.setdefault(reads[0], outside.pop())
        for layer in self._optimized.nodes:
            plain = _ADDED.sub("", layer.name)
            if _is_blocked(layer) and plain in self._maker:
                found.setdefault(layer.outputs[0], plain)
        self._there.update(found.values())
        return found

    def _assign_makers(self, blocked: Mapping[str, str]) -> None:
        """Nodes whose output a layer makes, as the last one of those that it fuses.

        A change of layout makes none of what it puts out.
        """
        named = {name for found in self._layers.values() for name in found}
        for layer in self._optimized.nodes:
            if layer.name in named and not _is_blocked(layer):
                continue
            for index in (self._maker.get(blocked.get(name, name)) for name in layer.outputs):
                if index is None or index in self._layers:
                    continue
                if layer.op not in _LAYOUT or layer.op == self._nodes[index].op:
                    self._layers[index] = {layer.name}

    def _assign_neighbours(self) -> bool:
        """Takes in nodes next to assigned ones that have no output of their own any more."""
        progress = False
        for i in [*range(len(self._nodes)), *reversed(range(len(self._nodes)))]:
            if i not in self._layers and (found := self._neighbours(i)):
                self._layers[i] = found
                progress = True
        return progress

    def _neighbours(self, index: int) -> set[str]:
        node = self._nodes[index]
        if index in self._constant:
            return self._readers_of_constants(node)
        made = [self._layer_of(self._maker[name]) for name in node.inputs if self._is_gone(name)]
        read = [self._layers.get(i) for name in node.outputs for i in self._readers.get(name, ())]
        if node.op == "DequantizeLinear":  # Each layer that reads integers dequantizes them.
            return set().union(*(found for found in read if found)) if all(read) else set()
        if node.op == "QuantizeLinear":
            return made[0] if len(made) == 1 and made[0] is not None else set()
        gone = not any(name in self._there for name in node.outputs)
        sides = [found for found in (*made, *(read if gone else ())) if found]
        return sides[0] if sides and all(found == sides[0] for found in sides) else set()

    def _readers_of_constants(self, node: GraphNode) -> set[str]:
        """The layers that do to a weight what the node would; none if it was done at loading."""
        if any(name in self._there for name in node.outputs):
            return set()
        readers = {i for name in node.outputs for i in self._readers.get(name, ())}
        layers = {name for i in readers for name in self._layers.get(i, ())}
        return layers & self._takers.get(next(iter(node.inputs), ""), set())

    def _layer_of(self, index: int) -> set[str] | None:
        found = self._layers.get(index)
        return found if found is not None and len(found) == 1 else None

    def _is_gone(self, name: str) -> bool:
        """Whether an activation is no tensor of the optimized graph."""
        return self._is_activation(name) and name not in self._there

    def _is_activation(self, name: str) -> bool:
        """Whether a node makes it from what the model is given."""
        maker = self._maker.get(name)
        return maker is not None and maker not in self._constant


def _is_blocked(layer: GraphNode) -> bool:
    """Whether ONNX Runtime lays its tensors out in blocks of channels."""
    return "_nchwc" in layer.name and _ADDED.sub("", layer.name) != layer.name


def _constants(graph: OnnxGraph) -> set[int]:
    """Indices of the nodes that depend on no input of the model."""
    varying = set(graph.inputs)
    found = set()
    for i, node in enumerate(graph.nodes):
        if varying.isdisjoint(_reads(node)):
            found.add(i)
        else:
            varying.update(node.outputs)
    return found


def _reads(node: GraphNode) -> set[str]:
    """What it and the nodes inside of it read."""
    return {*node.inputs, *(name for inner in node.inner for name in _reads(inner))}


def _tensors(node: GraphNode) -> Sequence[str]:
    return (*node.outputs, *_reads(node))
