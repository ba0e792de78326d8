"""Imports point one way: each part of Tilewright may import only what its row in MAY_IMPORT names.

The modules are read with `ast`, not run, so an import inside a function or under TYPE_CHECKING counts too.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "tilewright": "tilewright",
    "tilewright.compiler": "compiler",
    "tilewright.frontends": "frontends",
    "tilewright.runtime": "runtime",
}

# What puts the parts together: the top of `compiler` (the pipeline) and the public interface.
STAGES = (
    "compiler.ir",
    "compiler.ir.types",
    "compiler.loops",
    "compiler.ops",
    "compiler.passes",
    "compiler.kernels",
    "compiler.codegen",
    "compiler.link",
    "compiler.lower",
    "compiler.targets",
    "compiler.probe",
    "compiler.winograd",
)
RUNTIME = ("runtime.abi", "runtime.artifact", "runtime.elf", "runtime.seal")
PUBLIC = (*STAGES, "compiler", "frontends", "runtime", *RUNTIME)

# Part -> the other parts that it may import, all without the leading `tilewright.`; the public interface
# itself is "". A module belongs to the longest name listed here. Every part may import itself and `errors`.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "compiler.ir": ("compiler.ir.types",),
    "compiler.ir.types": (),
    "compiler.loops": (),
    "compiler.ops": ("compiler.ir", "compiler.ir.types", "compiler.loops", "compiler.winograd"),
    "compiler.passes": ("compiler.ir", "compiler.ir.types", "compiler.ops", "compiler.kernels", "compiler.targets"),
    "compiler.targets": ("compiler.probe",),
    "compiler.probe": (),
    "compiler.winograd": (),
    "compiler.kernels": ("compiler.ir.types", "compiler.loops", "compiler.targets", "compiler.winograd"),
    "compiler.codegen": ("compiler.loops", "compiler.targets", "compiler.probe", "runtime.abi"),
    "compiler.lower": (
        "compiler.ir",
        "compiler.ir.types",
        "compiler.ops",
        "compiler.loops",
        "compiler.kernels",
        "compiler.targets",
    ),
    "compiler.link": RUNTIME,
    "compiler": (*STAGES, *RUNTIME),
    "frontends": ("compiler.ops", "compiler.ir", "compiler.ir.types"),
    "runtime.abi": (),
    "runtime.artifact": (),
    "runtime.elf": (),
    "runtime.seal": ("runtime.elf",),
    "runtime": RUNTIME,
    "": PUBLIC,
    "cli": ("", *PUBLIC),
    "__main__": ("cli",),
}


def find_modules() -> dict[str, Path]:
    """Every module of ours by its installed name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])] = path
    return found


MODULES = find_modules()


def part_of(module: str) -> str:
    """The longest row name that `module` is or lies below."""
    names = module.split(".")[1:]
    prefixes = [".".join(names[:n]) for n in range(len(names), -1, -1)]
    return next(prefix for prefix in prefixes if prefix in MAY_IMPORT)


def imported(source: str) -> list[tuple[int, str]]:
    """(line, module of ours) for each import in `source`; `from package import module` gives the module."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, member if member in MODULES else node.module) for member in members]
    return [(line, name) for line, name in found if name.split(".")[0] == "tilewright"]


def violations(module: str, source: str) -> list[str]:
    """What `module` with this source imports against the table, one line each."""
    part = part_of(module)
    allowed = {part, "errors", *MAY_IMPORT[part]}
    return [
        f"{module}, line {line}: imports {name}; '{part}' may import only {sorted(allowed)}"
        for line, name in imported(source)
        if part_of(name) not in allowed
    ]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module: str) -> None:
    wrong = violations(module, MODULES[module].read_text())
    assert not wrong, "\n".join(wrong)


def test_rows_name_parts_that_exist() -> None:
    named = {part for row in MAY_IMPORT.values() for part in row} | set(MAY_IMPORT)
    assert named <= set(MAY_IMPORT)
    assert {f"tilewright.{part}".rstrip(".") for part in named} <= set(MODULES)


@pytest.mark.parametrize(
    ("module", "statement", "allowed"),
    [
        ("tilewright.compiler.ops.conv", "from tilewright.compiler.ir import Graph", True),
        ("tilewright.compiler.ops.conv", "from tilewright.errors import GraphError", True),
        ("tilewright.compiler.ir.graph", "from tilewright.compiler.ops import conv", False),
        ("tilewright.compiler.ir.graph", "from tilewright.compiler import ops", False),
        ("tilewright.runtime.model", "import tilewright.compiler.pipeline", False),
        ("tilewright.runtime.model", "def f():\n    from tilewright.frontends import onnx", False),
        ("tilewright.compiler.pipeline", "import tilewright.compiler.codegen, numpy", True),
        ("tilewright.compiler.pipeline", "from tilewright.cli import main", False),
        ("tilewright.api", "import tilewright.cli", False),
        ("tilewright.__main__", "from tilewright.cli import main", True),
    ],
)
def test_the_rule_itself(module: str, statement: str, allowed: bool) -> None:
    assert (not violations(module, statement)) == allowed
