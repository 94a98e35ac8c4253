"""Refitter and OnnxParserRefitter: new weights for an engine that was built for it."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import numpy_helper

from tests.fakes.tensorrt.classes import Behaviour, behaviour
from tests.fakes.tensorrt.graph import Graph, digest


@behaviour("Refitter")
class Refitter(Behaviour):
    """[doc] For engines built with REFIT or STRIP_PLAN; nothing changes before `refit_*`."""

    error_recorder = None
    max_threads = 1
    weights_validation = True

    def __init__(self, library: Any, engine: Any, logger: Any) -> None:
        super().__init__(library)
        self._engine, self.logger = engine, logger
        self._keep = engine.as_facade()
        self.model: Any = None
        if not engine.refittable:
            self.error("Refitter: Error Code 3: API Usage Error (the engine is not refittable)")
            # The bindings have no object to return.
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def error(self, message: str) -> None:
        self.library.log(self.logger, "ERROR", message)

    def get_all_weights(self) -> list[str]:
        return [weight.name for weight in self._engine.graph.model.graph.initializer]

    def get_missing_weights(self) -> list[str]:
        given = {w.name for w in self.model.graph.initializer} if self.model is not None else set()
        return sorted(self._engine.unset - given)

    def set_named_weights(self, name: str, weights: Any, location: str = "HOST") -> bool:
        if name not in self.get_all_weights():
            self.error(f"IRefitter::setNamedWeights: Error Code 3: API Usage Error ({name})")
            return False
        if self.model is None:
            self.model = onnx.load_model_from_string(self._engine.graph.data)
            kept = [w for w in self.model.graph.initializer if w.name not in self._engine.unset]
            del self.model.graph.initializer[:]
            self.model.graph.initializer.extend(kept)
        others = [w for w in self.model.graph.initializer if w.name != name]
        (old,) = [w for w in self._engine.graph.model.graph.initializer if w.name == name]
        if weights.size != numpy_helper.to_array(old).size:
            self.error(
                f"IRefitter::setNamedWeights: Error Code 3: API Usage Error (size of {name})"
            )
            return False
        del self.model.graph.initializer[:]
        array = weights.array.reshape(numpy_helper.to_array(old).shape)
        self.model.graph.initializer.extend([*others, numpy_helper.from_array(array, name)])
        return True

    def refit_cuda_engine(self) -> bool:
        missing = self.get_missing_weights()
        if missing or self.model is None:
            self.error(
                "IRefitter::refitCudaEngine: Error Code 4: API Usage Error (missing weights: "
                f"{', '.join(missing)})"
            )
            return False
        data = self.model.SerializeToString()
        twin = self.library.options.graphs.get(digest(data))
        settings = self._engine.settings
        self._engine.graph = Graph(
            data,
            twin,
            shape_inputs=tuple(settings["shape_inputs"]),
            data_dependent=tuple(settings["data_dependent"]),
        )
        self._engine.unset = set()
        return True

    def refit_cuda_engine_async(self, stream_handle: int) -> bool:
        if not stream_handle:
            self.library.violation("refitCudaEngineAsync on the default stream.")
        return self.refit_cuda_engine()


@behaviour("OnnxParserRefitter")
class OnnxParserRefitter(Behaviour):
    """Hands the weights of an ONNX model to a refitter."""

    def __init__(self, library: Any, refitter: Refitter, logger: Any) -> None:
        super().__init__(library)
        self._refitter, self._logger = refitter, logger
        self._keep = refitter.as_facade()
        self._errors: list[Any] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()

    def refit_from_bytes(self, model: bytes, path: str | None = None) -> bool:
        """[doc] The model must be the one that the engine was built from, but for its weights."""
        from tests.fakes.tensorrt.network import ParserError

        try:
            proto = onnx.load_model_from_string(model)
        except Exception:  # noqa: BLE001 -- protobuf's own
            text = "Failed to parse the ONNX model."
            self._errors.append(ParserError(self.library, "MODEL_DESERIALIZE_FAILED", text))
            return False
        names = {weight.name for weight in proto.graph.initializer}
        if names != set(self._refitter.get_all_weights()):
            text = "The model's weights are not those of the engine."
            self._errors.append(ParserError(self.library, "REFIT_FAILED", text))
            self.library.log(self._logger, "ERROR", text)
            return False
        self._refitter.model = proto
        return True
