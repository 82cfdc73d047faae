"""`ClipDataset`: clips of a store as a torch Dataset, each sample a function of only (seed, epoch, index).

Letters: B clips, V views (clips of one video), T frames, H, W pixels, P packed bytes of one mask, N videos of the
store, S shots of all videos.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from bgaug.data.batch import FIELDS, Batch
from bgaug.data.clips import evenly_spaced
from bgaug.data.usable import TOLERANCE_SECONDS, UsableShots
from bgaug.errors import UsageError
from bgaug.store import Store, open_store
from bgaug.store.format.records import GRADES, STATUSES

_Sampling = Literal["random", "uniform"]
_Short = Literal["loop", "pad", "skip"]

"""Tolerance for rounded times at the end of a shot: less than one tick of any container's clock."""

_BORROWED_VIEW = 1
"""The view that pairs put other backgrounds behind, and whose background they lend to others."""


@dataclass(frozen=True)
class ClipOptions:
    """How clips are drawn from videos. A clip never crosses a cut.

    Attributes:
        num_frames: T, frames of a clip.
        stride: distance of the frames; 16 frames at stride 2 span about a second at 25 to 30 fps.
        views: V, clips drawn from one shot.
        sampling: "random" for training, each view anywhere in a shot; "uniform" for evaluation, views evenly spaced
            over the longest shot.
        short: how a shot shorter than the clip is used: "loop" repeats it from its first frame, "pad" repeats the last
            frame that the stride reaches, "skip" leaves the shot out, and the video if it has no other.
        stride_seconds: distance of the frames in time, in place of `stride`: frame k is the frame whose time is nearest
            to k times this after the first frame's, at any frame rate, constant or not.
        min_shot_seconds: shots shorter than this, by frames and frame rate, are fragments between cuts and are not
            sampled if the video has a longer shot. 0 samples all.

    Raises:
        UsageError: a value out of its range.
    """

    num_frames: int = 16
    stride: int = 2
    views: int = 2
    sampling: _Sampling = "random"
    short: _Short = "loop"
    stride_seconds: float | None = None
    min_shot_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "views"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.sampling not in get_args(_Sampling):
            raise UsageError(f"sampling must be one of {', '.join(get_args(_Sampling))}, got {self.sampling!r}")
        if self.short not in get_args(_Short):
            raise UsageError(f"short must be one of {', '.join(get_args(_Short))}, got {self.short!r}")
        if self.stride_seconds is not None and not 0 < self.stride_seconds < math.inf:
            raise UsageError(f"stride_seconds must be finite and more than 0, got {self.stride_seconds}")
        if not 0 <= self.min_shot_seconds < math.inf:
            raise UsageError(f"min_shot_seconds must be finite and not negative, got {self.min_shot_seconds}")

    @property
    def span(self) -> int:
        """Frames from the first to the last of a clip of `stride`, both counted."""
        return (self.num_frames - 1) * self.stride + 1


class ClipDataset(Dataset[Batch]):
    """One sample per video: V clips of one shot, with their masks and the shot's background.

    Of a moving camera's shot with several backgrounds, it is that whose frame is nearest to the middle frame of the
    second view (of the first if there is only one).

    Samples have the layout at rest: uint8 frames, bit-packed masks. `SemiNegativePairs` makes training pairs of a batch
    on its device. The dataset works in a plain ``DataLoader`` with any start method; ``collate_fn=ClipDataset.collate``
    avoids a copy. A shot is drawn with a probability in proportion to its frames, a view anywhere in it where the clip
    fits.

    Args:
        store: an open store, or the path or URL of one.
        options: how clips are drawn.
        seed: seed of all randomness.
        splits: keep the videos of these splits; None keeps all.
        labels: keep the videos of these classes; None keeps all.
        statuses: keep the videos that were built with these results ("ok", "partial", "no_static_background"); None
            keeps all.
        labelled: keep only labelled videos.
        min_grade: leave out shots with a worse grade (A to F), and videos that have no others; None keeps all. The
            grade predicts the quality of masks from the background or from motion, so shots with imported masks or
            those of a segmentation network are kept, and so are shots without a grade.
        backgrounds: keep only videos with a static background, and draw from shots that have one. Training pairs need
            them.

    Attributes:
        videos: int64 (samples,), index in the store of each sample's video.
        left_out: what is not drawn from, of the videos that `splits`, `labels`, `statuses` and `labelled` keep.

    Raises:
        UsageError: a name that the store does not have, no video is left, or the store has no frames.
    """

    def __init__(
        self,
        store: Store | str | Path,
        options: ClipOptions | None = None,
        *,
        seed: int = 0,
        splits: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        statuses: Sequence[str] | None = None,
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
            raise UsageError(f"{self.store.path} has no frames; make a training store with `bgaug build-shards`")
        c = self.store.columns
        keep = np.ones(len(self.store), np.bool_)
        keep &= self._among(c.split, "split", splits, self.store.names.splits)
        keep &= self._among(c.label, "class", labels, self.store.header.classes)
        keep &= self._among(c.status, "status", statuses, STATUSES)
        if labelled:
            keep &= c.label >= 0
        if min_grade not in (None, *GRADES[1:]):
            raise UsageError(f"min_grade must be one of {', '.join(GRADES[1:])}, or None, got {min_grade!r}")
        # Cumulative frames to draw from over the shots of all videos: a draw is one search, and a worker holds no
        # object per video.
        usable = UsableShots(self.store, self.options, backgrounds=backgrounds)
        weights, self.left_out = usable.weights(keep, min_grade)
        self._ends: NDArray[np.int64] = np.concatenate([[0], np.cumsum(weights, dtype=np.int64)])
        keep &= np.diff(self._ends[c.shot_offsets]) > 0
        self.videos: NDArray[np.int64] = np.flatnonzero(keep)
        if not len(self.videos):
            raise UsageError(
                f"{self.store.path}: none of {len(self.store)} videos is left by {splits = }, {labels = }, "
                f"{statuses = }, {labelled = }, {min_grade = }, {backgrounds = }, short = {self.options.short!r}"
                f"{self._hint()}"
            )
        self._steps = np.arange(self.options.num_frames) * self.options.stride
        padded = self.store.header.fit == "pad"
        self._box = None if padded else np.array([0, 0, *self.store.size])

    def _among(
        self, codes: NDArray[Any], what: str, requested: Sequence[str] | None, known: Sequence[str]
    ) -> NDArray[np.bool_] | bool:
        """Which videos have one of the requested names, given the code of each."""
        if requested is None:
            return True
        names = [requested] if isinstance(requested, str) else list(requested)
        for name in names:
            if name not in known:
                raise UsageError(f"{self.store.path} has no {what} {name!r}; it has: {', '.join(known) or 'none'}")
        return np.isin(codes, [known.index(name) for name in names])

    def _hint(self) -> str:
        """What to do if no video is left, where it is the grade that leaves the last ones out."""
        return "; min_grade=None (--min-grade none) keeps all" if self.left_out.videos.get("grade") else ""

    def __len__(self) -> int:
        return len(self.videos)

    def set_epoch(self, epoch: int) -> None:
        """Draw the clips of this epoch from now on."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> Batch:
        """Sample `index`, without the leading B."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        """Several samples, views of one batch: `collate` returns that batch without a copy."""
        batch = self.allocate(len(indices))
        self.fill_slots(batch, enumerate(indices))
        samples = [Batch(*parts) for parts in zip(*(batch[name].unbind() for name in FIELDS), strict=True)]
        for sample in samples:
            sample.__dict__["_whole"] = batch
        return samples

    @staticmethod
    def collate(samples: Sequence[Batch]) -> Batch:
        """A batch of samples; without a copy if one call of `__getitems__` made them."""
        whole = samples[0].__dict__.get("_whole")
        if isinstance(whole, Batch) and len(whole.video) == len(samples):
            return whole
        return Batch(**{name: torch.stack([sample[name] for sample in samples]) for name in FIELDS})

    def video_ids(self, batch: Batch) -> list[str]:
        """Ids of the videos of a batch, or of one sample."""
        return [self.store.video_id(video) for video in batch.video.reshape(-1).tolist()]

    def allocate(self, batch_size: int, *, pin: bool = False) -> Batch:
        """An empty batch of the right shapes for `fill`, pinned on request for fast copies to a GPU."""
        B, V, T = batch_size, self.options.views, self.options.num_frames
        height, width = self.store.size
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "frames": ((B, V, T, height, width, 3), np.uint8),
            "masks": ((B, V, T, (height * width + 7) // 8), np.uint8),
            "backgrounds": ((B, height, width, 3), np.uint8),
            "video": ((B,), np.int64),
            "shot": ((B,), np.int64),
            "label": ((B,), np.int64),
            "grade": ((B,), np.int64),
            "start": ((B, V), np.int64),
            "pts_seconds": ((B, V, T), np.float64),
            "box": ((B, 4), np.int64),
            "key": ((B,), np.int64),
        }
        # numpy's zeros cost nothing until they are written; torch would write them with threads that a forked process
        # does not have.
        tensors = {name: torch.from_numpy(np.zeros(shape, dtype)) for name, (shape, dtype) in shapes.items()}
        return Batch(**{name: value.pin_memory() if pin else value for name, value in tensors.items()})

    def fill(self, batch: Batch, slot: int, index: int, epoch: int | None = None) -> None:
        """Read sample `index` of `epoch` (by default the current one) into a slot of a batch.

        Raises:
            IndexError: there is no such sample.
            StoreDamageError: bytes are missing or changed.
        """
        self.fill_slots(batch, [(slot, index)], epoch)

    def fill_slots(self, batch: Batch, slots: Iterable[tuple[int, int]], epoch: int | None = None) -> None:
        """`fill` for each (slot, index), cheaper than one by one. Threads may share an iterator over them."""
        epoch = self.epoch if epoch is None else epoch
        arrays: dict[str, NDArray[Any]] = {name: batch[name].numpy() for name in FIELDS}
        for slot, index in slots:
            if not 0 <= index < len(self.videos):
                raise IndexError(f"the dataset has {len(self.videos)} samples, no sample {index}")
            self._fill(arrays, slot, int(self.videos[index]), epoch)

    def _fill(self, arrays: dict[str, NDArray[Any]], slot: int, video: int, epoch: int) -> None:
        store = self.store
        shot_word, key_word, *words = _random_words(self.seed, epoch, video, self.options.views + 2)
        shot, start, stop = self._choose_shot(video, shot_word)
        if self.options.stride_seconds is None:
            frames = self._frames_by_stride(start, stop, words)
            times = store.pts_at(video, frames.ravel()).reshape(frames.shape)
        else:
            frames, times = self._frames_by_seconds(video, start, stop, words)
        clips, masks = arrays["frames"][slot], arrays["masks"][slot]
        for view, numbers in enumerate(frames):
            store.frames_at(video, numbers, clips[view])
            store.packed_masks_at(video, numbers, masks[view])
        if self._needs_background:
            of_clip = frames[min(_BORROWED_VIEW, len(frames) - 1)]
            middle = int(of_clip[len(of_clip) // 2])
            store.background_into(video, shot, arrays["backgrounds"][slot], middle)
        arrays["video"][slot] = video
        arrays["shot"][slot] = shot
        arrays["label"][slot] = store.columns.label[video]
        arrays["grade"][slot] = store.columns.shot_grade[store.columns.shot_offsets[video] + shot]
        arrays["start"][slot] = frames[:, 0]
        arrays["pts_seconds"][slot] = times
        arrays["box"][slot] = store.content_box(video) if self._box is None else self._box
        arrays["key"][slot] = key_word >> 1

    def _choose_shot(self, video: int, word: int) -> tuple[int, int, int]:
        """(shot of the video, its first frame, one past its last)."""
        c = self.store.columns
        first, last = c.shot_offsets[video : video + 2].tolist()
        shot = first
        if last - first > 1:
            ends = self._ends[first : last + 1]
            if self.options.sampling == "uniform":
                shot += int(np.diff(ends).argmax())
            else:
                place = int(ends[0]) + _below(int(ends[-1] - ends[0]), word)
                shot += int(np.searchsorted(ends, place, side="right")) - 1
        return shot - first, int(c.shot_start[shot]), int(c.shot_stop[shot])

    def _places(self, count: int, words: Sequence[int]) -> NDArray[np.int64]:
        """Place at which each view begins, of `count` possible places: int64 (V,)."""
        if self.options.sampling == "uniform":
            return evenly_spaced(count, self.options.views)
        return np.array([_below(count, word) for word in words])

    def _folded(self, available: int) -> NDArray[np.int64]:
        """Indices below `available` for all T frames of a clip, by the policy for short shots: int64 (T,)."""
        frames = np.arange(self.options.num_frames)
        return frames % available if self.options.short == "loop" else np.minimum(frames, available - 1)

    def _frames_by_stride(self, start: int, stop: int, words: Sequence[int]) -> NDArray[np.int64]:
        """Frames of all views, counted within the video: int64 (V, T)."""
        stride, span = self.options.stride, self.options.span
        if stop - start >= span:
            return self._places(stop - start - span + 1, words)[:, None] + (self._steps + start)
        folded = self._folded(-(-(stop - start) // stride)) * stride + start
        return np.tile(folded, (self.options.views, 1))

    def _frames_by_seconds(
        self, video: int, start: int, stop: int, words: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Frames of all views, counted within the video, and their times: int64 (V, T), float64 (V, T)."""
        V, T, stride = self.options.views, self.options.num_frames, self.options.stride_seconds
        assert stride is not None
        stored = self.store.pts_at(video, np.arange(start, stop))
        times = np.maximum.accumulate(stored)  # times that run backwards count as the latest time before them
        latest = times[-1] + TOLERANCE_SECONDS
        count = int(np.searchsorted(times, latest - (T - 1) * stride, side="right"))
        if count:
            targets = times[self._places(count, words)][:, None] + np.arange(T) * stride
        else:
            folded = self._folded(int((latest - times[0]) // stride) + 1)
            targets = np.tile(times[0] + folded * stride, (V, 1))
        # The nearest frame is the first for which the target is not after the middle between it and its successor.
        nearest = np.searchsorted((times[1:] + times[:-1]) / 2, targets)
        return start + nearest, stored[nearest]


def _random_words(seed: int, epoch: int, video: int, count: int) -> tuple[int, ...]:
    """`count` random numbers of 64 bits: a hash of the arguments, so the same in any worker and in any order."""
    key = struct.pack("<QQQ", seed % 2**64, epoch, video)
    words: tuple[int, ...] = struct.unpack(f"<{count}Q", hashlib.shake_128(key).digest(8 * count))
    return words


def _below(count: int, word: int) -> int:
    """A random number of 64 bits scaled to 0 ... count - 1."""
    return (word * count) >> 64
