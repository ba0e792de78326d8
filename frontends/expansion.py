"""How much the functions of a model may expand to: nested calls in a small file can ask for any amount.

    expansion = Expansion()
    expansion.call(Extent(nodes=12, parts=80, bytes=2000), "block1/dense")      ResourceError when it is too much

A call costs about the memory that its function's nodes take under the names that it lends them.
"""

from dataclasses import dataclass

from tilewright.errors import ResourceError

MAX_BYTES = 1 << 28
"""A large network of functions takes a tenth of it."""

_NODE, _PART = 512, 64
"""Bytes of a node, and of a name or attribute of one."""

_GROWTH = 8
"""How many bytes one byte of a file becomes, such as in a list of numbers."""


@dataclass(frozen=True)
class Extent:
    """A function's body: its nodes; their inputs, outputs and attributes; the bytes of all that in the file."""

    nodes: int
    parts: int
    bytes: int


class Expansion:
    """What has been expanded so far."""

    def __init__(self) -> None:
        self.bytes = 0

    def call(self, body: Extent, name: str) -> None:
        """Count the call `name` of a function before it is expanded; raises ResourceError if it is too much."""
        names = (body.nodes + body.parts) * len(name)
        self.bytes += _NODE * (1 + body.nodes) + _PART * body.parts + _GROWTH * body.bytes + names
        if self.bytes > MAX_BYTES:
            raise ResourceError(
                f"its functions expand to more than {MAX_BYTES >> 20} MiB of nodes; no network needs that, so the file "
                "is damaged or malicious"
            )
