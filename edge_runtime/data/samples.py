"""What samples are, the check that they fit the model, and samples that are already in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from copy import copy
from typing import Protocol
from weakref import WeakKeyDictionary

from edge_runtime.config import digest
from edge_runtime.errors import ConfigError, DataError, FeedError
from edge_runtime.tensors import Feeds, TensorSpec, check_feeds


class Samples(Protocol):
    """Feeds for one inference after the other; may be read any number of times.

    The arrays belong to the samples: a reader copies what it changes or keeps.
    """

    @property
    def description(self) -> str:
        """What they are, for people: how many and where from."""

    def __len__(self) -> int:
        """How many there are."""

    def __iter__(self) -> Iterator[Feeds]:
        """Reads them from the first, in the same order each time.

        Raises:
            DataError: A sample cannot be read or does not fit the model.
        """

    def take(self, chosen: Sequence[int]) -> Samples:
        """Some of these samples alone, by their index among them, in ascending order."""

    def digest(self) -> str:
        """`sha256:<hex>` of all that is fed; differs if any byte of a sample does."""


class CheckedSamples(ABC):
    """Samples whose every feed is checked against the model's inputs when it is read."""

    def __init__(self, inputs: Sequence[TensorSpec]) -> None:
        self._inputs = tuple(inputs)
        self._total = 0
        self._chosen: Sequence[int] = ()

    def _select(self, total: int, limit: int | None) -> None:
        """Says how many samples the source holds, and takes at most `limit`, evenly spaced."""
        self._total, self._chosen = total, spread(total, limit)

    @property
    @abstractmethod
    def description(self) -> str:
        """See `Samples`."""

    def __len__(self) -> int:
        return len(self._chosen)

    @abstractmethod
    def _named(self) -> Iterator[tuple[str, Feeds]]:
        """Each sample, unchecked, with its name for messages."""

    @property
    def places(self) -> Sequence[int]:
        """The place of each sample in all that the source holds."""
        return self._chosen

    @property
    def total(self) -> int:
        """How many samples the source holds, those included that a limit left out."""
        return self._total

    @property
    def names(self) -> Sequence[str] | None:
        """The path, within its folder, of each sample that the source holds; None without files."""
        return None

    def take(self, chosen: Sequence[int]) -> CheckedSamples:
        """See `Samples`."""
        taken = copy(self)
        taken._chosen = [self._chosen[index] for index in chosen]
        return taken

    @property
    def batch(self) -> int:
        """How many rows a sample has: the model's batch size, 1 where that is dynamic."""
        shape = self._inputs[0].shape if self._inputs else ()
        return max(1, shape[0]) if shape else 1

    def are_for(self, inputs: Sequence[TensorSpec]) -> bool:
        """Whether they were opened for exactly these inputs."""
        return self._inputs == tuple(inputs)

    def __iter__(self) -> Iterator[Feeds]:
        for name, feeds in self._named():
            try:
                check_feeds(self._inputs, feeds)
            except FeedError as error:
                raise DataError(f"{name}: {error}") from error
            yield feeds

    def digest(self) -> str:
        """See `Samples`. Equal feeds have equal digests, wherever they are stored.

        They are read for it once; samples must stay as they are for as long as they are used.
        """
        if self not in _DIGESTS:
            _DIGESTS[self] = self._compute_digest()
        return _DIGESTS[self]

    def _compute_digest(self) -> str:
        return digest(
            [
                {
                    name: [array.dtype.str, list(array.shape), digest(array.tobytes())]
                    for name, array in feeds.items()
                }
                for feeds in self
            ]
        )


_DIGESTS: WeakKeyDictionary[CheckedSamples, str] = WeakKeyDictionary()
"""Digests of samples; not kept in them, where a copy that holds others would keep it too."""


class ArraySamples(CheckedSamples):
    """Feeds from memory, or from any object that can be iterated over again and again."""

    def __init__(
        self, source: Iterable[Feeds], inputs: Sequence[TensorSpec], *, limit: int | None = None
    ) -> None:
        """Counts the samples.

        Args:
            source: A list of feeds, or an object whose `__iter__` starts afresh each time. It is
                kept, not copied.
            inputs: The model's inputs.
            limit: The most samples to take, evenly spaced; None takes all.

        Raises:
            DataError: `source` holds nothing, or cannot be read twice.
        """
        super().__init__(inputs)
        if isinstance(source, Mapping) or not isinstance(source, Iterable):
            raise DataError(
                f"Samples must be a path, an ImageFolder or a list of feeds {{input name: array}}, "
                f"but are a {type(source).__name__}."
            )
        if iter(source) is iter(source):
            raise DataError(
                f"Samples are read several times, but this {type(source).__name__} can be read only"
                " once: pass a list, or an object whose __iter__ starts afresh."
            )
        self._source = source
        self._select(len(source) if isinstance(source, Sized) else sum(1 for _ in source), limit)
        if not self._chosen:
            raise DataError(f"There are no samples: this {type(source).__name__} is empty.")

    @property
    def description(self) -> str:
        """See `Samples`."""
        return f"{share(len(self), self._total)} samples in memory"

    def _named(self) -> Iterator[tuple[str, Feeds]]:
        left = iter(self._chosen)
        wanted = next(left, None)
        for index, feeds in enumerate(self._source):
            if index != wanted:
                continue
            if not isinstance(feeds, Mapping):
                raise DataError(
                    f"Sample {index} must be a dict {{input name: array}}, but is a "
                    f"{type(feeds).__name__}."
                )
            yield f"Sample {index}", feeds
            wanted = next(left, None)
            if wanted is None:
                return
        raise DataError(f"Sample {wanted} is missing: there were {self._total} when counted.")


def spread(count: int, limit: int | None) -> Sequence[int]:
    """Indices of at most `limit` of `count` samples, evenly spaced, the first among them.

    Raises:
        ConfigError: `limit` is below 1.
    """
    if limit is None:
        return range(count)
    if limit < 1:
        raise ConfigError(f"limit is {limit}; it must be at least 1 sample.")
    taken = min(limit, count)
    return [index * count // taken for index in range(taken)]


def share(taken: int, total: int) -> str:
    """`64`, or `64 of 300` where a limit left some out."""
    return str(total) if taken == total else f"{taken} of {total}"
