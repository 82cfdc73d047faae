"""The folder of a run: one process trains into it at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bgaug.errors import CheckpointError, StoreLockedError
from bgaug.files import make_folder, writing
from bgaug.store.lock import locked

_LOCK = ".bgaug-run.lock"


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """No other process trains into the folder within the block. Folders that were made for it and stay empty go.

    Raises:
        CheckpointError: another process does; names it.
        WriteError: the folder cannot be written.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out)
    with ExitStack() as held:
        held.callback(_remove_empty, made)
        try:
            with writing(out):
                held.enter_context(locked(out / _LOCK))
        except StoreLockedError as error:
            raise CheckpointError(f"{out} {error.message}") from error
        yield


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, up to the first that holds something."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def holds_something(out: Path) -> bool:
    """Whether there is a file in the folder that is more than what a killed run leaves."""
    return out.is_dir() and any(not path.name.startswith(".bgaug-") for path in out.iterdir())
