"""Fashion-MNIST and the MobileNet-like net of tests/data."""

from __future__ import annotations

from pathlib import Path

from accuracy.prepare import fashion
from accuracy.prepare.store import Store


def prepare(store: Store, downloads: Path) -> None:
    fashion.prepare(store, downloads, "fashion_mobile")
