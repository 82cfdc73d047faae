from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from bgaug.errors import UsageError
from bgaug.store import open_store
from bgaug.visualize import contact_sheet, overlay, write_picture


def test_a_sheet_shows_what_the_store_holds(small_store: Path) -> None:
    store = open_store(small_store)
    sheet = contact_sheet(store, videos=[2], width=64)
    assert sheet.shape[1] == 4 * 68
    left, top = 68 + 4, 22 + 4
    shown = sheet[top : top + 48, left : left + 64]
    assert np.array_equal(shown, store.background(2).image)  # second column, at its own size
    assert contact_sheet(store, rows=6).shape[0] > contact_sheet(store, rows=2).shape[0]
    assert np.array_equal(contact_sheet(store, seed=1), contact_sheet(store, seed=1))


def test_overlay_tints_the_foreground() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    mask = np.zeros((20, 20), np.bool_)
    mask[5:15, 5:15] = True
    shown = overlay(image, mask)
    assert shown[10, 10, 1] > 150 and (shown[0, 0] == 60).all() and (shown[4, 10] == 255).all()


def test_pictures_are_written_and_wrong_names_refused(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    path = write_picture(tmp_path / "new" / "x.png", image)
    read = np.asarray(cv2.imread(str(path)))
    assert path.is_absolute() and np.array_equal(read[..., ::-1], image)
    with pytest.raises(UsageError, match=r"name it .png or .jpg"):
        write_picture(tmp_path / "x.txt", image)
