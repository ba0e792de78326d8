"""`tilewright compile`: a model as files: a shared object with its header, or any stage on the way there."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from tilewright.aot import Library, LibraryOptions, Tools, library_of
from tilewright.cli.options import batch_shape_option, conv_option, names, working
from tilewright.compiler.codegen.export import compile_with_llc, exported
from tilewright.compiler.codegen.object import assembly, bitcode
from tilewright.compiler.library import library_name
from tilewright.compiler.link import drafted, write_archive, write_header, write_object, write_shared
from tilewright.compiler.link.files import new_file, write_all
from tilewright.compiler.pipeline import Convolutions
from tilewright.compiler.targets import Target, by_name
from tilewright.errors import CallError, OutputError, ShapeNeededError
from tilewright.frontends.formats import load

FORMS = ("so", "obj", "archive", "header", "asm", "llvm-ir", "bitcode")
"""What --emit takes. Files are written in this order: what is likeliest to fail comes first."""

_SHARED = {"windows": ".dll", "macos": ".dylib", "none": ".wasm"}
_EXAMPLES = """\b
Examples:
  tilewright compile resnet50.onnx -o resnet50.so
  tilewright compile model.onnx -o model.so --shape x=Nx3x224x224
  tilewright compile model.onnx -o model.so --target aarch64-unknown-linux-gnu --cpu cortex-a72
  tilewright compile graph.pbtxt -o graph.s --emit asm
  tilewright compile model.onnx -o build/model --emit obj,header,llvm-ir --target riscv64
"""


def parse_forms(text: str) -> tuple[str, ...]:
    """so,header: what to write; raises click.BadParameter."""
    chosen = names(text) or []
    unknown = [form for form in chosen if form not in FORMS]
    if unknown or not chosen:
        raise click.BadParameter(f"'{', '.join(unknown) or text}' is not one of {', '.join(FORMS)}")
    return tuple(chosen)


def paths(out: Path, forms: Sequence[str], target: Target) -> dict[str, Path]:
    """The file of each form: OUT itself if its suffix is the form's, or no form's and there is one; else beside it."""
    windows = target.system == "windows"
    suffixes = {
        "so": (_SHARED.get(target.system, ".so"),), "obj": (".obj", ".o") if windows else (".o", ".obj"),
        "archive": (".lib", ".a") if windows else (".a", ".lib"), "header": (".h", ".hpp"), "asm": (".s", ".asm"),
        "llvm-ir": (".ll",), "bitcode": (".bc",),
    }  # fmt: skip
    known = {suffix for several in suffixes.values() for suffix in several} | {".so", ".dll", ".dylib", ".wasm"}
    stem = out.with_suffix("") if out.suffix in known else out
    found = {}
    for form in forms:
        exact = out.suffix in suffixes[form] or (form == "so" and out.suffix in (".so", ".dll", ".dylib", ".wasm"))
        alone = len(forms) == 1 and out.suffix and out.suffix not in known
        found[form] = out if exact or alone else stem.with_name(stem.name + suffixes[form][0])
    return found


@click.command(epilog=_EXAMPLES)
@click.argument("model")
@click.option(
    "-o", "--output", required=True, metavar="OUT", help="The file to write; others are named after its stem."
)
@click.option(
    "--emit", "forms", type=parse_forms, default="so,header", show_default=True, metavar="A,B",
    help=f"What to write: {', '.join(FORMS)}.",
)  # fmt: skip
@click.option(
    "--target", default="host", show_default=True, metavar="NAME",
    help="The machine to compile for: a name that `tilewright targets` lists, or a triple.",
)  # fmt: skip
@click.option("--cpu", default="", metavar="NAME", help="A processor of it, as LLVM calls it.")
@click.option("--features", default="", metavar="+A,-B", help="Features that it has or lacks, as LLVM calls them.")
@batch_shape_option
@click.option("--outputs", metavar="A,B", help="Compute these tensors, nodes or layers instead.")
@conv_option
@click.option(
    "--weights", type=click.Choice(["embed", "external"]),
    help="Weights inside the file, or in one of their own beside it; by default inside where the format can.",
)  # fmt: skip
@click.option("--name", metavar="NAME", help="What the C functions' names begin with; by default OUT's stem.")
@click.option("--linker", metavar="PROGRAM", help="A linker with ld's arguments, or `builtin`.")
@click.option("--cc", metavar="PROGRAM", help="A C compiler to link with.")
@click.option("--sysroot", metavar="DIR", help="The folder with the target's libraries.")
@click.option(
    "--codegen", default="", metavar="llc[:PROGRAM]", help="Make the object code with LLVM's llc instead."
)
@click.option("-v", "--verbose", is_flag=True, help="Print the commands that are run.")
def compile(
    model: str,
    output: str,
    forms: tuple[str, ...],
    target: str,
    cpu: str,
    features: str,
    shapes: tuple[tuple[str, tuple[int | str, ...]], ...],
    outputs: str | None,
    conv: Convolutions,
    weights: Literal["embed", "external"] | None,
    name: str | None,
    linker: str | None,
    cc: str | None,
    sysroot: str | None,
    codegen: str,
    verbose: bool,
) -> None:
    """Compile MODEL, an ONNX file or a TensorFlow graph, into files that need nothing but a C library."""
    machine = by_name(target, cpu, features)
    llc = parse_codegen(codegen)
    out = Path(output)
    files = paths(out, [form for form in FORMS if form in forms], machine)
    for path in files.values():
        _check_place(path)
    report = (lambda line: click.echo(line, err=True)) if verbose else None
    tools = Tools(linker, cc, sysroot, report)
    options = LibraryOptions(library_name(out.name.partition(".")[0]) if name is None else name, weights)
    shared = files.get("so", out)
    memory = "so" not in files or weights == "external" or bool(llc)
    with working(f"reading {model}") as say, drafted(shared, machine.triple, tools, memory) as draft:
        loaded = load(model)
        say(f"compiling {model} for {machine}")
        try:
            library = library_of(
                loaded, options, target=machine, outputs=names(outputs), shapes=dict(shapes), conv=conv, source=model,
                room=draft.room,
            )  # fmt: skip
        except ShapeNeededError as error:
            raise CallError(_shape_help(error), model=loaded.name) from None
        if llc:
            say(f"running {llc}")
            library = replace(library, code=compile_with_llc(llc, library.text, machine))
        writers: dict[str, Callable[[Path], None]] = {
            "so": lambda path: write_shared(library, path, tools, draft),
            "obj": lambda path: write_object(library, path),
            "archive": lambda path: write_archive(library, path),
            "header": lambda path: write_header(library, path),
            "asm": lambda path: _write(path, assembly(library.text, machine).encode()),
            "llvm-ir": lambda path: _write(path, exported(library.plain_text, machine).encode()),
            "bitcode": lambda path: _write(path, bitcode(library.text, machine)),
        }
        for form, path in files.items():
            say(f"writing {path}")
            writers[form](path)
    for path in _written(library, files):
        click.echo(f"wrote {path} ({path.stat().st_size:,} bytes)")


def parse_codegen(text: str) -> str:
    """llc:PROGRAM: the program, "" for the code generator in this process; raises click.BadParameter."""
    kind, _, program = text.partition(":")
    if kind not in ("", "llc"):
        raise click.BadParameter(f"'{text}' is no code generator; write llc, or llc:PROGRAM", param_hint="--codegen")
    return program or kind


def _check_place(path: Path) -> None:
    """Whether a file can be there, before anything is compiled; raises OutputError."""
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder")


def _shape_help(error: ShapeNeededError) -> str:
    """The options that would settle the open dimensions."""
    settled, batched = [], []
    for name, dims in error.inputs.items():
        if dims is None:
            return f"input '{name}' declares no rank; pass its shape: --shape {name}=1x3x224x224, {name}= for a scalar"
        known = [str(dim) if isinstance(dim, int) else "1" if at == 0 else "224" for at, dim in enumerate(dims)]
        settled.append(f"--shape {name}={'x'.join(known)}")
        batched.append(f"--shape {name}={'x'.join(['N', *known[1:]])}")
    shown = ", ".join(
        f"{name} ({'x'.join('?' if dim is None else str(dim) for dim in dims or ())})"
        for name, dims in error.inputs.items()
    )
    return (
        f"inputs have open dimensions: {shown}; pass for example {' '.join(settled)}, "
        f"or for any number of samples {' '.join(batched)}"
    )


def _write(path: Path, data: bytes) -> None:
    with new_file(path) as file:
        write_all(file, data)


def _written(library: Library, files: dict[str, Path]) -> list[Path]:
    """The files that are there now, in the order of FORMS; weights of their own last."""
    found = list(files.values())
    holders = [path for form, path in files.items() if form in ("so", "obj", "archive")]
    if library.weights == "external" and holders:
        found.append(holders[0].with_name(library.weights_file))
    return found
