"""tegrastats as a program: its last line, its end, its silence. Small programs stand for it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_runtime.errors import DataError
from edge_runtime.telemetry.readings import Reading
from edge_runtime.telemetry.tegrastats_process import TegrastatsProcess

STEADY = """
import itertools, time
for number in itertools.count(1):
    print(f"RAM {number}/9999MB VDD_IN 5000mW/5000mW", flush=True)
    time.sleep(0.02)
"""
ONE = "print('RAM 1/2MB', flush=True)\n"
WAIT = "import time; time.sleep(60)\n"
UNTIL = "import os, time\nwhile not os.path.exists({path!r}): time.sleep(0.01)\n"
NOTED = "import os; open({note!r}, 'w').write(str(os.getpid()))\n"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + ONE + WAIT


def until(source: TegrastatsProcess, done: Callable[[Reading], bool]) -> Reading:
    """The first reading that will do; a test that hangs ends with pytest's own limit."""
    while not done(reading := source.read(time.perf_counter())):
        time.sleep(0.01)
    return reading


@pytest.fixture
def start() -> Iterator[Callable[..., TegrastatsProcess]]:
    """Starts a program of Python in tegrastats' place; it is closed in the end."""
    started = []

    def run(code: str, **options: float) -> TegrastatsProcess:
        source = TegrastatsProcess([sys.executable, "-c", code], **options)
        started.append(source)
        return source

    yield run
    for source in started:
        source.close()


def test_the_last_line_is_there_at_once_and_goes_with_the_time(
    start: Callable[..., TegrastatsProcess],
) -> None:
    source = start(STEADY)
    first = source.read(time.perf_counter())
    assert first.total_watts == 5.0
    later = until(source, lambda reading: reading.memory_used != first.memory_used)
    assert (later.memory_used or 0) > (first.memory_used or 0)
    assert later.seconds > first.seconds


def test_a_line_in_two_pieces_is_one_line(start: Callable[..., TegrastatsProcess]) -> None:
    source = start(
        "import sys, time\n"
        "print('RAM 1/9MB', flush=True)\n"
        "sys.stdout.write('RAM 2/9'); sys.stdout.flush(); time.sleep(0.2)\n"
        "print('MB', flush=True); time.sleep(60)\n"
    )
    assert source.read(time.perf_counter()).memory_used == 1 << 20
    assert until(source, lambda reading: reading.memory_used != 1 << 20).memory_used == 2 << 20


def test_when_it_ends_its_own_words_are_in_the_error(
    tmp_path: Path,
    start: Callable[..., TegrastatsProcess],
) -> None:
    end = tmp_path / "end"
    source = start(f"{ONE}{UNTIL.format(path=str(end))}import sys; sys.exit('no more sensors')")
    end.touch()
    with pytest.raises(DataError, match=r"ended with exit code 1: no more sensors"):
        until(source, lambda reading: False)


def test_a_program_that_closes_its_output_is_not_waited_for(
    tmp_path: Path, start: Callable[..., TegrastatsProcess]
) -> None:
    with pytest.raises(DataError, match="has closed its output"):
        start(f"import os; os.close(1)\n{WAIT}")


def test_a_flood_of_lines_is_read_and_does_not_hold_up(
    start: Callable[..., TegrastatsProcess],
) -> None:
    source = start("while True: print('RAM 1/2MB ' * 100)")
    assert source.read(time.perf_counter()).memory_used == 1 << 20


def test_a_program_that_ends_before_a_line_is_refused(
    start: Callable[..., TegrastatsProcess],
) -> None:
    with pytest.raises(DataError, match=r"ended with exit code 3\."):
        start("import sys; sys.exit(3)")


def test_another_program_is_refused(start: Callable[..., TegrastatsProcess]) -> None:
    with pytest.raises(DataError, match="'hello' is no line of tegrastats"):
        start("print('hello', flush=True)\n" + WAIT)


def test_a_program_without_line_ends_does_not_fill_the_memory(
    start: Callable[..., TegrastatsProcess],
) -> None:
    with pytest.raises(DataError, match="writes no lines"):
        start("import sys\nwhile True: sys.stdout.write('x' * 65536)")


def test_silence_is_no_reading(start: Callable[..., TegrastatsProcess]) -> None:
    with pytest.raises(DataError, match=r"wrote no line within 0\.2 s"):
        start(WAIT, patience=0.2)
    source = start(ONE + WAIT, patience=3.0)
    begun = source.read(time.perf_counter()).seconds
    with pytest.raises(DataError, match="has written no line for 3 s"):
        source.read(begun + 3.1)


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"Cannot start /nowhere/tegrastats: No such file"):
        TegrastatsProcess(["/nowhere/tegrastats"])


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("code", [STEADY, STUBBORN])
def test_closed_it_is_gone_whether_it_wants_or_not(
    tmp_path: Path, start: Callable[..., TegrastatsProcess], code: str
) -> None:
    note = tmp_path / "process"
    source = start(NOTED.format(note=str(note)) + code)
    process = int(note.read_text())
    assert alive(process)
    source.close()
    assert not alive(process)
    source.close()


def test_refused_it_is_gone_as_well(
    tmp_path: Path, start: Callable[..., TegrastatsProcess]
) -> None:
    note = tmp_path / "process"
    with pytest.raises(DataError):
        start(NOTED.format(note=str(note)) + "print(1, flush=True)\n" + WAIT)
    assert not alive(int(note.read_text()))
