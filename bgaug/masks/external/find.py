"""Masks from elsewhere, matched with videos by name."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bgaug.errors import MasksError, UsageError
from bgaug.masks.external.pixels import OTHER_IMAGES, VALUES, ArrayMasks, ExternalMasks, ImageMasks, leads_out
from bgaug.masks.external.run_lengths import Entry, RunMasks, videos_of_json
from bgaug.names import MaskValues


@dataclass(frozen=True)
class _FoundMasks:
    """Masks matched with videos.

    Attributes:
        of: masks of each video that has some, by id.
        without: ids of videos that have none.
        unused: files that belong to no video: "folder/", "file.npz", "file.json: name".
    """

    of: Mapping[str, ExternalMasks]
    without: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def find_masks(
    path: str | Path, ids: Collection[str], *, first: int = 0, values: MaskValues = "nonzero"
) -> _FoundMasks:
    """Masks of videos, from a folder or from one JSON file for all.

    A folder is searched recursively for all formats of `bgaug.masks.external`, which may be mixed. Hidden names and the
    videos themselves are skipped. Links that lead out of the folder, and links to folders, are never followed. Files of
    one video are only listed, and their errors are reported when they are read; a JSON file for many videos is parsed,
    but no mask is decoded.

    Args:
        path: the folder, or a .json file in the layout of COCO or YouTube-VIS.
        ids: of the videos: paths relative to their folder, with forward slashes.
        first: number of a video's first frame where names carry numbers (images, `file_name`, `file_names`): 0 or 1.
            It is never guessed, because masks that are one frame off look correct. Entries of lists and arrays always
            count from 0.
        values: meaning of the pixels of images and integer arrays. "nonzero": foreground where any channel other than
            alpha is not 0; the colours of a palette count, so black is background. "cdnet": 255 is foreground; 0, 50
            (shadow), 85 (outside the region) and 170 (unknown) are not; any other value is an error.

    Raises:
        MasksError: a folder or a file for many videos cannot be read, a video has two candidates, or one candidate
            matches two videos.
        UsageError: `first` is negative or `values` is none of `VALUES`.
    """
    path = Path(path)
    if first < 0 or values not in VALUES:
        raise UsageError(f"first is 0 or more and values one of {', '.join(VALUES)}, got {first = }, {values = }")
    names = _Names(path, ids)
    found: dict[str, tuple[str, ExternalMasks]] = {}
    unused: set[str] = set()
    for offer in _offers(path, names, first, values):
        video_id = names.match(offer.name)
        if video_id is None or offer.open is None:
            unused.add(offer.label)
        elif video_id in found:
            raise MasksError(
                path,
                f"two candidates for the masks of {video_id}: {found[video_id][0]} and {offer.label}; keep one of them",
            )
        else:
            found[video_id] = offer.label, offer.open(video_id)
    of = {video_id: found[video_id][1] for video_id in sorted(found)}
    return _FoundMasks(of, tuple(sorted(set(ids) - set(of))), tuple(sorted(unused)))


class _Names:
    """Videos by name: by id, or by id without its suffix, whatever the Unicode normal form."""

    def __init__(self, path: Path, ids: Collection[str]) -> None:
        self._path = path
        self._whole: dict[str, set[str]] = {}
        self._bare: dict[str, set[str]] = {}
        for video_id in ids:
            key = unicodedata.normalize("NFC", video_id)
            self._whole.setdefault(key, set()).add(video_id)
            bare = PurePosixPath(key).parent / PurePosixPath(key).stem
            self._bare.setdefault(bare.as_posix(), set()).add(video_id)

    def match(self, name: str) -> str | None:
        if not name or ".." in PurePosixPath(name).parts:
            return None
        key = unicodedata.normalize("NFC", PurePosixPath(name).as_posix())
        several = sorted(self._whole.get(key) or self._bare.get(key) or ())
        if len(several) > 1:
            raise MasksError(
                self._path,
                f"{name} matches {len(several)} videos ({several[0]}, {several[1]}); "
                "name their masks with the suffix, like " + several[0],
            )
        return several[0] if several else None

    def is_video(self, name: str) -> bool:
        return unicodedata.normalize("NFC", name) in self._whole


@dataclass(frozen=True)
class _Offer:
    """A file or folder: its label for messages, and if it may hold masks, the name to match and its opener."""

    label: str
    name: str = ""
    open: Callable[[str], ExternalMasks] | None = None


def _offers(path: Path, names: _Names, first: int, values: MaskValues) -> Iterator[_Offer]:
    if path.is_dir():
        yield from _offers_of_folder(path, path.resolve(), "", names, first, values)
    elif path.is_file() and path.suffix.lower() == ".json":
        together = videos_of_json(path)
        if together is None:
            raise MasksError(
                path,
                "expected `annotations` and `videos` or `images`, as COCO and YouTube-VIS have them; masks of one "
                "video are found by their file's name: give the folder that holds it",
            )
        yield from _offers_of_json(path, path.name, together, first)
    elif path.exists():
        raise MasksError(path, "expected a folder or a .json file; give the folder that holds it, unpacked")
    else:
        raise MasksError(path, "no such file or folder")


def _offers_of_folder(
    folder: Path, root: Path, prefix: str, names: _Names, first: int, values: MaskValues
) -> Iterator[_Offer]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise MasksError(folder, f"cannot be read: {error.strerror}") from error
    has_images = False
    for entry in listed:
        label = prefix + entry.name
        suffix = Path(entry.name).suffix.lower()
        if entry.is_dir(follow_symlinks=False):
            yield from _offers_of_folder(folder / entry.name, root, label + "/", names, first, values)
        elif names.is_video(label):
            continue
        elif suffix == ".png" or suffix in OTHER_IMAGES:
            has_images = True
        elif suffix in (".npz", ".npy", ".json") and entry.is_file() and not leads_out(entry.path, root):
            yield from _offers_of_file(folder / entry.name, label, first, values)
        else:
            yield _Offer(label)
    if has_images:
        opened = ImageMasks(folder, root, first, values)
        yield _Offer(prefix or "./", prefix.rstrip("/"), lambda video_id: opened)


def _offers_of_file(file: Path, label: str, first: int, values: MaskValues) -> Iterator[_Offer]:
    name = label[: -len(file.suffix)]
    if file.suffix.lower() != ".json":
        yield _Offer(label, name, lambda video_id: ArrayMasks(file, values))
        return
    try:
        with open(file, "rb") as data:
            begins = data.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise MasksError(file, f"cannot be read: {error.strerror}") from error
    # There may be thousands of files of one video, which are opened only when needed.
    together = videos_of_json(file) if begins.startswith(b"{") else None
    if together is None:
        yield _Offer(label, name, lambda video_id: RunMasks(file, video_id))
    else:
        yield from _offers_of_json(file, label, together, first)


def _offers_of_json(
    file: Path, label: str, together: Sequence[tuple[str, Sequence[Entry]]], first: int
) -> Iterator[_Offer]:
    for name, entries in together:

        def open_runs(video_id: str, entries: Sequence[Entry] = entries) -> ExternalMasks:
            return RunMasks(file, video_id, entries, first)

        yield _Offer(f"{label}: {name}" if name else label, name, open_runs)
