"""From loop functions to LLVM IR text and, through LLVM, to object code."""
