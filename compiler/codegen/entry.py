"""The entry point: one function that calls every kernel of a program in order.

    define i32 @tw_run(ptr %inputs, ptr %outputs, ptr %constants, ptr %workspace, ptr %pool, i32 %threads)
      %b0 = load ptr, ptr %inputs                     a buffer: the array of an input or output ...
      %b1 = getelementptr i8, ptr %workspace, i64 64  ... or a piece of the constants or the workspace
      call void @conv_direct_0(ptr %b0, ..., ptr %b1, i64 0, i64 112)
      ret i32 0

With a pool (see `pool`) and more than one thread, a second body runs: it writes the buffers of a call that is
worth sharing into an array on its stack and hands the pool the kernel's thunk, which computes one chunk from it:

    define internal void @conv_direct_0.chunk(ptr %frame, i32 %chunk, i32 %slot)

A timed entry point has two parameters more, `ptr %profile, ptr %user`, and says after each call how long it took:

    call void @tw.report(ptr %profile, ptr %user, i32 KERNEL, i64 STARTED)     STARTED = call i64 @tw.clock()
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Space = Literal["inputs", "outputs", "constants", "workspace"]
SPACES: tuple[Space, ...] = ("inputs", "outputs", "constants", "workspace")
CLOCK, REPORT = "tw.clock", "tw.report"
TIMED = ", ptr %profile, ptr %user"
"""What timed entry points take more."""


@dataclass(frozen=True)
class Location:
    """Where a buffer lies: `offset` bytes into input or output `index`, the constants or the workspace."""

    space: Space
    offset: int
    index: int = 0


@dataclass(frozen=True)
class EntryCall:
    """One call: the kernel's symbol, its buffers, how many items it computes, in how many chunks.

    `slot_bytes` is 0, or says that the last buffer is the scratch of slot 0; those of further slots follow at this
    distance. Calls of one symbol agree in all but their buffers.
    """

    symbol: str
    buffers: tuple[Location, ...]
    items: int
    chunks: int = 1
    slot_bytes: int = 0


class _Body:
    """The lines of one body; every pointer is made once. `timed` is the number of the first kernel to report."""

    def __init__(self, prefix: str, index: str, timed: int | None) -> None:
        self.prefix, self.index, self.timed = prefix, index, timed
        self.calls = 0
        self.lines: list[str] = []
        self.names: dict[Location, str] = {}

    def pointer(self, location: Location) -> str:
        if location in self.names:
            return self.names[location]
        number = len(self.names)
        if location.space in ("inputs", "outputs") and location.offset == 0:
            place = f"%{location.space}"
            if location.index:
                arrays, place = place, f"%{self.prefix}s{number}"
                self.lines.append(f"  {place} = getelementptr ptr, ptr {arrays}, i64 {location.index}")
            text = f"load ptr, ptr {place}"
        else:
            base = f"%{location.space}"
            if location.space in ("inputs", "outputs"):
                base = self.pointer(Location(location.space, 0, location.index))
                number = len(self.names)
            text = f"getelementptr i8, ptr {base}, i64 {location.offset}"
        self.names[location] = f"%{self.prefix}b{number}"
        self.lines.append(f"  {self.names[location]} = {text}")
        return self.names[location]

    def call(self, line: str) -> None:
        """A kernel call, with its time if that is wanted."""
        number = self.calls
        self.calls += 1
        if self.timed is None:
            self.lines.append(line)
            return
        started, kernel = f"%{self.prefix}t{number}", -1 if self.timed < 0 else self.timed + number
        self.lines += [
            f"  {started} = call i64 @{CLOCK}()",
            line,
            f"  call void @{REPORT}(ptr %profile, ptr %user, i32 {kernel}, i64 {started})",
        ]

    def straight(self, call: EntryCall) -> None:
        """All items of a call, here."""
        arguments = [f"ptr {self.pointer(location)}" for location in call.buffers]
        arguments += [f"{self.index} 0", f"{self.index} {call.items}"]
        self.call(f"  call void @{call.symbol}({', '.join(arguments)})")

    def shared(self, call: EntryCall) -> None:
        """The call's chunks through the pool."""
        for position, location in enumerate(call.buffers):
            pointer = self.pointer(location)
            self.lines += [
                f"  %f{len(self.lines)} = getelementptr ptr, ptr %frame, i64 {position}",
                f"  store ptr {pointer}, ptr %f{len(self.lines)}",
            ]
        self.call(f"  call void %parallel(ptr @{call.symbol}.chunk, ptr %frame, i32 {call.chunks}, i32 %threads)")


def emit_entry(
    name: str, calls: Sequence[EntryCall], index: str = "i64", linkage: str = "", timed: int | None = None
) -> str:
    """LLVM IR text of the entry point `name` and of the thunks it hands to the pool; `index` is the type of items.

    A timed one reports kernels from number `timed` on, or all as -1 if that is negative. It has no thunks of its
    own: it stands beside one for the same calls that is not timed.
    """
    params = ", ".join([*(f"ptr %{space}" for space in SPACES), "ptr %pool", "i32 %threads"])
    params += TIMED if timed is not None else ""
    straight = _Body("", index, timed)
    for call in calls:
        straight.straight(call)
    parallel = [call for call in calls if call.chunks > 1]
    head = f"define {linkage}i32 @{name}({params}) #0 {{"
    if not parallel:
        return "\n".join([head, *straight.lines, "  ret i32 0", "}", ""])
    shared = _Body("p", index, timed)
    for call in calls:
        shared.straight(call) if call.chunks == 1 else shared.shared(call)
    lines = [
        head,
        f"  %frame = alloca [{max(len(call.buffers) for call in parallel)} x ptr]",
        "  %alone = icmp slt i32 %threads, 2",
        "  %poolless = icmp eq ptr %pool, null",
        "  %serial = or i1 %alone, %poolless",
        "  br i1 %serial, label %straight, label %shared",
        "straight:",
        *straight.lines,
        "  ret i32 0",
        "shared:",
        "  %start = load ptr, ptr %pool",
        "  %second = getelementptr ptr, ptr %pool, i64 1",
        "  %parallel = load ptr, ptr %second",
        "  call void %start(i32 %threads)",
        *shared.lines,
        "  ret i32 0",
        "}",
        "",
    ]
    thunks = {call.symbol: _thunk(call, index) for call in parallel if timed is None}
    return "\n".join([*thunks.values(), *lines])


def _thunk(call: EntryCall, index: str) -> str:
    """The function that computes one chunk: items / chunks items, the first ones one more."""
    lines = [f"define internal void @{call.symbol}.chunk(ptr %frame, i32 %chunk, i32 %slot) #0 {{"]
    names = []
    for position in range(len(call.buffers)):
        lines += [
            f"  %f{position} = getelementptr ptr, ptr %frame, i64 {position}",
            f"  %b{position} = load ptr, ptr %f{position}",
        ]
        names.append(f"ptr %b{position}")
    if call.slot_bytes:
        lines += [
            "  %slot64 = zext i32 %slot to i64",
            f"  %offset = mul i64 %slot64, {call.slot_bytes}",
            f"  %scratch = getelementptr i8, ptr %b{len(call.buffers) - 1}, i64 %offset",
        ]
        names[-1] = "ptr %scratch"
    whole, more = divmod(call.items, call.chunks)
    convert = "zext" if index == "i64" else "bitcast"
    lines += [f"  %this = {convert} i32 %chunk to {index}", f"  %next = add {index} %this, 1"]
    for bound, number in (("begin", "%this"), ("end", "%next")):
        lines += [
            f"  %{bound}.even = mul {index} {number}, {whole}",
            f"  %{bound}.early = icmp ult {index} {number}, {more}",
            f"  %{bound}.extra = select i1 %{bound}.early, {index} {number}, {index} {more}",
            f"  %{bound} = add {index} %{bound}.even, %{bound}.extra",
        ]
        names.append(f"{index} %{bound}")
    return "\n".join([*lines, f"  call void @{call.symbol}({', '.join(names)})", "  ret void", "}", ""])
