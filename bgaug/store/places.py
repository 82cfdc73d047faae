"""Where the files of a store are: a folder, or anything that zarr can open, such as an object store.

Both give ranges of files; nothing here knows what is in them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError, StoreError, UsageError
from bgaug.store.format.inside import check_size, names_inside, open_inside, read_inside

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore


class Blob(Protocol):
    """A file that is read in ranges.

    Attributes:
        name: what it is called in messages.
        size: bytes of it.
    """

    name: str
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on.

        Raises:
            StoreDamageError: the file is shorter, or gone.
        """
        ...

    def read_into(self, offset: int, out: NDArray[Any]) -> None:
        """Fill a C-contiguous array from `offset` on; raises as `read` does."""
        ...

    def read_pieces(self, offsets: Sequence[int], out: NDArray[Any]) -> None:
        """Fill a C-contiguous array piece by piece, each from its own place; raises as `read` does."""
        ...


class Place(Protocol):
    """The files of one store by their keys: paths below its root, with forward slashes.

    Attributes:
        name: what the store is called in messages.
        near: whether a read costs next to nothing, so that nothing needs to be kept.
    """

    name: str
    near: bool

    def read(self, key: str, max_bytes: int) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: there is none.
            StoreFormatError: it is larger than that.
            StoreError: it cannot be read, or is no file.
        """
        ...

    def open(self, key: str) -> Blob:
        """A file to be read in ranges.

        Raises:
            StoreDamageError: there is none, or it is no file.
        """
        ...

    def names(self, key: str) -> list[str] | None:
        """Names of what lies in a folder, in no order, none where there is no folder; None where that cannot be known."""
        ...


def place_of(path: str | Path | ZarrStore) -> Place:
    """The place that a folder, a URL or a store of zarr names.

    Raises:
        UsageError: what a URL needs is not installed.
    """
    if isinstance(path, Path):
        return Folder(path)
    if not isinstance(path, str):
        return Remote(path, str(path))
    return Remote(_zarr_store(path), path) if "://" in path else Folder(Path(path))


def _zarr_store(url: str) -> ZarrStore:
    makers: tuple[Callable[[str], ZarrStore], ...] = (_by_obstore, _by_fsspec)
    reasons = []
    for make in makers:
        try:
            return make(url)
        except Exception as error:  # noqa: BLE001 - each library raises kinds of its own
            reasons.append(str(error).strip().splitlines()[0] if str(error).strip() else repr(error))
    raise UsageError(f"{url} cannot be opened: {'; '.join(reasons)}. Install the extra: pip install 'bgaug[cloud]'")


def _by_obstore(url: str) -> ZarrStore:
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    return ObjectStore(from_url(url), read_only=True)


def _by_fsspec(url: str) -> ZarrStore:
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(url, read_only=True)


class Opened:
    """A place whose files are held open, those that were used last; see `Place`.

    Args:
        place: which.
        max_files: held open at most.
    """

    def __init__(self, place: Place, max_files: int) -> None:
        self.name = place.name
        self.near = place.near
        self._place = place
        self._max_files = max_files
        self._files: OrderedDict[str, Blob] = OrderedDict()
        self._lock = Lock()

    def read(self, key: str, max_bytes: int) -> bytes:
        """See `Place`."""
        return self._place.read(key, max_bytes)

    def names(self, key: str) -> list[str] | None:
        """See `Place`."""
        return self._place.names(key)

    def open(self, key: str) -> Blob:
        """See `Place`."""
        with self._lock:
            file = self._files.get(key)
            if file is not None:
                self._files.move_to_end(key)
                return file
        file = self._place.open(key)
        with self._lock:
            self._files[key] = file
            # What is dropped here is closed only when no other thread reads from it any more.
            while len(self._files) > self._max_files:
                self._files.popitem(last=False)
        return file


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
        return File(self._root, key)

    def names(self, key: str) -> list[str] | None:
        """See `Place`."""
        return names_inside(self._root, key)


class File:
    """An open file that gives its descriptor back when nobody holds it any more; see `Blob`.

    Reads name their place, so that threads and forked processes may share it.
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
        """See `Blob`."""
        if offset + length > self.size:
            raise self._ended(offset + length)  # before the memory for it is taken
        try:
            data = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise self._refused(error) from error
        if len(data) != length:
            raise self._ended(offset + length)
        return data

    def read_into(self, offset: int, out: NDArray[Any]) -> None:
        """See `Blob`."""
        self._fill(offset, out.data, out.nbytes)

    def read_pieces(self, offsets: Sequence[int], out: NDArray[Any]) -> None:
        """See `Blob`."""
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


# --- files that were read already -----------------------------------------------------------------------------------


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
        return HeldFile(f"{self.name}/{key}", self._files[key])


class HeldFile:
    """A file in memory; see `Blob`."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.size = len(data)
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        """See `Blob`."""
        if offset + length > self.size:
            raise StoreDamageError(self.name, f"ends before byte {offset + length}: run `bgaug verify`")
        return self._data[offset : offset + length]

    def read_into(self, offset: int, out: NDArray[Any]) -> None:
        """See `Blob`."""
        out.reshape(-1).view(np.uint8)[...] = np.frombuffer(self.read(offset, out.nbytes), np.uint8)

    def read_pieces(self, offsets: Sequence[int], out: NDArray[Any]) -> None:
        """See `Blob`."""
        for piece, offset in zip(out.reshape(len(offsets), -1), offsets, strict=True):
            self.read_into(offset, piece)


# --- what zarr can open ---------------------------------------------------------------------------------------------


class Remote:
    """Files of a store of zarr; see `Place`. Threads may share it."""

    near = False

    def __init__(self, store: ZarrStore, name: str) -> None:
        self.name = name
        self._store = store

    def read(self, key: str, max_bytes: int) -> bytes:
        """See `Place`."""
        data = _get(self._store, key, f"{self.name}/{key}")
        check_size(f"{self.name}/{key}", len(data), max_bytes)
        return data

    def names(self, key: str) -> list[str] | None:
        """See `Place`."""
        from zarr.core.sync import sync

        async def listed() -> list[str]:
            return [name async for name in self._store.list_dir(key)]

        if not self._store.supports_listing:
            return None
        try:
            return sync(listed())
        except Exception:  # noqa: BLE001 - each library raises kinds of its own; a plain web server lists nothing
            return None

    def open(self, key: str) -> Blob:
        """See `Place`."""
        return RemoteFile(self._store, key, f"{self.name}/{key}")


class RemoteFile:
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
        """See `Blob`."""
        if not length:
            return b""
        try:
            data = _get(self._store, self._key, self.name, (offset, offset + length))
        except FileNotFoundError as error:
            raise StoreDamageError(self.name, "is missing: run `bgaug verify`") from error
        if len(data) != length:
            raise StoreDamageError(self.name, f"ends before byte {offset + length}: run `bgaug verify`")
        return data

    def read_into(self, offset: int, out: NDArray[Any]) -> None:
        """See `Blob`."""
        out.reshape(-1).view(np.uint8)[...] = np.frombuffer(self.read(offset, out.nbytes), np.uint8)

    def read_pieces(self, offsets: Sequence[int], out: NDArray[Any]) -> None:
        """See `Blob`."""
        for piece, offset in zip(out.reshape(len(offsets), -1), offsets, strict=True):
            self.read_into(offset, piece)


def _get(store: ZarrStore, key: str, name: str, span: tuple[int, int] | None = None) -> bytes:
    # Zarr is slow to import, and needed here alone.
    from zarr.abc.store import RangeByteRequest
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    wanted = None if span is None else RangeByteRequest(*span)
    try:
        data = sync(store.get(key, default_buffer_prototype(), byte_range=wanted))
    except FileNotFoundError:
        raise
    except Exception as error:
        raise _refused(name, error) from error
    if data is None:
        raise FileNotFoundError(name)
    return data.to_bytes()


def _refused(name: str, error: Exception) -> StoreError:
    """Each library raises kinds of its own."""
    said = str(error).strip().splitlines()
    return StoreError(name, f"cannot be read ({said[0] if said else type(error).__name__})")
