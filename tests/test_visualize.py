from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from stores import FULL_SIZE, MOVING_IDS, make_moving_store

from bgaug.errors import UsageError
from bgaug.names import FrameKind
from bgaug.store import open_store
from bgaug.visualize import HeatmapRow, contact_sheet, hatched, heat_overlay, heatmap_sheet, overlay, write_image


def test_a_sheet_shows_what_the_store_holds(small_store: Path) -> None:
    store = open_store(small_store)
    sheet = contact_sheet(store, videos=[2], width=64)
    assert sheet.shape[1] == 4 * 68
    left, top = 68 + 4, 22 + 4
    shown = sheet[top : top + 48, left : left + 64]
    assert np.array_equal(shown, store.background(2).image)  # second column, at its own size
    assert contact_sheet(store, rows=6).shape[0] > contact_sheet(store, rows=2).shape[0]
    assert np.array_equal(contact_sheet(store, seed=1), contact_sheet(store, seed=1))


def test_a_background_is_hatched_where_it_was_never_seen() -> None:
    valid = np.ones((20, 30), np.bool_)
    valid[:, 10:] = False
    shown = hatched(np.full((20, 30, 3), 100, np.uint8), valid)
    lines = (shown == (255, 60, 60)).all(-1)
    assert not lines[:, :10].any() and lines[:, 10:].mean() == pytest.approx(1 / 8, abs=0.03)
    assert (shown[~lines] == 100).all()


@pytest.mark.parametrize("kind", ["jpeg", "none"])
def test_moving_cameras_are_drawn_with_their_own_backgrounds(kind: FrameKind, tmp_path: Path) -> None:
    store = open_store(make_moving_store(tmp_path / "s", kind))
    width = FULL_SIZE[1]
    sheet = contact_sheet(store, width=width)
    assert sheet.shape[1] == 4 * (width + 4)
    top = 22
    for name in MOVING_IDS:
        video = store.find(name)
        frames, canvas = store.background_frames(video).tolist(), store.canvas(video)
        cells = [sheet[top + 4 : top + 4 + FULL_SIZE[0], place * (width + 4) + 4 :][:, :width] for place in range(4)]
        if kind == "jpeg":  # the frame that is shown is one to which a background belongs
            own = [frame for frame in frames if np.array_equal(cells[0], store.clip(video, frame, 1)[0])]
            assert len(own) == min(1, len(frames))
            expected = [store.background(video, 0, *own)]
            cells = cells[1:2]
        else:
            expected = [store.background(video, 0, frame) for frame in frames[:4]] or [store.background(video)]
            assert all((cell == 24).all() for cell in cells[len(expected) + (canvas is not None) :])
        for cell, background in zip(cells, expected, strict=False):
            assert np.array_equal(cell, hatched(background.image, background.valid))
        shows_canvas = kind == "none" and canvas is not None
        tallest = round(canvas.image.shape[0] * width / canvas.image.shape[1]) if shows_canvas and canvas else 0
        top += 4 + max(FULL_SIZE[0], tallest) + 18
    assert top == sheet.shape[0]


def test_overlay_tints_the_foreground() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    mask = np.zeros((20, 20), np.bool_)
    mask[5:15, 5:15] = True
    shown = overlay(image, mask)
    assert shown[10, 10, 1] > 150 and (shown[0, 0] == 60).all() and (shown[4, 10] == 255).all()


def heat_row(caption: str = "") -> HeatmapRow:
    """Heat in the left half against heat in the right half; the mask is the left half."""
    left = np.zeros((2, 2), np.float32)
    left[:, 0] = 1
    mask = np.zeros((20, 30), np.bool_)
    mask[5:15, :15] = True
    return HeatmapRow(np.full((20, 30, 3), 120, np.uint8), [left, 1 - left], mask, caption)


def test_heat_maps_lie_over_their_frames_side_by_side() -> None:
    sheet = heatmap_sheet([heat_row("first"), heat_row()], ["ours", "theirs"], width=60)
    height = 22 + 2 * (4 + 40 + 18)
    assert sheet.dtype == np.uint8 and sheet.shape == (height, 4 * 64, 3)
    cells = [sheet[26:66, 64 * column + 4 : 64 * column + 64].astype(int) for column in range(4)]
    plain, ours, theirs, mask = cells
    assert (plain == 120).all()
    red, blue = ours[2, 2] - 120, ours[2, 57] - 120
    assert red[0] > 0 > red[2] and blue[2] > 0 > blue[0]
    assert (theirs[2, 2] == ours[2, 57]).all() and (ours != theirs).any()
    for cell in (ours, theirs, mask):
        assert (cell[9, :30] == 255).all() and (cell[8, :30] < 255).any(axis=1).all()  # the outline, one pixel wide
    assert mask[20, 10, 1] > 150 and (mask[2, 50] == 72).all()


def test_hot_places_hide_the_frame() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    cold, hot = (heat_overlay(image, np.full((4, 4), value)) for value in (0.0, 1.0))
    assert cold[..., 1].std() > 2 * hot[..., 1].std() > 0
    assert heat_overlay(image, np.zeros((1, 1)))[..., 2].mean() > image[..., 2].mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": np.zeros((20, 30, 3))}, "frame must be uint8"),
        ({"mask": np.zeros((20, 20), np.bool_)}, r"mask must be bool \(20, 30\)"),
        ({"maps": [np.full((2, 2), 1.5)]}, r"in \[0, 1\], got heat.shape = \(2, 2\), 1.5 to 1.5"),
        ({"maps": [np.full((2, 2), np.nan)]}, "nan to nan"),
    ],
)
def test_invalid_rows(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(heat_row(), **change)


def test_rows_have_as_many_maps_as_titles() -> None:
    with pytest.raises(ValueError, match=r"rows need 1 maps each, got \[2\]"):
        heatmap_sheet([heat_row()], ["ours"])
    with pytest.raises(ValueError, match="rows need 2 maps"):
        heatmap_sheet([], ["ours", "theirs"])


def test_images_are_written_and_wrong_names_refused(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    path = write_image(tmp_path / "new" / "x.png", image)
    read = np.asarray(cv2.imread(str(path)))
    assert path.is_absolute() and np.array_equal(read[..., ::-1], image)
    with pytest.raises(UsageError, match=r"name it .png or .jpg"):
        write_image(tmp_path / "x.txt", image)
