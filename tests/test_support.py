"""The test helpers themselves."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from support import guarded, run

from tilewright.compiler.loops.builder import Builder
from tilewright.compiler.loops.nodes import F32


def test_run_calls_machine_code() -> None:
    b = Builder("scale")
    x, y, factor = b.input("x", F32, 37), b.output("y", F32, 37), b.scalar("factor", F32)
    b.lanes(37, 16, lambda i, active: b.store(
        y, i, b.mul(b.load(x, i, lanes=16, active=active), factor), active=active))  # fmt: skip
    data = guarded(np.arange(37, dtype=np.float32))
    result = guarded(np.zeros(37, np.float32))
    run(b.finish(), {"x": data, "y": result}, {"factor": 3.0})
    np.testing.assert_array_equal(result, 3 * data)


def test_guarded_ends_at_an_inaccessible_page() -> None:
    code = (
        "import ctypes, numpy as np; from support import guarded;"
        "a = guarded(np.arange(5, dtype=np.float32)); assert a[4] == 4; a[4] = 1;"
        "print('inside', flush=True); ctypes.c_float.from_address(a.ctypes.data + 20).value"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.stdout == "inside\n" and done.returncode < 0, done.stderr
