"""What is loaded when, asked of fresh interpreters: no other test hides a fault there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import edge_runtime

BLOCKED = (
    "cuda",
    "cv2",
    "onnx",
    "pycuda",
    "pydantic",
    "tensorrt",
    "tensorrt_rtx",
    "tensorrt_rtx_bindings",
    "tomli",
    "torch",
)

LOADED_BY = """
import sys
before = set(sys.modules)
{code}
names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(names - set(sys.stdlib_module_names) - {{"edge_runtime"}}))
"""

RUN_WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({blocked}))
import numpy
import edge_runtime
with edge_runtime.load({bundle!r}) as session:
    images = numpy.load({images!r})
    numpy.save({outputs!r}, session.run({{"image": images}})["logits"])
"""


def in_a_fresh_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_edge_runtime_loads_nothing_else() -> None:
    assert in_a_fresh_python(LOADED_BY.format(code="import edge_runtime")).split() == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_loads_click_and_nothing_else(arguments: list[str]) -> None:
    code = f"""
sys.argv = ["edge-runtime", *{arguments}]
from edge_runtime.cli.main import main
try:
    main()
except SystemExit as stop:
    assert not stop.code
"""
    output = in_a_fresh_python(LOADED_BY.format(code=code))
    assert output.splitlines()[-1].split() == ["click"]


def test_a_bundle_runs_where_nothing_of_the_build_half_is_installed(
    tmp_path: Path, digits: object
) -> None:
    import numpy as np

    bundle, images, outputs = (tmp_path / name for name in ("a.edge", "images.npy", "outputs.npy"))
    config = edge_runtime.BuildConfig(backend="cpu")
    edge_runtime.build(digits.model, config, output=bundle)
    np.save(images, digits.as_input(digits.images))
    in_a_fresh_python(
        RUN_WITHOUT.format(
            blocked=BLOCKED, bundle=str(bundle), images=str(images), outputs=str(outputs)
        )
    )
    assert (np.load(outputs).argmax(1) == digits.labels).mean() > 0.9
