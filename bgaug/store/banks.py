"""Donor banks: images from elsewhere as backgrounds for foregrounds, kept in the store at its size.

Letters: K images, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError, StoreError, UsageError
from bgaug.files import replace_durably
from bgaug.sizing import Size
from bgaug.store.array_file import ArrayFile
from bgaug.store.arrays import ArraySpec, ArrayWriter, begin_group, sync_tree
from bgaug.store.format.documents import MAX_RECORD_BYTES, BankDocument, brief
from bgaug.store.format.inside import discard, names_inside, refuse_links, replace_folder
from bgaug.store.format.layout import BANKS, COMMIT, OUTGOING, TEMPORARY, seal, unseal, writing
from bgaug.store.places import Place

BANK_ARRAY = "pictures"  # name of the array on the disk: part of the format


@dataclass(frozen=True)
class Bank:
    """Images to put foregrounds over."""

    name: str  # name of the bank
    images: NDArray[np.uint8]  # uint8 (K, H, W, 3), RGB
    names: tuple[str, ...]  # names of their files, K


def write_bank(
    root: Path, name: str, images: Iterable[tuple[str, NDArray[np.uint8]]], *, overwrite: bool = False
) -> int:
    """Add a bank to the store; it becomes visible when it is complete.

    Args:
        root: folder of the store.
        name: name of the bank: letters, digits, ``-``, ``_`` and ``.``; it must not begin with a dot.
        images: (name, uint8 (H, W, 3) RGB at the store's size) of each image.
        overwrite: replace a bank of that name.

    Returns:
        K, the number of images.

    Raises:
        UsageError: the name is invalid, a bank of that name exists, or there is no image.
        StoreError: the store cannot be written.
    """
    if not _is_bank_name(name):
        raise UsageError(f"a bank's name consists of letters, digits, '-', '_' and '.', got {name!r}")
    final, folder = root / BANKS / name, root / BANKS / f"{TEMPORARY}{name}"
    if final.exists() and not overwrite:
        raise UsageError(f"{root} already has a bank {name!r}; give another --name, or --overwrite")
    with writing(final):
        refuse_links(root, BANKS)
        discard(folder)
        folder.parent.mkdir(exist_ok=True)
        begin_group(folder)
    try:
        names = _write_images(folder, images)
        if not names:
            raise UsageError(f"no image for the bank {name!r}")
        place_bank(folder, final)
    finally:
        with suppress(OSError):
            discard(folder)
    return len(names)


def _is_bank_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and all(c.isalnum() or c in "-_." for c in name)


def place_bank(folder: Path, final: Path) -> None:
    """Replace a bank by a complete temporary folder."""
    old = final.with_name(f"{OUTGOING}{final.name}")
    with writing(final):
        discard(old)  # of a process that died here
        replace_folder(folder, final, old)
        discard(old)


def _write_images(folder: Path, images: Iterable[tuple[str, NDArray[np.uint8]]]) -> list[str]:
    names: list[str] = []
    array: ArrayWriter | None = None
    for name, image in images:
        with writing(folder):
            array = array or ArrayWriter(folder, BANK_ARRAY, bank_spec(image.shape[:2]))
            array.append(image[None])
        names.append(name)
    if array is not None:
        with writing(folder):
            array.finish()
            replace_durably(folder / COMMIT, seal({"names": names, "files": sync_tree(folder, array.files)}))
    return names


def bank_spec(size: Size) -> ArraySpec:
    """Layout of the images of a bank."""
    return ArraySpec("|u1", (*size, 3), 1, compress=True, dimensions=("picture", "height", "width", "channel"))


def read_bank_commit(place: Place, name: str) -> dict[str, Any]:
    """Commit record of a bank.

    Raises:
        StoreError: there is no bank of that name.
        StoreDamageError: it is damaged.
    """
    key = f"{BANKS}/{name}/{COMMIT}"
    try:
        if _is_bank_name(name):
            return unseal(f"{place.name}/{key}", place.read(key, MAX_RECORD_BYTES), BankDocument)
    except FileNotFoundError:
        pass
    raise StoreError(place.name, f"has no bank of images {brief(name)}: see `bgaug import`")


def read_bank(place: Place, name: str, size: Size) -> Bank:
    """A bank of a store of this size; raises as `read_bank_commit` does."""
    names = read_bank_commit(place, name)["names"]
    array = ArrayFile(place, f"{BANKS}/{name}/{BANK_ARRAY}", bank_spec(size))
    if array.shape[0] != len(names):
        raise StoreDamageError(
            f"{place.name}/{BANKS}/{name}", "has another number of images than names: run `bgaug verify`"
        )
    return Bank(name, array.read_all(), tuple(names))


def bank_names(root: Path) -> list[str]:
    """Names of the banks of the store in a folder."""
    return sorted(name for name in names_inside(root, BANKS) if not name.startswith("."))
