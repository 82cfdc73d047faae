"""Random numbers as a pure function of (key, stream, index)."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15


def random_bits(key: Tensor, stream: str) -> Tensor:
    """64 random bits for each key: int64 -> int64 of the same shape, one-to-one within a stream.

    Args:
        key: int64, any shape.
        stream: names what the bits are for; different names give unrelated bits.

    Raises:
        TypeError: key is not int64.
    """
    if key.dtype != torch.int64:
        raise TypeError(f"key must be int64, got {key.dtype = }")
    return _mix(_mix(key + _signed(_GOLDEN)) ^ _salt(stream))


def uniform(key: Tensor, stream: str, n: int) -> Tensor:
    """Random numbers from a key by counting, as splitmix64 does.

    Only integer arithmetic, so the same on every device; no generator is read or advanced.

    Args:
        key: int64 (B,).
        stream: names what the numbers are for.
        n: numbers per key.

    Returns:
        float32 (B, n), multiples of 2^-24 in [0, 1).
    """
    # The counters are made by doubling. A counter times the constant would be shorter, but a compiler turns it into a
    # loop in C++ in which overflow is undefined, and other numbers come out.
    count = random_bits(key, stream).unsqueeze(1) + _signed(_GOLDEN)
    while (done := count.shape[1]) < n:
        count = torch.cat([count, count[:, : n - done] + _signed(done * _GOLDEN)], dim=1)
    return ((_mix(count) >> 40) & ((1 << 24) - 1)).to(torch.float32) * 2.0**-24


def between(draws: Tensor, low: float, high: float) -> Tensor:
    """Draws from U(low, high), of draws from U(0, 1)."""
    return low + (high - low) * draws


def _salt(stream: str) -> int:
    """Hash of a stream's name, as an int64."""
    return _signed(int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "big"))


# The hash is a constant for a compiler's trace. torch.compiler.assume_constant_result only sets this attribute, but
# calling it imports the compiler, which takes seconds.
_salt._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _mix(bits: Tensor) -> Tensor:
    """The finaliser of splitmix64: a bijection of int64 in which every input bit affects every output bit."""
    bits = (bits ^ ((bits >> 30) & ((1 << 34) - 1))) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ ((bits >> 27) & ((1 << 37) - 1))) * _signed(0x94D049BB133111EB)
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))
