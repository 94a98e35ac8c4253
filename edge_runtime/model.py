"""An ONNX file, read safely: a stranger's bytes in, a checked graph and its digest out.

Nothing here trusts the file. The rules hold before ONNX Runtime or TensorRT sees a byte of it:
sizes are bounded, external data must be regular files inside the model's folder, reached through no
link, and the declared size of every tensor must be the size of its data. ONNX Runtime before 1.24
follows links and `..` out of the folder, and later releases still follow hard links.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto

from edge_runtime.errors import DataError, ModelError
from edge_runtime.external_data import MAX_BYTES, load_external_data, wanted_bytes
from edge_runtime.files import StrPath, read_file
from edge_runtime.tensors import Array, TensorSpec

MAX_NODES = 1_000_000
_OLDEST_IR = 10  # Has all element types that the operator sets do; ONNX Runtime 1.23 takes it.
_DESCRIPTIONS = ("doc_string", "metadata_props")
_LARGE = 4096  # Bytes; larger tensors stay out of the copies for the checker and inference.


@dataclass(frozen=True)
class Model:
    """A checked ONNX model, its weights inline and its descriptions stripped.

    Attributes:
        proto: The model. Whoever rewrites it works on a copy.
        digest: `sha256:<hex>` of the graph and its weights. Names and producers of the file, doc
            strings and metadata do not count; whether weights are external does not either.
        inputs: The inputs that a caller feeds, in order; initialisers are not among them.
        outputs: The outputs, in order.
        name: The file's name without its folder.
    """

    proto: ModelProto
    digest: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    name: str

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return max(
            (entry.version for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx")),
            default=0,
        )


def read_model(path: StrPath) -> Model:
    """Reads and checks an ONNX file with its external data.

    Raises:
        ModelError: The file is missing, is not ONNX, breaks a rule above or fails ONNX's checker.
    """
    path = Path(path)
    data = read_file(path, limit=MAX_BYTES, error=ModelError)
    if not data:
        raise ModelError(f"{path} is empty (0 bytes); export or copy the model again.")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(
            f"{path} is not an ONNX model, or is cut off: its {len(data)} bytes cannot be parsed. "
            "Export or copy it again."
        ) from None
    size = len(data)
    del data
    return model_from_proto(proto, name=path.name, folder=path.parent, size=size)


def model_from_proto(
    proto: ModelProto, *, name: str, folder: Path | None = None, size: int = 0
) -> Model:
    """Checks a model that is in memory already, by the same rules; `proto` is changed in place.

    Args:
        proto: The model.
        name: What messages call it.
        folder: Where external data may lie; none means there may be no external data.
        size: Bytes of the protobuf, which count towards the limit.
    """
    if not proto.ir_version or not proto.opset_import or not proto.graph.node:
        raise ModelError(
            f"{name} is not an ONNX model: it has no IR version, no operator set or no nodes."
        )
    if not proto.graph.output:
        raise ModelError(f"{name} has no outputs; there is nothing to compute.")
    for field in ("producer_name", "producer_version", "domain", "model_version"):
        proto.ClearField(field)
    _strip_descriptions(proto, name)
    _check_node_count(proto, name)
    name_nodes(proto)
    load_external_data(_tensors(proto), name, folder, size)
    for tensor in _tensors(proto):
        _check_size(tensor, name)
    weights = {tensor.name for tensor in proto.graph.initializer}
    fed = [value for value in proto.graph.input if value.name not in weights]
    inputs = tuple(_spec(value, name, "Input") for value in fed)
    # Before the checker, which would not say which one it is.
    declared = [_spec(value, name, "Output") for value in proto.graph.output]
    proto.ir_version = min(proto.ir_version, _ir_version(proto))
    light = without_large_initializers(proto)
    digest = _digest(proto, light)
    del light.graph.value_info[:]  # Other tools may have left them behind; they decide nothing.
    try:
        onnx.checker.check_model(light)
        for value in light.graph.output:
            value.ClearField("type")
        computed = infer_shapes(light).graph.output
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        reason = str(error).split("\n==> Context")[0].split("\n(op_type")[0]  # The first of many.
        reason = " ".join(reason.split())
        raise ModelError(f"{name} is not a valid ONNX model: {reason}") from error
    outputs = _outputs(computed, declared, name)
    return Model(proto=proto, digest=digest, inputs=inputs, outputs=tuple(outputs), name=name)


def read_tensor(path: StrPath) -> Array:
    """Reads a file that holds one ONNX TensorProto, such as `input_0.pb` of ONNX's test data.

    Returns:
        A new array, owned by the caller; strings are in one of Python objects.

    Raises:
        DataError: The file is missing, holds no tensor, or its data do not fit its shape and type.
    """
    path = Path(path)
    data = read_file(path, limit=MAX_BYTES, error=DataError)
    tensor = TensorProto()
    try:
        tensor.ParseFromString(data)
    except DecodeError:
        tensor.Clear()
    # A sequence's values stand where a tensor has its segment, which no tool writes.
    if tensor.HasField("segment") or tensor.data_type not in TensorProto.DataType.values()[1:]:
        raise DataError(
            f"{path} holds no tensor of a known type, or is cut off; sequences and maps are not "
            "read. Expected one TensorProto, as onnx.save_tensor writes it."
        )
    if any(size < 0 for size in tensor.dims):  # numpy would choose the size itself.
        raise DataError(f"{path}: the shape {list(tensor.dims)} of its tensor has negative sizes.")
    try:
        load_external_data([tensor], str(path), path.parent, len(data))
        if tensor.data_type != TensorProto.STRING:
            _check_size(tensor, str(path))
        # It may be a view of the message's bytes.
        return np.array(onnx.numpy_helper.to_array(tensor))
    except (ModelError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} cannot be read as a tensor (sequences and maps are not): {reason}"
        ) from error


def _outputs(
    computed: Iterable[ValueInfoProto], declared: Sequence[TensorSpec], name: str
) -> list[TensorSpec]:
    """The outputs as declared, with the sizes that inference knows better.

    Raises:
        ModelError: One is declared as something that the graph does not compute.
    """
    outputs = []
    for value, spec in zip(computed, declared, strict=True):
        shape = spec.shape
        if value.type.tensor_type.HasField("shape"):
            found = _spec(value, name, "Output")
            if found.dtype != spec.dtype or not _may_equal(found.shape, shape):
                raise ModelError(
                    f"{name}: output {spec.name!r} is declared as {spec} but computed as {found}; "
                    "the two differ. Export the model again."
                )
            shape = tuple(max(sizes) for sizes in zip(found.shape, shape, strict=True))
        outputs.append(replace(spec, shape=shape))
    return outputs


def _may_equal(a: Sequence[int], b: Sequence[int]) -> bool:
    pairs = zip(a, b, strict=False)
    return len(a) == len(b) and all(x == y or -1 in (x, y) for x, y in pairs)


def name_nodes(proto: ModelProto) -> None:
    """Gives each node of the main graph a name of its own; its output's where it has none.

    Reports speak of nodes by name, and ONNX Runtime refuses a model that has a name twice.
    """
    names = {node.name for node in proto.graph.node} | {""}
    seen = {""}
    for index, node in enumerate(proto.graph.node):
        if node.name in seen:
            name = next(filter(None, node.output), f"{node.op_type}_{index}")
            while name in names:
                name += "_"
            node.name = name
            names.add(name)
        seen.add(node.name)


def _ir_version(proto: ModelProto) -> int:
    """The IR version that suffices; runtimes refuse newer ones, and exporters write the newest."""
    needed: int = onnx.helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    return max(needed, _OLDEST_IR)


def without_large_initializers(proto: ModelProto) -> ModelProto:
    """A copy whose large initialisers are inputs instead: all that checks and inference need."""
    light = ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _copy_field(light, field.name, value)
    graph = proto.graph
    for field, value in graph.ListFields():
        if field.name != "initializer":
            _copy_field(light.graph, field.name, value)
    declared = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if not _is_large(tensor):
            light.graph.initializer.append(tensor)
        elif tensor.name not in declared:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    if light.ir_version < 4:  # Before IR 4 every initialiser must be an input too; keep it so.
        light.ir_version = 4
    return light


def infer_shapes(light: ModelProto) -> ModelProto:
    """ONNX's shape inference, which keeps what it cannot infer as it was."""
    return onnx.shape_inference.infer_shapes(light, data_prop=True)


def _copy_field(target: ModelProto | GraphProto, name: str, value: object) -> None:
    field = getattr(target, name)
    if hasattr(field, "extend"):
        field.extend(value)
    elif hasattr(field, "CopyFrom"):
        field.CopyFrom(value)
    else:
        setattr(target, name, value)


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes and those of every subgraph of If, Loop and Scan."""
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        for graph in _subgraphs(node):
            stack.extend(graph.node)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _all_nodes(proto: ModelProto) -> Iterator[NodeProto]:
    yield from _nodes(proto.graph.node)
    for function in proto.functions:
        yield from _nodes(function.node)


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    graphs: list[GraphProto] = [proto.graph]
    sparse: list[SparseTensorProto] = []
    for node in _all_nodes(proto):
        graphs += _subgraphs(node)
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse += attribute.sparse_tensors
            if attribute.HasField("sparse_tensor"):  # Asking an unset field for its parts sets it.
                sparse.append(attribute.sparse_tensor)
    for graph in graphs:
        yield from graph.initializer
        sparse += graph.sparse_initializer
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _strip_descriptions(message: Message, name: str) -> None:
    """Drops what describes, and refuses text that is not UTF-8: protobuf hands it out as bytes."""
    for field in _DESCRIPTIONS:
        if field in message.DESCRIPTOR.fields_by_name:
            message.ClearField(field)
    for entry, value in message.ListFields():
        if entry.type not in (entry.TYPE_MESSAGE, entry.TYPE_STRING):
            continue
        for item in (value,) if isinstance(value, Message | str | bytes) else value:
            if isinstance(item, Message):
                _strip_descriptions(item, name)
            elif isinstance(item, bytes):
                raise ModelError(f"{name} is damaged: the text {item[:80]!r} in it is not UTF-8.")


def _check_node_count(proto: ModelProto, name: str) -> None:
    """Counts nodes with local functions inlined: a few functions can call for billions."""
    bodies = {(f.domain, f.name, f.overload): list(_nodes(f.node)) for f in proto.functions}
    calls = {
        key: {(node.domain, node.op_type, node.overload) for node in body} & bodies.keys()
        for key, body in bodies.items()
    }
    sizes: dict[tuple[str, str, str], int] = {}

    def count(nodes: Iterable[NodeProto]) -> int:
        total = sum(sizes.get((node.domain, node.op_type, node.overload), 1) for node in nodes)
        if total > MAX_NODES:
            raise ModelError(f"{name} has more than {MAX_NODES} nodes, which is beyond the limit.")
        return total

    try:
        for key in TopologicalSorter(calls).static_order():
            sizes[key] = count(bodies[key])
    except CycleError:
        raise ModelError(f"{name} has local functions that call each other in a circle.") from None
    count(_nodes(proto.graph.node))


def _is_large(tensor: TensorProto) -> bool:
    """Whether a tensor is too much to copy for the checker. Its size is checked here instead."""
    return tensor.HasField("raw_data") and len(tensor.raw_data) > _LARGE


def _check_size(tensor: TensorProto, name: str) -> None:
    """ONNX's checker never sees large initialisers, and lets pass what is too long."""
    found = len(tensor.raw_data) or 4 * len(tensor.float_data)
    found = found or 8 * (len(tensor.int64_data) + len(tensor.double_data))
    wanted = wanted_bytes(tensor)
    if found and found != wanted:
        raise ModelError(
            f"{name}: tensor {tensor.name!r} has {found} bytes, but its shape "
            f"{list(tensor.dims)} and type take {wanted}."
        )


def _digest(proto: ModelProto, light: ModelProto) -> str:
    """SHA-256 of the light copy's bytes and of each large initialiser, so nothing is held twice."""
    small = {tensor.name for tensor in light.graph.initializer}
    hasher = hashlib.sha256(light.SerializeToString(deterministic=True))
    for tensor in proto.graph.initializer:
        if tensor.name not in small:
            hasher.update(f"\0{tensor.name}\0{tensor.data_type}\0{list(tensor.dims)}\0".encode())
            hasher.update(tensor.raw_data)
    return "sha256:" + hasher.hexdigest()


def _spec(value: ValueInfoProto, name: str, kind: str) -> TensorSpec:
    tensor = value.type.tensor_type
    known = tensor.elem_type in TensorProto.DataType.values()[1:]
    if not value.type.HasField("tensor_type") or not known:
        raise ModelError(f"{name}: {kind.lower()} {value.name!r} is not a tensor of a known type.")
    if not tensor.HasField("shape"):
        raise ModelError(
            f"{name}: {kind.lower()} {value.name!r} declares no shape; export the model with one "
            "(dimensions may be dynamic, but their number must be known)."
        )
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return TensorSpec(value.name, dtype_name(tensor.elem_type), shape)


def dtype_name(elem_type: int) -> str:
    """numpy's name of an ONNX element type, or ONNX's own where numpy has none."""
    if elem_type == TensorProto.STRING:
        return "object"
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type)).name
