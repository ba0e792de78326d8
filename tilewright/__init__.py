"""Tilewright compiles neural-network graphs into native code."""

__version__ = "0.1.0"
