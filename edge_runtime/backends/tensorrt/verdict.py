r"""Says what TensorRT made of a graph: each layer's precision, and what fell back to a wider one.

Two sides are compared. What was asked is read from the parsed network, whose types are the graph's
own; a convolution or product of matrices whose operands come out of DequantizeLinear was asked in
their quantized type. What was built is read from the engine inspector's JSON. A plan made with
ProfilingVerbosity.DETAILED has an object for each layer:

    {"Layers": [{"Name": "conv1 + relu1", "LayerType": "CaskConvolution",
                 "Inputs": [{"Name": "x", "Format/Datatype": "Row major Int8 format"}],
                 "Outputs": [...], "Weights": {"Type": "Int8", "Count": 54},
                 "Metadata": "[ONNX Layer: conv1]\u001e[ONNX Layer: relu1]"}],
     "Bindings": ["x", "y"]}

and others only its name. The form is not documented and varies, so nothing is taken for granted.
What cannot be told, such as what happens within a fused region (ForeignNode), is "unknown".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_runtime.backends.tensorrt.compat import onnx_layers

UNKNOWN = "unknown"

_WIDTHS = {
    "FP32": 32,
    **dict.fromkeys(("FP16", "BF16"), 16),
    **dict.fromkeys(("INT8", "FP8"), 8),
    **dict.fromkeys(("INT4", "FP4"), 4),
}
_SPELLINGS = {
    "FLOAT": "FP32",
    "FLOAT32": "FP32",
    "HALF": "FP16",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    **{name: name for name in (*_WIDTHS, "INT32", "INT64", "UINT8", "BOOL")},
}
_PRECISION = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(_SPELLINGS)})(?![A-Za-z0-9])", re.IGNORECASE)
_PRODUCTS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_NO_WORK = frozenset({"constant", "noop", "signal", "wait"})


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """A layer of an engine, as the inspector tells it.

    Attributes:
        name: Its name.
        kind: Its `LayerType`; empty where it is not told.
        precision: What it computes in, such as `INT8`; `unknown` where it is not told.
        sources: The names of the ONNX nodes in it.
    """

    name: str
    kind: str
    precision: str
    sources: tuple[str, ...]

    @property
    def is_reformat(self) -> bool:
        """Whether it only changes the layout or type of a tensor."""
        return self.kind.lower() == "reformat" or self.name.startswith("Reformatting CopyNode")

    @property
    def does_work(self) -> bool:
        """Whether it is neither a reformat nor a constant nor a mere mark in the schedule."""
        return not self.is_reformat and self.kind.lower() not in _NO_WORK

    @property
    def runs_on_dla(self) -> bool:
        """Whether it is a part of the network that a DLA runs."""
        return self.kind.lower() == "dla"


def asked_precisions(trt: Any, network: Any) -> dict[str, str]:
    """The precision that the graph gives each node, where it gives it one that can be told.

    Args:
        trt: The module.
        network: The strongly typed network that its parser has filled.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantized: dict[str, str] = {}
    for layer in layers:
        if layer.type == trt.LayerType.DEQUANTIZE and layer.get_input(0) is not None:
            dequantized[layer.get_output(0).name] = _of_tensor(layer.get_input(0))
    asked: dict[str, set[str]] = {}
    quantized: dict[str, str] = {}
    for layer in layers:
        if layer.type in (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE):
            continue
        operand = layer.get_input(0) if layer.num_inputs else None
        if operand is None:  # A constant has none, and an optional one may be missing.
            continue
        precision = _of_tensor(operand)
        for name in onnx_layers(layer.metadata) or (layer.name,):
            asked.setdefault(name, set()).add(precision)
            if operand.name in dequantized and layer.type.name in _PRODUCTS:
                quantized[name] = dequantized[operand.name]
    # A node of several layers in several precisions, as a LayerNorm, has none of its own.
    single = {name: min(kinds) for name, kinds in asked.items() if len(kinds) == 1}
    return {n: p for n, p in {**single, **quantized}.items() if p in _WIDTHS}


def read_inspector(text: str) -> tuple[EngineLayer, ...] | None:
    """The layers in an inspector's JSON; None if it is none."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        return None
    layers = plain.get("Layers") if isinstance(plain, dict) else None
    if not isinstance(layers, list):
        return None
    return tuple(_layer(item) for item in layers if isinstance(item, dict | str))


def assess(
    layers: Iterable[EngineLayer],
    asked: Mapping[str, str],
    *,
    dla: bool = False,
    milliseconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What was built, beside what was asked, as plain JSON.

    Args:
        layers: From `read_inspector`.
        asked: From `asked_precisions`.
        dla: Whether the plan was built for a DLA.
        milliseconds: What a profiler measured for layers, by name.

    Returns:
        `layers`, the number of those that do work; `precisions`, how many of them compute in each;
        `reformats`, how many more only change a layout; `fell_back`, a list of `{"layer": ...,
        "asked": ..., "ran": ...}`; `notes`, sentences; and with `milliseconds` given, the time of
        each precision and of the reformats.
    """
    layers = tuple(layers)
    working = [layer for layer in layers if layer.does_work]
    fell_back = [entry for layer in working for entry in _fallbacks(layer, asked, dla=dla)]
    notes = []
    blind = sum(layer.precision == UNKNOWN for layer in working)
    if blind:
        notes.append(
            f"TensorRT does not tell the precision within {blind} of {len(working)} layers."
        )
    verdict = {
        "layers": len(working),
        "precisions": _sorted(Counter(layer.precision for layer in working)),
        "reformats": sum(layer.is_reformat for layer in layers),
        "fell_back": fell_back,
        "notes": notes,
    }
    if milliseconds is not None:
        times: dict[str, float] = {}
        for layer in layers:
            kind = "reformats" if layer.is_reformat else layer.precision
            times[kind] = times.get(kind, 0.0) + milliseconds.get(layer.name, 0.0)
        verdict["milliseconds"] = _sorted(times)
    return verdict


def describe(entry: Mapping[str, str]) -> str:
    """An entry of `fell_back` in words."""
    return f"{entry['layer']}: asked for {entry['asked']}, runs in {entry['ran']}"


def _fallbacks(layer: EngineLayer, asked: Mapping[str, str], *, dla: bool) -> list[dict[str, str]]:
    found = []
    if layer.precision in _WIDTHS:
        for name in layer.sources:
            want = asked.get(name, layer.precision)
            if _WIDTHS[want] < _WIDTHS[layer.precision]:
                found.append({"layer": name, "asked": want, "ran": layer.precision})
    if dla and not layer.runs_on_dla:
        found.append({"layer": layer.name, "asked": "DLA", "ran": "GPU"})
    return found


def _layer(item: dict[str, Any] | str) -> EngineLayer:
    if isinstance(item, str):
        return EngineLayer(item, "", UNKNOWN, _fused(item))
    name, kind, metadata = (_text(item.get(key)) for key in ("Name", "LayerType", "Metadata"))
    return EngineLayer(name, kind, _layer_precision(item), onnx_layers(metadata) or _fused(name))


def _layer_precision(item: dict[str, Any]) -> str:
    """What its weights have, else its first operand, else its result: what it multiplies in."""
    if "ForeignNode" in _text(item.get("Name")):
        return UNKNOWN
    weights = item.get("Weights")
    of_weights = [weights.get("Type")] if isinstance(weights, dict) else []
    tensors: list[object] = []
    for key in ("Inputs", "Outputs"):
        values = item.get(key)
        for tensor in values if isinstance(values, list) else ():
            if isinstance(tensor, dict):
                tensors.append(tensor.get("Format/Datatype", tensor.get("Datatype")))
    told = [p for p in map(_named, (*of_weights, *tensors)) if p is not None]
    numbers = [precision for precision in told if precision in _WIDTHS]
    return (numbers or told or [UNKNOWN])[0]


def _named(description: object) -> str | None:
    """`INT8` of `Thirty-two wide channel vectorized row major Int8 format.`."""
    found = _PRECISION.search(_text(description))
    return _SPELLINGS[found[1].upper()] if found else None


def _of_tensor(tensor: Any) -> str:
    name: str = tensor.dtype.name
    return _SPELLINGS.get(name, name)


def _fused(name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in name.split(" + ") if part.strip())


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _sorted(counts: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
