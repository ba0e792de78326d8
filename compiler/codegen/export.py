"""LLVM IR text for other LLVMs, and LLVM's program llc in place of the code generator in this process.

    exported(text, target)                       ; llc -O2 -filetype=obj -mtriple=aarch64-unknown-linux-gnu ..
                                                 target triple = "aarch64-unknown-linux-gnu"
                                                 define internal void @nest_0(float* noalias %x.p, ..
    compile_with_llc("llc-14", text, target)     object code
"""

import logging
import subprocess
import tempfile
from pathlib import Path

from tilewright.compiler.codegen.typed import typed
from tilewright.compiler.probe import relocation_model
from tilewright.compiler.targets import Target
from tilewright.errors import UnsupportedError

log = logging.getLogger(__name__)


def exported(text: str, target: Target) -> str:
    """The text as other LLVMs read it, 14 and newer, without options; a comment says how to compile it."""
    head = f"; llc {' '.join(llc_options(target))}\n"
    neutral = text.replace(f' "tune-cpu"="{target.tune}"', "") if target.tune else text
    return f'{head}target triple = "{target.triple}"\n\n{typed(neutral)}'


def llc_options(target: Target) -> list[str]:
    """What LLVM's program llc must know to make an object as this module does."""
    options = ["-O2", "-filetype=obj", f"-mtriple={target.triple}"]
    options += [f"-mcpu={target.cpu}"] if target.cpu else []
    options += [f"-mattr={target.features}"] if target.features else []
    options += [f"-target-abi={target.abi}"] if target.abi else []
    return [*options, f"-relocation-model={relocation_model(target.triple)}"]


def compile_with_llc(program: str, text: str, target: Target) -> bytes:
    """Object code of the text, by the llc called or at `program`; raises UnsupportedError with what it says."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "model.ll"), Path(folder, "model.o")
        source.write_text(exported(text, target))
        command = [program, *llc_options(target), str(source), "-o", str(result)]
        log.info("%s", " ".join(command))
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise UnsupportedError(f"llc cannot be run as {program}: {error.strerror or error}") from error
        if done.returncode != 0:
            said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[-500:])
            raise UnsupportedError(f"{program} failed: {said.strip() or f'exit code {done.returncode}'}")
        return result.read_bytes()
