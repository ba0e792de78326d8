"""Loading object code: what a process looks like when it has been at work for a while."""

import subprocess
import sys

import pytest

# Code and its constants are addressed relative to each other within 2 GB. Here room for the code is left only
# below 4 GB of reserved addresses, while the constants would fit into small gaps far above them.
FRAGMENTED = r"""
import ctypes, mmap
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.targets import host
from tilewright.runtime.jit import Engine

libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]

def reserve(size):
    address = libc.mmap(None, size, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)  # no access, no swap
    assert address != ctypes.c_void_p(-1).value
    return address

lines = ["  %x0 = insertelement <4 x i32> zeroinitializer, i32 %a, i32 1"]
expected = 5
for i in range(9000):  # alternating, so that nothing folds
    operation = ("add", "xor")[i % 2]
    lines.append(f"  %x{i + 1} = {operation} <4 x i32> %x{i}, <i32 {i}, i32 {7 * i}, i32 1, i32 {i}>")
    expected = expected + 7 * i if operation == "add" else expected ^ (7 * i)
lines.append("  %y = extractelement <4 x i32> %x9000, i32 1")
code = compile_module("define i32 @f(i32 %a) {\n" + "\n".join(lines) + "\n  ret i32 %y\n}", host())
Engine(code)  # what LLVM allocates once is allocated
below = reserve(4 << 30)
while reserve(48 << 10) > below:
    pass
engine = Engine(code)
function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32)(engine.address("f"))
assert function(5) == expected, (function(5), expected)
print("ran")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the reservation is made with Linux's mmap flags")
def test_code_is_loaded_into_a_fragmented_address_space() -> None:
    done = subprocess.run([sys.executable, "-c", FRAGMENTED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran\n"
