"""Donor banks: pictures from elsewhere to put foregrounds over, kept in the store at its size.

Letters: K pictures, H, W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError, StoreError, UsageError
from bgaug.sizing import Size
from bgaug.store.arrays import ArraySpec, ArrayWriter, begin_group, sync_tree
from bgaug.store.files import ArrayFile
from bgaug.store.format.documents import MAX_RECORD_BYTES, BankDocument, brief
from bgaug.store.format.inside import discard, names_inside, refuse_links
from bgaug.store.format.layout import (
    BANKS,
    COMMIT,
    OUTGOING,
    TEMPORARY,
    seal,
    sync_folder,
    unseal,
    write_durably,
    writing,
)
from bgaug.store.places import Place

_PICTURES = "pictures"


@dataclass(frozen=True)
class Bank:
    """Pictures to put foregrounds over.

    Attributes:
        name: of the bank.
        pictures: uint8 (K, H, W, 3), RGB.
        names: of the files that they come from, K.
    """

    name: str
    pictures: NDArray[np.uint8]
    names: tuple[str, ...]


def write_bank(
    root: Path, name: str, pictures: Iterable[tuple[str, NDArray[np.uint8]]], *, overwrite: bool = False
) -> int:
    """Put a bank into the store; it becomes visible when it is whole.

    Args:
        root: of the store.
        name: of the bank: letters, digits, ``-``, ``_`` and ``.``; not one that begins with a dot.
        pictures: (name, uint8 (H, W, 3) RGB at the store's size) each.
        overwrite: replace a bank of that name.

    Returns:
        K, the pictures written.

    Raises:
        UsageError: the name will not do, there is a bank of that name, or no picture.
        StoreError: the store cannot be written.
    """
    if not _is_bank_name(name):
        raise UsageError(f"a bank's name is made of letters, digits, '-', '_' and '.', got {name!r}")
    final, folder = root / BANKS / name, root / BANKS / f"{TEMPORARY}{name}"
    if final.exists() and not overwrite:
        raise UsageError(f"{root} has a bank {name!r} already; give another --name, or --overwrite")
    with writing(final):
        refuse_links(root, BANKS)
        discard(folder)
        folder.parent.mkdir(exist_ok=True)
        begin_group(folder)
    try:
        names = _write_pictures(folder, pictures)
        if not names:
            raise UsageError(f"no picture for the bank {name!r}")
        place_bank(folder, final)
    finally:
        with suppress(OSError):
            discard(folder)
    return len(names)


def _is_bank_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and all(c.isalnum() or c in "-_." for c in name)


def place_bank(folder: Path, final: Path) -> None:
    """Put a whole temporary folder in the place of a bank, which stays until then."""
    old = final.with_name(f"{OUTGOING}{final.name}")
    with writing(final):
        discard(old)
        if os.path.lexists(final):
            final.rename(old)
        folder.rename(final)
        sync_folder(final.parent)
        discard(old)


def _write_pictures(folder: Path, pictures: Iterable[tuple[str, NDArray[np.uint8]]]) -> list[str]:
    names: list[str] = []
    array: ArrayWriter | None = None
    for name, picture in pictures:
        with writing(folder):
            array = array or ArrayWriter(folder, _PICTURES, bank_spec(picture.shape[:2]))
            array.append(picture[None])
        names.append(name)
    if array is not None:
        with writing(folder):
            array.finish()
            write_durably(folder / COMMIT, seal({"names": names, "files": sync_tree(folder, array.files)}))
    return names


def bank_spec(size: Size) -> ArraySpec:
    """How the pictures of a bank lie on the disk."""
    return ArraySpec("|u1", (*size, 3), 1, compress=True, dimensions=("picture", "height", "width", "channel"))


def read_bank_commit(place: Place, name: str) -> dict[str, Any]:
    """Commit record of a bank.

    Raises:
        StoreError: there is none of that name.
        StoreDamageError: it is damaged.
    """
    key = f"{BANKS}/{name}/{COMMIT}"
    try:
        if _is_bank_name(name):
            return unseal(f"{place.name}/{key}", place.read(key, MAX_RECORD_BYTES), BankDocument)
    except FileNotFoundError:
        pass
    raise StoreError(place.name, f"has no bank of pictures {brief(name)}: see `bgaug import`")


def read_bank(place: Place, name: str, size: Size) -> Bank:
    """A bank of a store of this size, whole; raises as `read_bank_commit` does."""
    names = read_bank_commit(place, name)["names"]
    array = ArrayFile(place, f"{BANKS}/{name}/{_PICTURES}", bank_spec(size))
    if array.shape[0] != len(names):
        raise StoreDamageError(f"{place.name}/{BANKS}/{name}", "has not as many pictures as names: run `bgaug verify`")
    return Bank(name, array.read_all(), tuple(names))


def bank_names(root: Path) -> list[str]:
    """Banks of the store in a folder."""
    return sorted(name for name in names_inside(root, BANKS) if not name.startswith("."))
