"""What a check found: findings, and the report that holds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Severity(str, Enum):
    """How bad a finding is: an error stops the build or makes its numbers wrong."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Scope(str, Enum):
    """Whom a finding is about: every TensorRT, or TensorRT-RTX and not a Jetson's TensorRT."""

    TENSORRT = "tensorrt"
    RTX = "tensorrt-rtx"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a model before it is built.

    Attributes:
        severity: How bad it is.
        rule: What was checked, such as `uint8-zero-point`; `parser` and `builder` are NVIDIA's own.
        node: Name of the node, or of its first output where it has none; or the input, output or
            initialiser that the finding is about; empty where it is about the whole model.
        op: Operator of the node; empty where the finding is not about a node.
        message: What was found, and why it matters.
        hint: What to do about it.
        scope: Whom it is about.
    """

    severity: Severity
    rule: str
    node: str
    op: str
    message: str
    hint: str
    scope: Scope = Scope.TENSORRT

    def __str__(self) -> str:
        where = f"{self.node} ({self.op}): " if self.op else f"{self.node}: " if self.node else ""
        return f"{self.severity.value}: {where}{self.message} {self.hint} [{self.rule}]"


class Outcome(str, Enum):
    """How far NVIDIA's own parser and builder came."""

    BUILT = "built"
    PARSED = "parsed"
    REFUSED = "refused"
    NOT_RUN = "not-run"


@dataclass(frozen=True, slots=True)
class BuilderRun:
    """What NVIDIA's own parser and builder did with the model.

    Attributes:
        outcome: How far they came.
        builder: Which they were, such as `tensorrt-rtx 1.7.1.116`; empty where none ran.
        detail: A sentence: for which targets and shapes, or why not further.
    """

    outcome: Outcome
    builder: str
    detail: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of `check_model`.

    Attributes:
        model: The file's name.
        digest: The model's digest, as `sha256:<hex>`.
        findings: Errors first, then warnings, then notes.
        run: What NVIDIA's own parser and builder did.
    """

    model: str
    digest: str
    findings: tuple[Finding, ...]
    run: BuilderRun

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "model": self.model,
            "digest": self.digest,
            "ok": self.ok,
            "builder": {**asdict(self.run), "outcome": self.run.outcome.value},
            "findings": [
                {
                    **asdict(finding),
                    "severity": finding.severity.value,
                    "scope": finding.scope.value,
                }
                for finding in self.findings
            ],
        }
