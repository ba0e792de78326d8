"""Interleaved timing: every round runs each contender once, so that they share the machine's moods.

    times = race({"tilewright": ours, "torch": theirs}, seconds=3)
    times["torch"].median / times["tilewright"].median       how many times faster ours is
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Times:
    """Seconds a call: the shortest, the median, the longest of `rounds`."""

    least: float
    median: float
    most: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median * 1e3:9.3f} ms (min {self.least * 1e3:.3f}, max {self.most * 1e3:.3f}, n {self.rounds})"


def race(
    contenders: Mapping[str, Callable[[], object]], seconds: float = 2.0, least_rounds: int = 7
) -> dict[str, Times]:
    """Time each contender for about `seconds` in all, at least `least_rounds` rounds, after two warm-up rounds."""
    for _ in range(2):
        for run in contenders.values():
            run()
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    started = time.perf_counter()
    rounds = 0
    while rounds < least_rounds or time.perf_counter() - started < seconds:
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - begin)
        rounds += 1
    return {name: Times(min(t), median(t), max(t), rounds) for name, t in taken.items()}
