"""Lines of memory that a loop fetches while it computes, before they are needed.

    Lines(filters, at, offset=512, step=16, every=2)      the line at element at + 512 in step 0, at + 528 in step 2, ..
"""

from dataclasses import dataclass, replace

from tilewright.compiler.loops import Buffer, Builder, Index


@dataclass(frozen=True)
class Lines:
    """One line every so many steps; `step` elements apart from element `at + offset` on."""

    buffer: Buffer
    at: Index
    offset: int
    step: Index
    every: int = 1

    def later(self, b: Builder, steps: Index) -> "Lines":
        """Those of later steps; where `step` is known only at run time, of a multiple of `every`."""
        step = self.step
        past = b.mul(steps, step // self.every) if isinstance(step, int) else b.mul(b.div(steps, self.every), step)
        return replace(self, at=b.add(self.at, past))

    def fetch(self, b: Builder, step: int) -> None:
        """Fetch the line of one of the next steps, a multiple of `every`."""
        past = b.mul(self.step, step // self.every)
        at, offset = (self.at, past) if isinstance(past, int) else (b.add(self.at, past), 0)
        b.prefetch(self.buffer, at, offset=self.offset + offset)
