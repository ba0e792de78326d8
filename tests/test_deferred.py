"""Large constants, computed while code is generated, are the ones that would have been computed before."""

import numpy as np
import pytest
from networks import build, export

from tilewright.compiler import pipeline
from tilewright.compiler.deferred import Recipe, defer, identity_of, size_of
from tilewright.compiler.emit import pack_constants
from tilewright.compiler.ir import F32, TensorType
from tilewright.compiler.ops import GraphBuilder
from tilewright.compiler.passes import cleanup
from tilewright.compiler.targets import by_name
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import translate
from tilewright.runtime.artifact import aligned_empty


@pytest.mark.parametrize("name", ["mnist", "mobilenetv2"])
def test_packed_constants_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = translate(read_model(export(*build(name))))
    deferred: list[int] = []
    packed: list[list[bytes]] = []
    for small in (1 << 40, 0):
        monkeypatch.setattr(pipeline, "SMALL", small)
        emitted = pipeline.plan_graph(graph, by_name("x86-64-v4")).emitted
        sizes = {value: size_of(constant) for value, constant in emitted.constants.items()}
        deferred.append(sum(isinstance(constant, Recipe) for constant in emitted.constants.values()))
        blob = pack_constants(emitted, aligned_empty)
        packed.append(sorted(blob[start : start + sizes[value]].tobytes() for value, start in emitted.starts.items()))
    assert deferred[0] == 0 < deferred[1]
    assert packed[0] == packed[1]


def test_what_is_deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    g = GraphBuilder("net")
    x = g.input("x", TensorType(F32, (4, 4)))
    monkeypatch.setattr("tilewright.compiler.ops.builder.FOLD_LIMIT", 0)  # the builder leaves the nodes
    w = g.constant(np.arange(16, dtype=np.float32).reshape(4, 4))
    known = g.op("transpose", g.op("neg", w), perm=(1, 0))
    graph = g.finish({"y": g.op("matmul", x, known), "w": g.op("exp", w)})
    rest, recipes = defer(graph)
    assert [node.op for node in rest.nodes] == ["matmul", "exp"], "what becomes an output is computed in a call"
    (recipe,) = recipes.values()
    assert recipe.op == "transpose" and isinstance(recipe.operands[0], Recipe)
    twin = Recipe("transpose", recipe.attrs, recipe.operands, recipe.type)
    assert identity_of(twin) == identity_of(recipe) != identity_of(recipe.operands[0])
    monkeypatch.setattr(cleanup, "FOLD_BUDGET", -8 * w.type.bytes)
    assert not defer(graph)[1], "beyond the budget nothing is computed while compiling"
