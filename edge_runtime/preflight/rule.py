"""What a lint is: a rule of the table, and the hits that its function finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge_runtime.preflight.findings import Finding, Scope, Severity
from edge_runtime.preflight.graph import GraphView, Node


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where a rule applies.

    Attributes:
        message: What was found there, and why it matters.
        node: See `Finding.node`.
        op: See `Finding.op`.
        severity: Where it differs from the rule's.
    """

    message: str
    node: str = ""
    op: str = ""
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A lint.

    Attributes:
        name: What findings call it, such as `uint8-zero-point`.
        severity: How bad its findings are, unless a hit says otherwise.
        find: Finds the places; its docstring says which fact it rests on.
        hint: What to do about it.
        scope: Whom it is about.
    """

    name: str
    severity: Severity
    find: Callable[[GraphView], Iterator[Hit]]
    hint: str
    scope: Scope = Scope.TENSORRT

    def findings(self, view: GraphView) -> Iterator[Finding]:
        """What the rule has against a model, in the model's order."""
        for hit in self.find(view):
            yield Finding(
                severity=hit.severity or self.severity,
                rule=self.name,
                node=hit.node,
                op=hit.op,
                message=hit.message,
                hint=self.hint,
                scope=self.scope,
            )


def at(node: Node, message: str, severity: Severity | None = None) -> Hit:
    """A hit at a node."""
    return Hit(message, node.label, node.op, severity)
