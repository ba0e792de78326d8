"""Where the channels lie: operators on images say NHWC or NCHW, our primitives take (batch, channels, spatial ...).

    image = Image(call)                  reads attribute data_format
    y = image.back(f(image.first(x)))    f works on channels first; passes remove the transposes again
"""

from collections.abc import Sequence

from tilewright.compiler.ir import Shape, Value
from tilewright.compiler.ops import composites
from tilewright.compiler.ops.builder import GraphBuilder
from tilewright.errors import GraphError, UnsupportedError
from tilewright.frontends.tensorflow.operators.table import Call

Pads = tuple[tuple[int, int], ...]


class Image:
    """How a node's images lie: `axis` is that of their channels."""

    def __init__(self, call: Call, format: str | None = None) -> None:
        self.g: GraphBuilder = call.g
        self.format = call.text("data_format", "NHWC") if format is None else format
        if self.format not in ("NHWC", "NCHW"):
            raise UnsupportedError(f"attribute 'data_format' is '{self.format}'; Tilewright knows NHWC and NCHW")
        self.axis = 1 if self.format == "NCHW" else 3

    def first(self, x: Value) -> Value:
        """x as (N, C, H, W)."""
        if x.type.rank != 4:
            raise GraphError(f"operand of shape {x.type.shape} is no batch of images; those have 4 axes")
        return x if self.axis == 1 else self.g.op("transpose", x, perm=(0, 3, 1, 2))

    def back(self, x: Value) -> Value:
        """What `first` did, undone."""
        return x if self.axis == 1 else self.g.op("transpose", x, perm=(0, 2, 3, 1))

    def spatial(self, values: Sequence[int], what: str) -> tuple[int, int]:
        """The height's and width's entries of one number an axis; the others must be 1."""
        if len(values) != 4 or any(value < 1 for value in values):
            raise GraphError(f"attribute '{what}' is {tuple(values)}; it takes four numbers from 1 on")
        if values[0] != 1 or values[self.axis] != 1:
            raise UnsupportedError(f"attribute '{what}' is {tuple(values)}; only the spatial axes can differ from 1")
        height = 2 if self.axis == 1 else 1
        return values[height], values[height + 1]

    def pads(self, call: Call, size: Shape, kernel: Shape, strides: Shape, dilations: Shape) -> Pads:
        """Zeros around height and width, as attribute 'padding' wants; of SAME, the odd one goes to the end."""
        mode = call.text("padding")
        if mode == "VALID":
            return ((0, 0), (0, 0))
        if mode == "SAME":
            return composites.same_pads(size, kernel, strides, dilations)
        if mode != "EXPLICIT":
            raise GraphError(f"attribute 'padding' is '{mode}'; it can be SAME, VALID or EXPLICIT")
        listed = call.wholes("explicit_paddings") or ()
        if len(listed) != 8 or any(pad < 0 for pad in listed):
            raise GraphError(f"attribute 'explicit_paddings' is {listed}; it takes eight numbers from 0 on")
        pairs = tuple(zip(listed[::2], listed[1::2], strict=True))
        if any(pairs[0]) or any(pairs[self.axis]):
            raise GraphError(f"attribute 'explicit_paddings' is {listed}; only the spatial axes can be padded")
        height = 2 if self.axis == 1 else 1
        return pairs[height : height + 2]
