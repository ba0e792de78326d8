"""Lowering of what moves elements and needs kernels of its own: relayout, concat, pad, and the gathers.

concat(a, b)       two regions of one nest: a -> y[:, :64], b -> y[:, 64:]
pad, reflected     one region for each combination of pieces on which the source index is affine
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from tilewright.compiler.ir import Node, Shape, TensorType, Value
from tilewright.compiler.kernels import argreduce, gather, resample, resize2d, top_k
from tilewright.compiler.kernels.kernel import loop_type
from tilewright.compiler.kernels.nest import Constant, Expr, Input, Nest, Output, Region, build
from tilewright.compiler.lower.context import Lowering, lowering
from tilewright.compiler.lower.index_maps import Along, IndexMap, Unfit, access_of
from tilewright.compiler.lower.nests import Window, array_of, filled, identity_map, window_regions
from tilewright.compiler.ops.gather import Resample
from tilewright.compiler.ops.movement import source_indices
from tilewright.errors import CompileError

Windows = tuple[Window, ...]
Remap = Callable[[IndexMap], IndexMap]


def _same(along: IndexMap) -> IndexMap:
    return along


def copies(
    windows: Windows,
    result: Value,
    to: Remap,
    source: Value | None,
    number: int,
    of: Remap,
    value: float,
    arrays: int,
) -> tuple[Region, ...]:
    """Regions that copy operand `number`, or write `value` if source is None, over the points of `windows`.

    `of` and `to` turn a point's index into the source's and the result's; `arrays` counts the nest's inputs.
    """

    def region(windows: Windows) -> Region:
        along, extents = identity_map(windows)
        inputs = () if source is None else (access_of(number, source.type, of(along), extents),)
        constant = bool(value) if result.type.dtype.kind == "bool" else value
        if result.type.dtype.is_integer:
            constant = int(value)
        expr: Expr = Input(0) if source is not None else Constant(loop_type(result.type.dtype), constant)
        target = to(along)
        output = Output(expr, access_of(arrays, result.type, target, extents))
        return filled(Region(extents, frozenset(), inputs, output), result, target)

    return window_regions(windows, region)


def call_nest(
    state: Lowering,
    node: Node,
    template: str,
    inputs: Sequence[Value],
    key: object,
    regions: tuple[Region, ...],
) -> None:
    """Build the kernel of copying regions, and call it."""
    result = node.results[0]
    nest = Nest(tuple(map(array_of, inputs)), array_of(result), regions)
    types = tuple(value.type for value in (*inputs, result))
    kernel = state.kernel(template, (state.target, types, key), lambda name: build(name, nest, state.target))
    state.call(kernel, (*inputs, result), node, template)


def _whole(shape: Shape) -> Windows:
    return tuple(Window(0, (dim,)) for dim in shape)


@lowering("relayout")
def lower_relayout(state: Lowering, node: Node) -> None:
    """Copy between layouts; what fills up the last blocks becomes zero."""
    (x,) = node.operands
    y = node.results[0]
    shape = list(x.type.shape)
    try:
        regions = copies(_whole(x.type.shape), y, _same, x, 0, _same, 0, 1)
    except Unfit:
        raise CompileError(
            f"cannot copy from layout {x.type.layout} to {y.type.layout}", node=node.source, operator=node.op
        ) from None
    # The innermost block is filled up along with its elements, the others by themselves.
    for axis, block in y.type.layout.blocks[:-1]:
        rest = -shape[axis] % block
        if rest:
            windows = tuple(
                Window(shape[a] if a == axis else 0, (rest if a == axis else d,)) for a, d in enumerate(shape)
            )
            regions += copies(windows, y, _same, None, 0, _same, 0, 1)
            shape[axis] += rest
    call_nest(state, node, "relayout", [x], None, regions)


@lowering("concat")
def lower_concat(state: Lowering, node: Node) -> None:
    """Copy each operand into its place, except those that were computed there."""
    y = node.results[0]
    attrs: Any = node.attrs
    placed = state.placed(node)
    copied = tuple(operand for position, operand in enumerate(node.operands) if position not in placed)
    start = 0
    starts: list[int] = []
    regions: tuple[Region, ...] = ()
    for position, operand in enumerate(node.operands):

        def to(along: IndexMap, start: int = start) -> IndexMap:
            return tuple(a.plus(Along(start)) if axis == attrs.axis else a for axis, a in enumerate(along))

        if position not in placed:
            try:
                shape = _whole(operand.type.shape)
                regions += copies(shape, y, to, operand, len(starts), _same, 0, len(copied))
            except Unfit:
                raise CompileError(
                    f"operand {position} starts inside a block of the result", node=node.source, operator=node.op
                ) from None
            starts.append(start)
        start += operand.type.shape[attrs.axis]
    call_nest(state, node, "concat", copied, (attrs, tuple(starts)), regions)


@lowering("pad")
def lower_pad(state: Lowering, node: Node) -> None:
    """Copy in the pieces on which the source's index is affine; constants fill the rest."""
    (x,) = node.operands
    y = node.results[0]
    attrs: Any = node.attrs
    if y.type.elements == 0:
        return
    if attrs.mode == "constant":
        _pad_constant(state, node, x, y, attrs)
        return
    axes = [
        _affine_pieces(
            source_indices(attrs.mode, dim, max(low, 0), max(high, 0))[max(-low, 0) :][: y.type.shape[axis]]
        )
        for axis, (dim, low, high) in enumerate(zip(x.type.shape, attrs.low, attrs.high, strict=True))
    ]
    regions: tuple[Region, ...] = ()
    for pieces in product(*axes):
        windows = tuple(Window(0, (size,)) for _, size, _, _ in pieces)

        def to(along: IndexMap, pieces: Any = pieces) -> IndexMap:
            return tuple(a.plus(Along(p[0])) for a, p in zip(along, pieces, strict=True))

        def of(along: IndexMap, pieces: Any = pieces) -> IndexMap:
            return tuple(a.scaled(p[3]).plus(Along(p[2])) for a, p in zip(along, pieces, strict=True))

        regions += copies(windows, y, to, x, 0, of, 0, 1)
    call_nest(state, node, "pad", [x], attrs, regions)


def _affine_pieces(indices: Any) -> list[tuple[int, int, int, int]]:
    """(start, size, first source index, step) of the pieces on which a list of indices is affine."""
    pieces, start, n = [], 0, len(indices)
    while start < n:
        step = int(indices[start + 1] - indices[start]) if start + 1 < n else 0
        end = start + 1
        while end < n and indices[end] - indices[end - 1] == step:
            end += 1
        pieces.append((start, end - start, int(indices[start]), step))
        start = end
    return pieces


def _pad_constant(state: Lowering, node: Node, x: Value, y: Value, attrs: Any) -> None:
    dims = zip(x.type.shape, y.type.shape, attrs.low, attrs.interior, strict=True)
    firsts, counts, starts, strides = [], [], [], []
    for size, padded, low, gap in dims:
        stride = gap + 1
        # Element i lands at low + i * stride; those that land outside are dropped.
        first = max(0, -(low // stride))
        firsts.append(first)
        counts.append(max(0, min(size, (padded - 1 - low) // stride + 1) - first))
        starts.append(low + first * stride)
        strides.append(stride)
    inside = 0 not in counts

    def to(along: IndexMap) -> IndexMap:
        return tuple(a.scaled(s).plus(Along(t)) for a, s, t in zip(along, strides, starts, strict=True))

    def of(along: IndexMap) -> IndexMap:
        return tuple(a.plus(Along(f)) for a, f in zip(along, firsts, strict=True))

    copied = copies(tuple(Window(0, (c,)) for c in counts), y, to, x, 0, of, 0, 1) if inside else ()
    if not inside or any(stride > 1 and count > 1 for stride, count in zip(strides, counts, strict=True)):
        fill = copies(_whole(y.type.shape), y, _same, None, 0, _same, attrs.value, 0)
        call_nest(state, node, "fill", [], attrs, fill)
        if inside:
            call_nest(state, node, "pad", [x], attrs, copied)
        return
    windows = [Window(0, (dim,)) for dim in y.type.shape]
    for axis, dim in enumerate(y.type.shape):
        end = starts[axis] + counts[axis]
        for start, size in ((0, starts[axis]), (end, dim - end)):
            if size:
                slab = (*windows[:axis], Window(start, (size,)), *windows[axis + 1 :])
                copied += copies(slab, y, _same, None, 0, _same, attrs.value, 1)
        windows[axis] = Window(starts[axis], (counts[axis],))
    call_nest(state, node, "pad", [x], attrs, copied)


# ---- kernels of their own


def _row_major(node: Node) -> None:
    for value in (*node.operands, *node.results):
        if not value.type.layout.is_row_major:
            raise CompileError(f"{value} is not row-major", node=node.source, operator=node.op)


def _call(
    state: Lowering,
    node: Node,
    template: str,
    build_kernel: Callable[..., Any],
    types: Sequence[TensorType],
    attrs: Any,
) -> None:
    _row_major(node)
    if node.results[0].type.elements == 0:
        return
    key = (state.target, tuple(types), attrs)
    kernel = state.kernel(
        template, key, lambda name: build_kernel(name, *types, attrs=attrs, target=state.target)
    )
    state.call(kernel, (*node.operands, node.results[0]), node, template)


@lowering("gather")
def lower_gather(state: Lowering, node: Node) -> None:
    """Whole slices of x by index."""
    attrs: Any = node.attrs
    _call(state, node, "gather", gather.build, [o.type for o in node.operands], attrs.axis)


@lowering("gather_elements")
def lower_gather_elements(state: Lowering, node: Node) -> None:
    """Single elements of x by index."""
    attrs: Any = node.attrs
    _call(state, node, "gather_elements", gather.build_elements, [o.type for o in node.operands], attrs.axis)


@lowering("resample")
def lower_resample(state: Lowering, node: Node) -> None:
    """Weighted sums of slices of x."""
    attrs: Any = node.attrs
    _call(state, node, "resample", resample.build, [o.type for o in node.operands], attrs.axis)


@lowering("argmax", "argmin")
def lower_argreduce(state: Lowering, node: Node) -> None:
    """The index of the extreme element along an axis."""
    attrs: Any = node.attrs
    options = (node.op == "argmax", attrs.axis, attrs.last)
    _call(state, node, node.op, argreduce.build, [o.type for o in node.operands], options)


@lowering("top_k")
def lower_top_k(state: Lowering, node: Node) -> None:
    """The indices of the best elements along an axis."""
    attrs: Any = node.attrs
    options = (attrs.axis, attrs.k, attrs.largest)
    _call(state, node, "top_k", top_k.build, [o.type for o in node.operands], options)


@lowering("template:resize2d")
def lower_resize2d(state: Lowering, node: Node) -> None:
    """Both image axes in one kernel; the pass that joined them has checked the tables."""
    node = node.body[0] if node.body else node
    plan: Any = node.plan
    x, index_h, _, index_w, _ = (operand.type for operand in node.operands)
    result = node.results[0].type
    kernel = state.kernel(
        "resize2d",
        (plan, x, index_h, index_w, result),
        lambda name: resize2d.build(name, plan, x, index_h, index_w, result),
    )
    state.call(kernel, (*node.operands, node.results[0]), node, "resize2d")


@lowering("resample2d")
def lower_resample2d(state: Lowering, node: Node) -> None:
    """One axis after the other, where no kernel does both."""
    x, index_h, weight_h, index_w, weight_w = node.operands
    _row_major(node)
    shape = (*x.type.shape[:2], index_h.type.shape[0], x.type.shape[3])
    rows = state.scratch(TensorType(x.type.dtype, shape))
    for axis, operands, result in (
        (2, (x, index_h, weight_h), rows),
        (3, (rows, index_w, weight_w), node.results[0]),
    ):
        lower_resample(state, Node("resample", operands, (result,), Resample(axis), node.source))
