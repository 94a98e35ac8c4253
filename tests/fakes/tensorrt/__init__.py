"""A TensorRT without a GPU, as strict as the API dump of its version; see `make`.

What it does is what NVIDIA's documentation says ([doc] in comments), what the bindings' source says
([src]), or what TensorRT-RTX 1.7 was seen to do ([ran]). Where these leave a choice, the stricter
one is taken: less is synchronised, less is kept alive.
"""

import importlib

from tests.fakes.tensorrt.dump import labels
from tests.fakes.tensorrt.library import Options, make

for _behaviours in ("builder", "interfaces", "refit", "runtime"):  # They register themselves.
    importlib.import_module(f"tests.fakes.tensorrt.{_behaviours}")

__all__ = ["Options", "labels", "make"]
