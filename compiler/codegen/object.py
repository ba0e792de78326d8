"""LLVM IR text to object code, assembly and bitcode.

No optimisation passes run: kernels arrive tiled, vectorised and unrolled, and the passes would add far more time
than speed. What LLVM's code generator does by itself (scheduling, register allocation, hoisting of addresses) is
what they need.
"""

import llvmlite.binding as llvm

from tilewright.compiler.probe import relocation_model
from tilewright.compiler.targets import Target, initialise_llvm
from tilewright.errors import CompileError


def target_machine(target: Target) -> llvm.TargetMachine:
    """LLVM's code generator for `target`."""
    initialise_llvm()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, codemodel="small", abiname=target.abi,
        reloc=relocation_model(target.triple),
    )


def parse(
    text: str, target: Target, machine: llvm.TargetMachine, context: llvm.ContextRef | None = None
) -> llvm.ModuleRef:
    """LLVM's module of IR text, verified, in LLVM's common context or another; raises CompileError with its message."""
    try:
        module = llvm.parse_assembly(text, context)
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refuses the generated code, please report this: {error}") from error
    return module


def compile_module(text: str, target: Target) -> bytes:
    """Object code of LLVM IR text."""
    machine = target_machine(target)
    code: bytes = machine.emit_object(parse(text, target, machine))
    return code


def assembly(text: str, target: Target) -> str:
    """Assembly of LLVM IR text, to read."""
    machine = target_machine(target)
    shown: str = machine.emit_assembly(parse(text, target, machine))
    return shown


def bitcode(text: str, target: Target) -> bytes:
    """LLVM's binary form of the text, for tools of the same LLVM or newer."""
    # In a context of its own: the common one numbers types as they came up in other modules.
    code: bytes = parse(text, target, target_machine(target), llvm.create_context()).as_bitcode()
    return code
