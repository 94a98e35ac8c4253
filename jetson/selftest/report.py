"""One file with all that came of the steps."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from step import Outcome


def pack(
    outcomes: Sequence[Outcome], folder: Path, output: Path, *, device: str, board: str
) -> Path:
    """Writes the report: `report.json`, the steps' logs and what the machine says of itself.

    Args:
        outcomes: What became of each step.
        folder: Where the steps left their `logs` and `facts`.
        output: The folder of the report.
        device: What was tried, `tensorrt` or `cpu`.
        board: Name of the board.
    """
    now = datetime.now(timezone.utc)
    plain = {
        "schema": 1,
        "board": board,
        "device": device,
        "date": now.isoformat(timespec="seconds"),
        "steps": [asdict(outcome) for outcome in outcomes],
        "figures": {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")},
    }
    path = output / f"edge-runtime-selftest-{board}-{now:%Y%m%d-%H%M%S}.zip"
    output.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.json", json.dumps(plain, indent=1))
        for part in ("logs", "facts"):
            for file in sorted((folder / part).iterdir()):
                archive.write(file, f"{part}/{file.name}")
    return path


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line that says how many steps did what."""
    failed = sum(outcome.failed for outcome in outcomes)
    passed = sum(outcome.status.startswith("passed") for outcome in outcomes)
    return f"{passed} passed, {failed} failed, {len(outcomes) - passed - failed} not run"
