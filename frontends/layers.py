"""Friendly names of a network's layers, whatever the format it is read from.

    Layer(0, "conv1_1", op="Conv", node="block1/Conv", raw="block1/Conv:0", tensor="block1/Relu:0")

Names follow VGG: pooling ends a block, `conv2_1` is the first convolution of the second block and means the tensor
after its bias, normalisation and activation; `relu2_1` and `block2_conv1` are the same. `pool2` ends block 2. Dense
layers are counted on from the last block: `fc6` where five blocks end in pooling.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.errors import UnknownNameError


@dataclass(frozen=True)
class Layer:
    """One layer. `raw` is the tensor that its operator computes, `tensor` the one that `name` means.

    `parameters` counts the elements of its weights and bias; `taps` is the multiply-adds for one element of
    `raw` (0 for pooling), so that 2 * taps * elements are its FLOPs.
    """

    index: int
    name: str
    node: str
    op: str
    raw: str
    tensor: str
    parameters: int
    taps: int

    @property
    def aliases(self) -> tuple[str, ...]:
        """All its friendly names."""
        if not self.name.startswith("conv"):
            return (self.name,)
        block, _, number = self.name.removeprefix("conv").partition("_")
        return (self.name, f"relu{block}_{number}", f"block{block}_conv{number}")


class LayerNames:
    """Gives the layers of a network their names, one after the other."""

    def __init__(self) -> None:
        self.block, self.number, self.last_dense = 1, 0, 0

    def convolution(self) -> str:
        """The name of the next layer if it is a convolution."""
        self.number += 1
        return f"conv{self.block}_{self.number}"

    def pool(self) -> str:
        """The same for pooling, which ends a block."""
        name = f"pool{self.block}"
        self.block, self.number = self.block + 1, 0
        return name

    def dense(self) -> str:
        """The same for a dense layer."""
        first = self.block + (1 if self.number else 0)
        self.last_dense = max(first, self.last_dense + 1)
        return f"fc{self.last_dense}"


def numbered(layers: Sequence[Layer], number: str | int, model: str) -> Layer:
    """The layer of a number, digits or an integer; raises UnknownNameError if `model` has no such layer."""
    index = int(number) if isinstance(number, int) or len(number) < 10 else -1
    if not 0 <= index < len(layers):
        raise UnknownNameError(
            f"layer (there are {len(layers)}, counted from 0) or tensor",
            str(number), [layer.name for layer in layers], model=model,
        )  # fmt: skip
    return layers[index]
