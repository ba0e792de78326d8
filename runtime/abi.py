"""What the C interface, the code that implements it, and those who call it must agree on.

    weights_header(1000, digest)     64 bytes: magic, version, bytes, BLAKE3 digest
    FILE: header | zeros up to WEIGHTS_PAGE | weights
"""

import struct

ABI_VERSION = 1
ALIGNMENT = 64
"""Bytes that the workspace and the weights are aligned to."""
MOST_THREADS = 1024
"""More count as this many."""
WEIGHTS_PAGE = 4096
"""Where the weights begin in a file of their own."""

ERRORS = (
    ("OK", "success"),
    ("NULL", "a pointer is NULL"),
    ("ALIGNMENT", "a pointer is not aligned as it must be"),
    ("WORKSPACE", "the workspace is too small"),
    ("DIMS", "the dimensions are not those that the model takes"),
    ("CAPACITY", "a tensor's memory is too small"),
    ("WEIGHTS", "the weights are missing or belong to another model"),
    ("ABI", "the context is not of this version of the interface"),
    ("CPU", "this processor, or its system, lacks a feature that the code needs"),
    ("MEMORY", "out of memory"),
)
"""Error codes 0, -1, -2 ...: names and what NAME_error_text says."""


def weights_header(size: int, digest: bytes) -> bytes:
    """The first 64 bytes of a file of weights."""
    return struct.pack("<8sQQ32s8x", b"TWWEIGHT", 1, size, digest)
