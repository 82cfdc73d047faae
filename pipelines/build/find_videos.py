"""Video files in folders, and the files that are left out, with reasons."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from bgaug.errors import UsageError
from bgaug.progress import Progress
from bgaug.video import EXTENSIONS

_ARCHIVES = frozenset((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"))
_IMAGE = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<after>\.(jpe?g|png|bmp|webp|tiff?))", re.IGNORECASE)
_MOST_NAMED = 5


@dataclass(frozen=True)
class Source:
    """A video file and its id."""

    id: str
    path: Path
    bytes: int


@dataclass
class LeftOut:
    """Files and folders that are not used as videos.

    Attributes:
        links_out: links that lead out of the named folders.
        broken_links: links without a target.
        same_folder: links to folders that are walked under another name.
        special: pipes, sockets and devices with the name of a video.
        unreadable: folders that cannot be read.
        archives: packed files.
        image_folders: folders of numbered images.
        links_followed: number of links that were followed; these are not left out.
        hidden: number of files and folders whose name begins with a dot.
        others: number of files of other kinds, by their suffix.
        command: makes a video of the first folder of images.
    """

    links_out: list[str] = field(default_factory=list)
    broken_links: list[str] = field(default_factory=list)
    same_folder: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    image_folders: list[str] = field(default_factory=list)
    links_followed: int = 0
    hidden: int = 0
    others: Counter[str] = field(default_factory=Counter)
    command: str = ""

    def to_json(self) -> dict[str, int | dict[str, int]]:
        """Counts that are not 0."""
        counts = {name: len(names) for name, _, names in self._named()} | {"hidden": self.hidden}
        found: dict[str, int | dict[str, int]] = {name: count for name, count in counts.items() if count}
        return found | ({"others": dict(self.others.most_common(20))} if self.others else {})

    def warnings(self) -> list[str]:
        """Files that may have been meant as input, one sentence per reason."""
        return [f"left out: {len(names)} {what}: {_first(names)}" for _, what, names in self._named() if names]

    def __str__(self) -> str:
        """All of it in one line; empty where nothing was left out."""
        parts = [f"{len(names)} {what.partition(';')[0]}" for _, what, names in self._named() if names]
        if self.hidden:
            parts.append(f"{self.hidden} hidden")
        if self.others:
            kinds = ", ".join(f"{kind or 'no ending'} {count}" for kind, count in self.others.most_common(_MOST_NAMED))
            more = ", ..." if len(self.others) > _MOST_NAMED else ""
            parts.append(f"{self.others.total()} files of other kinds ({kinds}{more})")
        return ", ".join(parts)

    def _named(self) -> Iterator[tuple[str, str, list[str]]]:
        yield "links_out", "links that lead out of the named folders; --follow-links follows them", self.links_out
        yield "broken_links", "links without a target", self.broken_links
        yield "same_folder", "links to folders that are walked under another name", self.same_folder
        yield "special", "named pipes, sockets or devices", self.special
        yield "unreadable", "folders that cannot be read", self.unreadable
        yield "archives", "archives; unpack them to use their content", self.archives
        fix = f"; a folder of images is no video, but this command makes one of the first: {self.command}"
        yield "image_folders", f"folders of numbered images{fix}", self.image_folders


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")


@dataclass(frozen=True)
class FoundVideos(Sequence[Source]):
    """Videos in order of id.

    Attributes:
        sources: the videos.
        left_out: all other files and folders.
        same_file: videos with the file of another one, as "id is also id".
    """

    sources: tuple[Source, ...]
    left_out: LeftOut
    same_file: tuple[str, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Source: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Source]: ...
    def __getitem__(self, index: int | slice) -> Source | Sequence[Source]:
        """Videos by position."""
        return self.sources[index]

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.sources)


def find_videos(inputs: Sequence[Path], progress: Progress | None = None, *, follow_links: bool = False) -> FoundVideos:
    """Videos of folders and files, in order of id.

    The id of a video is its path relative to the named folder, with forward slashes; that of a named file is its name.
    Links are followed inside the named folders, and each folder is walked once. Hidden files are left out; a named file
    is used whatever its name.

    Args:
        inputs: folders and files.
        progress: receives warnings about files that are left out and may have been meant.
        follow_links: also follow links that lead out of the named folders.

    Raises:
        UsageError: an input is missing, there is no video, or two videos have the same id.
    """
    left_out = LeftOut()
    roots = [item.resolve() for item in inputs]
    found: dict[str, Source] = {}
    for item in inputs:
        for source in _of_input(item, _Walk(item, None if follow_links else roots, left_out)):
            other = found.setdefault(source.id, source)
            if other is not source and other.path.resolve() != source.path.resolve():
                raise UsageError(
                    f"two videos have the id {source.id!r}: {other.path} and {source.path}; name their parent instead"
                )
    if not found:
        more = "".join(f"; {warning}" for warning in left_out.warnings()) or (
            f"; left out: {left_out}" if str(left_out) else ""
        )
        raise UsageError(
            f"no video in {', '.join(map(str, inputs))} (looked for {', '.join(sorted(EXTENSIONS)[:6])}, ...){more}"
        )
    same = tuple(_same_files(found)) if left_out.links_followed or len(inputs) > 1 else ()
    videos = FoundVideos(tuple(found[name] for name in sorted(found)), left_out, same)
    if progress is not None:
        for warning in left_out.warnings():
            progress.warn(warning)
        if same:
            progress.warn(f"{len(same)} videos occur twice, by links to one file: {_first(same)}")
    return videos


def _same_files(found: dict[str, Source]) -> Iterator[str]:
    """Videos whose file an earlier video has, through links or overlapping folders."""
    first: dict[str, str] = {}
    for name in sorted(found):
        path = str(found[name].path.resolve())
        if first.setdefault(path, name) != name:
            yield f"{name} is also {first[path]}"


def _of_input(item: Path, walk: _Walk) -> Iterator[Source]:
    if item.is_file():
        yield Source(_text(Path(item.name)), item, item.stat().st_size)
        return
    if not item.is_dir():
        problem = "is no file or folder but a pipe, socket or device" if item.exists() else "no such file or folder"
        raise UsageError(f"{item}: {problem}")
    yield from walk


class _Walk:
    """A walk through one folder: first its own subfolders, then folders behind links."""

    def __init__(self, root: Path, roots: list[Path] | None, left_out: LeftOut) -> None:
        self.root = root
        self.roots = roots  # None: links may lead anywhere
        self.left_out = left_out
        self.seen: set[tuple[int, int]] = set()
        self.linked: list[Path] = []

    def __iter__(self) -> Iterator[Source]:
        waiting = [self.root]
        while waiting or self.linked:
            folder = waiting.pop() if waiting else self.linked.pop(0)
            try:
                status = folder.stat()
                if (status.st_dev, status.st_ino) in self.seen:
                    self.left_out.same_folder.append(self._name(folder))
                    continue
                self.seen.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as listed:
                    entries = sorted(listed, key=lambda entry: entry.name)
            except OSError:
                self.left_out.unreadable.append(self._name(folder))
                continue
            inside, sources = self._sorted(entries)
            waiting += reversed(inside)
            yield from sources

    def _sorted(self, entries: list[os.DirEntry[str]]) -> tuple[list[Path], list[Source]]:
        """Folders to walk, and videos."""
        folders: list[Path] = []
        sources: list[Source] = []
        images: list[re.Match[str]] = []
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                self.left_out.hidden += 1
            elif entry.is_symlink() and not self._followed(path):
                continue
            elif entry.is_dir():
                (self.linked if entry.is_symlink() else folders).append(path)
            elif path.suffix.lower() in EXTENSIONS:
                if entry.is_file():
                    sources.append(Source(_text(path.relative_to(self.root)), path, entry.stat().st_size))
                else:
                    self.left_out.special.append(self._name(path))
            elif match := _IMAGE.fullmatch(entry.name):
                images.append(match)
            else:
                self._other(path)
        self._add_images(Path(entries[0].path).parent if entries else self.root, images)
        return folders, sources

    def _followed(self, link: Path) -> bool:
        """Whether a link is followed; if not, it is counted."""
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):  # also circular links
            self.left_out.broken_links.append(self._name(link))
            return False
        if self.roots is None or any(target.is_relative_to(root) for root in self.roots):
            self.left_out.links_followed += 1
            return True
        if target.is_dir() or link.suffix.lower() in EXTENSIONS:
            self.left_out.links_out.append(self._name(link))
        else:
            self._other(link)
        return False

    def _other(self, path: Path) -> None:
        if path.suffix.lower() in _ARCHIVES:
            self.left_out.archives.append(self._name(path))
        else:
            self.left_out.others[path.suffix.lower()] += 1

    def _add_images(self, folder: Path, images: list[re.Match[str]]) -> None:
        """Count images; a folder of several numbered images is probably a decoded video."""
        kinds = Counter((match["before"], match["after"]) for match in images)
        kind, count = kinds.most_common(1)[0] if kinds else (("", ""), 0)
        if count < 2:
            self.left_out.others.update(match["after"].lower() for match in images)
            return
        self.left_out.image_folders.append(self._name(folder))
        if not self.left_out.command:
            numbers = [match["number"] for match in images if (match["before"], match["after"]) == kind]
            self.left_out.command = _video_of(folder, kind[0], numbers, kind[1])

    def _name(self, path: Path) -> str:
        return _text(path.relative_to(self.root)) if path != self.root else _text(path)


def _video_of(folder: Path, before: str, numbers: Sequence[str], after: str) -> str:
    """The command that makes a video of numbered images without encoding them again."""
    digits = {len(number) for number in numbers}
    padded = len(digits) == 1 and (any(number.startswith("0") for number in numbers) or digits != {1})
    pattern = f"{before.replace('%', '%%')}%{f'0{digits.pop()}' if padded else ''}d{after}"
    # An absolute path, because a name such as 10:30 or -x would be a protocol or an option.
    place = os.path.abspath(folder)
    source = f"{place.replace('%', '%%')}/{pattern}"
    start = min(map(int, numbers))
    return f"ffmpeg -framerate 25 -start_number {start} -i {shlex.quote(source)} -c copy {shlex.quote(f'{place}.mkv')}"


def _text(path: Path) -> str:
    """A path as valid UTF-8: other bytes become escapes."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
