"""Runs object code in this process through LLVM's MCJIT.

    engine = Engine(code)
    address = engine.address("tw_run")

MCJIT accepts an object with an undefined symbol and crashes at the call; `undefined_symbols` looks first.
"""

from collections.abc import Mapping
from functools import cache

import llvmlite.binding as llvm

from tilewright.errors import CompileError
from tilewright.runtime import elf


class Engine:
    """Object code mapped into this process, for as long as this object lives.

    `imports` gives the addresses of the functions that the code may use from elsewhere.
    """

    def __init__(self, code: bytes, imports: Mapping[str, int] | None = None) -> None:
        given = imports or {}
        missing = [name for name in undefined_symbols(code) if name not in given]
        if missing:
            raise CompileError(f"the object code needs {', '.join(missing)}, which it must not; please report this")
        _initialise()
        for name, address in given.items():
            llvm.add_symbol(name, address)
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
            reloc="pic", codemodel="small", jit=True
        )
        # llvmlite's memory manager keeps code and constants in one block. LLVM's own takes a mapping for each, and
        # aborts the process where a full address space sets them more than 2 GB apart.
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine, use_lmm=True)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def address(self, symbol: str) -> int:
        """The address of a function or constant; raises CompileError if there is none."""
        address: int = self._engine.get_function_address(symbol)
        if not address:
            raise CompileError(f"the object code has no {symbol}; please report this")
        return address

    def keep(self) -> None:
        """Leave the code mapped until the process ends, whatever becomes of this object."""
        self._engine.detach()


@cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def undefined_symbols(code: bytes) -> list[str]:
    """Names that an ELF object uses and does not define."""
    try:
        entries = elf.symbols(elf.read(code), elf.SYMTAB)
    except elf.ElfError as error:
        raise CompileError(f"the object code cannot be read: {error}") from None
    names = [entry.name for entry in entries if entry.section == elf.UNDEFINED and entry.name]
    return [name for name in names if name != "_GLOBAL_OFFSET_TABLE_"]
