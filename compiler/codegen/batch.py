"""The entry point for any number of samples: a loop around entry points for fixed numbers.

    define i32 @tw_run(ptr %inputs, ptr %outputs, .., i32 %threads, i64 %n)
      while 8 samples are left: call i32 @tw_run.8(..) with the arrays' addresses moved on to the next sample
      while 1 is left:          call i32 @tw_run.1(..)
      ret i32 0

Which samples come together depends on `n` alone. The workspace is used anew by each call.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.compiler.codegen.entry import SPACES, TIMED


@dataclass(frozen=True)
class Strides:
    """Bytes of a sample, by input and by output; 0 for an input that is the same for all samples."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def emit_batch_entry(
    name: str, pieces: Sequence[tuple[int, str]], strides: Strides, linkage: str = "", timed: bool = False
) -> str:
    """LLVM IR text of the entry point `name`. `pieces` are (samples, entry point), the largest first, 1 the last.

    If it is timed, so are they.
    """
    more = TIMED if timed else ""
    arrays = {"inputs": strides.inputs, "outputs": strides.outputs}
    params = ", ".join([*(f"ptr %{space}" for space in SPACES), "ptr %pool", "i32 %threads"])
    lines = [f"define {linkage}i32 @{name}({params}, i64 %n{more}) #0 {{", "entry:"]
    lines += [f"  %{space}.here = alloca [{max(len(bytes), 1)} x ptr]" for space, bytes in arrays.items()]
    lines.append(f"  br label %some{pieces[0][0]}")
    start, before = "0", "entry"
    for number, (samples, entry) in enumerate(pieces):
        after = f"some{pieces[number + 1][0]}" if number + 1 < len(pieces) else "done"
        lines += [
            f"some{samples}:",
            f"  %first{samples} = phi i64 [ {start}, %{before} ], [ %next{samples}, %run{samples} ]",
            f"  %left{samples} = sub i64 %n, %first{samples}",
            f"  %more{samples} = icmp sge i64 %left{samples}, {samples}",
            f"  br i1 %more{samples}, label %run{samples}, label %{after}",
            f"run{samples}:",
        ]
        for space, sizes in arrays.items():
            for index, size in enumerate(sizes):
                at = f"{space}{samples}.{index}"
                lines += [
                    f"  %{at}.from = getelementptr ptr, ptr %{space}, i64 {index}",
                    f"  %{at}.start = load ptr, ptr %{at}.from",
                    f"  %{at}.offset = mul i64 %first{samples}, {size}",
                    f"  %{at}.moved = getelementptr i8, ptr %{at}.start, i64 %{at}.offset",
                    f"  %{at}.to = getelementptr ptr, ptr %{space}.here, i64 {index}",
                    f"  store ptr %{at}.moved, ptr %{at}.to",
                ]
        lines += [
            f"  %code{samples} = call i32 @{entry}(ptr %inputs.here, ptr %outputs.here, ptr %constants, "
            f"ptr %workspace, ptr %pool, i32 %threads{more})",
            f"  %next{samples} = add i64 %first{samples}, {samples}",
            f"  br label %some{samples}",
        ]
        start, before = f"%first{samples}", f"some{samples}"
    return "\n".join([*lines, "done:", "  ret i32 0", "}", ""])
