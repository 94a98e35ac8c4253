"""Runtime: from a plan to an engine, or a line in the log and None."""

from __future__ import annotations

from typing import Any

from tests.fakes.tensorrt import plan
from tests.fakes.tensorrt.classes import Behaviour, behaviour
from tests.fakes.tensorrt.engine import Engine


@behaviour("Runtime")
class Runtime(Behaviour):
    """Deserialises plans."""

    error_recorder = None
    gpu_allocator = None
    max_threads = 1
    temporary_directory = ""
    tempfile_control_flags = 3
    engine_host_code_allowed = False
    engine_header_size = plan.HEADER
    defer_weights_loading = False
    dla_workspace_allocation_strategy = "STATIC"

    def __init__(self, library: Any, logger: Any) -> None:
        super().__init__(library)
        self.logger = logger
        self._dla_core = -1

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802
        return int(self.library.options.dla_cores)

    @property
    def DLA_core(self) -> int:  # noqa: N802
        return self._dla_core

    @DLA_core.setter
    def DLA_core(self, core: int) -> None:  # noqa: N802
        """[doc] Values below the number of cores; others are refused."""
        if 0 <= core < self.num_DLA_cores:
            self._dla_core = core
        else:
            self.error(f"IRuntime::setDLACore: Error Code 3: API Usage Error (DLA core {core})")

    def error(self, message: str) -> None:
        self.library.log(self.logger, "ERROR", message)

    def deserialize_cuda_engine(self, given: Any) -> Engine | None:
        """[ran] What cannot be loaded is None, and the reason a line in the log."""
        data = given if isinstance(given, bytes) else self._read(given)
        where, options = "IRuntime::deserializeCudaEngine", self.library.options
        try:
            found = plan.read(data, self.library.version, self.library.rtx)
        except ValueError as error:
            self.error(f"{where}: {error}")
            return None
        problem = options.fail_deserialize or self._problem(found.settings)
        if problem:
            self.error(f"{where}: {problem}")
            return None
        engine = Engine(self, found)
        if not engine.load():
            self.error(
                f"{where}: Error Code 2: OutOfMemory (Requested size was "
                f"{engine.memory_bytes} bytes.)"
            )
            return None
        return engine

    def _read(self, reader: Any) -> bytes:
        """The bytes of a V1 stream reader; V2 reads into device memory too."""
        if "IStreamReaderV2" in [cls.__name__ for cls in type(reader).__mro__]:
            raise NotImplementedError("The fake TensorRT reads no IStreamReaderV2.")
        parts = []
        while part := reader.read(1 << 20):
            parts.append(bytes(part))
        return b"".join(parts)

    def _problem(self, settings: dict[str, Any]) -> str:
        """[doc] Plans are for the GPU model they were built on unless made compatible."""
        here = self.library.driver.architecture
        if settings["version_compatible"] and not self.engine_host_code_allowed:
            # [doc] Such a plan holds host code, which is not allowed by default.
            return "Error Code 3: API Usage Error (the plan holds host code, which is not allowed)"
        if self.library.rtx:
            fits = here in (settings["targets"] or plan.ARCHITECTURES[1:])
        else:
            built = settings["device"]
            newer = int(here[2:]) >= int(built[2:]) >= 80
            fits = built == here or (settings["hardware"] == "AMPERE_PLUS" and newer)
        if fits:
            return ""
        wanted, found = (f"{name[2:-1]}.{name[-1]}" for name in (here, settings["device"]))
        return (
            "Error Code 6: API Usage Error (The engine plan file is generated on an incompatible "
            f"device, expecting compute {wanted} got compute {found}, please rebuild.)"
        )

    def get_engine_validity(self, buffer: bytes) -> tuple[Any, int]:
        """TensorRT-RTX: whether a plan fits; the second number says why not."""
        enum = self.library.types.enums["EngineValidity"].__members__
        reasons = self.library.types.enums["EngineInvalidityDiagnostics"].__members__
        try:
            found = plan.read(buffer, self.library.version, self.library.rtx)
        except ValueError:
            return enum["INVALID"], int(reasons["MALFORMED_ENGINE"])
        return enum["INVALID" if self._problem(found.settings) else "VALID"], 0
