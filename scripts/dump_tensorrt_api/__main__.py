"""Makes tests/tensorrt_api again, from NVIDIA's public wheels, on any Linux x86-64 with gcc.

    python scripts/dump_tensorrt_api                  all versions
    python scripts/dump_tensorrt_api 10.3.0           some
    python scripts/dump_tensorrt_api --check          compares instead of writing; 1 if they differ

Neither TensorRT nor a GPU is needed: the wheels with the Python modules (1 MB each; only these are
downloaded, with pip) are imported against empty libraries. Python 3.8 to 3.12, for which all of the
versions have a wheel.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from stubs import write_stubs

TARGET = Path(__file__).resolve().parents[2] / "tests" / "tensorrt_api"
REQUIREMENTS = {
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.7.0": "tensorrt-cu12-bindings==10.7.0",
    "10.13.3.9": "tensorrt-cu13-bindings==10.13.3.9",
    "10.16.1.11": "tensorrt-cu12-bindings==10.16.1.11",
    "11.0.0.114": "tensorrt-cu12-bindings==11.0.0.114",
    "11.4.0.106": "tensorrt-cu12-bindings==11.4.0.106",
    "rtx-1.7.1.116": "tensorrt-rtx-cu12-bindings==1.7.1.116",
}


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", nargs="*", help=f"of {', '.join(REQUIREMENTS)}; none means all")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    unknown = set(arguments.version) - set(REQUIREMENTS)
    if unknown:
        parser.error(f"unknown version {', '.join(sorted(unknown))}")
    different = 0
    for version in arguments.version or REQUIREMENTS:
        with tempfile.TemporaryDirectory() as folder:
            text = dump(REQUIREMENTS[version], Path(folder))
        path = TARGET / f"{version}.json"
        same = path.exists() and path.read_text(encoding="utf-8") == text
        different += not same
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
        print(f"{version}: {'unchanged' if same else 'differs'}")
    return int(arguments.check and different > 0)


def dump(requirement: str, folder: Path) -> str:
    """The API of the wheel that `requirement` names."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", str(folder), requirement], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (extension,) = folder.glob("tensorrt*bindings/*.so")
    write_stubs(extension, folder / "stubs")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder / "stubs"),
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    program = str(Path(__file__).with_name("api.py"))
    module, target = extension.parent.name, folder / "api.json"
    # -S: without site-packages, so that no installed TensorRT is loaded instead of the stubs.
    command = [sys.executable, "-S", program, module, str(target)]
    subprocess.run(command, check=True, env=environment)
    return target.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
