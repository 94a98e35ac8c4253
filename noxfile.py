"""Every check of the project, for developers and CI alike; `./scripts/test` sets up and runs it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2026.4"
nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"

PROJECT = nox.project.load_toml("pyproject.toml")
TEST_TOOLS = nox.project.dependency_groups(PROJECT, "test")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHERS = [version for version in ("3.10", "3.11", "3.12", "3.13") if version != HERE]
BUNDLE = "EDGE_RUNTIME_TEST_BUNDLE"

JETPACKS = {
    "JetPack 6": ("3.10", ("manylinux_2_35", "manylinux_2_28", "manylinux_2_27", "manylinux2014")),
    "JetPack 7": ("3.12", ("manylinux_2_35", "manylinux_2_28", "manylinux_2_27", "manylinux2014")),
}
"""JetPack to its Python and the platforms that its glibc (2.35, 2.39) surely runs."""

# Sessions without an environment of their own run in .venv, which has everything. Next come pyenv's
# Pythons themselves, since its shims also answer for versions that they refuse to run.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
FOLDERS = [Path(sys.executable).parent, *sorted(PYENV.glob("versions/3.1[0-3].*/bin"))]
os.environ["PATH"] = os.pathsep.join([*map(str, FOLDERS), os.environ["PATH"]])


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Style, spelling and the direction of imports."""
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")
    if sys.version_info >= (3, 11):
        session.run("lint-imports")
    else:
        session.warn("import-linter needs Python 3.11: the direction of imports is not checked.")


@nox.session(python=False)
def types(session: nox.Session) -> None:
    """mypy, strict."""
    session.run("mypy")


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """All tests on this Python but those of `gpu` and `readme`, with NVIDIA's real builder."""
    session.run("pytest", "--quiet", "--ignore=tests/house/test_readme.py", *session.posargs)


@nox.session(python=False)
def gpu(session: nox.Session) -> None:
    """The GPU half on the software GPU, under the real cuda-bindings and the real pycuda."""
    # pycuda comes as source only: built once for each Python, some minutes, and kept.
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    wheels = cache / "edge-runtime" / "wheels"
    if shutil.which("g++") or list(wheels.glob(f"pycuda-*-cp{HERE.replace('.', '')}-*.whl")):
        build = ("tests/software_gpu/pycuda_wheel.py", str(wheels))
        wheel = session.run(sys.executable, *build, silent=True)
        session.run(sys.executable, "-m", "pip", "install", "--quiet", str(wheel).split()[-1])
    elif "CI" in os.environ:
        session.error("pycuda cannot be built without a C++ compiler: apt-get install g++")
    else:
        session.warn("No C++ compiler (apt-get install g++): the tests of pycuda are skipped.")
    session.run("pytest", "--quiet", "tests/software_gpu", *session.posargs)


@nox.session(python=False)
def browser(session: nox.Session) -> None:
    """The HTML pages in Chromium, where that is installed."""
    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        session.skip("Chromium is not installed: apt-get install chromium")
    session.run("pytest", "--quiet", "tests/browser", *session.posargs)


@nox.session(python=False)
def readme(session: nox.Session) -> None:
    """Runs the commands and the code of README.md."""
    session.run("pytest", "--quiet", "tests/house/test_readme.py", *session.posargs)


@nox.session(python=OTHERS)
def pythons(session: nox.Session) -> None:
    """Unit, contract and GPU tests on every other Python that is there, from the wheel."""
    session.install(".[build,vision,cuda,openvino,loadgen]", *TEST_TOOLS)
    session.run("pytest", "--quiet", "tests/unit", "tests/contract", *session.posargs)
    on_gpu = ("tests/software_gpu/cuda", "tests/software_gpu/runtime")
    session.run("pytest", "--quiet", *on_gpu, *session.posargs)


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """The same with the oldest version of every dependency that pyproject.toml allows."""
    pins = [f"{r.name}=={next(iter(r.specifier)).version}.*" for r in requirements("3.10")]
    session.install(".[build,vision,cuda,openvino,loadgen]", *pins, *TEST_TOOLS)
    session.run("pytest", "--quiet", "tests/unit", "tests/contract", *session.posargs)
    session.run("pytest", "--quiet", "tests/software_gpu/runtime", *session.posargs)


@nox.session
@nox.parametrize("extra", [nox.param("core", id="core"), nox.param("build", id="build")])
def partial(session: nox.Session, extra: str) -> None:
    """What an installation without the extras, or with one, can do; from the wheel."""
    bundle = str(Path(session.create_tmp()).resolve() / "digits.edge")
    session.run(sys.executable, "tests/partial/make_bundle.py", bundle, external=True)
    session.install("." if extra == "core" else f".[{extra}]", *TEST_TOOLS)
    session.run(
        "pytest",
        "--quiet",
        f"tests/partial/test_{extra}.py",
        *session.posargs,
        env={BUNDLE: bundle},
    )


@nox.session(python=False)
def wheels(session: nox.Session) -> None:
    """Every dependency has a wheel for the Pythons of JetPack 6 and 7 (Linux, aarch64)."""
    for jetpack, (python, platforms) in JETPACKS.items():
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            session.run(
                *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"),
                *("--ignore-installed", "--only-binary=:all:", "--target", folder),
                *("--python-version", python, "--implementation", "cp"),
                *(f"--platform={platform}_aarch64" for platform in platforms),
                *("--report", str(report)),
                *(f"{r.name}{r.specifier}" for r in requirements(python)),
                silent=True,
            )
            found = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
        versions = ", ".join(sorted(f"{entry['name']} {entry['version']}" for entry in found))
        session.log(f"{jetpack}, Python {python}: {versions}")


def requirements(python: str) -> Iterator[Requirement]:
    """What the core and the extras but `rtx` depend on, on a Jetson's Python."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    environment = {"python_version": python, "platform_machine": "aarch64"}
    wanted = [*project["dependencies"]]
    wanted += (line for name in ("build", "vision", "cuda", "openvino") for line in extras[name])
    for line in wanted:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield requirement
