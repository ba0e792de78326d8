"""CRC-32C (Castagnoli), the checksum of variable bundles, at the speed of memory with NumPy.

    crc32c(memoryview(b"123456789")) == 0xE3069283
    masked(crc)                                         as a bundle stores it

A checksum is the remainder of the data, as a polynomial over GF(2), modulo P of degree 32. For words of 64 bits, y =
x**64 stands for one word further left. Squaring is linear over GF(2): if Q(x) is a multiple of P(x), so is Q(y), and
Q(y**2), Q(y**4) and so on. Hence where Q = x**d + x**a + ... + 1, the leftmost word may be dropped if it is added to
those d - a, ..., d words further right, and up to d - a words side by side. Few long additions, with a Q of four
terms, shorten the data to that Q's degree; shorter ones with P itself go on; a table ends it byte by byte.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

SHORT = 2048
"""Bytes that are not worth folding."""

# Exponents, the highest first. FOUR was found by search: of those below 6000 it drops the most words at once.
P = (32, 28, 27, 26, 25, 23, 22, 20, 19, 18, 14, 13, 11, 10, 9, 8, 6, 0)
FOUR = (5685, 1362, 426, 0)

_CHUNK = 1 << 20  # bytes taken at once: they stay in the cache

Words = npt.NDArray[np.uint64]


def crc32c(data: memoryview) -> int:
    """The checksum of bytes."""
    start = 0xFFFFFFFF  # the checksum is that of the data with their first 32 bits inverted
    if len(data) > SHORT:
        data, start = memoryview(_shortened(data)), 0
    table = _table()
    for byte in bytes(data):
        start = table[(start ^ byte) & 0xFF] ^ start >> 8
    return start ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A checksum that may itself be part of checked data."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _shortened(data: memoryview) -> bytes:
    """Few bytes with the same remainder as the data with their first 32 bits inverted."""
    left = np.zeros(0, np.uint64)
    whole = len(data) // 8 * 8
    for begin in range(0, whole, _CHUNK):
        words = np.frombuffer(data[begin : min(begin + _CHUNK, whole)], np.uint64)
        left = np.concatenate((left, words))
        if begin == 0:
            left.view(np.uint8)[:4] ^= 0xFF
        left = _folded(left, FOUR)
    for power in range(7, -1, -1):  # y**128, ..., y
        left = _folded(left, [exponent << power for exponent in P])
    return left.tobytes() + bytes(data[whole:])


def _folded(words: Words, exponents: Sequence[int]) -> Words:
    """The words modulo the polynomial with these exponents of y; changes `words`."""
    degree, second, *_ = exponents
    start = 0
    while (over := len(words) - start - degree) > 0:
        count = min(over, degree - second)
        dropped = words[start : start + count]
        for exponent in exponents[1:]:
            at = start + degree - exponent
            words[at : at + count] ^= dropped
        start += count
    return words[start:]


@cache
def _table() -> tuple[int, ...]:
    """A byte's part in the checksum; bits are reversed, the lowest is the leftmost."""
    reversed_p = sum(1 << 31 - exponent for exponent in P[1:])
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ reversed_p * (byte & 1)
        found.append(byte)
    return tuple(found)
