"""Checks a model before it is built: the lints, then NVIDIA's own parser and builder if here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from edge_runtime.backends.tensorrt.profile import check_profile
from edge_runtime.config import BuildConfig, GivenProfile
from edge_runtime.errors import ConfigError
from edge_runtime.model import read_model
from edge_runtime.preflight.findings import (
    BuilderRun,
    CheckReport,
    Finding,
    Outcome,
    Scope,
    Severity,
)
from edge_runtime.preflight.lints import run_lints
from edge_runtime.preflight.vendor import ask_vendor

_ORDER = (Severity.ERROR, Severity.WARNING, Severity.NOTE)


def check_model(
    path: str | os.PathLike[str],
    *,
    targets: Sequence[str] = (),
    profiles: GivenProfile | Iterable[GivenProfile] = (),
    build: bool = True,
) -> CheckReport:
    """Says what TensorRT will have against an ONNX model, and what to do about it. Needs no GPU.

    The lints always run. Where TensorRT-RTX is installed, its parser, which TensorRT shares, reads
    the model too, and its builder builds a plan that is thrown away. Nothing is run.

    Args:
        path: The ONNX file.
        targets: GPU architectures that the model is meant for, such as `sm87` (Orin) or `sm86`.
        profiles: Optimization profiles, or a single one, as in `BuildConfig`. Without one, the
            builder takes 1 for a dynamic first axis; where another axis is dynamic nothing is
            built.
        build: Whether to build a plan, which takes seconds to minutes.

    Raises:
        ConfigError: A target or a shape range makes no sense for the model.
        ModelError: The file is not a valid ONNX model.
    """
    for target in targets:
        if not re.fullmatch(r"sm\d{2,3}", target):
            raise ConfigError(f"There is no target {target!r}; targets look like sm86 or sm87.")
    model = read_model(path)
    read = BuildConfig(profiles=profiles).profiles
    for profile in read:
        check_profile(profile, model.inputs)
    lints = run_lints(model.proto, targets=targets, profiles=read)
    run, vendor = ask_vendor(model, targets=targets, profiles=read, build=build)
    findings = _merge(lints, vendor, run)
    return CheckReport(
        model=model.name,
        digest=model.digest,
        findings=tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity))),
        run=run,
    )


def _merge(
    lints: Sequence[Finding], vendor: Sequence[Finding], run: BuilderRun
) -> tuple[Finding, ...]:
    """Both kinds of findings, each matter once.

    What a lint explains gets NVIDIA's words too, and their severity where the lint's is less. What
    a lint fears of TensorRT-RTX is dropped when TensorRT-RTX has just built the model.
    """
    merged = list(lints)
    if run.outcome is Outcome.BUILT:
        merged = [finding for finding in lints if finding.scope is not Scope.RTX]
    for finding in vendor:
        twin = next((i for i, lint in enumerate(merged) if _same(lint, finding)), None)
        if twin is None:
            merged.append(finding)
        else:
            lint = merged[twin]
            severity = min(lint.severity, finding.severity, key=_ORDER.index)
            message = f"{lint.message} {finding.message}"
            merged[twin] = replace(lint, severity=severity, message=message)
    return tuple(merged)


def _same(lint: Finding, finding: Finding) -> bool:
    return (
        finding.op != ""
        and lint.op == finding.op
        and lint.scope == finding.scope
        and finding.node in ("", lint.node)
    )
