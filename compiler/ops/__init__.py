"""Primitives, one definition each, and the composites built from them."""
