"""Writing a shard: by one process, visible only when whole.

Letters: F frames of a shard, K backgrounds of a shard, H, W pixels, P packed bytes of one mask = ceil(H * W / 8).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, quantise_noise
from bgaug.errors import StoreError
from bgaug.masks import pack_mask
from bgaug.store.arrays import ArraySpec, ArrayWriter, Mark, begin_group, sync_tree
from bgaug.store.commit import check_still_ours, commit_shard, shard_folder, shard_lock, shard_paths
from bgaug.store.format.crc import joined
from bgaug.store.format.inside import discard
from bgaug.store.format.layout import (
    FRAMES_PER_CHUNK,
    JPEG_CHUNK,
    Header,
    crc32c,
    read_commit,
    writing,
)
from bgaug.store.format.payload import VideoPayload
from bgaug.store.format.records import Failure, VideoRow
from bgaug.store.locks.lock import ShardLock


def array_specs(header: Header) -> dict[str, ArraySpec]:
    """Layout of every array that a shard of the store may hold."""
    height, width = header.size
    packed = (height * width + 7) // 8
    specs = {
        "pts_seconds": ArraySpec("<f8", compress=True, dimensions=("frame",)),
        "masks": ArraySpec("|u1", (packed,), FRAMES_PER_CHUNK, compress=True, dimensions=("frame", "byte_of_mask")),
        # Unpacking one costs a fifth of a millisecond: a third of a raw clip, a twelfth of one of JPEGs.
        "backgrounds": ArraySpec(
            "|u1", (height, width, 3), 1, header.frames == "none", ("background", "height", "width", "channel")
        ),
        "valid": ArraySpec("|u1", (packed,), 1, compress=True, dimensions=("background", "byte_of_mask")),
        "noise": ArraySpec("|u1", (height, width), 1, compress=True, dimensions=("background", "height", "width")),
    }
    if header.frames != "none":
        specs["frame_crc"] = ArraySpec("<u4", compress=True, dimensions=("frame",))
        specs["background_crc"] = ArraySpec("<u4", compress=True, dimensions=("background",))
    if header.frames == "jpeg":
        specs["frames"] = ArraySpec("|u1", (), JPEG_CHUNK, dimensions=("byte",))
        specs["frame_offsets"] = ArraySpec("<i8", compress=True, dimensions=("frame_edge",))
    elif header.frames == "raw":
        specs["frames"] = ArraySpec(
            "|u1", (height, width, 3), FRAMES_PER_CHUNK, dimensions=("frame", "height", "width", "channel")
        )
    return specs


@dataclass(frozen=True)
class Placed:
    """Where a payload lies in its shard.

    Attributes:
        start: its first frame among the shard's.
        background: its first background among the shard's.
        num_frames: frames of it.
        content: see `content_digest`.
    """

    start: int
    background: int
    num_frames: int
    content: str


class ShardWriter:
    """Builds one shard: use it in a `with` block, `add` or `fail` each video, then `commit`.

    What is added goes to the disk at once. Leaving the block without a commit leaves nothing behind.

    Args:
        root: of the store.
        header: of the store.
        shard: its number.
        replace: build it although it is there; the old one stays until the new one is whole.
        lock: held by the caller: that of the first shard of a long video, which is that of all its shards.

    Attributes:
        committed: the commit record of the shard, where it is there already and not to be replaced: there is nothing
            to do then.

    Raises:
        StoreLockedError: another process builds this shard.
        StoreError: the disk is full, or cannot be written.
    """

    def __init__(
        self, root: Path, header: Header, shard: int, *, replace: bool = False, lock: ShardLock | None = None
    ) -> None:
        self.committed: dict[str, Any] | None = None
        self._root = root
        self._header = header
        self._lock = lock
        self._shard = shard
        self._replace = replace
        self._final, self._folder, _ = shard_paths(root, shard)
        self._specs = array_specs(header)
        self._arrays: dict[str, ArrayWriter] = {}
        self._rows: list[VideoRow] = []
        self._failures: list[Failure] = []
        self._num_frames = 0
        self._num_backgrounds = 0
        self._num_bytes = 0
        self._files: dict[str, list[int]] = {}
        self._is_torn = False
        self._held = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as held:
            if self._lock is None:
                with writing(self._final):
                    self._lock = held.enter_context(shard_lock(self._root, self._shard))
            folder = held.enter_context(shard_folder(self._root, self._shard, replace=self._replace, lock=self._lock))
            if folder is None:
                self.committed = read_commit(self._final)
            else:
                for name in ("pts_seconds", "backgrounds", "valid", "noise"):
                    self._array(name)
                for name in ("frames", "frame_crc", "background_crc"):
                    if name in self._specs:
                        self._array(name)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for array in self._arrays.values():
                array.close()
        finally:
            self._held.__exit__(kind, error, trace)

    def add(self, row: VideoRow, payload: VideoPayload) -> None:
        """Take in a video. The row's `start`, `content` and backgrounds count from 0; they are set here."""
        with self.whole_or_not():
            self.note(row, self.put(payload))

    def put(self, payload: VideoPayload) -> Placed:
        """Write what a video brings; it counts once `note` has taken in its row. An error leaves nothing of it."""
        with self.whole_or_not(), writing(self._folder):
            masks = payload.packed_masks()
            content = payload.content(masks)
            placed = Placed(self._num_frames, self._num_backgrounds, len(payload.pts_seconds), content)
            self._array("pts_seconds").append(np.asarray(payload.pts_seconds, "<f8"))
            self._put_frames(payload)
            if len(masks):
                self._put_masks(masks, placed.num_frames)
            for background in payload.backgrounds:
                self._put_background(background)
            self._num_frames += placed.num_frames
            self._num_backgrounds += len(payload.backgrounds)
        return placed

    def note(self, row: VideoRow, placed: Placed) -> None:
        """Take in the row of what was `put`."""
        shots = [
            shot.model_copy(update={"background": shot.background + placed.background})
            if shot.background >= 0
            else shot
            for shot in row.shots
        ]
        if row.num_frames != placed.num_frames:
            raise ValueError(f"{row.id}: its row tells of {row.num_frames} frames, {placed.num_frames} were given")
        self._rows.append(row.model_copy(update={"start": placed.start, "content": placed.content, "shots": shots}))

    @contextmanager
    def whole_or_not(self) -> Iterator[None]:
        """What is `put` and `note`d within the block is taken in as a whole; after an error, nothing of it.

        Raises:
            StoreError: what was written by then cannot be taken back.
        """
        arrays = {name: array.mark() for name, array in self._arrays.items()}
        counts = self._num_frames, self._num_backgrounds, self._num_bytes, len(self._rows)
        try:
            yield
        except BaseException:
            self._is_torn = True  # until all of it is taken back
            with writing(self._folder):
                self._go_back(arrays)
            self._num_frames, self._num_backgrounds, self._num_bytes, num_rows = counts
            del self._rows[num_rows:]
            self._is_torn = False
            raise

    def _go_back(self, marks: Mapping[str, Mark]) -> None:
        for name in [*self._arrays]:
            if name in marks:
                self._arrays[name].go_back(marks[name])
            else:
                self._arrays.pop(name).close()
                discard(self._folder / name)

    def fail(self, failure: Failure) -> None:
        """Note a video that cannot be used."""
        self._failures.append(failure)

    def finish(self) -> None:
        """Nothing more is to be `put`: see it all on the disk. `commit` does it otherwise."""
        if not self._files and self.committed is None:
            with writing(self._folder):
                self._files = self._finish_files()
            if "frame_offsets" in self._specs and self._array("frames").num_rows != self._num_bytes:
                raise StoreError(self._folder, "is not finished: its frames are not where their offsets are")

    def commit(self) -> dict[str, Any]:
        """Finish the arrays, make the record last, and only then make it all visible. Returns the commit record.

        Raises:
            StoreError: rows and arrays do not agree, or another process has begun the store anew.
        """
        if self._is_torn:
            raise StoreError(
                self._folder, "cannot be finished: a video was written by half; run the same command again"
            )
        self.finish()
        with writing(self._folder):
            record = {
                "shard": self._shard,
                "F": self._num_frames,
                "K": self._num_backgrounds,
                "files": self._files,
                "videos": [row.to_json() for row in self._rows],
                "failures": [failure.to_json() for failure in self._failures],
            }
            check_still_ours(self._root, self._header)
            if self._lock is not None:
                self._lock.check()
            commit_shard(self._root, record)
        return record

    def _array(self, name: str) -> ArrayWriter:
        if name not in self._arrays:
            self._arrays[name] = ArrayWriter(self._folder, name, self._specs[name])
        return self._arrays[name]

    def _put_frames(self, payload: VideoPayload) -> None:
        if "frames" not in self._specs:
            return
        if len(payload.checksums) != len(payload.pts_seconds):
            raise ValueError(
                f"{len(payload.pts_seconds)} frames, {len(payload.checksums)} pictures: each needs its own"
            )
        frames = self._array("frames")
        self._array("frame_crc").append(np.array(payload.checksums, "<u4"))
        if "frame_offsets" in self._specs:
            offsets = self._array("frame_offsets")
            lengths = np.array(payload.jpegs.lengths, "<i8")
            first = [] if offsets.num_rows else [0]
            offsets.append(np.array([*first, *(self._num_bytes + np.cumsum(lengths))], "<i8"))
            self._num_bytes += int(lengths.sum())
            frames.append_pieces(payload.jpegs.blocks, int(lengths.sum()))
        else:
            crc = frames.crc
            for picture, checksum in zip(payload.pictures, payload.checksums, strict=True):
                crc = joined(crc, checksum, picture.nbytes)
            frames.append_pieces(payload.pictures, len(payload.pictures), crc)

    def _put_background(self, background: Background) -> None:
        self._array("backgrounds").append(background.image[None])
        if "background_crc" in self._specs:
            checksum = crc32c(np.ascontiguousarray(background.image))
            self._array("background_crc").append(np.array([checksum], "<u4"))
        self._array("valid").append(pack_mask(background.valid)[None])
        self._array("noise").append(quantise_noise(background.noise)[None])

    def _put_masks(self, packed: NDArray[np.uint8], num_frames: int) -> None:
        masks = self._array("masks")
        if masks.num_rows != self._num_frames or len(packed) != num_frames:
            raise ValueError("either every frame of a shard has a mask, or none has")
        masks.append(packed)

    def _finish_files(self) -> dict[str, list[int]]:
        """Every file of the shard, whole and on the disk: name to [bytes, crc32c]."""
        if "frame_offsets" in self._specs and not self._array("frame_offsets").num_rows:
            self._array("frame_offsets").append(np.zeros(1, "<i8"))
        known: dict[str, list[int]] = {}
        for array in self._arrays.values():
            array.finish()
            known |= array.files
        begin_group(self._folder, {"bgaug": {"arrays": sorted(self._arrays)}})
        return sync_tree(self._folder, known)
