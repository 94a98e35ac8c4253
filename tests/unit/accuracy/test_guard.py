"""The guard on nets in which known layers are bad in INT8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from edge_runtime.accuracy.guard import Job, keep_budget
from edge_runtime.config import BuildConfig, CalibrationConfig
from edge_runtime.data import open_samples
from edge_runtime.data.evaluation import Held
from edge_runtime.errors import BuildError, ConfigError
from edge_runtime.model import Model, model_from_proto
from edge_runtime.precision.calibration import calibrate_model
from edge_runtime.precision.rewritten import Rewritten
from tests import models
from tests.models import Net

PLAIN = CalibrationConfig(method="max", equalize=False, bias_correction=False)


def net(*bad: int, layers: int = 6) -> ModelProto:
    """Convolutions, of which those in `bad` read a channel that is loud and of no use.

    In FP32 it makes no difference; in INT8 it takes the levels from the others.
    """
    made = Net(seed=1)
    x = made.input("x", ("n", 16, 6, 6))
    for index in range(layers):
        x = made.op("Relu", made.conv(f"c{index}", x, (16, 16)), name=f"r{index}")
    proto = made.proto(x)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for index in bad:
        bias, kernel = weights[f"c{index - 1}.b"], weights[f"c{index}.w"]
        loud, deaf = (numpy_helper.to_array(tensor).copy() for tensor in (bias, kernel))
        loud[0], deaf[:, 0] = 300, 0
        for tensor, array in ((bias, loud), (kernel, deaf)):
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


def job(proto: ModelProto, budget: object, **settings: Any) -> Job:
    model = model_from_proto(proto, name="net")
    guard = {"max_drop": budget, "metric": settings.pop("metric", "sqnr")}
    guard["confident"] = settings.pop("confident", False)
    config = BuildConfig(precision="int8", calibration=PLAIN, guard=guard, **settings)
    data = [models.feeds(proto, seed, batch=1) for seed in range(12)]
    samples = open_samples(data[:6], model.inputs)
    held = Held(open_samples(data[6:], model.inputs), None, "six of them")
    cache = calibrate_model(model, config, samples)
    return Job(model, config, cache, held, samples)


def noise(model: Model, written: Rewritten, feeds: dict[str, np.ndarray]) -> float:
    """The share of noise in the only output, on ONNX Runtime without fused kernels."""
    (expected,) = models.run(model.proto.SerializeToString(), feeds).values()
    (found,) = models.run(written.cpu_graph or written.graph, feeds).values()
    return float(((expected - found) ** 2).sum() / (expected**2).sum())


def verdict(written: Rewritten) -> dict[str, Any]:
    guard: dict[str, Any] = written.report["guard"]
    return guard


def test_a_net_that_keeps_its_budget_is_all_int8() -> None:
    found = verdict(keep_budget(job(net(), "25dB")))
    assert found["kept"] == []
    assert (found["int8_layers"], found["layers"]) == (6, 6)
    assert found["speed"]["of_all_int8"] == 1
    assert len(found["curve"]) == 1


@pytest.mark.parametrize("high", ["fp32", "fp16", "bf16"])
def test_only_the_bad_layers_are_left_out(high: str) -> None:
    task = job(net(2, 4), "20dB", high_precision=high)
    written = keep_budget(task)
    found = verdict(written)
    assert found["kept"] == ["c2", "c4"]
    assert (found["int8_layers"], found["layers"]) == (4, 6)
    assert found["drop"] <= found["max_drop"] == pytest.approx(0.01)
    reasons = written.report["kept"]
    assert {name: reasons[name] for name in ("c2", "c4")} == dict.fromkeys(
        ("c2", "c4"), "kept by the accuracy guard"
    )
    carried = {node["name"]: node["precision"] for node in written.report["nodes"]}
    assert [carried[f"c{index}"] for index in range(6)] == [
        *("int8", "int8", high, "int8", high, "int8")
    ]
    # The verdict is about the very graph that is written.
    noises = [noise(task.model, written, feeds) for feeds in task.held.samples]
    assert min(noises) * 0.5 <= found["drop"] <= max(noises) * 1.5


def test_the_verdict_has_all_that_is_shown() -> None:
    found = verdict(keep_budget(job(net(3), "20dB")))
    assert list(found) == [
        *("metric", "max_drop", "reference", "reached", "drop", "interval", "samples"),
        *("held_out", "int8_layers", "layers", "kept", "speed", "curve"),
    ]
    assert (found["metric"], found["samples"], found["held_out"]) == ("sqnr", 6, "six of them")
    assert found["reference"] - found["reached"] == pytest.approx(found["drop"])
    low, high = found["interval"]
    assert low <= found["drop"] <= high
    assert 1 < found["speed"]["estimate"] < 4
    assert 0.5 < found["speed"]["of_all_int8"] < 1
    assert "estimate" in found["speed"]["basis"]
    assert [sorted(point) for point in found["curve"]] == [
        ["drop", "interval", "kept", "speed"]
    ] * len(found["curve"])
    counts = [point["kept"] for point in found["curve"]]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert found["curve"][0]["drop"] > found["max_drop"]


def test_nodes_that_are_excluded_anyway_stay_so() -> None:
    task = job(net(2, 4), "20dB", exclude=["c2", "c0"])
    written = keep_budget(task)
    assert verdict(written)["kept"] == ["c4"]
    assert verdict(written)["layers"] == 4
    assert written.report["kept"]["c0"] == "excluded"


def test_a_budget_that_nothing_keeps_is_refused_with_the_best() -> None:
    said = r"sqnr at 90\.0 dB on 6 samples: .*reaches \d\d\.\d dB .*with 5 of 6 layers.*--max-drop"
    with pytest.raises(BuildError, match=said) as caught:
        keep_budget(job(net(), "90dB"))
    assert "\n" not in str(caught.value)


def test_one_sample_gives_no_confidence() -> None:
    task = job(net(), "25dB", confident=True)
    one = replace(task, held=replace(task.held, samples=task.held.samples.take([0])))
    with pytest.raises(ConfigError, match=r"1 sample to judge on.*--confident"):
        keep_budget(one)


def test_the_ranking_that_is_handed_in_decides() -> None:
    def backwards(model: Model, *_: object) -> Any:
        rows = [Row(f"c{index}", float(index == 5)) for index in range(6)]
        return type("Ranking", (), {"layers": rows})

    found = verdict(keep_budget(job(net(2), "20dB"), measure=backwards))
    # A poor ranking takes more steps; what it left out for nothing is given back.
    assert found["kept"] == ["c2"]
    assert len(found["curve"]) > 3


class Row:
    """A layer of a ranking."""

    def __init__(self, name: str, output_noise: float) -> None:
        self.name, self.output_noise = name, output_noise


def test_progress_reaches_its_end_and_never_passes_it() -> None:
    told: list[tuple[str, int, int]] = []
    keep_budget(job(net(2, 4), "20dB"), progress=lambda *step: told.append(step))
    steps = [(done, total) for what, done, total in told if what.startswith("Keeping")]
    assert len({total for _, total in steps}) == 1
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1][0] == steps[-1][1] >= steps[-2][0]
    assert any(what == "Running the FP32 model" for what, *_ in told)


def test_the_same_job_gives_the_same_bytes() -> None:
    first, second = (keep_budget(job(net(2), "20dB")) for _ in range(2))
    assert (first.graph, first.report) == (second.graph, second.report)


def test_a_calibration_without_samples_ranks_on_what_is_held_out() -> None:
    task = job(net(2), "20dB")
    assert verdict(keep_budget(replace(task, samples=None)))["kept"] == ["c2"]
