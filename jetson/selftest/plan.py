"""The steps of the selftest."""

from __future__ import annotations

from pathlib import Path

from step import Step

HERE = Path(__file__).resolve().parent
PRECISIONS = {"int8": 20, "fp16": 40}
"""Precision to the least signal to noise, in dB, of the device against the CPU on the same graph:
they add up in another order, which in INT8 moves a value by a whole step now and then."""
_SHAPES = "image=1x1x16x16,8x1x16x16,32x1x16x16"
_MODEL = "tests/data/digits.onnx"
_LEAST_DB = "20"
"""Least signal to noise of a bundle against its model; the README's INT8 bundle has 32 dB."""


def steps(device: str, python: Path, folder: Path) -> list[Step]:
    """What is run, in order.

    Args:
        device: `tensorrt`, or `cpu`, where what needs a GPU or a Jetson is not run.
        python: The interpreter that has edge_runtime.
        folder: Where bundles and data go.
    """
    on_gpu = device == "tensorrt"
    why_not = "" if on_gpu else "no GPU (--device cpu)"
    setup = ["jetson/setup.sh", "--tests"]
    if on_gpu and python != HERE.parents[1] / ".venv" / "bin" / "python":
        no_setup = "--python was given"
    else:
        no_setup = why_not
    edge_runtime = [str(python), "-m", "edge_runtime"]
    plan = [
        Step("setup", setup, limit=1800, why_not=no_setup),
        Step("setup-pycuda", [*setup, "--pycuda"], limit=3600, why_not=no_setup),
        Step("doctor", [*edge_runtime, "doctor", "--json"]),
        _tests("tests-cpu", python, folder, "tests/contract"),
        _tests("tests-gpu", python, folder, "tests/gpu", why_not=why_not),
        _tests("tests-jetson", python, folder, "tests/jetson", why_not=why_not),
        Step("data", [str(python), str(HERE / "data.py"), str(folder)]),
    ]
    for precision, decibels in PRECISIONS.items():
        bundle, test = str(folder / f"{precision}.edge"), str(folder / "test.npz")
        data = str(folder / "calibration.npz")
        build = ["build", _MODEL, "-o", bundle, "--precision", precision, "--shape", _SHAPES]
        compare = ["compare", _MODEL, bundle, "--data", test, "--fail-below", _LEAST_DB, "--json"]
        measure = [str(python), str(HERE / "measure.py"), bundle, test, "--device", device]
        measure += ["--fail-below", str(decibels)]
        plan += [
            Step(
                f"build-{precision}",
                [*edge_runtime, *build, "--calibration-data", data, "--backend", device],
                limit=1800,
            ),
            Step(f"compare-{precision}", [*edge_runtime, *compare]),
            Step(f"measure-{precision}", measure),
        ]
    return plan


def _tests(name: str, python: Path, folder: Path, tests: str, why_not: str = "") -> Step:
    results = folder / "logs" / f"{name}.xml"
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    return Step(
        name, [*command, f"--junitxml={results}"], limit=3600, junit=results, why_not=why_not
    )
