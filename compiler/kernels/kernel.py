"""What every kernel template shares: the plan, the tensors' views, the epilogue, the finished kernel.

    plan = conv_direct.plan(...)                       frozen: template, tile, layouts
    kernel = conv_direct.build(name, plan, x, w, result, epilogue)
    kernel.function(x, w, <the epilogue's buffers>, begin, end)      computes items begin..end of kernel.items

A kernel that keeps intermediate results in memory has one more buffer, `kernel.scratch` bytes long:

    kernel.function(x, w, <the epilogue's buffers>, scratch, begin, end)

A template computes a vector and hands it to its epilogue, which applies what was fused and stores it: templates
know neither the result's layout nor what follows them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import ClassVar, Protocol

from tilewright.compiler.ir.types import DType, Layout, TensorType, row_major_strides
from tilewright.compiler.loops import Builder, Function, Index, Operand, Type
from tilewright.compiler.loops.nodes import BF16, BOOL

Coordinates = Sequence[tuple[Index, int]]
"""A logical index: by axis, a base known at run time and a constant added to it. Along a blocked axis both are
multiples of the block."""


def loop_type(dtype: DType) -> Type:
    """The loop IR's scalar type for a graph element type."""
    if dtype.kind == "bool":
        return BOOL
    if dtype.kind == "bfloat":
        return BF16
    return Type({"float": "f", "int": "i", "uint": "u"}[dtype.kind], dtype.bits)  # type: ignore[arg-type]


@dataclass(frozen=True)
class KernelPlan:
    """How a node will be computed; each template adds its tile and whatever else it needs.

    `operand_layouts` is what the template reads, by operand; their pads are the least physical zeros it needs.
    `result_layout` is what it writes; the layout pass adds the pads that consumers need.
    """

    template: ClassVar[str] = ""
    operand_layouts: tuple[Layout, ...]
    result_layout: Layout

    def __str__(self) -> str:
        own = [f for f in fields(self) if f.name not in ("operand_layouts", "result_layout")]
        tile = " ".join(f"{f.name}={getattr(self, f.name)}" for f in own)
        return f"{self.template} {tile}".rstrip() if self.template else f"[{self.result_layout}]"


@dataclass(frozen=True)
class Kernel:
    """A loop function whose last two parameters are `begin` and `end`, a range of its `items`.

    Items are independent: any split into ranges, in any order, gives the same bits. `flops` counts a
    multiply-add as two. `performed` is the part that remains where the method saves some, else 0; of a loop nest,
    whose `flops` are 0, it is about the operations on its elements.

    With `scratch`, the last buffer parameter is this many bytes that belong to the range alone, aligned to 64
    and with any contents: ranges that run at the same time get different ones. A step's arguments leave it out.
    """

    function: Function
    items: int
    flops: int = 0
    scratch: int = 0
    performed: int = 0


class Epilogue(Protocol):
    """What happens to a template's results."""

    def declare(self, b: Builder) -> None:
        """Add the buffers it reads and writes to the function's parameters."""

    @property
    def pools(self) -> bool:
        """Whether it wants `store_window` called instead of `store`, which conv_direct and conv_winograd do."""

    def store(self, b: Builder, at: Coordinates, value: Operand, active: int) -> None:
        """Take a vector whose lane 0 is logical element `at`; lanes run along the template's lane axis."""

    def store_window(self, b: Builder, at: Coordinates, values: Sequence[Operand], pooled: Coordinates) -> None:
        """Take the four vectors of a 2 x 2 window, row by row, the first at `at`; their maximum belongs at `pooled`."""

    def prefetch(self, b: Builder, at: Coordinates) -> None:
        """Fetch the lines that `store` will read and write for element `at`, which need not exist."""


@dataclass(frozen=True)
class View:
    """Where a tensor's elements lie in a flat buffer: element (i, j, ..) at origin + sum over the axes.

    An index i along an axis with block size B adds i // B * outer + i % B * inner.
    """

    type: Type
    size: int
    origin: int
    blocks: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]

    @staticmethod
    @lru_cache(1 << 12)
    def of(tensor: TensorType) -> "View":
        """The view of a whole tensor in its layout."""
        layout, shape = tensor.layout, tensor.shape
        physical = layout.physical_shape(shape)
        strides = row_major_strides(physical)
        outer, inner = [0] * len(shape), [0] * len(shape)
        for dim, axis in enumerate(layout.order(len(shape))):
            outer[axis] = strides[dim]
        for dim, (axis, _) in enumerate(layout.blocks, start=len(shape)):
            inner[axis] = strides[dim]
        blocks = tuple(layout.block(axis) for axis in range(len(shape)))
        return View(
            loop_type(tensor.dtype), layout.size(shape), layout.origin(shape), blocks, tuple(outer), tuple(inner)
        )

    def address(self, b: Builder, at: Coordinates) -> tuple[Index, int]:
        """(index, constant offset) of the element at `at`, whose blocked coordinates are multiples of the block."""
        bases = tuple(base for base, _ in at)

        def build() -> Index:
            index: Index = 0
            for base, block, stride in zip(bases, self.blocks, self.outer, strict=True):
                if stride:
                    index = b.add(index, b.mul(b.div(base, block), stride))
            return index

        places = zip(at, self.blocks, self.outer, strict=True)
        offset = sum(constant // block * stride for (_, constant), block, stride in places)
        return b.once((self.blocks, self.outer, bases), build), self.origin + offset


@dataclass(frozen=True)
class StoreResult:
    """The epilogue that only stores, into buffer `name` with the given view; each window's maximum if it `pools`."""

    view: View
    name: str = "y"
    pools: bool = False

    def declare(self, b: Builder) -> None:
        """Add the result."""
        b.output(self.name, self.view.type, self.view.size)

    def store(self, b: Builder, at: Coordinates, value: Operand, active: int) -> None:
        """Store the vector."""
        index, offset = self.view.address(b, at)
        b.store(b.parameter(self.name), index, value, offset=offset, active=active)

    def store_window(self, b: Builder, at: Coordinates, values: Sequence[Operand], pooled: Coordinates) -> None:
        """Store the maximum."""
        first, second, third, fourth = values
        largest = b.max(b.max(first, second), b.max(third, fourth))
        self.store(b, pooled, largest, largest.type.lanes)

    def prefetch(self, b: Builder, at: Coordinates) -> None:
        """Fetch the line that is stored to."""
        index, offset = self.view.address(b, at)
        b.prefetch(b.parameter(self.name), index, offset=offset, locality=3)

