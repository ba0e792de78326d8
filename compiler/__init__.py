"""From graph to object code: the IR, the operations, the passes, the kernels and the code generator."""
