"""`bgaug merge` and `bgaug import`: stores, masks and donor images from elsewhere into a store."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import MasksError, UsageError
from bgaug.masks import pack_mask
from bgaug.masks.external import ExternalMasks, find_masks
from bgaug.names import MaskValues
from bgaug.pipelines.build.options import Partial
from bgaug.progress import Progress
from bgaug.sizing import fit_frame
from bgaug.store import Store, VideoRow, exclusive, finish_store, merge_stores, open_store, replace_masks, write_bank
from bgaug.store.format.layout import SHARDS, num_shards, read_commit, read_header, shard_name
from bgaug.visualize import IMAGE_SUFFIXES, read_image

_NAMED = 5


@dataclass(frozen=True)
class _Merged:
    """Content of a merged store: usable and failed videos, frames, shards, and bytes of their files."""

    videos: int
    failed: int
    frames: int
    shards: int
    bytes: int


def merge(
    roots: Sequence[Path],
    out: Path,
    progress: Progress,
    *,
    copy: bool = False,
    prefix: bool = False,
    overwrite: bool = False,
) -> _Merged:
    """Join stores; arguments and errors are those of `merge_stores`."""
    progress.start("shards", sum(num_shards(read_header(root)) for root in roots))
    header = merge_stores(roots, out, copy=copy, prefix=prefix, overwrite=overwrite, on_shard=progress.advance)
    store = open_store(out)
    commits = (read_commit(out / SHARDS / shard_name(shard)) for shard in range(num_shards(header)))
    return _Merged(
        videos=len(store),
        failed=len(store.failures),
        frames=int(store.columns.num_frames.sum(dtype=np.int64)),
        shards=num_shards(header),
        bytes=sum(size for commit in commits for size, _ in commit["files"].values()),
    )


@dataclass(frozen=True)
class ImportedMasks:
    """The result of an import of masks.

    Attributes:
        videos: number of videos with imported masks.
        frames: number of frames with an imported mask.
        kept: frames of those videos that keep the mask they had.
        emptied: frames of those videos without an imported mask, which have an empty one now.
        without: ids of videos without masks in the import.
        unused: masks that belong to no video.
        failures: videos whose masks cannot be used, and why; they keep their own.
    """

    videos: int
    frames: int
    kept: int
    emptied: int
    without: tuple[str, ...]
    unused: tuple[str, ...]
    failures: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Counts, and the failures by id."""
        return {
            "videos": self.videos,
            "frames": self.frames,
            "frames_kept": self.kept,
            "frames_emptied": self.emptied,
            "without_masks": len(self.without),
            "unused": len(self.unused),
            "failed": len(self.failures),
            "failures": dict(self.failures),
        }


def import_masks(
    root: Path,
    masks: Path,
    progress: Progress,
    *,
    first: int = 0,
    values: MaskValues = "nonzero",
    partial: Partial = "keep",
) -> ImportedMasks:
    """Replace the masks of a store by masks made elsewhere, shard by shard.

    They are fitted to the store's size as its frames were. Masks that have exactly that size are stored unchanged. A
    second import of the same masks changes nothing.

    Args:
        root: the store.
        masks: a folder or a file; see `bgaug.masks.external`.
        progress: receives what happens.
        first: number of a video's first frame, where names carry numbers.
        values: meaning of the pixels; see `find_masks`.
        partial: frames without a mask, in a video that has some, "keep" theirs or get an "empty" one.

    Raises:
        UsageError: the store holds no masks, or an option is out of range.
        MasksError: masks cannot be matched with videos, or match none.
        StoreLockedError: another process writes the store.
        StoreError: the store cannot be read or written.
    """
    read_header(root)  # before a lock file is written next to it
    with exclusive(root):
        return _import_masks(open_store(root), root, masks, progress, first, values, partial)


def _import_masks(
    store: Store, root: Path, masks: Path, progress: Progress, first: int, values: MaskValues, partial: Partial
) -> ImportedMasks:
    if store.header.options.get("holds") == "backgrounds":
        raise UsageError(f"{root} holds only backgrounds, no masks: import them into a store that build-shards made")
    found = find_masks(masks, list(store.videos), first=first, values=values)
    _warn_of(progress, f"in {masks}, but of no video", found.unused)
    _warn_of(progress, f"videos without masks in {masks}", found.without)
    if not found.of:
        raise MasksError(masks, f"holds no masks of the {len(store)} videos of {root}; see `bgaug import --help`")
    work = _Replacing(store, found.of, partial, progress)
    progress.start("videos", len(found.of))
    for shard in _shards_of(store, found.of):
        replace_masks(root, store.header, shard, work)
    finish_store(root)
    short = [video_id for video_id in work.short if video_id not in work.failures]
    _warn_of(progress, "videos with fewer masks than frames, used for their first frames", short)
    counts = work.counts
    return ImportedMasks(
        counts["videos"],
        counts["frames"],
        counts["kept"],
        counts["emptied"],
        (*found.without, *work.nothing),
        found.unused,
        work.failures,
    )


def _shards_of(store: Store, videos: Mapping[str, object]) -> list[int]:
    parts = [store.columns.part_offsets[store.find(video_id) :][:2].tolist() for video_id in videos]
    return sorted({int(shard) for begin, end in parts for shard in store.columns.part_shard[begin:end]})


def _warn_of(progress: Progress, what: str, names: Sequence[str]) -> None:
    if names:
        progress.warn(f"{what}: {len(names)} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})")


@dataclass
class _Replacing:
    """Gives `replace_masks` the masks of each video.

    Attributes:
        nothing: ids of videos without a mask for any frame.
        short: ids of videos with more frames than entries in a list or array.
    """

    store: Store
    of: Mapping[str, ExternalMasks]
    partial: Partial
    progress: Progress
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    nothing: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def __call__(self, row: VideoRow, known: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """See `GiveMasks`; None also for a video whose masks cannot be used."""
        masks = self.of.get(row.id)
        if masks is None:
            return None
        try:
            with masks:
                if row.id not in self.seen:
                    self._begin(row, masks)
                if row.id in self.failures or row.id in self.nothing:
                    return None
                return self._renewed(row, masks, known)
        except MasksError as error:
            self.failures[row.id] = str(error)
            self.progress.warn(f"{row.id} keeps its masks: {error}")
            return None

    def _begin(self, row: VideoRow, masks: ExternalMasks) -> None:
        """Check at the first part of a video whether its masks match its frames."""
        self.seen.add(row.id)
        self.progress.advance(note=row.id)
        num_frames = self.store.num_frames(self.store.find(row.id))
        # A video that breaks off has fewer frames here than where its masks were made.
        indices = masks.indices() if row.status == "partial" else masks.indices_of(num_frames)
        if not indices:
            self.nothing.append(row.id)
            return
        if masks.num_frames is not None and masks.num_frames < num_frames:
            self.short.append(row.id)
        if row.num_frames != num_frames:  # for a video in several shards, read all masks before the first part changes
            for index in indices:
                self._fitted(row, masks, index)

    def _renewed(self, row: VideoRow, masks: ExternalMasks, known: NDArray[np.uint8]) -> NDArray[np.uint8]:
        renewed = np.zeros_like(known) if self.partial == "empty" else known.copy()
        inside = [index for index in masks.indices() if row.first <= index < row.first + row.num_frames]
        for index in inside:
            renewed[index - row.first] = self._fitted(row, masks, index)
        self.counts["videos"] += row.first == 0
        self.counts["frames"] += len(inside)
        self.counts["emptied" if self.partial == "empty" else "kept"] += row.num_frames - len(inside)
        return renewed

    def _fitted(self, row: VideoRow, masks: ExternalMasks, index: int) -> NDArray[np.uint8]:
        """Mask of a frame at the store's size, packed: uint8 (P,)."""
        mask, header = masks.frame(index), self.store.header
        assert mask is not None
        return pack_mask(masks.fitted(index, mask, (row.height, row.width), header.size, header.fit))


@dataclass(frozen=True)
class ImportedBackgrounds:
    """A new bank of donor images.

    Attributes:
        bank: its name.
        images: number of images in it.
        failures: files that cannot be read as images, by name, and why.
    """

    bank: str
    images: int
    failures: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "bank": self.bank,
            "images": self.images,
            "failed": len(self.failures),
            "failures": dict(self.failures),
        }


def import_backgrounds(
    root: Path, images: Path, progress: Progress, *, name: str | None = None, overwrite: bool = False
) -> ImportedBackgrounds:
    """Make a bank of donor images from a folder, fitted to the store's size as its frames were.

    In a store that pads, they are cropped instead: a donor must fill the image.

    Args:
        root: the store.
        images: the folder, walked recursively; hidden files and links that lead out of it are left out.
        progress: receives what happens.
        name: of the bank; by default that of the folder.
        overwrite: replace a bank of that name.

    Raises:
        UsageError: there is no image, the name is invalid, or there is a bank of that name.
        StoreLockedError: another process writes the store.
        StoreError: the store cannot be read or written.
    """
    header = read_header(root)
    files = _find_images(images)
    bank = _bank_name(images) if name is None else name
    fit = "crop" if header.fit == "pad" else header.fit
    failures: dict[str, str] = {}

    def fitted() -> Iterator[tuple[str, NDArray[np.uint8]]]:
        for label in files:
            progress.advance(note=label)
            try:
                yield label, fit_frame(read_image(images / label), header.size, fit)
            except ValueError as error:
                failures[label] = str(error)
                progress.warn(f"{images / label} {error}: it is left out")

    progress.start("images", len(files))
    with exclusive(root):
        return ImportedBackgrounds(bank, write_bank(root, bank, fitted(), overwrite=overwrite), failures)


def _find_images(folder: Path) -> list[str]:
    """Paths below the folder, with forward slashes, in order."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: {'expected a folder of images' if folder.exists() else 'no such folder'}")
    root, found = folder.resolve(), []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent) / name
            if name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if path.is_file() and (not path.is_symlink() or path.resolve().is_relative_to(root)):
                found.append(path.relative_to(folder).as_posix())
    if not found:
        raise UsageError(f"no image in {folder} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(found)


def _bank_name(folder: Path) -> str:
    name = unicodedata.normalize("NFC", folder.resolve().name)
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).lstrip(".") or "images"
