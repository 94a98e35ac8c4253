"""Makes the model and data of one row: `python -m accuracy.prepare ROW FOLDER DOWNLOADS`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from accuracy.prepare.store import Store


def main() -> None:
    row, folder, downloads = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    store = Store(folder)
    importlib.import_module(f"accuracy.prepare.{row}").prepare(store, downloads)
    store.finish()


if __name__ == "__main__":
    main()
