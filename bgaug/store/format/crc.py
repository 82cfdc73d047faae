"""Checksums of bytes that follow each other, from the checksums of each.

A CRC is linear: appending n bytes maps the checksum before them by a matrix over bits that depends on n alone, and adds
the checksum of the bytes. So of frames of one size, whose own checksums are known, the file's follows without reading
them again.

Reference: M. Adler, ``crc32_combine`` in zlib, 2004, tells of the idea; the polynomial here is Castagnoli's.
"""

from __future__ import annotations

from functools import lru_cache

_POLYNOMIAL = 0x82F63B78
_BITS = 32

Matrix = tuple[int, ...]
"""Column i is the image of bit i."""


def joined(before: int, behind: int, num_bytes: int) -> int:
    """crc32c of two runs of bytes, the second `num_bytes` long, from the crc32c of each."""
    return _image(_appending(num_bytes), before) ^ behind


@lru_cache(maxsize=64)
def _appending(num_bytes: int) -> Matrix:
    """What appending so many zero bytes does to a checksum."""
    one_bit = (_POLYNOMIAL, *(1 << bit for bit in range(_BITS - 1)))
    power, result = one_bit, tuple(1 << bit for bit in range(_BITS))
    count = 8 * num_bytes
    while count:
        if count & 1:
            result = tuple(_image(power, column) for column in result)
        power = tuple(_image(power, column) for column in power)
        count >>= 1
    return result


def _image(matrix: Matrix, bits: int) -> int:
    image = 0
    for column in matrix:
        if bits & 1:
            image ^= column
        bits >>= 1
        if not bits:
            break
    return image
