"""What every backend owes to whoever runs a bundle on it, of this machine's GPU."""

from __future__ import annotations

import pytest

from tests.contract import test_backend

pytestmark = pytest.mark.timeout(900)  # The first waits until TensorRT has built.

# They take `case`, `engine` and `session` from the conftest of this folder.
globals().update(
    {name: test for name, test in vars(test_backend).items() if name.startswith("test_")}
)
