"""Adds products by channel in front of matrices whose input cannot be scaled where it is made.

What a LayerNormalization or Gelu makes often has a few channels many times stronger than the rest,
and is read by a residual Add, or made by a function, that leaves it no other scale. A product with
a number for each channel, between that tensor and the matrices that read it as INT8, takes the
scale up (Xiao et al. 2022, SmoothQuant, arXiv 2211.10438). TensorRT computes it together with the
pointwise operators around it. It is added only to what no layer or pool makes: behind those, INT8
is written at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
from onnx import ModelProto, NodeProto, helper

from edge_runtime.precision.corrections.channel_rules import map_channels
from edge_runtime.precision.graphs.graph import (
    Graph,
    Names,
    attribute,
    set_initializers,
    set_nodes,
)
from edge_runtime.precision.graphs.placement import PASS_THROUGH, Placement, place
from edge_runtime.precision.ranging.calibration_cache import CalibrationCache
from edge_runtime.tensors import Array

_MATRICES = ("Gemm", "MatMul")
_WRITE_INT8 = (*_MATRICES, *PASS_THROUGH, "Conv", "ConvTranspose")


def add_multipliers(
    proto: ModelProto, placement: Placement, *, only: Collection[str] | None = None
) -> dict[str, str]:
    """Multiplies by ones, for equalization to change: the graph computes what it did.

    Args:
        proto: A prepared model, changed in place.
        placement: What of it becomes INT8; changed in place to read the products.
        only: Names of the products to add; None adds all that could be of use.

    Returns:
        The tensor that each product multiplies, by the product's name.
    """
    if only is not None and not only:
        return {}
    graph, names = Graph(proto), Names(proto)
    products: dict[str, str] = {}
    read: dict[str, str] = {}
    for tensor, readers in _fixed_inputs(graph).items():
        product = names.new(f"{tensor}.scaled")
        if only is None or product in only:
            products[product] = tensor
            read.update({node.name: product for node in readers})
    if not products:
        return {}
    nodes: list[NodeProto] = []
    values: dict[str, Array] = {}
    for node in graph.nodes:
        product = read.get(node.name, "")
        if product:
            factor = f"{product}.factor"
            if factor not in values:
                inputs = graph.initializers[node.input[1]].dims[_input_axis(node)]
                values[factor] = np.ones(inputs, dtype=np.float32)
                of, name = products[product], names.new(f"{product}.Mul")
                nodes.append(helper.make_node("Mul", [of, factor], [product], name=name))
            node.input[0] = product
        nodes.append(node)
    set_initializers(proto, values)
    set_nodes(proto, nodes)
    placement.activations[:] = [
        replace(entry, tensor=read[entry.node], range_of=read[entry.node])
        if entry.node in read
        else entry
        for entry in placement.activations
    ]
    return products


def without_unused(cache: CalibrationCache, products: Mapping[str, str]) -> CalibrationCache:
    """A calibration of the graph without those products that stayed products with ones."""
    unused = {name: of for name, of in products.items() if name not in cache.equalization}
    return replace(
        cache,
        ranges={unused.get(name, name): bounds for name, bounds in cache.ranges.items()},
        means={unused.get(name, name): means for name, means in cache.means.items()},
        peaks={name: peak for name, peak in cache.peaks.items() if name not in unused},
    )


def _fixed_inputs(graph: Graph) -> dict[str, list[NodeProto]]:
    """The tensors that keep their scale and are INT8 for matrices alone, with those matrices."""
    placement = place(graph)  # Whatever is excluded: a build of less has the same products.
    by_node = {node.name: node for node in graph.nodes}
    readers: dict[str, list[NodeProto]] = {}
    for entry in placement.activations:
        readers.setdefault(entry.tensor, []).append(by_node[entry.node])
    found = {
        tensor: nodes
        for tensor, nodes in readers.items()
        if all(node.op_type in _MATRICES for node in nodes)
        and len(graph.shape(tensor) or ()) > 1
        and not (tensor in graph.producer and graph.producer[tensor].op_type in _WRITE_INT8)
    }
    labels = map_channels(graph).labels if found else {}
    return {
        tensor: nodes
        for tensor, nodes in found.items()
        if tensor not in labels or not labels[tensor].any()
    }


def _input_axis(matrix: NodeProto) -> int:
    """The axis of its weights that is as long as its input has channels."""
    return 1 if matrix.op_type == "Gemm" and attribute(matrix, "transB", 0) else 0
