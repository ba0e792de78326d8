"""The transform of convolution filters for `conv_winograd`, where they arrive at run time.

w  [O][C][r][r], f32     u  [n * n][O][C], f32

for item (output channel o), lanes of input channels:
  gather the r x r taps, in double precision; G w G^T -> u[k][o][c]
"""

from tilewright.compiler.ir.types import Shape
from tilewright.compiler.kernels.kernel import Kernel
from tilewright.compiler.loops import Builder, Index, Operand
from tilewright.compiler.loops.nodes import F32, F64
from tilewright.compiler.targets import Target
from tilewright.compiler.winograd import Row, Scheme


def build(name: str, tile: int, shape: Shape, target: Target) -> Kernel:
    """The kernel for filters of `shape`, with buffers w and u; an item is an output channel."""
    outputs, channels, kernel, _ = shape
    scheme = Scheme(tile, kernel)
    b = Builder(name)
    taps, products = scheme.kernel**2, scheme.window**2
    w = b.input("w", F32, outputs * channels * taps)
    u = b.output("u", F32, products * outputs * channels)
    begin, end = b.scalar("begin"), b.scalar("end")
    lanes = target.lanes(64)

    def weighted(row: Row, values: list[Operand]) -> Operand:
        total: Operand = b.const(0.0, F64.vector(lanes))
        for weight, value in zip(row, values, strict=True):
            if weight:
                total = b.fma(value, float(weight), total)
        return total

    def item(o: Index, _: list[Operand]) -> None:
        def vector(c: Index, active: int) -> None:
            at = b.mul(b.add(b.mul(o, channels), c), taps)
            steps = [lane * taps for lane in range(lanes)]
            found: list[Operand] = [
                b.convert(b.gather(w, at, steps, offset=tap, active=active), F64) for tap in range(taps)
            ]
            r, n = scheme.kernel, scheme.window
            columns = [[weighted(row, found[j::r]) for j in range(r)] for row in scheme.filters]
            to = b.add(b.mul(o, channels), c)
            for i in range(n):
                for j, row in enumerate(scheme.filters):
                    value = b.convert(weighted(row, columns[i]), F32)
                    b.store(u, to, value, offset=(i * n + j) * outputs * channels, active=active)

        b.lanes(channels, lanes, vector)

    b.for_(begin, end, item)
    multiplied = (scheme.window + kernel) * scheme.window * kernel
    return Kernel(b.finish(), outputs, 2 * outputs * channels * multiplied)
