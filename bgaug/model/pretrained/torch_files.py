"""Files of `torch.save`, read by `bgaug.files`: nothing in them is executed, and memory is limited by their size.

`torch.load(weights_only=True)` executes nothing either, but it allocates the declared sizes, decodes by any codec that
is named, and returns tensors of 10^12 elements over a storage of one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from bgaug.errors import BgaugError
from bgaug.files import MalformedFile, open_regular
from bgaug.files.archives import open_archive, read_member
from bgaug.files.pickles import Named, key, load_plain

_LONGEST_PICKLE = 32 << 20
_MOST_TENSORS = 50_000
_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # begins the form before torch 1.6: a pickle of one number
_PROTOCOL = 1001
_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_STORAGES = {f"torch.{name}": dtype for name, dtype in _TYPES.items()} | {"torch.storage.UntypedStorage": torch.uint8}


@dataclass(frozen=True, slots=True)
class _Storage:
    """An array of numbers in the file, by its key."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A tensor that has not been read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_torch_file(path: str | Path) -> Any:
    """The value that `torch.save` wrote, in its present form or that before torch 1.6, on the CPU.

    It is made of containers, text, numbers and tensors; ordered mappings become dicts, parameters tensors.

    Raises:
        OSError: it cannot be opened, or is no regular file.
        MalformedFile: it is no whole file of `torch.save`, names something that is not admitted, or declares more than
            it holds.
    """
    with open_regular(path) as file:
        zipped = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        return _read_archive(file) if zipped else _read_stream(file)


@contextmanager
def read_errors(path: object, form: str, kind: type[BgaugError], missing: str) -> Iterator[None]:
    """Turn errors of reading a file into errors for the user.

    Args:
        path: path of the file.
        form: form that was expected, such as "a checkpoint".
        kind: class of the errors that are raised.
        missing: message if there is no such file.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise kind(f"{path}: {missing}") from error
    except OSError as error:
        raise kind(f"{path} cannot be read as {form}: {error.strerror or error}") from error
    except MalformedFile as error:
        raise kind(f"{path} cannot be read as {form}; is it whole? It {error}") from error


def _read_archive(file: BinaryIO) -> Any:
    """The present form: a zip archive with one pickle, and one member per storage."""
    size = os.fstat(file.fileno()).st_size
    with open_archive(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        folders = [
            name.removesuffix("data.pkl") for name in members if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(folders) != 1:
            raise MalformedFile("is no file of torch.save: its archive has no data.pkl")
        folder = folders[0]
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise MalformedFile("was written on a machine of another byte order; save it again on this one")
        if members[f"{folder}data.pkl"].file_size > _LONGEST_PICKLE:
            raise MalformedFile("has a pickle of over 32 MB besides its tensors")
        value = _unpickled(io.BytesIO(read_member(archive, members[f"{folder}data.pkl"])))

        def content(storage: _Storage) -> bytearray:
            member = members.get(f"{folder}data/{storage.key}")
            if member is None or member.file_size != storage.count * storage.dtype.itemsize:
                held = "none" if member is None else f"{member.file_size} bytes"
                raise MalformedFile(f"declares {storage.count} numbers of {storage.dtype} where it holds {held}")
            return read_member(archive, member)

        return _Tensors(size, content).of(value)


def _read_stream(file: BinaryIO) -> Any:
    """The form before torch 1.6: five pickles one after another, then the storages."""
    size = os.fstat(file.fileno()).st_size
    head = io.BytesIO(file.read(_LONGEST_PICKLE))
    if head.read(len(_MAGIC)) != _MAGIC or load_plain(head) != _PROTOCOL:
        raise MalformedFile("is no file of torch.save")
    about = load_plain(head)
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise MalformedFile("is no file of torch.save that this machine reads")
    value = _unpickled(head)
    keys = load_plain(head)
    if not isinstance(keys, list) or not all(isinstance(name, str) for name in keys) or len(set(keys)) < len(keys):
        raise MalformedFile("is no whole file of torch.save: its storages have no names")
    file.seek(head.tell())
    places: dict[str, int] = {name: place for place, name in enumerate(keys)}
    held: list[tuple[int, int]] = []

    def content(storage: _Storage) -> bytearray:
        # Each storage is preceded by its size, so all earlier ones must be visited to find where one begins.
        place, width = places.get(storage.key, -1), storage.dtype.itemsize
        if place < 0 or widths.get(storage.key) != width:
            raise MalformedFile(f"holds no storage {storage.key[:200]!r} of {storage.dtype}")
        while len(held) <= place:
            begin = held[-1][0] + held[-1][1] if held else head.tell()
            file.seek(begin)
            count = int.from_bytes(file.read(8), "little", signed=True)
            taken = count * widths.get(keys[len(held)], 1)
            if count < 0 or begin + 8 + taken > size:
                raise MalformedFile("is cut short, or declares more than it holds")
            held.append((begin + 8, taken))
        begin, taken = held[place]
        if taken != storage.count * width:
            raise MalformedFile(f"declares {storage.count} numbers where it holds {taken // width}")
        file.seek(begin)
        return bytearray(file.read(taken))

    widths = {view.storage.key: view.storage.dtype.itemsize for view in _views(value)}
    return _Tensors(size, content).of(value)


class _Tensors:
    """Replaces views by tensors, each storage and container once, so that shared objects stay shared.

    Args:
        size: size of the file, bytes: tensors have at most twice as many.
        content: returns the bytes of a storage.
    """

    def __init__(self, size: int, content: Callable[[_Storage], bytearray]) -> None:
        self._size, self._content = size, content
        self._left = 2 * size + (1 << 10)
        self._storages: dict[str, tuple[_Storage, Tensor]] = {}
        self._made: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        """The same value with tensors in place of views."""
        if isinstance(value, _Storage):
            raise MalformedFile("has a storage where a tensor belongs")
        if not isinstance(value, (_View, list, tuple, dict)):
            return value
        if id(value) not in self._made:
            if isinstance(value, _View):
                made: Any = self._tensor(value)
            elif isinstance(value, dict):
                made = {name: self.of(part) for name, part in value.items()}
            else:
                made = type(value)(self.of(part) for part in value)
            self._made[id(value)] = made
        return self._made[id(value)]

    def _tensor(self, view: _View) -> Tensor:
        storage, numbers = view.storage, prod(view.shape)
        reach = view.offset + sum((side - 1) * step for side, step in zip(view.shape, view.stride, strict=True))
        if numbers and (reach >= storage.count or numbers > storage.count):
            raise MalformedFile(f"has a tensor of shape {view.shape} over {storage.count} numbers")
        self._left -= numbers * storage.dtype.itemsize
        if self._left < 0:
            raise MalformedFile(f"has tensors that share their numbers: more than twice its {self._size} bytes in all")
        values = self._numbers(storage)
        return values.as_strided(view.shape, view.stride, view.offset) if numbers else values.new_empty(view.shape)

    def _numbers(self, storage: _Storage) -> Tensor:
        if storage.key not in self._storages:
            content = self._content(storage) if storage.count else bytearray()
            if storage.dtype == torch.bool and content.translate(None, b"\0\1"):
                raise MalformedFile("has a truth value that is neither 0 nor 1")
            flat = torch.frombuffer(content, dtype=storage.dtype) if content else torch.empty(0, dtype=storage.dtype)
            self._storages[storage.key] = storage, flat
        found, flat = self._storages[storage.key]
        if found != storage:
            raise MalformedFile(f"has the storage {storage.key[:200]!r} in two forms")
        return flat


def _views(value: Any) -> list[_View]:
    """All views in a value, whose size `load_plain` has limited."""
    if isinstance(value, _View):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [view for part in parts for view in _views(part)]


def _unpickled(stream: BinaryIO) -> Any:
    """Containers with views in place of tensors."""
    count = copied = 0

    def view(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _View:
        nonlocal count
        count += 1
        if count > _MOST_TENSORS:
            raise MalformedFile(f"has more than {_MOST_TENSORS} tensors")
        sides = (*shape, *stride) if isinstance(shape, tuple) and isinstance(stride, tuple) else (-1,)
        if not isinstance(storage, _Storage) or len(shape) != len(stride) or len(shape) > 8:
            raise MalformedFile("has a tensor that is not described as one")
        if not all(type(side) is int and 0 <= side < 1 << 48 for side in (offset, *sides)):
            raise MalformedFile("has a tensor whose shape, stride or offset is no small whole number")
        return _View(storage, offset, shape, stride)

    def ordered(*pairs: Any) -> dict[Any, Any]:
        nonlocal copied
        listed = pairs[0] if pairs else []
        copied += len(listed)
        if copied > 1_000_000:
            raise MalformedFile("copies its own values over and over")
        return {key(name): value for name, value in listed}

    def size(sides: Any) -> tuple[Any, ...]:
        if not isinstance(sides, tuple) or len(sides) > 8:
            raise MalformedFile("has a torch.Size that is none")
        return sides

    def encoded(text: Any, codec: Any) -> bytes:
        if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
            raise MalformedFile("encodes bytes in a rare way")
        return text.encode("latin-1")

    names: Mapping[str, Callable[..., Any] | None] = {
        "collections.OrderedDict": ordered,
        "torch._utils._rebuild_tensor": view,
        "torch._utils._rebuild_tensor_v2": view,
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch.Size": size,
        "_codecs.encode": encoded,
        **dict.fromkeys(_STORAGES),
    }
    return load_plain(stream, names, _storage)


def _storage(described: Any) -> _Storage:
    """The description of a storage in the pickle: ("storage", type, key, place, numbers), and before torch 1.6 None."""
    if not isinstance(described, tuple) or len(described) < 5 or described[0] != "storage" or any(described[5:]):
        raise MalformedFile("refers to something that is no storage")
    kind, name, _, count = described[1:5]
    if not isinstance(kind, Named) or kind.name not in _STORAGES or not isinstance(name, str):
        raise MalformedFile("refers to a storage of an unknown type")
    if type(count) is not int or not 0 <= count < 1 << 48:
        raise MalformedFile("refers to a storage of an impossible size")
    return _Storage(name, _STORAGES[kind.name], count)
