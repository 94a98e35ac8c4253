"""Lints for operators and attributes that TensorRT lacks, or TensorRT-RTX alone does."""

from __future__ import annotations

from collections.abc import Iterator

from edge_runtime.preflight.findings import Scope, Severity
from edge_runtime.preflight.graph import GraphView, Node
from edge_runtime.preflight.rule import Hit, Rule, at

RTX_GAPS = frozenset({"DeformConv", "NonMaxSuppression", "NonZero", "RoiAlign"})
"""Operators that TensorRT has and TensorRT-RTX has not.

TensorRT-RTX 1.7 has no plugin library: "NonZero plugin creator version 1 was not found", "ROIAlign
plugin was not found", "nms_0 has no runners that implement it". By onnx-tensorrt's changelog,
TensorRT has had them since 8.5, DeformConv since 10.1.
"""

UNSUPPORTED = frozenset(  # One string: a list of these would be forty lines.
    """
    AffineGrid Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
    CenterCropPad Col2Im Compress ConcatFromSequence CumProd DFT Det ImageDecoder MaxRoiPool
    MaxUnpool MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional
    OptionalGetElement OptionalHasElement RegexFullMatch SequenceAt SequenceConstruct
    SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap
    SoftmaxCrossEntropyLoss SplitToSequence StringConcat StringNormalizer StringSplit SwiGLU
    TfIdfVectorizer Unique
    """.split()  # noqa: SIM905
)
_NEVER = ("ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")
_RESIZE_MODES = (
    "half_pixel",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "asymmetric",
    "align_corners",
)
_MAX_K = 3840
_CONSTANT_INPUTS = {"Dropout": 2, "Resize": 2, "Squeeze": 1, "Unsqueeze": 1, "Upsample": 1}
_SHAPE_INPUTS = {
    "BlackmanWindow": (0,),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (3,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}


def unsupported_operator(view: GraphView) -> Iterator[Hit]:
    """ONNX operators that no TensorRT reads.

    `OnnxParser.supports_operator` of TensorRT-RTX 1.7 over all 203 operators of ONNX 1.23, without
    those of `RTX_GAPS` and of the rule quantized-operator.
    """
    for node in view.nodes:
        if not node.domain and node.op in UNSUPPORTED:
            yield at(node, f"TensorRT has no operator {node.op}.")


def custom_operator(view: GraphView) -> Iterator[Hit]:
    """Operators from outside ONNX.

    The parser looks only at an operator's name, whatever its domain (it takes com.microsoft's Gelu)
    and then for a plugin of that name: "Plugin not found, are the plugin name, version, and
    namespace correct?".
    """
    for node in view.nodes:
        if node.domain in _NEVER:
            yield at(node, f"TensorRT has none of the operators of {node.domain}.", Severity.ERROR)
        elif node.domain and not view.has_function(node):
            yield at(
                node,
                f"{node.op} is an operator of {node.domain}, not of ONNX; TensorRT takes it only "
                "if it knows an operator or has a plugin of that name.",
            )


def rtx_gap(view: GraphView) -> Iterator[Hit]:
    """See `RTX_GAPS`."""
    for node in view.nodes:
        if not node.domain and node.op in RTX_GAPS:
            yield at(node, f"TensorRT-RTX has no {node.op}; a Jetson's TensorRT has it.")


def rtx_if(view: GraphView) -> Iterator[Hit]:
    """If, which TensorRT-RTX 1.7 builds in simple graphs and not in others.

    3 of 4 silero-vad models with If: "Assertion tScope.getType() != ScopeType::kUNDEFINED failed.
    graphScope.cpp".
    """
    for node in view.nodes:
        if not node.domain and node.op == "If":
            yield at(node, "TensorRT-RTX fails to build some models with If.")


def attention(view: GraphView) -> Iterator[Hit]:
    """ONNX's Attention (opset 23).

    TensorRT-RTX 1.7 reads it and fails to build torch's export in FP32 and FP16: "Attention
    operation was not supported by a dedicated kernel". TensorRT 10.0 documents opsets up to 20.
    """
    for node in view.nodes:
        if not node.domain and node.op == "Attention":
            yield at(
                node,
                "TensorRT builds Attention only where it has a kernel for exactly this form, and "
                "JetPack 6's TensorRT is older than the operator.",
            )


def resize_mode(view: GraphView) -> Iterator[Hit]:
    """Ways to resize that TensorRT-RTX 1.7's parser refuses.

    "TensorRT only supports half_pixel, pytorch_half_pixel, tf_half_pixel_for_nn, asymmetric and
    align_corners", "Antialiasing is not supported currently", "only support round_prefer_floor
    nearest mode in tf_half_pixel_for_nn", "Only `stretch` is supported".
    """
    for node in _of(view, "Resize"):
        mode = node.attribute("coordinate_transformation_mode", "half_pixel")
        nearest = node.attribute("mode", "nearest") == "nearest"
        rounding = node.attribute("nearest_mode", "round_prefer_floor")
        if mode not in _RESIZE_MODES:
            yield at(node, f"TensorRT has no coordinate_transformation_mode {mode}.")
        elif mode == "tf_half_pixel_for_nn" and nearest and rounding != "round_prefer_floor":
            yield at(node, f"TensorRT has no nearest_mode {rounding} for tf_half_pixel_for_nn.")
        if node.attribute("antialias", 0):
            yield at(node, "TensorRT does not resize with antialiasing.")
        policy = node.attribute("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            yield at(node, f"TensorRT has no keep_aspect_ratio_policy {policy}.")


def large_top_k(view: GraphView) -> Iterator[Hit]:
    """TensorRT-RTX 1.7's builder: "K exceeds the maximum value allowed (3840)"."""
    for node in _of(view, "TopK"):
        k = node.array(1)
        if k is not None and k.size == 1 and int(k.ravel()[0]) > _MAX_K:
            yield at(node, f"K is {int(k.ravel()[0])}; TensorRT's largest is {_MAX_K}.")


def fed_constant(view: GraphView) -> Iterator[Hit]:
    """Axes, float scales and Dropout's training_mode that are known at run time only.

    TensorRT-RTX 1.7: "Axis input must resolve to a build-time constant", "squeeze axis is not a
    constant", "Network input a is a shape tensor and must have type Int32 or Int64", "only supports
    the training_mode input as an initializer".
    """
    for node in view.nodes:
        index = 1 if node.op.startswith("Reduce") else _CONSTANT_INPUTS.get(node.op)
        if index is not None and not node.domain and node.input(index).fed:
            yield at(
                node, f"{node.input_name(index)!r} is an input; TensorRT needs a constant here."
            )


def shape_input(view: GraphView) -> Iterator[Hit]:
    """Inputs whose values decide a shape: TensorRT-RTX 1.7 builds them with a range of values."""
    for node in view.nodes:
        for index in _SHAPE_INPUTS.get(node.op, ()):
            name = node.input_name(index)
            if not node.domain and node.input(index).fed and not view.has_range(name):
                yield at(
                    node,
                    f"Input {name!r} decides a shape; TensorRT needs the range of its values: "
                    f"--shape {name}=MIN,OPT,MAX, values separated by x.",
                )


def training_mode(view: GraphView) -> Iterator[Hit]:
    """BatchNormalization and Dropout as in training.

    TensorRT-RTX 1.7's parser: "does not support training_mode == 1 in BatchNormalization", "does
    not support the Dropout operator in training mode".
    """
    for node in _of(view, "BatchNormalization", "Dropout"):
        training = node.attribute("training_mode", 0)
        if node.op == "BatchNormalization":
            training = training or sum(map(bool, node.proto.output)) > 1
        else:
            flag = node.array(2)
            training = flag is not None and bool(flag.any())
        if training:
            yield at(node, f"{node.op} is in training mode.")


def _of(view: GraphView, *ops: str) -> Iterator[Node]:
    return (node for node in view.nodes if not node.domain and node.op in ops)


RULES = (
    Rule(
        "unsupported-operator",
        Severity.ERROR,
        unsupported_operator,
        "Express it in other operators, or do this step outside of the model.",
    ),
    Rule(
        "custom-operator",
        Severity.WARNING,
        custom_operator,
        "Export the model with ONNX's own operators.",
    ),
    Rule(
        "rtx-gap",
        Severity.NOTE,
        rtx_gap,
        "Build the plan on the Jetson; a plan for TensorRT-RTX needs the model without it.",
        Scope.RTX,
    ),
    Rule(
        "rtx-if",
        Severity.WARNING,
        rtx_if,
        "If it fails, build the plan on the Jetson, or export the branch you need without If.",
        Scope.RTX,
    ),
    Rule("attention", Severity.WARNING, attention, "Export with opset 20, which decomposes it."),
    Rule(
        "resize-mode",
        Severity.ERROR,
        resize_mode,
        "Export with half_pixel or align_corners, without antialiasing or aspect ratio policy.",
    ),
    Rule("large-top-k", Severity.ERROR, large_top_k, f"Use K up to {_MAX_K}, or sort on the host."),
    Rule(
        "fed-constant",
        Severity.ERROR,
        fed_constant,
        "Make it an initializer; export with the value fixed.",
    ),
    Rule(
        "shape-input",
        Severity.WARNING,
        shape_input,
        "Give the range, or export with the value fixed.",
    ),
    Rule("training-mode", Severity.ERROR, training_mode, "Export the model in evaluation mode."),
)
