"""The accuracy benchmark's own logic: intervals, verdicts, tables, TensorRT's reading of uint8."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.config import Precision
from edge_runtime.recipe import load_recipe


@pytest.fixture
def part(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports `accuracy.<name>` of the scripts folder."""
    monkeypatch.syspath_prepend(str(root / "scripts"))

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"accuracy.{name}")

    yield load
    for name in [name for name in sys.modules if name.partition(".")[0] == "accuracy"]:
        del sys.modules[name]


def figures(score: list[float], group: list[int] | None = None) -> dict[str, list[float]]:
    return {
        "score": score,
        "same": score,
        "signal": [100.0] * len(score),
        "noise": [1.0] * len(score),
        "group": group or list(range(len(score))),
    }


def line(name: str, tool: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "tool": tool, "default": tool == "ours", "refusal": None, **changes}


class TestIntervals:
    def test_mean_and_sqnr_are_over_all_samples(self, part: Any) -> None:
        intervals = part("intervals")
        assert intervals.mean(figures([1, 0, 1, 1]), "score")[0] == 0.75
        assert intervals.sqnr(figures([1, 0]))[0] == pytest.approx(20.0)

    def test_an_interval_of_a_share_is_that_of_the_binomial(self, part: Any) -> None:
        intervals = part("intervals")
        score = [1.0] * 300 + [0.0] * 100
        low, high = intervals.interval(intervals.mean(figures(score), "score")[1])
        half = 1.96 * (0.75 * 0.25 / 400) ** 0.5
        assert low == pytest.approx(0.75 - half, abs=0.005)
        assert high == pytest.approx(0.75 + half, abs=0.005)

    def test_views_of_one_picture_count_once(self, part: Any) -> None:
        intervals = part("intervals")
        score = [float(i % 2) for i in range(40) for _ in range(10)]
        alone = intervals.interval(intervals.mean(figures(score), "score")[1])
        groups = [i for i in range(40) for _ in range(10)]
        grouped = intervals.interval(intervals.mean(figures(score, groups), "score")[1])
        ratio = (grouped[1] - grouped[0]) / (alone[1] - alone[0])
        assert ratio == pytest.approx(10**0.5, rel=0.15)

    def test_tools_see_the_same_draws(self, part: Any) -> None:
        intervals = part("intervals")
        random = np.random.default_rng(0)
        score = random.integers(2, size=200).astype(float).tolist()
        first, second = (intervals.mean(figures(score), "score")[1] for _ in range(2))
        assert (first == second).all()

    def test_the_pick_of_many_has_a_wider_interval(self, part: Any) -> None:
        intervals = part("intervals")
        drawn = np.random.default_rng(0).standard_normal(4000)
        one, eight = intervals.interval(drawn), intervals.interval(drawn, choices=8)
        assert eight[0] < one[0] < one[1] < eight[1]


class TestComparison:
    def compare(self, part: Any, ours: float, peer: float, **changes: Any) -> dict[str, Any]:
        def scores(share: float) -> list[float]:
            return [1.0] * round(share * 500) + [0.0] * round((1 - share) * 500)

        lines = [
            (line("edge_runtime mse", "ours"), figures(scores(ours))),
            (line("Peer", "nncf", **changes), figures(scores(peer))),
            (line("Other", "aimet"), figures(scores(0.3))),
        ]
        result: dict[str, Any] = part("comparison").compare("score", lines)["score"]
        return result

    @pytest.mark.parametrize(
        ("ours", "peer", "verdict"),
        [
            (0.9, 0.8, "ahead"),
            (0.8, 0.9, "behind"),
            (0.9, 0.9, "equal within the interval"),
            (0.9, 0.902, "equal within the interval"),
        ],
    )
    def test_the_interval_decides(self, part: Any, ours: float, peer: float, verdict: str) -> None:
        found = self.compare(part, ours, peer)
        assert found["default"]["verdict"] == verdict
        assert found["peer"]["name"] == "Peer"
        assert found["default"]["difference"] == pytest.approx(ours - peer)

    def test_what_tensorrt_refuses_is_no_peer(self, part: Any) -> None:
        found = self.compare(part, 0.8, 0.9, refusal="no")
        assert found["peer"]["name"] == "Other"
        assert found["default"]["verdict"] == "ahead"

    def test_without_a_peer_there_is_nothing_to_say(self, part: Any) -> None:
        lines = [(line("edge_runtime mse", "ours"), figures([1.0]))]
        assert part("comparison").compare("score", lines) == {}


class TestChildren:
    def run(self, part: Any, folder: Path, code: str) -> dict[str, Any]:
        command = [sys.executable, "-c", code]
        result: dict[str, Any] = part("children").run_child(command, {}, folder, "key")
        return result

    def test_a_result_is_kept(self, part: Any, tmp_path: Path) -> None:
        path = tmp_path / "key.json"
        write = f"open({str(path)!r}, 'w').write('{{\"a\": 1}}')"
        assert self.run(part, tmp_path, write) == {"a": 1}
        assert self.run(part, tmp_path, "raise SystemExit(3)") == {"a": 1}

    def test_a_child_without_a_result_says_how_it_ended(self, part: Any, tmp_path: Path) -> None:
        code = "print('why'); raise SystemExit(3)"
        assert self.run(part, tmp_path, code) == {"error": "ended with code 3: why"}

    def test_a_child_that_takes_too_much_is_stopped(
        self, part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(part("children"), "SHARE", 0.0)
        found = self.run(part, tmp_path, "import time; time.sleep(60)")
        assert found["error"].startswith("stopped: it took more than 0 MiB")


class TestScores:
    def test_any_of_the_classes_counts(self, part: Any) -> None:
        judge = part("scores").judge_for({"labels": [[3, 1], [0]]})
        found, reference = np.array([0.0, 2.0, 1.0]), np.array([0.0, 1.0, 2.0])
        assert judge(0, reference, found) == {"score": 1.0, "same": 0.0}
        assert judge(1, found, found) == {"score": 0.0, "same": 1.0}

    def test_lines_are_read_without_spaces(self, part: Any) -> None:
        alphabet = ["", "a", "b", " "]
        judge = part("scores").judge_for({"texts": ["a bb"], "alphabet": alphabet})

        def steps(*classes: int) -> np.ndarray:
            return np.eye(4)[list(classes)]

        right, wrong = steps(1, 1, 2, 0, 2), steps(1, 2, 2, 3, 1)
        assert judge(0, right, right) == {"score": 1.0, "same": 1.0, "errors": 0.0, "length": 3.0}
        assert judge(0, right, wrong) == {"score": 0.0, "same": 0.0, "errors": 1.0, "length": 3.0}

    def test_an_embedding_scores_its_cosine(self, part: Any) -> None:
        judge = part("scores").judge_for({"embedding": True})
        a, b = np.array([3.0, 0.0]), np.array([1.0, 1.0])
        assert judge(0, a, b)["score"] == pytest.approx(2**-0.5)


def unsigned_net(zero_point: int, dtype: int = TensorProto.UINT8) -> onnx.ModelProto:
    """x -> Q -> DQ with the scale 1 and a zero point."""
    array = np.array(zero_point, helper.tensor_dtype_to_np_dtype(dtype))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], "dq"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [
            numpy_helper.from_array(np.array(1, np.float32), "scale"),
            numpy_helper.from_array(array, "zero"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class TestUnsigned:
    @pytest.fixture
    def view(self, part: Any) -> Any:
        return part("unsigned")

    def run(self, model: onnx.ModelProto) -> list[float]:
        session = ort.InferenceSession(model.SerializeToString())
        x = np.array([-5, 3, 127, 255], np.float32)
        outputs: list[float] = session.run(None, {"x": x})[0].tolist()
        return outputs

    def test_uint8_is_clipped_at_half_its_range(self, view: Any) -> None:
        model = unsigned_net(0)
        assert self.run(model) == [0, 3, 127, 255]
        assert view.as_read(model) == 1
        assert self.run(model) == [-5, 3, 127, 127]

    def test_int8_stays(self, view: Any) -> None:
        model = unsigned_net(0, TensorProto.INT8)
        before = model.SerializeToString()
        assert view.as_read(model) == 0
        assert model.SerializeToString() == before

    def test_another_zero_point_cannot_be_read(self, view: Any) -> None:
        with pytest.raises(ValueError, match="zero point zero is uint8 and not 0"):
            view.as_read(unsigned_net(128))


class TestImbalance:
    def test_the_function_stays_and_the_channels_do_not(self, root: Path, part: Any) -> None:
        model = onnx.load(root / "tests" / "data" / "digits.onnx")
        images = np.load(root / "tests" / "data" / "digits.npz")["images"][:20]
        feeds = {"image": images[:, None].astype(np.float32) / np.float32(255)}

        def run() -> np.ndarray:
            session = ort.InferenceSession(model.SerializeToString())
            logits: np.ndarray = session.run(None, feeds)[0]
            return logits

        def spread() -> float:
            (weight,) = (w for w in model.graph.initializer if w.name == "res2.conv1.0.weight")
            sizes = np.abs(numpy_helper.to_array(weight)).max(axis=(1, 2, 3))
            return float(sizes.max() / sizes.min())

        before, even = run(), spread()
        assert part("prepare.channels").imbalance(model) == 4
        assert np.allclose(run(), before, atol=1e-4 * np.abs(before).max())
        assert spread() > 20 * even


class TestRecipes:
    def test_each_row_has_the_recipe_that_it_names(self, root: Path, part: Any) -> None:
        recipes = [row.recipe for row in part("rows").ROWS if row.recipe]
        assert len(recipes) >= 6
        for name in recipes:
            recipe = load_recipe(root / "engines" / name / "recipe.toml")
            assert recipe.build.precision is Precision.INT8
            assert recipe.build.guard is not None
            assert recipe.model is not None
            assert recipe.model_digest is not None
            assert recipe.data is not None

    def test_the_committed_nets_are_those_of_the_recipes(self, root: Path) -> None:
        for name in ("fashion", "fashion_mobile"):
            recipe = load_recipe(root / "engines" / name / "recipe.toml")
            assert recipe.model is not None
            digest = hashlib.sha256(recipe.model.read_bytes()).hexdigest()
            assert recipe.model_digest == f"sha256:{digest}"


class TestTables:
    def test_what_is_between_the_markers_is_replaced(self, part: Any) -> None:
        table = part("table")
        page = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
        once = table.inserted(page, "new\n")
        assert "old" not in once
        assert once.startswith("before\n")
        assert once.endswith("after\n")
        assert table.inserted(once, "new\n") == once

    def test_a_page_without_markers_is_refused(self, part: Any) -> None:
        with pytest.raises(ValueError, match="needs the lines"):
            part("table").inserted("nothing", "text")

    def test_the_pages_are_those_of_the_results(self, root: Path) -> None:
        done = subprocess.run(
            [sys.executable, str(root / "scripts" / "accuracy_benchmark.py"), "--check"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def test_every_tool_that_failed_has_its_reason(self, root: Path) -> None:
        results = json.loads((root / "engines" / "accuracy.json").read_text())
        for row in results["rows"].values():
            for tool in row["tools"]:
                assert tool["error"] is None or len(tool["error"]) > 10
