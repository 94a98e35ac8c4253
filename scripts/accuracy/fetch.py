"""Fetches Debian packages into the cache, unpacked without root, and files of them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def debian(package: str, downloads: Path) -> Path:
    """The folder into which a Debian package is unpacked, fetched once with `apt-get download`.

    Raises:
        subprocess.CalledProcessError: apt-get or dpkg failed; they say why on stderr.
    """
    folder = downloads / package
    if not (folder / ".complete").is_file():
        print(f"Fetching Debian's {package} ...", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.deb"):
            leftover.unlink()
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        (file,) = folder.glob("*.deb")
        subprocess.run(["dpkg", "-x", str(file), str(folder)], check=True)
        file.unlink()
        (folder / ".complete").touch()
    return folder
