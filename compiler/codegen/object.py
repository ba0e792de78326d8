"""LLVM IR text to object code, assembly and bitcode.

No optimisation passes run: kernels arrive tiled, vectorised and unrolled, and the passes would add far more time
than speed. What LLVM's code generator does by itself (scheduling, register allocation, hoisting of addresses) is
what they need.
"""

import ctypes
from typing import Any

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
    """Object code of LLVM IR text; several texts can be compiled at the same time."""
    machine = target_machine(target)
    return _object(machine, parse(text, target, machine, llvm.create_context()))


def _object(machine: llvm.TargetMachine, module: llvm.ModuleRef) -> bytes:
    """What `machine.emit_object` gives, without the lock that llvmlite holds in each call.

    LLVM works on modules of different contexts at the same time.
    """
    library = llvm.ffi.lib
    locked = library.LLVMPY_TargetMachineEmitToMemory
    free: Any = ctypes.CDLL(library._name).LLVMPY_TargetMachineEmitToMemory
    free.argtypes, free.restype = locked.argtypes, locked.restype
    with llvm.ffi.OutputString() as error:
        buffer = free(machine, module, 1, error)
        if not buffer:
            raise CompileError(f"LLVM generates no code, please report this: {error}")
    try:
        return ctypes.string_at(library.LLVMPY_GetBufferStart(buffer), library.LLVMPY_GetBufferSize(buffer))
    finally:
        library.LLVMPY_DisposeMemoryBuffer(buffer)


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
