"""What was used most recently, within a limit."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


Key = TypeVar("Key")
Value = TypeVar("Value", bound=_Sized)


class Recent(Generic[Key, Value]):
    """Values by key; the one that was not used for longest goes first. For one thread at a time.

    Args:
        max_bytes: that they may hold together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[Key, Value] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> Value | None:
        """The value of a key, where it is still held."""
        value = self._held.get(key)
        if value is not None:
            self._held.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keep a value; the newest is always kept."""
        old = self._held.pop(key, None)
        self._bytes += value.nbytes - (old.nbytes if old is not None else 0)
        self._held[key] = value
        while len(self._held) > 1 and self._bytes > self._max_bytes:
            _, gone = self._held.popitem(last=False)
            self._bytes -= gone.nbytes
