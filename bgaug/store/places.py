"""Where the files of a store are: in a folder, in memory, or in anything that zarr can open, such as an object store.

All give ranges of files, whose content is not interpreted here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError, StoreError, UsageError
from bgaug.store.format.inside import check_size, names_inside, open_inside, read_inside

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore


class Blob(Protocol):
    """A file that is read in ranges."""

    name: str  # its name in messages
    size: int  # its bytes

    def read(self, offset: int, length: int) -> bytes:
        """Read `length` bytes from `offset` on. Raises StoreDamageError: the file is shorter, or missing."""
        ...

    def read_into(self, offset: int, out: NDArray[Any]) -> None:
        """Fill a C-contiguous array from `offset` on; raises as `read` does."""
        ...

    def read_pieces(self, offsets: Sequence[int], out: NDArray[Any]) -> None:
        """Fill a C-contiguous array piece by piece, each from its own offset; raises as `read` does."""
        ...


class Place(Protocol):
    """The files of one store by their keys: paths below its root, with forward slashes."""

    name: str  # name of the store in messages
    near: bool  # whether reads are so cheap that nothing needs to be cached

    def read(self, key: str, max_bytes: int) -> bytes:
        """Read a whole file.

        Raises:
            FileNotFoundError: there is none.
            StoreFormatError: it is larger than `max_bytes`.
            StoreError: it cannot be read, or is not a file.
        """
        ...

    def open(self, key: str) -> Blob:
        """Open a file to read ranges. Raises StoreDamageError: there is none, or it is not a file."""
        ...

    def names(self, key: str) -> list[str] | None:
        """Names in a folder, unordered, none if there is no folder; None if they cannot be listed."""
        ...


def place_of(path: str | Path | ZarrStore) -> Place:
    """The place of a folder, a URL or a store of zarr. Raises UsageError: packages for the URL are not installed."""
    if isinstance(path, Path):
        return Folder(path)
    if not isinstance(path, str):
        return _Remote(path, str(path))
    return _Remote(_zarr_store(path), path) if "://" in path else Folder(Path(path))


def _zarr_store(url: str) -> ZarrStore:
    reasons = []
    for make in (_by_obstore, _by_fsspec):
        try:
            return make(url)
        except Exception as error:  # noqa: BLE001 - each library raises its own exceptions
            # Only the first line: some libraries add pages of a response.
            reasons.append(str(error).strip().splitlines()[0] if str(error).strip() else repr(error))
    raise UsageError(f"{url} cannot be opened: {'; '.join(reasons)}. Install the extra: pip install 'bgaug[cloud]'")


def _by_obstore(url: str) -> ZarrStore:
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    return ObjectStore(from_url(url), read_only=True)


def _by_fsspec(url: str) -> ZarrStore:
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(url, read_only=True)


# --- a folder -------------------------------------------------------------------------------------------------------


class Folder:
    """Files of a folder; see `Place`."""

    near = True

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self._root = root

    def read(self, key: str, max_bytes: int) -> bytes:
        """See `Place`."""
        return read_inside(self._root, key, max_bytes)

    def open(self, key: str) -> Blob:
        """See `Place`."""
        return _File(self._root, key)

    def names(self, key: str) -> list[str] | None:
        """See `Place`."""
        return names_inside(self._root, key)


class _File:
    """An open file that is closed when it is no longer used; see `Blob`.

    Reads are positional, so that threads and forked processes may share it.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.name = f"{root}/{key}"
        try:
            self._descriptor = open_inside(root, key)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreDamageError(self.name, "is missing: run `bgaug verify`") from error
        self.size = os.fstat(self._descriptor).st_size

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", -1)
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size:
            raise self._ended(offset + length)  # before memory is allocated
        try:
            data = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise self._refused(error) from error
        if len(data) != length:
            raise self._ended(offset + length)
        return data

    def read_into(self, offset: int, out: NDArray[Any]) -> None:
        self._fill(offset, out.data, out.nbytes)

    def read_pieces(self, offsets: Sequence[int], out: NDArray[Any]) -> None:
        size = out.nbytes // len(offsets)
        into = out.reshape(-1).view(np.uint8).data
        for number, offset in enumerate(offsets):
            self._fill(offset, into[number * size : (number + 1) * size], size)

    def _fill(self, offset: int, into: memoryview, size: int) -> None:
        try:
            count = os.preadv(self._descriptor, [into], offset)
        except OSError as error:
            raise self._refused(error) from error
        if count != size:
            raise self._ended(offset + size)

    def _ended(self, stop: int) -> StoreDamageError:
        return StoreDamageError(self.name, f"ends before byte {stop}: run `bgaug verify`")

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(self.name, f"cannot be read ({error.strerror or error})")


# --- files in memory ------------------------------------------------------------------------------------------------


class _ByRead:
    """The other methods of `Blob`, by `read`."""

    read: Callable[[int, int], bytes]

    def read_into(self, offset: int, out: NDArray[Any]) -> None:
        out.reshape(-1).view(np.uint8)[...] = np.frombuffer(self.read(offset, out.nbytes), np.uint8)

    def read_pieces(self, offsets: Sequence[int], out: NDArray[Any]) -> None:
        for piece, offset in zip(out.reshape(len(offsets), -1), offsets, strict=True):
            self.read_into(offset, piece)


class Held:
    """Files in memory; see `Place`."""

    near = True

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        self.name = name
        self._files = files

    def read(self, key: str, max_bytes: int) -> bytes:
        """See `Place`."""
        if key not in self._files:
            raise FileNotFoundError(f"{self.name}/{key}")
        check_size(f"{self.name}/{key}", len(self._files[key]), max_bytes)
        return self._files[key]

    def names(self, key: str) -> list[str] | None:
        """See `Place`."""
        return None

    def open(self, key: str) -> Blob:
        """See `Place`."""
        if key not in self._files:
            raise StoreDamageError(f"{self.name}/{key}", "is missing: run `bgaug verify`")
        return _HeldFile(f"{self.name}/{key}", self._files[key])


class _HeldFile(_ByRead):
    """A file in memory; see `Blob`."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.size = len(data)
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size:
            raise StoreDamageError(self.name, f"ends before byte {offset + length}: run `bgaug verify`")
        return self._data[offset : offset + length]


# --- stores of zarr -------------------------------------------------------------------------------------------------


class _Remote:
    """Files of a store of zarr; see `Place`. Threads may share it."""

    near = False

    def __init__(self, store: ZarrStore, name: str) -> None:
        self.name = name
        self._store = store

    def read(self, key: str, max_bytes: int) -> bytes:
        data = _get(self._store, key, f"{self.name}/{key}")
        check_size(f"{self.name}/{key}", len(data), max_bytes)
        return data

    def names(self, key: str) -> list[str] | None:
        from zarr.core.sync import sync

        async def listed() -> list[str]:
            return [name async for name in self._store.list_dir(key)]

        if not self._store.supports_listing:
            return None
        try:
            return sync(listed())
        except Exception:  # noqa: BLE001 - each library raises its own exceptions; a plain web server lists nothing
            return None

    def open(self, key: str) -> Blob:
        return _RemoteFile(self._store, key, f"{self.name}/{key}")


class _RemoteFile(_ByRead):
    """A file of a store of zarr; see `Blob`. Every read is one request."""

    def __init__(self, store: ZarrStore, key: str, name: str) -> None:
        from zarr.core.sync import sync

        self.name = name
        self._store = store
        self._key = key
        try:
            self.size = sync(store.getsize(key))
        except FileNotFoundError as error:
            raise StoreDamageError(name, "is missing: run `bgaug verify`") from error
        except Exception as error:
            raise _refused(name, error) from error

    def read(self, offset: int, length: int) -> bytes:
        if not length:
            return b""
        try:
            data = _get(self._store, self._key, self.name, (offset, offset + length))
        except FileNotFoundError as error:
            raise StoreDamageError(self.name, "is missing: run `bgaug verify`") from error
        if len(data) != length:
            raise StoreDamageError(self.name, f"ends before byte {offset + length}: run `bgaug verify`")
        return data


def _get(store: ZarrStore, key: str, name: str, span: tuple[int, int] | None = None) -> bytes:
    # Zarr is slow to import, and only needed here.
    from zarr.abc.store import RangeByteRequest
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    part = None if span is None else RangeByteRequest(*span)
    try:
        data = sync(store.get(key, default_buffer_prototype(), byte_range=part))
    except FileNotFoundError:
        raise
    except Exception as error:
        raise _refused(name, error) from error
    if data is None:
        raise FileNotFoundError(name)
    return data.to_bytes()


def _refused(name: str, error: Exception) -> StoreError:
    lines = str(error).strip().splitlines()
    return StoreError(name, f"cannot be read ({lines[0] if lines else type(error).__name__})")
