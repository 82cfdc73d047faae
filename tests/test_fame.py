from __future__ import annotations

import numpy as np
import pytest
import torch
from worlds import moving_square

from bgaug.pairs import fame_masks


def fame_mask(frames: np.ndarray, share: float = 0.5, published: bool = False) -> np.ndarray:
    """The mask of one clip, uint8 (T, H, W, 3) to bool (H, W)."""
    clips = torch.from_numpy(frames.copy()).permute(3, 0, 1, 2)[None].float() / 255
    return np.asarray(fame_masks(clips, share, published)[0, 0, 0].bool().numpy())


def hues_to_tell_apart() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A red square moves to and fro over restless grey; to the right, boards in yellow-green and cyan stand still.

    Frames (16, 60, 80, 3), where the square ever is, and where the boards are.
    """
    rng = np.random.default_rng(0)
    frames = np.full((16, 60, 80, 3), 110, np.uint8)
    frames[:, :, :40] = rng.integers(90, 130, (16, 60, 40, 1), dtype=np.uint8)
    frames[:, 20:35, 45:75] = (220, 213, 0)  # 58 degrees
    frames[:, 42:57, 45:75] = (0, 220, 193)  # 173 degrees
    boards, ever = np.zeros((60, 80), np.bool_), np.zeros((60, 80), np.bool_)
    boards[20:35, 45:75] = boards[42:57, 45:75] = True
    for t in range(16):
        left = 12 + t % 4
        frames[t, 24:38, left : left + 14] = (220, 3, 0)  # 1 degree; all three are of one value
        ever[24:38, left : left + 14] = True
    return frames, ever, boards


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 1.0])
def test_mask_covers_its_share(share: float) -> None:
    mask = fame_mask(moving_square(num_frames=16)[0], share)
    assert mask.shape == (48, 64) and mask.dtype == np.bool_
    assert mask.sum() == int(share * 48 * 64)


@pytest.mark.parametrize("published", [False, True])
def test_moving_square_is_inside(published: bool) -> None:
    frames, masks, _ = moving_square(num_frames=40, height=112, width=112, side=24)
    mask = fame_mask(frames[10:26], published=published)
    always = masks[10:26].mean(0) > 0.5
    assert mask[always].mean() > 0.95


def test_only_the_corrected_hue_separates_red_from_yellow_green_and_cyan() -> None:
    frames, ever, boards = hues_to_tell_apart()
    corrected, published = fame_mask(frames, 0.3), fame_mask(frames, 0.3, published=True)
    assert corrected[ever].mean() > 0.9 and published[ever].mean() > 0.9
    assert corrected[boards].mean() < 0.1 and published[boards].mean() > 0.6


def test_reversed_time_gives_the_same_mask() -> None:
    frames = moving_square(num_frames=16)[0]
    assert np.array_equal(fame_mask(frames), fame_mask(frames[::-1]))


def test_without_motion_the_mask_still_has_its_share() -> None:
    frames = np.full((4, 20, 30, 3), 128, np.uint8)
    assert fame_mask(frames, 0.25).sum() == 150


def test_wrong_input_is_named() -> None:
    frames = moving_square(num_frames=4)[0]
    with pytest.raises(ValueError, match="at least 2 frames"):
        fame_mask(frames[:1])
    with pytest.raises(ValueError, match="share must be"):
        fame_mask(frames, 0.0)
