"""Reading a store: rows, clips, masks, backgrounds.

Letters: T frames of a clip, H, W pixels, P packed bytes of one mask = ceil(H * W / 8).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import NOISE_STEP, Background
from bgaug.errors import StoreDamageError, StoreError
from bgaug.mask import unpack_mask
from bgaug.sizing import content_box
from bgaug.store.files import ArrayFile
from bgaug.store.index import GRADES, Columns, Names, load_columns, read_failures
from bgaug.store.layout import COMMIT, SHARDS, Header, crc32c, read_commit, read_header, shard_name
from bgaug.store.records import Failure, VideoRow

_MAX_OPEN_ARRAYS = 256


def open_store(path: str | Path, *, allow_incomplete: bool = False) -> Store:
    """Open a store for reading.

    Args:
        path: its folder.
        allow_incomplete: also open one whose building has not finished; its missing shards' videos are not seen.

    Raises:
        StoreFormatError: there is no store, or one of a version that this bgaug does not read.
        StoreDamageError: its header or a commit is damaged.
        StoreError: its building has not finished.
    """
    return Store(Path(path), allow_incomplete=allow_incomplete)


class Store:
    """A store, open for reading. Safe to pickle and to share between threads and forked processes.

    Attributes:
        path: its folder.
        header: size, fit, frames, classes, options.
        columns: all videos, one row each, in order of id.
        names: what group and split codes mean.
    """

    def __init__(self, path: Path, *, allow_incomplete: bool = False) -> None:
        self.path = path
        self.header: Header = read_header(path)
        if not allow_incomplete:
            self._check_complete()
        self.columns: Columns
        self.names: Names
        self.columns, self.names = load_columns(path, self.header)
        self._arrays: OrderedDict[tuple[int, str], ArrayFile] = OrderedDict()
        self._lock = Lock()

    def _check_complete(self) -> None:
        planned = int(self.header.plan["shards"])
        missing = [i for i in range(planned) if not (self.path / SHARDS / shard_name(i) / COMMIT).exists()]
        if missing:
            raise StoreError(
                self.path,
                f"{len(missing)} of {planned} shards are not there (the first is {shard_name(missing[0])}): run the "
                "command that built it again to finish it",
            )

    def __getstate__(self) -> dict[str, Any]:
        # Open files belong to this process; another one opens its own.
        return {**self.__dict__, "_arrays": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._arrays = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.columns.shard)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame, mask and background."""
        return self.header.size

    @property
    def videos(self) -> Sequence[str]:
        """Ids of all videos, in order; their place is the video's index."""
        return [self.video_id(i) for i in range(len(self))]

    def video_id(self, video: int) -> str:
        """Id of the video with this index."""
        left, right = self.columns.id_offsets[video : video + 2].tolist()
        return self.columns.id_bytes[left:right].tobytes().decode()

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
        """Everything that the store says of a video; reads its shard's commit."""
        commit = read_commit(self._folder(video))
        wanted = self.video_id(video)
        return next(VideoRow.model_validate(row) for row in commit["videos"] if row["id"] == wanted)

    @property
    def failures(self) -> list[Failure]:
        """The videos that could not be used."""
        return read_failures(self.path)

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
        return self.frames_at(video, self._frames(video, start, num_frames, stride), out)

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
        rows = self._rows(video, frames)
        if out is None:
            out = np.empty((len(rows), *self.header.size, 3), np.uint8)
        if self.header.frames == "raw":
            self._array(video, "frames").gather(rows, out)
        else:
            self._decode_jpegs(video, rows, out)
        return out

    def _decode_jpegs(self, video: int, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        first, last = int(rows.min()), int(rows.max())
        offsets = self._array(video, "frame_offsets").read(first, last + 2).tolist()
        checksums = self._array(video, "frame_crc").read(first, last + 1).tolist()
        blob = self._array(video, "frames").read(offsets[0], offsets[-1])
        done: dict[int, int] = {}
        for i, row in enumerate(rows.tolist()):
            if row in done:
                out[i] = out[done[row]]
                continue
            done[row] = i
            j = row - first
            data = blob[offsets[j] - offsets[0] : offsets[j + 1] - offsets[0]]
            if crc32c(data.tobytes()) != checksums[j]:
                name = self.video_id(video)
                raise StoreDamageError(self._folder(video), f"frame {row} ({name}) is damaged: run `bgaug verify`")
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
            if picture is None or picture.shape != out.shape[1:]:
                raise StoreDamageError(self._folder(video), f"frame {row} is no picture of the store's size")
            cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=out[i])

    def packed_masks(
        self, video: int, start: int, num_frames: int, stride: int = 1, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Masks of a video's frames as bits: uint8 (T, P), most significant first. Arguments as in `clip`."""
        return self.packed_masks_at(video, self._frames(video, start, num_frames, stride), out)

    def packed_masks_at(
        self, video: int, frames: NDArray[np.int64], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Masks of any frames as bits: uint8 (T, P), most significant first. Arguments as in `frames_at`."""
        rows = self._rows(video, frames)
        masks = self._array(video, "masks")
        if out is None:
            out = np.empty((len(rows), *masks.shape[1:]), np.uint8)
        masks.gather(rows, out)
        return out

    def masks(self, video: int, start: int, num_frames: int, stride: int = 1) -> NDArray[np.bool_]:
        """Foreground masks of a video's frames: bool (T, H, W). Arguments as in `clip`."""
        return unpack_mask(self.packed_masks(video, start, num_frames, stride), *self.header.size)

    def pts_seconds(self, video: int, start: int, num_frames: int, stride: int = 1) -> NDArray[np.float64]:
        """Presentation times of a video's frames: float64 (T,). Arguments as in `clip`."""
        return self.pts_at(video, self._frames(video, start, num_frames, stride))

    def pts_at(self, video: int, frames: NDArray[np.int64]) -> NDArray[np.float64]:
        """Presentation times of any frames: float64 (T,). Arguments as in `frames_at`."""
        rows = self._rows(video, frames)
        times = np.empty(len(rows), np.float64)
        self._array(video, "pts_seconds").gather(rows, times)
        return times

    def shard_of(self, videos: NDArray[np.int64]) -> NDArray[np.int32]:
        """The shard in which each of these videos lies, or begins: int32 (n,)."""
        return self.columns.shard[videos]

    def background(self, video: int, shot: int = 0) -> Background:
        """Static background of a shot, with its grade; what lowered that stands in the shot's row.

        Raises:
            IndexError: the video has no such shot.
            StoreError: the shot has no static background.
        """
        number = self._background_number(video, shot)
        noise = self._array(video, "noise").read(number, number + 1)[0]
        valid = self._array(video, "valid").read(number, number + 1)
        image = self._array(video, "backgrounds").read(number, number + 1)[0]
        grade = GRADES[self.columns.shot_grade[int(self.columns.shot_offsets[video]) + shot]] or None
        return Background(
            image,
            noise.astype(np.float32) * np.float32(NOISE_STEP),
            unpack_mask(valid, *self.size)[0],
            grade=grade,
        )

    def background_into(self, video: int, shot: int, out: NDArray[np.uint8]) -> None:
        """Background image of a shot into uint8 (H, W, 3)."""
        self._array(video, "backgrounds").read_into(self._background_number(video, shot), out[None])

    def _background_number(self, video: int, shot: int) -> int:
        shots = self.shots(video)
        if not 0 <= shot < len(shots):
            raise IndexError(f"{self.video_id(video)} has {len(shots)} shots, no shot {shot}")
        if shots[shot, 2] < 0:
            raise StoreError(self.path, f"shot {shot} of {self.video_id(video)} has no static background")
        return int(shots[shot, 2])

    def _folder(self, video: int) -> Path:
        return self.path / SHARDS / shard_name(int(self.columns.shard[video]))

    def _frames(self, video: int, start: int, num_frames: int, stride: int) -> NDArray[np.int64]:
        """Frames of an evenly spaced clip, counted within the video."""
        span = (num_frames - 1) * stride + 1
        if num_frames < 1 or stride < 1 or start < 0 or start + span > self.num_frames(video):
            raise IndexError(
                f"{self.video_id(video)} has {self.num_frames(video)} frames: no clip of {num_frames} frames at "
                f"stride {stride} from frame {start}"
            )
        return np.arange(start, start + span, stride)

    def _rows(self, video: int, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of frames in the arrays of the video's shard."""
        if not len(frames) or frames.min() < 0 or frames.max() >= self.num_frames(video):
            raise IndexError(f"{self.video_id(video)} has {self.num_frames(video)} frames, asked for {frames.tolist()}")
        rows: NDArray[np.int64] = frames + int(self.columns.start[video])
        return rows

    def _array(self, video: int, name: str) -> ArrayFile:
        key = int(self.columns.shard[video]), name
        with self._lock:
            array = self._arrays.get(key)
            if array is None:
                array = self._arrays[key] = ArrayFile(self._folder(video) / name)
                # What is dropped here is closed only when no other thread reads from it any more.
                while len(self._arrays) > _MAX_OPEN_ARRAYS:
                    self._arrays.popitem(last=False)
            else:
                self._arrays.move_to_end(key)
        return array
