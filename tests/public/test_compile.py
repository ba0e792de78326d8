"""`tilewright compile` and `tilewright targets`, run in this process."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format
from small_models import reference, small_network

import tilewright as tw
from tilewright.cli import cli
from tilewright.cli.compile import FORMS
from tilewright.frontends.formats import load
from tilewright.frontends.tensorflow.messages import GraphDef

FOUR_NODES = Path(__file__).parents[2] / "docs/examples/four_nodes.pbtxt"
RANDOM = np.random.default_rng(5)


def run(*arguments: object, code: int = 0) -> Result:
    """The outcome of `tilewright ARGUMENTS`."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_network((1, 3, 16, 24)))
    return path


def function(assembly: str, name: str = "nest_0") -> list[str]:
    """The instructions of a function."""
    body = assembly.partition(f"\n{name}:")[2].partition(".Lfunc_end")[0]
    lines = [" ".join(line.split()) for line in body.splitlines()]
    return [line for line in lines if line and not line.startswith((".", "@", "#", "//", ";"))]


def test_a_shared_object_and_its_header(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.so"
    shown = run("compile", model, "-o", out).output
    assert [line.split(" (")[0] for line in shown.splitlines()] == [f"wrote {out}", f"wrote {tmp_path / 'net.h'}"]
    x = RANDOM.standard_normal((1, 3, 16, 24)).astype(np.float32)
    np.testing.assert_allclose(tw.load(out)(x), reference(x)["scores"], rtol=1e-5, atol=1e-5)
    assert "net_run(" in (tmp_path / "net.h").read_text()


def test_every_form_at_once(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "build"
    folder.mkdir()
    run("compile", model, "-o", folder / "net", "--emit", ",".join(FORMS))
    names = {path.name for path in folder.iterdir()}
    assert names == {"net.so", "net.o", "net.a", "net.h", "net.s", "net.ll", "net.bc"}
    assert (folder / "net.ll").read_text().startswith("; llc -O2 ")
    assert (folder / "net.bc").read_bytes()[:4] == b"BC\xc0\xde"
    assert (folder / "net.a").read_bytes().startswith(b"!<arch>")
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    run("compile", model, "-o", folder / "net", "--emit", ",".join(FORMS))
    for path in folder.iterdir():
        assert path.read_bytes() == first[path.name], path


@pytest.mark.parametrize(
    ("out", "forms", "target", "found"),
    [
        ("x.s", "asm", "host", {"x.s"}),
        ("x.txt", "asm", "aarch64", {"x.txt"}),
        ("x.so", "obj", "riscv64", {"x.o"}),
        ("x", "obj,header", "x86-64-windows-gnu", {"x.obj", "x.h", "x.weights"}),
        ("x.v2.so", "obj,asm", "armv7", {"x.v2.o", "x.v2.s"}),
        ("x.wasm", "obj", "wasm32", {"x.o", "x.weights"}),
        ("x.dylib", "obj", "arm64-macos", {"x.o", "x.weights"}),
    ],
)
def test_files_are_named_after_out(
    model: Path, tmp_path: Path, out: str, forms: str, target: str, found: set[str]
) -> None:
    run("compile", model, "-o", tmp_path / out, "--emit", forms, "--target", target)
    assert {path.name for path in tmp_path.iterdir()} - {"small.onnx"} == found


def test_the_object_of_a_target_is_for_it(model: Path, tmp_path: Path) -> None:
    chosen = ("--target", "aarch64-linux-gnu", "--cpu", "cortex-a72")
    run("compile", model, "-o", tmp_path / "x.o", "--emit", "obj", *chosen)
    assert (tmp_path / "x.o").read_bytes()[18] == 183  # EM_AARCH64


def test_any_number_of_samples(model: Path, tmp_path: Path) -> None:
    (tmp_path / "open.onnx").write_bytes(small_network(("N", 3, 16, 24)))
    message = run("compile", tmp_path / "open.onnx", "-o", tmp_path / "net.so", code=2).output
    assert "--shape image=1x3x16x24" in message and "--shape image=Nx3x16x24" in message
    run("compile", tmp_path / "open.onnx", "-o", tmp_path / "net.so", "--shape", "image=Nx3x16x24")
    x = RANDOM.standard_normal((5, 3, 16, 24)).astype(np.float32)
    np.testing.assert_allclose(tw.load(tmp_path / "net.so")(x), reference(x)["scores"], rtol=1e-5, atol=1e-5)


def test_other_outputs_and_weights_outside(model: Path, tmp_path: Path) -> None:
    run("compile", model, "-o", tmp_path / "net.so", "--outputs", "conv1_1", "--weights", "external", "--name", "abc")
    assert (tmp_path / "abc.weights").exists()
    x = RANDOM.standard_normal((1, 3, 16, 24)).astype(np.float32)
    np.testing.assert_allclose(tw.load(tmp_path / "net.so")(x), reference(x)["conv1_1"], rtol=1e-5, atol=1e-5)


def test_commands_are_shown_on_request(model: Path, tmp_path: Path) -> None:
    shown = run("compile", model, "-o", tmp_path / "net.so", "--linker", "builtin", "-v").stderr
    assert "built-in linker: " in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--emit", "exe"], "'exe' is not one of so, obj, archive, header, asm, llvm-ir, bitcode"),
        (["--emit", ","], "',' is not one of"),
        (["--codegen", "gcc"], "'gcc' is no code generator; write llc, or llc:PROGRAM"),
        (["--codegen", "llc:/no/llc"], "llc cannot be run as /no/llc"),
        (["--target", "z80"], "no target is called 'z80'"),
        (["--cpu", "znver99"], "LLVM knows no x86_64 processor called 'znver99'"),
        (["--features", "fma"], "no feature of x86_64 called 'fma'"),
        (["--shape", "image=1xx2"], "'image=1xx2' is not a shape"),
        (["--linker", "/no/ld"], "/no/ld"),
        (["--name", "1st"], "'1st' is no name that C functions can begin with"),
        (["--outputs", "nothing"], "nothing"),
    ],
)
def test_refusals(model: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("compile", model, "-o", tmp_path / "net.so", *arguments, code=2)
    assert message in result.stderr
    assert not (tmp_path / "net.so").exists()
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


# Stops before the finished file gets its name.
SLOW = """
import os, signal, sys, time
from tilewright.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background of a shell ignore it
def fsync(_):
    print("half-written", flush=True)
    time.sleep(60)
os.fsync = fsync
sys.argv[0] = "tilewright"
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nothing_is_left_when_it_is_ended(model: Path, tmp_path: Path, number: int, code: int) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    command = [sys.executable, "-c", SLOW, "compile", str(model), "-o", str(folder / "net.so"), "--linker", "builtin"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half-written\n"
        assert [path.suffix for path in folder.iterdir()] == [".partial"]
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == code
    assert not list(folder.iterdir())


def test_places_that_cannot_be_written(model: Path, tmp_path: Path) -> None:
    assert "there is no folder" in run("compile", model, "-o", tmp_path / "none" / "net.so", code=2).stderr
    (tmp_path / "net.so").mkdir()
    assert "it is a folder" in run("compile", model, "-o", tmp_path / "net.so", code=2).stderr


def test_help_has_examples() -> None:
    shown = run("compile", "--help").output
    assert "tilewright compile model.onnx -o model.so --shape x=Nx3x224x224" in shown


def test_targets_are_listed() -> None:
    shown = run("targets").output
    for name in ("x86-64-v4", "armv7-unknown-linux-gnueabihf", "wasm32-simd", "x86_64-pc-windows-msvc"):
        assert name in shown
    rows = {row["name"]: row for row in json.loads(run("targets", "--json").output)}
    assert rows["x86-64-v2"]["fma"] is False and rows["aarch64"]["vector_bits"] == 128
    assert "cortex-a72" in run("targets", "--cpus", "aarch64").output.split()
    assert "znver4" in json.loads(run("targets", "--json", "--cpus", "x86_64-linux-gnu").output)
    assert "no code is made for the architecture 'vax'" in run("targets", "--cpus", "vax-dec-vms", code=2).stderr


# ---- four nodes: ((input - 2) + 5) + 100


@pytest.fixture(params=["text", "binary"])
def four_nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "text":
        return FOUR_NODES
    graph = text_format.Parse(FOUR_NODES.read_text(), GraphDef())
    path = tmp_path / "four_nodes.pb"
    path.write_bytes(graph.SerializeToString())
    return path


def test_four_nodes_are_113_for_10(four_nodes: Path, tmp_path: Path) -> None:
    assert load(four_nodes).format == "TensorFlow"
    np.save(tmp_path / "ten.npy", np.int32(10))
    shown = run("run", four_nodes, "--input", f"input={tmp_path / 'ten.npy'}").output
    assert re.search(r"^output +int32 +scalar +113 +113 +113$", shown, re.MULTILINE)
    run("compile", four_nodes, "-o", tmp_path / "four.so")
    assert tw.load(tmp_path / "four.so")(np.int32(10)) == 113


@pytest.mark.parametrize(
    ("target", "addition", "end"),
    [
        ("x86-64-v3", r"addl \$103, %eax", "retq"),
        ("aarch64", r"add w\d+, w\d+, #103", "ret"),
        ("armv7", r"add r\d+, r\d+, #103", "bx lr"),
    ],
)
def test_four_nodes_are_one_addition(four_nodes: Path, tmp_path: Path, target: str, addition: str, end: str) -> None:
    run("compile", four_nodes, "-o", tmp_path / "four", "--emit", "llvm-ir,asm", "--target", target)
    _, add, _, last = function((tmp_path / "four.s").read_text())
    assert re.fullmatch(addition, add)
    assert last == end
    assert " = add i32 %x1, 103\n" in (tmp_path / "four.ll").read_text()


@pytest.mark.skipif(shutil.which("llc") is None, reason="there is no llc (Debian's package llvm)")
@pytest.mark.parametrize(
    ("march", "addition"), [("arm", r"add r\d+, r\d+, #103"), ("aarch64", r"add w\d+, w\d+, #103"),
                            ("x86-64", r"addl \$103, %eax")],
)  # fmt: skip
def test_llc_compiles_four_nodes_for_another_machine(tmp_path: Path, march: str, addition: str) -> None:
    """The command of the documentation, on text that was made for this machine."""
    run("compile", FOUR_NODES, "-o", tmp_path / "out.ll", "--emit", "llvm-ir")
    command = ["llc", "-O3", "out.ll", f"-march={march}", "-o", "sample.s"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = [line for line in function((tmp_path / "sample.s").read_text()) if re.match(addition, line)]
    assert len(found) == 1


def test_the_page_about_them_shows_what_is_so(tmp_path: Path) -> None:
    page = FOUR_NODES.parents[1] / "four-nodes.md"
    x86, aarch64, armv7, theirs = re.findall(r"```asm\n(.*?)```", page.read_text(), re.DOTALL)
    (text,) = re.findall(r"```llvm\n(.*?)```", page.read_text(), re.DOTALL)
    for target, shown in (("x86-64-v3", x86), ("aarch64", aarch64), ("armv7", armv7)):
        run("compile", FOUR_NODES, "-o", tmp_path / target, "--emit", "asm,llvm-ir", "--target", target)
        assert shown in (tmp_path / f"{target}.s").read_text()
    assert text in (tmp_path / "x86-64-v3.ll").read_text()
    if shutil.which("llc"):
        command = ["llc", "-O3", "x86-64-v3.ll", "-march=arm", "-o", "sample.s"]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert theirs in (tmp_path / "sample.s").read_text()
