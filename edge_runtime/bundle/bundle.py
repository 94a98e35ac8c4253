"""A bundle on disk: opened, read with every byte verified, written and extended atomically."""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from edge_runtime.bundle.container import MANIFEST, Entry, Layout, entry_order, read_manifest
from edge_runtime.bundle.manifest import Manifest, PlanKey
from edge_runtime.config import BuildConfig, Precision, digest
from edge_runtime.errors import BundleError
from edge_runtime.files import StrPath, atomic_write, open_file
from edge_runtime.tensors import TensorSpec

_CHUNK = 1 << 20
_MAGIC = b"PK\x03\x04"


class BuiltPlan(Protocol):
    """A plan as `add_plans` takes it, such as `edge_runtime.backends.base.Plan`."""

    @property
    def key(self) -> PlanKey:
        """What it was built for."""

    @property
    def data(self) -> bytes:
        """The serialised engine."""

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """What the builder made of the graph, as plain JSON; None where nobody could ask."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A sound bundle. It holds no open file, and threads may share it.

    Make one with `Bundle.open`, `write_bundle` or `add_plans`.

    Attributes:
        path: Where it is.
        manifest: What it says about itself.
        digest: `sha256:<hex>` of the manifest's bytes, and through them of every entry.
    """

    path: Path
    manifest: Manifest
    digest: str
    _layout: Layout = field(repr=False, compare=False)

    @classmethod
    def open(cls, path: StrPath) -> Bundle:
        """Opens a bundle and verifies all of its structure; contents are verified when read.

        Raises:
            BundleError: It cannot be read, is not a bundle, is damaged, or is too new.
        """
        path = Path(path)
        with open_file(path, error=BundleError) as file:
            data = read_manifest(file, str(path))
            manifest = Manifest.from_bytes(data, where=f"{path}: {MANIFEST}")
            layout = Layout(data, manifest.entries, str(path))
            layout.check(file, str(path))
        return cls(path, manifest, digest(data), layout)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs, in the model's order."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in the model's order."""
        return self.manifest.outputs

    @property
    def precision(self) -> Precision:
        """The precision that it was built for.

        Raises:
            ConfigError: This edge_runtime does not know a setting of the build.
        """
        return self.manifest.build_config.precision

    @property
    def plans(self) -> Mapping[str, PlanKey]:
        """The key of each plan, by the name of its entry."""
        return self.manifest.plans

    def read(self, name: str) -> bytes:
        """The content of an entry, verified.

        Raises:
            BundleError: There is no such entry, or the file is damaged or was replaced.
        """
        return b"".join(self._chunks(self._entry(name), self._entry(name).size))

    @contextmanager
    def map(self, name: str) -> Iterator[memoryview]:
        """Maps the content of an entry, verified, as read-only bytes.

        The pages belong to the file: nothing is copied. edge_runtime itself never writes into a
        bundle but replaces it, which leaves a mapping as it was; a program that does write into it
        changes what the view shows. The view ends with the block; what was made of it and still
        looks at the memory keeps it mapped.

        Yields:
            A read-only view of `size` bytes.

        Raises:
            BundleError: As `read`.
        """
        entry = self._entry(name)
        offset = self._layout.offsets[name]
        start = offset - offset % mmap.ALLOCATIONGRANULARITY  # Above 4096 on some ARM kernels.
        with open_file(self.path, error=BundleError) as file:
            if file.seek(0, os.SEEK_END) != self._layout.size:
                raise self._damaged(entry)
            mapped = mmap.mmap(
                file.fileno(), offset - start + entry.size, access=mmap.ACCESS_READ, offset=start
            )
        view = memoryview(mapped)[offset - start :]
        if hashlib.sha256(view).hexdigest() != entry.sha256:
            raise self._damaged(entry)
        try:
            yield view
        finally:
            with suppress(BufferError):  # Something still looks at it; it is unmapped after that.
                view.release()
                mapped.close()

    def verify(self) -> None:
        """Verifies the content of every entry.

        Raises:
            BundleError: The file is damaged or was replaced.
        """
        for entry in self.manifest.entries:
            for _ in self._chunks(entry, _CHUNK):
                pass

    def _check_current(self) -> None:
        """Checks that the file is still the one that was opened.

        Raises:
            BundleError: It was replaced, or is damaged.
        """
        if Bundle.open(self.path).digest != self.digest:
            raise BundleError(f"{self.path} was replaced since it was opened. Open it again.")

    def _entry(self, name: str) -> Entry:
        for entry in self.manifest.entries:
            if entry.name == name:
                return entry
        names = ", ".join(entry.name for entry in self.manifest.entries)
        raise BundleError(f"{self.path} has no entry {name!r}; it has {names}.")

    def _chunks(self, entry: Entry, size: int) -> Iterator[bytes]:
        """The content in chunks. It is verified once the last was taken, not before."""
        sha256, crc32, left = hashlib.sha256(), 0, entry.size
        with open_file(self.path, error=BundleError) as file:
            file.seek(self._layout.offsets[entry.name])
            while left and (chunk := file.read(min(left, size))):
                sha256.update(chunk)
                crc32 = zlib.crc32(chunk, crc32)
                left -= len(chunk)
                yield chunk
        if (sha256.hexdigest(), crc32) != (entry.sha256, entry.crc32):
            raise self._damaged(entry)

    def _damaged(self, entry: Entry) -> BundleError:
        """Why a content is not what it was when the bundle was opened."""
        try:
            self._check_current()
        except BundleError as error:
            return error
        return BundleError(
            f"{self.path} is damaged: the content of {entry.name} is not the one that the manifest "
            "describes (SHA-256 and CRC-32). Copy or build it again."
        )


def is_bundle(path: StrPath) -> bool:
    """Whether a file starts as a bundle does; whether it is sound, `Bundle.open` says.

    Raises:
        BundleError: It cannot be read.
    """
    with open_file(path, error=BundleError) as file:
        return file.read(len(_MAGIC)) == _MAGIC


def write_bundle(path: StrPath, manifest: Manifest, contents: Mapping[str, bytes]) -> Bundle:
    """Writes a bundle, all or nothing.

    Args:
        path: The file to write or replace.
        manifest: What to say about it; its `entries` are ignored and made from `contents`.
        contents: The content of each entry, by name. The same contents and manifest give the same
            file, byte by byte.

    Raises:
        BundleError: The file cannot be written, would be larger than 4 GiB - 1, or the manifest
            contradicts the contents.
    """
    entries = [Entry.of(name, content) for name, content in contents.items()]
    manifest = replace(manifest, entries=_sorted(entries))
    with _writing(path, manifest, lambda entry: [contents[entry.name]]):
        pass
    return Bundle.open(path)


def add_plans(
    bundle: Bundle, plans: Iterable[BuiltPlan], *, config: BuildConfig | None = None
) -> Bundle:
    """Adds plans to a bundle, all or nothing; a plan with the same key is replaced.

    What else is in the bundle is copied in chunks and verified on the way. A bundle of which a plan
    was replaced is no longer the one of its build: its `build_key` changes.

    Args:
        bundle: The bundle; its file is replaced, and this object is stale afterwards.
        plans: Plans with their keys and verdicts.
        config: The settings that they were built with, if other than the bundle's own, which then
            become these as far as plans depend on them.

    Returns:
        The new bundle, at the same path.

    Raises:
        BundleError: As `write_bundle`, or the old file is damaged or was replaced.
    """
    old, new = bundle.manifest, {plan.key.entry: plan for plan in plans}
    added = {name: plan.data for name, plan in new.items()}
    own = (config or old.build_config).plan_settings
    build_key = digest([old.build_key, own]) if old.plans.keys() & new.keys() else old.build_key
    verdicts = {name: plan.verdict for name, plan in new.items() if plan.verdict is not None}
    unchanged = {name: verdict for name, verdict in old.verdicts.items() if name not in new}
    kept = [entry for entry in old.entries if entry.name not in added]
    manifest = replace(
        old,
        config={**old.config, **own},
        build_key=build_key,
        plans={**old.plans, **{name: plan.key for name, plan in new.items()}},
        verdicts={**unchanged, **verdicts},
        plan_settings={**old.plan_settings, **dict.fromkeys(new, own)},
        entries=_sorted([*kept, *(Entry.of(name, content) for name, content in added.items())]),
    )

    def content(entry: Entry) -> Iterable[bytes]:
        if entry.name in added:
            return [added[entry.name]]
        return bundle._chunks(entry, _CHUNK)

    with _writing(bundle.path, manifest, content):
        # Just before the rename: what another process added meanwhile must not be lost unsaid.
        bundle._check_current()
    return Bundle.open(bundle.path)


def _sorted(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry_order(entry.name)))


@contextmanager
def _writing(
    path: StrPath, manifest: Manifest, content: Callable[[Entry], Iterable[bytes]]
) -> Iterator[None]:
    """Writes a bundle that takes its place if the block raises nothing."""
    data = manifest.to_bytes()
    # What could not be read back is not written.
    Manifest.from_bytes(data, where=f"Cannot write {path}: {MANIFEST}")
    layout = Layout(data, manifest.entries, str(path))
    with atomic_write(path, error=BundleError) as file:
        layout.write(file.write, content)
        yield
