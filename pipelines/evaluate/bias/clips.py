"""Clips, masks and foreign images of a bias evaluation: centre crops, float, read one video at a time.

Letters: T frames, S side of the crop.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.data.clips import longest_shot, looped_clip, uniform_clips
from bgaug.errors import UsageError
from bgaug.pairs import centre_crop, crop_resize_masks
from bgaug.pairs.masks import unpack_masks
from bgaug.sizing import fit_frame
from bgaug.store import Store

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class ClipReader:
    """Centre crops of a store's clips, their masks and backgrounds, with a leading 1.

    Args:
        store: a store with frames, masks and backgrounds.
        num_frames: T.
        stride: distance of the frames of a clip.
        crop: S.
        device: device of the results.
    """

    def __init__(
        self, store: Store, num_frames: int, stride: int, crop: int, device: torch.device | str = "cpu"
    ) -> None:
        self.store = store
        self.num_frames, self.stride, self.crop = num_frames, stride, crop
        self.device = torch.device(device)

    def longest_shot(self, video: int, *, background: bool) -> int | None:
        """Index of the longest shot, or of the longest with a background; None if there is none."""
        shots = self.store.shots(video)
        usable = np.flatnonzero((shots[:, 1] > shots[:, 0]) & ((shots[:, 2] >= 0) | (not background)))
        return int(usable[longest_shot(shots[usable])]) if len(usable) else None

    def starts(self, video: int, shot: int, clips: int) -> tuple[int, ...]:
        """First frames of the evaluated clips of a shot."""
        first, stop = self.store.shots(video)[shot, :2].tolist()
        return tuple(uniform_clips(first, stop, self.num_frames, self.stride, clips)[:, 0].tolist())

    def frames(self, video: int, shot: int, start: int) -> NDArray[np.int64]:
        """Frames of the clip that begins at `start`, int64 (T,), counted from the first frame of the video."""
        return looped_clip(start, int(self.store.shots(video)[shot, 1]), self.num_frames, self.stride)

    def clip(self, video: int, frames: NDArray[np.int64]) -> Tensor:
        """Frames of a video: float32 in [0, 1], (1, 3, T, S, S)."""
        return self._cropped(self.store.frames_at(video, frames), video)

    def mask(self, video: int, frames: NDArray[np.int64]) -> Tensor:
        """Their masks: float32 in [0, 1], (1, 1, T, S, S)."""
        packed = torch.from_numpy(self.store.packed_masks_at(video, frames)).to(self.device)
        top, left, height, width = self.store.content_box(video)
        side = min(height, width)
        box = [top + (height - side) / 2, left + (width - side) / 2, side, side]
        masks = unpack_masks(packed, *self.store.size).unsqueeze(0)
        return crop_resize_masks(masks, torch.tensor([box], dtype=torch.float32, device=self.device), self.crop)

    def background(self, video: int, shot: int) -> Tensor:
        """Background of a shot: float32 in [0, 1], (1, 3, 1, S, S)."""
        image = np.empty((*self.store.size, 3), np.uint8)
        self.store.background_into(video, shot, image)
        return self._cropped(image[None], video)

    def foreign(self, image: NDArray[np.uint8]) -> Tensor:
        """The centre square of any image, uint8 (H, W, 3): float32 in [0, 1], (1, 3, 1, S, S)."""
        square = torch.from_numpy(fit_frame(image, (self.crop, self.crop), "crop")).to(self.device)
        return square.permute(2, 0, 1)[None, :, None].float() / 255

    def _cropped(self, frames: NDArray[np.uint8], video: int) -> Tensor:
        box = torch.tensor([self.store.content_box(video)], device=self.device)
        return centre_crop(torch.from_numpy(frames).to(self.device).unsqueeze(0), box, self.crop)


def digest(image: NDArray[np.uint8]) -> str:
    """sha256 of an image's pixels and shape."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def image_files(folder: Path) -> list[str]:
    """Names of the images below a folder, sorted, with forward slashes.

    Raises:
        UsageError: there are none.
    """
    found = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    names = sorted(path.relative_to(folder).as_posix() for path in found if not path.name.startswith("."))
    if not names:
        raise UsageError(f'{folder} holds no image ({", ".join(IMAGE_SUFFIXES)}); donors="folder" needs some')
    return names


@lru_cache(maxsize=64)
def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file, uint8 (H, W, 3), RGB.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        data = np.fromfile(path, np.uint8)
        found = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except (OSError, cv2.error) as error:
        raise UsageError(f"{path} cannot be read as an image: {error}") from error
    if found is None:
        raise UsageError(f"{path} cannot be read as an image")
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)


def video_group(store: Store, video: int) -> str:
    """Group of a video; a video without a known group is a group of its own."""
    code = int(store.columns.group[video])
    return store.names.groups[code] if code >= 0 else store.video_id(video)


def has_splits(store: Store) -> bool:
    """Whether the store has a "train" and a "test" split."""
    return {"train", "test"} <= set(store.names.splits)
