"""Builder, IBuilderConfig and IOptimizationProfile: from a network to a plan."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.fakes.tensorrt import plan
from tests.fakes.tensorrt.classes import Behaviour, behaviour
from tests.fakes.tensorrt.network import Layer, Network
from tests.fakes.tensorrt.progress import Cancelled, report
from tests.fakes.tensorrt.timing_cache import TimingCache
from tests.fakes.tensorrt.values import HostMemory

USAGE = "Error Code 4: API Usage Error"


@behaviour("IOptimizationProfile")
class Profile(Behaviour):
    """[ran] Setters check nothing; `add_optimization_profile` and the build do."""

    extra_memory_target = 1.0

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder.library)
        self._builder = builder
        self.shapes: dict[str, list[Any]] = {}
        self.values: dict[str, list[Any]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
        self.shapes[input] = [min, opt, max]

    def set_shape_input(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
        self.values[input] = [min, opt, max]

    def get_shape(self, input: str) -> list[Any]:  # noqa: A002
        if input not in self.shapes:
            self._builder.error(
                f"IOptimizationProfile::getDimensions: {USAGE} (Cannot get dimensions for input: "
                f"{input}. Input is not present in this OptimizationProfile)"
            )
        return self.shapes.get(input, [])

    def get_shape_input(self, input: str) -> list[Any]:  # noqa: A002
        return self.values.get(input, [])

    def wrong(self) -> str:
        """The first input for which MIN <= OPT <= MAX does not hold."""
        for name, given in (*self.shapes.items(), *self.values.items()):
            low, mid, high = given
            fits = len(low) == len(mid) == len(high)
            if not fits or not all(a <= b <= c for a, b, c in zip(low, mid, high, strict=True)):
                return name
        return ""


@behaviour("IBuilderConfig")
class Config(Behaviour):
    """Settings of a build. [ran] defaults: see `_defaults`."""

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder.library)
        self._builder = builder
        self.reset()

    def reset(self) -> None:
        self._flags = {"TF32"}  # [ran] On by default.
        self._limits: dict[str, int] = {}
        self._layers: dict[str, str] = {}
        self._targets: list[str] = []
        self._preview: dict[str, bool] = {}
        self.profiles: list[Profile] = []
        self.cache: TimingCache | None = None
        self.builder_optimization_level, self.avg_timing_iterations = 3, 1
        self.max_aux_streams = self.max_num_tactics = self.l2_limit_for_tiling = -1
        self.DLA_core = -1
        self.profile_stream, self.tactic_sources = 0, 24
        self.default_device_type, self.engine_capability = "GPU", "STANDARD"
        self.hardware_compatibility_level, self.runtime_platform = "NONE", "SAME_AS_BUILD"
        self.profiling_verbosity, self.tiling_optimization_level = "LAYER_NAMES_ONLY", "NONE"
        self.plugins_to_serialize: list[str] = []
        self.progress_monitor: Any = None

    # Flags, by name: their numbers move from version to version.

    def set_flag(self, flag: str) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: str) -> bool:
        return flag in self._flags

    @property
    def flags(self) -> int:
        members = self.library.types.enums["BuilderFlag"].__members__
        return sum(1 << int(members[name]) for name in self._flags)

    @flags.setter
    def flags(self, bits: int) -> None:
        members = self.library.types.enums["BuilderFlag"].__members__
        self._flags = {name for name, member in members.items() if bits >> int(member) & 1}

    def set_preview_feature(self, feature: str, enable: bool) -> None:
        self._preview[feature] = enable

    def get_preview_feature(self, feature: str) -> bool:
        return self._preview.get(feature, False)

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self.tactic_sources = tactic_sources
        return True

    def get_tactic_sources(self) -> int:
        return self.tactic_sources

    # Memory.

    def set_memory_pool_limit(self, pool: str, pool_size: int) -> None:
        self._limits[pool] = pool_size

    def get_memory_pool_limit(self, pool: str) -> int:
        return self._limits.get(pool, 64 << 30 if pool == "WORKSPACE" else 0)

    # Profiles.

    def add_optimization_profile(self, profile: Profile) -> int:
        """The profile's index; [ran] -1, and why in the log, if it contradicts itself."""
        name = profile.wrong()
        if name:
            self._builder.error(
                f"IOptimizationProfile::isValid: {USAGE} (Invalid optimization profiles for input "
                f"tensors {name}, please ensure that the optimization profiles satisfy "
                "MIN<=OPT<=MAX.)"
            )
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    # DLA.

    def can_run_on_DLA(self, layer: Layer) -> bool:  # noqa: N802
        kinds = ("CONVOLUTION", "ACTIVATION", "POOLING", "ELEMENTWISE", "SCALE")
        return self.library.options.dla_cores > 0 and layer.type in kinds

    def set_device_type(self, layer: Layer, device_type: str) -> None:
        self._layers[layer.name] = device_type

    def get_device_type(self, layer: Layer) -> str:
        return self._layers.get(layer.name, self.default_device_type)

    def is_device_type_set(self, layer: Layer) -> bool:
        return layer.name in self._layers

    def reset_device_type(self, layer: Layer) -> None:
        self._layers.pop(layer.name, None)

    # TensorRT-RTX's targets.

    @property
    def num_compute_capabilities(self) -> int:
        return len(self._targets)

    @num_compute_capabilities.setter
    def num_compute_capabilities(self, count: int) -> None:
        self._targets = (self._targets + [""] * count)[:count]

    def set_compute_capability(self, compute_capability: str, index: int) -> bool:
        if not 0 <= index < len(self._targets) or compute_capability == "NONE":
            return False
        self._targets[index] = compute_capability.lower()
        return True

    def get_compute_capability(self, index: int) -> str:
        return self._targets[index].upper() or "NONE"

    # The timing cache.

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None:
        try:
            return TimingCache(self.library, serialized_timing_cache)
        except (ValueError, KeyError):
            self._builder.error(f"IBuilderConfig::createTimingCache: {USAGE} (cannot be read)")
            return None

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        cache.warn()
        if not ignore_mismatch and not cache.fits(TimingCache(self.library, b"")):
            self._builder.error(
                f"IBuilderConfig::setTimingCache: {USAGE} (The timing cache was made by TensorRT "
                f"{cache.version} on {cache.device})"
            )
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        if self.library.rtx and self.cache is None:
            TimingCache(self.library, b"").warn()
        elif self.cache is not None:
            self.cache.warn()
        return self.cache


@behaviour("Builder")
class Builder(Behaviour):
    """Makes networks, settings and plans."""

    error_recorder = None
    max_DLA_batch_size = 4096  # noqa: N815 -- TensorRT's name
    max_threads = 1
    gpu_allocator = None
    platform_has_fast_fp16 = platform_has_fast_int8 = platform_has_tf32 = True

    def __init__(self, library: Any, logger: Any) -> None:
        super().__init__(library)
        self.logger = logger

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802
        return int(self.library.options.dla_cores)

    def error(self, message: str) -> None:
        self.library.log(self.logger, "ERROR", message)

    def create_network(self, flags: int) -> Network:
        return Network(self, flags)

    def create_builder_config(self) -> Config:
        return Config(self)

    def create_optimization_profile(self) -> Profile:
        return Profile(self)

    def reset(self) -> None:
        """Nothing to forget."""

    def is_network_supported(self, network: Network, config: Config) -> bool:
        return self._problem(network, config) == ""

    def build_serialized_network(
        self, network: Network, config: Config, kernel_text: Any = None
    ) -> HostMemory | None:
        data = self._build(network, config)
        return None if data is None else HostMemory(self.library, data)

    def build_serialized_network_to_stream(
        self, network: Network, config: Config, writer: Any
    ) -> bool:
        """[ran] One write."""
        data = self._build(network, config)
        return data is not None and writer.write(data, len(data)) == len(data)

    def _build(self, network: Network, config: Config) -> bytes | None:
        """[ran] A build that fails returns None, and says why in the log only."""
        options, where = self.library.options, "IBuilder::buildSerializedNetwork"
        if network.parser is not None and not network.parser.alive:
            self.library.violation("Builder: the network's parser, which owns its weights, is gone")
        problem = self._problem(network, config) or options.fail_build
        if problem:
            self.error(f"{where}: {problem}")
            return None
        assert network.graph is not None
        try:
            report(config.progress_monitor, network, self._measure(config, network))
        except Cancelled:
            self.error(f"{where}: Error Code 7: BuildCanceled (Build canceled by user)")
            return None
        if options.kill_build:
            os.kill(os.getpid(), signal.SIGKILL)
        return plan.write(
            self.library.version,
            self.library.rtx,
            settings(network, config, self.library),
            network.graph.data,
        )

    def _measure(self, config: Config, network: Network) -> Any:
        """Measures a layer, or takes its time from the timing cache."""

        def measure(layer: Layer) -> None:
            if config.cache is not None and not config.get_flag("DISABLE_TIMING_CACHE"):
                config.cache.entries.setdefault(f"{network.name}/{layer.name}", 1.0)

        return measure

    def _problem(self, network: Network, config: Config) -> str:
        """Why this cannot be built; empty if it can."""
        graph = network.graph
        if graph is None or not graph.outputs:
            return f"{USAGE} (Network must have at least one output)"
        if config.DLA_core >= 0 and config.DLA_core >= self.library.options.dla_cores:
            return f"{USAGE} (DLA core {config.DLA_core} is not available)"
        if config.default_device_type == "DLA" and not config.get_flag("GPU_FALLBACK"):
            for layer in network.layers():
                if not config.can_run_on_DLA(layer):
                    return (
                        f"{USAGE} ({layer.name}: DLA does not support this layer and "
                        "GPU_FALLBACK is not set)"
                    )
        workspace = config.get_memory_pool_limit("WORKSPACE")
        if workspace < 1 << 10:  # [ran] 1 MB was too little for a small net; here it is 1 KiB.
            return "Error Code 10: Internal Error (no tactics to implement the operation)"
        open_ = [t for t in graph.inputs if -1 in t.shape or t.is_shape]
        if open_ and not config.profiles:
            return (
                f"{USAGE} (Network has dynamic or shape inputs, but no optimization profile "
                "has been defined.)"
            )
        for index, profile in enumerate(config.profiles):
            for tensor in open_:
                given = (profile.values if tensor.is_shape else profile.shapes).get(tensor.name)
                if given is None:
                    return (
                        f"{USAGE} (Dynamic input tensor {tensor.name} is missing dimensions in "
                        f"profile {index}.)"
                    )
                if not tensor.is_shape and not all(_fits(tensor.shape, s) for s in given):
                    return (
                        f"{USAGE} (Static dimension mismatch of input {tensor.name} in "
                        f"profile {index}.)"
                    )
        return ""


def _fits(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    return len(shape) == len(given) and all(
        known in (-1, size) for known, size in zip(shape, given, strict=True)
    )


def settings(network: Network, config: Config, library: Any) -> dict[str, Any]:
    """What a plan says of itself beside its graph."""
    assert network.graph is not None
    return {
        "name": network.name,
        "device": library.driver.architecture,
        "targets": sorted(name for name in config._targets if name),
        "graph_bytes": len(network.graph.data),
        "profiles": [{"shapes": p.shapes, "values": p.values} for p in config.profiles],
        "refit": config.get_flag("REFIT") or config.get_flag("REFIT_IDENTICAL"),
        "stripped": config.get_flag("STRIP_PLAN"),
        "streaming": config.get_flag("WEIGHT_STREAMING"),
        "version_compatible": config.get_flag("VERSION_COMPATIBLE"),
        "hardware": config.hardware_compatibility_level,
        "verbosity": config.profiling_verbosity,
        "strongly_typed": network.strongly_typed,
        "dla": sorted(
            layer.name
            for layer in network.layers()
            if config.get_device_type(layer) == "DLA" and config.can_run_on_DLA(layer)
        ),
        "fell_back": dict(library.options.fell_back),
        "reformats": list(library.options.reformats),
        "shape_inputs": [t.name for t in network.graph.inputs if t.is_shape],
        "data_dependent": [t.name for t in network.graph.outputs if t.data_dependent],
    }
