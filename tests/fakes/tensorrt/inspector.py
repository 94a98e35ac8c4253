"""EngineInspector: the layers of an engine as JSON, in the shape that TensorRT 10 gives.

[doc] Built with ProfilingVerbosity.DETAILED a layer is an object, with LAYER_NAMES_ONLY its name,
with NONE there is nothing.
"""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.tensorrt.classes import Behaviour, behaviour
from tests.fakes.tensorrt.graph import TYPES

WORDS = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "BF16",
    "INT8": "Int8",
    "INT32": "Int32",
    "INT64": "Int64",
    "BOOL": "Bool",
    "UINT8": "UInt8",
    "FP8": "FP8",
    "INT4": "INT4",
}


@behaviour("EngineInspector")
class Inspector(Behaviour):
    execution_context = None
    error_recorder = None

    def __init__(self, engine: Any) -> None:
        super().__init__(engine.library)
        self._engine = engine.as_facade()  # keep_alive.

    def get_engine_information(self, format: str) -> str:  # noqa: A002
        engine = self._engine._impl
        content = {"Layers": layers(engine), "Bindings": list(engine.tensors)}
        if format == "ONELINE":
            return "\n".join(str(layer) for layer in content["Layers"])
        return json.dumps(content)

    def get_layer_information(self, layer_index: int, format: str) -> str:  # noqa: A002
        found = layers(self._engine._impl)[layer_index]
        return str(found) if format == "ONELINE" else json.dumps(found)


def layers(engine: Any) -> list[Any]:
    """The engine's layers: one for each node, Q/DQ fused away, and the injected reformats."""
    verbosity = engine.settings["verbosity"]
    if verbosity == "NONE":
        return []
    found = _detailed(engine)
    return found if verbosity == "DETAILED" else [layer["Name"] for layer in found]


def _detailed(engine: Any) -> list[dict[str, Any]]:
    graph, settings = engine.graph.model.graph, engine.settings
    weights = {weight.name: weight for weight in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    types = engine.graph.types

    def kind(name: str) -> str:
        """The type that a layer reads: behind a DequantizeLinear, the quantized one."""
        maker = makers.get(name)
        if maker is not None and maker.op_type == "DequantizeLinear":
            name = maker.input[0]
            if name in weights:
                return WORDS.get(TYPES.get(weights[name].data_type, "INT8"), "Int8")
        return WORDS.get(types.get(name, "FLOAT"), "FP32")

    def tensor(name: str, word: str) -> dict[str, Any]:
        shape = engine.tensors[name].shape if name in engine.tensors else (-1,)
        return {
            "Name": name,
            "Location": "Device",
            "Dimensions": list(shape),
            "Format/Datatype": f"Row major linear {word} format",
        }

    found = []
    for node in graph.node:
        if node.op_type in ("Constant", "QuantizeLinear", "DequantizeLinear"):
            continue
        inputs = [name for name in node.input if name and name not in weights]
        fell = settings["fell_back"].get(node.name)
        if node.name in settings["reformats"]:
            found.append(
                {
                    "Name": f"Reformatting CopyNode for Input Tensor 0 to {node.name}",
                    "LayerType": "Reformat",
                    "Inputs": [tensor(name, kind(name)) for name in inputs[:1]],
                    "Outputs": [tensor(name, fell or kind(name)) for name in inputs[:1]],
                    "TacticName": "",
                    "StreamId": 0,
                    "Metadata": "",
                }
            )
        found.append(
            {
                "Name": node.name or node.output[0],
                "LayerType": "DLA" if node.name in settings["dla"] else _type(node.op_type),
                "Inputs": [tensor(name, fell or kind(name)) for name in inputs],
                "Outputs": [
                    tensor(name, fell or WORDS.get(types.get(name, "FLOAT"), "FP32"))
                    for name in node.output
                ],
                "TacticName": f"fake_{node.op_type.lower()}",
                "StreamId": 0,
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
        )
    return found


def _type(op: str) -> str:
    names = {
        "Conv": "CaskConvolution",
        "Gemm": "gemm",
        "MatMul": "gemm",
        "MaxPool": "CaskPooling",
        "Reshape": "NoOp",
        "Softmax": "SoftMax",
        "Cast": "Cast",
    }
    return names.get(op, "PointWiseV2")
