"""What TensorRT's ONNX parser has against a graph, a line for each node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_runtime.backends.tensorrt.logger import strip_noise


@dataclass(frozen=True, slots=True)
class ParserFailure:
    """One error of the parser.

    Attributes:
        node: Name of the node, or of the input; empty where the error is about neither or the node
            has no name.
        op: Operator of the node; empty where the error is not about a node.
        reason: The parser's text, or that the operator is not supported where it has none.
        index: The node's place in its graph; -1 where the error is not about a node, or the parser
            does not say.
        path: The nodes and functions around the node, outermost first; empty in the main graph.
        function: The parser's own function that found it.
    """

    node: str
    op: str
    reason: str
    index: int = -1
    path: tuple[str, ...] = ()
    function: str = ""

    def __str__(self) -> str:
        within = "".join(f" in {place}" for place in reversed(self.path))
        if not self.op:
            return f"input {self.node!r}: {self.reason}" if self.node else self.reason
        where = f"node number {self.index}" if self.index >= 0 else "a node"
        where = f"node {self.node!r}" if self.node else where
        return f"{where} ({self.op}){within}: {self.reason}"


def parser_failures(parser: Any) -> tuple[ParserFailure, ...]:
    """The errors of a parser that has just parsed, without repetitions."""
    errors = (parser.get_error(index) for index in range(parser.num_errors))
    return tuple(dict.fromkeys(_failure(error) for error in errors))


def _failure(error: Any) -> ParserFailure:
    node = error.node_name()
    # An input of a type TensorRT lacks is reported with its name where the source file belongs.
    if error.node() < 0 and error.func() == "importInput":
        node = error.file()
    return ParserFailure(
        node=node,
        op=error.node_operator(),
        reason=_reason(error.desc(), error.node_operator()),
        index=error.node(),
        path=tuple(error.local_function_stack()),
        function=error.func(),
    )


def _reason(description: str, op: str) -> str:
    """The words of an error description: what is left without the C++ around them.

    Descriptions look like `false`, like `Assertion failed: condition && "words" "more words"`, like
    `Assertion failed: condition: words`, or like `Invalid Node - name` and the words below it.
    """
    text = strip_noise(description)
    if text == "false":
        return f"operator {op} is not supported"
    text = text.removeprefix("Assertion failed: ")
    lines = text.splitlines()
    if len(lines) > 1 and lines[0].startswith("Invalid Node - "):
        text = "; ".join(lines[1:])
    _, found, words = text.partition(' && "')
    if found and words.rstrip(". ").endswith('"'):
        text = words.rstrip(". ").removesuffix('"').replace('" "', "")
    return " ".join(text.split())
