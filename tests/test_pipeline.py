"""The compile as a whole: every stage leaves a well-formed graph, and equal input gives equal bytes."""

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import Bottleneck, InvertedResidual, build, export
from torch import nn

import tilewright as tw
from tilewright.compiler import targets
from tilewright.compiler.ir import Graph
from tilewright.compiler.ir.verifier import verify
from tilewright.compiler.ops import verify_types
from tilewright.compiler.pipeline import STAGES, compile_graph, optimise
from tilewright.compiler.targets import by_name, host
from tilewright.errors import ResourceError, UnsupportedError
from tilewright.frontends.onnx.model import read_model
from tilewright.frontends.onnx.translate import translate
from tilewright.runtime.executable import Executable


def graph_of(name: str) -> Graph:
    return translate(read_model(export(*build(name))))


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "aarch64"])
@pytest.mark.parametrize("name", ["mnist", "mobilenetv2", "resnet50"])
def test_every_stage_leaves_a_graph_that_verifies(name: str, target: str) -> None:
    seen = []

    def trace(stage: str, graph: Graph) -> None:
        verify(graph)
        verify_types(graph)
        assert str(graph).startswith("graph ")
        seen.append(stage)

    optimise(graph_of(name), by_name(target), trace)
    assert seen == [stage for stage, _ in STAGES]


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "aarch64"])
def test_equal_input_gives_equal_bytes_for_each_target(target: str) -> None:
    first, second = (compile_graph(graph_of("mnist"), by_name(target)) for _ in range(2))
    assert first.code == second.code
    np.testing.assert_array_equal(first.constants, second.constants)
    assert first.manifest == second.manifest


def test_an_artifact_pickles() -> None:
    module, shape = build("mnist")
    artifact = compile_graph(translate(read_model(export(module, shape))), host())
    x = np.random.default_rng(0).random(shape, np.float32)
    results = []
    for candidate in (artifact, pickle.loads(pickle.dumps(artifact))):
        result = np.empty((1, 10), np.float32)
        Executable(candidate).run([x], [result])
        results.append(result)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(("make", "channels", "count"), [(Bottleneck, 32, 4), (InvertedResidual, 24, 3)])
def test_a_convolution_of_a_residual_block_is_one_kernel(
    make: Callable[..., nn.Module], channels: int, count: int
) -> None:
    block = make(32, 16, 1) if make is Bottleneck else make(24, 24, 1, 6)
    artifact = compile_graph(translate(read_model(export(block.eval(), (1, channels, 14, 14)))), host())
    templates = [kernel.template for kernel in artifact.manifest.kernels]
    convolutions = [t for t in templates if t.startswith(("conv", "depthwise"))]
    assert len(convolutions) == count
    assert set(templates) - set(convolutions) <= {"relayout", "borders"}


def test_buffers_are_reused() -> None:
    manifest = compile_graph(graph_of("resnet50"), host()).manifest
    assert manifest.workspace_bytes <= 1.1 * manifest.workspace_bound
    assert manifest.workspace_bytes < 12 << 20


def test_unknown_target() -> None:
    with pytest.raises(UnsupportedError, match="no target is called 'z80'; there are host, x86-64-v2, x86-64-v3"):
        tw.compile(export(*build("mnist")), target="z80")


def test_code_for_another_machine_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "aarch64" if host().triple.startswith("x86_64") else "x86-64-v3"
    for run in (lambda: tw.compile(export(*build("mnist")), target=other), lambda: tw.Hypercolumns(target=other)):
        with pytest.raises(UnsupportedError, match=f"this machine cannot run code for {other}"):
            run()
    monkeypatch.setattr(targets, "host", lambda: replace(by_name("x86-64-v3"), name="host"))
    with pytest.raises(UnsupportedError, match=r"cannot run code for x86-64-v4, .*without avx512bw, avx512cd"):
        tw.compile(export(*build("mnist")), target="x86-64-v4")


def test_a_workspace_beyond_reason_is_refused() -> None:
    data = export(*build("mobilenetv2"))
    with pytest.raises(ResourceError, match="elements, more than 2"):
        tw.compile(data, shapes={"x": (1, 3, 1 << 20, 1 << 20)})


@pytest.mark.parametrize(
    ("name", "target"), [("mnist", "x86-64-v2"), ("mnist", "x86-64-v3"), ("mobilenetv2", "x86-64-v3")]
)
def test_a_narrower_instruction_set_runs_here(name: str, target: str) -> None:
    if host().triple != by_name("x86-64-v3").triple:
        pytest.skip("this machine does not run x86-64 code")
    module, shape = build(name)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module(x).numpy()
    got = tw.compile(export(module, shape), target=target, cache=False)(x.numpy())
    assert np.abs(got - expected).max() <= 1e-5 * (expected.max() - expected.min())
