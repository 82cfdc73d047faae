"""Reading a store: rows, clips, masks, backgrounds.

Letters: T frames of a clip, H, W pixels, P packed bytes of one mask = ceil(H * W / 8).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from itertools import count, pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bgaug.background import NOISE_STEP, Background
from bgaug.errors import StoreDamageError, StoreError, StoreFormatError
from bgaug.masks import unpack_mask
from bgaug.sizing import content_box
from bgaug.store.banks import Bank, read_bank
from bgaug.store.files import ArrayFile, check_numbers
from bgaug.store.format.columns import Columns, Names, VideoIds
from bgaug.store.format.documents import MAX_RECORD_BYTES, CommitDocument
from bgaug.store.format.inside import exists_inside
from bgaug.store.format.jpeg import decode_jpeg
from bgaug.store.format.layout import COMMIT, SHARDS, Header, crc32c, num_shards, parse_header, shard_name, unseal
from bgaug.store.format.records import GRADES, Failure, VideoRow
from bgaug.store.index import load_columns, present_shards, read_failures, stamped_shards
from bgaug.store.lru_cache import Recent
from bgaug.store.places import Folder, Opened, Place, place_of
from bgaug.store.write import array_specs

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

_MAX_FILES = 2048
_KEPT_BYTES = 256 * 2**20
_PICTURE_BYTES = 64 * 2**20
_KEPT = ("pts_seconds", "frame_offsets", "frame_crc", "background_crc")


def open_store(path: str | Path | ZarrStore, *, allow_incomplete: bool = False, check_frames: bool = False) -> Store:
    """Open a store for reading.

    Args:
        path: its folder; a URL (``s3://...``, ``gs://...``, ``memory://...``) or a store of zarr, which need the extra
            ``cloud``.
        allow_incomplete: also open one whose building has not finished; its missing shards' videos are not seen.
        check_frames: hold raw frames, too, against their checksums whenever they are read, which doubles what reading
            them costs. All else is always checked.

    Raises:
        StoreFormatError: there is no store, or one of a version that this bgaug does not read.
        StoreDamageError: its header or a commit is damaged.
        StoreError: its building has not finished.
        UsageError: what a URL needs is not installed.
    """
    return Store(place_of(path), allow_incomplete=allow_incomplete, check_frames=check_frames)


class Store:
    """A store, open for reading. Safe to pickle, and to share between threads and forked processes.

    A clip costs one ranged read for its frames and one for its masks. What is small (times, offsets and checksums of
    frames, places of chunks) is read once a shard and kept: some 20 bytes a frame, 256 MB at most.

    Attributes:
        path: its folder or URL.
        header: size, fit, frames, classes, options.
        columns: all videos, one row each, in order of id.
        names: what group and split codes mean.
    """

    def __init__(self, place: Place, *, allow_incomplete: bool = False, check_frames: bool = False) -> None:
        self.path = place.name
        self._place = place
        self._check_frames = check_frames
        try:
            self.header: Header = parse_header(place.name, place.read("zarr.json", MAX_RECORD_BYTES))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreFormatError(place.name, "is not a bgaug store: there is no zarr.json in it") from error
        self._specs = array_specs(self.header)
        self.columns: Columns
        self.names: Names
        self.columns, self.names = load_columns(place, self.header)
        if not allow_incomplete:
            self._check_complete()
        self._begin()

    def _begin(self) -> None:
        """What belongs to this process alone."""
        self._lock = Lock()
        self._opened = Opened(self._place, _max_files())
        self._arrays = Recent[tuple[int, str], ArrayFile](_KEPT_BYTES)
        self._pictures = Recent[tuple[int, int], NDArray[np.uint8]](_PICTURE_BYTES)
        self._process = os.getpid()  # last: another thread of a forked process goes by it

    def _check_complete(self) -> None:
        planned = num_shards(self.header)
        if isinstance(self._place, Folder):
            root = Path(self.path)
            there = {
                shard
                for shard in present_shards(self._place, planned)
                if exists_inside(root, f"{SHARDS}/{shard_name(shard)}/{COMMIT}")
            }
        else:
            there = {shard for shard in stamped_shards(self._place) if shard < planned}
        if len(there) < planned:
            first = next(shard for shard in count() if shard not in there)
            raise StoreError(
                self.path,
                f"{planned - len(there)} of {planned} shards are not there (the first is {shard_name(first)}): run the "
                "command that built it again to finish it",
            )

    def __getstate__(self) -> dict[str, Any]:
        # Open files belong to this process; another one opens its own.
        return {**self.__dict__, "_opened": None, "_arrays": None, "_pictures": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __len__(self) -> int:
        return len(self.columns.num_frames)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame, mask and background."""
        return self.header.size

    @property
    def videos(self) -> Sequence[str]:
        """Ids of all videos, in order; their place is the video's index."""
        return VideoIds(self.columns)

    def video_id(self, video: int) -> str:
        """Id of the video with this index."""
        return self.videos[video]

    def find(self, video_id: str) -> int:
        """Index of a video by its id.

        Raises:
            KeyError: there is none.
        """
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.video_id(middle) < video_id else (low, middle)
        if low == len(self) or self.video_id(low) != video_id:
            raise KeyError(f"{self.path} holds no video {video_id!r}")
        return low

    def row(self, video: int) -> VideoRow:
        """Everything that the store says of a video; reads the commits of its shards.

        Of a video in several shards, `start` and the shots' backgrounds count within the shard of each.
        """
        rows = [self._part_row(video, int(shard)) for shard in self.columns.part_shard[self._parts(video)]]
        found = [[shot.start, shot.stop, shot.background] for row in rows for shot in row.shots]
        if sum(row.num_frames for row in rows) != self.num_frames(video) or found != self.shots(video).tolist():
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
        key = f"{SHARDS}/{shard_name(shard)}/{COMMIT}"
        try:
            commit = unseal(f"{self.path}/{key}", self._place.read(key, MAX_RECORD_BYTES), CommitDocument)
        except FileNotFoundError as error:
            raise StoreDamageError(f"{self.path}/{key}", "is missing: run `bgaug verify`") from error
        wanted = self.video_id(video)
        for row in commit["videos"]:
            if row["id"] == wanted:
                return VideoRow.model_validate(row)
        raise StoreDamageError(f"{self.path}/{key}", f"has no video {wanted!r}, as the index says: run `bgaug verify`")

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

    def content_box(self, video: int) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the picture inside the stored frame; see `bgaug.sizing.content_box`."""
        source = int(self.columns.height[video]), int(self.columns.width[video])
        return content_box(source, self.header.size, self.header.fit)

    def clip(
        self, video: int, start: int, num_frames: int, stride: int = 1, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Frames of a video.

        Args:
            video: its index.
            start: first frame, counted within the video.
            num_frames: T.
            stride: distance of the frames.
            out: uint8 (T, H, W, 3) to fill, C-contiguous; made where None.

        Returns:
            uint8 (T, H, W, 3), RGB.

        Raises:
            IndexError: the clip does not lie inside the video.
            StoreError: the store keeps no frames.
            StoreDamageError: bytes are missing, or a frame's checksum differs.
        """
        return self.frames_at(video, self._frames(video, start, num_frames, stride, self._guide), out)

    def frames_at(
        self, video: int, frames: NDArray[np.int64], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Any frames of a video, in any order, also several times.

        Args:
            video: its index.
            frames: int64 (T,), counted within the video.
            out: uint8 (T, H, W, 3) to fill, C-contiguous; made where None.

        Returns:
            uint8 (T, H, W, 3), RGB.

        Raises:
            IndexError: a frame does not lie inside the video.
            StoreError: the store keeps no frames.
            StoreDamageError: bytes are missing, or a frame's checksum differs.
        """
        if self.header.frames == "none":
            raise StoreError(self.path, "keeps no frames (it was built with --frames none)")
        self._check_range(video, frames, self._guide)
        if out is None:
            out = np.empty((len(frames), *self.header.size, 3), np.uint8)
        read = self._read_raw if self.header.frames == "raw" else self._read_jpegs
        self._by_part(video, frames, out, read)
        return out

    def _read_raw(self, shard: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        self._array(shard, "frames").gather(rows, out)
        if not self._check_frames:
            return
        checksums = np.empty(len(rows), np.uint32)
        self._array(shard, "frame_crc").gather(rows, checksums)
        for row, image, checksum in zip(rows.tolist(), out, checksums.tolist(), strict=True):
            if crc32c(image) != checksum:
                raise self._damaged(shard, row)

    def _read_jpegs(self, shard: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        wanted = rows.tolist()
        first, last = min(wanted), max(wanted)
        offsets = self._array(shard, "frame_offsets").read(first, last + 2).tolist()
        checksums = self._array(shard, "frame_crc").read(first, last + 1).tolist()
        blob = self._array(shard, "frames").read(offsets[0], offsets[-1])
        done: dict[int, int] = {}
        for i, row in enumerate(wanted):
            if row in done:
                out[i] = out[done[row]]
                continue
            done[row] = i
            j = row - first
            data = blob[offsets[j] - offsets[0] : offsets[j + 1] - offsets[0]]
            if crc32c(data) != checksums[j]:
                raise self._damaged(shard, row)
            decode_jpeg(data, out[i], f"{self.path}/{SHARDS}/{shard_name(shard)}/frames")

    def _damaged(self, shard: int, row: int) -> StoreDamageError:
        c = self.columns
        parts = np.flatnonzero((c.part_shard == shard) & (c.part_start <= row))
        part = int(parts[c.part_start[parts].argmax()])
        video = int(np.searchsorted(c.part_offsets, part, side="right")) - 1
        frame = row - int(c.part_start[part]) + int(c.part_first[part])
        place = f"{self.path}/{SHARDS}/{shard_name(shard)}"
        return StoreDamageError(place, f"frame {frame} of {self.video_id(video)} is damaged: run `bgaug verify`")

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
        self._by_part(video, frames, out, lambda shard, rows, into: self._array(shard, "masks").gather(rows, into))
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
            video, frames, times, lambda shard, rows, into: self._array(shard, "pts_seconds").gather(rows, into)
        )
        return times

    def shard_of(self, videos: NDArray[np.int64]) -> NDArray[np.int32]:
        """The shard in which each of these videos lies, or begins: int32 (n,)."""
        shards: NDArray[np.int32] = self.columns.part_shard[self.columns.part_offsets[videos]]
        return shards

    def background(self, video: int, shot: int = 0) -> Background:
        """Static background of a shot, with its grade; what lowered that stands in the shot's row.

        Raises:
            IndexError: the video has no such shot.
            StoreError: the shot has no static background.
        """
        shard, number = self._background_place(video, shot)
        noise = self._array(shard, "noise").read(number, number + 1)[0]
        valid = self._array(shard, "valid").read(number, number + 1)
        image = np.empty((*self.size, 3), np.uint8)
        self._read_background(shard, number, image)
        grade = GRADES[self.columns.shot_grade[int(self.columns.shot_offsets[video]) + shot]] or None
        return Background(
            image,
            noise.astype(np.float32) * np.float32(NOISE_STEP),
            unpack_mask(valid, *self.size)[0],
            grade=grade,
        )

    def background_into(self, video: int, shot: int, out: NDArray[np.uint8]) -> None:
        """Background image of a shot into uint8 (H, W, 3)."""
        place = self._background_place(video, shot)
        if self._place.near:
            self._read_background(*place, out)
            return
        self._mind_forks()
        with self._lock:
            picture = self._pictures.get(place)
        if picture is None:
            picture = np.empty_like(out)
            self._read_background(*place, picture)
            with self._lock:
                self._pictures.put(place, picture)
        out[...] = picture

    def _read_background(self, shard: int, number: int, out: NDArray[np.uint8]) -> None:
        self._array(shard, "backgrounds").read_into(number, out[None])
        if self.header.frames == "none":
            return  # packed, under the packer's own checksum
        if crc32c(out) != int(self._array(shard, "background_crc").read(number, number + 1)[0]):
            place = f"{self.path}/{SHARDS}/{shard_name(shard)}"
            raise StoreDamageError(place, f"background {number} is damaged: run `bgaug verify`")

    def _background_place(self, video: int, shot: int) -> tuple[int, int]:
        """Shard of a shot, and number of its background there."""
        shots = self.shots(video)
        if not 0 <= shot < len(shots):
            raise IndexError(f"{self.video_id(video)} has {len(shots)} shots, no shot {shot}")
        if shots[shot, 2] < 0:
            raise StoreError(self.path, f"shot {shot} of {self.video_id(video)} has no static background")
        parts = self._parts(video)
        part = parts.start + int(np.searchsorted(self.columns.part_first[parts], shots[shot, 0], side="right")) - 1
        return int(self.columns.part_shard[part]), int(shots[shot, 2])

    def bank(self, name: str) -> Bank:
        """A donor bank: pictures that `bgaug import --backgrounds` brought in.

        Raises:
            StoreError: there is none of that name.
            StoreDamageError: it is damaged.
        """
        return read_bank(self._place, name, self.size)

    @property
    def _guide(self) -> str:
        """The array whose rows say which frames a shard keeps."""
        return "frame_offsets" if self.header.frames == "jpeg" else "frames"

    def _frames(self, video: int, start: int, num_frames: int, stride: int, name: str) -> NDArray[np.int64]:
        """Frames of an evenly spaced clip, counted within the video, all of which the array of that name has."""
        span = (num_frames - 1) * stride + 1
        if num_frames < 1 or stride < 1 or start < 0 or start + span > self.num_frames(video):
            raise IndexError(
                f"{self.video_id(video)} has {self.num_frames(video)} frames: no clip of {num_frames} frames at "
                f"stride {stride} from frame {start}"
            )
        self._check_rows(video, start, start + span - 1, name)
        return np.arange(start, start + span, stride)

    def _check_range(self, video: int, frames: NDArray[np.int64], name: str) -> None:
        wanted = frames.tolist()
        if not wanted or min(wanted) < 0 or max(wanted) >= self.num_frames(video):
            raise IndexError(f"{self.video_id(video)} has {self.num_frames(video)} frames, asked for {wanted}")
        self._check_rows(video, min(wanted), max(wanted), name)

    def _check_rows(self, video: int, first: int, last: int, name: str) -> None:
        """See that the array of that name has these frames, before memory is taken for as many as a record claims."""
        c, parts = self.columns, self._parts(video)
        begins = [*c.part_first[parts].tolist(), self.num_frames(video)]
        for part, (begin, stop) in enumerate(pairwise(begins), parts.start):
            if begin <= last and first < stop:
                array = self._array(int(c.part_shard[part]), name)
                array.check_rows(int(c.part_start[part]) + stop - begin + (name == "frame_offsets"))

    def _parts(self, video: int) -> slice:
        """Where the video's parts stand in the columns."""
        return slice(*self.columns.part_offsets[video : video + 2].tolist())

    def _by_part(
        self, video: int, frames: NDArray[np.int64], out: NDArray[Any], read: Callable[[int, Any, Any], None]
    ) -> None:
        """Have frames read from the shards that hold them, by (shard, rows there, slots of `out`)."""
        c, parts = self.columns, self._parts(video)
        if parts.stop - parts.start == 1:
            read(int(c.part_shard[parts.start]), frames + c.part_start[parts.start], out)
            return
        owner = np.searchsorted(c.part_first[parts], frames, side="right") - 1
        for one in np.unique(owner).tolist():
            part, slots = parts.start + one, np.flatnonzero(owner == one)
            into = np.empty((len(slots), *out.shape[1:]), out.dtype)
            read(int(c.part_shard[part]), frames[slots] - c.part_first[part] + c.part_start[part], into)
            out[slots] = into

    def _mind_forks(self) -> None:
        if self._process != os.getpid():  # forked: another thread may have held the lock at that moment
            self._begin()

    def _array(self, shard: int, name: str) -> ArrayFile:
        self._mind_forks()
        key = shard, name
        with self._lock:
            array = self._arrays.get(key)
        if array is None:
            folder = f"{SHARDS}/{shard_name(shard)}/{name}"
            array = ArrayFile(self._opened, folder, self._specs.get(name), whole=name in _KEPT)
            check_numbers(name, array, self._array(shard, "frames") if name == "frame_offsets" else None)
            with self._lock:
                self._arrays.put(key, array)
        return array


def _max_files() -> int:
    """Files that may be held open: half of what the system allows."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(64, min(_MAX_FILES, soft // 2))
