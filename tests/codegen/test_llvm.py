"""Emitted code against the checking interpreter, bit for bit: every instruction, dtype and vector width."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import guarded, numpy_dtype, run

from tilewright.compiler.loops import nodes
from tilewright.compiler.loops.builder import Builder
from tilewright.compiler.loops.interpreter import interpret
from tilewright.compiler.loops.nodes import (
    BF16,
    BOOL,
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    INDEX,
    U8,
    U16,
    U32,
    U64,
    Function,
    Operand,
    Type,
)

Array = NDArray[Any]
FLOATS = (F32, F64)
INTEGERS = (I32, I64, U8)
LANES = (1, 4, 8, 16)
SPECIAL = [
    0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 300.7, -300.7, 3e9, -1e19, 2e19,
]  # fmt: skip
COUNT = 64
every_type = pytest.mark.parametrize("type", [*FLOATS, *INTEGERS, BOOL], ids=str)
every_width = pytest.mark.parametrize("lanes", LANES)


def data(type: Type, seed: int = 0, count: int = COUNT) -> Array:
    """Numbers of a type: special values first, then random ones of all sizes."""
    random = np.random.default_rng(seed)
    dtype = numpy_dtype(type)
    if type == BOOL:
        return random.integers(0, 2, count).astype(bool)
    if type.kind == "bf":
        wide = random.normal(size=count).astype(np.float32) * 100
        return (wide.view(np.uint32) >> 16).astype(np.uint16)
    if type.is_float:
        values = random.normal(size=count) * 2.0 ** random.integers(-20, 40, count)
        values = np.concatenate([SPECIAL, values])[:count]
        random.shuffle(values)
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    limits = np.iinfo(dtype)
    values = random.integers(limits.min, limits.max, count, dtype, endpoint=True)
    values[:4] = [limits.min, limits.max, 0, 1][:count]
    random.shuffle(values)
    return values


def same_bits(result: Array, expected: Array) -> None:
    """Equal bits; NaN is equal to NaN whatever its payload."""
    assert result.dtype == expected.dtype
    if result.dtype.kind == "f":
        nan = np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(result), nan)
        result, expected = np.where(nan, 0, result), np.where(nan, 0, expected)
    np.testing.assert_array_equal(result.view(np.uint8), expected.view(np.uint8))


def check(
    function: Function, buffers: dict[str, Array], scalars: dict[str, Any] | None = None
) -> dict[str, Array]:
    """Run both ways, compare all buffers, give them back; machine code's end at guard pages."""
    machine = {name: guarded(array) for name, array in buffers.items()}
    checked = {name: array.copy() for name, array in buffers.items()}
    interpret(function, checked, scalars)
    run(function, machine, scalars)
    for name in buffers:
        same_bits(machine[name], checked[name])
    return machine


def check_lanes(
    types: Sequence[Type],
    result: Type,
    lanes: int,
    formula: Callable[..., Operand],
    arrays: Sequence[Array] = (),
) -> Array:
    """Check `formula` of one operand of each type, element by element, in vectors of `lanes`."""
    b = Builder("elementwise")
    inputs = [b.input(f"x{k}", type, COUNT) for k, type in enumerate(types)]
    y = b.output("y", result, COUNT)

    def step(i: Any, active: int) -> None:
        b.store(y, i, formula(b, *(b.load(x, i, lanes=lanes, active=active) for x in inputs)), active=active)

    b.lanes(COUNT, lanes, step)
    values = arrays or [data(type, seed) for seed, type in enumerate(types)]
    buffers = {f"x{k}": array for k, array in enumerate(values)}
    return check(b.finish(), {**buffers, "y": np.zeros(COUNT, numpy_dtype(result))})["y"]


@every_width
@pytest.mark.parametrize("type", [*FLOATS, *INTEGERS, F16, BF16], ids=str)
@pytest.mark.parametrize("op", ["add", "sub", "mul", "min", "max"])
def test_arithmetic(op: str, type: Type, lanes: int) -> None:
    check_lanes([type, type], type, lanes, lambda b, x, y: b._arith(op, x, y))


@every_width
@pytest.mark.parametrize("type", FLOATS, ids=str)
def test_float_division_and_square_root(type: Type, lanes: int) -> None:
    check_lanes([type, type], type, lanes, lambda b, x, y: b.div(x, b.sqrt(y)))


@every_width
@pytest.mark.parametrize("type", INTEGERS, ids=str)
@pytest.mark.parametrize("op", ["div", "rem"])
def test_integer_division_truncates(op: str, type: Type, lanes: int) -> None:
    x, y = data(type, 0), data(type, 1)
    y[(y == 0) | (y == -1 if type.kind == "i" else False)] = 3
    y[:8] = 7
    check_lanes([type, type], type, lanes, lambda b, x, y: b._arith(op, x, y), [x, y])


@every_width
@pytest.mark.parametrize("type", [*INTEGERS, BOOL], ids=str)
@pytest.mark.parametrize("op", ["and_", "or_", "xor"])
def test_bits(op: str, type: Type, lanes: int) -> None:
    check_lanes([type, type], type, lanes, lambda b, x, y: getattr(b, op)(x, b.not_(y)))


@every_width
@pytest.mark.parametrize("op", ["min", "max"])
def test_extrema_of_bool(op: str, lanes: int) -> None:
    x, y = data(BOOL, 0), data(BOOL, 1)
    result = check_lanes([BOOL, BOOL], BOOL, lanes, lambda b, x, y: b._arith(op, x, y), [x, y])
    np.testing.assert_array_equal(result, x & y if op == "min" else x | y)


@every_width
@pytest.mark.parametrize("type", [*FLOATS, F16, BF16], ids=str)
@pytest.mark.parametrize("limit", [0.0, -2.5, np.inf, np.nan])
@pytest.mark.parametrize("op", ["min", "max"])
def test_extrema_with_a_constant_keep_nan(op: str, limit: float, type: Type, lanes: int) -> None:
    reference = np.minimum if op == "min" else np.maximum
    x = data(type)
    first = check_lanes([type], type, lanes, lambda b, x: getattr(b, op)(limit, x), [x])
    second = check_lanes([type], type, lanes, lambda b, x: getattr(b, op)(x, limit), [x])
    if type == BF16:
        np.testing.assert_array_equal(first, second)
    else:
        expected = reference(x, x.dtype.type(limit))
        np.testing.assert_array_equal(first, expected)
        np.testing.assert_array_equal(second, expected)


@every_width
@pytest.mark.parametrize("type", INTEGERS, ids=str)
@pytest.mark.parametrize("op", ["shl", "shr"])
def test_shifts(op: str, type: Type, lanes: int) -> None:
    amounts = (np.arange(COUNT) % type.bits).astype(numpy_dtype(type))
    check_lanes([type, type], type, lanes, lambda b, x, y: getattr(b, op)(x, y), [data(type), amounts])


@every_width
@pytest.mark.parametrize("type", FLOATS, ids=str)
@pytest.mark.parametrize("op", ["neg", "abs", "sqrt", "floor", "ceil", "rint", "trunc"])
def test_unary_on_floats(op: str, type: Type, lanes: int) -> None:
    check_lanes([type], type, lanes, lambda b, x: b.unary(op, x))


@every_width
@pytest.mark.parametrize("type", INTEGERS, ids=str)
@pytest.mark.parametrize("op", ["neg", "abs", "not"])
def test_unary_on_integers(op: str, type: Type, lanes: int) -> None:
    check_lanes([type], type, lanes, lambda b, x: b.unary(op, x))


@every_width
@pytest.mark.parametrize("type", FLOATS, ids=str)
def test_fma_rounds_once(type: Type, lanes: int) -> None:
    check_lanes([type, type, type], type, lanes, lambda b, x, y, z: b.fma(x, y, z))
    x = 1 + np.random.default_rng(3).normal(size=COUNT).astype(numpy_dtype(type)) * type.bits**-4.0
    arrays = [x.astype(numpy_dtype(type)), x[::-1].astype(numpy_dtype(type)), -(x * x[::-1]).astype(x.dtype)]
    result = check_lanes([type, type, type], type, lanes, lambda b, x, y, z: b.fma(x, y, z), arrays)
    assert np.count_nonzero(result) > COUNT // 2


@every_width
@every_type
@pytest.mark.parametrize("op", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_compare_and_select(op: str, type: Type, lanes: int) -> None:
    x, y = data(type, 0), data(type, 1)
    y[::3] = x[::3]
    check_lanes([type, type], BOOL, lanes, lambda b, x, y: b.compare(op, x, y), [x, y])
    check_lanes([type, type], type, lanes, lambda b, x, y: b.select(b.compare(op, x, y), y, x), [x, y])


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize(
    "target", [F16, BF16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64, BOOL, INDEX], ids=str
)
@pytest.mark.parametrize(
    "source", [F16, BF16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64, BOOL, INDEX], ids=str
)
def test_convert(source: Type, target: Type, lanes: int) -> None:
    check_lanes([source], target, lanes, lambda b, x: b.convert(x, target))


@pytest.mark.parametrize("target", [F16, BF16, F32, F64, BOOL], ids=str)
def test_a_bare_cast_to_bool_asks_for_zero(target: Type) -> None:
    def formula(b: Builder, x: Operand) -> Operand:
        result = b._new(BOOL.vector(4))
        b._block.append(nodes.Cast(result, "convert", x))
        return result

    check_lanes([target], BOOL, 4, formula)


@every_width
@pytest.mark.parametrize(
    ("source", "target"),
    [(F32, I32), (I32, F32), (F64, U64), (U16, BF16), (BF16, U16), (F16, I16), (I64, U64)],
    ids=str,
)  # fmt: skip
def test_bitcast(source: Type, target: Type, lanes: int) -> None:
    check_lanes([source], target, lanes, lambda b, x: b.bitcast(x, target))


@every_width
@every_type
def test_constants(type: Type, lanes: int) -> None:
    values = data(type, count=lanes).tolist()
    b = Builder("constants")
    y = b.output("y", type, 2 * lanes)
    b.store(y, 0, b.vector_const(values, type))
    b.store(y, lanes, b.const(values[0], type.vector(lanes)))
    result = check(b.finish(), {"y": np.zeros(2 * lanes, numpy_dtype(type))})["y"]
    same_bits(result, np.array([*values, *([values[0]] * lanes)], numpy_dtype(type)))


@every_width
@every_type
def test_masked_memory(type: Type, lanes: int) -> None:
    """Loads and stores of fewer lanes touch nothing else; inactive lanes of a load hold 0."""
    for active in sorted({0, 1, lanes // 2, lanes - 1, lanes}):
        b = Builder("masked")
        x, y, z = b.input("x", type, active), b.inout("y", type, active), b.output("z", type, lanes)
        v = b.load(x, 0, lanes=lanes, active=active)
        b.store(y, 0, v, active=active)
        b.store(z, 0, v)
        numbers = data(type, count=max(active, 1))[:active]
        buffers = {"x": numbers, "y": np.zeros_like(numbers), "z": np.ones(lanes, numpy_dtype(type))}
        result = check(b.finish(), buffers)
        same_bits(result["y"], numbers)
        assert not result["z"][active:].any()


@every_width
@every_type
def test_gather(type: Type, lanes: int) -> None:
    b = Builder("gather")
    x, steps = b.input("x", type, COUNT), b.input("steps", INDEX, lanes)
    y, n = b.output("y", type, 3 * lanes), b.scalar("n")
    b.store(y, 0, b.gather(x, n, b.load(steps, 0, lanes), offset=-2))
    b.store(y, lanes, b.gather(x, 3, [(5 * k) % 7 for k in range(lanes)]))
    b.store(y, 2 * lanes, b.gather(x, n, [100 * k for k in range(lanes)], active=1))
    order = np.random.default_rng(0).integers(-10, 40, lanes)
    buffers = {"x": data(type), "steps": order, "y": np.zeros(3 * lanes, numpy_dtype(type))}
    result = check(b.finish(), buffers, {"n": 15})["y"]
    same_bits(result[:lanes], data(type)[13 + order])


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
@every_type
def test_reductions(type: Type, lanes: int) -> None:
    ops = ("and", "or", "min", "max") if type == BOOL else ("add", "mul", "min", "max")
    ops = ops if type.is_float or type == BOOL else (*ops, "and", "or")
    b = Builder("reduce")
    x, y = b.input("x", type, COUNT), b.output("y", type, len(ops) * COUNT // lanes)
    for position, op in enumerate(ops):
        for i in range(COUNT // lanes):
            b.store(y, position * (COUNT // lanes) + i, b.reduce(op, b.load(x, i * lanes, lanes)))
    buffers = {"x": data(type), "y": np.zeros(len(ops) * COUNT // lanes, numpy_dtype(type))}
    result = check(b.finish(), buffers)["y"].reshape(len(ops), -1)
    rows = data(type).reshape(-1, lanes)
    same_bits(result[ops.index("max")], rows.max(axis=1) if type != BOOL else rows.any(axis=1))


@every_width
@pytest.mark.parametrize("op", ["min", "max"])
def test_extrema_keep_nan_in_every_lane(op: str, lanes: int) -> None:
    for lane in range(lanes):
        b = Builder("nan")
        x, y = b.input("x", F32, lanes), b.output("y", F32, 1)
        b.store(y, 0, b.reduce(op, b.load(x, 0, lanes)))
        numbers = np.arange(lanes, dtype=np.float32)
        numbers[lane] = np.nan
        assert np.isnan(check(b.finish(), {"x": numbers, "y": np.zeros(1, np.float32)})["y"][0])


@every_type
def test_shuffles(type: Type) -> None:
    b = Builder("shuffle")
    x, y = b.input("x", type, 16), b.output("y", type, 64)
    low, high = b.load(x, 0, 8), b.load(x, 8, 8)
    one, two = b.load(x, 3), b.load(x, 9)
    results = [
        b.shuffle(low, high, [0, 8, 1, 9, 2, 10, 3, 11]), b.shuffle(low, high, range(15, -1, -1)),
        b.shuffle(low, low, [2]), b.shuffle(low, high, [13]), b.shuffle(one, two, [1, 0, 1, 1]),
        b.shuffle(one, two, [1]), b.splat(b.extract(high, 5), 16), b.extract(low, 7),
    ]  # fmt: skip
    at = 0
    for value in results:
        b.store(y, at, value)
        at += value.type.lanes
    numbers = data(type, count=16)
    result = check(b.finish(), {"x": numbers, "y": np.zeros(64, numpy_dtype(type))})["y"]
    order = [0, 8, 1, 9, 2, 10, 3, 11, *range(15, -1, -1), 2, 13, 9, 3, 9, 9, 9, *([13] * 16), 7]
    same_bits(result[: len(order)], numbers[order])


@every_width
@pytest.mark.parametrize("n", [0, 1, 5])
def test_loops_carry_values(n: int, lanes: int) -> None:
    """Two carried values that are swapped; a range that is empty at run time gives the initial ones."""
    b = Builder("carry")
    x, y, count = b.input("x", F32, 5 * lanes), b.output("y", F32, 2 * lanes), b.scalar("n")

    def body(i: Any, c: list[Operand]) -> list[Operand]:
        return [c[1], b.add(c[0], b.load(x, b.mul(i, lanes), lanes))]

    initial = [b.const(1.0, F32.vector(lanes)), b.const(2.0, F32.vector(lanes))]
    first, second = b.for_(0, count, body, carried=initial)
    b.store(y, 0, first)
    b.store(y, lanes, second)
    numbers = np.random.default_rng(0).normal(size=5 * lanes).astype(np.float32)
    result = check(b.finish(), {"x": numbers, "y": np.zeros(2 * lanes, np.float32)}, {"n": n})["y"]
    if n == 0:
        np.testing.assert_array_equal(result, [1] * lanes + [2] * lanes)


def test_a_static_loop_that_never_runs() -> None:
    b = Builder("never")
    y = b.inout("y", F32, 1)
    variable = b._new(INDEX)
    body = (nodes.Store(y, b.index(0), 0, b.const(5.0, F32), 1),)
    b._block.append(nodes.For(variable, b.index(3), b.index(3), 1, (), (), body, (), ()))
    assert check(b.finish(), {"y": np.ones(1, np.float32)})["y"][0] == 1


def test_nested_loops_and_branches() -> None:
    b = Builder("nested")
    y, n, m = b.output("y", INDEX, 64), b.scalar("n"), b.scalar("m")

    def row(i: Any, _: Any) -> None:
        def cell(j: Any, c: list[Operand]) -> list[Operand]:
            at = b.add(b.mul(i, 8), j)
            even = b.compare("eq", b.rem(at, 2), 0)

            def odd_cell() -> None:
                late = b.compare("gt", j, 4)
                b.if_(late, lambda: b.store(y, at, b.mul(j, 100)), lambda: b.store(y, at, b.add(c[0], 1000)))

            b.if_(even, lambda: b.store(y, at, c[0]), odd_cell)
            return [b.add(c[0], j)]

        b.for_(0, m, cell, carried=[i])

    b.for_(0, n, row)
    expected = np.zeros(64, np.int64)
    for i in range(8):
        total = i
        for j in range(8):
            expected[8 * i + j] = total if j % 2 == 0 else j * 100 if j > 4 else total + 1000
            total += j
    result = check(b.finish(), {"y": np.zeros(64, np.int64)}, {"n": 8, "m": 8})["y"]
    np.testing.assert_array_equal(result, expected)
    check(b.finish(), {"y": np.zeros(64, np.int64)}, {"n": 5, "m": 0})


def test_calls_scratch_and_offsets() -> None:
    """A callee's element 0 is the caller's index + offset, also where the index alone is outside."""
    inner = Builder("double")
    source, target = inner.input("source", F32, 8), inner.output("target", F32, 8)
    factor = inner.scalar("factor", F32)
    inner.store(target, 0, inner.mul(inner.load(source, 0, 8), factor))
    double = inner.finish()
    b = Builder("outer")
    x, y, n = b.input("x", F32, 32), b.output("y", F32, 32), b.scalar("n")
    two = b.const(2.0, F32)

    def step(i: Any, _: Any) -> None:
        scratch = b.alloc("scratch", F32, 8)
        b.call(double, b.ref(x, b.sub(b.mul(i, 8), 8), 8), b.ref(scratch), two)
        b.call(double, b.ref(scratch), b.ref(y, b.mul(i, 8)), two)

    b.for_(0, n, step)
    numbers = np.arange(32, dtype=np.float32)
    result = check(b.finish(), {"x": numbers, "y": np.zeros(32, np.float32)}, {"n": 4})["y"]
    np.testing.assert_array_equal(result, 4 * numbers)


@every_width
@pytest.mark.parametrize("type", [F32, F64, I32, U8], ids=str)
def test_streaming_stores_and_prefetches(type: Type, lanes: int) -> None:
    b = Builder("stream")
    x, y, n = b.input("x", type, COUNT), b.output("y", type, COUNT), b.scalar("n")

    def step(i: Any, _: Any) -> None:
        b.prefetch(x, i, offset=1 << 20, locality=0)
        b.store(y, i, b.load(x, i, lanes), streaming=True)

    b.for_(0, n, step, step=lanes)
    room = np.zeros(COUNT + 64, numpy_dtype(type))
    start = -room.ctypes.data % 64 // type.bytes
    y_array = room[start : start + COUNT]
    run(b.finish(), {"x": data(type), "y": y_array}, {"n": COUNT})
    same_bits(y_array, data(type))
    checked = np.zeros_like(y_array)
    interpret(b.finish(), {"x": data(type), "y": checked}, {"n": COUNT})
    same_bits(checked, data(type))


@pytest.mark.parametrize("type", [F32, F64, I32, I64, U8], ids=str)
def test_scalar_parameters(type: Type) -> None:
    b = Builder("scalars")
    y, a, c = b.output("y", type, 4), b.scalar("a", type), b.scalar("c", type)
    b.store(y, 0, b.splat(b.sub(a, c), 4))
    result = check(b.finish(), {"y": np.zeros(4, numpy_dtype(type))}, {"a": 100, "c": 58})["y"]
    np.testing.assert_array_equal(result, [42] * 4)


def test_bool_memory_holds_one_byte() -> None:
    """Any byte that is not 0 is true, and what is stored is 0 or 1."""
    b = Builder("bools")
    x, y = b.input("x", BOOL, 16), b.output("y", BOOL, 16)
    b.store(y, 0, b.load(x, 0, 16))
    numbers = np.arange(16, dtype=np.uint8)
    result = np.zeros(16, bool)
    run(b.finish(), {"x": numbers.view(bool), "y": result})
    np.testing.assert_array_equal(result.view(np.uint8), (numbers != 0).astype(np.uint8))
