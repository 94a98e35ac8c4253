"""Samples from ONNX's test data: folders of `input_0.pb`, `input_1.pb` ..., a tensor in each.

The format is that of ONNX's own backend tests and of its model zoo: a folder `test_data_set_0`,
`test_data_set_1` ... for each sample, beside the model or in any folder, whose k-th file holds the
k-th input. Their `output_*.pb`, the outputs that somebody once got, are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from edge_runtime.data.folder import list_files
from edge_runtime.data.samples import CheckedSamples, share
from edge_runtime.errors import DataError
from edge_runtime.files import StrPath
from edge_runtime.tensors import Array, Feeds, TensorSpec

_FILE = re.compile(r"(input|output)_(0|[1-9][0-9]*)\.pb")
_NUMBER = re.compile(r"([0-9]+)")


class OnnxTestData(CheckedSamples):
    """One sample from each folder that holds ONNX test data, sorted by path, numbers as such."""

    def __init__(
        self, path: StrPath, inputs: Sequence[TensorSpec], *, limit: int | None = None
    ) -> None:
        """Lists the files.

        Args:
            path: A folder of test data, or one with such folders in it.
            inputs: The model's inputs, in its order.
            limit: The most folders to take, evenly spaced; None takes all.

        Raises:
            DataError: There is no such folder, none in it holds test data, or one of them has other
                inputs than the model.
            ConfigError: `limit` is below 1.
        """
        super().__init__(inputs)
        self._path = Path(path)
        self._all = _sets(self._path)
        if not self._all:
            raise DataError(f"{path} holds files, but no ONNX test data such as input_0.pb.")
        for folder in self._all:
            _files(folder, self._inputs)
        self._select(len(self._all), limit)

    @property
    def description(self) -> str:
        """See `Samples`."""
        return f"{share(len(self), self.total)} sets of test data in {self._path.resolve().name}"

    @property
    def names(self) -> Sequence[str]:
        """See `CheckedSamples`."""
        return [folder.relative_to(self._path).as_posix() for folder in self._all]

    def _named(self) -> Iterator[tuple[str, Feeds]]:
        for index in self._chosen:
            yield str(self._all[index]), load_test_data(self._all[index], self._inputs)


def tensor_files(files: Iterable[Path]) -> list[Path]:
    """Those of `files` that are ONNX test data."""
    return [file for file in files if _FILE.fullmatch(file.name)]


def load_test_data(folder: Path, inputs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The tensors of one folder of test data by input name, as they are.

    Raises:
        DataError: The folder has other inputs than the model, or one cannot be read.
    """
    files = _files(folder, inputs)
    return {spec.name: load_tensor(file) for spec, file in zip(inputs, files, strict=True)}


def load_tensor(path: Path) -> Array:
    """The tensor of one .pb file.

    Raises:
        DataError: It cannot be read, or onnx is not installed.
    """
    try:
        from edge_runtime.model import read_tensor  # onnx, which a device need not have.
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise DataError(
            f"{path} is read with onnx, which is not installed: pip install 'edge-runtime[build]'."
        ) from error
    return read_tensor(path)


def _sets(path: Path) -> list[Path]:
    """The folders that hold test data, `test_data_set_2` before `test_data_set_10`."""
    folders = {file.parent for file in tensor_files(list_files(path))}

    def order(folder: Path) -> list[tuple[int, str]]:
        parts = _NUMBER.split(folder.relative_to(path).as_posix())
        return [(int(part) if part.isdecimal() else -1, part) for part in parts]

    return sorted(folders, key=order)


def _files(folder: Path, inputs: Sequence[TensorSpec]) -> list[Path]:
    """The file of each input."""
    here = [file for file in list_files(folder) if file.parent == folder]
    matches = (_FILE.fullmatch(file.name) for file in here)
    found = {int(match[2]): match[0] for match in matches if match and match[1] == "input"}
    for index, spec in enumerate(inputs):
        if index not in found:
            raise DataError(
                f"{folder} has no input_{index}.pb for the model's input {spec.name!r}; it holds "
                f"{', '.join(found.values()) or 'no inputs'}."
            )
    extra = sorted(found.keys() - set(range(len(inputs))))
    if extra:
        raise DataError(
            f"{folder} holds {found[extra[0]]}, but the model has only {len(inputs)} inputs "
            f"({', '.join(spec.name for spec in inputs)}): it is another model's."
        )
    return [folder / found[index] for index in range(len(inputs))]
