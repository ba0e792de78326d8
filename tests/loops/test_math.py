"""Transcendental functions: errors in units in the last place, special cases, every width."""

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import run
from ulps import ulps

from tilewright.compiler.codegen.llvm import emit_module
from tilewright.compiler.codegen.object import compile_module
from tilewright.compiler.loops import math
from tilewright.compiler.loops.builder import Builder
from tilewright.compiler.loops.nodes import F16, F32, F64, I32, Function, Operand, Type
from tilewright.compiler.targets import by_name
from tilewright.runtime.jit import undefined_symbols

Array = NDArray[Any]
LIMITS = {  # measured, in units in the last place; the documentation of the module gives the same
    "exp": (0.88, 0.80), "log": (0.84, 0.77), "tanh": (1.35, 1.20), "sigmoid": (1.48, 1.40),
    "erf": (1.23, 0.90), "expm1": (1.46, 1.55), "log1p": (1.45, 1.50), "sin": (1.51, 1.30),
    "cos": (1.52, 1.40),
}  # fmt: skip
DTYPES = {F16: np.float16, F32: np.float32, F64: np.float64}
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-310, -1e-310, 1e-40, -1e-40, 1e38, -1e38]
IN_TORCH: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {name: getattr(torch, name) for name in LIMITS}
IN_MPMATH: dict[str, Any] = {name: getattr(mpmath, name, None) for name in LIMITS}
IN_MPMATH["sigmoid"] = lambda x: 1 / (1 + mpmath.exp(-x))


def elementwise(name: str, type: Type, lanes: int, count: int, operands: int = 1) -> Function:
    b = Builder(f"{name}{lanes}")
    inputs = [b.input(f"x{k}", type, count) for k in range(operands)]
    y = b.output("y", type, count)
    function: Callable[..., Operand] = getattr(math, name)

    def step(i: Any, active: int) -> None:
        vectors = [b.load(x, i, lanes=lanes, active=active) for x in inputs]
        b.store(y, i, function(b, *vectors), active=active)

    b.lanes(count, lanes, step)
    return b.finish()


def apply(name: str, type: Type, *inputs: Array, lanes: int = 16) -> Array:
    arrays = [np.ascontiguousarray(x, DTYPES[type]) for x in inputs]
    y = np.zeros_like(arrays[0])
    function = elementwise(name, type, lanes, y.size, len(arrays))
    run(function, {**{f"x{k}": x for k, x in enumerate(arrays)}, "y": y})
    return y


@pytest.mark.parametrize("name", LIMITS)
def test_float32_over_all_bit_patterns(name: str) -> None:
    x = np.arange(0, 2**32, 4999, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, np.linspace(-20, 20, 300_007, dtype=np.float32), np.float32(SPECIAL)])
    if name in ("sin", "cos"):
        x = x[~(np.abs(x) > 2.0**40)]
    with np.errstate(invalid="ignore"):  # signalling NaNs
        exact = IN_TORCH[name](torch.from_numpy(x.astype(np.float64))).numpy()
    error = ulps(apply(name, F32, x), exact)
    worst = int(error.argmax())
    assert error[worst] <= LIMITS[name][0], f"{error[worst]} at {x[worst]!r}"


RANGES = {
    "exp": (-745, 709.7), "log": (1e-3, 1e300), "tanh": (-20, 20), "sigmoid": (-740, 40), "erf": (-6.5, 6.5),
    "expm1": (-40, 709), "log1p": (-0.9999999, 1e10), "sin": (-(2.0**30), 2.0**30),
    "cos": (-(2.0**30), 2.0**30),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_float64_against_high_precision(name: str) -> None:
    random = np.random.default_rng(0)
    low, high = RANGES[name]
    x = np.concatenate([
        random.uniform(low, high, 400),
        (random.choice([-1, 1], 400) * np.exp2(random.uniform(-60, np.log2(high), 400))).clip(low, high),
        random.uniform(max(low, -4), 4, 400),
    ])  # fmt: skip
    result = apply(name, F64, x, lanes=8)
    with mpmath.workprec(150):
        for a, y in zip(x, result, strict=True):
            exact = IN_MPMATH[name](mpmath.mpf(float(a)))
            unit = mpmath.mpf(2) ** max(int(np.frexp(float(y))[1]) - 53, -1074)
            assert abs(mpmath.mpf(float(y)) - exact) <= LIMITS[name][1] * unit, f"{name}({a!r}) = {y!r}"


@pytest.mark.parametrize("type", [F32, F64], ids=str)
@pytest.mark.parametrize("name", LIMITS)
def test_special_values(name: str, type: Type) -> None:
    x = np.array(SPECIAL, DTYPES[type])
    if name in ("sin", "cos"):
        x = np.where((np.abs(x) > 1) & np.isfinite(x), 0, x).astype(x.dtype)
    expected = IN_TORCH[name](torch.from_numpy(x)).numpy()
    result = apply(name, type, x, lanes=4)
    np.testing.assert_allclose(result, expected, rtol=4e-7 if type == F32 else 1e-13)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(result)[number], np.signbit(expected)[number])


@pytest.mark.parametrize("type", [F32, F64], ids=str)
@pytest.mark.parametrize("name", [*LIMITS, "pow"])
def test_every_width_gives_the_same_bits(name: str, type: Type) -> None:
    random = np.random.default_rng(1)
    inputs = [np.abs(random.normal(size=101) * 5) for _ in range(2 if name == "pow" else 1)]
    results = [apply(name, type, *inputs, lanes=lanes).tobytes() for lanes in (1, 4, 8, 16)]
    assert len(set(results)) == 1


@pytest.mark.parametrize("name", LIMITS)
def test_float16_is_computed_in_float32(name: str) -> None:
    x = np.linspace(0.01, 8, 333).astype(np.float16)
    wide = apply(name, F32, x.astype(np.float32))
    np.testing.assert_array_equal(apply(name, F16, x), wide.astype(np.float16))


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_beyond_the_turn_limit_there_is_no_noise(name: str) -> None:
    assert np.isnan(apply(name, F32, np.array([2.0**41, -1e30]))).all()
    assert np.isnan(apply(name, F64, np.array([2.0**31, -1e300]))).all()


POW_SPECIAL = [
    0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, np.inf, -np.inf, np.nan, 1e-30, -1e30,
    1e-320, 2.0**53 + 2,
]  # fmt: skip


@pytest.mark.parametrize("type", [F16, F32, F64], ids=str)
def test_pow_special_cases(type: Type) -> None:
    with np.errstate(all="ignore"):
        values = np.array(POW_SPECIAL).astype(DTYPES[type])
        x, y = (grid.ravel() for grid in np.meshgrid(values, values))
        expected = np.power(x, y)
    result = apply("pow", type, x, y, lanes=8)
    np.testing.assert_allclose(result, expected, rtol={F16: 1e-3, F32: 1e-6, F64: 1e-15}[type])
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(result)[number], np.signbit(expected)[number])


def test_pow_errors() -> None:
    random = np.random.default_rng(2)
    x = np.concatenate([np.exp2(random.uniform(-1070, 1020, 300)), random.uniform(0.5, 2, 600)])
    y = random.uniform(-1, 1, 900) * 740 / np.abs(np.log(x))
    result = apply("pow", F64, x, y, lanes=8)
    with mpmath.workprec(150):
        for a, c, z in zip(x, y, result, strict=True):
            exact = mpmath.mpf(float(a)) ** mpmath.mpf(float(c))
            if np.isinf(z):
                assert exact > np.finfo(np.float64).max
                continue
            unit = mpmath.mpf(2) ** max(int(np.frexp(float(z))[1]) - 53, -1074)
            assert abs(mpmath.mpf(float(z)) - exact) <= unit, f"pow({a!r}, {c!r}) = {z!r}"
    x = np.exp2(random.uniform(-149, 127, 100_000)).astype(np.float32)
    y = np.float32(random.normal(size=100_000) * 3)
    with np.errstate(over="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    assert ulps(apply("pow", F32, x, y), exact).max() <= 0.51


PLAIN_EXPONENTS = (-1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0, 2.0)


def power_function(exponent: float, type: Type, lanes: int, count: int) -> Function:
    b = Builder(f"power{exponent}")
    x, y = b.input("x", type, count), b.output("y", type, count)

    def step(i: Any, active: int) -> None:
        vector = b.load(x, i, lanes=lanes, active=active)
        b.store(y, i, math.pow(b, vector, b.const(exponent, type.vector(lanes))), active=active)

    b.lanes(count, lanes, step)
    return b.finish()


def power(exponent: float, type: Type, x: Array, lanes: int) -> Array:
    x = np.ascontiguousarray(x, DTYPES[type])
    y = np.zeros_like(x)
    run(power_function(exponent, type, lanes, x.size), {"x": x, "y": y})
    return y


@pytest.mark.parametrize("exponent", PLAIN_EXPONENTS)
def test_constant_powers_of_float32(exponent: float) -> None:
    x = np.arange(0, 2**32, 4999, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, np.exp2(np.random.default_rng(0).uniform(-149, 128, 300_000)).astype(np.float32)])
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), exponent)
    error = ulps(power(exponent, F32, x, 16), exact)
    worst = int(error.argmax())
    assert error[worst] <= 0.51, f"{error[worst]} at {x[worst]!r}"


@pytest.mark.parametrize("exponent", PLAIN_EXPONENTS)
def test_constant_powers_of_float64(exponent: float) -> None:
    random = np.random.default_rng(3)
    x = np.concatenate([np.exp2(random.uniform(-1074, 1023, 400)), random.uniform(0.5, 8, 800)])
    result = power(exponent, F64, x, 8)
    with mpmath.workprec(150):
        for a, y in zip(x, result, strict=True):
            exact = mpmath.mpf(float(a)) ** mpmath.mpf(exponent)
            if np.isinf(y):
                assert exact > np.finfo(np.float64).max
                continue
            unit = mpmath.mpf(2) ** max(int(np.frexp(float(y))[1]) - 53, -1074)
            assert abs(mpmath.mpf(float(y)) - exact) <= 0.51 * unit, f"{a!r} ** {exponent} = {y!r}"


@pytest.mark.parametrize("type", [F16, F32, F64], ids=str)
@pytest.mark.parametrize("exponent", PLAIN_EXPONENTS)
def test_constant_powers_agree_with_others(exponent: float, type: Type) -> None:
    x = np.concatenate([POW_SPECIAL, SPECIAL, np.exp2(np.linspace(-140, 120, 300))])
    with np.errstate(all="ignore"):
        x = x.astype(DTYPES[type])
    results = [power(exponent, type, x, lanes) for lanes in (1, 4, 16)]
    assert len({result.tobytes() for result in results}) == 1
    expected = apply("pow", type, x, np.full_like(x, exponent))
    np.testing.assert_allclose(results[0], expected, rtol={F16: 1e-3, F32: 3e-7, F64: 5e-16}[type])
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(results[0])[number], np.signbit(expected)[number])


def test_integers_are_refused() -> None:
    b = Builder("f")
    with pytest.raises(TypeError, match="transcendental function of i32 in f"):
        math.exp(b, b.scalar("x", I32))
    with pytest.raises(TypeError, match="pow of f32 and f64 in f"):
        math.pow(b, b.scalar("x", F32), b.scalar("y", F64))


@pytest.mark.parametrize("type", [F32, F64], ids=str)
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "aarch64"])
def test_nothing_is_called(target: str, type: Type) -> None:
    row = by_name(target)
    functions = [elementwise(name, type, row.lanes(type.bits), 37) for name in LIMITS]
    functions.append(elementwise("pow", type, row.lanes(type.bits), 37, operands=2))
    functions += [power_function(exponent, type, row.lanes(type.bits), 37) for exponent in (0.5, 0.75)]
    assert undefined_symbols(compile_module(emit_module(functions, linkage=""), row)) == []
