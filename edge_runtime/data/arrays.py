"""Samples from NumPy's files: one .npz or .npy with many samples, or a folder with one in each."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edge_runtime.data.folder import ARRAYS, list_files, of_kind
from edge_runtime.data.samples import CheckedSamples, share
from edge_runtime.errors import DataError
from edge_runtime.files import StrPath, open_file
from edge_runtime.tensors import Array, Feeds, TensorSpec

LABELS = "labels"
"""The array of an .npz that holds what each of its samples is."""

# What numpy raises for files that are damaged, or that hold pickled objects.
_UNREADABLE = (
    EOFError,
    RuntimeError,
    SyntaxError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class ArrayFile(CheckedSamples):
    """The samples of one file: .npz with one array for each input, or .npy for a single input.

    Where an array has the rank of its input, axis 0 is cut into the input's batch size (1 where
    that is dynamic). Where it has one axis more, axis 0 counts the samples. An .npy is mapped into
    memory; an .npz is loaded for the time of one iteration. An .npz may hold the samples' `labels`
    too, which only an evaluation reads.
    """

    def __init__(
        self, path: StrPath, inputs: Sequence[TensorSpec], *, limit: int | None = None
    ) -> None:
        """Reads the file once to see that it is whole, and counts its samples.

        Args:
            path: The .npz or .npy file.
            inputs: The model's inputs.
            limit: The most samples to take, evenly spaced; None takes all.

        Raises:
            DataError: The file cannot be read, or its arrays do not fit the inputs or each other.
            ConfigError: `limit` is below 1.
        """
        super().__init__(inputs)
        self._path = Path(path)
        arrays = load_arrays(self._path, inputs, extra=LABELS)
        counts = {spec.name: self._count(spec, arrays[spec.name]) for spec in inputs}
        if len(set(counts.values())) != 1:
            found = ", ".join(f"{count} for {name}" for name, count in counts.items())
            raise DataError(f"{path}: each input needs equally many samples, but has {found}.")
        total = next(iter(counts.values()))
        if not total:
            raise DataError(f"{path} holds no samples: axis 0 of its arrays has size 0.")
        self._select(total, limit)

    @property
    def description(self) -> str:
        """See `Samples`."""
        return f"{share(len(self), self._total)} samples of {self._path.name}"

    def labels(self) -> Array | None:
        """The array `labels` beside those of the inputs; None if there is none."""
        if self._path.suffix.lower() == ".npy" or LABELS in (spec.name for spec in self._inputs):
            return None
        return read_arrays(self._path, only=LABELS).get(LABELS)

    def _named(self) -> Iterator[tuple[str, Feeds]]:
        arrays = load_arrays(self._path, self._inputs, extra=LABELS)
        for index in self._chosen:
            feeds = {spec.name: _cut(spec, arrays[spec.name], index) for spec in self._inputs}
            yield f"{self._path}, sample {index}", feeds

    def _count(self, spec: TensorSpec, array: Array) -> int:
        rank = len(spec.shape)
        if array.ndim == rank + 1:
            return int(array.shape[0])
        if array.ndim != rank or not rank:
            raise DataError(
                f"{self._path}: array {spec.name!r} has the shape {list(array.shape)}; expected "
                f"that of the input, {spec}, or one axis more in front."
            )
        count, rest = divmod(array.shape[0], _batch(spec))
        if rest:
            raise DataError(
                f"{self._path}: array {spec.name!r} has {array.shape[0]} rows, which the model's "
                f"batch size of {_batch(spec)} does not divide: {rest} would be left over. Remove "
                "or add some."
            )
        return int(count)


class ArrayFolder(CheckedSamples):
    """One sample from each .npz or .npy file of a folder, sorted by path; other files are ignored.

    An .npz holds one array for each input, an .npy the array of a single input, in the very shape
    that the model takes.
    """

    def __init__(
        self, path: StrPath, inputs: Sequence[TensorSpec], *, limit: int | None = None
    ) -> None:
        """Lists the files.

        Args:
            path: The folder; the folders in it are searched too.
            inputs: The model's inputs.
            limit: The most files to take, evenly spaced; None takes all.

        Raises:
            DataError: There is no such folder, or no such file in it.
            ConfigError: `limit` is below 1.
        """
        super().__init__(inputs)
        files = of_kind(list_files(path), ARRAYS)
        if not files:
            raise DataError(f"{path} holds files, but none that ends in .npz or .npy.")
        self._path = Path(path)
        self._all = files
        self._select(len(files), limit)

    @property
    def description(self) -> str:
        """See `Samples`."""
        return f"{share(len(self), self.total)} array files in {self._path.resolve().name}"

    @property
    def names(self) -> Sequence[str]:
        """See `CheckedSamples`."""
        return [file.relative_to(self._path).as_posix() for file in self._all]

    def _named(self) -> Iterator[tuple[str, Feeds]]:
        for index in self._chosen:
            yield str(self._all[index]), load_arrays(self._all[index], self._inputs)


def load_arrays(
    path: Path, inputs: Sequence[TensorSpec], *, extra: str | None = None
) -> dict[str, Array]:
    """The arrays of a file by input name, one for each of `inputs` and no other, as they are.

    Args:
        path: The .npz or .npy file.
        inputs: The model's inputs.
        extra: Another array that an .npz may hold, which is left out.

    Raises:
        DataError: The file cannot be read, or its arrays are not those of the inputs.
    """
    if path.suffix.lower() == ".npy":
        return {_only_input(path, inputs): read_arrays(path)[""]}
    arrays = read_arrays(path)
    names = [spec.name for spec in inputs]
    if extra is not None and extra not in names:
        arrays.pop(extra, None)
    if sorted(arrays) != sorted(names):
        raise DataError(
            f"{path} has the arrays {', '.join(arrays) or '(none)'}; the model's inputs are "
            f"{', '.join(names)}. Save exactly these."
        )
    return arrays


def read_arrays(path: Path, *, only: str | None = None) -> dict[str, Array]:
    """The arrays of a file by name; that of an .npy, which is mapped into memory, has none.

    Args:
        path: The .npz or .npy file.
        only: The one array of an .npz to read, if it is there; None reads all.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with open_file(path, error=DataError) as file:
            if path.suffix.lower() == ".npy":
                return {"": np.asarray(np.lib.format.open_memmap(path, mode="r"))}
            return _members(np.load(file, allow_pickle=False), only)
    except _UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read: {error}. Expected what numpy.savez or numpy.save writes."
        ) from error
    except MemoryError as error:
        raise DataError(
            f"{path} does not fit into memory; split it into a folder of smaller files."
        ) from error


def _members(archive: object, only: str | None) -> dict[str, Array]:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("it is not an archive of arrays")  # noqa: TRY004
    with archive:
        wanted = [name for name in archive.files if only in (None, name)]
        arrays = {name: archive[name] for name in wanted}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"its member {name!r} is not an array")  # noqa: TRY004
    return arrays


def _only_input(path: Path, inputs: Sequence[TensorSpec]) -> str:
    if len(inputs) != 1:
        names = ", ".join(spec.name for spec in inputs)
        raise DataError(
            f"{path} is one array, but the model has the inputs {names}: save an .npz with an "
            "array for each."
        )
    return inputs[0].name


def _batch(spec: TensorSpec) -> int:
    return max(1, spec.shape[0])


def _cut(spec: TensorSpec, array: Array, index: int) -> Array:
    if array.ndim > len(spec.shape):
        return np.asarray(array[index])
    size = _batch(spec)
    return array[index * size : (index + 1) * size]
