"""The folder that videos are exported to: one export at a time, and nothing stays of one that was killed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from bgaug.files import clear_unfinished
from bgaug.store.format.layout import writing
from bgaug.store.locks.lock import ShardLock

_LOCK = ".bgaug-export.lock"
_JOURNAL = ".bgaug-export-"
# Names of the files of each kind.
EXPORTED = {
    "masks": re.compile(r"[0-9]{6,}\.png"),
    "frames": re.compile(r"[0-9]{6,}\.png"),
    "backgrounds": re.compile(r"shot_[0-9]{3,}(_valid)?\.png"),
}


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Nobody else exports to the folder within the block; what killed exports left there is removed."""
    with ExitStack() as held:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(ShardLock(out / _LOCK))
            _remove_leftovers(out)
        try:
            yield
        finally:
            with suppress(OSError):  # a lock file that stays holds nothing
                lock.remove()


def _remove_leftovers(out: Path) -> None:
    """Files that killed exports had written of videos that they did not finish, and those that they were writing."""
    for kind in ("", *EXPORTED):
        for parent, folders, names in os.walk(out / kind):
            if not kind:
                folders.clear()
            if any(name.startswith(".bgaug-") for name in names):
                clear_unfinished(parent)
    for journal in sorted(out.glob(f"{_JOURNAL}*.txt")):
        Journal(journal).undo()


class Journal:
    """What is written of a video that is not finished: one path below the folder a line, before the file is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    @classmethod
    def of(cls, out: Path, name: str) -> Journal:
        """That of a video, by the name of its files."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return cls(out / f"{_JOURNAL}{digest}.txt")

    def add(self, path: PurePosixPath) -> None:
        """A file that is about to be written."""
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        os.write(self._descriptor, f"{json.dumps(path.as_posix())}\n".encode())

    def undo(self) -> None:
        """Remove all files that are listed, and the list."""
        if self.path.is_file() and not self.path.is_symlink():
            for line in self.path.read_bytes().splitlines():
                with suppress(ValueError):  # the last line may be half there
                    self._remove(json.loads(line))
        self.close()

    def _remove(self, name: Any) -> None:
        parts = PurePosixPath(name).parts if isinstance(name, str) and "\0" not in name else ()
        if not parts or ".." in parts or parts[0] == "/":
            return
        kind = EXPORTED.get(parts[0])
        is_ours = kind.fullmatch(parts[-1]) if kind and len(parts) > 2 else parts[-1].endswith(".json")
        parent = self.path.parent
        if is_ours and parent.joinpath(*parts[:-1]).resolve().is_relative_to(parent.resolve()):
            parent.joinpath(*parts).unlink(missing_ok=True)

    def close(self) -> None:
        """The video is there, or all of it is gone: the list goes."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.path.unlink(missing_ok=True)
