"""Writes what INT8 costs, layer by layer, as one HTML page: no script, no network, any screen."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from edge_runtime.cli.sensitivity_chart import chart, level, worst_first
from edge_runtime.pages import document, embedded, plain_text, table
from edge_runtime.text import counted, number, percent, printable

if TYPE_CHECKING:
    from edge_runtime.accuracy.sensitivity import LayerSensitivity, Sensitivity

_WORST = 10
_UNIT = "SQNR"

_STYLE = """
.total { stroke: var(--worst); stroke-width: 1.5; stroke-dasharray: 5 4; }
.bar.worst { fill: var(--worst); }
.dot { fill: var(--dot); stroke: var(--ground); }
svg .rank { fill: var(--worst); font-weight: 700; paint-order: stroke; stroke: var(--ground);
  stroke-width: 3px; }
a:hover .hit, a:focus .hit { fill: color-mix(in srgb, var(--line) 60%, transparent); }
tr:target { background: var(--mark); }
"""


def page(plain: Mapping[str, Any], result: Sensitivity) -> str:
    """The page.

    Args:
        plain: What --json prints; it is in the page as it is, in the element `data`.
        result: The figures.
    """
    axis, field = chart(result)
    name = plain_text(str(plain["model"]))
    calibration = plain["calibration"]
    worst = worst_first(result.layers)
    body = f"""<h1>What INT8 costs {name}</h1>
<p class="soft">{counted(len(result.layers), "layer")}, measured on \
{counted(result.samples, "sample")}; calibrated with {plain_text(str(calibration["method"]))}\
{_calibrated_on(calibration["samples"])}.</p>
<p>With all layers in INT8, the outputs have <b>{level(result.total_noise)}</b>. \
{_summary(worst)}</p>
<h2>Layers, in the graph's order</h2>
<div class="chart">{axis}<div class="scroll" tabindex="0">{field}</div></div>
<ul class="key">
<li><svg width="12" height="12"><rect class="bar" width="12" height="12"/></svg>at the outputs</li>
<li><svg width="12" height="12"><rect class="bar worst" width="12" height="12"/></svg>the worst</li>
<li><svg width="12" height="12"><circle class="dot" cx="6" cy="6" r="4"/></svg>at the layer's own \
output</li>
<li><svg width="24" height="12"><line class="total" x1="0" x2="24" y1="6" y2="6"/></svg>all layers \
in INT8</li>
</ul>
<p class="soft">The taller a bar, the more a layer costs. Point at a column for its figures, or \
follow it to its row below.</p>
<h2>The worst layers</h2>
{_layer_table(result.layers, worst[:_WORST], linked=True)}
<h2>How to read this</h2>
{_READING}
<h2>What to do</h2>
{_advice(str(plain["model"]), worst)}
<h2>The worst tensors</h2>
<p>Each alone in INT8, for all layers that read it so.</p>
{_tensor_table(result)}
<h2>All layers</h2>
{_layer_table(result.layers, result.layers, linked=False)}
{embedded(plain)}"""
    return document(f"What INT8 costs {name}", body, style=_STYLE)


_READING = """<p>All figures are SQNR, the signal to quantization noise ratio: 20 dB means that the
error is a tenth of the signal, 30 dB 3 %, 40 dB a hundredth. More is better, and 10 dB more are a
tenth of the noise.</p>
<ul>
<li><b>Outputs</b>: this layer alone is INT8, all else FP32; the error at the model's outputs, of
several the largest. This is what the layer costs.</li>
<li><b>Own output</b>: the error where it arises. A layer may err much here and cost little, as what
follows does not depend on it; or err little and cost much.</li>
<li><b>From weights</b>, <b>from inputs</b>: the same with the weights alone in INT8, or with what
the layer reads. The lower one is the reason.</li>
<li><b>Share</b>: the layer's part of the noises of all layers at the outputs, added up. If they are
independent, their sum is the noise of all layers in INT8.</li>
</ul>"""


def _summary(worst: Sequence[LayerSensitivity]) -> str:
    """How much of the noise the worst layers make, in a sentence."""
    shares = _shares(worst)
    few = min(3, len(worst))
    if len(worst) <= few or shares is None:
        return ""
    part = sum(shares[row.name] for row in worst[:few])
    return (
        f"The {few} worst of {len(worst)} layers make {percent(part)} of the noise that the layers "
        "make one by one."
    )


def _advice(model: str, worst: Sequence[LayerSensitivity]) -> str:
    names = " ".join(f"--exclude {shlex.quote(printable(row.name))}" for row in worst[:3])
    source = shlex.quote(printable(model))
    command = escape(f"edge-runtime build {source} --precision int8 {names} ...")
    return f"""<ul>
<li><b>Exclude</b>: a few bars stand out? Leave those layers in FP32, or in FP16 with
<code>--high-precision fp16</code>, and measure again.<pre><code>{command}</code></pre></li>
<li><b>Guard</b>: let the build find what to leave out, within a budget:
<code>--max-drop 0.5%</code>.</li>
<li><b>Equalize</b>: channels of unequal size fit one scale badly, and show as a low
<i>from inputs</i> or <i>from weights</i>. Equalization and bias correction are on unless you turned
them off; leave them on.</li>
<li><b>Round better</b>: <i>from weights</i> is the lower one? <code>--effort high</code> chooses
the levels of a layer's weights together.</li>
<li><b>More samples</b>: <i>from inputs</i> is the lower one? Calibrate on more samples like those
that the model will see, or choose ranges in another way, with <code>--method auto</code>.</li>
<li><b>Nothing</b>: no bar stands out and the outputs are good enough? What counts is your task:
measure it with labels.</li>
</ul>"""


def _layer_table(
    layers: Sequence[LayerSensitivity], shown: Iterable[LayerSensitivity], *, linked: bool
) -> str:
    numbers = {row.name: number for number, row in enumerate(layers, 1)}
    shares = _shares(layers)
    rows = []
    for row in shown:
        place = numbers[row.name]
        mark = f'<a href="#layer-{place}">{place}</a>' if linked else str(place)
        where = "" if linked else f' id="layer-{place}"'
        cells = (
            level(row.output_noise),
            "-" if shares is None else percent(shares[row.name]),
            level(row.local_noise),
            level(row.weight_noise),
            level(row.input_noise),
        )
        values = "".join(f"<td>{plain_text(cell)}</td>" for cell in cells)
        name = f'<td class="name">{plain_text(row.name)} <span>{plain_text(row.op)}</span></td>'
        rows.append(f"<tr{where}><td>{mark}</td>{name}{values}</tr>")
    heads = ("outputs", "share", "own output", "from weights", "from inputs")
    return table(("no.", "<layer", *heads), rows, caption=_UNIT)


def _tensor_table(result: Sensitivity) -> str:
    rows = [
        f'<tr><td class="name">{plain_text(row.name)}</td><td>{level(row.output_noise)}</td>'
        f"<td>{level(row.local_noise)}</td><td>{number(row.amax)}</td></tr>"
        for row in worst_first(result.tensors)[:_WORST]
    ]
    return table(("<tensor", "outputs", "itself", "range"), rows, caption=_UNIT)


def _shares(layers: Sequence[LayerSensitivity]) -> dict[str, float] | None:
    """Each layer's part of the sum of all noises; None if there is no finite sum to share."""
    total = sum(row.output_noise for row in layers)
    if not 0 < total < float("inf"):
        return None
    return {row.name: row.output_noise / total for row in layers}


def _calibrated_on(samples: int) -> str:
    return f" on {counted(samples, 'sample')}" if samples else ""
