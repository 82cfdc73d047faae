"""Reading a store: rows, clips, masks, backgrounds.

Letters: T frames of a clip, H, W pixels, P packed bytes of one mask = ceil(H * W / 8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bgaug.background import NOISE_STEP, Background, Canvas
from bgaug.errors import StoreDamageError, StoreError, StoreFormatError
from bgaug.masks import SmallMasks, unpack_mask
from bgaug.names import MasksFrom
from bgaug.sizing import content_box
from bgaug.store.banks import Bank, read_bank
from bgaug.store.format.columns import Columns, Names, VideoIds
from bgaug.store.format.documents import MAX_RECORD_BYTES, CommitDocument
from bgaug.store.format.layout import COMMIT, SHARDS, Header, parse_header, shard_name, unseal
from bgaug.store.format.records import MASKS_FROM, Failure, VideoRow
from bgaug.store.format.records import Shot as ShotRow
from bgaug.store.index import check_complete, load_columns, read_failures
from bgaug.store.places import Place, place_of
from bgaug.store.shard_reader import ShardReader

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore


def open_store(path: str | Path | ZarrStore, *, allow_incomplete: bool = False, check_frames: bool = False) -> Store:
    """Open a store for reading.

    Args:
        path: its folder; a URL (``s3://...``, ``gs://...``, ``memory://...``) or a store of zarr, which require the
            extra ``cloud``.
        allow_incomplete: also open an unfinished store; videos of missing shards are not visible.
        check_frames: check raw frames against their checksums on every read, which doubles the cost of reading them.
            Everything else is always checked.

    Raises:
        StoreFormatError: there is no store, or one of an unsupported version.
        StoreDamageError: its header or a commit is damaged.
        StoreError: it is unfinished.
        UsageError: packages for the URL are not installed.
    """
    return Store(place_of(path), allow_incomplete=allow_incomplete, check_frames=check_frames)


class Store:
    """A store, open for reading. Safe to pickle, and to share between threads and forked processes.

    A clip costs one ranged read for its frames and one for its masks. Small arrays (times, offsets and checksums of
    frames, places of chunks) are read once per shard and cached: some 20 bytes per frame, at most 256 MB.

    Attributes:
        path: its folder or URL.
        header: size, fit, frames, classes, options.
        columns: all videos, one row each, in order of id.
        names: names of the codes of group and split.
    """

    def __init__(self, place: Place, *, allow_incomplete: bool = False, check_frames: bool = False) -> None:
        self.path = place.name
        self._place = place
        try:
            self.header: Header = parse_header(place.name, place.read("zarr.json", MAX_RECORD_BYTES))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreFormatError(place.name, "is not a bgaug store: there is no zarr.json in it") from error
        self.columns: Columns
        self.names: Names
        self.columns, self.names = load_columns(place, self.header)
        if not allow_incomplete:
            check_complete(place, self.header)
        self._shards = ShardReader(place, self.header, self.columns, check_frames=check_frames)
        self._last_row: tuple[int, int, VideoRow] | None = None  # video, shard, and its row there

    def __len__(self) -> int:
        return len(self.columns.num_frames)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame, mask and background."""
        return self.header.size

    @property
    def videos(self) -> Sequence[str]:
        """Ids of all videos, in order; the position is the video's index."""
        return VideoIds(self.columns)

    def video_id(self, video: int) -> str:
        """Id of the video with this index."""
        return self.videos[video]

    def find(self, video_id: str) -> int:
        """Index of a video by its id. Raises KeyError: there is none."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.video_id(middle) < video_id else (low, middle)
        if low == len(self) or self.video_id(low) != video_id:
            raise KeyError(f"{self.path} contains no video {video_id!r}")
        return low

    def row(self, video: int) -> VideoRow:
        """The stored description of a video, from the commits of its shards.

        For a video in several shards, `start` and the shots' backgrounds count within the shard of each.
        """
        rows = [self._part_row(video, int(shard)) for shard in self.columns.part_shard[self._parts(video)]]
        # The index is derived from the commits, so the two must agree.
        found = [[shot.start, shot.stop, shot.background] for row in rows for shot in row.shots]
        frames = [shot.background_frames for row in rows for shot in row.shots]
        same = found == self.shots(video).tolist() and frames == [
            self.background_frames(video, shot).tolist() for shot in range(len(found))
        ]
        if sum(row.num_frames for row in rows) != self.num_frames(video) or not same:
            raise StoreDamageError(
                self.path, f"the index has other shots of {self.video_id(video)}: run `bgaug verify`"
            )
        return rows[0].model_copy(
            update={
                "num_frames": sum(row.num_frames for row in rows),
                "shots": [shot for row in rows for shot in row.shots],
            }
        )

    def _part_row(self, video: int, shard: int) -> VideoRow:
        last = self._last_row
        if last is None or last[:2] != (video, shard):
            last = self._last_row = video, shard, self._read_row(video, shard)
        return last[2]

    def _read_row(self, video: int, shard: int) -> VideoRow:
        key = f"{SHARDS}/{shard_name(shard)}/{COMMIT}"
        try:
            commit = unseal(f"{self.path}/{key}", self._place.read(key, MAX_RECORD_BYTES), CommitDocument)
        except FileNotFoundError as error:
            raise StoreDamageError(f"{self.path}/{key}", "is missing: run `bgaug verify`") from error
        video_id = self.video_id(video)
        for row in commit["videos"]:
            if row["id"] == video_id:
                return VideoRow.model_validate(row)
        raise StoreDamageError(f"{self.path}/{key}", f"has no video {video_id!r}, unlike the index: run `bgaug verify`")

    @property
    def failures(self) -> list[Failure]:
        """The videos that could not be used."""
        return read_failures(self._place, self.header)

    def num_frames(self, video: int) -> int:
        """Frames of a video."""
        return int(self.columns.num_frames[video])

    def shots(self, video: int) -> NDArray[np.int32]:
        """(start, stop, number of the background in the shard or -1) of each shot: int32 (shots, 3)."""
        part = slice(*self.columns.shot_offsets[video : video + 2].tolist())
        c = self.columns
        return np.stack([c.shot_start[part], c.shot_stop[part], c.shot_background[part]], axis=1)

    def masks_from(self, video: int, shot: int = 0) -> MasksFrom:
        """Where the masks of a shot come from; see `VideoRow.masks_from`. Raises IndexError: there is no such shot."""
        return MASKS_FROM[int(self.columns.shot_masks_from[self._shot_place(video, shot)])]

    def content_box(self, video: int) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the image inside the stored frame; see `bgaug.sizing.content_box`."""
        source = int(self.columns.height[video]), int(self.columns.width[video])
        return content_box(source, self.header.size, self.header.fit)

    def clip(
        self, video: int, start: int, num_frames: int, stride: int = 1, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Evenly spaced frames of a video.

        Args:
            video: index of the video.
            start: first frame, counted within the video.
            num_frames: T.
            stride: distance of the frames.
            out: uint8 (T, H, W, 3) to fill, C-contiguous; created if None.

        Returns:
            uint8 (T, H, W, 3), RGB.

        Raises:
            IndexError: the clip is not inside the video.
            StoreError: the store contains no frames.
            StoreDamageError: bytes are missing, or a frame's checksum differs.
        """
        return self.frames_at(video, self._frames(video, start, num_frames, stride, self._shards.guide), out)

    def frames_at(
        self, video: int, frames: NDArray[np.int64], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Frames of a video, int64 (T,) and counted within it, in any order, with repetitions; otherwise as `clip`."""
        if self.header.frames == "none":
            raise StoreError(self.path, "contains no frames (it was built with --frames none)")
        self._check_range(video, frames, self._shards.guide)
        if out is None:
            out = np.empty((len(frames), *self.header.size, 3), np.uint8)
        self._by_part(video, frames, out, self._shards.frames)
        return out

    def packed_masks(
        self, video: int, start: int, num_frames: int, stride: int = 1, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Masks of a video's frames as bits: uint8 (T, P), most significant first. Arguments as in `clip`."""
        return self.packed_masks_at(video, self._frames(video, start, num_frames, stride, "masks"), out)

    def packed_masks_at(
        self, video: int, frames: NDArray[np.int64], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Masks of any frames as bits: uint8 (T, P), most significant first. Arguments as in `frames_at`."""
        self._check_range(video, frames, "masks")
        if out is None:
            height, width = self.size
            out = np.empty((len(frames), (height * width + 7) // 8), np.uint8)
        self._by_part(
            video, frames, out, lambda shard, rows, into: self._shards.array(shard, "masks").gather(rows, into)
        )
        return out

    def masks(self, video: int, start: int, num_frames: int, stride: int = 1) -> NDArray[np.bool_]:
        """Foreground masks of a video's frames: bool (T, H, W). Arguments as in `clip`."""
        return unpack_mask(self.packed_masks(video, start, num_frames, stride), *self.header.size)

    def pts_seconds(self, video: int, start: int, num_frames: int, stride: int = 1) -> NDArray[np.float64]:
        """Presentation times of a video's frames: float64 (T,). Arguments as in `clip`."""
        return self.pts_at(video, self._frames(video, start, num_frames, stride, "pts_seconds"))

    def pts_at(self, video: int, frames: NDArray[np.int64]) -> NDArray[np.float64]:
        """Presentation times of any frames: float64 (T,). Arguments as in `frames_at`."""
        self._check_range(video, frames, "pts_seconds")
        times = np.empty(len(frames), np.float64)
        self._by_part(
            video, frames, times, lambda shard, rows, into: self._shards.array(shard, "pts_seconds").gather(rows, into)
        )
        return times

    def shard_of(self, videos: NDArray[np.int64]) -> NDArray[np.int32]:
        """The first shard of each of these videos: int32 (n,)."""
        shards: NDArray[np.int32] = self.columns.part_shard[self.columns.part_offsets[videos]]
        return shards

    def background(self, video: int, shot: int = 0, frame: int | None = None) -> Background:
        """Background of a shot, with its grade and `shadows`; the reasons for the grade are in the shot's row.

        Args:
            video: index of the video.
            shot: index of the shot.
            frame: number of a frame within the video. Of a moving camera's shot with several backgrounds, the one
                whose frame is nearest to it is returned, the earlier of two; by default that nearest to the middle.

        Raises:
            IndexError: the video has no such shot.
            StoreError: the shot has no background.
        """
        shard, number = self._background_place(video, shot, frame)
        noise = self._shards.array(shard, "noise").read(number, number + 1)[0]
        valid = self._shards.array(shard, "valid").read(number, number + 1)
        image = np.empty((*self.size, 3), np.uint8)
        self._shards.background(shard, number, image)
        record = self._shot_record(video, shot)[1]
        return Background(
            image,
            noise.astype(np.float32) * np.float32(NOISE_STEP),
            unpack_mask(valid, *self.size)[0],
            grade=record.grade,
            shadows=record.shadows,
        )

    def background_into(self, video: int, shot: int, out: NDArray[np.uint8], frame: int | None = None) -> None:
        """Read the background image of a shot, chosen as by `background`, into uint8 (H, W, 3)."""
        self._shards.background(*self._background_place(video, shot, frame), out)

    def background_frames(self, video: int, shot: int = 0) -> NDArray[np.int32]:
        """The frames, counted within the video, that the backgrounds of a moving camera's shot belong to: int32 (n,).

        Empty for a shot with one background or none.
        """
        place = self._shot_place(video, shot)
        start, stop = self.columns.background_frame_offsets[place : place + 2].tolist()
        frames: NDArray[np.int32] = self.columns.background_frame[start:stop]
        return frames

    def canvas(self, video: int, shot: int = 0) -> Canvas | None:
        """The canvas of a shot with the places of its frames, at the size at which it was made; None if there is none.

        Stores of backgrounds keep those of cameras that shake.

        Raises:
            IndexError: the video has no such shot.
            StoreDamageError: it is damaged.
        """
        shard, record = self._shot_record(video, shot)
        return None if record.canvas is None else self._shards.canvas(shard, record)

    def shot_masks(self, video: int, shot: int = 0) -> SmallMasks | None:
        """Small masks of all frames of a shot, read as they are used; None if there are none. Raises as `canvas`."""
        shard, record = self._shot_record(video, shot)
        return None if record.masks is None else self._shards.small_masks(shard, record)

    def _shot_place(self, video: int, shot: int) -> int:
        """Position of a shot in the columns."""
        first, last = self.columns.shot_offsets[video : video + 2].tolist()
        if not 0 <= shot < last - first:
            raise IndexError(f"{self.video_id(video)} has {last - first} shots, no shot {shot}")
        return int(first) + shot

    def _shot_shard(self, video: int, shot: int) -> int:
        parts, start = self._parts(video), self.columns.shot_start[self._shot_place(video, shot)]
        part = parts.start + int(np.searchsorted(self.columns.part_first[parts], start, side="right")) - 1
        return int(self.columns.part_shard[part])

    def _shot_record(self, video: int, shot: int) -> tuple[int, ShotRow]:
        """Shard of a shot, and its record there."""
        shard, start = self._shot_shard(video, shot), int(self.shots(video)[shot, 0])
        for record in self._part_row(video, shard).shots:
            if record.start == start:
                return shard, record
        raise StoreDamageError(self.path, f"the index has other shots of {self.video_id(video)}: run `bgaug verify`")

    def _background_place(self, video: int, shot: int, frame: int | None) -> tuple[int, int]:
        """Shard of a shot, and number of its background there."""
        start, stop, number = self.columns.shot_start, self.columns.shot_stop, self.columns.shot_background
        place = self._shot_place(video, shot)
        if number[place] < 0:
            raise StoreError(self.path, f"shot {shot} of {self.video_id(video)} has no static background")
        frames = self.background_frames(video, shot)
        near = 0
        if len(frames) > 1:
            middle = (int(start[place]) + int(stop[place])) // 2 if frame is None else frame
            near = int(np.abs(frames.astype(np.int64) - middle).argmin())
        return self._shot_shard(video, shot), int(number[place]) + near

    def bank(self, name: str) -> Bank:
        """A donor bank: images imported by `bgaug import --backgrounds`.

        Raises:
            StoreError: there is none of that name.
            StoreDamageError: it is damaged.
        """
        return read_bank(self._place, name, self.size)

    def _frames(self, video: int, start: int, num_frames: int, stride: int, name: str) -> NDArray[np.int64]:
        """Frames of an evenly spaced clip, counted within the video; the array of that name contains them all."""
        span = (num_frames - 1) * stride + 1
        if num_frames < 1 or stride < 1 or start < 0 or start + span > self.num_frames(video):
            raise IndexError(
                f"{self.video_id(video)} has {self.num_frames(video)} frames: no clip of {num_frames} frames at "
                f"stride {stride} from frame {start}"
            )
        self._check_rows(video, start, start + span - 1, name)  # before `arange`: an index may declare any length
        return np.arange(start, start + span, stride)

    def _check_range(self, video: int, frames: NDArray[np.int64], name: str) -> None:
        numbers = frames.tolist()
        if not numbers or min(numbers) < 0 or max(numbers) >= self.num_frames(video):
            raise IndexError(f"{self.video_id(video)} has {self.num_frames(video)} frames, requested {numbers}")
        self._check_rows(video, min(numbers), max(numbers), name)

    def _check_rows(self, video: int, first: int, last: int, name: str) -> None:
        """Check that the array of that name has these frames, before memory is allocated for them."""
        c, parts = self.columns, self._parts(video)
        begins = [*c.part_first[parts].tolist(), self.num_frames(video)]
        for part, (begin, stop) in enumerate(pairwise(begins), parts.start):
            if begin <= last and first < stop:
                array = self._shards.array(int(c.part_shard[part]), name)
                array.check_rows(int(c.part_start[part]) + stop - begin + (name == "frame_offsets"))

    def _parts(self, video: int) -> slice:
        """Positions of the video's parts in the columns."""
        return slice(*self.columns.part_offsets[video : video + 2].tolist())

    def _by_part(
        self, video: int, frames: NDArray[np.int64], out: NDArray[Any], read: Callable[[int, Any, Any], None]
    ) -> None:
        """Read frames from the shards that contain them, by (shard, rows there, part of `out`)."""
        c, parts = self.columns, self._parts(video)
        if parts.stop - parts.start == 1:  # nearly all videos; no copy
            read(int(c.part_shard[parts.start]), frames + c.part_start[parts.start], out)
            return
        owner = np.searchsorted(c.part_first[parts], frames, side="right") - 1  # the part of each frame
        for one in np.unique(owner).tolist():
            part, slots = parts.start + one, np.flatnonzero(owner == one)
            into = np.empty((len(slots), *out.shape[1:]), out.dtype)
            read(int(c.part_shard[part]), frames[slots] - c.part_first[part] + c.part_start[part], into)
            out[slots] = into
