"""Says which nodes of the ONNX graph a line of TensorRT's log is about, as far as that is known.

TensorRT speaks of layers and tensors, whose names come from the graph, at times with a number added
(`scores_2`), or of several fused into one (`c1 + PWN(s1, m1)`, `{ForeignNode[a...b]}`), or of an
operator without a name. The parser tells where a node is, but not always what it is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from edge_runtime.backends.onnx_graph import GraphNode, OnnxGraph
from edge_runtime.backends.tensorrt.parse import ParserFailure

_SHOWN = 10  # Nodes in a message.
_REGION = re.compile(r"ForeignNode\[(.+?)\.\.\.(.+)\]\}")
_WORD = r"[\w./:-]"
_ANNOUNCED = re.compile(
    r"""(?: \b(?:tensor|layer|node|operation|input|output|initializer|binding)s?
          (?:\ name)? :?\s | \[ONNX\ Layer:\ | ForeignNode\[ | \ \+\  | PWN\( | ['"`] )$""",
    re.IGNORECASE | re.VERBOSE,
)
_IS_A_LAYER = " has no runners"
_UNLIKE_WORDS = re.compile(r"(?=.*[^\W\d_])(?=.*[\d_./:-]).{3,}")
_OPERATOR = re.compile(r"\b(\w+) (?:operation|operator|op|layer|node)s?\b")
_IMPORTER = re.compile(r"(?:import|check|parse)([A-Z]\w*)")


def explain(line: str, graph: OnnxGraph) -> str:
    """The line, after the nodes that it is about, with their operators.

    Args:
        line: An ERROR line, without line breaks.
        graph: The graph that was built.
    """
    if region := _REGION.search(line):
        ends = [_named(f"'{part}'", graph) for part in region.groups()]
        if all(ends):
            return f"nodes {ends[0][0]} to {ends[1][-1]}: {line}"
        if any(ends):
            return f"node {[*ends[0], *ends[1]][0]} and those fused with it: {line}"
    if nodes := _named(line, graph):
        return f"{_list(nodes, 'nodes')}: {line}"
    nodes = _of_operator(_OPERATOR.findall(line), graph)
    return f"{_list(nodes, 'one of the nodes')}: {line}" if nodes else line


def locate(failure: ParserFailure, graph: OnnxGraph) -> ParserFailure:
    """The parser's error with what it leaves out: name, operator, the node around it, or type."""
    if failure.op and not failure.path and 0 <= failure.index < len(graph.nodes):
        return _at(graph.nodes[failure.index], failure)
    if failure.op or failure.index >= 0:
        return failure
    if failure.node in graph.inputs:
        reason = f"{failure.reason.removesuffix('.')} (it is {graph.inputs[failure.node]})"
        return replace(failure, reason=reason)
    nodes = _of_operator(_IMPORTER.findall(failure.function), graph)
    if nodes and not failure.node:
        return _one_of(nodes, failure)
    return replace(failure, reason=explain(failure.reason, graph))


def _at(node: GraphNode, failure: ParserFailure) -> ParserFailure:
    """Names a node by its place; the parser gives a subgraph's node the place of the outer one."""
    if node.op == failure.op:
        return replace(failure, node=failure.node or node.label)
    inner = [found for found in OnnxGraph(node.inner).walk() if found.op == failure.op]
    if not inner:
        return failure
    return _one_of(inner, replace(failure, index=-1, path=(str(node),)))


def _one_of(nodes: Sequence[GraphNode], failure: ParserFailure) -> ParserFailure:
    """Names the node, which is one of these, all of one operator."""
    if len(nodes) == 1 or failure.node:
        return replace(failure, node=failure.node or nodes[0].label, op=nodes[0].op)
    reason = f"{failure.reason} (it is {_list(nodes, 'one of the nodes')})"
    return replace(failure, op=nodes[0].op, reason=reason)


def _list(nodes: Sequence[GraphNode], several: str) -> str:
    if len(nodes) == 1:
        return f"node {nodes[0]}"
    more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    return f"{several} {', '.join(map(str, nodes[:_SHOWN]))}{more}"


def _named(line: str, graph: OnnxGraph) -> list[GraphNode]:
    """The nodes that are named in the line, or make or take a tensor that is."""
    makers: dict[str, list[GraphNode]] = {}
    takers: dict[str, list[GraphNode]] = {}
    for node in graph.walk():
        for name in {node.name, *node.outputs} - {""}:
            makers.setdefault(name, []).append(node)
        for name in node.inputs:
            takers.setdefault(name, []).append(node)
    nodes: list[GraphNode] = []
    for name in _mentioned(line, makers.keys() | takers.keys()):
        made, taken = makers.get(name, []), takers.get(name, [])
        nodes += (taken or made) if "consumed" in line else (made or taken)
    return list(dict.fromkeys(nodes))


def _mentioned(line: str, names: Iterable[str]) -> list[str]:
    """The names in the line, in order. Ordinary words count only where a name is announced."""
    found = []
    for name in names:
        if name not in line:
            continue
        pattern = rf"(?<!{_WORD})(node_of_)?{re.escape(name)}(_\d+)?(?!{_WORD}*\w)"
        for match in re.finditer(pattern, line):
            if (
                _UNLIKE_WORDS.fullmatch(name)
                or match[1]
                or _ANNOUNCED.search(line[: match.start()])
                or line.startswith(_IS_A_LAYER, match.end())
            ):
                found.append((match.start(), match[2] is not None, -match.end(), name))
    # Of those that begin at one place, the one without a number added, and of those the longest.
    at = {start: name for start, _, _, name in sorted(found, reverse=True)}
    return [at[start] for start in sorted(at)]


def _of_operator(operators: Iterable[str], graph: OnnxGraph) -> list[GraphNode]:
    """All nodes of the first of these operators that the graph has."""
    nodes = list(graph.walk())
    for operator in operators:
        if found := [node for node in nodes if node.op == operator]:
            return found
    return []
