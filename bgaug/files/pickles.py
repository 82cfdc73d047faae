"""Pickles read without an unpickler: containers, text and numbers, and only names that the caller defines.

Python's unpickler imports and calls what the file names. This one has no import, no attribute access, and calls only
functions of its caller. Its cost is bounded by the number of operations, the size of integers, the depth of the result,
and the size that the result would have without sharing: 60 nested lists that each refer twice to the next one would
never end for a later reader.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from bgaug.files import MalformedFile

_OPERATIONS = 500_000
_DEPTH = 64
_ELEMENTS = 4_000_000
_SETS = 100_000
_KEY_PARTS = 8
_WHOLE = 1 << 64
_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MALFORMED = (ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError, RecursionError, AssertionError)

_Function = Callable[..., Any]


class Named:
    """A name that the caller allows, on the stack until it is called.

    Attributes:
        name: "module.name".
    """

    __slots__ = ("function", "name")

    def __init__(self, name: str, function: _Function | None) -> None:
        self.name, self.function = name, function


def load_plain(
    source: bytes | BinaryIO,
    names: Mapping[str, _Function | None] | None = None,
    persistent: Callable[[Any], Any] | None = None,
    *,
    operations: int = _OPERATIONS,
) -> Any:
    """The value of a pickle; nothing that the file names is imported or called.

    Args:
        source: the pickle, or a seekable file at the beginning of it; afterwards the file is at its end.
        names: allowed names, "module.name", and the function that is called for each with the arguments in the file;
            None for a name that is only an argument. By default none.
        persistent: function from a persistent id to its value; by default such ids are refused.
        operations: largest number of operations, about five for each row of a list.

    Returns:
        None, bool, int, float, str, bytes, list, tuple, dict, set, and results of `names` and `persistent`.

    Raises:
        MalformedFile: it is not a complete pickle, uses another name, or is too large, too deep or shared too often.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    machine = _Machine(names or {}, persistent)
    try:
        with warnings.catch_warnings():
            # Unknown escapes in texts of protocol 0 keep their backslash; the warning is for authors of Python code.
            warnings.simplefilter("ignore", DeprecationWarning)
            for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
                if number >= operations:
                    raise MalformedFile(f"the pickle has more than {operations} operations")
                machine.step(operation.name, argument)
        value = machine.result()
    except MalformedFile:
        raise
    except _MALFORMED as error:
        raise MalformedFile(f"is not a complete pickle ({str(error)[:200]})") from error
    _check_size(value)
    return value


def _check_size(value: Any) -> None:
    """Check depth and number of elements of containers, shared ones counted each time.

    Raises:
        MalformedFile: there are too many, a container contains itself, or a name was not called.
    """
    known: dict[int, tuple[int, int] | None] = {}

    def measure(value: Any, depth: int) -> tuple[int, int]:
        """Number of elements and depth of a value."""
        if isinstance(value, Named):
            raise MalformedFile(f"the pickle contains {value.name}, which is not a container, text or number")
        if not isinstance(value, (list, tuple, dict, set)) or not value:
            return 1, 1
        if id(value) not in known:
            if depth > _DEPTH:
                raise MalformedFile(f"the pickle is nested more than {_DEPTH} deep")
            known[id(value)] = None
            inside = [measure(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value)]
            known[id(value)] = 1 + sum(count for count, _ in inside), 1 + max(height for _, height in inside)
        found = known[id(value)]
        if found is None:
            raise MalformedFile("the pickle has a container that contains itself")
        if found[0] > _ELEMENTS or depth + found[1] > _DEPTH + 2:
            raise MalformedFile(f"the pickle is nested more than {_DEPTH} deep or has over {_ELEMENTS} elements")
        return found

    measure(value, 1)


class _Machine:
    """Stack, marks and memo; one method call per operation."""

    def __init__(self, names: Mapping[str, _Function | None], persistent: Callable[[Any], Any] | None) -> None:
        self._names, self._persistent = names, persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []
        self._sets = 0
        self._done = False

    def result(self) -> Any:
        if not self._done or len(self._stack) != 1 or self._marks:
            raise MalformedFile("is not a complete pickle")
        return self._stack[0]

    def step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(_value(argument))
        elif name in _LITERALS:
            stack.append(_LITERALS[name])
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        elif name in _EMPTY:
            self._sets += name == "EMPTY_SET"
            if self._sets > _SETS:  # one byte in the file, 216 in memory
                raise MalformedFile(f"the pickle has more than {_SETS} sets")
            stack.append(_EMPTY[name]())
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self._put(len(self._memo) if argument is None else argument)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name not in ("PROTO", "FRAME"):
            if name not in _STEPS:
                raise MalformedFile(f"the pickle uses {name}, which plain values do not need")
            _STEPS[name](self, argument)

    def _pop(self, count: int) -> list[Any]:
        if count > len(self._stack) - (self._marks[-1] if self._marks else 0):
            raise MalformedFile("is not a complete pickle: an operation lacks its values")
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def _to_mark(self) -> list[Any]:
        begin = self._marks.pop()
        values = self._stack[begin:]
        del self._stack[begin:]
        return values

    def _top(self, kind: type) -> Any:
        """The container to add values to."""
        if not isinstance(self._stack[-1], kind):
            raise MalformedFile(
                f"the pickle adds to a {type(self._stack[-1]).__name__} as if it were a {kind.__name__}"
            )
        return self._stack[-1]

    def _put(self, place: int) -> None:
        # A place far ahead would allocate as many entries as the file asks for.
        if not 0 <= place <= len(self._memo) + 1:  # the oldest picklers count from 1
            raise MalformedFile(f"the pickle numbers its values out of order ({place})")
        while len(self._memo) <= place:
            self._memo.append(None)
        self._memo[place] = self._stack[-1]

    def _stop(self, _: Any) -> None:
        self._done = True

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _pop_mark(self, _: Any) -> None:
        self._to_mark()

    def _dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._to_mark()))

    def _list(self, _: Any) -> None:
        self._stack.append(self._to_mark())

    def _dict(self, _: Any) -> None:
        values = self._to_mark()
        self._stack.append({})
        self._set(values)

    def _frozenset(self, _: Any) -> None:
        self._sets += 1
        self._stack.append({key(value) for value in self._to_mark()})

    def _append(self, _: Any) -> None:
        (value,) = self._pop(1)
        self._top(list).append(value)

    def _appends(self, _: Any) -> None:
        values = self._to_mark()
        self._top(list).extend(values)

    def _additems(self, _: Any) -> None:
        values = self._to_mark()
        self._top(set).update(key(value) for value in values)

    def _setitem(self, _: Any) -> None:
        self._set(self._pop(2))

    def _setitems(self, _: Any) -> None:
        self._set(self._to_mark())

    def _set(self, values: list[Any]) -> None:
        target = self._top(dict)
        for name, value in zip(values[::2], values[1::2], strict=True):
            target[key(name)] = value

    # --- names, which the caller defines ---

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self, _: Any) -> None:
        module, name = self._pop(2)
        self._name(str(module), str(name))

    def _name(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self._names:
            raise MalformedFile(
                f"the pickle names {full[:200]}; names in a file are never imported or called, and "
                f"{'only weights' if self._names else 'only containers, text and numbers'} are read"
            )
        self._stack.append(Named(full, self._names[full]))

    def _reduce(self, _: Any) -> None:
        called, arguments = self._pop(2)
        if not isinstance(called, Named) or called.function is None or not isinstance(arguments, tuple):
            raise MalformedFile("the pickle calls something that cannot be called")
        self._stack.append(called.function(*arguments))

    def _build(self, _: Any) -> None:
        # Attributes of an ordered mapping, such as the version numbers in torch's state dicts, are ignored.
        self._pop(1)
        self._top(dict)

    def _binpersid(self, _: Any) -> None:
        (value,) = self._pop(1)
        if self._persistent is None:
            raise MalformedFile("the pickle refers to something outside itself")
        self._stack.append(self._persistent(value))


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    name: getattr(_Machine, f"_{name.lower()}")
    for name in (
        *("STOP", "MARK", "POP_MARK", "DUP", "TUPLE", "LIST", "DICT", "FROZENSET", "APPEND", "APPENDS", "ADDITEMS"),
        *("SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
    )
}


def _value(value: Any) -> Any:
    if isinstance(value, int) and not -_WHOLE < value < _WHOLE:
        raise MalformedFile("the pickle has a whole number of more than 64 bits")
    return value


def key(value: Any) -> Any:
    """The value, if it may be a key: text, a number, or a short flat tuple of these, which is cheap to hash.

    Raises:
        MalformedFile: it is something else.
    """
    parts = value if isinstance(value, tuple) else (value,)
    # A long tuple may be used as a key many times, and is hashed each time.
    if len(parts) > _KEY_PARTS or not all(part is None or isinstance(part, (str, bytes, int, float)) for part in parts):
        raise MalformedFile(
            f"the pickle has a key of type {type(value).__name__}, expected text, a number or a short tuple"
        )
    return value
