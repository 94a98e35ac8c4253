"""INetworkDefinition, its tensors and layers, and OnnxParser, which fills it from ONNX bytes."""

from __future__ import annotations

from typing import Any

import onnx

from tests.fakes.tensorrt.classes import Behaviour, behaviour
from tests.fakes.tensorrt.graph import TYPES, Graph, digest

LAYERS = {
    "Conv": "CONVOLUTION",
    "Relu": "ACTIVATION",
    "Sigmoid": "ACTIVATION",
    "Tanh": "ACTIVATION",
    "Gemm": "MATRIX_MULTIPLY",
    "MatMul": "MATRIX_MULTIPLY",
    "MaxPool": "POOLING",
    "AveragePool": "POOLING",
    "GlobalAveragePool": "REDUCE",
    "Softmax": "SOFTMAX",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "Concat": "CONCATENATION",
    "Reshape": "SHUFFLE",
    "Flatten": "SHUFFLE",
    "Transpose": "SHUFFLE",
    "Cast": "CAST",
    "Resize": "RESIZE",
    "Slice": "SLICE",
    "Gather": "GATHER",
    "TopK": "TOPK",
    "Shape": "SHAPE",
    "NonZero": "NON_ZERO",
    "Constant": "CONSTANT",
    "ReduceMean": "REDUCE",
    "Identity": "IDENTITY",
    "ConvTranspose": "DECONVOLUTION",
    "BatchNormalization": "SCALE",
    "Expand": "SLICE",
}
NO_TENSORRT = {"Det", "StringNormalizer", "Bernoulli", "Optional", "QLinearConv", "MatMulInteger"}
NO_RTX = {"NonZero", "RoiAlign", "NonMaxSuppression"}  # [ran] RTX has no plugins for these.


@behaviour("ITensor")
class Tensor(Behaviour):
    """A tensor of a network."""

    broadcast_across_batch = False

    def __init__(self, network: Network, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        super().__init__(network.library)
        self.network, self.name, self.dtype, self.shape = network, name, dtype, shape
        self.allowed_formats = 8191
        self.location = "DEVICE"
        known = {t.name: t for t in network.graph.tensors} if network.graph else {}
        tensor = known.get(name)
        self.is_network_input = bool(tensor and tensor.is_input)
        self.is_network_output = bool(tensor and not tensor.is_input)
        self.is_shape_tensor = bool(tensor and tensor.is_shape)
        self.is_execution_tensor = not self.is_shape_tensor


@behaviour("ILayer")
class Layer(Behaviour):
    """A node of the graph."""

    def __init__(self, network: Network, node: Any) -> None:
        super().__init__(network.library)
        self.network, self.node = network, node
        self.name = node.name or f"(Unnamed Layer* {network.number()}) [{node.op_type}]"
        self.type = LAYERS.get(node.op_type, "ELEMENTWISE")
        self.metadata = f"[ONNX Layer: {node.name}]"
        self.num_inputs = len([n for n in node.input if n in network.computed()])
        self.num_outputs = len(node.output)

    def get_input(self, index: int) -> Tensor | None:
        names = [name for name in self.node.input if name in self.network.computed()]
        return self.network.tensor(names[index]) if 0 <= index < len(names) else None

    def get_output(self, index: int) -> Tensor | None:
        names = self.node.output
        return self.network.tensor(names[index]) if 0 <= index < len(names) else None

    def get_output_type(self, index: int) -> str:
        return self.network.graph.types.get(self.node.output[index], "FLOAT")


@behaviour("INetworkDefinition")
class Network(Behaviour):
    """A network; only a parser fills it here (`add_input` and the like have no behaviour)."""

    has_implicit_batch_dimension = False
    error_recorder = None

    def __init__(self, builder: Any, flags: int) -> None:
        super().__init__(builder.library)
        self._builder = builder.as_facade()  # keep_alive: the builder lives as long.
        self.flags, self.name = flags, f"Unnamed Network {next(self.library.numbers)}"
        self.graph: Graph | None = None
        self.parser: Any = None
        self._tensors: dict[str, Tensor] = {}
        self._layers: list[Layer] = []

    @property
    def builder(self) -> Any:
        return self._builder

    @property
    def strongly_typed(self) -> bool:
        """10 has a flag for it (bit 1); in 11 and RTX bit 0 is ignored: always on."""
        if self.library.rtx or self.library.version >= (11,):
            return True
        return bool(self.flags >> 1 & 1)

    def number(self) -> int:
        return len(self._layers)

    def fill(self, graph: Graph, parser: Any) -> None:
        """Takes what the parser read."""
        self.graph, self.parser = graph, parser
        self._layers = []
        for node in graph.model.graph.node:
            if node.op_type != "Constant":
                self._layers.append(Layer(self, node))

    def computed(self) -> set[str]:
        """Tensors that are no weights."""
        assert self.graph
        nodes = [n for n in self.graph.model.graph.node if n.op_type != "Constant"]
        return {t.name for t in self.graph.inputs} | {out for node in nodes for out in node.output}

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name: the same object every time."""
        assert self.graph
        if name not in self._tensors:
            known = {t.name: t for t in self.graph.tensors}
            shape = known[name].shape if name in known else (-1,)
            dtype = self.graph.types.get(name, "FLOAT")
            self._tensors[name] = Tensor(self, name, dtype, shape)
        return self._tensors[name]

    def layers(self) -> list[Layer]:
        return self._layers

    def get_flag(self, flag: str) -> bool:
        bit = int(self.library.types.enums["NetworkDefinitionCreationFlag"].__members__[flag])
        return bool(self.flags >> bit & 1) or (flag == "STRONGLY_TYPED" and self.strongly_typed)

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def num_inputs(self) -> int:
        return len(self.graph.inputs) if self.graph else 0

    @property
    def num_outputs(self) -> int:
        return len(self.graph.outputs) if self.graph else 0

    def get_input(self, index: int) -> Tensor | None:
        return self._of(self.graph.inputs if self.graph else (), index, "getInput")

    def get_output(self, index: int) -> Tensor | None:
        return self._of(self.graph.outputs if self.graph else (), index, "getOutput")

    def _of(self, tensors: Any, index: int, call: str) -> Tensor | None:
        """[ran] Out of range is a line in the log and None."""
        if not 0 <= index < len(tensors):
            self._builder._impl.error(
                f"INetworkDefinition::{call}: Error Code 3: API Usage Error (Parameter check "
                f"failed, condition: (0) <= (index) && (index) < {len(tensors)}.)"
            )
            return None
        return self.tensor(tensors[index].name)

    def get_layer(self, index: int) -> Layer | None:
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def __getitem__(self, arg0: int) -> Layer:
        if not 0 <= arg0 < len(self._layers):
            raise IndexError("Out of bounds")
        return self._layers[arg0]

    def __len__(self) -> int:
        return len(self._layers)


@behaviour("ParserError")
class ParserError(Behaviour):
    """[ran] Every field is a method; where a node is not to blame, its index is -1."""

    def __init__(self, library: Any, code: str, desc: str, **where: Any) -> None:
        super().__init__(library)
        self._fields = {
            "code": code,
            "desc": desc,
            "file": "ModelImporter.cpp",
            "line": 948,
            "func": "importModel",
            "node": -1,
            "node_name": "",
            "node_operator": "",
            **where,
        }

    def code(self) -> Any:
        return self._fields["code"]

    def desc(self) -> Any:
        return self._fields["desc"]

    def file(self) -> Any:
        return self._fields["file"]

    def line(self) -> Any:
        return self._fields["line"]

    def func(self) -> Any:
        return self._fields["func"]

    def node(self) -> Any:
        return self._fields["node"]

    def node_name(self) -> Any:
        return self._fields["node_name"]

    def node_operator(self) -> Any:
        return self._fields["node_operator"]

    def local_function_stack(self) -> list[str]:
        return []

    def local_function_stack_size(self) -> int:
        return 0


@behaviour("OnnxParser")
class OnnxParser(Behaviour):
    """[ran] Does not keep its network alive; parsing into a dead one crashes. Parses once."""

    def __init__(self, library: Any, network: Network, logger: Any) -> None:
        super().__init__(library)
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []
        self._parsed = False
        self.flags = 0

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError | None:
        if 0 <= index < len(self._errors):
            return self._errors[index]
        self.library.log(self._logger, "ERROR", "vector::_M_range_check")
        return None

    def clear_errors(self) -> None:
        self._errors.clear()

    def set_flag(self, flag: str) -> None:
        self.flags |= 1 << self._bit(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags &= ~(1 << self._bit(flag))

    def get_flag(self, flag: str) -> bool:
        return bool(self.flags >> self._bit(flag) & 1)

    def _bit(self, flag: str) -> int:
        return int(self.library.types.enums["OnnxParserFlag"].__members__[flag])

    def supports_operator(self, op_name: str) -> bool:
        return op_name not in NO_TENSORRT and op_name not in self.library.options.unsupported

    def parse(self, model: bytes, path: str | None = None) -> bool:
        if not self._network.alive:
            self.library.violation("OnnxParser.parse: its network is destroyed; this crashes.")
            return False
        if self._parsed:
            self.library.log(self._logger, "ERROR", "A model was previously parsed!")
            return False
        self._parsed = True
        try:
            proto = onnx.load_model_from_string(model)
        except Exception:  # noqa: BLE001 -- protobuf's own, which it does not make public
            self._refuse(
                "MODEL_DESERIALIZE_FAILED",
                "Assertion failed: model->ParseFromCodedStream(&codedInput): Failed to parse the "
                "ONNX model.",
                file="onnxProtoUtils.hpp",
                func="deserializeOnnxModel",
            )
            return False
        if not proto.graph.node and not proto.graph.output:
            return True  # [ran] An empty file, and text, parse: a network without outputs.
        self._check(proto)
        if self._errors:
            return False
        options = self.library.options
        graph = Graph(
            model,
            options.graphs.get(digest(model)),
            shape_inputs=options.shape_inputs,
            data_dependent=options.data_dependent,
        )
        self._network.fill(graph, self)
        return True

    def _check(self, proto: Any) -> None:
        for value in proto.graph.input:
            if value.type.tensor_type.elem_type not in TYPES:
                self._refuse(
                    "UNSUPPORTED_NODE",
                    "Assertion failed: convertDtype(onnxDtype.elem_type(), &trtDtype) && "
                    '"Failed to convert ONNX date type to TensorRT data type."',
                    file=value.name,
                    line=992,
                    func="importInput",  # [ran] The file is the name.
                )
        unsupported = NO_TENSORRT | set(self.library.options.unsupported)
        if self.library.rtx:
            unsupported |= NO_RTX
        for index, node in enumerate(proto.graph.node):
            where = {"node": index, "node_name": node.name, "node_operator": node.op_type}
            where["file"] = "onnxOpCheckers.cpp"
            if node.domain not in ("", "ai.onnx", "trt.plugins"):
                text = "Plugin not found, are the plugin name, version, and namespace correct?"
                self._refuse(
                    "INVALID_NODE",
                    f'creator && "{text}"',
                    **where,
                    func="checkFallbackPluginImporter",
                )
            elif node.op_type in unsupported:
                self._refuse("UNSUPPORTED_NODE", "false", **where, func=f"check{node.op_type}")

    def _refuse(self, code: str, desc: str, **where: Any) -> None:
        self._errors.append(ParserError(self.library, code, desc, **where))
        number = int(self.library.types.enums["ErrorCode"].__members__[code])
        self.library.log(self._logger, "ERROR", f"[{number}] {desc}")
