"""Writing a store: one process a shard, visible only when whole.

Letters: F frames of a shard, K backgrounds of a shard, H, W pixels, P packed bytes of one mask = ceil(H * W / 8).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from bgaug.background import Background, quantise_noise
from bgaug.errors import StoreError, StoreFormatError, StoreLockedError, StoreOptionsError
from bgaug.mask import pack_mask
from bgaug.store.index import rebuild_index
from bgaug.store.layout import (
    COMMIT,
    FRAMES_PER_CHUNK,
    JPEG_CHUNK,
    LOCK,
    PLAN,
    SHARDS,
    TEMPORARY,
    Header,
    crc32c,
    read_commit,
    read_header,
    seal,
    shard_name,
    sync_folder,
    write_durably,
)
from bgaug.store.lock import ShardLock
from bgaug.store.plan import Plan, read_plan
from bgaug.store.records import Failure, VideoRow

JPEG_QUALITY = 90


def create_store(root: Path, header: Header, plan: Plan, *, overwrite: bool = False) -> Header:
    """Make the store's folder, or find it already begun with the same options.

    Args:
        root: the folder.
        header: without the plan's summary, which is added here.
        plan: the videos of each shard.
        overwrite: begin anew if there is a store with other options or another plan, or a finished one.

    Returns:
        The header as it stands in the store.

    Raises:
        StoreFormatError: the folder holds something else.
        StoreOptionsError: there is a store with other options; each difference is named.
        StoreError: not enough space for the forecast.
    """
    wanted = Header(**{**header.__dict__, "plan": plan.summary()})
    if overwrite and (root / "zarr.json").exists():
        read_header(root)  # never clear a folder that is not one of ours
        shutil.rmtree(root)
    if (root / "zarr.json").exists():
        _check_same(root, read_header(root), wanted, plan)
        return wanted
    if root.exists() and (not root.is_dir() or _foreign_names(root)):
        raise StoreFormatError(root, "exists and is not a bgaug store; name another folder, or empty it")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(root, f"cannot be made: {error.strerror}") from error
    _check_space(root, plan.estimate)
    (root / SHARDS).mkdir(exist_ok=True)
    write_durably(root / PLAN, plan.to_bytes())
    # The header comes last: a folder without it is no store yet and may be begun again.
    node = {"zarr_format": 3, "node_type": "group", "attributes": {"bgaug": wanted.to_attributes()}}
    write_durably(root / "zarr.json", json.dumps(node, indent=1, ensure_ascii=False).encode())
    return wanted


def _foreign_names(root: Path) -> list[str]:
    return [name for name in os.listdir(root) if name not in (SHARDS, PLAN) and not name.startswith(f".{PLAN}.")]


def _check_space(root: Path, estimate: int) -> None:
    free = shutil.disk_usage(root).free
    if estimate > free:
        raise StoreError(root, f"needs about {estimate / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free there")


def _check_same(root: Path, found: Header, wanted: Header, plan: Plan) -> None:
    differences = [f"{name}: {_brief(old)} there, {_brief(new)} now" for name, old, new in _differing(found, wanted)]
    if found.plan != wanted.plan:
        differences.append(_plan_difference(read_plan(root, found.plan["sha256"]), plan))
    if differences:
        raise StoreOptionsError(
            root,
            "was begun with other options: " + "; ".join(differences) + ". Give the same options to go on, "
            "--overwrite to begin anew, or another --out",
        )


def _differing(found: Header, wanted: Header) -> list[tuple[str, Any, Any]]:
    pairs = [(name, getattr(found, name), getattr(wanted, name)) for name in ("size", "fit", "frames", "classes")]
    names = sorted({*found.options, *wanted.options})
    pairs += [(name, found.options.get(name), wanted.options.get(name)) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _brief(value: Any) -> str:
    text = (
        "x".join(map(str, value)) if isinstance(value, tuple) and all(isinstance(v, int) for v in value) else str(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def _plan_difference(found: Plan, wanted: Plan) -> str:
    old = {video.id: video.bytes for shard in found.shards for video in shard}
    new = {video.id: video.bytes for shard in wanted.shards for video in shard}
    parts = [
        (f"{len(names)} {word}", sorted(names))
        for word, names in (
            ("added", new.keys() - old.keys()),
            ("gone", old.keys() - new.keys()),
            ("of another size", {i for i in old.keys() & new.keys() if old[i] != new[i]}),
        )
        if names
    ]
    said = ", ".join(f"{count} ({names[0]}{', ...' if len(names) > 1 else ''})" for count, names in parts)
    return "videos: " + (said or "cut into other shards")


def pending_shards(root: Path, plan: Plan, *, retry_failed: bool = False) -> list[int]:
    """Shards that are still to be built; with `retry_failed` also those that hold failures."""
    pending = []
    for shard in range(len(plan.shards)):
        folder = root / SHARDS / shard_name(shard)
        if not (folder / COMMIT).exists() or (retry_failed and read_commit(folder)["failures"]):
            pending.append(shard)
    return pending


def finish_store(root: Path) -> None:
    """Derive index and list of failures from the commits, and clear away what dead writers left."""
    for name in os.listdir(root / SHARDS):
        if name.startswith(TEMPORARY):
            _clear_if_abandoned(root, name)
    rebuild_index(root, read_header(root))
    for name in os.listdir(root / SHARDS):
        if name.startswith(LOCK):
            with ShardLock(root / SHARDS / name) as lock:
                lock.remove()


def _clear_if_abandoned(root: Path, name: str) -> None:
    try:
        with ShardLock(root / SHARDS / (LOCK + name.removeprefix(TEMPORARY))):
            shutil.rmtree(root / SHARDS / name)
    except StoreLockedError:
        return  # somebody is at work on it


@dataclass
class VideoPayload:
    """What one video adds to a shard; dropped as a whole if the video turns out bad.

    Args:
        header: of the store that it is for.
    """

    header: Header
    pts_seconds: list[float] = field(default_factory=list)
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    masks: list[NDArray[np.uint8]] = field(default_factory=list)
    backgrounds: list[Background] = field(default_factory=list)

    def add_frame(self, pts_seconds: float, image: NDArray[np.uint8] | None) -> None:
        """One frame at the store's size, uint8 (H, W, 3); None where the store keeps no frames."""
        self.pts_seconds.append(pts_seconds)
        if self.header.frames == "jpeg" and image is not None:
            self.frames.append(encode_jpeg(image))
        elif self.header.frames == "raw" and image is not None:
            self.frames.append(image)

    def add_masks(self, masks: NDArray[np.bool_]) -> None:
        """Masks of further frames, bool (n, H, W)."""
        self.masks.extend(pack_mask(masks))

    def add_background(self, background: Background) -> int:
        """The background of a further shot, at the store's size; returns its number within the video."""
        self.backgrounds.append(background)
        return len(self.backgrounds) - 1

    def content(self) -> str:
        """sha256 of what is stored."""
        digest = hashlib.sha256(np.asarray(self.pts_seconds, "<f8").tobytes())
        for picture in (*self.frames, *self.masks):
            digest.update(picture.tobytes())
        for background in self.backgrounds:
            for part in (background.image, quantise_noise(background.noise), pack_mask(background.valid)):
                digest.update(part.tobytes())
        return digest.hexdigest()


def encode_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB to the bytes of a JPEG picture: quality 90, chroma at half resolution (4:2:0)."""
    flags = [
        cv2.IMWRITE_JPEG_QUALITY,
        JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    good, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    if not good:
        raise ValueError(f"cv2 could not encode a picture of {image.shape = }")
    encoded: NDArray[np.uint8] = data.reshape(-1)
    return encoded


class ShardWriter:
    """Builds one shard: use it in a `with` block, `add` or `fail` each video, then `commit`.

    Leaving the block without a commit leaves nothing behind.

    Raises:
        StoreLockedError: another process builds this shard.
    """

    def __init__(self, root: Path, header: Header, shard: int) -> None:
        self._root = root
        self._header = header
        self._shard = shard
        self._lock = ShardLock(root / SHARDS / f"{LOCK}{shard_name(shard)}")
        self._final = root / SHARDS / shard_name(shard)
        self._folder = root / SHARDS / f"{TEMPORARY}{shard_name(shard)}"
        self._rows: list[VideoRow] = []
        self._failures: list[Failure] = []
        self._payloads: list[VideoPayload] = []
        self._num_frames = 0
        self._num_backgrounds = 0

    def __enter__(self) -> Self:
        self._lock.__enter__()
        if self._folder.exists():  # a writer died here; its lock is ours now
            shutil.rmtree(self._folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.__exit__(kind, error, trace)

    def add(self, row: VideoRow, payload: VideoPayload) -> None:
        """Take in a video. The row's `start`, `content` and backgrounds count from 0; they are set here."""
        shots = [
            shot.model_copy(update={"background": shot.background + self._num_backgrounds})
            if shot.background >= 0
            else shot
            for shot in row.shots
        ]
        self._rows.append(
            row.model_copy(update={"start": self._num_frames, "content": payload.content(), "shots": shots})
        )
        self._payloads.append(payload)
        self._num_frames += row.num_frames
        self._num_backgrounds += len(payload.backgrounds)

    def fail(self, failure: Failure) -> None:
        """Note a video that cannot be used."""
        self._failures.append(failure)

    def commit(self) -> dict[str, Any]:
        """Write everything, make it last, and only then make it visible. Returns the commit record."""
        group = zarr.create_group(self._folder)
        arrays = self._write_arrays(group)
        group.attrs["bgaug"] = {"arrays": arrays}
        files = _sync_files(self._folder)
        record = {
            "shard": self._shard,
            "F": self._num_frames,
            "K": self._num_backgrounds,
            "files": files,
            "videos": [row.to_json() for row in self._rows],
            "failures": [failure.to_json() for failure in self._failures],
        }
        write_durably(self._folder / COMMIT, seal(record))
        if self._final.exists():  # a shard that is built again, because of its failures
            shutil.rmtree(self._final)
        os.rename(self._folder, self._final)
        sync_folder(self._final.parent)
        return record

    def _write_arrays(self, group: zarr.Group) -> list[str]:
        height, width = self._header.size
        packed = (height * width + 7) // 8
        payloads = self._payloads
        arrays: dict[str, tuple[NDArray[Any], tuple[int, ...] | None, bool]] = {}
        pts = np.concatenate([np.asarray(p.pts_seconds, "<f8") for p in payloads] or [np.empty(0, "<f8")])
        arrays["pts_seconds"] = (pts, None, False)
        pictures = [picture for payload in payloads for picture in payload.frames]
        if self._header.frames == "jpeg":
            lengths = np.array([0, *(len(picture) for picture in pictures)], "<i8")
            checksums = np.array([crc32c(picture.tobytes()) for picture in pictures], "<u4")
            blob = np.concatenate(pictures) if pictures else np.empty(0, np.uint8)
            arrays["frames"] = (blob, (JPEG_CHUNK,), False)
            arrays["frame_offsets"] = (np.cumsum(lengths, dtype="<i8"), None, False)
            arrays["frame_crc"] = (checksums, None, False)
        elif self._header.frames == "raw":
            arrays["frames"] = (_stack(pictures, (height, width, 3)), (FRAMES_PER_CHUNK, height, width, 3), False)
        if any(payload.masks for payload in payloads):
            masks = [mask for payload in payloads for mask in payload.masks]
            arrays["masks"] = (_stack(masks, (packed,)), (FRAMES_PER_CHUNK, packed), True)
        backgrounds = [background for payload in payloads for background in payload.backgrounds]
        images = _stack([b.image for b in backgrounds], (height, width, 3))
        arrays["backgrounds"] = (images, (1, height, width, 3), True)
        arrays["valid"] = (_stack([pack_mask(b.valid) for b in backgrounds], (packed,)), (1, packed), True)
        noise = _stack([quantise_noise(b.noise) for b in backgrounds], (height, width))
        arrays["noise"] = (noise, (1, height, width), True)
        for name, (data, chunk, compress) in arrays.items():
            _write_array(group, name, data, chunk, compress)
        return sorted(arrays)


def _stack(rows: list[NDArray[np.uint8]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.stack(rows) if rows else np.empty((0, *shape), np.uint8)


def _write_array(
    group: zarr.Group, name: str, data: NDArray[Any], chunk: tuple[int, ...] | None, compress: bool
) -> None:
    """One array of a shard; with a chunk, as one Zarr shard of such chunks, else as one plain chunk."""
    shards = None
    if chunk is None:
        chunk = (max(1, len(data)),)
    else:
        shards = (max(1, -(-len(data) // chunk[0])) * chunk[0], *chunk[1:])
    array = group.create_array(
        name,
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunk,
        shards=shards,
        compressors=(ZstdCodec(level=1, checksum=True),) if compress else None,
        filters=None,
        fill_value=0,
        # An absent chunk must always mean damage, never "all zeros".
        config={"write_empty_chunks": True},
    )
    if len(data):
        array[...] = data


def _sync_files(folder: Path) -> dict[str, list[int]]:
    """Every file below `folder`, seen on the disk: name to [bytes, crc32c]."""
    files = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            with open(path, "rb") as file:
                data = file.read()
                os.fsync(file.fileno())
            files[path.relative_to(folder).as_posix()] = [len(data), crc32c(data)]
        sync_folder(Path(parent))
    return dict(sorted(files.items()))
