"""Labels of samples: what each one is, from a file or from memory, matched to the samples.

A label is what the metric takes: for `top1` a class or a list of accepted classes, for `map` an
object of boxes, for a function of the user's anything that JSON holds.

| file | holds |
|---|---|
| .npy, .npz | one array of whole numbers in the samples' order; of several, that named `labels` |
| .json | a list in the samples' order, or an object {file name or relative path: label} |
| .txt, .csv | a label a line in the samples' order, or `name label` (`name,label`) as MLPerf has |
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edge_runtime import strict_json
from edge_runtime.data.arrays import LABELS, ArrayFile, read_arrays
from edge_runtime.data.samples import CheckedSamples
from edge_runtime.errors import DataError
from edge_runtime.files import StrPath, read_file
from edge_runtime.tensors import Array

LabelSource = StrPath | Sequence[Any] | Mapping[str, Any]
"""Where labels may come from: a file, a list or array in the samples' order, or by file name."""

_MAX_BYTES = 256 << 20
_SHOWN = 3
_ENDINGS = (".npy", ".npz", ".json", ".txt", ".csv")
_HEADINGS = ("label", "labels", "class")


def open_labels(source: LabelSource | None, samples: CheckedSamples) -> list[Any] | None:
    """The label of each sample, in their order; None if there are none.

    Args:
        source: Where they come from; None takes those that lie in the samples' own .npz.
        samples: What they are the labels of. A limit leaves out the labels of what it leaves out.

    Returns:
        For each sample its label as plain JSON; a list of them where the model's batch size puts
        several into one sample.

    Raises:
        DataError: They cannot be read, or are not one for each sample of the source.
    """
    if source is None:
        own = samples.labels() if isinstance(samples, ArrayFile) else None
        if own is None:
            return None
        return _in_order(_from_array(own, LABELS), samples, LABELS)
    if isinstance(source, str | os.PathLike):
        where = str(source)
        found = _read(Path(source))
    else:
        where, found = "labels", source
    if isinstance(found, Mapping):
        return _by_name(_plain(dict(found), where), samples, where)
    listed = _from_array(found, where) if isinstance(found, np.ndarray) else _plain(found, where)
    return _in_order(listed, samples, where)


def _read(path: Path) -> Any:
    ending = path.suffix.lower()
    if ending in (".npy", ".npz"):
        arrays = read_arrays(path)
        if len(arrays) > 1:
            arrays = {name: array for name, array in arrays.items() if name == LABELS}
        if len(arrays) != 1:
            raise DataError(f"{path}: labels are one array; of several, name theirs {LABELS!r}.")
        return next(iter(arrays.values()))
    if ending not in _ENDINGS:
        raise DataError(f"{path}: labels are read from {', '.join(_ENDINGS)} files.")
    data = read_file(path, limit=_MAX_BYTES, error=DataError)
    if ending == ".json":
        value = strict_json.parse(data, where=str(path), error=DataError)
        if not isinstance(value.plain, list | dict):
            value.fail("must be a list of labels, or an object {file name: label}")
        return value.plain
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8, so this is no text.") from error
    return _read_lines(lines, path, comma=ending == ".csv")


def _read_lines(lines: Iterable[str], path: Path, *, comma: bool) -> list[Any] | dict[str, Any]:
    rows = [
        (number, _cells(line, f"{path}, line {number}") if comma else line.split(None, 1))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if comma and rows and rows[0][1][-1].strip().lower() in _HEADINGS:
        del rows[0]
    widths = {len(row) for _, row in rows}
    if not widths <= {1, 2} or len(widths) > 1:
        wanted = min(2, len(rows[0][1]))
        number, row = next((n, row) for n, row in rows if len(row) != wanted)
        raise DataError(
            f"{path}, line {number}: {len(row)} columns; each line must hold one label, or each a "
            "file name and a label."
        )
    if widths <= {1}:
        return _values([row[0] for _, row in rows])
    counts = Counter(name for _, (name, _) in rows)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{path}: {_few(twice)} more than one label each; keep one.")
    return dict(zip(counts, _values([label for _, (_, label) in rows]), strict=True))


def _cells(line: str, where: str) -> list[str]:
    try:
        return next(csv.reader([line], skipinitialspace=True))
    except csv.Error as error:
        raise DataError(f"{where} is no CSV: {error}.") from error


def _values(texts: Sequence[str]) -> list[Any]:
    """Class numbers, or if not all are numbers texts, such as those that pictures show."""
    texts = [text.strip() for text in texts]
    whole = all(re.fullmatch(r"-?[0-9]{1,18}", text) for text in texts)
    return [int(text) for text in texts] if whole else texts


def _from_array(array: Array, where: str) -> list[Any]:
    if array.dtype.kind not in "iu" or not array.ndim or any(size != 1 for size in array.shape[1:]):
        raise DataError(
            f"{where}: the labels are {array.dtype.name}{list(array.shape)}; expected one array of "
            "whole numbers with a number for each sample."
        )
    plain: list[Any] = array.reshape(-1).tolist()
    return plain


def _plain(value: Any, where: str) -> Any:
    """A label, or a collection of them, as plain JSON."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        ordered = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(item, where) for item in ordered]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise DataError(
        f"{where}: there is a {type(value).__name__}; labels are numbers, text, lists or dicts of "
        "these."
    )


def _in_order(labels: list[Any], samples: CheckedSamples, where: str) -> list[Any]:
    total, rows = samples.total, samples.batch
    if rows > 1 and len(labels) == total * rows:
        labels = [labels[at : at + rows] for at in range(0, len(labels), rows)]
    if len(labels) < total:
        missing = f"sample {len(labels)}"
        if samples.names is not None:
            missing = _few(samples.names[len(labels) :], verb="has none", many="have none")
        else:
            missing += " and those after it have none" if total - len(labels) > 1 else " has none"
        raise DataError(f"{where}: {len(labels)} labels for {total} samples: {missing}.")
    if len(labels) > total:
        raise DataError(
            f"{where}: {len(labels)} labels for {total} samples: no sample has those from number "
            f"{total} on ({', '.join(repr(label) for label in labels[total : total + _SHOWN])}...)."
        )
    return [labels[place] for place in samples.places]


def _by_name(labels: dict[str, Any], samples: CheckedSamples, where: str) -> list[Any]:
    names = samples.names
    if names is None:
        raise DataError(
            f"{where}: labels by file name are for a folder of files; these samples have no names: "
            "list the labels in the samples' order."
        )
    bases = Counter(PurePosixPath(name).name for name in names)
    keys = []
    for name in names:
        base = PurePosixPath(name).name
        keys.append(base if name not in labels and bases[base] == 1 else name)
    missing = [name for name, key in zip(names, keys, strict=True) if key not in labels]
    if missing:
        raise DataError(f"{where}: {_few(missing, verb='has no label', many='have no label')}.")
    unused = [name for name in labels if name not in set(keys)]
    if unused:
        raise DataError(
            f"{where}: {_few(unused, verb='is', many='are')} no file of {samples.description}."
        )
    return [labels[keys[place]] for place in samples.places]


def _few(names: Sequence[str], *, verb: str = "has", many: str = "have") -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(map(repr, names[:_SHOWN]))}{more} {verb if len(names) == 1 else many}"
