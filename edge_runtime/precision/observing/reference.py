"""What the FP32 model makes of a few samples: what its rewritten graphs are held against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from onnx import ModelProto

from edge_runtime.backends.cpu import open_session, run_session
from edge_runtime.precision.graphs.heap import release_memory
from edge_runtime.precision.observing.parallel import threads_for, workers_for
from edge_runtime.progress import Progress, silent
from edge_runtime.tensors import Array, Feeds


@dataclass(frozen=True)
class Reference:
    """Samples and what the model, as it was given, makes of them.

    Attributes:
        names: The model's outputs.
        feeds: The samples: copies, for a source may use its arrays again.
        outputs: For each sample its outputs, in the order of `names`.
    """

    names: Sequence[str]
    feeds: Sequence[Feeds]
    outputs: Sequence[Sequence[Array]]

    @classmethod
    def of(cls, proto: ModelProto, samples: Iterable[Feeds]) -> Reference:
        """Runs a model on samples."""
        names = [value.name for value in proto.graph.output]
        feeds = [{name: array.copy() for name, array in one.items()} for one in samples]
        return cls(names, feeds, _outputs_of(proto.SerializeToString(), names, feeds, silent))

    def outputs_of(self, graph: bytes, progress: Progress = silent) -> list[list[Array]]:
        """What another graph with these outputs makes of the samples."""
        return _outputs_of(graph, self.names, self.feeds, progress)


def _outputs_of(
    graph: bytes, names: Sequence[str], samples: Sequence[Feeds], progress: Progress
) -> list[list[Array]]:
    """What a graph makes of samples.

    Args:
        graph: A graph for the CPU. Its session, which holds all weights, is gone on return.
        names: The outputs.
        samples: What to run.
        progress: Told of every sample.

    Returns:
        For each sample its outputs, in the order of `names`.

    Raises:
        ModelError: ONNX Runtime cannot run the graph.
        InferenceError: A layer cannot combine the sizes it was given.
    """
    release_memory()
    workers = workers_for(len(samples))
    session = open_session(graph, threads=threads_for(workers), lean=True, small=True)
    results = []
    with ThreadPoolExecutor(workers) as pool:
        for outputs in pool.map(lambda feeds: run_session(session, names, feeds), samples):
            results.append(outputs)
            progress("Comparing with the model", len(results), len(samples))
    return results
