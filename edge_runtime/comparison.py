"""Compares two models on the same samples: two bundles, or a bundle and an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.backends.registry import CPU_BACKENDS, cpu_runtime
from edge_runtime.bundle import Bundle, is_bundle
from edge_runtime.choices import member
from edge_runtime.config import CpuMode
from edge_runtime.data import Source, holds_pictures, open_samples
from edge_runtime.errors import ConfigError, DataError, FeedError, InferenceError
from edge_runtime.files import StrPath
from edge_runtime.metrics import Agreement, AgreementMeter
from edge_runtime.model import read_model
from edge_runtime.progress import Progress, silent
from edge_runtime.session import Session, load
from edge_runtime.tensors import Feeds, Outputs, TensorSpec
from edge_runtime.vision.preprocess import Preprocessing


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found.

    Attributes:
        samples: How many samples both ran on.
        outputs: The figures for each output of the reference.
    """

    samples: int
    outputs: Mapping[str, Agreement]

    def to_json(self) -> dict[str, object]:
        """The figures as plain JSON values."""
        outputs = {name: agreement.to_json() for name, agreement in self.outputs.items()}
        return {"samples": self.samples, "outputs": outputs}


def compare(
    reference: StrPath,
    other: StrPath,
    data: Source,
    *,
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
    device: str = "cpu",
    cpu_mode: CpuMode | str = CpuMode.EXACT,
    progress: Progress = silent,
) -> Comparison:
    """Runs two models on the same samples and measures how far their outputs are apart.

    Args:
        reference: A bundle or an ONNX file; the figures are relative to its outputs.
        other: A bundle or an ONNX file with the same inputs and outputs.
        data: An `ImageFolder`, a path or a list of feeds.
        preprocessing: How a picture becomes the input; what a bundle declares without any.
        limit: The most samples to take, evenly spaced.
        device: What the other one runs on: `cpu` or `openvino`; the reference runs on `cpu`.
        cpu_mode: How the other one, a bundle, runs: see `load`; the reference runs in `exact`.
        progress: Told of every sample.

    Raises:
        ConfigError: The models' inputs or outputs differ, or pictures come without preprocessing.
        BackendUnavailableError: The other one cannot run on that device, or in that mode.
        DataError: A sample cannot be read or run.
    """
    with (
        open_any(reference) as first,
        open_any(other, device=device, cpu_mode=cpu_mode) as second,
    ):
        _check_alike(first, second, str(reference), str(other))
        if preprocessing is None and holds_pictures(data):
            preprocessing = declared_preprocessing(reference) or declared_preprocessing(other)
        samples = open_samples(data, first.inputs, preprocessing=preprocessing, limit=limit)
        meters = {spec.name: AgreementMeter() for spec in first.outputs}
        for done, feeds in enumerate(samples, 1):
            expected = _run(first, reference, feeds, done)
            found = _run(second, other, feeds, done)
            for name, meter in meters.items():
                try:
                    meter.add(expected[name], found[name])
                except ValueError as error:
                    raise DataError(f"Sample {done}, output {name!r}: {error}.") from error
            progress("Comparing", done, len(samples))
    return Comparison(len(samples), {name: meter.result() for name, meter in meters.items()})


def declared_preprocessing(path: StrPath) -> Preprocessing | None:
    """How a bundle's pictures become its input; None for other files or if it does not say."""
    if not is_bundle(path):
        return None
    plain = Bundle.open(path).manifest.preprocessing
    return None if plain is None else Preprocessing.from_json(plain)


def open_any(
    path: StrPath, *, device: str = "cpu", cpu_mode: CpuMode | str = CpuMode.EXACT
) -> Session:
    """Opens a bundle, or an ONNX file as it is, on a CPU.

    Raises:
        ConfigError: An ONNX file has no second graph for `cpu_mode`, or `device` is no CPU's.
        BackendUnavailableError: The device is not there, or the bundle has no graph for `cpu_mode`.
    """
    if device not in CPU_BACKENDS:
        raise ConfigError(f"device is {device!r}; it must be {' or '.join(CPU_BACKENDS)}.")
    if is_bundle(path):
        return load(path, device=device, cpu_mode=cpu_mode)
    if member(CpuMode, cpu_mode, "cpu_mode") is CpuMode.FAST:
        raise ConfigError(
            f"cpu_mode fast is for bundles, and {path} is none. Build one with: edge-runtime build "
            f"{path} --precision int8 --cpu-mode fast"
        )
    runtime = cpu_runtime(device)
    return Session(runtime.load(read_model(path).proto.SerializeToString()), backend=device)


def _run(session: Session, path: StrPath, feeds: Feeds, sample: int) -> Outputs:
    try:
        return session.run(feeds)
    except (FeedError, InferenceError) as error:
        raise DataError(f"Sample {sample} cannot run on {path}: {error}") from error


def _check_alike(first: Session, second: Session, reference: str, other: str) -> None:
    for kind in ("inputs", "outputs"):
        ours, theirs = getattr(first, kind), getattr(second, kind)
        if [(s.name, s.dtype) for s in ours] != [(s.name, s.dtype) for s in theirs]:
            raise ConfigError(
                f"{reference} and {other} cannot be compared: their {kind} are "
                f"{_listed(ours)} and {_listed(theirs)}."
            )


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name}: {spec}" for spec in specs)
