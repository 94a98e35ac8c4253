"""However the interpreter ends, it ends quietly and with its own exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.software_gpu.cuda.conftest import DRIVERS

PRELUDE = """
import atexit, gc, sys, threading, time
from tests.software_gpu.gpu import load
gpu = load()
gpu.reset()
from edge_runtime.cuda.device import open_device
from edge_runtime.cuda.array import DeviceArray
device = open_device(sys.argv[1])

def everything():
    stream, memory = device.create_stream(), device.allocate(4096)
    source, target = device.allocate_pinned(4096), device.allocate_pinned(4096, mapped=True)
    with device.capture(stream) as captured:
        device.copy_to_device(memory.address, source, 4096, stream)
    event = device.create_event()
    with device.current():
        captured.graph.launch(stream)
        device.copy_to_host(target, memory.address, 4096, stream)
        event.record(stream)
    array = DeviceArray(device.allocate(64), (16,), "float32", device)
    return [stream, memory, source, target, captured.graph, event, array, array.__dlpack__()]
"""

# What the program does, and its exit code.
ENDS = {
    "after use": ("things = everything(); [t.close() for t in things[:-1]]", 0),
    "with things open": ("things = everything()", 0),
    "with things in a cycle": ("gc.disable(); things = everything(); things.append(things)", 0),
    "with things of a thread that ended": (
        "things = []\n"
        "t = threading.Thread(target=lambda: things.extend(everything())); t.start(); t.join()",
        0,
    ),
    "sys.exit in current()": ("with device.current():\n    things = everything(); sys.exit(7)", 7),
    "exception in current()": ("with device.current():\n    things = everything(); 1 // 0", 1),
    "exception in a capture": (
        "s = device.create_stream()\nwith device.capture(s):\n    1 // 0",
        1,
    ),
    "sys.exit in a capture": (
        "s = device.create_stream()\nwith device.capture(s):\n    sys.exit(7)",
        7,
    ),
    "sys.exit in a thread": (
        "def work():\n    with device.current():\n        things = everything(); sys.exit(7)\n"
        "t = threading.Thread(target=work); t.start(); t.join()",
        0,
    ),
    "while a thread works": (
        "def work():\n    with device.current():\n        time.sleep(0.2); things = everything()\n"
        "threading.Thread(target=work).start()",
        0,
    ),
    "while a daemon thread waits in current()": (
        "ready = threading.Event()\n"
        "def work():\n    with device.current():\n"
        "        things = everything(); ready.set(); time.sleep(60)\n"
        "threading.Thread(target=work, daemon=True).start(); ready.wait()",
        0,
    ),
    "while a daemon thread copies": (
        "ready = threading.Event()\n"
        "def work():\n    stream, memory, source, *rest = everything()\n"
        "    while True:\n        with device.current():\n"
        "            device.copy_to_device(memory.address, source, 4096, stream)\n"
        "            stream.synchronize()\n        ready.set()\n"
        "threading.Thread(target=work, daemon=True).start(); ready.wait()",
        0,
    ),
    "in a generator's current()": (
        "def work():\n    with device.current():\n        yield everything()\n"
        "work = work(); next(work)",
        0,
    ),
    "closing in atexit": (
        "things = everything()\natexit.register(lambda: [t.close() for t in things[:-1]])",
        0,
    ),
    "making things in atexit": ("atexit.register(lambda: globals().update(x=everything()))", 0),
    "with a lost device": ("things = everything(); gpu.lose_device()", 0),
    "with a lost device that was seen": (
        "things = everything(); gpu.lose_device()\n"
        "try:\n    device.memory_info()\nexcept Exception: pass\nthings.clear()",
        0,
    ),
    "after a pop that failed": (
        "gpu.fail('cuCtxPopCurrent', error=719)\n"
        "try:\n    device.allocate(64)\nexcept Exception as error: print(error, end='')",
        0,
    ),
    "with an application's primary context in pycuda": (
        "import pycuda.autoprimaryctx\nthings = everything()",
        0,
    ),
    "with an application's own pycuda context": (
        "import pycuda.autoinit\nthings = everything()\nwith device.current(): everything()",
        0,
    ),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("driver", DRIVERS)
def test_the_interpreter_ends_quietly(root: Path, driver: str, end: str) -> None:
    program, code = ENDS[end]
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program, driver],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    stderr = done.stderr
    if code == 1:
        assert stderr.startswith("Traceback")
        assert stderr.rstrip().endswith("ZeroDivisionError: integer division or modulo by zero")
        assert stderr.count("\n") < 12
    else:
        assert stderr == ""
    assert done.returncode == code
    failed = "cuCtxPopCurrent failed: CUDA_ERROR_LAUNCH_FAILED (719)."
    assert done.stdout == (failed if end == "after a pop that failed" else "")
