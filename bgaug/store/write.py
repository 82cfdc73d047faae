"""Writing a shard: by one process, visible only when complete.

Letters: F frames of a shard, K backgrounds of a shard, H, W pixels, P packed bytes of one mask = ceil(H * W / 8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, quantise_noise
from bgaug.errors import StoreDamageError, StoreError
from bgaug.masks import pack_mask
from bgaug.store.array_file import ArrayFile, content_of
from bgaug.store.arrays import ArrayWriter, Mark, array_specs, begin_group, sync_tree
from bgaug.store.commit import check_still_ours, commit_shard, shard_folder, shard_lock, shard_paths
from bgaug.store.format.inside import discard, link_inside, refuse_links
from bgaug.store.format.layout import SHARDS, Header, crc32c, joined, read_commit, shard_name, writing
from bgaug.store.format.payload import VideoPayload
from bgaug.store.format.records import Failure, MaskModel, ShotTotals, VideoRow
from bgaug.store.lock import FileLock
from bgaug.store.places import Folder


@dataclass(frozen=True)
class Placed:
    """Place of a payload in its shard."""

    start: int  # its first frame in the shard
    before: ShotTotals  # what the shots before it have in the shard
    num_frames: int  # number of its frames
    content: str  # see `content_digest`


class ShardWriter:
    """Builds one shard: in a `with` block, `add` or `fail` each video, then `commit`.

    Added data goes to the disk at once. Leaving the block without a commit leaves nothing behind.

    Args:
        root: folder of the store.
        header: header of the store.
        shard: number of the shard.
        replace: build it even if it exists; the old one stays until the new one is complete.
        lock: lock held by the caller: that of the first shard of a long video, shared by all its shards.

    Attributes:
        committed: commit record of the shard, if it exists and is not to be replaced; then there is nothing to do.

    Raises:
        StoreLockedError: another process builds this shard.
        StoreError: the disk is full, or cannot be written.
    """

    def __init__(
        self, root: Path, header: Header, shard: int, *, replace: bool = False, lock: FileLock | None = None
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
        self._totals = ShotTotals()
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
        """Add a video. `start`, `content` and backgrounds of the row count from 0; they are set here."""
        with self.whole_or_not():
            self.note(row, self.put(payload))

    def put(self, payload: VideoPayload) -> Placed:
        """Write the content of a video; `note` must add its row. After an error, nothing of it remains."""
        with self.whole_or_not(), writing(self._folder):
            masks = payload.packed_masks()
            content = payload.content(masks)
            placed = Placed(self._num_frames, self._totals, len(payload.pts_seconds), content)
            self._array("pts_seconds").append(np.asarray(payload.pts_seconds, "<f8"))
            self._put_frames(payload)
            if len(masks):
                self._put_masks(masks, placed.num_frames)
            for background in payload.backgrounds:
                self._put_background(background)
            self._put_what_moves(payload)
            self._num_frames += placed.num_frames
            self._totals = self._totals.and_also(payload.totals)
        return placed

    def note(self, row: VideoRow, placed: Placed) -> None:
        """Add the row of content that was `put`."""
        shots = [shot.moved(placed.before) for shot in row.shots]
        if row.num_frames != placed.num_frames:
            raise ValueError(f"{row.id}: its row declares {row.num_frames} frames, got {placed.num_frames}")
        self._rows.append(row.model_copy(update={"start": placed.start, "content": placed.content, "shots": shots}))

    @contextmanager
    def whole_or_not(self) -> Iterator[None]:
        """Everything that is `put` and `note`d within the block is added; after an error, nothing of it.

        Raises:
            StoreError: written data cannot be removed.
        """
        arrays = {name: array.mark() for name, array in self._arrays.items()}
        counts = self._num_frames, self._totals, self._num_bytes, len(self._rows)
        try:
            yield
        except BaseException:
            self._is_torn = True  # until everything is undone: a disk that fails may also refuse that
            with writing(self._folder):
                self._go_back(arrays)
            self._num_frames, self._totals, self._num_bytes, num_rows = counts
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
        """Add a video that cannot be used."""
        self._failures.append(failure)

    def finish(self) -> None:
        """End the content and sync it to the disk; otherwise `commit` does this."""
        if not self._files and self.committed is None:
            with writing(self._folder):
                self._files = self._finish_files()
            if "frame_offsets" in self._specs and self._array("frames").num_rows != self._num_bytes:
                raise StoreError(self._folder, "is not finished: its frames do not match their offsets")

    def commit(self) -> dict[str, Any]:
        """Finish the arrays, write the record last, then make the shard visible. Returns the commit record.

        Raises:
            StoreError: rows and arrays do not agree, or another process has started the store again.
        """
        if self._is_torn:
            raise StoreError(
                self._folder, "cannot be finished: a video was written incompletely; run the same command again"
            )
        self.finish()
        with writing(self._folder):
            record = {
                "shard": self._shard,
                "F": self._num_frames,
                "K": self._totals.backgrounds,
                "files": self._files,
                "videos": [row.to_json() for row in self._rows],
                "failures": [failure.to_json() for failure in self._failures],
            }
            # Last before the commit: a build that was stopped for hours must not add a shard to another store.
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
                f"expected an image for each of {len(payload.pts_seconds)} frames, got {len(payload.checksums)}"
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
            crc = frames.crc  # of all frames so far; joined, so that the bytes are not read a second time
            for image, checksum in zip(payload.images, payload.checksums, strict=True):
                crc = joined(crc, checksum, image.nbytes)
            frames.append_pieces(payload.images, len(payload.images), crc)

    def _put_background(self, background: Background) -> None:
        self._array("backgrounds").append(background.image[None])
        if "background_crc" in self._specs:
            checksum = crc32c(np.ascontiguousarray(background.image))
            self._array("background_crc").append(np.array([checksum], "<u4"))
        self._array("valid").append(pack_mask(background.valid)[None])
        self._array("noise").append(quantise_noise(background.noise)[None])

    def _put_what_moves(self, payload: VideoPayload) -> None:
        """Canvases and small masks; a shard without any has no arrays for them."""
        for rows in payload.canvases:
            for name, values in rows.items():
                self._array(name).append(values)
        for masks in payload.small_masks:
            for block in masks.blocks():
                self._array("small_masks").append(block.reshape(-1))

    def _put_masks(self, packed: NDArray[np.uint8], num_frames: int) -> None:
        masks = self._array("masks")
        if masks.num_rows != self._num_frames or len(packed) != num_frames:
            raise ValueError("either every frame of a shard has a mask, or none has")
        masks.append(packed)

    def _finish_files(self) -> dict[str, list[int]]:
        """Complete and sync every file of the shard; returns name to [bytes, crc32c]."""
        if "frame_offsets" in self._specs and not self._array("frame_offsets").num_rows:
            self._array("frame_offsets").append(np.zeros(1, "<i8"))
        known: dict[str, list[int]] = {}
        for array in self._arrays.values():
            array.finish()
            known |= array.files
        begin_group(self._folder, {"bgaug": {"arrays": sorted(self._arrays)}})
        return sync_tree(self._folder, known)


# --- other masks in a shard that exists -----------------------------------------------------------------------------

_Masks = NDArray[np.uint8]


def replace_masks(
    root: Path,
    header: Header,
    shard: int,
    give: Callable[[VideoRow, _Masks], _Masks | None],
    model: MaskModel | None = None,
) -> list[str]:
    """Replace masks in a shard. The old shard stays until the new one is complete; other files are linked, not copied.

    Args:
        root: folder of the store.
        header: header of the store.
        shard: number of the shard.
        give: function from a video's row and packed masks, uint8 (num_frames, P), to masks of the same shape, or None
            to keep them.
        model: segmentation model that makes them; None for masks from elsewhere.

    Returns:
        Ids of the videos whose masks were replaced; if there are none, the shard is unchanged.

    Raises:
        StoreLockedError: another process writes this shard.
        StoreDamageError: the shard is damaged.
        StoreError: the store cannot be written.
    """
    old = root / SHARDS / shard_name(shard)
    with shard_folder(root, shard, replace=True) as folder:
        assert folder is not None
        commit = read_commit(old)
        refuse_links(root, SHARDS)
        rows = [VideoRow.model_validate(row) for row in commit["videos"]]
        place, key, specs = Folder(root), f"{SHARDS}/{old.name}", array_specs(header)
        writer = ArrayWriter(folder, "masks", specs["masks"])
        unneeded = {name for name, count in ShotTotals.of(rows).rows_by_array.items() if not count}
        names = specs.keys() - unneeded if rows else ()
        arrays = {name: ArrayFile(place, f"{key}/{name}", specs[name]) for name in names}
        renewed: list[VideoRow] = []
        for row in rows:
            before = arrays["masks"].read(row.start, row.start + row.num_frames)
            masks = give(row, before)
            with writing(folder):
                writer.append(before if masks is None else masks)
            if masks is not None:
                content = content_of(row, arrays, masks)
                row = row.model_copy(update={"content": content, "imported_masks": True, "mask_model": model})
            renewed.append(row)
        changed = [row.id for row, was in zip(renewed, rows, strict=True) if row != was]
        if changed:
            with writing(folder):
                writer.finish()
                files = _linked(root, key, folder, commit["files"], writer)
                commit_shard(root, {**commit, "files": files, "videos": [row.to_json() for row in renewed]})
        else:
            writer.close()
    return changed


def _linked(
    root: Path, key: str, folder: Path, files: dict[str, list[int]], masks: ArrayWriter
) -> dict[str, list[int]]:
    """Link the other files of a shard into its new folder; returns name to [bytes, crc32c] of all files."""
    kept = {name: entry for name, entry in files.items() if not name.startswith("masks/")}
    for name, (size, checksum) in kept.items():
        found = link_inside(root, f"{key}/{name}", folder / name)
        # Linked files are not read; small ones are, so that no damage gets a new checksum.
        if found != size or (name.endswith("zarr.json") and crc32c((folder / name).read_bytes()) != checksum):
            raise StoreDamageError(root / key / name, "its bytes differ from those committed: run `bgaug verify`")
    return sync_tree(folder, kept | masks.files)
