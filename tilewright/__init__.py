"""Tilewright compiles neural-network graphs into native code."""
