"""How the project's own speed is measured: ours and a peer's, in one run, as a pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

OURS, PEER = "ours", "peer"
Pair = Callable[..., None]


@pytest.fixture(params=[OURS, PEER])
def pair(request: pytest.FixtureRequest, benchmark: Any) -> Pair:
    """Measures `ours` or `peer`; the guard puts both together by the test's name."""
    side = request.param

    def measure(ours: Callable[[], object], peer: Callable[[], object], *, rounds: int) -> None:
        run = ours if side == OURS else peer
        benchmark.group = request.node.originalname.removeprefix("test_")
        benchmark.extra_info["side"] = side
        benchmark.pedantic(run, rounds=rounds, warmup_rounds=1)

    return measure
