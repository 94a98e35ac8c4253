"""Empty libraries in place of those that a TensorRT Python module links to.

The module calls a dozen C functions of TensorRT's libraries; all else is C++ virtual calls. Stubs
that export these names, and return null, let it be imported: enough to look at its classes.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

# What the system and the compiler bring.
SYSTEM = re.compile(r"(ld-linux|lib(stdc\+\+|m|gcc_s|c|rt|dl|pthread)\.so)")
OWN = re.compile(r"_?Py|__|_ITM|dl|pthread_")


def write_stubs(extension: Path, folder: Path) -> None:
    """Compiles a stub for each library that `extension` needs and the system lacks."""
    folder.mkdir(parents=True)
    dynamic = _run("readelf", "--dynamic", "--wide", str(extension))
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
    libraries = [library for library in needed if not SYSTEM.match(library)]
    wanted = _run("nm", "--dynamic", "--undefined-only", str(extension)).splitlines()
    symbols = [line.split()[-1] for line in wanted if line.split()[-2] == "U"]  # Not the weak.
    code = "".join(
        f"void *{name}(void) {{ return 0; }}\n"
        for name in symbols
        if "@" not in name and not OWN.match(name)
    )
    for index, library in enumerate(libraries):
        compile_stub = ("gcc", "-w", "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,{library}")
        # The loader looks in all libraries, so the first may have every name.
        _run(*compile_stub, "-o", str(folder / library), code="" if index else code)


def _run(*command: str, code: str | None = None) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, input=code)
    return done.stdout
