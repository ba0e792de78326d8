"""The program of a child process: prints what LLVM says of a processor (see `probe`).

The question is JSON on stdin, with the module path to find LLVM by; the answer {"assembly": ..} on stdout, and
LLVM's lists of names on stderr, where LLVM prints them.
"""

import json
import sys


def main() -> None:
    """Compile the text asked for, for the processor asked about."""
    question = json.load(sys.stdin)
    sys.path[:] = question["path"]
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(question["triple"])
    target.create_target_machine(cpu="help")
    machine = target.create_target_machine(
        cpu=question["cpu"],
        features=question["features"],
        reloc=question["reloc"],
        codemodel="small",
        abiname=question["abi"],
    )
    module = llvm.parse_assembly(question["text"])
    module.triple, module.data_layout = question["triple"], str(machine.target_data)
    json.dump({"assembly": machine.emit_assembly(module)}, sys.stdout)


if __name__ == "__main__":
    main()
