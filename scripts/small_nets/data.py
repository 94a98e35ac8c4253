"""Reads the data sets of the small nets, fetched where needed: digits and Fashion-MNIST."""

from __future__ import annotations

import gzip
import subprocess
import tempfile
from pathlib import Path

import numpy as np

CACHE = Path(tempfile.gettempdir()) / "edge_runtime_data"


def read_idx(path: Path) -> np.ndarray:
    """Reads a gzipped IDX file of bytes (format: http://yann.lecun.com/exdb/mnist)."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, dtype=">i4", count=rank, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape)


def fetch_fashion_mnist(folder: Path) -> Path:
    """Returns the folder of the four IDX files, fetched from Debian when it is not there yet."""
    files = folder / "usr/share/datasets/fashion-mnist"
    if not files.is_dir():
        print("Fetching Debian's dataset-fashion-mnist (31 MB) ...", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "dataset-fashion-mnist"], cwd=folder, check=True)
        package = next(folder.glob("dataset-fashion-mnist*.deb"))
        subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    return files


def digits() -> tuple[np.ndarray, ...]:
    """scikit-learn's digits, doubled to 16x16 and scaled to 0..255: 1,297 to train, 500 to test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = np.clip(data.images * 15.9375, 0, 255).astype(np.uint8)
    pictures = pictures.repeat(2, 1).repeat(2, 2)
    order = np.random.default_rng(0).permutation(len(pictures))
    train_ids, test_ids = order[:1297], order[1297:]
    labels = data.target.astype(np.uint8)
    return pictures[train_ids], labels[train_ids], pictures[test_ids], labels[test_ids]


def fashion() -> tuple[np.ndarray, ...]:
    """Fashion-MNIST: 60,000 pictures to train and 10,000 to test, 28x28."""
    files = fetch_fashion_mnist(CACHE)
    return tuple(
        read_idx(files / f"{part}-{kind}-ubyte.gz")
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    )
