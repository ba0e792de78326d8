"""What a model declares about its inputs and outputs, whatever the format it is read from.

    Port("x", F32, "float", (None, 3, "height", 224))      x: float ?x3xheightx224
"""

from dataclasses import dataclass

from tilewright.compiler.ir import DType

Dim = int | str | None
"""A declared dimension: a number, a symbol that stands for the same number wherever it is used, or unknown."""


MAX_RANK = 32
"""More axes than NumPy and every sensible model take."""


@dataclass(frozen=True)
class Port:
    """A declared input or output; `dims` is None without a rank, `dtype` where Tilewright lacks the type."""

    name: str
    dtype: DType | None
    type_name: str
    dims: tuple[Dim, ...] | None

    def __str__(self) -> str:
        dims = "unknown rank" if self.dims is None else "x".join("?" if dim is None else str(dim) for dim in self.dims)
        return f"{self.name}: {self.type_name} {dims or 'scalar'}"
