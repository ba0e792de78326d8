"""The table of TensorFlow operators that tests sweep: small graphs of one node, by family.

    Case("Conv2D", (x, w), {"strides": [1, 2, 2, 1], "padding": "SAME"}, fixed=(1,))

`data/tensorflow_ops.npz` holds what TensorFlow 2.21 makes of each case, by its name; `data/make_tensorflow_ops.py`
writes it. Arrays are made by formula, so that they are the same everywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow_graphs import GraphDefWriter

Array = NDArray[Any]
F32, F64, I32, I64, U8 = np.float32, np.float64, np.int32, np.int64, np.uint8
NAN, INF = np.nan, np.inf


@dataclass(frozen=True)
class Case:
    """One use of an operator. Operands at `fixed` positions are constants of the graph, the others its inputs."""

    op: str
    operands: tuple[Array, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    fixed: tuple[int, ...] = ()
    results: int = 1
    tolerance: float | None = None
    note: str = ""

    @property
    def title(self) -> str:
        """Operator, note and operand types."""
        kinds = ",".join(f"{array.dtype.name}[{'x'.join(map(str, array.shape))}]" for array in self.operands)
        return "-".join(part for part in (self.op, self.note, kinds) if part)

    def graph(self) -> bytes:
        """A GraphDef whose inputs are x0, x1 ... and whose node is y."""
        g = GraphDefWriter()
        names = []
        for position, array in enumerate(self.operands):
            name = f"x{position}"
            if position in self.fixed:
                g.constant(name, array)
            else:
                g.placeholder(name, array.dtype, array.shape)
            names.append(name)
        g.node("y", self.op, *names, **_types(self), **self.attrs)
        return g.bytes()

    def inputs(self) -> dict[str, Array]:
        """What to feed."""
        return {f"x{i}": array for i, array in enumerate(self.operands) if i not in self.fixed}

    def outputs(self) -> list[str]:
        """The names of its results."""
        return [f"y:{index}" if index else "y" for index in range(self.results)]


# Which operand's element type each type attribute repeats, where that is not just T of the first one.
_TYPE_ATTRS: dict[str, dict[str, int]] = {
    "All": {"Tidx": 1}, "Any": {"Tidx": 1}, "ArgMax": {"T": 0, "Tidx": 1}, "ArgMin": {"T": 0, "Tidx": 1},
    "BatchToSpaceND": {"T": 0, "Tblock_shape": 1, "Tcrops": 2}, "BroadcastTo": {"T": 0, "Tidx": 1},
    "Cast": {"SrcT": 0}, "Concat": {"T": 1}, "ConcatV2": {"T": 0, "Tidx": -1}, "Conv2DBackpropInput": {"T": 1},
    "Cumsum": {"T": 0, "Tidx": 1}, "ExpandDims": {"T": 0, "Tdim": 1}, "Fill": {"T": 1, "index_type": 0},
    "FusedBatchNormV2": {"T": 0, "U": 1}, "FusedBatchNormV3": {"T": 0, "U": 1},
    "Gather": {"Tparams": 0, "Tindices": 1}, "GatherNd": {"Tparams": 0, "Tindices": 1},
    "GatherV2": {"Tparams": 0, "Tindices": 1, "Taxis": 2}, "MirrorPad": {"T": 0, "Tpaddings": 1},
    "OneHot": {"TI": 0, "T": 2}, "Pad": {"T": 0, "Tpaddings": 1}, "PadV2": {"T": 0, "Tpaddings": 1},
    "Range": {"Tidx": 0}, "Reshape": {"T": 0, "Tshape": 1}, "ReverseV2": {"T": 0, "Tidx": 1},
    "Select": {"T": 1}, "SelectV2": {"T": 1}, "Slice": {"T": 0, "Index": 1},
    "SpaceToBatchND": {"T": 0, "Tblock_shape": 1, "Tpaddings": 2}, "Split": {"T": 1},
    "SplitV": {"T": 0, "Tlen": 1}, "StridedSlice": {"T": 0, "Index": 1}, "Tile": {"T": 0, "Tmultiples": 1},
    "TopKV2": {"T": 0}, "Transpose": {"T": 0, "Tperm": 1}, "BatchMatMulV3": {"Ta": 0, "Tb": 1},
    "LogicalAnd": {}, "LogicalOr": {}, "LogicalNot": {},
    "IdentityN": {},
    **{op: {"T": 0, "Tidx": 1} for op in ("EuclideanNorm", "Max", "Mean", "Min", "Prod", "Sum")},
}  # fmt: skip


def _types(case: Case) -> dict[str, Any]:
    return {name: case.operands[i].dtype for name, i in _TYPE_ATTRS.get(case.op, {"T": 0}).items()}


# ---- operands


def floats(*shape: int, seed: int = 0, dtype: Any = F32) -> Array:
    """Numbers from -3 to 3 in no visible order, exact in few bits."""
    numbers = (np.arange(int(np.prod(shape, dtype=int)), dtype=np.int64) * 73 + 19 * seed + 7) % 193
    return ((numbers - 96) / 32).astype(dtype).reshape(shape)


def ints(*shape: int, low: int = -9, high: int = 10, seed: int = 0, dtype: Any = I32) -> Array:
    """Integers from low to high - 1."""
    numbers = (np.arange(int(np.prod(shape, dtype=int)), dtype=np.int64) * 31 + 17 * seed + 3) % 97
    return (low + numbers % (high - low)).astype(dtype).reshape(shape)


def bools(*shape: int, seed: int = 0) -> Array:
    """Some of each."""
    return ints(*shape, low=0, high=2, seed=seed) == 1


def vec(*numbers: float, dtype: Any = I32) -> Array:
    """A vector."""
    return np.array(numbers, dtype)


def scalar(number: float, dtype: Any = I32) -> Array:
    """A scalar."""
    return np.array(number, dtype)


SPECIAL = vec(NAN, INF, -INF, 0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -1.5, -2.5, 6, 7, 1e-3, 9, -9, 30, -30, dtype=F32)
POSITIVE = vec(NAN, INF, 0.0, 1e-30, 1e-3, 0.5, 1, 2.5, 1e10, dtype=F32)


# ---- cases by family


def arithmetic() -> Iterator[Case]:
    for op in ("Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Expm1", "Floor", "LeakyRelu", "Neg", "Reciprocal", "Relu",
               "Relu6", "Rint", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Square",
               "Tanh"):  # fmt: skip
        # The sine of an infinity is NaN on both sides, Sign of NaN is the operator's business.
        yield Case(op, (SPECIAL,))
        yield Case(op, (floats(3, 5, dtype=F64),))
    for op in ("Log", "Log1p", "Rsqrt", "Sqrt", "Inv"):
        yield Case(op, (POSITIVE,))
        yield Case(op, (np.abs(floats(7, dtype=F64)) + 0.25,))
    for op in ("Abs", "Neg", "Sign", "Square", "Relu", "Relu6"):
        yield Case(op, (ints(9),))
        yield Case(op, (ints(9, dtype=I64),))
    yield Case("IsNan", (SPECIAL,))
    yield Case("IsInf", (SPECIAL,))
    yield Case("Invert", (ints(9),))
    yield Case("LeakyRelu", (SPECIAL,), {"alpha": 0.01}, note="alpha")
    yield Case("LeakyRelu", (SPECIAL,), {"alpha": 1.5}, note="steep")

    left, right = np.repeat(SPECIAL[:14], 14).reshape(14, 14), SPECIAL[:14]
    for op in ("Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "Maximum", "Minimum", "FloorDiv", "FloorMod", "DivNoNan",
               "MulNoNan", "SquaredDifference", "Equal", "NotEqual", "Less", "LessEqual", "Greater",
               "GreaterEqual"):  # fmt: skip
        tolerance = None
        yield Case(op, (left, right), tolerance=tolerance, note="special")
        yield Case(op, (floats(2, 3, 4), floats(3, 1, seed=1)), note="broadcast")
    small, divisor = ints(4, 1, 5), ints(3, 1, low=1, high=5, seed=2) * vec(1, -1, 1).reshape(3, 1)
    for op in ("AddV2", "Sub", "Mul", "Div", "Maximum", "Minimum", "FloorDiv", "FloorMod", "TruncateDiv", "Mod",
               "SquaredDifference", "Equal", "NotEqual", "Less", "GreaterEqual", "BitwiseAnd", "BitwiseOr",
               "BitwiseXor"):  # fmt: skip
        yield Case(op, (small, divisor))
        yield Case(op, (small.astype(I64), divisor.astype(I64)))
    yield Case("Tan", (floats(7),))
    yield Case("TruncateMod", (floats(2, 3), floats(3, seed=1)))
    yield Case("FloorDiv", (ints(6, low=0, dtype=U8), vec(3, dtype=U8)))
    yield Case("Pow", (np.abs(floats(3, 4)) + F32(0.1), floats(4, seed=3)))
    yield Case("Pow", (floats(3, 4), scalar(2, F32)), fixed=(1,), note="square")
    yield Case("Pow", (floats(3, 4), scalar(3, F32)), fixed=(1,), note="cube")
    yield Case("Pow", (ints(3, 4), ints(4, low=0, high=4)))
    for op in ("LogicalAnd", "LogicalOr"):
        yield Case(op, (bools(2, 3), bools(3, seed=5)))
    yield Case("LogicalNot", (bools(5),))
    yield Case("AddN", (floats(2, 3), floats(2, 3, seed=1), floats(2, 3, seed=2)), {"N": 3})
    yield Case("AddN", (ints(2, 3),), {"N": 1})
    yield Case("ClipByValue", (SPECIAL, scalar(-1, F32), scalar(2, F32)))
    yield Case("Select", (bools(2, 3), floats(2, 3), floats(2, 3, seed=1)))
    yield Case("Select", (bools(3), floats(3, 2, 2), floats(3, 2, 2, seed=1)), note="rows")
    yield Case("Select", (np.array(True), ints(3, 2), ints(3, 2, seed=1)), note="scalar")
    yield Case("SelectV2", (bools(3), floats(2, 3), floats(2, 1, seed=1)))
    yield Case("SelectV2", (bools(2, 1), ints(3), ints(2, 3, seed=1)))


def conversions() -> Iterator[Case]:
    fractions = vec(-2.75, -1, -0.5, 0, 0.5, 1.25, 99.9, dtype=F32)
    for to in (F64, I32, I64, np.int8, np.int16, np.bool_, F32):
        yield Case("Cast", (fractions,), {"DstT": to}, note=np.dtype(to).name)
        yield Case("Cast", (ints(7),), {"DstT": to}, note=np.dtype(to).name)
    for to in (F32, I32, U8):
        yield Case("Cast", (bools(5),), {"DstT": to}, note=np.dtype(to).name)
    yield Case("Cast", (ints(5, low=200, high=400),), {"DstT": U8}, note="wraps")
    yield Case("Cast", (ints(5, low=0, high=200, dtype=U8),), {"DstT": F32}, note="uint8")
    yield Case("Identity", (ints(3),))
    yield Case("StopGradient", (floats(3),))
    yield Case("IdentityN", (floats(3), ints(2)), {"T": [F32, I32]}, results=2)


def reductions() -> Iterator[Case]:
    x, i = floats(3, 4, 5), ints(3, 4, 5, low=-3, high=4)
    for op in ("Max", "Mean", "Min", "Prod", "Sum"):
        yield Case(op, (x, vec(1)), fixed=(1,))
        yield Case(op, (x, vec(0, -1)), {"keep_dims": True}, (1,), note="keep")
        yield Case(op, (x, vec(2, dtype=I64)), fixed=(1,))
        yield Case(op, (i, vec(1, 2)), fixed=(1,))
        yield Case(op, (i.astype(I64), scalar(-1)), fixed=(1,))
        yield Case(op, (x, vec(dtype=I32)), fixed=(1,), note="none")
        yield Case(op, (vec(1, NAN, 3, dtype=F32), scalar(0)), fixed=(1,), note="nan")
        yield Case(op, (floats(2, 0, 3), vec(1)), fixed=(1,), note="empty")
    yield Case("EuclideanNorm", (x, vec(1)), fixed=(1,))
    for op in ("All", "Any"):
        yield Case(op, (bools(3, 4, 2, seed=1), vec(1)), fixed=(1,))
        yield Case(op, (bools(3, 4), vec(0, 1)), {"keep_dims": True}, (1,), note="keep")
        yield Case(op, (bools(0, 2), vec(0)), fixed=(1,), note="empty")
    for op in ("ArgMax", "ArgMin"):
        yield Case(op, (x, scalar(1)), {"output_type": I64}, (1,))
        yield Case(op, (i, scalar(-1)), {"output_type": I32}, (1,))
        yield Case(op, (vec(2, 5, 5, 2, dtype=F32), scalar(0)), {"output_type": I64}, (1,), note="ties")
        yield Case(op, (floats(2, 3, 4, 40), scalar(2, I64)), {"output_type": I32}, (1,))
    for exclusive in (False, True):
        for reverse in (False, True):
            attrs = {"exclusive": exclusive, "reverse": reverse}
            yield Case("Cumsum", (x, scalar(1)), attrs, (1,), note=f"{exclusive:d}{reverse:d}")
            yield Case("Cumsum", (ints(9), scalar(0)), attrs, (1,), note=f"{exclusive:d}{reverse:d}")
    yield Case("Softmax", (floats(3, 5),))
    yield Case("Softmax", (floats(2, 3, 17) * F32(30),))
    yield Case("LogSoftmax", (floats(3, 5),))
    yield Case("LogSoftmax", (floats(2, 9, dtype=F64) * 30,))


def shapes() -> Iterator[Case]:
    x = floats(2, 3, 4)
    yield Case("Reshape", (x, vec(4, -1)), fixed=(1,))
    yield Case("Reshape", (x, vec(24, dtype=I64)), fixed=(1,))
    yield Case("Reshape", (floats(1), vec(dtype=I32)), fixed=(1,), note="scalar")
    yield Case("Reshape", (floats(0, 3), vec(3, -1)), fixed=(1,), note="empty")
    yield Case("Squeeze", (floats(1, 3, 1, 2),))
    yield Case("Squeeze", (floats(1, 3, 1, 2),), {"squeeze_dims": [-2]}, note="one")
    yield Case("ExpandDims", (x, scalar(-1)), fixed=(1,))
    yield Case("ExpandDims", (x, scalar(1)), fixed=(1,), note="inside")
    yield Case("Shape", (x,), {"out_type": I32})
    yield Case("Shape", (x,), {"out_type": I64}, note="int64")
    yield Case("ShapeN", (x, floats(5)), {"N": 2, "out_type": I32}, results=2)
    yield Case("Size", (x,), {"out_type": I32})
    yield Case("Rank", (x,))
    yield Case("Pack", (floats(2, 3), floats(2, 3, seed=1)), {"N": 2, "axis": 0})
    yield Case("Pack", (floats(2, 3), floats(2, 3, seed=1)), {"N": 2, "axis": -1}, note="last")
    yield Case("Pack", (scalar(3), scalar(4)), {"N": 2})
    yield Case("Unpack", (x,), {"num": 3, "axis": 1}, results=3)
    yield Case("Unpack", (x,), {"num": 2, "axis": -3}, results=2, note="first")
    yield Case("ConcatV2", (x, floats(2, 1, 4), scalar(1)), {"N": 2}, (2,))
    yield Case("ConcatV2", (x, x, floats(2, 3, 1), scalar(-1, I64)), {"N": 3}, (3,))
    yield Case("Concat", (scalar(0), x, floats(1, 3, 4)), {"N": 2}, (0,))
    yield Case("Transpose", (x, vec(2, 0, 1)), fixed=(1,))
    yield Case("Transpose", (ints(2, 3, 4, 5), vec(0, 3, 1, 2, dtype=I64)), fixed=(1,))
    yield Case("ReverseV2", (x, vec(1, -1)), fixed=(1,))
    yield Case("InvertPermutation", (vec(2, 0, 1),), fixed=(0,))
    pads = vec(1, 0, 0, 2, 3, 1).reshape(3, 2)
    yield Case("Pad", (x, pads), fixed=(1,))
    yield Case("Pad", (ints(2, 3, 4), pads.astype(I64)), fixed=(1,))
    yield Case("PadV2", (x, pads, scalar(-INF, F32)), fixed=(1, 2))
    yield Case("PadV2", (ints(2, 3, 4), pads, scalar(7)), fixed=(1, 2))
    for mode in ("REFLECT", "SYMMETRIC"):
        yield Case("MirrorPad", (x, vec(1, 0, 0, 2, 3, 1).reshape(3, 2)), {"mode": mode}, (1,), note=mode)
        yield Case("MirrorPad", (ints(5), vec(4, 2).reshape(1, 2)), {"mode": mode}, (1,), note=mode)
    yield Case("MirrorPad", (floats(3), vec(3, 3).reshape(1, 2)), {"mode": "SYMMETRIC"}, (1,), note="whole")
    yield Case("Tile", (x, vec(2, 1, 3)), fixed=(1,))
    yield Case("Tile", (ints(3), vec(0, dtype=I64)), fixed=(1,))
    yield Case("BroadcastTo", (floats(3, 1), vec(2, 3, 4)), fixed=(1,))
    yield Case("Fill", (vec(2, 3), scalar(1.5, F32)), fixed=(0,))
    yield Case("Fill", (vec(2, dtype=I64), scalar(7)), fixed=(0, 1))
    yield Case("ZerosLike", (vec(NAN, 1, dtype=F32),))
    yield Case("OnesLike", (ints(2, 3),))
    yield Case("Range", (scalar(2), scalar(9), scalar(3)), fixed=(0, 1, 2))
    yield Case("Range", (scalar(5), scalar(0), scalar(-2)), fixed=(0, 1, 2), note="down")
    yield Case("Range", (scalar(0, F32), scalar(1, F32), scalar(0.25, F32)), fixed=(0, 1, 2))
    yield Case("Range", (scalar(3), scalar(3), scalar(1)), fixed=(0, 1, 2), note="empty")


def _strided(x: Array, start: Any, stop: Any, strides: Any, **masks: int) -> Case:
    arrays = tuple(np.array(part, I32) for part in (start, stop, strides))
    attrs = {f"{name}_mask": bits for name, bits in masks.items()}
    return Case("StridedSlice", (x, *arrays), attrs, (1, 2, 3), note=f"{start}{stop}{strides}{masks}")


def indexing() -> Iterator[Case]:
    x = floats(4, 5, 6)
    yield _strided(x, [1], [3], [1])
    yield _strided(x, [0, 1, 2], [4, 5, 6], [2, 3, 1])
    yield _strided(x, [-1, 0], [-4, -1], [-1, 2])
    yield _strided(x, [9, -99], [-99, 99], [-2, 1])
    yield _strided(x, [0, 0], [0, 0], [1, 1], begin=3, end=3)
    yield _strided(x, [2, 3], [0, 0], [-1, -2], begin=2, end=3)
    yield _strided(x, [1, 2], [2, 3], [1, 1], shrink_axis=1)
    yield _strided(x, [-1, 2], [0, 3], [1, 1], shrink_axis=3)
    yield _strided(x, [0, 1], [0, 3], [1, 1], ellipsis=1)
    yield _strided(x, [1, 0, 2], [2, 0, 4], [1, 1, 1], ellipsis=2)
    yield _strided(x, [1, 0, 0, 2], [2, 0, 0, 4], [1, 1, 1, 1], ellipsis=2, new_axis=4)
    yield _strided(x, [0, 0, 0], [0, 2, 0], [1, 1, 1], new_axis=5)
    yield _strided(x, [0, 0, -1], [0, 0, 0], [1, 1, 1], ellipsis=1, new_axis=2, shrink_axis=4)
    yield _strided(x, [0, 0, 0, 0], [4, 5, 6, 0], [1, 1, 1, 1], ellipsis=8)
    yield _strided(x, [3], [1], [1])
    yield _strided(ints(7), [5], [0], [-3])
    yield _strided(ints(7), [4], [0], [1], begin=0, end=1, shrink_axis=1)
    yield Case("Slice", (x, vec(1, 0, 2), vec(2, -1, 3)), fixed=(1, 2))
    yield Case("Slice", (x, vec(4, 0, 0, dtype=I64), vec(0, 5, 6, dtype=I64)), fixed=(1, 2))
    yield Case("Split", (scalar(1), floats(2, 6)), {"num_split": 3}, (0,), 3)
    yield Case("Split", (scalar(-2), floats(2, 6)), {"num_split": 2}, (0,), 2, note="first")
    yield Case("SplitV", (x, vec(1, -1, 2), scalar(1)), {"num_split": 3}, (1, 2), 3)
    yield Case("Gather", (x, ints(2, 3, low=0, high=4)))
    yield Case("GatherV2", (x, ints(3, low=0, high=5, dtype=I64), scalar(1)), fixed=(2,))
    yield Case("GatherV2", (x, scalar(2), scalar(-1)), fixed=(2,))
    yield Case("GatherV2", (x, ints(4, 2, low=0, high=5), scalar(1)), {"batch_dims": 1}, (2,), note="batch")
    yield Case("GatherV2", (x, ints(4, 3, low=0, high=6), scalar(2)), {"batch_dims": 1}, (2,), note="batch-skips")
    yield Case("GatherV2", (x, ints(4, 5, low=0, high=6), scalar(-1)), {"batch_dims": -1}, (2,), note="two-batches")
    yield Case("GatherV2", (x, ints(4, 5, 2, low=0, high=6), scalar(2)), {"batch_dims": 2}, (2,), note="batches")
    yield Case("GatherNd", (x, vec(1, 2, 3, 4).reshape(2, 2)))
    yield Case("GatherNd", (x, vec(1, 2, 3, 3, 4, 5).reshape(2, 1, 3)))
    yield Case("GatherNd", (ints(4, 3), vec(3, 0, dtype=I64).reshape(2, 1)))
    yield Case("OneHot", (vec(0, 2, -1, 5), scalar(4), scalar(1, F32), scalar(0, F32)), {"axis": -1}, (1, 2, 3))
    yield Case("OneHot", (vec(0, 2, dtype=I64), scalar(3), scalar(5), scalar(-5)), {"axis": 0}, (1,))
    yield Case("OneHot", (ints(2, 3, low=0, high=4, dtype=U8), scalar(300), scalar(1, F32), scalar(0, F32)), {}, (1,))
    yield Case("TopKV2", (floats(3, 17), scalar(4)), {"sorted": True}, (1,), 2)
    yield Case("TopKV2", (ints(2, 3, 9, low=0, high=4), scalar(5)), {}, (1,), 2, note="ties")
    yield Case("TopKV2", (floats(6), scalar(6)), {}, (1,), 2, note="all")


def _conv(x: Array, w: Array, padding: str, strides: Any = (1, 1), dilations: Any = (1, 1), op: str = "Conv2D",
          **attrs: Any) -> Case:  # fmt: skip
    attrs |= {"strides": [1, *strides, 1], "dilations": [1, *dilations, 1], "padding": padding}
    return Case(op, (x, w), attrs, (1,), note=f"{padding}-{strides}-{dilations}".replace(" ", ""))


def convolutions() -> Iterator[Case]:
    x = floats(2, 7, 8, 3)
    for padding in ("SAME", "VALID"):
        for strides in ((1, 1), (2, 2), (3, 2)):
            yield _conv(x, floats(3, 3, 3, 5), padding, strides)
            yield _conv(x, floats(2, 3, 3, 5), padding, strides)
        yield _conv(x, floats(3, 2, 3, 4), padding, dilations=(2, 3))
        yield _conv(x, floats(1, 1, 3, 40), padding)
        yield _conv(x, floats(3, 3, 3, 2), padding, op="DepthwiseConv2dNative")
        yield _conv(x, floats(2, 3, 3, 1), padding, (2, 2), op="DepthwiseConv2dNative")
        yield _conv(x, floats(3, 3, 3, 1), padding, dilations=(2, 2), op="DepthwiseConv2dNative")
        for strides in ((1, 1), (2, 2), (3, 2)):
            yield _transposed(padding, strides, (2, 7, 8, 3))
            yield _transposed(padding, strides, (1, 6, 9, 4))
    yield _conv(floats(1, 9, 9, 4), floats(3, 3, 2, 6), "SAME")  # two groups
    yield _conv(floats(1, 16, 16, 32), floats(3, 3, 32, 32), "SAME", (2, 2))
    yield _conv(floats(1, 5, 5, 64), floats(3, 3, 64, 1), "SAME", op="DepthwiseConv2dNative")
    yield _conv(floats(1, 3, 3, 2), floats(5, 5, 2, 3), "SAME", (4, 4))  # larger than the image
    yield _conv(floats(1, 4, 4, 2, dtype=F64), floats(3, 3, 2, 3, dtype=F64), "SAME")
    explicit = [0, 0, 1, 2, 0, 3, 0, 0]
    yield _conv(x, floats(3, 3, 3, 5), "EXPLICIT", (2, 1), explicit_paddings=explicit)
    yield _conv(x, floats(3, 3, 3, 2), "EXPLICIT", op="DepthwiseConv2dNative", explicit_paddings=explicit)
    yield Case("Conv2D", (floats(2, 3, 7, 8), floats(3, 3, 3, 5)),
               {"strides": [1, 1, 2, 1], "padding": "SAME", "data_format": "NCHW"}, (1,), note="NCHW")  # fmt: skip
    yield Case("Conv2D", (floats(2, 3, 7, 8), floats(3, 3, 3, 5)),
               {"strides": [1, 1, 1, 1], "dilations": [1, 1, 2, 1], "padding": "EXPLICIT", "data_format": "NCHW",
                "explicit_paddings": [0, 0, 0, 0, 1, 0, 2, 1]}, (1,), note="NCHW-explicit")  # fmt: skip
    yield Case("Conv2DBackpropInput", (vec(5, 6), floats(3, 3, 2, 4), floats(1, 3, 3, 4)),
               {"strides": [1, 2, 2, 1], "padding": "SAME"}, (0, 1), note="two-sizes")  # fmt: skip


def _transposed(padding: str, strides: tuple[int, int], shape: tuple[int, ...]) -> Case:
    kernel = (3, 2)
    out = [-(-(size if padding == "SAME" else size - taps + 1) // stride)
           for size, taps, stride in zip(shape[1:3], kernel, strides, strict=True)]  # fmt: skip
    x, w = floats(shape[0], *out, 5, seed=2), floats(*kernel, shape[3], 5)
    attrs = {"strides": [1, *strides, 1], "padding": padding}
    note = f"{padding}-{strides}".replace(" ", "")
    return Case("Conv2DBackpropInput", (np.array(shape, I32), w, x), attrs, (0, 1), note=note)


def pooling() -> Iterator[Case]:
    x = floats(2, 7, 8, 3)
    for op in ("MaxPool", "AvgPool"):
        for padding in ("SAME", "VALID"):
            for size, step in ((2, 2), (3, 2), (3, 1)):
                attrs = {"ksize": [1, size, size, 1], "strides": [1, step, step, 1], "padding": padding}
                yield Case(op, (x,), attrs, note=f"{padding}-{size}-{step}")
        attrs = {"ksize": [1, 2, 3, 1], "strides": [1, 3, 1, 1], "padding": "SAME"}
        yield Case(op, (floats(1, 5, 5, 20),), attrs, note="uneven")
    yield Case("MaxPool", (x,), {"ksize": [1, 3, 3, 1], "strides": [1, 2, 2, 1], "padding": "EXPLICIT",
                                 "explicit_paddings": [0, 0, 1, 0, 0, 1, 0, 0]}, note="explicit")  # fmt: skip
    yield Case("MaxPoolV2", (x, vec(1, 2, 2, 1), vec(1, 2, 1, 1)), {"padding": "SAME"}, (1, 2))


def matrices() -> Iterator[Case]:
    a, b = floats(3, 4), floats(4, 5, seed=1)
    yield Case("MatMul", (a, b))
    yield Case("MatMul", (a.T.copy(), b), {"transpose_a": True}, note="ta")
    yield Case("MatMul", (a, b.T.copy()), {"transpose_b": True}, (1,), note="tb")
    yield Case("MatMul", (ints(3, 4), ints(4, 2)))
    yield Case("MatMul", (floats(1, 70, dtype=F64), floats(70, 33, dtype=F64)), fixed=(1,))
    yield Case("BatchMatMul", (floats(2, 3, 4), floats(2, 4, 5)))
    yield Case("BatchMatMulV2", (floats(2, 1, 3, 4), floats(5, 4, 2)))
    yield Case("BatchMatMulV2", (floats(2, 4, 3), floats(2, 5, 4)), {"adj_x": True, "adj_y": True}, note="adj")
    yield Case("BatchMatMulV3", (floats(3, 4), floats(2, 4, 5)), {"Tout": F32})
    yield Case("BiasAdd", (floats(2, 3), floats(3)))
    yield Case("BiasAdd", (floats(2, 3, 4, 5), floats(5)))
    yield Case("BiasAdd", (floats(2, 3, 4, 5), floats(3)), {"data_format": "NCHW"}, note="NCHW")
    yield Case("BiasAdd", (ints(2, 3), ints(3)))


def normalisations() -> Iterator[Case]:
    x, statistics = floats(2, 4, 5, 3), (floats(3), floats(3, seed=1), floats(3, seed=2), np.abs(floats(3, seed=3)))
    for op in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"):
        yield Case(op, (x, *statistics), {"is_training": False, "epsilon": 1e-3}, (1, 2, 3, 4))
    yield Case("FusedBatchNormV3", (x, *statistics), {"is_training": False}, note="at run time")
    yield Case("LRN", (floats(1, 2, 3, 12),))
    yield Case("LRN", (floats(1, 2, 3, 12),), {"depth_radius": 2, "bias": 2.0, "alpha": 1e-2}, note="narrow")
    yield Case("LRN", (floats(1, 2, 3, 4),), {"depth_radius": 5, "alpha": 0.5, "beta": 1.0}, note="wide")


def images() -> Iterator[Case]:
    x = floats(2, 5, 7, 3)
    for op in ("ResizeBilinear", "ResizeNearestNeighbor"):
        for align, half in ((False, False), (True, False), (False, True)):
            for size in ((10, 14), (3, 4), (8, 1), (1, 9), (7, 13)):
                attrs = {"align_corners": align, "half_pixel_centers": half}
                yield Case(op, (x, vec(*size)), attrs, (1,), note=f"{align:d}{half:d}-{size[0]}x{size[1]}")
    yield Case("ResizeBilinear", (ints(1, 3, 3, 2, low=0, high=200, dtype=U8), vec(5, 5)), {}, (1,))
    yield Case("ResizeNearestNeighbor", (ints(1, 3, 3, 2), vec(5, 5)), {}, (1,))
    yield Case("DepthToSpace", (floats(2, 3, 4, 12),), {"block_size": 2})
    yield Case("SpaceToDepth", (floats(2, 4, 6, 3),), {"block_size": 2})
    yield Case("SpaceToDepth", (floats(1, 6, 9, 1),), {"block_size": 3})
    even, uneven = vec(2, 2), vec(2, 3)
    pads, crops = vec(0, 0, 2, 0).reshape(2, 2), vec(1, 0, 0, 2).reshape(2, 2)
    yield Case("SpaceToBatchND", (floats(2, 4, 6, 3), even, pads), fixed=(1, 2))
    yield Case("SpaceToBatchND", (floats(1, 4, 7, 2), uneven, pads), fixed=(1, 2))
    yield Case("SpaceToBatchND", (floats(2, 6, 3), vec(3), vec(1, 2).reshape(1, 2)), fixed=(1, 2))
    yield Case("BatchToSpaceND", (floats(8, 2, 3, 3), even, crops), fixed=(1, 2))
    yield Case("BatchToSpaceND", (floats(12, 2, 3, 1), uneven, crops), fixed=(1, 2))


def fused() -> Iterator[Case]:
    x, w, bias = floats(1, 6, 7, 3), floats(3, 3, 3, 4), floats(4, seed=4)
    conv = {"strides": [1, 2, 2, 1], "padding": "SAME"}
    for ops in (["BiasAdd"], ["BiasAdd", "Relu"], ["BiasAdd", "Relu6"], ["BiasAdd", "Elu"], ["BiasAdd", "LeakyRelu"]):
        attrs = {**conv, "fused_ops": ops, "num_args": 1, "leakyrelu_alpha": 0.3, "TArgs": [F32]}
        yield Case("_FusedConv2D", (x, w, bias), attrs, (1, 2), note="+".join(ops))
        yield Case("_FusedMatMul", (floats(3, 4), floats(4, 5), floats(5)),
                   {"fused_ops": ops, "num_args": 1, "leakyrelu_alpha": 0.3, "transpose_b": False}, (1, 2),
                   note="+".join(ops))  # fmt: skip
    statistics = (bias, floats(4, seed=5), floats(4, seed=6), np.abs(floats(4, seed=7)))
    for ops in (["FusedBatchNorm"], ["FusedBatchNorm", "Relu"]):
        attrs = {**conv, "fused_ops": ops, "num_args": 4, "epsilon": 1e-3, "TArgs": [F32] * 4}
        yield Case("_FusedConv2D", (x, w, *statistics), attrs, (1, 2, 3, 4, 5), note="+".join(ops))


    attrs = {**conv, "fused_ops": ["BiasAdd", "Relu6"], "num_args": 1}
    yield Case("_FusedDepthwiseConv2dNative", (x, floats(3, 3, 3, 2), floats(6)), attrs, (1, 2))
    attrs = {**conv, "fused_ops": ["BiasAdd", "Add", "Relu"], "num_args": 2, "TArgs": [F32] * 2}
    yield Case("_FusedConv2D", (x, w, bias, floats(1, 3, 4, 4)), attrs, (1, 2), note="residual")


def _all() -> list[Case]:
    families = (arithmetic, conversions, reductions, shapes, indexing, convolutions, pooling, matrices, normalisations,
                images, fused)  # fmt: skip
    cases = [case for family in families for case in family()]
    titles = [case.title for case in cases]
    assert len(set(titles)) == len(titles), "two cases have one title"
    return cases


CASES: list[Case] = _all()
