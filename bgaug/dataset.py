"""`ClipDataset`: clips of a store as a torch Dataset, each sample a function of (seed, epoch, index) alone.

Letters: B clips, V views (clips of one video), T frames, H, W pixels, P packed bytes of one mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from bgaug.batch import FIELDS, Batch
from bgaug.errors import UsageError
from bgaug.store import Store, open_store
from bgaug.store.index import GRADES, STATUSES

Sampling = Literal["random", "uniform"]
Short = Literal["loop", "pad", "skip"]


@dataclass(frozen=True)
class ClipOptions:
    """How clips are drawn from videos.

    Attributes:
        num_frames: T, frames of a clip.
        stride: distance of the frames; 16 frames at stride 2 span about a second at 25 to 30 fps.
        views: V, clips drawn from one shot.
        sampling: "random" for training, each view anywhere in a shot; "uniform" for evaluation, views evenly spaced
            over the longest shot.
        short: what a shot shorter than the clip does: "loop" begins it again, "pad" repeats its last frame, "skip"
            leaves the video out.
    """

    num_frames: int = 16
    stride: int = 2
    views: int = 2
    sampling: Sampling = "random"
    short: Short = "loop"

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "views"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.sampling not in get_args(Sampling):
            raise ValueError(f"sampling must be one of {', '.join(get_args(Sampling))}, got {self.sampling!r}")
        if self.short not in get_args(Short):
            raise ValueError(f"short must be one of {', '.join(get_args(Short))}, got {self.short!r}")

    @property
    def span(self) -> int:
        """Frames from the first to the last of a clip, both counted."""
        return (self.num_frames - 1) * self.stride + 1


class ClipDataset(Dataset[Batch]):
    """One sample a video: V clips of one shot, with their masks and the shot's background.

    Samples are at rest: uint8 frames, bit-packed masks. `SemiNegativePairs` makes training pairs of a batch of them on
    its device. Works in a plain ``DataLoader`` with any start method; ``collate_fn=ClipDataset.collate`` spares it a
    copy.

    Args:
        store: an open store, or the path of one.
        options: how clips are drawn.
        seed: of all randomness.
        splits: keep the videos of these splits; None keeps all.
        labelled: keep labelled videos alone.
        min_grade: keep videos whose every shot has this grade (A to F) or a better one; None keeps all.
        backgrounds: keep videos with a static background alone. Needed for training pairs.

    Raises:
        UsageError: nothing is left, or the store keeps no frames or masks.
    """

    def __init__(
        self,
        store: Store | str | Path,
        options: ClipOptions | None = None,
        *,
        seed: int = 0,
        splits: Sequence[str] | None = None,
        labelled: bool = False,
        min_grade: str | None = None,
        backgrounds: bool = True,
    ) -> None:
        self.store = store if isinstance(store, Store) else open_store(store)
        self.options = options or ClipOptions()
        self.seed = seed
        self.epoch = 0
        self._needs_background = backgrounds
        if self.store.header.frames == "none":
            raise UsageError(f"{self.store.path} keeps no frames; make a training store with `bgaug build-shards`")
        keep = self._kept(splits, labelled, min_grade, backgrounds)
        self.videos: NDArray[np.int64] = np.flatnonzero(keep)
        if not len(self.videos):
            raise UsageError(
                f"{self.store.path}: none of {len(self.store)} videos is left by {splits = }, {labelled = }, "
                f"{min_grade = }, {backgrounds = }, short = {self.options.short!r}"
            )

    def _kept(
        self, splits: Sequence[str] | None, labelled: bool, min_grade: str | None, backgrounds: bool
    ) -> NDArray[np.bool_]:
        c = self.store.columns
        keep = np.ones(len(self.store), np.bool_)
        if splits is not None:
            unknown = sorted(set(splits) - set(self.store.names.splits))
            if unknown:
                known = ", ".join(self.store.names.splits) or "none"
                raise UsageError(f"{self.store.path} has no split {unknown[0]!r}; it has: {known}")
            keep &= np.isin(c.split, [self.store.names.splits.index(name) for name in splits])
        if labelled:
            keep &= c.label >= 0
        firsts = c.shot_offsets[:-1]
        if backgrounds:
            keep &= c.status != STATUSES.index("no_static_background")
            keep &= np.maximum.reduceat(c.shot_background, firsts) >= 0 if len(firsts) else keep
        if min_grade is not None:
            worst = np.maximum.reduceat(c.shot_grade, firsts) if len(firsts) else c.shot_grade
            keep &= (worst > 0) & (worst <= GRADES.index(min_grade))
        if self.options.short == "skip":
            longest = np.maximum.reduceat(c.shot_stop - c.shot_start, firsts) if len(firsts) else c.shot_stop
            keep &= longest >= self.options.span
        return keep

    def __len__(self) -> int:
        return len(self.videos)

    def set_epoch(self, epoch: int) -> None:
        """Draw other clips: those of this epoch."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> Batch:
        """Sample `index`, without the leading B."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        """Several samples, views of one batch: `collate` gives that batch back without a copy."""
        batch = self.allocate(len(indices))
        for slot, index in enumerate(indices):
            self.fill(batch, slot, int(index))
        samples = [Batch(**{name: batch[name][slot] for name in FIELDS}) for slot in range(len(indices))]
        for sample in samples:
            sample.__dict__["_whole"] = batch
        return samples

    @staticmethod
    def collate(samples: Sequence[Batch]) -> Batch:
        """A batch from samples; without a copy where `__getitems__` made them together."""
        whole = samples[0].__dict__.get("_whole")
        if isinstance(whole, Batch) and len(whole.video) == len(samples):
            return whole
        return Batch(**{name: torch.stack([sample[name] for sample in samples]) for name in FIELDS})

    def allocate(self, batch_size: int, *, pin: bool = False) -> Batch:
        """An empty batch of the right shapes, to be filled by `fill`; pinned for fast copies to a GPU on request."""
        B, V, T = batch_size, self.options.views, self.options.num_frames
        height, width = self.store.size
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "frames": ((B, V, T, height, width, 3), torch.uint8),
            "masks": ((B, V, T, (height * width + 7) // 8), torch.uint8),
            "backgrounds": ((B, height, width, 3), torch.uint8),
            "video": ((B,), torch.int64),
            "shot": ((B,), torch.int64),
            "label": ((B,), torch.int64),
            "start": ((B, V), torch.int64),
            "pts_seconds": ((B, V, T), torch.float64),
            "box": ((B, 4), torch.int64),
            "key": ((B,), torch.int64),
        }
        return Batch(
            **{name: torch.zeros(shape, dtype=dtype, pin_memory=pin) for name, (shape, dtype) in shapes.items()}
        )

    def fill(self, batch: Batch, slot: int, index: int, epoch: int | None = None) -> None:
        """Read sample `index` of `epoch` (default: the current one) into a slot of a batch.

        Raises:
            IndexError: there is no such sample.
            StoreDamageError: bytes are missing or changed.
        """
        if not 0 <= index < len(self.videos):
            raise IndexError(f"the dataset has {len(self.videos)} samples, no sample {index}")
        video = int(self.videos[index])
        # Philox is a counter: the same key gives the same draws in any worker, in any order.
        epoch = self.epoch if epoch is None else epoch
        rng = np.random.Generator(np.random.Philox(key=[self.seed, 0], counter=[0, 0, epoch, video]))
        shot, starts = self._draw(video, rng)
        for view, start in enumerate(starts):
            self._read_view(batch, slot, view, video, shot, start)
        if self._needs_background:
            self.store.background_into(video, shot, batch.backgrounds[slot].numpy())
        batch.video[slot] = video
        batch.shot[slot] = shot
        batch.label[slot] = int(self.store.columns.label[video])
        batch.start[slot] = torch.tensor(starts)
        batch.box[slot] = torch.tensor(self.store.content_box(video))
        batch.key[slot] = int(rng.integers(0, 2**63 - 1))

    def _draw(self, video: int, rng: np.random.Generator) -> tuple[int, list[int]]:
        """Shot and first frames of the views."""
        shots = self.store.shots(video)
        lengths = (shots[:, 1] - shots[:, 0]).astype(np.int64)
        usable = shots[:, 2] >= 0 if self._needs_background else np.ones(len(shots), np.bool_)
        if self.options.short == "skip":
            usable &= lengths >= self.options.span
        lengths = np.where(usable, lengths, 0)
        views, span = self.options.views, self.options.span
        if self.options.sampling == "uniform":
            shot = int(lengths.argmax())
            room = max(0, int(lengths[shot]) - span)
            offsets = np.round((np.arange(views) + 0.5) / views * room).astype(np.int64)
        else:
            shot = int(np.searchsorted(np.cumsum(lengths), rng.integers(lengths.sum()), side="right"))
            offsets = rng.integers(max(0, int(lengths[shot]) - span) + 1, size=views)
        return shot, (int(shots[shot, 0]) + offsets).tolist()

    def _read_view(self, batch: Batch, slot: int, view: int, video: int, shot: int, start: int) -> None:
        T, stride = self.options.num_frames, self.options.stride
        frames, masks = batch.frames[slot, view].numpy(), batch.masks[slot, view].numpy()
        times = batch.pts_seconds[slot, view].numpy()
        stop = int(self.store.shots(video)[shot, 1])
        if start + self.options.span <= stop:
            self.store.clip(video, start, T, stride, out=frames)
            self.store.packed_masks(video, start, T, stride, out=masks)
            times[...] = self.store.pts_seconds(video, start, T, stride)
            return
        available = -(-(stop - start) // stride)
        places = np.arange(T) % available if self.options.short == "loop" else np.minimum(np.arange(T), available - 1)
        frames[...] = self.store.clip(video, start, available, stride)[places]
        masks[...] = self.store.packed_masks(video, start, available, stride)[places]
        times[...] = self.store.pts_seconds(video, start, available, stride)[places]
