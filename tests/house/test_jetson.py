"""What jetson/ says agrees with itself, and its scripts do what they can do without a Jetson."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import board

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent.parent
JETSON = ROOT / "jetson"
MATRIX = tomllib.loads((JETSON / "matrix.toml").read_text(encoding="utf-8"))
RELEASES = {l4t: row for row in MATRIX["stack"] for l4t in row["l4t"]}
USABLE = [l4t for l4t, row in RELEASES.items() if row["runs"] != "nothing"]
DOCKERFILES = sorted(JETSON.glob("Dockerfile.*"))
SHELL_SCRIPTS = [
    *JETSON.glob("*.sh"),
    *(ROOT / "scripts" / name for name in ("bench_jetson.sh", "demo", "test", "venv")),
    ROOT / ".ci" / "run",
]


# The support matrix.


def test_the_table_of_the_readme_says_what_the_matrix_says() -> None:
    lines = (JETSON / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| JetPack |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip(" `") for cell in line.strip("|").split("|")])
    keys = ("python", "cuda", "tensorrt", "numpy", "cuda_bindings", "dla", "runs", "known_from")
    expected = [
        [
            ", ".join(dict.fromkeys(row["l4t"].values())),
            ", ".join(row["l4t"]),
            *(row.get(key, "-") for key in keys),
        ]
        for row in MATRIX["stack"]
    ]
    assert rows == expected


def test_the_matrix_knows_the_releases_that_the_doctor_knows() -> None:
    assert {l4t: row["l4t"][l4t] for l4t, row in RELEASES.items()} == board._JETPACK


def test_numpy_1_where_tensorrt_cannot_give_arrays_to_numpy_2() -> None:
    for row in MATRIX["stack"]:
        if row["runs"] != "nothing":
            old = [int(part) for part in row["tensorrt"].split(".")[:2]] < [10, 16]
            assert (row["numpy"] == "numpy<2") is old, row["name"]


def test_the_cuda_binding_is_of_the_stacks_cuda() -> None:
    for row in MATRIX["stack"]:
        assert ("cuda_bindings" in row) is (row["runs"] == "tensorrt"), row["name"]
        if "cuda_bindings" in row:
            major = row["cuda"].split(".")[0]
            assert row["cuda_bindings"].startswith(f"cuda-bindings~={major}."), row["name"]


# setup.sh.


Setup = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Lays what setup.sh looks for on a Jetson with this release."""

    def lay(l4t: str) -> Path:
        root, (major, rest) = tmp_path / "jetson", l4t.split(".", 1)
        python = RELEASES[l4t]["python"] if l4t in RELEASES else "3.10"
        for name in (
            "etc/nv_tegra_release",
            f"usr/bin/python{python}",
            f"usr/lib/python{python}/dist-packages/tensorrt/__init__.py",
            "usr/local/cuda/include/cuda.h",
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        line = f"# R{major} (release), REVISION: {rest}, GCID: 1, BOARD: generic, EABI: aarch64\n"
        (root / "etc/nv_tegra_release").write_text(line)
        return root

    return lay


def setup(*arguments: object, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "JETSON_ROOT"}
    if root is not None:
        environment["JETSON_ROOT"] = str(root)
    return subprocess.run(
        [JETSON / "setup.sh", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def commands(result: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert result.returncode == 0, result.stderr
    return [shlex.split(line[2:]) for line in result.stdout.splitlines() if line.startswith("+ ")]


@pytest.mark.parametrize("l4t", USABLE)
def test_setup_installs_what_the_matrix_says(l4t: str, tree: Callable[..., Path]) -> None:
    row, root = RELEASES[l4t], tree(l4t)
    result = setup("--dry-run", "--venv", root / "venv", root=root)
    made, _, installed, *rest = commands(result)
    assert f"JetPack {row['l4t'][l4t]}," in result.stdout
    assert made == [
        f"/usr/bin/python{row['python']}",
        *("-m", "venv", "--system-site-packages", str(root / "venv")),
    ]
    on_gpu = [row["cuda_bindings"]] if row["runs"] == "tensorrt" else []
    assert installed[-len(on_gpu) - 2 :] == [".[build,vision]", row["numpy"], *on_gpu]
    assert any("import tensorrt" in command[-1] for command in rest) is bool(on_gpu)
    assert rest[-1] == [f"{root}/venv/bin/edge-runtime", "doctor"]
    assert not (root / "venv").exists()


def test_setup_adds_pycuda_and_pytest_if_asked(tree: Callable[..., Path]) -> None:
    root = tree("36.4.3")
    asked = commands(
        setup("--dry-run", "--pycuda", "--tests", "--no-check", "--venv", root / "venv", root=root)
    )
    assert asked[2][-2:] == ["--group", "test"]
    assert asked[-1][-4:] == ["--no-binary", "pycuda", "pycuda", "numpy<2"]


def test_setup_takes_a_release_that_is_said(tree: Callable[..., Path]) -> None:
    root = tree("36.9.9")
    (root / "etc/nv_tegra_release").unlink()
    assert commands(setup("--dry-run", "--as", "36.5.0", "--venv", root / "venv", root=root))


def test_setup_runs_again_on_what_it_made(tree: Callable[..., Path]) -> None:
    root = tree("36.4.3")
    (root / "venv").mkdir()
    (root / "venv/pyvenv.cfg").write_text("include-system-site-packages = true\n")
    assert commands(setup("--dry-run", "--venv", root / "venv", root=root))


def remove(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = next(root.glob(name))
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def isolated_venv(root: Path) -> None:
    (root / "venv").mkdir()
    (root / "venv/pyvenv.cfg").write_text("include-system-site-packages = false\n")


@pytest.mark.parametrize(
    ("l4t", "change", "said"),
    [
        ("36.4.3", remove("etc/nv_tegra_release"), "this is no Jetson"),
        ("44.1.0", None, "Jetson Linux 44.1.0 is not in jetson/matrix.toml"),
        ("35.4.1", None, "JetPack 5.1.2 has Python 3.8; edge_runtime needs 3.10"),
        ("36.4.3", remove("usr/bin/python3.10"), "python3.10, which JetPack 6.2 brings"),
        ("36.4.3", remove("usr/lib/*/dist-packages/tensorrt"), "apt-get install python3-libnv"),
        ("38.2.0", remove("usr/local/cuda"), "pycuda needs /usr/local/cuda/include/cuda.h"),
        ("36.3.0", None, "pycuda has no use with JetPack 6.0"),
        ("36.4.3", isolated_venv, "does not see the system's packages"),
    ],
)
def test_setup_refuses_in_one_line(
    l4t: str, change: Callable[[Path], None] | None, said: str, tree: Callable[..., Path]
) -> None:
    root = tree(l4t)
    if change is not None:
        change(root)
    result = setup("--dry-run", "--pycuda", "--venv", root / "venv", root=root)
    assert result.returncode == 2
    assert said in result.stderr
    assert result.stderr.startswith("jetson/setup.sh: ")
    assert result.stderr.count("\n") == 1
    assert "+ " not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fast"], "there is no option --fast"),
        (["--venv"], "--venv wants a value"),
        ([], "JETSON_ROOT is for --dry-run"),
    ],
)
def test_setup_refuses_what_it_does_not_understand(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    result = setup(*arguments, root=tmp_path)
    assert (result.returncode, said in result.stderr) == (2, True)


@pytest.mark.parametrize("script", ["setup.sh", "selftest.sh"])
def test_help_names_every_option(script: str) -> None:
    said = subprocess.run(
        [JETSON / script, "--help"], capture_output=True, text=True, check=True
    ).stdout
    sources = [JETSON / script, *JETSON.glob("selftest/__main__.py")]
    options = {
        option
        for source in sources[: 1 + (script == "selftest.sh")]
        for option in re.findall(
            r"^ +(--[a-z-]+)\b.*\)|add_argument\(\"(--[a-z-]+)", source.read_text(), re.M
        )
        for option in option
        if option
    }
    assert options
    assert [option for option in options if option not in said] == []


@pytest.mark.skipif(board.read_board().l4t is not None, reason="this is a Jetson")
def test_setup_refuses_this_machine() -> None:
    result = setup()
    assert (result.returncode, "this is no Jetson" in result.stderr) == (2, True)


# Linters, where they are installed: they bring a program each, which is no part of Python.


def linter(name: str) -> str:
    found = shutil.which(
        name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_shellcheck_has_nothing_against_the_scripts() -> None:
    subprocess.run([linter("shellcheck"), *SHELL_SCRIPTS], check=True)


def test_hadolint_has_nothing_against_the_dockerfiles() -> None:
    subprocess.run([linter("hadolint"), *DOCKERFILES], check=True)


# Dockerfiles, which nothing here can build.


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_copies_what_exists_and_ends_as_no_root(path: Path) -> None:
    found = instructions(path)
    assert re.fullmatch(r"nvcr\.io/nvidia/[a-z0-9-]+:(?!latest)[\w.-]+", dict(found)["FROM"])
    copied = [name for kind, rest in found if kind == "COPY" for name in rest.split()[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert {"pyproject.toml", "README.md", "LICENSE", "edge_runtime", "jetson"} <= set(copied)
    assert "ADD" not in dict(found)
    users = [rest for kind, rest in found if kind == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    (release,) = re.findall(r"setup\.sh --as (\S+)", path.read_text().split("\nFROM")[1])
    jetpack = re.findall(r"jetpack(\d)", path.name)[0]
    assert RELEASES[release]["l4t"][release].startswith(jetpack)
    assert "Never built nor run" in path.read_text()


# selftest.sh.


def selftest(
    output: Path, *arguments: object, device: str = "cpu"
) -> tuple[int, dict[str, Any], list[str]]:
    """Exit code, report.json and the names of the files in the report."""
    given = ["--device", device, "--output", str(output), *map(str, arguments)]
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [JETSON / "selftest.sh", *given],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    (path,) = output.glob("edge-runtime-selftest-*.zip")
    assert f"Wrote {path}" in result.stdout, result.stderr
    with zipfile.ZipFile(path) as archive:
        return result.returncode, json.loads(archive.read("report.json")), archive.namelist()


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    return {step["step"]: step["status"] for step in report["steps"]}


def test_the_selftest_runs_on_the_cpu(tmp_path: Path) -> None:
    skipped = ("--skip", "tests-cpu")
    code, report, files = selftest(tmp_path, "--python", sys.executable, *skipped)
    status = outcomes(report)
    for name in ("setup", "setup-pycuda", "tests-gpu", "tests-jetson"):
        assert status.pop(name) == "not run: no GPU (--device cpu)"
    assert status.pop("tests-cpu") == "not run: left out"
    assert set(status.values()) == {"passed"}, status
    assert code == 0
    assert {f"measure-{precision}" for precision in ("int8", "fp16")} < set(status)
    for figures in report["figures"].values():
        assert figures["sqnr_db"] == "inf"
        assert figures["same_top1"] == 1
        assert figures["milliseconds"]["cpu"]["p50"] > 0
    assert {"logs/doctor.log", "facts/files.txt", "facts/nvpmodel.txt"} < set(files)


@pytest.mark.parametrize(
    ("python", "reason"),
    [("/no/such/python", "cannot start /no/such/python: No such"), ("false", "exit code 1")],
)
def test_a_step_that_fails_does_not_stop_the_selftest(
    python: str, reason: str, tmp_path: Path
) -> None:
    code, report, files = selftest(tmp_path, "--python", shutil.which(python) or python)
    assert code == 1
    status = outcomes(report)
    tried = [name for name, said in status.items() if not said.startswith("not run")]
    assert (tried[0], tried[-1]) == ("doctor", "measure-fp16")
    assert all(status[name].startswith(f"failed: {reason}") for name in tried), status
    assert {f"logs/{name}.log" for name in tried} < set(files)


def test_tests_that_are_all_skipped_have_failed(tmp_path: Path) -> None:
    if board.read_board().l4t is not None:
        pytest.skip("this is a Jetson, where tests/jetson are run")
    only = ("--python", sys.executable, "--only", "tests-jetson")
    code, report, _ = selftest(tmp_path, *only, device="tensorrt")
    assert code == 1
    status = outcomes(report)["tests-jetson"]
    assert status.startswith("failed: no test was run: this machine is no Jetson"), status


# The tests for real devices, where there is none.


@pytest.mark.parametrize(
    ("folder", "missing"),
    [
        ("tests/gpu", "libcuda.so.1|not installed"),
        ("tests/jetson", "this machine is no Jetson"),
    ],
)
def test_tests_for_devices_say_what_is_missing(folder: str, missing: str) -> None:
    if board.read_board().gpu_nodes:
        pytest.skip("this machine has a GPU: run them")
    run = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", folder]
    result = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    reasons = re.findall(r"^SKIPPED \[(\d+)\] [^:]+(?::\d+)?: (.+)$", result.stdout, re.M)
    assert reasons, result.stdout
    assert [reason for _, reason in reasons if not re.search(missing, reason)] == []
    assert re.search(r"\d+ skipped", result.stdout.splitlines()[-1])
    assert "passed" not in result.stdout.splitlines()[-1]
