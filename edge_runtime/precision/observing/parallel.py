"""How many samples run at a time, and on how many threads each.

Samples that run side by side keep all cores busy, where the threads of one inference wait for each
other at every layer.
"""

from __future__ import annotations

import os

_MOST_WORKERS = 4  # Each holds a few layers' activations.


def workers_for(samples: int) -> int:
    """How many samples should be on their way at a time: one for each core, a few at most."""
    return max(min(os.cpu_count() or 1, _MOST_WORKERS, samples), 1)


def threads_for(workers: int) -> int:
    """How many threads each of so many samples' inferences should use; 0 is ONNX Runtime's own."""
    return 0 if workers == 1 else max((os.cpu_count() or 1) // workers, 1)
