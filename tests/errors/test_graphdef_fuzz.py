"""Damaged TensorFlow graphs of every kind end in a graph or in a TilewrightError, in bounded time.

A few hundred are tried on each run; TILEWRIGHT_FUZZ_EXAMPLES=20000 asks for that many of each of the four kinds.
"""

import os
import random
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_bundles import saved_model, write_bundle
from tensorflow_cases import CASES
from tensorflow_damage import damage_bytes, damage_text, mutate, names
from tensorflow_graphs import GraphDefWriter
from tensorflow_models import call, conditional, function, network, simple, variables_graph

from tilewright.errors import TilewrightError
from tilewright.frontends.formats import load
from tilewright.frontends.tensorflow.messages import GraphDef

EXAMPLES = int(os.environ.get("TILEWRIGHT_FUZZ_EXAMPLES", "100"))
SECONDS = 20
"""A model of some kilobytes that takes longer hangs, even where other processes take most of the machine."""

fuzz = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
seeds = st.integers(0, (1 << 64) - 1)


def nested_calls() -> bytes:
    g = GraphDefWriter()
    g.placeholder("x", "float32", (2, 3))
    inner = function(g, "inner", "a b", {"sum": "add:z:0", "second": "b"})
    inner.node_def.add(name="add", op="AddV2", input=["a", "b"]).attr["T"].type = 1
    outer = function(g, "outer", "p", {"out": "call:second:0", "other": "twice:0"})
    outer.node_def.add(name="negative", op="Neg", input=["p", "^twice"]).attr["T"].placeholder = "T"
    outer.node_def.add(name="call", op="inner", input=["p", "negative:y:0"])
    outer.node_def.add(name="twice", op="AddV2", input=["call:sum:0", "call:second:0"]).attr["T"].type = 1
    call(g, "y", "outer", "x")
    g.constant("p", np.array(True))
    g.node("z", "StatelessIf", "p", "y", "y:1")
    g.graph.node[-1].attr["then_branch"].func.name = "inner"
    g.graph.node[-1].attr["else_branch"].func.name = "inner"
    return g.bytes()


@cache
def sources() -> tuple[bytes, ...]:
    """Sound graphs: some of them small networks, then one for every use of an operator."""
    models = (simple().bytes(), network(), nested_calls(), conditional(True).bytes(), variables_graph()[0].bytes())
    return (*models * 8, *(case.graph() for case in CASES))


def graph_for(rng: random.Random) -> Any:
    return GraphDef.FromString(rng.choice(sources()))


def mutated(rng: random.Random) -> Any:
    graph = graph_for(rng)
    known = names(graph)
    for _ in range(rng.choice((1, 1, 2, 4, 10))):
        mutate(graph, rng, known)
    return graph


def outcome(source: Any) -> str:
    """What becomes of a model; anything but a graph and a TilewrightError is raised on."""
    started = time.monotonic()
    try:
        model = load(source)
        shapes = {
            port.name: tuple(dim if isinstance(dim, int) else 1 for dim in port.dims or ()) for port in model.inputs
        }
        try:
            model.unsupported()
            model.layers()
        except TilewrightError:
            pass
        model.translate(shapes=shapes)
    except TilewrightError as error:
        assert str(error)
        return type(error).__name__
    finally:
        assert time.monotonic() - started < SECONDS
    return "translated"


@fuzz
@given(seeds)
def test_mutated_graphs(seed: int) -> None:
    outcome(mutated(random.Random(seed)))


@fuzz
@given(seeds)
def test_damaged_bytes(seed: int) -> None:
    rng = random.Random(seed)
    graph = graph_for(rng)
    message = saved_model(graph, {}, {"y": "y:0"}) if rng.random() < 0.2 else graph
    outcome(damage_bytes(message.SerializeToString(), rng))


@fuzz
@given(seeds)
def test_damaged_text(seed: int) -> None:
    rng = random.Random(seed)
    outcome(damage_text(text_format.MessageToString(graph_for(rng)), rng).encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("saved_model")
    write_bundle(found / "variables" / "variables", variables_graph()[1])
    return found


@fuzz
@given(seed=seeds)
def test_damaged_saved_models(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    graph, _ = variables_graph()
    message = saved_model(graph.graph, {"x": "serving_default_x:0"}, {"y": "serve_it:0"})
    known = names(graph.graph)
    for _ in range(rng.choice((0, 1, 3))):
        mutate(message, rng, known)
    (folder / "saved_model.pb").write_bytes(message.SerializeToString())
    index, data = (folder / "variables" / f"variables.{end}" for end in ("index", "data-00000-of-00001"))
    sound = index.read_bytes(), data.read_bytes()
    if rng.random() < 0.5:
        index.write_bytes(damage_bytes(sound[0], rng))
    if rng.random() < 0.3:
        data.write_bytes(damage_bytes(sound[1], rng))
    try:
        outcome(folder)
    finally:
        index.write_bytes(sound[0])
        data.write_bytes(sound[1])


def test_the_harness_finds_all_kinds_of_ends() -> None:
    """Enough is wrong that graphs are refused for every reason, and not so much that none is translated."""
    makers: tuple[Callable[[random.Random], Any], ...] = (
        mutated,
        lambda rng: damage_bytes(graph_for(rng).SerializeToString(), rng),
    )
    found = {outcome(make(random.Random(seed))) for seed in range(150) for make in makers}
    assert {"ModelError", "GraphError", "UnsupportedError", "translated"} <= found
