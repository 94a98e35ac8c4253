"""The parser's errors in words; the descriptions are those of TensorRT-RTX 1.7.1.116."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from edge_runtime.backends.tensorrt.parse import parser_failures

NO_DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient "
    "for CUDA runtime version))"
)


@dataclass
class Error:
    """A ParserError."""

    text: str
    number: int = 0
    name: str = "n1"
    operator: str = "Det"
    source: str = "onnxOpCheckers.cpp"
    function: str = "checkDet"
    stack: tuple[str, ...] = ()

    def desc(self) -> str:
        return self.text

    def node(self) -> int:
        return self.number

    def node_name(self) -> str:
        return self.name

    def node_operator(self) -> str:
        return self.operator

    def file(self) -> str:
        return self.source

    def func(self) -> str:
        return self.function

    def local_function_stack(self) -> list[str]:
        return list(self.stack)


class Parser:
    """An OnnxParser with these errors."""

    def __init__(self, *errors: Error) -> None:
        self._errors = errors
        self.num_errors = len(errors)

    def get_error(self, index: int) -> Error:
        return self._errors[index]


def line(**fields: object) -> str:
    (failure,) = parser_failures(Parser(Error(**fields)))
    return str(failure)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("false", "operator Det is not supported"),
        (
            'creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
            "Plugin not found, are the plugin name, version, and namespace correct?",
        ),
        (
            '(mode == "a" || mode == "b") && "TensorRT only supports a and " "b!"',
            "TensorRT only supports a and b!",
        ),
        ("Assertion failed: all(z): Not zero.", "all(z): Not zero."),
        (f"Invalid Node - n1\nhas type Int32\n{NO_DRIVER}", "has type Int32"),
        ("Invalid Node - n1", "Invalid Node - n1"),
        ("a\n[x::catchCudaError] (cudaError 2: out of memory)", "(cudaError 2: out of memory)"),
    ],
)
def test_the_reason_is_nvidias_words_without_the_code_around_them(text: str, reason: str) -> None:
    assert line(text=text).endswith(reason)
    assert line(text=text).startswith("node 'n1' (Det): ")


def test_where_it_is() -> None:
    assert line(text="false", name="", number=3).startswith("node number 3 (Det): ")
    nested = line(text="false", stack=("if1 (If)", "e (else_branch)"))
    assert nested.startswith("node 'n1' (Det) in e (else_branch) in if1 (If): ")


def test_an_input_is_named_though_the_parser_hides_its_name() -> None:
    error = {"number": -1, "name": "", "operator": "", "source": "x", "function": "importInput"}
    assert line(text="no such type", **error) == "input 'x': no such type"


def test_the_same_error_twice_is_said_once() -> None:
    assert len(parser_failures(Parser(Error("false"), Error("false"), Error("other")))) == 2
    assert parser_failures(Parser()) == ()
