"""Clips of a bias evaluation, the composites that a manifest describes, and their contact sheet.

Clips are centre crops in float, read one video at a time. Letters: T frames, S side of the crop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.background.plate import fill
from bgaug.data.clips import evenly_spaced, looped_clip, uniform_clips
from bgaug.errors import UsageError
from bgaug.metrics.bias import Regions, conflict, far_swap, freeze, grey_image, regions, ring_swap, scene_behind
from bgaug.pairs import centre_crop, composite, crop_resize_masks, dilate
from bgaug.pairs.masks import unpack_masks
from bgaug.pipelines.evaluate.bias.manifest import Donor, Manifest, Row
from bgaug.pipelines.evaluate.bias.scenes import shows_scene
from bgaug.sizing import fit_frame
from bgaug.store import Store
from bgaug.store.format.records import CAMERAS
from bgaug.visualize import IMAGE_SUFFIXES, image_sheet, read_image

REFERENCE_CROP = 112
"""The options give lengths in pixels of such a crop."""

_SCENE_FRAMES = 16  # a scene is reconstructed from so many frames
_SCENE_GROW = 3.0  # and from what is so far away from the masks, because masks miss the rim of a foreground
_KEPT_SCENES = 128


class ClipReader:
    """Centre crops of a store's clips, their masks and scenes, with a leading 1.

    Args:
        store: a store with frames and masks.
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
        self.scene = lru_cache(_KEPT_SCENES)(self._scene)

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

    def _scene(self, video: int, shot: int) -> Tensor:
        """The scene of a shot without its foreground: float32 in [0, 1], (1, 3, 1, S, S).

        It is the stored background. Where there is none, and where masks from elsewhere show better what is hidden, it
        is reconstructed from the shot's frames; from the middle one only if the camera moves.
        """
        if self.store.shots(video)[shot, 2] >= 0 and not shows_scene(self.store, video, shot):
            image = np.empty((*self.store.size, 3), np.uint8)
            self.store.background_into(video, shot, image)
            return self._cropped(image[None], video)
        return self._reconstructed(video, shot)

    def _reconstructed(self, video: int, shot: int) -> Tensor:
        start, stop = self.store.shots(video)[shot, :2].tolist()
        columns = self.store.columns
        moving = CAMERAS[columns.shot_camera[int(columns.shot_offsets[video]) + shot]] == "moving"
        frames = start + np.unique(evenly_spaced(stop - start, 1 if moving else _SCENE_FRAMES))
        covered = dilate(self.mask(video, frames), _SCENE_GROW * self.crop / REFERENCE_CROP)
        image, seen = scene_behind(self.clip(video, frames), covered)
        pixels = (255 * image[0, :, 0]).round().byte().permute(1, 2, 0)
        filled = torch.from_numpy(fill(pixels.cpu().numpy(), seen[0, 0, 0].cpu().numpy())).to(self.device)
        return (filled / 255).clamp(0, 1).permute(2, 0, 1)[None, :, None]

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
def donor_file(path: Path) -> NDArray[np.uint8]:
    """An image file, uint8 (H, W, 3), RGB; composites of one donor come close together, so some are kept.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return read_image(path)
    except ValueError as error:
        raise UsageError(f"{path} {error}") from error


def video_group(store: Store, video: int) -> str:
    """Group of a video; a video without a known group is a group of its own."""
    code = int(store.columns.group[video])
    return store.names.groups[code] if code >= 0 else store.video_id(video)


def has_splits(store: Store) -> bool:
    """Whether the store has a "train" and a "test" split."""
    return {"train", "test"} <= set(store.names.splits)


# --- composites ---------------------------------------------------------------------------------------------------

CONTROLS = ("self", "same_class", "hole")
"""Views with the seams of composites, but without a scene of another class."""

OF_VIDEO = ("plain", "static_clip", "background_only", "foreground_only", *CONTROLS)
"""Views that a test video has once; a video may lack "same_class"."""

OF_ROW = ("scuba", "scufo", "conflict", "far", "ring")
"""Views of each composite."""

SHEET = ("plain", *OF_ROW, *CONTROLS)
"""Views on the contact sheet."""


def by_video(manifest: Manifest) -> Iterator[list[Row]]:
    """The rows of each video."""
    for _, rows in groupby(manifest.rows, key=lambda row: row.id):
        yield list(rows)


@dataclass(frozen=True, eq=False)
class Base:
    """A clip and its regions, shared by all its composites."""

    clip: Tensor  # (1, 3, T, S, S)
    parts: Regions
    area: float  # of the mask as it is stored, share of the clip


class Composer:
    """Makes the clips that a manifest describes.

    Args:
        store: the store that the manifest was made for.
        manifest: the test.
        folder: folder of the images, for donors from a folder.
        device: device of the clips.
    """

    def __init__(
        self, store: Store, manifest: Manifest, folder: Path | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.store, self.manifest, self._folder = store, manifest, folder
        self.reader = ClipReader(store, manifest.num_frames, manifest.stride, manifest.crop, device)
        self._banks: dict[str, dict[str, NDArray[np.uint8]]] = {}

    def base(self, row: Row, start: int) -> Base:
        """A clip of a row's video and its regions."""
        video = self.store.find(row.id)
        frames = self.reader.frames(video, row.shot, start)
        mask = self.reader.mask(video, frames)
        return Base(self.reader.clip(video, frames), self._regions(mask), float(mask.mean()))

    def of_video(self, row: Row, base: Base) -> dict[str, Tensor]:
        """The clips of `OF_VIDEO` that there are, float32 (1, 3, T, S, S) each; `row` is the first of the video."""
        T, foreground = base.clip.shape[2], base.parts.foreground
        own = self.reader.scene(self.store.find(row.id), row.shot)
        other = self.store.find(row.inserted.id)
        shape = self.reader.mask(other, self.reader.frames(other, row.inserted.shot, row.inserted.start))
        same = self.manifest.same_class.get(row.id)
        return {
            "plain": base.clip,
            "static_clip": freeze(base.clip, row.still),
            "background_only": own.expand(-1, -1, T, -1, -1),
            "foreground_only": composite(base.clip, foreground, grey_image(own)),
            "self": composite(base.clip, foreground, own),
            **({} if same is None else {"same_class": composite(base.clip, foreground, self.donor_image(same))}),
            "hole": composite(grey_image(own), self._regions(shape).foreground, base.clip),
        }

    def of_row(self, row: Row, base: Base) -> dict[str, Tensor]:
        """The clips of `OF_ROW`, float32 (1, 3, T, S, S) each."""
        image = self.donor_image(row.donor)
        scuba = composite(base.clip, base.parts.foreground, image)
        other, frame = self.store.find(row.inserted.id), np.array([row.inserted.frame], np.int64)
        still, mask = self.reader.clip(other, frame), self._regions(self.reader.mask(other, frame)).foreground
        return {
            "scuba": scuba,
            "scufo": freeze(scuba, row.still),
            "conflict": conflict(base.clip, base.parts, image, still, mask, row.inserted.shift),
            "far": far_swap(base.clip, base.parts, image),
            "ring": ring_swap(base.clip, base.parts, image),
        }

    def donor_image(self, donor: Donor) -> Tensor:
        """A donor's image, float32 in [0, 1], (1, 3, 1, S, S).

        Raises:
            UsageError: the image is missing, or has changed since the manifest was made.
        """
        if donor.kind == "video":
            return self.reader.scene(self.store.find(donor.id), donor.shot or 0)
        if donor.stripes is not None:
            return donor.stripes.image(self.manifest.crop, self.reader.device)[None, :, None]
        image = self._of_bank(donor.id) if donor.kind == "bank" else self._of_folder(donor.id)
        if donor.sha256 is not None and digest(image) != donor.sha256:
            raise UsageError(f"the {donor.kind} image {donor.id} is not the one that the manifest was made with")
        return self.reader.foreign(image)

    def _of_bank(self, name: str) -> NDArray[np.uint8]:
        bank, _, image = name.partition("/")
        if bank not in self._banks:
            found = self.store.bank(bank)
            self._banks[bank] = dict(zip(found.names, found.images, strict=True))
        if image not in self._banks[bank]:
            raise UsageError(f"the bank {bank!r} of {self.store.path} has no image {image!r}, which the manifest names")
        return self._banks[bank][image]

    def _of_folder(self, name: str) -> NDArray[np.uint8]:
        if self._folder is None:
            raise UsageError("the manifest's donors are images of a folder; give the folder with --bias-folder")
        return donor_file(self._folder / name)

    def _regions(self, mask: Tensor) -> Regions:
        m = self.manifest
        return regions(mask, grow=m.grow, feather=m.feather, ring=m.ring)


def bias_sheet(composer: Composer, *, rows: int = 8, width: int = 160) -> NDArray[np.uint8]:
    """Contact sheet of the first composites of as many videos: `SHEET`, one frame each, uint8 (H, W, 3) RGB.

    The composites, `rows` of them, are evenly spaced over the manifest; one image is `width` pixels wide.
    """
    all_ = composer.manifest.rows
    strips = []
    for place in np.unique(np.linspace(0, len(all_) - 1, rows).round().astype(int)).tolist():
        row = all_[place]
        base = composer.base(row, row.starts[0])
        clips = composer.of_video(row, base) | composer.of_row(row, base)
        clips.setdefault("same_class", grey_image(base.clip))
        # A frame far from the still frame, where the frozen clip differs from the moving one.
        T = composer.manifest.num_frames
        frame = (row.still + T // 2) % T
        images = [(clips[view][0, :, frame] * 255).round().byte().permute(1, 2, 0).cpu().numpy() for view in SHEET]
        behind = row.donor.id + (f" ({row.donor.label})" if row.donor.label else "")
        strips.append(
            (images, f"{row.name} ({row.label}) over {behind}, beside {row.inserted.id} ({row.inserted.label})")
        )
    return image_sheet(strips, SHEET, width=width)
