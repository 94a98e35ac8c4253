"""What the machine says of itself, kept as it says it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_FILES = (
    "etc/nv_tegra_release",
    "etc/os-release",
    "proc/device-tree/model",
    "proc/meminfo",
    "sys/class/thermal/thermal_zone*/type",
    "sys/class/thermal/thermal_zone*/temp",
    "sys/class/hwmon/hwmon*/name",
    "sys/class/hwmon/hwmon*/in*_label",
    "sys/class/hwmon/hwmon*/in*_input",
    "sys/class/hwmon/hwmon*/curr*_input",
    "sys/class/hwmon/hwmon*/power*_input",
    "sys/class/devfreq/*/cur_freq",
    "sys/class/devfreq/*/max_freq",
    "usr/local/cuda/version.json",
)
_COMMANDS = {
    "uname": ["uname", "-srvm"],
    "nvpmodel": ["nvpmodel", "-q"],
    "jetson_clocks": ["sudo", "-n", "jetson_clocks", "--show"],
    "tegrastats": ["timeout", "3", "tegrastats", "--interval", "1000"],
    "nvidia-smi": ["nvidia-smi"],
    "packages": ["dpkg-query", "-W", "*nvidia*", "*nvinfer*", "*tensorrt*", "*cudnn*", "cuda-*"],
}


def collect(folder: Path, python: Path) -> None:
    """Writes a file for each command, and one for the files, into `folder`, which is made."""
    folder.mkdir()
    texts = [f"== /{name}\n{text}" for name, text in _read(Path("/"))]
    (folder / "files.txt").write_text("\n".join(texts), encoding="utf-8")
    for name, command in {**_COMMANDS, "pip": [str(python), "-m", "pip", "freeze"]}.items():
        (folder / f"{name}.txt").write_text(_said(command), encoding="utf-8")


def board_name(root: Path = Path("/")) -> str:
    """The board's name as a file name has it, such as `nvidia-jetson-agx-orin-developer-kit`."""
    models = [text for name, text in _read(root) if name == "proc/device-tree/model"]
    return re.sub(r"[^a-z0-9]+", "-", (models or ["pc"])[0].lower()).strip("-")


def _read(root: Path) -> list[tuple[str, str]]:
    found = []
    for pattern in _FILES:
        for path in sorted(root.glob(pattern)):
            try:
                text = path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
            except OSError as error:  # Sensors that are off answer so.
                text = f"({error.strerror})"
            found.append((path.relative_to(root).as_posix(), text))
    return found


def _said(command: list[str]) -> str:
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
    except OSError as error:
        return f"({command[0]}: {error.strerror})\n"
    except subprocess.TimeoutExpired:
        return f"({command[0]} did not end)\n"
    text = result.stdout.decode("utf-8", errors="replace")
    return f"{text}\n(exit code {result.returncode})\n"
