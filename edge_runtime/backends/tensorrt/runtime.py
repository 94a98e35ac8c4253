"""Loads plans with the TensorRT module that is handed in: the same code for TensorRT and RTX."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from edge_runtime.backends.base import PlanKey
from edge_runtime.backends.tensorrt.context import TensorRTContext
from edge_runtime.backends.tensorrt.interface import read_interface
from edge_runtime.backends.tensorrt.logger import Recording, ThreadErrors
from edge_runtime.backends.tensorrt.match import check_header
from edge_runtime.backends.tensorrt.resources import (
    BufferPool,
    Resources,
    SharedMemory,
    freeing,
    reasons,
)
from edge_runtime.backends.tensorrt.timing import DEPTH, TimedRun
from edge_runtime.cuda.device import Device
from edge_runtime.errors import BundleError, ConfigError, InferenceError
from edge_runtime.gpu_config import GpuConfig
from edge_runtime.tensors import DeviceFeeds, TensorSpec


class TensorRTRuntime:
    """The Runtime of every TensorRT.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx_bindings`.
        device: The GPU.
        config: How it is used.
    """

    def __init__(self, trt: Any, device: Device, config: GpuConfig | None = None) -> None:
        self._trt = trt
        self._device = device
        self._config = config or GpuConfig()

    def load(
        self,
        data: bytes | memoryview,
        *,
        key: PlanKey | None = None,
        inputs: Sequence[TensorSpec] = (),
        outputs: Sequence[TensorSpec] = (),
        graph: Callable[[], bytes] | None = None,
    ) -> TensorRTEngine:
        """Deserialises a plan whose digest the bundle vouches for: a plan is code.

        Args:
            data: The plan; it is not needed once this has returned.
            key: What it was built for, which must be this machine.
            inputs: What the bundle says of its inputs; the order is kept.
            outputs: Likewise.
            graph: Reads the graph that the plan was built from, for a plan without weights.

        Raises:
            BundleError: TensorRT refused the plan, or it is not one of the bundle's graph.
            ConfigError: The configuration asks for what the plan or the GPU does not have.
            DeviceError: The GPU or its driver failed.
        """
        if key is not None:
            check_header(data, key)
        if self._config.mapped and not self._device.info.maps_host_memory:
            raise ConfigError(
                f"mapped was asked for, but {self._device.info.name} cannot work on host memory."
            )
        traits = () if key is None else key.traits
        errors = ThreadErrors(self._trt)
        with ExitStack() as undo, self._device.current(), errors as log:
            runtime = self._trt.Runtime(errors.logger)
            if "version-compatible" in traits:  # Such a plan brings the code that runs it.
                runtime.engine_host_code_allowed = True
            if "dla" in traits:
                if self._config.dla_core >= runtime.num_DLA_cores:
                    raise ConfigError(
                        f"dla_core is {self._config.dla_core}; this machine has "
                        f"{runtime.num_DLA_cores} DLA core(s), counted from 0."
                    )
                runtime.DLA_core = self._config.dla_core
            engine = runtime.deserialize_cuda_engine(data)
            if engine is None:
                raise _refused(log, "The plan cannot be loaded")
            if "stripped" in traits:
                self._refit(engine, graph, errors.logger, log)
            if self._config.weight_budget is not None:
                _stream_weights(engine, self._config.weight_budget)
            pool = BufferPool(self._device)
            resources = Resources(
                self._trt,
                engine,
                read_interface(self._trt, engine, inputs, outputs),
                self._device,
                self._config,
                pool,
            )
            if self._config.share_memory:
                shared = SharedMemory(self._device, engine.device_memory_size_v2)
                undo.callback(shared.close)
                resources = replace(resources, shared=shared)
            undo.pop_all()
            return TensorRTEngine(runtime, resources)

    def _refit(
        self, engine: Any, graph: Callable[[], bytes] | None, logger: Any, log: Recording
    ) -> None:
        """Gives a plan that was built without weights those of its graph."""
        if graph is None:
            raise BundleError("The plan has no weights of its own, and no graph to take them from.")
        refitter = self._trt.Refitter(engine, logger)
        parser = self._trt.OnnxParserRefitter(refitter, logger)
        if not (parser.refit_from_bytes(graph()) and refitter.refit_cuda_engine()):
            raise _refused(log, "The plan cannot take the weights of the bundle's graph")


class TensorRTEngine:
    """A deserialised plan, shared by threads.

    Attributes:
        interface: All about its inputs and outputs.
    """

    on_device = True

    def __init__(self, runtime: Any, resources: Resources) -> None:
        self._runtime = runtime  # TensorRT wants it to outlive the engine.
        self._resources: Resources | None = resources
        self._device = resources.device
        self._lock = threading.Lock()
        self.interface = interface = resources.interface
        self.inputs: Sequence[TensorSpec] = tuple(tensor.spec for tensor in interface.inputs)
        self.outputs: Sequence[TensorSpec] = tuple(tensor.spec for tensor in interface.outputs)

    def create_context(self) -> TensorRTContext:
        """A new context with a stream and buffers of its own.

        Raises:
            InferenceError: The engine is closed, or TensorRT refused.
            DeviceError: There is not enough memory.
        """
        with self._lock:  # TensorRT does not say that an engine may make two at a time.
            if self._resources is None:
                raise InferenceError("This engine is closed.")
            return TensorRTContext(self._resources)

    def timed(self, feeds: DeviceFeeds, *, transfers: bool) -> TimedRun:
        """See `TimedEngine`.

        Raises:
            FeedError: The feeds do not fit the plan's optimization profiles.
            InferenceError: The engine is closed, or TensorRT refused.
            DeviceError: The GPU or its driver failed.
        """
        contexts = ExitStack()
        try:
            works = []
            for _ in range(DEPTH):
                context = self.create_context()
                contexts.callback(context.close)
                works.append(context.staged(feeds))
            return TimedRun(works, transfers=transfers, release=contexts.close)
        except BaseException:
            contexts.close()
            raise

    def close(self) -> None:
        """Frees the engine, after all its contexts. Calling it again does nothing."""
        with self._lock:
            resources, self._resources = self._resources, None
        if resources is None:
            return
        with freeing(self._device):
            if resources.shared is not None:
                resources.shared.close()
            resources.pool.close()
            del resources  # The last reference to the engine, which goes before its runtime.
            self._runtime = None


def _stream_weights(engine: Any, budget: int) -> None:
    if not engine.streamable_weights_size:
        raise ConfigError(
            "A weight budget was given, but the plan was not built for weight streaming. Build it "
            "with --weight-streaming."
        )
    engine.weight_streaming_budget_v2 = budget
    if engine.weight_streaming_budget_v2 != budget:
        raise ConfigError(
            f"TensorRT does not take a weight budget of {budget} bytes; the plan has "
            f"{engine.streamable_weights_size} bytes of weights that can be streamed."
        )


def _refused(log: Recording, what: str) -> BundleError:
    return BundleError(f"{what}: {reasons(log) or 'TensorRT gave no reason'}.")
