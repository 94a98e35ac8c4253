"""The end-to-end protocol: from a picture to the decoded result, each part timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.bench.loops import Clock, Pace, one_by_one
from edge_runtime.bench.protocols import EndToEnd
from edge_runtime.bench.result import Samples
from edge_runtime.bench.trtexec import Measured, milliseconds, seconds, walltime
from edge_runtime.data.images import ImageFolder
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.session import Session
from edge_runtime.tensors import Array, Outputs
from edge_runtime.user_function import load_function
from edge_runtime.vision.preprocess import Preprocessing

_MOST = 64
"""Pictures that are kept in memory and come round."""

Decode = Callable[[Outputs], Any]


def run_end_to_end(
    session: Session,
    pictures: Path,
    preprocessing: Preprocessing,
    protocol: EndToEnd,
    clock: Clock | None = None,
) -> Measured:
    """Runs pictures through a session, one after the other.

    The file system keeps in memory what was read before: from the second time on a file comes from
    there, not from the disk itself.

    Args:
        session: What runs; it stays open. It has one input.
        pictures: A picture or a folder of them; they come round.
        preprocessing: How a picture becomes the input.
        protocol: How.
        clock: The time.

    Raises:
        ConfigError: The model has several inputs, or there is no such decoder.
        DataError: A picture cannot be read.
        FeedError: What becomes of it does not fit the input.
        InferenceError: The session cannot run on it.
        DeviceError: The GPU failed.
    """
    # OpenCV, which other protocols do not need.
    from edge_runtime.vision.pictures import read_picture, to_tensor

    clock = clock or Clock()
    if len(session.inputs) != 1:
        names = ", ".join(spec.name for spec in session.inputs)
        raise ConfigError(f"end-to-end feeds one picture, and the model has the inputs {names}.")
    name = session.inputs[0].name
    decode, now, in_memory = decoder(protocol.decode), clock.now, protocol.source == "memory"
    files = _files(pictures, preprocessing)

    def query(item: Any) -> tuple[int, int]:
        picture = item if in_memory else read_picture(item)
        tensor = to_tensor(picture, preprocessing)
        prepared = now()
        outputs = session.run({name: tensor})
        done = now()
        decode(outputs)
        return prepared, done

    items: Sequence[Any] = [read_picture(file) for file in files[:_MOST]] if in_memory else files
    pace = Pace(protocol.warmup, protocol.duration, protocol.iterations)
    calls = one_by_one(query, items, pace, clock, marks=2)
    prepared, done = calls.marks
    samples = Samples(
        start=seconds(calls),
        latency=milliseconds(calls),
        preprocess=(prepared - calls.start) / 1e6,
        inference=(done - prepared) / 1e6,
        postprocess=(calls.end - done) / 1e6,
    )
    return Measured(samples, float(calls.start[0]) / 1e9, walltime(calls), calls.warmup)


def first_tensor(pictures: Path, preprocessing: Preprocessing) -> Array:
    """The first picture as the network's input.

    Raises:
        DataError: It cannot be read.
    """
    from edge_runtime.vision.pictures import read_picture, to_tensor

    return to_tensor(read_picture(_files(pictures, preprocessing)[0]), preprocessing)


def decoder(name: str) -> Decode:
    """What `EndToEnd.decode` names.

    Raises:
        ConfigError: There is no such function.
    """
    if name == "none":
        return lambda outputs: outputs
    if name == "top1":
        return lambda outputs: {key: _largest(array) for key, array in outputs.items()}
    if not name.startswith("python:"):
        raise ConfigError(f"decode is {name!r}; it must be top1, none or python:MODULE:FUNCTION.")
    function = load_function(name, what="decoder")

    def call(outputs: Outputs) -> Any:
        try:
            return function(outputs)
        except (Exception, SystemExit) as error:  # The user's code: whatever it raises, it failed.
            raise DataError(
                f"{name.removeprefix('python:')} failed with {type(error).__name__}: {error}. It "
                "is called as function(outputs)."
            ) from error

    return call


def _largest(array: Any) -> Any:
    return array if array.ndim == 0 else np.argmax(array, axis=-1)


def _files(pictures: Path, preprocessing: Preprocessing) -> Sequence[Path]:
    if pictures.is_dir():
        return ImageFolder(pictures, preprocessing).files
    if not pictures.is_file():
        raise DataError(f"{pictures} is not there; give a picture or a folder of pictures.")
    return [pictures]
