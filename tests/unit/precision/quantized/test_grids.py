"""A grid holds its range and zero; a layer's output gets the range that its readers imply."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.precision.graphs.graph import Graph
from edge_runtime.precision.graphs.placement import place
from edge_runtime.precision.quantized.grids import Grid, Grids, choose_grids
from tests import models
from tests.models import PICTURE

ends = st.floats(0.0, 1e6, allow_subnormal=False).map(lambda value: value if value > 1e-6 else 0.0)


@given(ends, ends)
def test_a_grid_holds_both_ends_and_zero_and_wastes_little(below: float, above: float) -> None:
    grid = Grid.of(-below, above)
    assert 0 <= grid.zero <= 255
    assert grid.low <= -below * (1 - 1e-6)
    assert grid.high >= above * (1 - 1e-6)
    if below + above > 0:
        # An end that is next to nothing still takes a whole level.
        least = (below + above) / 255
        assert least * (1 - 1e-6) <= grid.scale <= max(least * 1.01, 1e-30)


def test_what_is_never_negative_gets_all_levels_and_what_is_symmetric_the_middle() -> None:
    assert Grid.of(0.0, 6.0) == Grid(float(np.float32(6 / 255)), 0)
    assert Grid.of(-1.0, 1.0) == Grid(float(np.float32(1 / 127)), 128)
    assert Grid.of(0.0, 0.0).scale > 0


def choose(net: models.Net, output: str, amax: Mapping[str, float], *exclude: str) -> Grids:
    proto = net.proto(output, shapes={output: ["n", None, None, None]})
    graph = Graph(proto)
    placement = place(graph, exclude=exclude)
    return choose_grids(graph, placement, {name: amax.get(name, 4.0) for name in placement.tensors})


def near(grid: Grid, low: float, high: float) -> bool:
    return grid.low == pytest.approx(low, abs=0.06) and grid.high == pytest.approx(high, abs=0.06)


def layers(found: Grids) -> set[str]:
    return {entry.node for entry in found.layers}


def test_the_branch_of_a_sum_gets_what_the_other_and_the_relu_leave_of_it() -> None:
    net = models.Net()
    x = net.op("Relu", net.conv("c0", net.input("x", PICTURE), (16, 16)), name="r0")
    y = net.op("Relu", net.conv("c1", x, (16, 16)), name="r1")
    y = net.op("Add", net.conv("c2", y, (16, 16)), x, name="add")
    out = net.conv("c3", net.op("Relu", y, name="r2"), (16, 16))
    found = choose(net, out, {"r0": 2.0, "r2": 5.0})
    # c2 + r0 is cut off below 0 and above 5, and r0 is from 0 to 2.
    assert near(found.grids["c2"], -2.0, 5.0)
    assert near(found.grids["r2"], 0.0, 5.0)
    assert found.clamps == {"r0", "r1", "r2"}
    assert layers(found) == {"c0", "c1", "c2"}  # The output of c3 is the graph's: it has no range.
    assert "x" not in found.shared


def test_x_times_its_gate_needs_x_down_to_where_it_vanishes() -> None:
    net = models.Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    x = net.op("Mul", x, net.op("Sigmoid", x, name="s"), name="silu")
    x = net.conv("c2", x, (16, 16))
    x = net.op("HardSwish", x, name="swish")
    found = choose(net, net.conv("c3", x, (16, 16)), {"silu": 6.0, "swish": 6.0})
    assert near(found.grids["c1"], -8.0, 6.28)
    assert near(found.grids["c2"], -3.0, 6.28)
    assert near(found.grids["silu"], -0.28, 6.0)
    assert layers(found) == {"c1", "c2"}
    assert "silu" not in found.shared  # It is computed in FP32, and so may its other readers be.


def test_pools_and_reshapes_keep_the_grid_and_need_what_stands_behind_them() -> None:
    net = models.Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    x = net.op("MaxPool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Reshape", x, net.constant("shape", np.array([-1, 256])), name="flat")
    net.op("Gemm", x, net.weight("w", 256, 32), name="fc")
    found = choose(net, "fc", {"flat": 3.0})
    assert near(found.grids["r1"], 0.0, 3.0)
    assert found.grids["pool"] == found.grids["flat"] == found.grids["r1"]
    assert layers(found) == {"c1", "fc"}


def test_what_is_excluded_and_the_graphs_outputs_are_neither_read_nor_written_in_8_bits() -> None:
    net = models.Net()
    x = net.op("Relu", net.conv("c1", net.input("x", PICTURE), (16, 16)), name="r1")
    y = net.op("Relu", net.conv("c2", x, (16, 16)), name="r2")
    out = net.conv("c3", y, (16, 16))
    found = choose(net, out, {}, "c2")
    assert layers(found) == set()
    assert found.shared == set()
    assert "r1" not in found.grids
    assert found.clamps == set()


def test_without_a_known_range_behind_it_a_layer_stays_fp32() -> None:
    net = models.Net()
    x = net.conv("c1", net.input("x", PICTURE), (16, 16))
    x = net.conv("c2", net.op("LeakyRelu", x, name="leaky"), (16, 16))
    found = choose(net, net.op("Exp", x, name="y"), {})
    assert layers(found) == set()


def test_a_subgraph_that_reads_a_tensor_keeps_it_in_fp32() -> None:
    proto = models.branches()
    graph = Graph(proto)
    placement = place(graph)
    found = choose_grids(graph, placement, dict.fromkeys(placement.tensors, 4.0))
    assert not found.shared
