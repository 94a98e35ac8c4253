"""Runs a bundle by a protocol, and records what was run, how, and in what state the machine was."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_runtime.backends import registry
from edge_runtime.backends.base import Engine
from edge_runtime.bench import advice
from edge_runtime.bench.end_to_end import first_tensor, run_end_to_end
from edge_runtime.bench.feeds import Inputs, Shape, from_samples, has_batch, made_up
from edge_runtime.bench.layers import LayerProfile, profile
from edge_runtime.bench.loops import Clock, quiet
from edge_runtime.bench.protocols import EndToEnd, MultiStream, Offline, Protocol, Scenario, Trtexec
from edge_runtime.bench.result import BenchResult, Subject
from edge_runtime.bench.scenarios import run_scenario, validity
from edge_runtime.bench.trtexec import Measured, run_trtexec
from edge_runtime.board import read_board
from edge_runtime.bundle import Bundle
from edge_runtime.choices import member
from edge_runtime.config import CpuMode
from edge_runtime.cuda.device import open_device
from edge_runtime.data import holds_pictures
from edge_runtime.errors import ConfigError
from edge_runtime.files import StrPath
from edge_runtime.gpu_config import GpuConfig
from edge_runtime.progress import Progress, silent
from edge_runtime.session import Session, load
from edge_runtime.telemetry.conditions import read_conditions
from edge_runtime.telemetry.limits import limits
from edge_runtime.telemetry.sampler import Sampler, energy_joules
from edge_runtime.tensors import Feeds
from edge_runtime.version import __version__
from edge_runtime.vision.preprocess import Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """On what a protocol runs.

    Attributes:
        protocol: How to measure; from `protocols.protocol`.
        device: As `load`'s.
        cpu_mode: As `load`'s.
        threads: As `load`'s.
        driver: Python's binding of CUDA, as `GpuConfig.driver`.
        batch: Samples in one call, where the model's first dimension is dynamic; None takes the
            plan's usual shapes, else 1, and 1 in scenarios other than offline.
        shapes: Shape of single inputs.
        data: Samples, or for end-to-end a picture or a folder of them; None makes arrays up.
        preprocessing: How a picture becomes the input; None takes what the bundle says.
        interval: Seconds between two readings of the machine's sensors; None reads none.
    """

    protocol: Protocol
    device: str = "auto"
    cpu_mode: CpuMode = CpuMode.EXACT
    threads: int = 0
    driver: str = "auto"
    batch: int | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    data: Path | None = None
    preprocessing: Preprocessing | None = None
    interval: float | None = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "cpu_mode", member(CpuMode, self.cpu_mode, "cpu_mode"))
        if isinstance(self.protocol, EndToEnd):
            if self.data is None:
                raise ConfigError("end-to-end needs data: a picture or a folder of pictures.")
            if self.batch is not None or self.shapes:
                raise ConfigError(
                    "end-to-end feeds one picture at a time, as its preprocessing says; leave out "
                    "batch and shapes."
                )
            if self.protocol.streams > 1:
                raise ConfigError("end-to-end takes one picture after the other: streams is 1.")
        if self.data is not None and self.shapes:
            raise ConfigError("Data has shapes of its own; leave out shapes, or the data.")


class Bench:
    """A bundle that is loaded and can be measured again and again. Use it in a `with` statement.

    Args:
        source: A bundle, or its path.
        config: How and on what.
        clock: The time, on a CPU.

    Raises:
        BundleError: The file is not a sound bundle.
        BackendUnavailableError: The device cannot run it here.
        ConfigError: A setting does not go with the bundle.
        DataError: The data cannot be read.
        DeviceError: The GPU failed.
    """

    def __init__(
        self, source: StrPath | Bundle, config: BenchConfig, *, clock: Clock | None = None
    ) -> None:
        self.config = config
        self._clock = clock
        self._bundle = bundle = source if isinstance(source, Bundle) else Bundle.open(source)
        protocol = config.protocol
        self._gpu = gpu = GpuConfig(
            driver=config.driver, cuda_graphs=protocol.cuda_graph, spin=protocol.spin
        )
        choice = registry.choose(bundle, config.device, gpu, config.cpu_mode)
        self.passed_over = choice.passed_over
        self._preprocessing = config.preprocessing or _declared(bundle)
        self._inputs = self._prepare()
        on_cpu = choice.plan is None
        with ExitStack() as undo:
            engine = registry.open_engine(
                bundle, choice, threads=config.threads, gpu=gpu, cpu_mode=config.cpu_mode
            )
            undo.callback(engine.close)
            self._engine: Engine = engine
            self._session: Session | None = None
            if not isinstance(protocol, Trtexec):
                self._session = Session(engine, backend=choice.backend, contexts=protocol.streams)
                undo.callback(self._session.close)
            manifest = bundle.manifest
            self.subject = Subject(
                bundle=bundle.path.name,
                bundle_digest=bundle.digest,
                model=manifest.model.name,
                model_digest=manifest.model.digest,
                precision=str(manifest.config["precision"]),
                backend=choice.backend,
                device=(read_board().cpu or "") if on_cpu else open_device(gpu.driver).info.name,
                cpu_mode=config.cpu_mode.value if on_cpu else None,
                threads=config.threads if on_cpu else None,
                shapes=self._inputs.shapes,
                batch=self._inputs.batch,
                streams=protocol.streams,
            )
            self._undo = undo.pop_all()

    @property
    def feeds(self) -> Sequence[Feeds]:
        """What is fed; for end-to-end, what becomes of the first picture."""
        return self._inputs.feeds

    def measure(self, progress: Progress = silent) -> BenchResult:
        """Runs the protocol once.

        Args:
            progress: Told when it begins and ends, and nothing while it is measured.

        Raises:
            FeedError: The inputs do not fit the model or the plan.
            InferenceError: The model cannot run on them.
            DataError: A picture cannot be read.
            DeviceError: The GPU failed.
        """
        config, protocol = self.config, self.config.protocol
        created = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = read_conditions()
        load_before = _load()
        what = f"Measuring {self.subject.bundle} by {protocol.name}"
        progress(what, 0, 1)
        sampler = None if config.interval is None else Sampler(interval=config.interval)
        with ExitStack() as around:
            if sampler is not None:
                around.enter_context(sampler)
            around.enter_context(quiet())
            measured = self.run()
        progress(what, 1, 1)
        per_query = self._inputs.batch
        notes = [*advice.warnings(protocol, measured.samples), *limits(conditions)]
        if isinstance(protocol, MultiStream):
            per_query = protocol.samples_per_query
        if isinstance(protocol, Scenario):
            judged = validity(protocol, measured, samples_per_query=per_query)
            notes = [f"INVALID: {reason}." for reason in judged.reasons] + notes
        return BenchResult(
            protocol=protocol.name,
            parameters=protocol.parameters(),
            subject=self.subject,
            samples=measured.samples,
            walltime=measured.walltime,
            samples_per_query=per_query,
            warmup=measured.warmup,
            created=created,
            version=__version__,
            warnings=tuple(notes),
            load_before=load_before,
            load_after=_load(),
            conditions=conditions.to_json(),
            telemetry={} if sampler is None else _telemetry(sampler, measured, config.interval),
        )

    def profile(self, progress: Progress = silent) -> LayerProfile:
        """Times each layer of the bundle, in a session of its own.

        Raises:
            EdgeRuntimeError: As `layers.profile`.
        """
        config = self.config
        what = f"Timing the layers of {self.subject.bundle}"
        progress(what, 0, 1)
        with load(
            self._bundle,
            device=self.subject.backend,
            threads=config.threads,
            gpu=self._gpu,
            cpu_mode=config.cpu_mode,
        ) as session:
            found = profile(session, self._bundle, self.feeds[0], cpu_mode=config.cpu_mode)
        progress(what, 1, 1)
        return found

    def close(self) -> None:
        """Frees everything. Calling it again does nothing."""
        self._undo.close()

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _prepare(self) -> Inputs:
        config, specs = self.config, self._bundle.inputs
        if isinstance(config.protocol, EndToEnd):
            assert config.data is not None
            if self._preprocessing is None:
                raise ConfigError(
                    f"{self._bundle.path} does not say how a picture becomes its input: give a "
                    "preprocessing."
                )
            tensor = first_tensor(config.data, self._preprocessing)
            name = specs[0].name
            return Inputs([{name: tensor}], 1, {name: tensor.shape})
        if config.data is not None:
            how = self._preprocessing if holds_pictures(config.data) else config.preprocessing
            return from_samples(config.data, specs, batch=config.batch, preprocessing=how)
        profiles = self._bundle.manifest.build_config.profiles
        usual = {name: shapes.opt for name, shapes in profiles[0].items()} if profiles else {}
        batch = config.batch
        if batch is None and _asks_for_single_samples(config) and has_batch(specs):
            batch = 1
        return made_up(specs, usual=usual, shapes=config.shapes, batch=batch)

    def run(self) -> Measured:
        """Measures once, warm-up included, without conditions and telemetry."""
        config, protocol, inputs = self.config, self.config.protocol, self._inputs
        if isinstance(protocol, Trtexec):
            return run_trtexec(self._engine, inputs.feeds, protocol, self._clock)
        assert self._session is not None
        if isinstance(protocol, EndToEnd):
            assert config.data is not None
            assert self._preprocessing is not None
            return run_end_to_end(
                self._session, config.data, self._preprocessing, protocol, self._clock
            )
        assert isinstance(protocol, Scenario)
        return run_scenario(self._session, inputs.feeds, protocol, self._clock, batch=inputs.batch)


def _asks_for_single_samples(config: BenchConfig) -> bool:
    """Whether the plan's usual batch is nothing to begin with: a query has one sample, or a few."""
    scenario = isinstance(config.protocol, Scenario) and not isinstance(config.protocol, Offline)
    return scenario and not config.shapes


def _declared(bundle: Bundle) -> Preprocessing | None:
    plain = bundle.manifest.preprocessing
    return None if plain is None else Preprocessing.from_json(plain)


def _load() -> tuple[float, ...] | None:
    try:
        return os.getloadavg()
    except OSError:
        return None


def _telemetry(sampler: Sampler, measured: Measured, interval: float | None) -> dict[str, Any]:
    """What was read, in seconds from the start of the first query measured on."""
    readings = sampler.readings
    joules = energy_joules(readings, measured.began, measured.began + measured.walltime)
    return {
        "interval": interval,
        "joules": joules,
        "joules_per_query": None if joules is None else joules / len(measured.samples),
        "readings": [
            replace(reading, seconds=reading.seconds - measured.began).to_json()
            for reading in readings
        ],
    }
