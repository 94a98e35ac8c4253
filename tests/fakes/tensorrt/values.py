"""Dims, Weights, IHostMemory, and the key and value of a timing cache's entries."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fakes.tensorrt.classes import Behaviour, attach, behaviour

NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}


@behaviour("Dims", "Dims2", "Dims3", "Dims4", "DimsHW")
class Dims(Behaviour):
    """[ran] Equal to a tuple, and printed like one."""

    hands_out_facade = True
    MAX_DIMS = 8

    def __init__(self, library: Any, *shape: Any) -> None:
        super().__init__(library)
        self._sizes = list(shape[0]) if shape and isinstance(shape[0], list) else list(shape)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, arg0: Any) -> Any:
        if isinstance(arg0, slice):
            return tuple(self._sizes[arg0])
        if not -len(self._sizes) <= arg0 < len(self._sizes):
            raise IndexError("Out of bounds")
        return self._sizes[arg0]

    def __setitem__(self, arg0: Any, arg1: Any) -> None:
        self._sizes[arg0] = arg1

    def __eq__(self, other: object) -> bool:
        try:
            return tuple(self._sizes) == tuple(other)  # type: ignore[arg-type]
        except TypeError:
            return False

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self._sizes))


@behaviour("Weights")
class Weights(Behaviour):
    def __init__(self, library: Any, *given: Any) -> None:
        super().__init__(library)
        if isinstance(given[0], np.ndarray):
            if not given[0].flags.c_contiguous:
                raise ValueError("Could not convert NumPy array to Weights. Is it contiguous?")
            self.array = given[0]
            names = [name for name, kind in NUMPY.items() if kind == given[0].dtype]
            if not names:
                raise TypeError(f"Could not implicitly convert NumPy data type: {given[0].dtype}")
            self.dtype = names[0]
        elif len(given) == 1:
            self.dtype, self.array = given[0], np.zeros(0, NUMPY.get(given[0], np.uint8))
        else:
            raise NotImplementedError("Weights(type, ptr, count) has no behaviour in the fake.")

    @property
    def size(self) -> int:
        return int(self.array.size)

    @property
    def nbytes(self) -> int:
        return int(self.array.nbytes)

    def __len__(self) -> int:
        return self.size

    def numpy(self) -> Any:
        """[ran] Silently zeros with numpy 2 before 10.16: reading arrays out of TensorRT breaks."""
        if np.lib.NumpyVersion(np.__version__) >= "2.0.0" and self.library.version < (10, 16):
            return np.zeros_like(self.array)
        return self.array


class _Buffer(bytearray):
    """Gives IHostMemory the buffer protocol, writable. [ran] It has no length and no items."""

    __len__ = None  # type: ignore[assignment]
    __getitem__ = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and not hasattr(HostMemory, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return super().__getattribute__(name)


@behaviour("IHostMemory")
class HostMemory(Behaviour):
    """Bytes of the library's: serialised engines and caches."""

    facade_base = _Buffer
    dtype = "INT8"

    def __init__(self, library: Any, data: bytes) -> None:
        super().__init__(library)
        self._data = data

    @property
    def nbytes(self) -> int:
        return len(self._data)

    def as_facade(self) -> Any:
        facade = self._facade()
        if facade is None:
            cls = self.library.types.classes["IHostMemory"]
            facade = cls.__new__(cls)
            bytearray.__init__(facade, self._data)
            attach(facade, self)
        return facade
