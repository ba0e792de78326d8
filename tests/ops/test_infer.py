"""`infer` agrees with the references over random shapes, and refuses what does not fit, saying what."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilewright.compiler.ir import BOOL, F32, F64, I32, I64, DType, Layout, TensorType
from tilewright.compiler.ops import PRIMITIVES, compute, infer
from tilewright.errors import GraphError, ResourceError

Array = NDArray[Any]
dims = st.integers(1, 6)
shapes = st.lists(dims, max_size=4).map(tuple)
few = settings(max_examples=40)


def array(shape: tuple[int, ...], dtype: DType = F32) -> Array:
    return np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape).astype(dtype.numpy)


def agree(op: str, *arrays: Array, **attributes: Any) -> Array:
    """Run infer and the reference; hold them to each other."""
    attrs = PRIMITIVES[op].attrs(**attributes)
    from_numpy = {np.dtype(d.numpy): d for d in (BOOL, F32, F64, I32, I64)}
    (type,) = infer(op, attrs, [TensorType(from_numpy[a.dtype], a.shape) for a in arrays])
    (result,) = compute(op, attrs, arrays)
    assert (result.shape, result.dtype) == (type.shape, type.dtype.numpy)
    return result


@given(shapes, st.data())
@few
def test_elementwise(shape: tuple[int, ...], data: st.DataObject) -> None:
    other = tuple(data.draw(st.sampled_from([1, dim])) for dim in shape)
    other = other[data.draw(st.integers(0, len(other))) :]
    for op in ("add", "less", "pow"):
        agree(op, array(shape), array(other))
    agree("where", array(other, BOOL), array(shape), array(()))
    agree("cast", array(shape), dtype=I64)
    agree("exp", array(shape))


@given(shapes, st.data())
@few
def test_movement(shape: tuple[int, ...], data: st.DataObject) -> None:
    x, rank = array(shape), len(shape)
    perm = data.draw(st.permutations(range(rank)))
    np.testing.assert_array_equal(agree("transpose", x, perm=tuple(perm)), x.transpose(perm))
    agree("reshape", x, shape=(x.size,))
    agree("broadcast", x, shape=(3, *shape))
    step = [data.draw(st.sampled_from([-3, -2, -1, 1, 2, 3])) for _ in shape]
    start = [data.draw(st.integers(0, dim - 1)) for dim in shape]
    size = [
        data.draw(st.integers(0, (dim - 1 - a) // s + 1 if s > 0 else a // -s + 1))
        for dim, a, s in zip(shape, start, step, strict=True)
    ]
    result = agree("slice", x, start=tuple(start), size=tuple(size), step=tuple(step))
    chosen = [a + np.arange(n) * s for a, n, s in zip(start, size, step, strict=True)]
    np.testing.assert_array_equal(result, x[np.ix_(*chosen)] if rank else x)
    if rank:
        axis = data.draw(st.integers(0, rank - 1))
        np.testing.assert_array_equal(agree("concat", x, x, axis=axis), np.concatenate([x, x], axis))


@given(st.lists(dims, min_size=1, max_size=3).map(tuple), st.data())
@few
def test_pad(shape: tuple[int, ...], data: st.DataObject) -> None:
    rank = len(shape)
    pads = st.lists(st.integers(-4, 5), min_size=rank, max_size=rank).map(tuple)
    low, high = data.draw(pads), data.draw(pads)
    gap = data.draw(st.lists(st.integers(0, 2), min_size=rank, max_size=rank).map(tuple))
    x = array(shape, I32) + np.int32(1)
    assume(all(n + (n - 1) * g + a + b >= 0 for n, g, a, b in zip(shape, gap, low, high, strict=True)))
    result = agree("pad", x, low=low, high=high, interior=gap, value=-1)
    spread = np.full([n + (n - 1) * g for n, g in zip(shape, gap, strict=True)], -1, np.int32)
    spread[tuple(slice(None, None, g + 1) for g in gap)] = x
    wide = np.pad(spread, 5, constant_values=-1)
    crop = [slice(5 - a, 5 + n + b) for n, a, b in zip(spread.shape, low, high, strict=True)]
    np.testing.assert_array_equal(result, wide[tuple(crop)])


@given(st.lists(dims, min_size=1, max_size=3).map(tuple), st.data())
@few
def test_pad_modes(shape: tuple[int, ...], data: st.DataObject) -> None:
    pads = st.lists(st.integers(0, 9), min_size=len(shape), max_size=len(shape)).map(tuple)
    low, high = data.draw(pads), data.draw(pads)
    x = array(shape)
    for mode in ("reflect", "edge", "wrap"):
        result = agree("pad", x, low=low, high=high, mode=mode)
        np.testing.assert_array_equal(result, np.pad(x, list(zip(low, high, strict=True)), mode=mode))


@given(shapes, st.booleans(), st.data())
@few
def test_reductions(shape: tuple[int, ...], keepdims: bool, data: st.DataObject) -> None:
    axes = tuple(axis for axis in range(len(shape)) if data.draw(st.booleans()))
    x = array(shape, data.draw(st.sampled_from([F32, I64])))
    for op, oracle in (("sum", np.sum), ("max", np.max), ("min", np.min)):
        result = agree(f"reduce_{op}", x, axes=axes, keepdims=keepdims)
        np.testing.assert_array_equal(result, oracle(x, axis=axes, keepdims=keepdims))
    for axis in axes:
        agree("argmax", x, axis=axis, keepdims=keepdims, last=data.draw(st.booleans()))


@given(st.data())
@few
def test_windows_and_convolutions(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))

    def draw(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(rank))

    spatial, kernel, strides, dilations = draw(1, 7), draw(1, 3), draw(1, 3), draw(1, 2)
    pads = tuple(zip(draw(0, 2), draw(0, 2), strict=True))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    assume(all(n + sum(p) >= r for n, p, r in zip(spatial, pads, reach, strict=True)))
    groups, per_group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    x, w = array((2, groups * per_group, *spatial)), array((groups * 2, per_group, *kernel))
    agree("conv", x, w, strides=strides, pads=pads, dilations=dilations, groups=groups)
    for op in ("max_pool", "sum_pool"):
        agree(op, x, kernel=kernel, strides=strides, dilations=dilations, pads=pads)


@given(shapes.filter(bool), shapes, st.data())
@few
def test_gathers(shape: tuple[int, ...], index: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    x, i = array(shape), array(index, I64) - 2
    agree("gather", x, i, axis=axis)
    agree("gather_elements", x, array(tuple(max(dim - 1, 1) for dim in shape), I32), axis=axis)
    agree("resample", x, array((5, 2), I64), array((5, 2)), axis=axis)


@given(st.lists(dims, max_size=4).map(tuple), st.data())
@settings(max_examples=100)
def test_layouts_pack_and_unpack(shape: tuple[int, ...], data: st.DataObject) -> None:
    rank = len(shape)

    def draw() -> Layout:
        axes = tuple(data.draw(st.permutations(range(rank))))
        blocked = [axis for axis in range(rank) if data.draw(st.booleans())]
        blocks = tuple((axis, data.draw(st.integers(1, 4))) for axis in data.draw(st.permutations(blocked)))
        pads = tuple(
            (0, 0) if a in blocked else data.draw(st.tuples(*[st.integers(0, 2)] * 2)) for a in range(rank)
        )
        return Layout(axes, blocks, pads if data.draw(st.booleans()) else ())

    x, row = array(shape) + 1, Layout()
    first, second = draw(), draw()
    (packed,) = _relayout(x, row, first, shape)
    assert packed.shape == first.physical_shape(shape)
    assert np.count_nonzero(packed) == x.size  # all else is zeros
    (again,) = _relayout(packed, first, second, shape)
    np.testing.assert_array_equal(again, _relayout(x, row, second, shape)[0])
    np.testing.assert_array_equal(_relayout(again, second, row, shape)[0], x)
    if not first.blocks and rank:
        corner = packed.reshape(-1)[first.origin(shape) :]
        assert corner[0] == x.reshape(-1)[0]


def _relayout(x: Array, source: Layout, layout: Layout, shape: tuple[int, ...]) -> tuple[Array, ...]:
    attrs = PRIMITIVES["relayout"].attrs(layout=layout, source=source, shape=shape)  # type: ignore[call-arg]
    (type,) = infer("relayout", attrs, [TensorType(F32, shape, source)])
    assert type == TensorType(F32, shape, layout)
    return compute("relayout", attrs, [x])


# Operand types are written (dtype, shape), or a shape alone for f32.
POOL = {"kernel": (2, 2), "strides": (1, 1), "dilations": (1, 1), "pads": ((0, 0), (0, 0))}
CONV = {"strides": (1, 1), "dilations": (1, 1), "pads": ((0, 0), (0, 0)), "groups": 1}
ERRORS: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("add", [(2, 5), (3, 4)], {}, "operand 1 has shape (3, 4), which does not broadcast with (2, 5)"),
    ("add", [(2,), (I64, (2,))], {}, "operand 1 holds i64; expected f32 as operand 0"),
    ("add", [(BOOL, (2,)), (BOOL, (2,))], {}, "operand 0 holds bool; expected numbers"),
    ("exp", [(I32, (2,))], {}, "operand 0 holds i32; expected floats"),
    ("and", [(2,), (2,)], {}, "operand 0 holds f32; expected bools or integers"),
    ("where", [(2,), (2,), (2,)], {}, "operand 0 holds f32; expected bools"),
    ("where", [(BOOL, (2,)), (2,), (F64, (2,))], {}, "operand 2 holds f64; expected f32 as operand 1"),
    ("relu", [(2,), (2,)], {}, "takes 1 operand, not 2"),
    ("cast", [], {"dtype": F32}, "takes 1 operand, not 0"),
    ("reshape", [(2, 3)], {"shape": (4, 2)},
     "operand 0 has shape (2, 3), 6 elements; it cannot become (4, 2)"),
    ("transpose", [(2, 3)], {"perm": (0, 0)}, "perm (0, 0) is not a permutation of operand 0's 2 axes"),
    ("broadcast", [(2, 3)], {"shape": (3, 3)},
     "operand 0 has shape (2, 3), which does not broadcast to (3, 3)"),
    ("broadcast", [(2, 3)], {"shape": (3,)}, "operand 0 has shape (2, 3), which does not broadcast to (3,)"),
    ("slice", [(4,)], {"start": (1,), "size": (2,), "step": (3,)},
     "axis 0 of operand 0 has 4 elements; the slice takes 1 to 4"),
    ("slice", [(4,)], {"start": (0,), "size": (1,), "step": (0,)}, "step of axis 0 is 0"),
    ("slice", [(4,)], {"start": (0, 0), "size": (1,), "step": (1,)},
     "start has 2 entries; expected 1, one per axis"),
    ("pad", [(4,)], {"low": (-3,), "high": (-2,)}, "pads (-3, -2) drop more than the 4 elements of axis 0"),
    ("pad", [(4,)], {"low": (1,), "high": (1,), "mode": "mirror"}, "mode 'mirror' is unknown"),
    ("pad", [(4,)], {"low": (1,), "high": (1,), "mode": "edge", "interior": (1,)},
     "needs mode constant, not edge"),
    ("pad", [(0,)], {"low": (1,), "high": (1,), "mode": "wrap"}, "axis 0 of operand 0 is empty"),
    ("concat", [(2, 3), (2, 4), (3, 3)], {"axis": 1},
     "operand 2 has shape (3, 3), which differs from operand 0's (2, 3) outside axis 1"),
    ("concat", [(2, 3)], {"axis": 2}, "axis 2 is out of range; operand 0 has 2 dimensions"),
    ("reduce_sum", [(2, 3)], {"axes": (0, 0)}, "axes (0, 0) name an axis twice"),
    ("reduce_max", [(2, 3)], {"axes": (-1,)}, "axis -1 is out of range"),
    ("argmax", [(2, 0)], {"axis": 1}, "axis 1 of operand 0 is empty"),
    ("max_pool", [(1, 1, 1, 4)], POOL,
     "the window covers 2 elements of spatial axis 0, which has 1 with its pads"),
    ("max_pool", [(1, 1, 4)], POOL, "kernel has 2 entries; expected 1, one per spatial axis"),
    ("sum_pool", [(1, 1, 4, 4)], POOL | {"strides": (0, 1)}, "strides (0, 1) must be at least 1"),
    ("sum_pool", [(1, 1, 4, 4)], POOL | {"pads": ((-1, 0), (0, 0))}, "pads ((-1, 0), (0, 0)) are negative"),
    ("conv", [(1, 4, 5, 5), (6, 3, 3, 3)], CONV,
     "operand 1 has shape (6, 3, 3, 3): filters for 3 x 1 groups channels; operand 0 has 4"),
    ("conv", [(1, 4, 5, 5), (6, 4, 3)], CONV,
     "operand 1 has shape (6, 4, 3); expected 4 dimensions as operand 0, (1, 4, 5, 5)"),
    ("conv", [(1, 4, 5, 5), (6, 2, 3, 3)], CONV | {"groups": 3},
     "groups is 3, which does not divide the 4 input"),
    ("matmul", [(2, 3), (4, 5)], {}, "3 columns do not meet 4 rows"),
    ("matmul", [(3,), (3, 4)], {}, "operand 0 has shape (3,); expected at least 2 dimensions"),
    ("matmul", [(2, 3, 4), (3, 4, 5)], {}, "operand 1 has shape (3,), which does not broadcast with (2,)"),
    ("gather", [(3,), (2,)], {"axis": 0}, "operand 1 holds f32; expected integers"),
    ("gather", [(0,), (I64, (2,))], {"axis": 0}, "axis 0 of operand 0 is empty"),
    ("gather_elements", [(3, 2), (I64, (3, 3))], {"axis": 0}, "operand 1 has 3 elements along axis 1"),
    ("resample", [(3,), (I32, (2, 1)), (2, 1)], {"axis": 0}, "expected i64 indices of shape (n, taps)"),
    ("resample", [(3,), (I64, (2, 1)), (2, 2)], {"axis": 0},
     "expected f32 weights of operand 1's shape (2, 1)"),
    ("relayout", [(3, 2)], {"layout": Layout(), "source": Layout(), "shape": (2, 3)},
     "the attributes say (2, 3)"),
    ("relayout", [(3, 2)], {"layout": Layout(blocks=((2, 4),)), "source": Layout(), "shape": (3, 2)},
     "layout blocks ((2, 4),) do not fit operand 0's 2 axes"),
    ("relayout", [(3, 2)], {"layout": Layout(blocks=((1, 4),), pads=((0, 0), (1, 0))), "source": Layout(),
                            "shape": (3, 2)}, "axis 1 is blocked and has pads (1, 0)"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "operands", "attributes", "message"), ERRORS)
def test_errors_say_what_is_wrong(
    op: str, operands: list[Any], attributes: dict[str, Any], message: str
) -> None:
    types = [
        TensorType(*operand) if operand and isinstance(operand[0], DType) else TensorType(F32, operand)
        for operand in operands
    ]
    with pytest.raises(GraphError) as error:
        infer(op, PRIMITIVES[op].attrs(**attributes), types, "layer7")
    assert message in error.value.message
    assert str(error.value).startswith(f"node 'layer7' ({op}): ")


def test_absurd_sizes_are_refused() -> None:
    attrs = PRIMITIVES["broadcast"].attrs(shape=(2**20, 2**20))  # type: ignore[call-arg]
    with pytest.raises(ResourceError, match="1048576x1048576 elements"):
        infer("broadcast", attrs, [TensorType(F32, (1, 1))])
