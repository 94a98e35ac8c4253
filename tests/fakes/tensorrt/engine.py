"""ICudaEngine, and the settings objects that it makes."""

from __future__ import annotations

import weakref
from typing import Any

from tests.fakes.tensorrt import plan as plans
from tests.fakes.tensorrt.classes import Behaviour, behaviour
from tests.fakes.tensorrt.context import Context
from tests.fakes.tensorrt.graph import SIZES, Graph, Tensor, digest
from tests.fakes.tensorrt.inspector import Inspector
from tests.fakes.tensorrt.values import HostMemory

SCRATCH = 4096  # Bytes of activation memory that every engine wants.


@behaviour("IRuntimeConfig")
class RuntimeConfig(Behaviour):
    """How a context is made (10.11 and newer)."""

    cuda_graph_strategy = "DISABLED"
    dynamic_shapes_kernel_specialization_strategy = "LAZY"

    def __init__(self, library: Any) -> None:
        super().__init__(library)
        self._strategy = "STATIC"

    def get_execution_context_allocation_strategy(self) -> str:
        return self._strategy

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self._strategy = strategy


@behaviour("ISerializationConfig")
class SerializationConfig(Behaviour):
    def __init__(self, library: Any) -> None:
        super().__init__(library)
        self._flags: set[str] = set()

    def set_flag(self, flag: str) -> bool:
        self._flags.add(flag)
        return True

    def clear_flag(self, flag: str) -> bool:
        self._flags.discard(flag)
        return True

    def get_flag(self, flag: str) -> bool:
        return flag in self._flags


@behaviour("ICudaEngine")
class Engine(Behaviour):
    """A loaded plan.

    Attributes:
        graph: What it computes.
        settings: What the plan says of itself.
        unset: Weights that a stripped plan still lacks; it cannot run before they are set.
    """

    error_recorder = None
    has_implicit_batch_dimension = False
    num_aux_streams = 0
    engine_capability = "STANDARD"
    tactic_sources = 24

    def __init__(self, runtime: Any, found: plans.Plan) -> None:
        super().__init__(runtime.library)
        self.runtime = runtime.as_facade()  # keep_alive: the runtime lives as long.
        self.logger, self.settings, self._data = runtime.logger, found.settings, found
        options = self.library.options
        self.graph = Graph(
            found.graph,
            options.graphs.get(digest(found.graph)),
            shape_inputs=tuple(found.settings["shape_inputs"]),
            data_dependent=tuple(found.settings["data_dependent"]),
            host_outputs=options.host_outputs,
        )
        self.tensors = {tensor.name: tensor for tensor in self.graph.tensors}
        weights = [w.name for w in self.graph.model.graph.initializer]
        self.unset = set(weights) if found.settings["stripped"] else set()
        self.memory_bytes = max(self.graph.weight_bytes, 256)
        self._memory = 0
        self._budget = -1
        self._contexts: weakref.WeakSet[Context] = weakref.WeakSet()

    def load(self) -> bool:
        """Puts the weights into device memory; whether there was enough."""
        self._memory = self.library.driver.allocate(self.memory_bytes)
        return self._memory != 0

    def destroyed(self) -> None:
        if self._memory:
            self.library.driver.free(self._memory)
            self._memory = 0

    def error(self, message: str) -> None:
        self.library.log(self.logger, "ERROR", message)

    # What it is.

    @property
    def name(self) -> str:
        return str(self.settings["name"])

    @property
    def num_layers(self) -> int:
        return len(self.graph.model.graph.node)

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        """[doc] At least 1: there is one even where nothing is dynamic."""
        return max(len(self.settings["profiles"]), 1)

    @property
    def hardware_compatibility_level(self) -> str:
        return str(self.settings["hardware"])

    @property
    def profiling_verbosity(self) -> str:
        return str(self.settings["verbosity"])

    @property
    def refittable(self) -> bool:
        return bool(self.settings["refit"] or self.settings["stripped"])

    # Tensors.

    def _tensor(self, name: str, call: str) -> Tensor | None:
        tensor = self.tensors.get(name)
        if tensor is None:
            self.error(
                f"ICudaEngine::{call}: Error Code 3: API Usage Error (Given invalid tensor name: "
                f"{name}. Get valid tensor names with getIOTensorName())"
            )
        return tensor

    def get_tensor_name(self, index: int) -> str | None:
        names = list(self.tensors)
        return names[index] if 0 <= index < len(names) else None

    def __getitem__(self, arg0: int) -> str:
        if not 0 <= arg0 < len(self.tensors):
            raise IndexError("Out of bounds")
        return list(self.tensors)[arg0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        tensor = self._tensor(name, "getTensorShape")
        return tensor.shape if tensor else (-1,)

    def get_tensor_dtype(self, name: str) -> str:
        tensor = self._tensor(name, "getTensorDataType")
        return tensor.dtype if tensor else "FLOAT"

    def get_tensor_mode(self, name: str) -> str:
        tensor = self.tensors.get(name)
        return "NONE" if tensor is None else "INPUT" if tensor.is_input else "OUTPUT"

    def get_tensor_location(self, name: str) -> str:
        """[doc] Values that are a shape are read from, and written to, the host's memory."""
        tensor = self._tensor(name, "getTensorLocation")
        return "HOST" if tensor and tensor.is_shape else "DEVICE"

    def is_shape_inference_io(self, name: str) -> bool:
        tensor = self._tensor(name, "isShapeInferenceIO")
        return bool(tensor and tensor.is_shape)

    def get_tensor_format(self, name: str, profile_index: int = 0) -> str:
        return "LINEAR"

    def get_tensor_format_desc(self, name: str, profile_index: int = 0) -> str:
        tensor = self._tensor(name, "getTensorFormatDesc")
        return f"Row major linear {tensor.dtype} format (kLINEAR)" if tensor else ""

    def get_tensor_bytes_per_component(self, name: str, profile_index: int = 0) -> int:
        """[doc] -1 where the tensor is not vectorised."""
        tensor = self._tensor(name, "getTensorBytesPerComponent")
        return SIZES[tensor.dtype] if tensor else -1

    def get_tensor_components_per_element(self, name: str, profile_index: int = 0) -> int:
        return -1

    def get_tensor_vectorized_dim(self, name: str, profile_index: int = 0) -> int:
        return -1

    # Profiles.

    def ranges(self, name: str, index: int) -> list[tuple[int, ...]]:
        """Smallest, usual and largest shape of an input in a profile."""
        profiles, shape = self.settings["profiles"], self.tensors[name].shape
        if profiles and name in profiles[index]["shapes"]:
            return [tuple(given) for given in profiles[index]["shapes"][name]]
        return [shape] * 3

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        tensor = self._tensor(name, "getProfileShape")
        if tensor is None or not tensor.is_input or profile_index >= self.num_optimization_profiles:
            return []
        return self.ranges(name, profile_index)

    def get_tensor_profile_values(self, profile_index: int, name: str) -> list[Any]:
        """[ran] Its first parameter is the profile, whatever the signature calls it."""
        profiles = self.settings["profiles"]
        if not 0 <= profile_index < len(profiles):
            return []
        return profiles[profile_index]["values"].get(name, [])

    # Memory.

    @property
    def device_memory_size(self) -> int:
        return SCRATCH

    device_memory_size_v2 = device_memory_size

    def get_device_memory_size_for_profile(self, profile_index: int) -> int:
        return SCRATCH

    get_device_memory_size_for_profile_v2 = get_device_memory_size_for_profile

    # Weight streaming [doc]: budgets are bytes of weights that stay on the device; setting one
    # while a context exists is refused.

    @property
    def streamable_weights_size(self) -> int:
        return self.graph.weight_bytes if self.settings["streaming"] else 0

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self.streamable_weights_size if self._budget < 0 else self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, budget: int) -> None:
        """[doc] The bindings raise RuntimeError where the engine refuses."""
        if not self.settings["streaming"] or budget < 0 or self.contexts:
            self.error(
                "ICudaEngine::setWeightStreamingBudgetV2: Error Code 3: API Usage Error (the plan "
                "cannot stream, the budget is negative, or a context exists)"
            )
            raise RuntimeError("Failed to set weight streaming budget.")
        self._budget = budget

    @property
    def weight_streaming_scratch_memory_size(self) -> int:
        return 0

    def get_weight_streaming_automatic_budget(self) -> int:
        return self.streamable_weights_size // 2

    # What it makes.

    @property
    def contexts(self) -> int:
        """How many contexts are alive."""
        return sum(context.alive for context in self._contexts)

    def create_execution_context(self, how: Any = "STATIC") -> Context | None:
        strategy = how if isinstance(how, str) else how._strategy if how else "STATIC"
        where = "ICudaEngine::createExecutionContext"
        if self.library.options.fail_context:
            self.error(f"{where}: {self.library.options.fail_context}")
            return None
        if self.unset:
            self.error(
                f"{where}: Error Code 3: API Usage Error (the plan was stripped of its "
                f"weights and not refitted: {', '.join(sorted(self.unset))})"
            )
            return None
        context = Context(self, strategy)
        if not context.load():
            self.error(f"{where}: Error Code 2: OutOfMemory (Requested size was {SCRATCH} bytes.)")
            return None
        with self.library.lock:
            self._contexts.add(context)
        return context

    def create_execution_context_without_device_memory(self) -> Context | None:
        return self.create_execution_context("USER_MANAGED")

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(self.library)

    def create_serialization_config(self) -> SerializationConfig:
        return SerializationConfig(self.library)

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self)

    def serialize(self) -> HostMemory:
        data = plans.write(self.library.version, self.library.rtx, self.settings, self._data.graph)
        return HostMemory(self.library, data)

    def serialize_with_config(self, arg0: SerializationConfig) -> HostMemory:
        return self.serialize()
