"""The one logger: errors to the build that is running, the rest to Python's logging."""

from __future__ import annotations

import enum
import logging
import threading
import types
from typing import Any

import pytest

from edge_runtime.backends.tensorrt.logger import recording, strip_noise

NO_DRIVER = "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35: x)"


class Severity(enum.Enum):
    """TensorRT's."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    """TensorRT's base class, which must have been initialised."""

    def __init__(self) -> None:
        self.ready = True


@pytest.fixture
def trt() -> Any:
    made = types.ModuleType("fake_tensorrt")
    made.ILogger = ILogger
    return made


def test_errors_are_recorded_in_order_without_noise(trt: Any) -> None:
    with recording(trt) as (logger, log):
        assert logger.ready
        logger.log(Severity.ERROR, f"first\n{NO_DRIVER}")
        logger.log(Severity.ERROR, NO_DRIVER)
        logger.log(Severity.INTERNAL_ERROR, "second")
        logger.log(Severity.WARNING, "no error")
    assert log.errors == ("first", "second")


def test_each_build_has_its_own_errors_and_the_same_logger(trt: Any) -> None:
    with recording(trt) as (first_logger, first):
        first_logger.log(Severity.ERROR, "a")
    with recording(trt) as (second_logger, second):
        second_logger.log(Severity.ERROR, "b")
    assert first_logger is second_logger
    assert (first.errors, second.errors) == (("a",), ("b",))


def test_what_is_no_error_goes_to_logging(trt: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edge_runtime.tensorrt")
    with recording(trt) as (logger, _):
        logger.log(Severity.WARNING, "careful: 100 %s")
        logger.log(Severity.WARNING, "Make sure input x has Int64 binding.")
        logger.log(Severity.INFO, "chatter")
    logger.log(Severity.ERROR, "after the build")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "careful: 100 %s"),
        ("ERROR", "after the build"),
    ]


def test_builds_in_two_threads_do_not_mix(trt: Any) -> None:
    results: dict[str, tuple[str, ...]] = {}

    def build(name: str) -> None:
        with recording(trt) as (logger, log):
            for _ in range(100):
                logger.log(Severity.ERROR, name)
            results[name] = log.errors

    threads = [threading.Thread(target=build, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {"a": ("a",) * 100, "b": ("b",) * 100}


def test_a_build_that_fails_lets_the_next_one_in(trt: Any) -> None:
    with pytest.raises(ZeroDivisionError), recording(trt):
        raise ZeroDivisionError
    with recording(trt) as (_, log):
        assert log.errors == ()


def test_only_the_missing_driver_is_noise() -> None:
    memory = "[a.cpp::catchCudaError::1] Cuda Runtime (cudaError 2: out of memory)"
    assert strip_noise(f"x\n{NO_DRIVER}\n{memory}") == f"x\n{memory}"
