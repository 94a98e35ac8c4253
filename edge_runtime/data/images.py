"""Samples from a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import ModuleType

from edge_runtime.config import digest
from edge_runtime.data.folder import PICTURES, list_files, of_kind
from edge_runtime.data.samples import CheckedSamples, share, spread
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.files import StrPath, open_file
from edge_runtime.tensors import Array, Feeds, TensorSpec
from edge_runtime.vision.preprocess import EXAMPLE, Preprocessing


@dataclass(frozen=True)
class ImageFolder:
    """The pictures of a folder and of the folders in it, one sample each, sorted by path.

    Hidden files and files that are no pictures are passed over. The folder is listed once; pictures
    are read when they are needed, one at a time.

    Attributes:
        path: The folder.
        preprocessing: How a picture becomes a tensor; text is read by `Preprocessing.from_text`.
        input: Name of the model's input that takes the pictures; None where it has only one.
        limit: The most pictures to take, evenly spaced; None takes all.
        files: The pictures taken.

    Raises:
        ConfigError: `preprocessing` or `limit` is wrong.
        DataError: There is no such folder, it holds no picture, or OpenCV is not installed.
    """

    path: StrPath
    preprocessing: Preprocessing | str
    _: KW_ONLY
    input: str | None = None
    limit: int | None = None
    files: tuple[Path, ...] = field(init=False, repr=False)
    _all: tuple[Path, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _pictures()
        if isinstance(self.preprocessing, str):
            declared = Preprocessing.from_text(self.preprocessing)
            object.__setattr__(self, "preprocessing", declared)
        elif not isinstance(self.preprocessing, Preprocessing):
            raise ConfigError(
                f"{self.path}: preprocessing is a {type(self.preprocessing).__name__}; it must be "
                f"a Preprocessing, or text such as {EXAMPLE!r}."
            )
        pictures = of_kind(list_files(self.path), PICTURES)
        if not pictures:
            raise DataError(f"{self.path} holds files, but no pictures (JPEG, PNG, WebP or BMP).")
        chosen = tuple(pictures[index] for index in spread(len(pictures), self.limit))
        object.__setattr__(self, "files", chosen)
        object.__setattr__(self, "_all", tuple(pictures))

    @property
    def description(self) -> str:
        """What they are, for people: how many and where from."""
        return f"{share(len(self), len(self._all))} pictures in {Path(self.path).resolve().name}"

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Feeds]:
        """Reads one picture after the other; needs `input`.

        Yields:
            `{input: array}` with a new array [1, C, H, W] or [1, H, W, C], owned by the caller.

        Raises:
            DataError: A picture cannot be read, or `input` is None.
        """
        if self.input is None:
            raise DataError("Say which input takes the pictures: ImageFolder(..., input='name').")
        for file in self.files:
            yield {self.input: self._read(file)}

    def digest(self) -> str:
        """`sha256:<hex>` of the files' bytes in order and of the preprocessing; not of names."""
        assert isinstance(self.preprocessing, Preprocessing)
        files = []
        for path in self.files:
            with open_file(path, error=DataError) as file:
                files.append(digest(file.read()))
        return digest({"files": files, "preprocessing": self.preprocessing.to_json()})

    def _read(self, file: Path) -> Array:
        pictures = _pictures()
        picture = pictures.read_picture(file)
        try:
            tensor: Array = pictures.to_tensor(picture, self.preprocessing)
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
        return tensor


class PictureSamples(CheckedSamples):
    """The pictures of an `ImageFolder` for a model."""

    def __init__(self, folder: ImageFolder, inputs: Sequence[TensorSpec]) -> None:
        """Finds the input that takes the pictures.

        Raises:
            DataError: The folder names an input that the model lacks, or the model has others that
                pictures cannot feed.
        """
        super().__init__(inputs)
        names = [spec.name for spec in inputs]
        if folder.input is not None and folder.input not in names:
            raise DataError(
                f"{folder.path}: input is {folder.input!r}; the model's inputs are "
                f"{', '.join(names)}."
            )
        if len(names) != 1:
            raise DataError(
                f"{folder.path}: pictures alone feed one input, but the model has {len(names)} "
                f"({', '.join(names)}): pass an .npz file with an array for each."
            )
        self._folder = folder

    @property
    def description(self) -> str:
        """See `Samples`."""
        return self._folder.description

    def __len__(self) -> int:
        return len(self._folder)

    def _compute_digest(self) -> str:
        return self._folder.digest()

    @property
    def places(self) -> Sequence[int]:
        """See `CheckedSamples`."""
        place = {file: index for index, file in enumerate(self._folder._all)}
        return [place[file] for file in self._folder.files]

    @property
    def total(self) -> int:
        """See `CheckedSamples`."""
        return len(self._folder._all)

    @property
    def names(self) -> Sequence[str]:
        """See `CheckedSamples`."""
        return [file.relative_to(self._folder.path).as_posix() for file in self._folder._all]

    def take(self, chosen: Sequence[int]) -> PictureSamples:
        """See `CheckedSamples`."""
        taken, folder = copy(self), copy(self._folder)
        files = tuple(self._folder.files[index] for index in chosen)
        object.__setattr__(folder, "files", files)
        taken._folder = folder
        return taken

    def _named(self) -> Iterator[tuple[str, Feeds]]:
        (spec,) = self._inputs
        for file in self._folder.files:
            yield str(file), {spec.name: self._folder._read(file)}


def _pictures() -> ModuleType:
    """The module that reads pictures, which alone needs OpenCV."""
    try:
        from edge_runtime.vision import pictures
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise DataError(
            "Pictures are read with OpenCV, which is not installed: "
            "pip install 'edge-runtime[vision]'."
        ) from error
    return pictures
