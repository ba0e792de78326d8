"""Elementwise formulas against their references: compiled, at 1 and 16 lanes, special and random values."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import run

from tilewright.compiler.ir import BOOL, F32, F64, I8, I32, I64, U8, Attrs, TensorType
from tilewright.compiler.ir.types import DType
from tilewright.compiler.loops import Builder, Function
from tilewright.compiler.ops import PRIMITIVES, compute, infer
from tilewright.compiler.ops.elementwise import Cast
from tilewright.compiler.ops.formulas import loop_type
from tilewright.errors import GraphError

Array = NDArray[Any]
DTYPES = (F32, F64, I32, I64, U8, BOOL)
LANES = 16

# Functions that are approximated; all others must agree to the bit.
APPROXIMATE = {"exp", "expm1", "log", "log1p", "sigmoid", "tanh", "erf", "sin", "cos", "pow"}
# The largest arguments tested: beyond them the reference is only as good as its argument reduction.
LIMIT = {"sin": 1e4, "cos": 1e4}
# Zeros of different sign are equal to these, so which one comes out is open.
EITHER_ZERO = {"min", "max"}


def special(dtype: DType) -> list[Any]:
    """Values where formulas go wrong."""
    if dtype.kind == "bool":
        return [False, True]
    number: Any = dtype.numpy
    if dtype.is_integer:
        limits = np.iinfo(number)
        near: list[Any] = [limits.min, limits.min + 1, limits.max, 0, 1, 2, 3, 7, 12]
        return [*near, -1, -2, -3, -7] if dtype.kind == "int" else near
    info = np.finfo(number)
    near = [
        0.0,
        0.5,
        1.0,
        1.5,
        2.5,
        3.0,
        7.25,
        88.0,
        1e-3,
        1e9,
        float(info.tiny),
        float(info.smallest_subnormal),
    ]
    return [*near, *(-v for v in near), np.nan, np.inf, -np.inf, float(info.max)]


def samples(dtype: DType, count: int, limit: float = np.inf) -> list[Array]:
    """Operand arrays: every combination of special values, then random ones."""
    rng = np.random.default_rng(3)
    values = [v for v in special(dtype) if dtype.kind == "bool" or not abs(v) > limit]
    grid = np.array(list(product(values, repeat=count)), dtype.numpy)
    if dtype.kind == "bool":
        extra = rng.integers(0, 2, (100, count))
    elif dtype.is_integer:
        number: Any = dtype.numpy
        small, limits = rng.integers(0, 100, (100, count)), np.iinfo(number)
        wide = rng.integers(limits.min, limits.max, (100, count), dtype.numpy, endpoint=True)
        extra = np.concatenate([small.astype(dtype.numpy), wide])
    else:
        extra = rng.standard_normal((200, count)) * 10.0 ** rng.integers(-3, 4, (200, count))
    return list(np.concatenate([grid, extra.astype(dtype.numpy)]).T.copy())


def elementwise_function(op: str, attrs: Attrs, types: list[DType], result: DType, n: int) -> Function:
    """A function that stores the formula's results to y1, lane by lane, and to y16, sixteen at a time."""
    b = Builder(f"{op}_{types[-1]}")
    inputs = [b.input(f"x{i}", loop_type(dtype), n) for i, dtype in enumerate(types)]
    formula = PRIMITIVES[op].formula
    assert formula is not None
    for lanes in (1, LANES):
        y = b.output(f"y{lanes}", loop_type(result), n)

        def step(i: Any, active: int, lanes: int = lanes, y: Any = y) -> None:
            loaded = [b.load(x, i, lanes=lanes, active=active) for x in inputs]
            value = formula(b, attrs, *loaded)
            assert value.type == loop_type(result).vector(lanes)
            b.store(y, i, value, active=active)

        b.lanes(n, lanes, step)
    return b.finish()


def check(op: str, attrs: Attrs, arrays: list[Array], types: list[DType]) -> None:
    n = len(arrays[0])
    (inferred,) = infer(op, attrs, [TensorType(dtype, (n,)) for dtype in types])
    (expected,) = compute(op, attrs, arrays)
    function = elementwise_function(op, attrs, types, inferred.dtype, n)
    results = {f"y{lanes}": np.zeros(n, inferred.dtype.numpy) for lanes in (1, LANES)}
    run(function, {f"x{i}": np.ascontiguousarray(a) for i, a in enumerate(arrays)} | results)
    for name, result in results.items():
        shown = [f"{op}{tuple(a[i].item() for a in arrays)} = {result[i]}, not {expected[i]} ({name})"
                 for i in range(n) if not _agree(op, result[i], expected[i])]  # fmt: skip
        assert not shown, "\n".join(shown[:12])


def _agree(op: str, got: Any, wanted: Any) -> bool:
    if got.dtype.kind != "f":
        return bool(got == wanted)
    if np.isnan(wanted) or np.isnan(got):
        return bool(np.isnan(wanted) and np.isnan(got))
    if op in APPROXIMATE:
        tolerance = 32 * np.finfo(got.dtype).eps
        tiny = np.finfo(got.dtype).tiny  # denormal results may have fewer bits
        return bool(got == wanted or abs(float(got) - float(wanted)) <= tolerance * abs(float(wanted)) + tiny)
    if wanted == 0 and op not in EITHER_ZERO:
        return bool(got == 0 and np.signbit(got) == np.signbit(wanted))
    return bool(got == wanted)


def _cases() -> list[tuple[str, int, DType]]:
    """(primitive, operands, dtype) for every dtype each primitive takes."""
    found = []
    for name, primitive in PRIMITIVES.items():
        if primitive.formula is None or name in ("where", "cast"):
            continue
        for dtype in DTYPES:
            for count in (1, 2):
                try:
                    infer(name, primitive.attrs(), [TensorType(dtype, (1,))] * count)
                except GraphError:
                    continue
                found.append((name, count, dtype))
    return found


@pytest.mark.parametrize(("op", "count", "dtype"), _cases(), ids=lambda v: str(v))
def test_formula_is_the_reference(op: str, count: int, dtype: DType) -> None:
    check(op, PRIMITIVES[op].attrs(), samples(dtype, count, LIMIT.get(op, np.inf)), [dtype] * count)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_where(dtype: DType) -> None:
    x, y = samples(dtype, 2)
    condition = np.arange(len(x)) % 3 == 0
    check("where", PRIMITIVES["where"].attrs(), [condition, x, y], [BOOL, dtype, dtype])


@pytest.mark.parametrize(
    ("source", "target"),
    [(s, t) for s in (*DTYPES, I8) for t in (F32, F64, I8, I32, I64, U8, BOOL) if s != t],
    ids=lambda v: str(v),
)
def test_cast(source: DType, target: DType) -> None:
    check("cast", Cast(target), samples(source, 1), [source])


@pytest.mark.parametrize("op", ["rem", "mod"])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_float_remainders_are_exact(op: str, dtype: DType) -> None:
    rng = np.random.default_rng(5)
    largest = 300 if dtype is F64 else 37
    scale = 10.0 ** rng.uniform(-largest, largest, (2, 2000))
    x, y = (rng.standard_normal((2, 2000)) * scale).astype(dtype.numpy)
    whole = rng.integers(-50, 50, (2, 500)).astype(dtype.numpy)
    check(
        op,
        PRIMITIVES[op].attrs(),
        [np.concatenate([x, whole[0]]), np.concatenate([y, whole[1]])],
        [dtype] * 2,
    )
