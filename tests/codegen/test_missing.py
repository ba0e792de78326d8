"""Instructions that a machine lacks: what stands for them gives the same bits, or nearly."""

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import numpy_dtype

from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.loops import math
from tilewright.compiler.loops.builder import Builder
from tilewright.compiler.loops.nodes import F16, F32, F64, Function, Operand, Type
from tilewright.compiler.targets import host
from tilewright.runtime.jit import Engine

Array = NDArray[Any]
POOR = replace(host(), fma=False, rounding=False, halves=False)
every_width = pytest.mark.parametrize("lanes", [1, 8])


def elementwise(
    types: list[Type], result: Type, count: int, lanes: int, formula: Callable[..., Operand]
) -> Function:
    b = Builder("f")
    inputs = [b.input(f"x{k}", type, count) for k, type in enumerate(types)]
    y = b.output("y", result, count)
    b.lanes(
        count, lanes,
        lambda i, active: b.store(
            y, i, formula(b, *(b.load(x, i, lanes=lanes, active=active) for x in inputs)), active=active
        ),
    )  # fmt: skip
    return b.finish()


def run(function: Function, arrays: list[Array], result: Type, plain: bool = False) -> Array:
    """Machine code of the function, without the instructions unless `plain`, on the arrays."""
    text = emit_module([function], linkage="", target=host() if plain else POOR)
    assert plain or not any(name in text for name in ("llvm.fma", "llvm.floor", "llvm.ceil", "llvm.rint", "llvm.trunc"))
    engine = Engine(compile_module(text, host()))
    out = np.zeros(arrays[0].shape, numpy_dtype(result))
    pointers = (ctypes.c_void_p,) * (len(arrays) + 1)
    ctypes.CFUNCTYPE(None, *pointers)(engine.address("f"))(*(a.ctypes.data for a in arrays), out.ctypes.data)
    return out


def numbers(dtype: Any, count: int = 4096) -> Array:
    """Numbers of all sizes, halves between whole numbers, and special ones."""
    random = np.random.default_rng(3)
    digits = np.finfo(dtype).nmant
    sizes = 2.0 ** random.integers(-4, digits + 2, count)
    values = random.uniform(-1, 1, count) * sizes
    values[:200] = np.arange(-50, 50, 0.5)
    edge = 2.0**digits
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, edge, -edge, edge + 1, edge - 0.5, -0.3, -0.5, 0.5, 0.7, 1e-40]
    values[200 : 200 + len(special)] = special
    with np.errstate(over="ignore"):
        return values.astype(dtype)


@every_width
@pytest.mark.parametrize("type", [F32, F64], ids=str)
@pytest.mark.parametrize("op", ["floor", "ceil", "rint", "trunc"])
def test_rounding_is_exact(op: str, type: Type, lanes: int) -> None:
    x = numbers(numpy_dtype(type))
    got = run(elementwise([type], type, x.size, lanes, lambda b, a: getattr(b, op)(a)), [x], type)
    expected = getattr(np, op)(x)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))


@every_width
def test_every_half_becomes_its_float(lanes: int) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    got = run(elementwise([F16], F32, x.size, lanes, lambda b, a: b.convert(a, F32)), [x], F32)
    np.testing.assert_array_equal(got, x.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(got), np.signbit(x))


@every_width
def test_floats_round_to_halves(lanes: int) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = every[np.isfinite(every)]
    steps = 2.0 ** np.maximum(np.floor(np.log2(np.maximum(np.abs(finite), 2.0**-24))) - 10, -24)
    x = np.concatenate([every, finite + steps / 2, finite + steps / 2 * np.float32(1.001), finite * np.float32(1.0003)])
    x = np.concatenate([x, numbers(np.float32)]).astype(np.float32)
    got = run(elementwise([F32], F16, x.size, lanes, lambda b, a: b.convert(a, F16)), [x], F16)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    np.testing.assert_array_equal(got, expected)
    number = ~np.isnan(x)
    np.testing.assert_array_equal(got[number].view(np.uint16), expected[number].view(np.uint16))


def test_halves_add_as_numpy_does() -> None:
    random = np.random.default_rng(0)
    a, b = (random.normal(size=512).astype(np.float16) for _ in range(2))
    got = run(elementwise([F16, F16], F16, 512, 8, lambda b, x, y: b.add(x, y)), [a, b], F16)
    np.testing.assert_array_equal(got, a + b)


@pytest.mark.parametrize("type", [F32, F64], ids=str)
def test_a_product_and_a_sum(type: Type) -> None:
    random = np.random.default_rng(0)
    arrays = [random.normal(size=512).astype(numpy_dtype(type)) for _ in range(3)]
    got = run(elementwise([type] * 3, type, 512, 8, lambda b, x, y, z: b.fma(x, y, z)), arrays, type)
    np.testing.assert_array_equal(got, arrays[0] * arrays[1] + arrays[2])


@pytest.mark.parametrize("type", [F32, F64], ids=str)
def test_an_exact_one_keeps_the_products_rounding_error(type: Type) -> None:
    random = np.random.default_rng(0)
    x, y = (random.normal(size=4096).astype(numpy_dtype(type)) for _ in range(2))
    z = -(x * y)
    z[2048:] += random.normal(size=2048).astype(z.dtype)
    function = elementwise([type] * 3, type, x.size, 8, lambda b, x, y, z: b.fma(x, y, z, exact=True))
    got, expected = run(function, [x, y, z], type), run(function, [x, y, z], type, plain=True)
    assert np.count_nonzero(expected[:2048]) > 1000
    np.testing.assert_allclose(got, expected, rtol=float(np.finfo(z.dtype).eps), atol=0)


@pytest.mark.parametrize(
    ("name", "reference", "low", "high", "ulps"),
    [
        ("exp", np.exp, -80, 80, 2), ("log", np.log, 1e-3, 1e6, 2), ("tanh", np.tanh, -9, 9, 4),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), -30, 30, 4), ("sin", np.sin, -1e6, 1e6, 4),
        ("cos", np.cos, -1e6, 1e6, 4),
    ],
)  # fmt: skip
@pytest.mark.parametrize("type", [F32, F64], ids=str)
def test_functions_stay_accurate(
    name: str, reference: Callable[[Array], Array], low: float, high: float, ulps: float, type: Type
) -> None:
    x = np.random.default_rng(0).uniform(low, high, 8192).astype(numpy_dtype(type))
    got = run(elementwise([type], type, x.size, 8, lambda b, a: getattr(math, name)(b, a)), [x], type)
    exact = reference(x.astype(np.longdouble))
    unit = np.spacing(np.abs(exact).astype(x.dtype)).astype(np.longdouble)
    assert float(np.max(np.abs(got.astype(np.longdouble) - exact) / unit)) <= ulps


@pytest.mark.parametrize("type", [F32, F64], ids=str)
def test_powers_stay_accurate(type: Type) -> None:
    random = np.random.default_rng(0)
    x = random.uniform(0.01, 100, 8192).astype(numpy_dtype(type))
    y = random.uniform(-18, 18, 8192).astype(numpy_dtype(type))
    got = run(elementwise([type, type], type, x.size, 8, math.pow), [x, y], type)
    exact = x.astype(np.longdouble) ** y.astype(np.longdouble)
    unit = np.spacing(np.abs(exact).astype(x.dtype)).astype(np.longdouble)
    assert float(np.max(np.abs(got.astype(np.longdouble) - exact) / unit)) <= 2
