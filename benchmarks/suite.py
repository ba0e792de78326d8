"""Everything that docs/benchmarks.md shows: measured case by case into build/benchmarks/results, then rendered.

    make bench                              all of it, about a quarter of an hour on a quiet machine of two cores
    make bench ARGS="--only 'resnet50*'"    some cases; the page is rendered from all results there are
    make bench ARGS="--resume"              only what is not measured yet
    make bench ARGS="--scale 0.1"           a tenth of the time for rounds, to see whether all works
    make bench ARGS="--render"              only the page

Questions that need no other engine have files of their own: `.venv/bin/python -m pytest benchmarks -s -k aot`.

Each case runs in a process of its own and leaves a file <case>.json, with the date, the commit and how busy others kept
the machine. After --minutes no further case begins.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from typing import Any

import compiling
import render
import speed
from models import LIGHT, ROOT, WORK

RESULTS = WORK / "results"
Facts = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A measurement: `run` takes seconds and the least number of rounds. `seconds` are for its rounds alone."""

    name: str
    seconds: float
    run: Callable[[float, int], Facts]
    least: int = 5


def _accuracy(seconds: float, least: int) -> Facts:
    import accuracy  # imports torch, which others must not have beside them

    return {"rows": list(accuracy.rows())}


def _network(name: str, batch: int, threads: int, seconds: float, least: int = 5) -> Case:
    run = partial(speed.network, name, batch, threads)
    return Case(f"{name}-b{batch}-t{threads}", seconds, lambda seconds, least: run(seconds, least), least)


def _compiling(name: str, rounds: int) -> Case:
    return Case(f"compile-{name}", 0, lambda seconds, least: compiling.compiling(name, least), rounds)


def _hypercolumns(threads: int) -> Case:
    run = partial(speed.hypercolumns, threads)
    return Case(f"hypercolumns-t{threads}", 12, lambda seconds, least: run(seconds, least))


def _dynamic(name: str) -> Case:
    run = partial(speed.dynamic, name, 8)
    return Case(f"dynamic-{name}", 5, lambda seconds, least: run(seconds, least))


def _narrow(name: str, seconds: float) -> Case:
    return Case(f"avx2-{name}", seconds, lambda seconds, least: speed.narrow(name, seconds, least))


NARROW = (("vgg16", 10), ("resnet50", 8), ("mobilenetv2", 4), ("mnist", 4)) if platform.machine() == "x86_64" else ()
CASES = (
    *(_network(*row) for row in (("vgg16", 1, 1, 20), ("resnet50", 1, 1, 15), ("mobilenetv2", 1, 1, 8))),
    _network("mnist", 1, 1, 6),
    *(_network(*row) for row in (("vgg16", 1, 2, 15), ("resnet50", 1, 2, 10), ("mobilenetv2", 1, 2, 6))),
    _hypercolumns(1),
    _hypercolumns(2),
    *(_network(name, 1, 1, 5) for name in LIGHT),
    *(_compiling(name, rounds) for name, rounds in (("vgg16", 3), ("resnet50", 3), ("mobilenetv2", 3), ("mnist", 3))),
    Case("accuracy", 0, _accuracy),
    Case("operators", 36, speed.operators),
    *(_network(name, 8, 1, seconds, 3) for name, seconds in (("resnet50", 15), ("mobilenetv2", 8), ("mnist", 4))),
    *(_network(name, 8, 2, seconds, 3) for name, seconds in (("resnet50", 10), ("mobilenetv2", 6), ("mnist", 4))),
    *map(_dynamic, ("resnet50", "mobilenetv2", "mnist")),
    *(_narrow(*row) for row in NARROW),
    _network("vgg16", 8, 1, 10, 2),
    _network("vgg16", 8, 2, 10, 2),
)
"""In the order in which they run, what matters most first."""


def measure(case: Case, scale: float) -> Facts:
    """Run a case in this process."""
    least = case.least if scale >= 1 else max(1, round(case.least * scale))
    return case.run(case.seconds * scale, least)


def in_process(case: Case, scale: float) -> Facts:
    """Run a case in a process of its own; what goes wrong is its result."""
    began, busy, own = time.time(), _busy_seconds(), _own_seconds()
    command = [sys.executable, __file__, "--case", case.name, "--scale", str(scale)]
    done = subprocess.run(command, capture_output=True, text=True)
    took = time.time() - began
    others = max(0.0, _busy_seconds() - busy - (_own_seconds() - own)) / took
    lines = done.stderr.strip().splitlines()
    facts = json.loads(done.stdout) if done.returncode == 0 else {"error": lines[-1] if lines else "it ended early"}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    about = {
        "case": case.name, "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "commit": commit.stdout.strip(),
        "took_s": took, "others": others, "scale": scale, "machine": render.machine(),
    }  # fmt: skip
    return {**about, **facts}


def _busy_seconds() -> float:
    """Seconds that all cores together have worked or were taken away, since the machine started."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, *others = map(int, file.readline().split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Measure and render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PATTERN", action="append", help="cases whose names fit, with * and ?")
    parser.add_argument(
        "--resume", action="store_true", help="leave out cases that have a result, not measured in a hurry"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the time of all rounds by this")
    parser.add_argument("--minutes", type=float, default=20.0, help="begin no case after this time (default 20)")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--list", action="store_true", help="print the cases' names")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        (case,) = [case for case in CASES if case.name == options.case]
        print(json.dumps(measure(case, options.scale)))
        return
    chosen = [case for case in CASES if any(fnmatch(case.name, pattern) for pattern in options.only or ["*"])]
    if options.list:
        print("\n".join(case.name for case in chosen))
        return
    began = time.time()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for case in () if options.render else chosen:
        path = RESULTS / f"{case.name}.json"
        if options.resume and path.exists() and is_good(json.loads(path.read_text()), options.scale):
            continue
        if time.time() - began > options.minutes * 60:
            print(f"{case.name}: left out, the time is up; go on with --resume")
            continue
        facts = in_process(case, options.scale)
        path.write_text(json.dumps(facts, indent=1) + "\n")
        told = facts.get("error") or told_of(facts)
        print(f"{case.name}: {facts['took_s']:.0f} s, others {facts['others']:.0%} of a core. {told}", flush=True)
    (ROOT / "docs" / "benchmarks.md").write_text(render.page(render.read_results(RESULTS)), encoding="utf-8")
    print(f"wrote docs/benchmarks.md; {time.time() - began:.0f} s in all")


def is_good(facts: Facts, scale: float) -> bool:
    """Whether a result needs no other run at this scale."""
    return "error" not in facts and bool(facts["scale"] >= scale)


def told_of(facts: Facts) -> str:
    """The times of engines as multiples of ours."""
    peers = facts.get("peers", ())
    return ", ".join(f"{peer['name']} {'-' if 'error' in peer else format(peer['ratio'], '.2f')}" for peer in peers)


if __name__ == "__main__":
    main()
