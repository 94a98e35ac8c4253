"""The power mode of a Jetson, as NVIDIA's nvpmodel keeps it.

`/etc/nvpmodel.conf` defines the modes, a line `< POWER_MODEL ID=0 NAME=MAXN >` each (Jetson Linux
Developer Guide, "Platform Power and Performance", supported modes and power efficiency);
`/var/lib/nvpmodel/status` has the one in use as `pmode:0000`. Both are described there or written
by the program, and have not been seen on a device by this project yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.strict_json import Value
from edge_runtime.telemetry.fields import optional, text
from edge_runtime.telemetry.sysfs import read_text

_MODE = re.compile(r"^\s*<\s*POWER_MODEL\s+ID=(\d{1,4})\s+NAME=(\S+)\s*>", re.MULTILINE)
_STATUS = re.compile(r"\bpmode:(\d{1,6})")
_WATTS = re.compile(r"(?:^|_)(\d{1,4})W(?:_|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PowerMode:
    """The power mode in use, and those that the board has.

    Attributes:
        number: What `nvpmodel -m` calls it.
        names: Name of each mode by its number.
    """

    number: int
    names: Mapping[int, str]

    @property
    def name(self) -> str | None:
        """Its name, such as `MAXN` or `15W`; None where the board's list does not have it."""
        return self.names.get(self.number)

    @property
    def largest(self) -> int | None:
        """Number of the mode with the most power; None where the names do not tell.

        That is MAXN (or MAXN_SUPER), which has no cap, else the one with the most watts in its
        name. The mode in use is taken if it has as many.
        """
        unlimited = {n: name for n, name in self.names.items() if name.upper().startswith("MAXN")}
        if unlimited:
            ranks = {n: int("SUPER" in name.upper()) for n, name in unlimited.items()}
        else:
            ranks = {n: int(w[1]) for n, name in self.names.items() if (w := _WATTS.search(name))}
            if len(ranks) < len(self.names):
                return None
        if not ranks:
            return None
        most = max(ranks.values())
        best = sorted(number for number, rank in ranks.items() if rank == most)
        return self.number if self.number in best else best[0]

    def to_json(self) -> dict[str, Any]:
        """The mode as plain JSON values."""
        names = {str(number): name for number, name in self.names.items()}
        return {"number": self.number, "name": self.name, "names": names}

    @classmethod
    def from_json(cls, value: Value) -> PowerMode:
        """The mode that `to_json` wrote.

        Raises:
            EdgeRuntimeError: That of `value`: a key is missing, unknown or of the wrong type.
        """
        found = value.fields("number", "name", "names")
        names = {}
        for number, name in found["names"].members().items():
            if not re.fullmatch(r"0|[1-9]\d{0,3}", number):
                name.fail("has a key that is no number of a mode")
            names[int(number)] = name.text()
        mode = cls(found["number"].integer(0), names)
        if optional(found["name"], text) != mode.name:
            found["name"].fail(f"does not fit .names, which makes it {mode.name!r}")
        return mode


def read_power_mode(root: Path = Path("/")) -> PowerMode | None:
    """The power mode of a Jetson; None on other machines and in containers that do not show it."""
    status = _STATUS.search(read_text(root / "var/lib/nvpmodel/status") or "")
    if status is None:
        return None
    modes = _MODE.findall(read_text(root / "etc/nvpmodel.conf") or "")
    return PowerMode(int(status[1]), {int(number): name for number, name in modes})
