"""What became of one model: built, or refused in words that help, or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from onnx import GraphProto, ModelProto, NodeProto


class Kind(str, Enum):
    """The ways in which a model ends."""

    BUILT = "built"
    NODE = "refused, with node, operator and reason"
    INTERFACE = "refused, with input or output and reason"
    UNREADABLE = "refused, since it is no ONNX file"
    VAGUE = "refused without node, operator or reason"
    TRACEBACK = "ended in a traceback"
    CRASHED = "crashed"
    SLOW = "took too long, was ended"


DEFECTS = (Kind.VAGUE, Kind.TRACEBACK, Kind.CRASHED)
"""The ways that are a fault of edge_runtime."""


@dataclass(frozen=True)
class Verdict:
    """What became of one model.

    Attributes:
        model: Its name.
        kind: How it ended.
        seconds: How long it took.
        text: The error, as a user sees it; empty where a plan was built.
    """

    model: str
    kind: Kind
    seconds: float
    text: str = ""


_WORKER_DIED = "The process that built for "
"""How edge_runtime begins what it says when the builder took its process with it."""


def judge_refusal(text: str, model: ModelProto | None) -> Kind:
    """How good a refusal is: does it name what it is about, in the model's own names, and why?

    Args:
        text: The message of an EdgeRuntimeError.
        model: The model, its nodes named as `read_model` names them; None if the file is none.
    """
    if model is None:
        return Kind.UNREADABLE
    if text.startswith(_WORKER_DIED):
        return Kind.CRASHED
    if "no reason" in text:
        return Kind.VAGUE
    for node in _nodes(model.graph):
        if _quoted(node.name, text) and node.op_type in text.replace(f"'{node.name}'", ""):
            return Kind.NODE
    interface = [value.name for value in (*model.graph.input, *model.graph.output)]
    return Kind.INTERFACE if any(_quoted(name, text) for name in interface) else Kind.VAGUE


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _quoted(name: str, text: str) -> bool:
    """Whether the text holds a name between quotes: the name `x` stands in many a word."""
    return bool(name) and any(f"{quote}{name}{quote}" in text for quote in "'\"`")
