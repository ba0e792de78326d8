"""Loop functions for single operations: from a frozen plan, tensor types and an epilogue to a `Kernel`."""
