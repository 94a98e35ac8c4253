"""What every backend owes to whoever runs a bundle on it, and that a GPU gives the CPU's bits."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.backends import registry
from edge_runtime.backends.registry import Choice
from edge_runtime.session import Session
from tests.contract.conftest import Case, feeds
from tests.contract.test_backend import *  # noqa: F403  the suite itself


@pytest.mark.parametrize("side", [4, 8, 16])
def test_outputs_are_those_of_the_cpu_twin(session: Session, case: Case, side: int) -> None:
    engine = registry.open_engine(case.bundle, Choice("cpu", None, ()), threads=1)
    with Session(engine, backend="cpu") as twin:
        for seed in range(3):
            expected = twin.run(feeds(seed, side=side))
            for name, array in session.run(feeds(seed, side=side)).items():
                np.testing.assert_array_equal(array, expected[name], err_msg=name)
