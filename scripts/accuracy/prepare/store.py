"""Writes the folder of a row: its model, samples and `row.json`.

`calibration/*.npz` and `test/*.npz` are for the benchmark; `guard/*.npz` and `guard_labels.json`
are for the accuracy guard of the row's recipe, and overlap with neither.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Feeds = dict[str, np.ndarray]


class Store:
    """A row's folder while it is made. `row.json`, written last, says that it is complete."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self._counts = {"calibration": 0, "test": 0, "guard": 0}
        self._guard_labels: list[list[int]] = []
        self.truth: dict[str, Any] = {}
        self.about = ""

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"

    def export(self, net: Any, example: tuple[Any, ...], **options: Any) -> None:
        """Exports a PyTorch module to `model`, without the exporter's paths of this machine."""
        import torch

        net.eval()
        torch.onnx.export(
            net,
            example,
            str(self.model),
            opset_version=20,
            external_data=False,
            verbose=False,
            **options,
        )
        model = onnx.load(self.model)
        for node in model.graph.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
        onnx.save(model, self.model)

    def calibration(self, feeds: Feeds) -> None:
        self._add("calibration", feeds)

    def test(self, feeds: Feeds) -> None:
        """Adds a batch of test samples: axis 0 of the model's output counts them."""
        self._add("test", feeds)

    def guard(self, feeds: Feeds, labels: list[int] | None = None) -> None:
        """Adds a sample for the accuracy guard, with the classes that are right if it has any."""
        self._add("guard", feeds)
        if labels is not None:
            self._guard_labels.append(labels)

    def _add(self, kind: str, feeds: Feeds) -> None:
        path = self.folder / kind / f"{self._counts[kind]:05}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez_compressed(path, **feeds)
        self._counts[kind] += 1

    def finish(self) -> None:
        digest = hashlib.sha256(self.model.read_bytes())
        for kind in ("calibration", "test"):
            for path in sorted((self.folder / kind).glob("*.npz")):
                digest.update(path.name.encode())
                with np.load(path) as arrays:
                    for name in sorted(arrays.files):
                        digest.update(name.encode() + arrays[name].tobytes())
        digest.update(json.dumps(self.truth, sort_keys=True).encode())
        facts = {
            "about": self.about,
            "digest": digest.hexdigest(),
            "calibration": self._counts["calibration"],
            "truth": self.truth,
        }
        if self._guard_labels:
            labels = json.dumps(self._guard_labels)
            (self.folder / "guard_labels.json").write_text(labels)
        (self.folder / "row.json").write_text(json.dumps(facts))
