"""From object code to results: the JIT engine, calls with NumPy arrays."""
