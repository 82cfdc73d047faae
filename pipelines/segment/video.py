"""One video, or its part in one shard: frames decoded in order, prompts from the stored masks, new masks.

Letters: T frames of a window, P packed bytes of one mask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import VideoDecodeError
from bgaug.masks import pack_mask, unpack_mask
from bgaug.masks.external.prompts import choose_prompts
from bgaug.model.pretrained.mask_model import VideoMaskModel
from bgaug.model.pretrained.tracking import ShotTracker
from bgaug.names import Decoder
from bgaug.pipelines.segment.options import SegmentOptions
from bgaug.sizing import Size, fit_frame
from bgaug.store import Header, VideoRow
from bgaug.video import DecodedFrame, open_video

_LONGEST_SIDE = 1024  # of a mask before it is fitted to the store's size; the model's own masks are smaller


class FrameSource:
    """The frames of one file after another, in order; a part that follows the last one is read on from there.

    Args:
        decoder: as in `open_video`.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._path: Path | None = None
        self._next = 0
        self._frames: Iterator[DecodedFrame] = iter(())

    def read(self, path: Path, first: int, count: int) -> Iterator[DecodedFrame]:
        """Frames of a file, from the one with the number `first` on.

        Raises:
            VideoError: the file cannot be read.
            VideoDecodeError: it ends before the last of these frames.
        """
        if path != self._path or first < self._next:
            self.close()
            self._path, self._next, self._frames = path, 0, _frames_of(path, self._decoder)
        stop = first + count
        while self._next < stop:
            frame = next(self._frames, None)
            if frame is None:
                raise VideoDecodeError(
                    path, "length_mismatch", f"has {self._next} frames, its store has {stop} or more", self._next
                )
            self._next += 1
            if frame.index >= first:
                yield frame

    def close(self) -> None:
        """Close the file."""
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()
        self._path, self._frames = None, iter(())


def _frames_of(path: Path, decoder: Decoder) -> Iterator[DecodedFrame]:
    with open_video(path, decoder) as reader:
        yield from reader.scan()


@dataclass
class VideoMasks:
    """The new masks of a video's frames in a shard.

    Attributes:
        packed: uint8 (num_frames, P), those of the store until they are replaced.
        counts: number of frames with a new mask, of new masks that are "empty" where the store's are not, of "kept"
            masks; of objects; of shots "without" a prompt.
    """

    packed: NDArray[np.uint8]
    counts: Counter[str] = field(default_factory=Counter)


def segment_video(
    row: VideoRow,
    known: NDArray[np.uint8],
    frames: Iterator[DecodedFrame],
    model: VideoMaskModel,
    header: Header,
    options: SegmentOptions,
) -> VideoMasks:
    """New masks of a video's frames in a shard, shot by shot.

    Frames before the first window with an object keep the masks that they have.

    Args:
        row: row of the video in the shard.
        known: its packed masks, uint8 (num_frames, P), which the prompts are made from.
        frames: its frames in the shard, in order.
        model: the model.
        header: header of the store.
        options: window and prompts.
    """
    video = VideoMasks(known.copy())
    for shot in row.shots:
        tracker = ShotTracker(model, options.objects)
        for start in range(shot.start, shot.stop, options.window):
            window = slice(start - row.first, min(start + options.window, shot.stop) - row.first)
            renewed = _segment_window(known[window], frames, tracker, header, options, video.counts)
            if renewed is None:
                video.counts["kept"] += window.stop - window.start
            else:
                video.packed[window] = renewed
                video.counts["frames"] += len(renewed)
                video.counts["empty"] += int((~renewed.any(1) & known[window].any(1)).sum())
        video.counts["without"] += tracker.num_objects == 0
    return video


def has_prompts(row: VideoRow, known: NDArray[np.uint8], header: Header, options: SegmentOptions) -> bool:
    """Whether any window of a video has an object to begin with; arguments as in `segment_video`."""
    for shot in row.shots:
        for start in range(shot.start, shot.stop, options.window):
            window = slice(start - row.first, min(start + options.window, shot.stop) - row.first)
            masks = unpack_mask(known[window], *header.size)
            if choose_prompts(masks, objects=1, points=0) is not None:
                return True
    return False


def _segment_window(
    known: NDArray[np.uint8],
    frames: Iterator[DecodedFrame],
    tracker: ShotTracker,
    header: Header,
    options: SegmentOptions,
    counts: Counter[str],
) -> NDArray[np.uint8] | None:
    """Packed masks of a window, uint8 (T, P); None while the shot has no object."""
    size, display_size = (1, 1), (1, 1)
    for frame in islice(frames, len(known)):
        image, display_size = frame.rgb(), frame.display_size
        size = image.shape[0], image.shape[1]
        tracker.add(image)
    tracker.follow()
    masks = _fitted(tracker, len(known), size, display_size, header)
    if tracker.free > 0:
        prompts = choose_prompts(
            unpack_mask(known, *header.size),
            objects=tracker.free,
            points=options.points,
            negative_points=options.negative_points,
            known=masks,
        )
        if prompts is not None:
            points = [one.fractions(size, header.size, header.fit, display_size) for one in prompts.objects]
            tracker.prompt(prompts.frame, points, [one.all_labels for one in prompts.objects])
            counts["objects"] += len(points)
            masks = _fitted(tracker, len(known), size, display_size, header)
    tracker.close_window()
    return pack_mask(masks) if tracker.num_objects else None


def _fitted(tracker: ShotTracker, num_frames: int, size: Size, display_size: Size, header: Header) -> NDArray[np.bool_]:
    """Masks of a window at the store's size, fitted as its frames were: bool (T, H, W)."""
    scale = min(1.0, _LONGEST_SIDE / max(size))
    larger = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    masks = np.zeros((num_frames, *header.size), np.bool_)
    for place in range(num_frames if tracker.scores() is not None else 0):
        mask = tracker.mask(place, larger).astype(np.uint8) * 255
        masks[place] = fit_frame(mask, header.size, header.fit, display_size) > 127
    return masks
