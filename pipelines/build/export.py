"""`bgaug export`: the content of a store for some videos, as files. NAME is a video's id without its suffix.

    OUT/masks/NAME/000000.png               0 and 255, one per frame, as `bgaug import --masks OUT/masks` reads them
    OUT/backgrounds/NAME/shot_000.png       and shot_000_valid.png: where it was really seen
    OUT/backgrounds/NAME/shot_000_frame_000000.png   in place of it, each of several backgrounds of a moving camera
    OUT/frames/NAME/000000.png              if requested
    OUT/NAME.json                           everything else, written last

All images have the store's size. NAME keeps the suffix for videos that differ only by it.

One export at a time writes to a folder, and the next one removes the files of an export that was killed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background
from bgaug.errors import StoreDamageError, UsageError
from bgaug.files import clear_unfinished, unfinished_name
from bgaug.progress import Progress
from bgaug.store import Store, open_store
from bgaug.store.format.layout import writing
from bgaug.store.lock import locked

_FRAMES_AT_ONCE = 64
_LOCK = ".bgaug-export.lock"
_JOURNAL = ".bgaug-export-"
# Names of the files of each kind.
_EXPORTED = {
    "masks": re.compile(r"[0-9]{6,}\.png"),
    "frames": re.compile(r"[0-9]{6,}\.png"),
    "backgrounds": re.compile(r"shot_[0-9]{3,}(_frame_[0-9]{6,})?(_valid)?\.png"),
}


@dataclass(frozen=True)
class _Exported:
    """The result of an export.

    Attributes:
        videos: number of complete videos.
        frames: number of frames in them.
        files: number of files.
        failures: error messages of videos that are damaged in the store, by id; no files of those remain.
    """

    videos: int
    frames: int
    files: int
    failures: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "videos": self.videos,
            "frames": self.frames,
            "files": self.files,
            "failed": len(self.failures),
            "failures": dict(self.failures),
        }


def export_videos(
    root: Path,
    ids: Sequence[str],
    out: Path,
    progress: Progress,
    *,
    frames: bool = False,
    overwrite: bool = False,
) -> _Exported:
    """Write the content of a store for some videos as files; the docstring of this module lists them.

    Args:
        root: the store.
        ids: of the videos.
        out: the folder.
        progress: receives what happens.
        frames: also write frames.
        overwrite: replace files of an earlier export.

    Raises:
        UsageError: the store has no such video or no frames, an id leads out of the folder, or a file exists.
        StoreLockedError: another export writes to `out`.
        StoreError: the store cannot be read, or `out` not be written.
    """
    store = open_store(root)
    if frames and store.header.frames == "none":
        raise UsageError(f"{root} keeps no frames: export without them")
    videos = {video_id: _find_video(store, video_id) for video_id in ids}
    targets = [_Target(store, video, out, _name(store.videos, name), frames) for name, video in videos.items()]
    with export_lock(out):
        for target in () if overwrite else targets:
            for path in target.existing():
                raise UsageError(f"{path} exists; give --overwrite to replace it, or another --out")
        return _write_all(dict(zip(videos, targets, strict=True)), progress)


def _write_all(targets: Mapping[str, _Target], progress: Progress) -> _Exported:
    failures: dict[str, str] = {}
    done = [0, 0, 0]  # videos, frames, files
    progress.start("videos", len(targets))
    for video_id, target in targets.items():
        progress.advance(note=video_id)
        try:
            written = target.write()
        except StoreDamageError as error:
            failures[video_id] = str(error)
            progress.warn(f"{video_id}: {error}")
        else:
            done = [done[0] + 1, done[1] + target.store.num_frames(target.video), done[2] + written]
    return _Exported(done[0], done[1], done[2], failures)


def _find_video(store: Store, video_id: str) -> int:
    try:
        return store.find(video_id)
    except KeyError as error:
        near = [*difflib.get_close_matches(video_id, store.videos, n=1, cutoff=0.4), *store.videos[:1]]
        fix = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"{store.path} has no video {video_id!r}{fix}") from error


def _name(videos: Sequence[str], video_id: str) -> str:
    """Name of the files of a video: its id, without the suffix if no other video has that name."""
    path = PurePosixPath(video_id)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != video_id or "\0" in video_id:
        raise UsageError(f"the video {video_id!r} cannot be exported: its id names no file inside the folder")
    bare = _bare(video_id)
    place = bisect_left(videos, bare)
    if place < len(videos) and videos[place] == bare:
        return video_id
    # Ids are sorted: those with a common prefix are neighbours.
    places = range(bisect_left(videos, f"{bare}."), len(videos))
    alike = takewhile(lambda other: other.startswith(f"{bare}."), (videos[place] for place in places))
    return bare if all(other == video_id or _bare(other) != bare for other in alike) else video_id


def _bare(video_id: str) -> str:
    """An id without its suffix; with it if only dots would remain."""
    path = PurePosixPath(video_id)
    return (path.parent / path.stem).as_posix() if path.stem.strip(".") else video_id


@dataclass
class _Target:
    """The files of one video."""

    store: Store
    video: int
    out: Path
    name: str
    frames: bool
    written: list[PurePosixPath] = field(default_factory=list)
    _journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self._journal = Journal.of(self.out, self.name)

    def existing(self) -> list[Path]:
        """Files of an earlier export."""
        about = self.out / f"{self.name}.json"
        found = [about] if about.exists() else []
        for kind, pattern in _EXPORTED.items():
            folder = self.out / kind / self.name
            if folder.is_dir() and (kind != "frames" or self.frames):
                found += sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
        return found

    def write(self) -> int:
        """Write all files or none, then remove further files of an earlier export; returns the number of files."""
        journal = self._journal
        about = PurePosixPath(f"{self.name}.json")
        with writing(self.out):
            before = [PurePosixPath(path.relative_to(self.out).as_posix()) for path in self.existing()]
            journal.add(about)
            (self.out / about).unlink(missing_ok=True)  # from here on the earlier export is incomplete
        try:
            self._write()
        except BaseException:
            with writing(self.out):
                for path in (*before, *self.written):
                    (self.out / path).unlink(missing_ok=True)
                journal.close()
            raise
        with writing(self.out):
            for path in set(before) - set(self.written):
                (self.out / path).unlink()
            journal.close()
        return len(self.written)

    def _write(self) -> None:
        store, video = self.store, self.video
        count = store.num_frames(video)
        has_masks = store.header.options.get("holds") != "backgrounds"
        for start in range(0, count, _FRAMES_AT_ONCE):
            length = min(_FRAMES_AT_ONCE, count - start)
            if has_masks:
                for index, mask in enumerate(store.masks(video, start, length), start):
                    self._put_image("masks", f"{index:06d}", _grey(mask))
            if self.frames:
                for index, frame in enumerate(store.clip(video, start, length), start):
                    self._put_image("frames", f"{index:06d}", frame)
        row = store.row(video)
        shots = [self._put_shot(number, shot.model_dump(mode="json")) for number, shot in enumerate(row.shots)]
        about = {
            **row.model_dump(mode="json", include={"id", "label", "group", "split", "fps", "status"}),
            "source_size": [row.height, row.width],
            "size": list(store.size),
            "fit": store.header.fit,
            "content_box": list(store.content_box(video)),
            "num_frames": count,
            "imported_masks": row.imported_masks,
            **({"mask_model": row.mask_model.to_json()} if row.mask_model else {}),
            "masks": f"masks/{self.name}" if has_masks else None,
            "frames": f"frames/{self.name}" if self.frames else None,
            "shots": shots,
            "pts_seconds": store.pts_seconds(video, 0, count).tolist(),
        }
        self._put(PurePosixPath(f"{self.name}.json"), json.dumps(about, ensure_ascii=False, indent=1).encode())

    def _put_shot(self, number: int, shot: dict[str, Any]) -> dict[str, Any]:
        """Write the images of a shot; returns the shot with their paths."""
        shot = {name: value for name, value in shot.items() if name not in ("canvas", "masks")}  # places in the store
        if shot["background"] < 0:
            return {**shot, "background": None, "valid": None}
        frames = shot.get("background_frames")
        if frames is None:
            return {**shot, **self._put_background(f"shot_{number:03d}", self.store.background(self.video, number))}
        found = [
            self._put_background(
                f"shot_{number:03d}_frame_{frame:06d}", self.store.background(self.video, number, frame)
            )
            for frame in frames
        ]
        return {**shot, **{key: [paths[key] for paths in found] for key in ("background", "valid")}}

    def _put_background(self, name: str, background: Background) -> dict[str, str]:
        """Write image and valid pixels of a background; returns their paths."""
        return {
            "background": self._put_image("backgrounds", name, background.image),
            "valid": self._put_image("backgrounds", f"{name}_valid", _grey(background.valid)),
        }

    def _put_image(self, kind: str, name: str, image: NDArray[np.uint8]) -> str:
        """Write uint8 (H, W) or (H, W, 3) RGB as a PNG; returns its path below `out`."""
        path = PurePosixPath(kind) / self.name / f"{name}.png"
        stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        self._put(path, cv2.imencode(".png", stored)[1].tobytes())
        return path.as_posix()

    def _put(self, path: PurePosixPath, data: bytes) -> None:
        """Write a file completely or not at all."""
        final = self.out / path
        temporary = final.with_name(unfinished_name(final.suffix))
        with writing(final):
            self._journal.add(path)
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                os.replace(temporary, final)
            finally:
                temporary.unlink(missing_ok=True)
        self.written.append(path)


def _grey(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return mask.astype(np.uint8) * np.uint8(255)


@contextmanager
def export_lock(out: Path) -> Iterator[None]:
    """Exclusive export to a folder within the block; files of killed exports are removed first."""
    with ExitStack() as held:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(out / _LOCK))
            _remove_leftovers(out)
        yield


def _remove_leftovers(out: Path) -> None:
    """Remove the files of unfinished videos of killed exports, and their temporary files."""
    for kind in ("", *_EXPORTED):
        for parent, folders, names in os.walk(out / kind):
            if not kind:
                folders.clear()
            if any(name.startswith(".bgaug-") for name in names):
                clear_unfinished(parent)
    for journal in sorted(out.glob(f"{_JOURNAL}*.txt")):
        Journal(journal).undo()


class Journal:
    """List of the files of an unfinished video, one path per line; each is added before the file is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    @classmethod
    def of(cls, out: Path, name: str) -> Journal:
        """The journal of a video, by the name of its files."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return cls(out / f"{_JOURNAL}{digest}.txt")

    def add(self, path: PurePosixPath) -> None:
        """Add a file that is about to be written."""
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        os.write(self._descriptor, f"{json.dumps(path.as_posix())}\n".encode())

    def undo(self) -> None:
        """Remove all listed files, and the list."""
        if self.path.is_file() and not self.path.is_symlink():
            for line in self.path.read_bytes().splitlines():
                with suppress(ValueError):  # the last line may be incomplete
                    self._remove(json.loads(line))
        self.close()

    def _remove(self, name: Any) -> None:
        parts = PurePosixPath(name).parts if isinstance(name, str) and "\0" not in name else ()
        if not parts or ".." in parts or parts[0] == "/":
            return
        kind = _EXPORTED.get(parts[0])
        is_ours = kind.fullmatch(parts[-1]) if kind and len(parts) > 2 else parts[-1].endswith(".json")
        parent = self.path.parent
        if is_ours and parent.joinpath(*parts[:-1]).resolve().is_relative_to(parent.resolve()):
            parent.joinpath(*parts).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the list: the video is complete, or all of its files are removed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.path.unlink(missing_ok=True)
