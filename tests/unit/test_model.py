"""Models that strangers wrote: every trick is refused in one line; a digest says what it should."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edge_runtime import model as module
from edge_runtime.errors import ModelError
from edge_runtime.model import read_model
from edge_runtime.tensors import TensorSpec
from tests import models
from tests.models import NETS, PICTURE, Net, refusal, save_external, write

GOOD = NETS["branches"]().SerializeToString()


@pytest.mark.parametrize("name", NETS)
def test_every_kind_of_graph_is_read(tmp_path: Path, name: str) -> None:
    proto = NETS[name]()
    model = read_model(write(tmp_path, proto))
    weights = {tensor.name for tensor in proto.graph.initializer}
    fed = [value.name for value in proto.graph.input if value.name not in weights]
    assert [spec.name for spec in model.inputs] == fed
    assert [spec.name for spec in model.outputs] == [value.name for value in proto.graph.output]


def test_a_model_says_what_goes_in_and_out(tmp_path: Path) -> None:
    model = read_model(write(tmp_path, NETS["conv_bn_relu"]()))
    assert model.inputs == (TensorSpec("x", "float32", (-1, 16, 8, 8)),)
    assert model.outputs == (TensorSpec("fc", "float32", (-1, 10)),)
    assert (model.name, model.opset) == ("net.onnx", 17)


def test_a_model_may_have_no_inputs(tmp_path: Path) -> None:
    net = Net()
    model = read_model(
        write(tmp_path, net.proto(net.op("Neg", net.constant("c", [1, 2]), name="y")))
    )
    assert model.inputs == ()
    assert model.outputs == (TensorSpec("y", "float32", (2,)),)


def test_weights_of_an_old_model_are_not_inputs(tmp_path: Path) -> None:
    proto = NETS["ir_3"]()
    assert len(proto.graph.input) == 5
    model = read_model(write(tmp_path, proto))
    assert [spec.name for spec in model.inputs] == ["x"]


def test_the_shape_of_an_output_is_inferred_where_it_is_not_said(tmp_path: Path) -> None:
    proto = NETS["residual"]()
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    for size in ("batch", "c", "h", "w"):
        proto.graph.output[0].type.tensor_type.shape.dim.add(dim_param=size)
    assert read_model(write(tmp_path, proto)).outputs[0].shape == (-1, 16, 8, 8)


# What is not a model.


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"This is not a model.\n" * 9, "not an ONNX model"),
        (b"\0" * 100, "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 42\n", "not an ONNX"),
        (GOOD[: len(GOOD) // 2], "cut off"),
        (ModelProto(ir_version=8).SerializeToString(), "no operator set or no nodes"),
    ],
)
def test_what_is_not_a_model_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in refusal(write(tmp_path, content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "missing.onnx")
    (tmp_path / "folder.onnx").mkdir()
    refusal(tmp_path / "folder.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    refusal(tmp_path / "pipe.onnx")


def test_a_graph_that_computes_nothing_is_refused(tmp_path: Path) -> None:
    proto = NETS["residual"]()
    del proto.graph.output[:]
    assert "no outputs" in refusal(write(tmp_path, proto))
    proto = NETS["residual"]()
    del proto.graph.node[:]
    assert "no nodes" in refusal(write(tmp_path, proto))


def test_a_graph_that_is_not_valid_is_refused_with_the_reason(tmp_path: Path) -> None:
    proto = NETS["residual"]()
    proto.graph.node[2].op_type = "Convolve"
    assert "Convolve" in refusal(write(tmp_path, proto))
    proto = NETS["residual"]()
    proto.graph.node[2].input[0] = "nowhere"
    assert "nowhere" in refusal(write(tmp_path, proto))


def test_an_output_that_is_not_what_the_graph_computes_is_refused(tmp_path: Path) -> None:
    proto = NETS["conv_bn_relu"]()
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert "differ" in refusal(write(tmp_path, proto))
    proto = NETS["conv_bn_relu"]()
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 11
    assert "differ" in refusal(write(tmp_path, proto))


def test_stale_shapes_inside_the_graph_do_no_harm(tmp_path: Path) -> None:
    proto = NETS["conv_bn_relu"]()
    stale = helper.make_tensor_value_info("r1", TensorProto.FLOAT, [3, 3])
    proto.graph.value_info.append(stale)
    assert read_model(write(tmp_path, proto)).outputs[0].shape == (-1, 10)


def test_inputs_and_outputs_must_be_tensors_with_a_rank(tmp_path: Path) -> None:
    for kind in ("input", "output"):
        proto = NETS["conv_bn_relu"]()
        value = getattr(proto.graph, kind)[0]
        value.type.tensor_type.ClearField("shape")
        assert f"{kind} {value.name!r} declares no shape" in refusal(write(tmp_path, proto))
    proto = NETS["conv_bn_relu"]()
    proto.graph.input[0].type.tensor_type.elem_type = 99
    assert "'x'" in refusal(write(tmp_path, proto))
    net = Net()
    net.inputs.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))
    where = net.constant("where", np.array(0))
    proto = net.proto(net.op("SequenceAt", "s", where, name="y"), shapes={"y": ["n"]})
    assert "'s' is not a tensor" in refusal(write(tmp_path, proto))


@pytest.mark.parametrize("kind", [29, 67])
def test_a_type_that_does_not_exist_is_refused_in_a_branch_too(tmp_path: Path, kind: int) -> None:
    proto = NETS["branches"]()
    inside = models.node(proto, "if").attribute[0].g
    inside.output[0].type.tensor_type.elem_type = kind
    refusal(write(tmp_path, proto))


def test_text_that_is_not_utf8_is_refused_as_damage(tmp_path: Path) -> None:
    assert GOOD.count(b"c1.w") == 2
    assert "damaged" in refusal(write(tmp_path, GOOD.replace(b"c1.w", b"c1\xffw")))


# The size of tensors.


def cut_raw(tensor: TensorProto) -> None:
    tensor.raw_data = tensor.raw_data[:-4]


def lengthen_raw(tensor: TensorProto) -> None:
    tensor.raw_data += bytes(4)


def grow_shape(tensor: TensorProto) -> None:
    tensor.dims[0] += 1


def claim_terabytes(tensor: TensorProto) -> None:
    tensor.dims[0] = 2**40


def negative_shape(tensor: TensorProto) -> None:
    tensor.dims[0] = -1


def change_type(tensor: TensorProto) -> None:
    tensor.data_type = TensorProto.DOUBLE


def unknown_type(tensor: TensorProto) -> None:
    tensor.data_type = 77


def floats_too_long(tensor: TensorProto) -> None:
    values = numpy_helper.to_array(tensor).reshape(-1).tolist()
    tensor.ClearField("raw_data")
    tensor.float_data.extend([*values, 1.0])


def floats_for_integers(tensor: TensorProto) -> None:
    floats_too_long(tensor)
    del tensor.float_data[-1]
    tensor.data_type = TensorProto.INT64


@pytest.mark.parametrize(
    "spoil",
    [
        *(cut_raw, lengthen_raw, grow_shape, claim_terabytes, negative_shape, change_type),
        *(unknown_type, floats_too_long, floats_for_integers),
    ],
)
@pytest.mark.parametrize("weight", ["c1.w", "c1.b"])  # 9216 bytes and 64.
def test_a_weight_that_is_not_as_large_as_it_says_is_refused(
    tmp_path: Path, weight: str, spoil: Callable[[TensorProto], None]
) -> None:
    proto = NETS["residual"]()
    spoil(next(tensor for tensor in proto.graph.initializer if tensor.name == weight))
    refusal(write(tmp_path, proto))


def test_a_constant_in_a_branch_that_is_too_long_is_refused(tmp_path: Path) -> None:
    proto = NETS["branches"]()
    branch = models.node(proto, "if").attribute[0].g
    branch.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "inner"))
    read_model(write(tmp_path, proto))
    branch.initializer[0].raw_data += b"more"
    assert "'inner'" in refusal(write(tmp_path, proto))


def test_floats_that_are_not_raw_are_as_good(tmp_path: Path) -> None:
    proto = NETS["residual"]()
    floats_too_long(proto.graph.initializer[0])
    del proto.graph.initializer[0].float_data[-1]
    model = read_model(write(tmp_path, proto))
    assert model.inputs == models.model(NETS["residual"]()).inputs


# Graphs that grow.


def bomb(depth: int) -> ModelProto:
    """Functions that each call the next one 10 times: 10**depth nodes in a few kilobytes."""
    net = Net()
    x = net.op("F0", net.input("x", PICTURE), name="f", domain="local")
    proto = net.proto(x, shapes={"f": list(PICTURE)})
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for level in range(depth):
        kind, domain = (f"F{level + 1}", "local") if level + 1 < depth else ("Relu", "")
        nodes = [helper.make_node(kind, [f"v{i}"], [f"v{i + 1}"], domain=domain) for i in range(10)]
        function = helper.make_function("local", f"F{level}", ["v0"], ["v10"], nodes, opsets)
        proto.functions.append(function)
    proto.opset_import.append(opsets[1])
    return proto


def test_functions_that_multiply_are_refused_before_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_NODES", 5000)  # Little enough to be survived if it fails.
    read_model(write(tmp_path, bomb(3)))
    assert "more than 5000 nodes" in refusal(write(tmp_path, bomb(4)))


def test_functions_that_call_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    proto = bomb(3)
    proto.functions[2].node[0].CopyFrom(helper.make_node("F1", ["v0"], ["v1"], domain="local"))
    assert "circle" in refusal(write(tmp_path, proto))


# The digest.


def digest(proto: ModelProto) -> str:
    return models.model(proto).digest


def test_the_digest_does_not_depend_on_where_weights_lie(tmp_path: Path) -> None:
    proto = NETS["residual"]()
    external = save_external(proto, tmp_path)
    assert read_model(external).digest == digest(proto)
    # onnx itself marks what it has loaded as inline.
    again = onnx.load(external)
    assert any(tensor.HasField("data_location") for tensor in again.graph.initializer)
    assert digest(again) == digest(proto)


def test_the_digest_does_not_depend_on_names_and_descriptions() -> None:
    proto = NETS["branches"]()
    before = digest(proto)
    proto.producer_name, proto.producer_version, proto.domain = "other", "9.9", "org.example"
    proto.model_version, proto.doc_string = 7, "A net."
    described = [
        *(proto, proto.graph.node[0], proto.graph.initializer[0], proto.graph.input[0]),
        *(proto.graph.output[0], proto.graph, models.node(proto, "if").attribute[0].g.node[0]),
    ]
    for item in described:
        item.metadata_props.add(key="by", value="somebody")
        item.doc_string = "Text."
    proto.graph.node[0].attribute[0].doc_string = "Text."
    assert digest(proto) == before
    assert models.model(proto, name="other.onnx").digest == before


@given(st.integers(0, 2303), st.integers(0, 31))
def test_the_digest_depends_on_every_bit_of_a_large_weight(index: int, bit: int) -> None:
    proto = NETS["residual"]()
    before = digest(proto)
    tensor = proto.graph.initializer[0]
    values = np.frombuffer(tensor.raw_data, np.uint32).copy()
    values[index] ^= np.uint32(1 << bit)
    tensor.raw_data = values.tobytes()
    assert digest(proto) != before


def small_weight(proto: ModelProto) -> None:
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "c1.b")
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]


def swap_weights(proto: ModelProto) -> None:
    first, second = (t for t in proto.graph.initializer if t.name in ("c0.w", "c1.w"))
    first.raw_data, second.raw_data = second.raw_data, first.raw_data


def reshape_weight(proto: ModelProto) -> None:
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "unused")
    tensor.dims[:] = [1024, 2]


def attribute(proto: ModelProto) -> None:
    models.node(proto, "c3").attribute.append(helper.make_attribute("dilations", [1, 1]))


def operator(proto: ModelProto) -> None:
    models.node(proto, "r0").op_type = "Sigmoid"


def wiring(proto: ModelProto) -> None:
    models.node(proto, "c3").input[0] = "add"


def opset(proto: ModelProto) -> None:
    proto.opset_import[0].version = 18


def input_shape(proto: ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


@pytest.mark.parametrize(
    "change",
    [
        *(small_weight, swap_weights, reshape_weight, attribute, operator, wiring, opset),
        input_shape,
    ],
)
def test_the_digest_depends_on_all_that_is_computed(change: Callable[[ModelProto], None]) -> None:
    proto = NETS["residual"]()
    unused = numpy_helper.from_array(np.ones((2, 1024), np.float32), "unused")
    proto.graph.initializer.append(unused)
    before = digest(proto)
    change(proto)
    assert digest(proto) != before


def test_the_digest_depends_on_a_weight_in_a_branch() -> None:
    def with_constant(value: float) -> str:
        proto = NETS["branches"]()
        inner = numpy_helper.from_array(np.full(2000, value, np.float32), "inner")
        models.node(proto, "if").attribute[0].g.initializer.append(inner)
        return digest(proto)

    assert with_constant(1.0) == with_constant(1.0) != with_constant(2.0)


# Whatever the bytes are.


def read_or_refuse(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), content)
        try:
            read_model(path)
        except ModelError as error:
            assert "\n" not in str(error)


@given(st.binary(max_size=200))
@example(b"\x08\x08:\x00B\x02\x10\x11")
def test_random_bytes_are_read_or_refused(content: bytes) -> None:
    read_or_refuse(content)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_model_with_one_other_byte_is_read_or_refused(index: int, change: int) -> None:
    content = bytearray(GOOD)
    content[index] ^= change
    read_or_refuse(bytes(content))


STRUCTURE = [i for i in range(len(GOOD)) if not 700 < i < len(GOOD) - 1500]


@given(st.lists(st.tuples(st.sampled_from(STRUCTURE), st.integers(1, 255)), min_size=1, max_size=3))
def test_a_model_whose_structure_is_damaged_is_read_or_refused(
    changes: list[tuple[int, int]],
) -> None:
    content = bytearray(GOOD)
    for index, change in changes:
        content[index] ^= change
    read_or_refuse(bytes(content))
