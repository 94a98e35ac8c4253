"""Says what a user should know about calibration data and what a model made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from edge_runtime.config import digest
from edge_runtime.precision.observing.channels import ChannelStats, constant_channels, dead_channels
from edge_runtime.precision.observing.histogram import Histogram
from edge_runtime.tensors import Feeds

_FEW_SAMPLES = 10
_FEW_VALUES = 1000


class Watch:
    """Notes of samples, while they are read, how many are copies and which shapes come."""

    def __init__(self) -> None:
        self._count = 0
        self._digests: set[str] = set()
        self._shapes: dict[str, dict[tuple[int, ...], None]] = {}

    def over(self, samples: Iterable[Feeds]) -> Iterator[Feeds]:
        """The samples, each noted as it is read."""
        for feeds in samples:
            self._count += 1
            parts = []
            for name, array in feeds.items():
                self._shapes.setdefault(name, {})[array.shape] = None
                parts.append([name, list(array.shape), digest(array.tobytes())])
            self._digests.add(digest(parts))
            yield feeds

    def findings(self) -> list[str]:
        """What is odd about those that were read."""
        found = []
        different = len(self._digests)
        if self._count < _FEW_SAMPLES:
            what = "1 sample" if self._count == 1 else f"{self._count} samples"
            which = "that one" if self._count == 1 else "those"
            found.append(f"Only {what}: ranges are what {which} showed; 100 or more are usual.")
        if self._count > 1 == different:
            found.append(
                f"All {self._count} samples are the same: ranges are what that one showed."
            )
        elif different < self._count:
            found.append(
                f"{self._count - different} of {self._count} samples are copies of others."
            )
        for name, shapes in self._shapes.items():
            if len(shapes) > 1:
                texts = ["x".join(map(str, shape)) for shape in shapes]
                found.append(
                    f"Input {name!r} had {len(shapes)} shapes ({_few(texts)}): its ranges are over "
                    "all of them."
                )
        return found


def tensor_findings(histograms: Mapping[str, Histogram]) -> list[str]:
    """Which tensors no sound range can be chosen for, by reason."""
    zero, constant, short, unseen = [], [], [], []
    for name, seen in histograms.items():
        if seen.size == 0:
            unseen.append(repr(name))
        elif seen.amax == 0.0:
            zero.append(repr(name))
        elif seen.low == seen.high and seen.size > 1:
            constant.append(f"{name!r} {seen.low:.4g}")
        elif seen.size < _FEW_VALUES:
            short.append(f"{name!r} {seen.size}")
    reasons = (
        (unseen, "never had any value", "the INT8 scale is 1"),
        (zero, "0 on every sample", "the INT8 scale is 1, which rounds what is below 0.5 to 0"),
        (constant, "one value on every sample", "what else it may hold is unknown"),
        (short, f"fewer than {_FEW_VALUES} values", "the range rests on few; give more samples"),
    )
    return [
        f"{_tensors(names)} with {what} ({_few(names)}): {so}."
        for names, what, so in reasons
        if names
    ]


def channel_findings(stats: Mapping[str, ChannelStats]) -> list[str]:
    """Which tensors have channels that never changed."""
    found = []
    for what, channels in (("0", dead_channels(stats)), ("one value", constant_channels(stats))):
        partly = {
            name: indices
            for name, indices in channels.items()
            if len(indices) < stats[name].amax.size  # A whole tensor is named as such.
        }
        if partly:
            texts = [f"{name!r} {_few(list(map(str, ids)))}" for name, ids in partly.items()]
            count = sum(map(len, partly.values()))
            found.append(
                f"{count} {'channel' if count == 1 else 'channels'} with {what} on the samples "
                f"looked at ({_few(texts, '; ')}): dead, or not reached by this data."
            )
    return found


def _tensors(names: Sequence[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


def _few(names: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return between.join(names[:3]) + more
