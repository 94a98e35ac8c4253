"""Where the tensors of one execution context lie, for the shapes at hand, and TensorRT told so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runtime.backends.tensorrt.allocator import OutputMemory
from edge_runtime.backends.tensorrt.interface import Shape, Tensor
from edge_runtime.backends.tensorrt.logger import Recording
from edge_runtime.backends.tensorrt.resources import Resources, check, refusal
from edge_runtime.backends.tensorrt.staging import ALIGNMENT, Staging
from edge_runtime.cuda.interop import DeviceView
from edge_runtime.cuda.memory import DeviceBuffer
from edge_runtime.cuda.stream import Event, Stream
from edge_runtime.errors import FeedError
from edge_runtime.tensors import Array, DeviceFeeds, Outputs

_PIECE = 256 << 10
"""Bytes from which on tensors are copied in pieces: the GPU takes one while the CPU copies another.

They take the CPU some 50 microseconds, which is more than a copy costs beside its bytes.
"""
_MOST_PIECES = 16


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a tensor lies.

    Attributes:
        tensor: Which one it is.
        offset: Its place in its `Staging`; -1 if the engine wants it in host memory.
        array: Its host memory; if the engine wants it there, what the engine reads or writes.
    """

    tensor: Tensor
    offset: int
    array: Array

    @property
    def name(self) -> str:
        """Name of the tensor."""
        return self.tensor.spec.name

    def bytes(self, start: int, stop: int) -> tuple[int, int]:
        """Place and number of the bytes of some elements, in their `Staging`."""
        size = self.array.itemsize
        return self.offset + start * size, (stop - start) * size


class Bindings:
    """The tensors of one execution context.

    While shapes stay as they are, nothing is allocated and TensorRT is told nothing anew. Nothing
    may be in flight in the context while one of the methods runs, but for `download`.

    Attributes:
        deferred: The memory of the outputs whose shape only the data decides.
    """

    def __init__(self, resources: Resources, vendor: Any) -> None:
        self._resources = resources
        self._vendor = vendor
        self._inputs = resources.interface.inputs
        self._outputs = resources.interface.outputs
        self._names = [tensor.spec.name for tensor in self._inputs]
        self._hosted = [tensor.spec.name for tensor in self._inputs if tensor.on_host]
        mapped = resources.config.mapped
        self._upload = Staging(resources.device, mapped=mapped)
        self._download = Staging(resources.device, mapped=mapped)
        self._results: dict[str, Staging] = {}
        self.deferred: dict[str, OutputMemory] = {}
        self._key: object = None
        self._input_slots: tuple[Slot, ...] = ()
        self._output_slots: tuple[Slot, ...] = ()
        self._arrivals: list[tuple[Slot, int, int, Event]] = []
        self._events: list[Event] = []
        self._displaced: set[str] = set()
        self._profile = 0

    def prepare(
        self, feeds: DeviceFeeds, views: Mapping[str, DeviceView], stream: Stream, log: Recording
    ) -> bool:
        """Brings shapes, buffers and addresses up to date for these feeds.

        Returns:
            Whether anything changed but the place of single tensors: a captured graph is stale.

        Raises:
            FeedError: A shape is outside of the plan's optimization profiles.
            InferenceError: TensorRT refused the shapes.
            DeviceError: There is not enough memory.
        """
        shapes = [views[name].shape if name in views else feeds[name].shape for name in self._names]
        key = (shapes, [feeds[name].tobytes() for name in self._hosted])
        changed = key != self._key
        if changed:
            self._key = None  # Until all of it has worked.
            self._shape(feeds, dict(zip(self._names, shapes, strict=True)), stream, log)
            self._lay_out(dict(zip(self._names, shapes, strict=True)), log)
            self._key = key
        for name in [name for name in self._displaced if name not in views]:
            self._bind(name, self._address(name), log)
            self._displaced.remove(name)
        return changed

    def send(self, feeds: DeviceFeeds, views: Mapping[str, DeviceView], stream: Stream) -> None:
        """Copies what is not on the GPU to it, once the stream comes to it; see `_PIECE`."""
        whole = not views and self._upload.size <= 2 * _PIECE
        for slot in self._input_slots:
            if slot.name in views:
                continue
            feed = feeds[slot.name]
            if whole or slot.offset < 0:
                np.copyto(slot.array, feed)
                continue
            in_order = feed.flags.c_contiguous
            target, source = slot.array.reshape(-1), feed.reshape(-1) if in_order else None
            for start, stop in _pieces(slot.array):
                if source is not None:
                    np.copyto(target[start:stop], source[start:stop])
                elif start == 0:
                    np.copyto(slot.array, feed)
                self._upload.upload_part(*slot.bytes(start, stop), stream)
        if whole:
            self._upload.upload(stream)

    def upload(self, stream: Stream) -> None:
        """Copies all inputs that `send` was given to the GPU once more, as one block."""
        self._upload.upload(stream)

    def download(self, stream: Stream) -> None:
        """Copies all outputs to the host, once the stream comes to it."""
        if not self._arrivals:
            self._download.download(stream)
        for slot, start, stop, arrived in self._arrivals:
            self._download.download_part(*slot.bytes(start, stop), stream)
            arrived.record(stream)
        for name, memory in self.deferred.items():
            buffer, shape = memory.finish(name)
            size = int(np.prod(shape, dtype=np.int64)) * self._dtype(name).itemsize
            block = self._results[name]
            block.place([size])
            block.download_from(buffer.address, size, stream)

    def receive(self) -> Outputs:
        """New arrays of large outputs, filled piece by piece while the rest is still on its way."""
        arrays: Outputs = {}
        for slot, start, stop, arrived in self._arrivals:
            if slot.name not in arrays:
                arrays[slot.name] = np.empty_like(slot.array)
            arrived.synchronize()
            target, source = arrays[slot.name].reshape(-1), slot.array.reshape(-1)
            np.copyto(target[start:stop], source[start:stop])
        return arrays

    def displace(self, addresses: Mapping[str, int], log: Recording) -> None:
        """Has TensorRT use other memory for some tensors, until the next `prepare`."""
        for name, address in addresses.items():
            if address % ALIGNMENT:
                raise FeedError(
                    name,
                    expected=f"an address that is a multiple of {ALIGNMENT}, as TensorRT needs",
                    found=f"{address:#x}",
                )
            self._displaced.add(name)
            self._bind(name, address, log)

    def begin(self) -> None:
        """Before each inference."""
        for memory in self.deferred.values():
            memory.begin()

    def output_sizes(self) -> dict[str, int]:
        """Bytes of each output that lies on the GPU and whose shape is known beforehand."""
        return {slot.name: slot.array.nbytes for slot in self._output_slots if slot.offset >= 0}

    def take_outputs(self, targets: dict[str, DeviceBuffer], stream: Stream) -> None:
        """Adds to `targets` the outputs that `output_sizes` left out, after the inference is done.

        Those that the engine has put into host memory are copied.
        """
        device = self._resources.device
        for slot in self._output_slots:
            if slot.offset < 0:
                size = slot.array.nbytes
                targets[slot.name] = self._resources.pool.take(size)
                staged = device.allocate_pinned(max(size, 1))
                np.copyto(staged.array[:size].view(slot.array.dtype), slot.array.ravel())
                device.copy_to_device(targets[slot.name].address, staged, size, stream)
                stream.synchronize()
                staged.close()
        for name, memory in self.deferred.items():
            targets[name] = memory.take(name)

    def shapes(self) -> dict[str, Shape]:
        """The shapes of the outputs, after the inference has been enqueued."""
        shapes = {slot.name: slot.array.shape for slot in self._output_slots}
        return shapes | {name: memory.finish(name)[1] for name, memory in self.deferred.items()}

    def results(self, received: Outputs) -> Outputs:
        """New arrays of what `download` brought, after the stream has come to it.

        Args:
            received: What `receive` has returned for it, which is taken over.
        """
        found = {
            slot.name: received[slot.name] if slot.name in received else slot.array.copy()
            for slot in self._output_slots
        }
        for name, memory in self.deferred.items():
            shape = memory.finish(name)[1]
            found[name] = self._results[name].view(0, shape, self._dtype(name)).copy()
        if len(found) == 1:
            return found
        return {tensor.spec.name: found[tensor.spec.name] for tensor in self._outputs}

    def close(self) -> None:
        """Lets go of TensorRT's context and frees all memory."""
        self._vendor = None
        for block in (self._upload, self._download, *self._results.values()):
            block.close()
        for memory in self.deferred.values():
            memory.close()
        for event in self._events:
            event.close()

    def _shape(
        self, feeds: DeviceFeeds, shapes: Mapping[str, Shape], stream: Stream, log: Recording
    ) -> None:
        """Tells TensorRT the inputs' shapes, and the values of those that decide others."""
        interface = self._resources.interface
        profile = interface.profile_for(shapes, self._profile)
        if profile != self._profile:
            done = self._vendor.set_optimization_profile_async(profile, stream.handle)
            check(done, log, f"take optimization profile {profile}")
            self._profile = profile
            stream.synchronize()  # TensorRT wants that before anything else uses the profile.
        for tensor in self._inputs:
            name = tensor.spec.name
            if not tensor.spec.is_static:
                shape = shapes[name]
                done = self._vendor.set_input_shape(name, shape)
                check(done, log, f"take shape {list(shape)} for input {name!r}")
        # Read by TensorRT whenever it likes, and therefore kept and not overwritten.
        self._host_inputs = {name: np.array(feeds[name], order="C") for name in self._hosted}
        for name, array in self._host_inputs.items():
            self._bind(name, array.ctypes.data, log)
        try:
            missing = self._vendor.infer_shapes()
        except RuntimeError as error:  # How the bindings tell that layers cannot combine the sizes.
            raise refusal(log, "infer the shapes that follow from those of the inputs") from error
        if missing or log.errors:
            lacks = ", ".join(missing) or "none"
            raise refusal(log, f"infer all shapes from these inputs (it lacks that of {lacks})")

    def _lay_out(self, shapes: Mapping[str, Shape], log: Recording) -> None:
        """Gives each tensor its place for these shapes, and TensorRT its address."""
        sized = [(tensor, shapes[tensor.spec.name]) for tensor in self._inputs]
        self._input_slots = _place(self._upload, sized, self._host_inputs)
        sized, deferred = [], []
        for tensor in self._outputs:
            shape = tuple(self._vendor.get_tensor_shape(tensor.spec.name))
            if -1 in shape:
                deferred.append(tensor.spec.name)
            else:
                sized.append((tensor, shape))
        self._defer(deferred, log)
        hosted = {t.spec.name: np.empty(shape, t.spec.dtype) for t, shape in sized if t.on_host}
        self._output_slots = _place(self._download, sized, hosted)
        self._expect()
        for slot in (*self._input_slots, *self._output_slots):
            self._bind(slot.name, self._address(slot.name), log)
        self._displaced.clear()

    def _expect(self) -> None:
        """Plans in which pieces large outputs arrive, each with an event behind it."""
        self._arrivals = []
        if self._download.size <= 2 * _PIECE or self._resources.config.mapped:
            return
        spin = self._resources.config.spin
        for slot in self._output_slots:
            for start, stop in _pieces(slot.array) if slot.offset >= 0 else ():
                if len(self._events) == len(self._arrivals):
                    self._events.append(self._resources.device.create_event(spin=spin))
                self._arrivals.append((slot, start, stop, self._events[len(self._arrivals)]))

    def _defer(self, names: Sequence[str], log: Recording) -> None:
        """Lets TensorRT ask for the memory of these outputs."""
        for name in names:
            if name not in self.deferred:
                memory = OutputMemory(self._resources.trt, self._resources.device)
                done = self._vendor.set_output_allocator(name, memory.vendor)
                check(done, log, f"take an allocator for output {name!r}")
                self.deferred[name] = memory
                self._results[name] = Staging(self._resources.device, mapped=False)

    def _address(self, name: str) -> int:
        for slots, staging in (
            (self._input_slots, self._upload),
            (self._output_slots, self._download),
        ):
            for slot in slots:
                if slot.name == name:
                    on_host = slot.offset < 0
                    return slot.array.ctypes.data if on_host else staging.address(slot.offset)
        raise AssertionError(name)

    def _bind(self, name: str, address: int, log: Recording) -> None:
        done = self._vendor.set_tensor_address(name, address)
        check(done, log, f"take an address for tensor {name!r}")

    def _dtype(self, name: str) -> np.dtype[Any]:
        return next(np.dtype(t.spec.dtype) for t in self._outputs if t.spec.name == name)


def _pieces(array: Array) -> Iterator[tuple[int, int]]:
    """The elements of each piece of an array: first, and the one behind the last."""
    step = max(_PIECE // array.itemsize, -(-array.size // _MOST_PIECES))
    for start in range(0, array.size, step):
        yield start, min(start + step, array.size)


def _place(
    staging: Staging, sized: Sequence[tuple[Tensor, Shape]], hosted: Mapping[str, Array]
) -> tuple[Slot, ...]:
    """A slot for each tensor: in the staging block, or where the engine wants it, in `hosted`."""
    staged = [(tensor, shape) for tensor, shape in sized if not tensor.on_host]
    dtypes = [np.dtype(tensor.spec.dtype) for tensor, _ in staged]
    offsets = staging.place(
        [
            dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            for (_, shape), dtype in zip(staged, dtypes, strict=True)
        ]
    )
    slots = {
        tensor.spec.name: Slot(tensor, offset, staging.view(offset, shape, dtype))
        for (tensor, shape), dtype, offset in zip(staged, dtypes, offsets, strict=True)
    }
    for tensor, _ in sized:
        if tensor.on_host:
            slots[tensor.spec.name] = Slot(tensor, -1, hosted[tensor.spec.name])
    return tuple(slots[tensor.spec.name] for tensor, _ in sized)
