"""Judges graphs by a metric on samples that are held out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edge_runtime.accuracy.bootstrap import Drop
from edge_runtime.accuracy.detection import MeanAveragePrecision
from edge_runtime.accuracy.task_metrics import Agreement, Metric, Sqnr, Top1
from edge_runtime.accuracy.user_metric import UserMetric
from edge_runtime.backends.cpu import open_session, run_session
from edge_runtime.data.evaluation import Held
from edge_runtime.errors import ConfigError, DataError, InferenceError
from edge_runtime.guard_config import GuardConfig
from edge_runtime.model import Model
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Outputs


class Judge:
    """Compares graphs with the FP32 model, which is run once."""

    def __init__(
        self, model: Model, guard: GuardConfig, held: Held, progress: Progress = silent
    ) -> None:
        """Runs the FP32 model on every sample.

        Args:
            model: The FP32 model.
            guard: The metric.
            held: The samples and their labels.
            progress: Told of every sample.

        Raises:
            ConfigError: The metric is not for such a model, or cannot be judged with confidence.
            DataError: Labels are missing or do not fit, or a sample cannot be run.
        """
        self._names = [spec.name for spec in model.outputs]
        self._held = held
        self._metric = open_metric(guard, held.labels)
        self._guard = guard
        graph = model.proto.SerializeToString()
        self._metric.set_reference(self._outputs(graph, "Running the FP32 model", progress))

    def judge(self, graph: bytes, progress: Progress = silent) -> Drop:
        """What a graph with the same inputs and outputs loses, on ONNX Runtime's exact kernels.

        Raises:
            ConfigError: There is no interval, but the budget asks for it.
            DataError: Its outputs cannot be compared with the model's.
        """
        outputs = self._outputs(graph, "Judging a candidate", progress)
        drop = self._metric.compare(outputs).drop()
        if self._guard.confident and drop.interval is None:
            if len(self._held.samples) == 1:
                raise ConfigError(
                    "There is 1 sample to judge on, of which no interval can be given: give more, "
                    "or leave --confident out."
                )
            raise ConfigError(
                f"{self._guard.metric} returns one number for all samples, of which no interval "
                "can be given: return a score for each sample, or leave --confident out."
            )
        return drop

    def _outputs(self, graph: bytes, what: str, progress: Progress) -> Iterator[Outputs]:
        session = open_session(graph)
        for index, feeds in enumerate(self._held.samples):
            try:
                arrays = run_session(session, self._names, feeds)
            except InferenceError as error:
                raise DataError(f"Sample {index} of {self._held.description}: {error}") from error
            yield dict(zip(self._names, arrays, strict=True))
            progress(what, index + 1, len(self._held.samples))


def open_metric(guard: GuardConfig, labels: list[Any] | None) -> Metric:
    """The metric of a budget, for samples with these labels.

    Raises:
        ConfigError: It needs labels and there are none, or does nothing with them.
        DataError: The labels are of another form.
    """
    if guard.needs_labels:
        if labels is None:
            raise ConfigError(
                f"{guard.metric} needs labels: give --labels FILE, or an array 'labels' in the "
                "samples' own .npz. agreement and sqnr need none."
            )
        return Top1(labels) if guard.metric == "top1" else MeanAveragePrecision(labels)
    if guard.metric.startswith("python:"):
        return UserMetric(guard.metric, labels)
    return Agreement() if guard.metric == "agreement" else Sqnr()
