"""The entry point: one function that calls every kernel of a program in order.

    define i32 @tw_run(ptr %inputs, ptr %outputs, ptr %constants, ptr %workspace)
      %b0 = load ptr, ptr %inputs                     a buffer: the array of an input or output ...
      %b1 = getelementptr i8, ptr %workspace, i64 64  ... or a piece of the constants or the workspace
      call void @conv_direct_0(ptr %b0, ..., ptr %b1, i64 0, i64 112)
      ret i32 0
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Space = Literal["inputs", "outputs", "constants", "workspace"]
SPACES: tuple[Space, ...] = ("inputs", "outputs", "constants", "workspace")


@dataclass(frozen=True)
class Location:
    """Where a buffer lies: `offset` bytes into input or output number `index`, the constants or the workspace."""

    space: Space
    offset: int
    index: int = 0


@dataclass(frozen=True)
class EntryCall:
    """One call: the kernel's symbol, its buffers, and how many items it computes."""

    symbol: str
    buffers: tuple[Location, ...]
    items: int


def emit_entry(name: str, calls: Sequence[EntryCall]) -> str:
    """LLVM IR text of the entry point `name`."""
    lines: list[str] = []
    names: dict[Location, str] = {}

    def pointer(location: Location) -> str:
        if location in names:
            return names[location]
        if location.space in ("inputs", "outputs") and location.offset == 0:
            slot = f"%{location.space}"
            if location.index:
                slot = f"%s{len(names)}"
                lines.append(f"  {slot} = getelementptr ptr, ptr %{location.space}, i64 {location.index}")
            text = f"load ptr, ptr {slot}"
        else:
            base = f"%{location.space}"
            if location.space in ("inputs", "outputs"):
                base = pointer(Location(location.space, 0, location.index))
            text = f"getelementptr i8, ptr {base}, i64 {location.offset}"
        names[location] = f"%b{len(names)}"
        lines.append(f"  {names[location]} = {text}")
        return names[location]

    for call in calls:
        arguments = [f"ptr {pointer(location)}" for location in call.buffers]
        arguments += ["i64 0", f"i64 {call.items}"]
        lines.append(f"  call void @{call.symbol}({', '.join(arguments)})")
    params = ", ".join(f"ptr %{space}" for space in SPACES)
    return "\n".join([f"define i32 @{name}({params}) #0 {{", *lines, "  ret i32 0", "}", ""])
