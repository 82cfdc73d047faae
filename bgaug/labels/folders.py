"""Labels from folders: which level of folders is the class, and which the split.

A layout lists the levels from the top: `class`, `split/class`, `class/split`, `*/split/class`, ...; a level * is
ignored, and so are folders below the last level.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal

from bgaug.errors import LabelsError
from bgaug.labels.label import SPLIT_NAMES, Label, Labels, ordered
from bgaug.labels.reading import normal

_Level = Literal["split", "class", "*"]
Layout = tuple[_Level, ...]
Folders = tuple[str, ...]

_CONTAINERS = {"video", "videos", "clip", "clips", "data", "dataset", "rgb", "avi", "mp4", "images", "raw", "all"}
_REVISION = re.compile(r"[0-9a-f]{40}")
_NUMBERED = re.compile(r"(split|fold)[-_ ]?\d+", re.IGNORECASE)


def parse_layout(text: str) -> Layout | None:
    """A layout from its text; None for "auto", an empty one for "none".

    Raises:
        LabelsError: a level has another name, `class` occurs twice, or neither `class` nor `split` occurs.
    """
    if text in ("auto", "none"):
        return None if text == "auto" else ()
    levels = text.strip("/").split("/")
    known: dict[str, _Level] = {"split": "split", "class": "class", "*": "*"}
    if any(level not in known for level in levels) or levels.count("class") > 1 or set(levels) == {"*"}:
        raise LabelsError(
            f"a layout is auto, none, or levels of folders named class, split and *, such as split/class; got {text!r}"
        )
    return tuple(known[level] for level in levels)


def labels_from_folders(video_ids: Iterable[str], layout: str = "auto") -> Labels:
    """Labels of videos from the folders in their ids.

    Args:
        video_ids: paths relative to a folder, with forward slashes.
        layout: meaning of each level; see `parse_layout`. "auto" uses a level as split if all its folders have names
            such as train, val and test, and the first level of two or more other folders as class.

    Returns:
        Labels without any entries if the folders look like neither. `origin` contains the layout, `notes` what was
        guessed.

    Raises:
        LabelsError: the layout is invalid.
    """
    folders = {video_id: PurePosixPath(video_id).parts[:-1] for video_id in video_ids}
    chosen = parse_layout(layout)
    levels = _guess(list(folders.values())) if chosen is None else chosen
    if "class" not in levels and "split" not in levels:
        notes = _unread(list(folders.values())) if chosen is None else ()
        return Labels({}, (), origin="none", notes=notes)
    # A guessed level of splits with other folders in it: videos in those get no label, instead of an invented split.
    strict = chosen is None and _has_others(folders.values(), levels)
    labels = {}
    for video_id, parts in folders.items():
        label = _label(parts, levels, strict)
        if label is not None:
            labels[video_id] = label
    notes = () if chosen is not None else _notes(folders, labels, levels)
    classes = ordered(label.name for label in labels.values())
    return Labels(labels, classes, origin=f"folders ({'/'.join(levels)})", notes=notes)


def _label(parts: Folders, levels: Layout, strict: bool) -> Label | None:
    """The label of one video; None if there is none. `strict` accepts only known names of splits."""
    name, splits = None, []
    for level, part in zip(levels, parts, strict=False):
        if level == "class":
            name = normal(part)
        elif level == "split":
            known = _split_of(part)
            if known is None and strict:
                return None
            splits.append(known or _split_in(part) or normal(part))
    return Label(name, None, "/".join(splits) or None) if name or splits else None


# --- which layout -----------------------------------------------------------------------------------------------------


def _guess(folders: Sequence[Folders]) -> Layout:
    levels: list[_Level] = []
    rest, behind_one = list(folders), False
    while True:  # one level of folders per turn, from the top
        below = [parts for parts in rest if parts]
        if not below or (len(below) <= len(rest) - len(below) and "split" not in levels):
            return tuple(levels)  # most videos are here, so deeper folders are no classes
        names = {parts[0] for parts in below}
        if _are_splits(names, below):
            levels.append("split")
            rest = _of_mostly_in_folders([parts for parts in below if _split_of(parts[0])] or below)
        elif all(map(_REVISION.fullmatch, names)):  # a cache of Hugging Face; the folder above is not a class either
            behind_one = False
            levels.append("*")
            rest = [parts[1:] for parts in below]
        elif len(names) == 1 and ("split" not in levels or _is_container(*names)):  # one folder separates nothing
            behind_one |= not _is_container(*names)
            levels.append("*")
            rest = [parts[1:] for parts in below]
        elif "split" not in levels and (below_class := _split_below(below)):
            return (*levels, *below_class)
        else:
            return tuple(levels) if behind_one and "split" not in levels else (*levels, "class")


def _of_mostly_in_folders(below: Sequence[Folders]) -> list[Folders]:
    """Paths below those splits in which most videos are in folders: a test set may have no classes."""
    inside = Counter(parts[0] for parts in below if len(parts) > 1)
    total = Counter(parts[0] for parts in below)
    return [parts[1:] for parts in below if inside[parts[0]] > total[parts[0]] - inside[parts[0]]]


def _split_below(below: Sequence[Folders]) -> Layout | None:
    """The layout if the second level is splits, else None: CLASS/train/x, or DATA/train/CLASS/x."""
    second = [parts[1:] for parts in below if len(parts) > 1]
    if 2 * len(second) <= len(below) or not _are_splits({parts[0] for parts in second}, second):
        return None
    deeper = sum(len(parts) > 1 for parts in second)
    return ("*", "split", "class") if 2 * deeper > len(second) else ("class", "split")


def _are_splits(names: set[str], below: Sequence[Folders]) -> bool:
    """Whether a level is splits: all folders by their names, or most videos are in folders of two or more splits."""
    if all(_NUMBERED.fullmatch(name) for name in names):
        return len(names) > 1
    known = {name: split for name in names if (split := _split_of(name))}
    if len(known) == len(names):
        return True
    if len(names) > 1 and all(map(_split_in, names)) and len({_around_split(name) for name in names}) == 1:
        return True
    inside = sum(len(parts) > 1 for parts in below if parts[0] in known)
    return "train" in known.values() and len(set(known.values())) > 1 and 2 * inside > len(below)


def _is_container(name: str) -> bool:
    return _plain(name) in _CONTAINERS or _NUMBERED.fullmatch(name) is not None


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name.casefold())


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.casefold()) if word]


def _split_of(name: str) -> str | None:
    """The split that a folder is named after, if its name contains nothing else: `Testing`, `val_videos`, `train_256`.

    A numbered split keeps its own name.
    """
    if _NUMBERED.fullmatch(name):
        return name
    if _plain(name) in SPLIT_NAMES:
        return SPLIT_NAMES[_plain(name)]
    words = [word for word in _words(name) if word not in _CONTAINERS | {"set", "split"} and not word.isdecimal()]
    return SPLIT_NAMES.get(words[0]) if len(words) == 1 else None


def _split_in(name: str) -> str | None:
    """The one split whose word occurs in a name, `train` of `k400_train`; None if there is none, or two."""
    found = [SPLIT_NAMES[word] for word in _words(name) if word in SPLIT_NAMES]
    return found[0] if len(found) == 1 else None


def _around_split(name: str) -> tuple[str, ...]:
    """The other words of a name: `k400` of `k400_train`."""
    return tuple(word for word in _words(name) if word not in SPLIT_NAMES)


# --- notes ------------------------------------------------------------------------------------------------------------


def _has_others(folders: Iterable[Folders], levels: Layout) -> bool:
    """Whether a level of splits contains folders with other names than those of splits."""
    if "split" not in levels:
        return False
    at = levels.index("split")
    known = {_split_of(parts[at]) is not None for parts in folders if len(parts) > at}
    return len(known) > 1


def _notes(folders: Mapping[str, Folders], labels: Mapping[str, Label], levels: Layout) -> tuple[str, ...]:
    notes = []
    if levels != ("class",):
        notes.append(f"labels are taken from the folders, read as {'/'.join(levels)}; change it with --layout")
    elif words := sorted({parts[0] for parts in folders.values() if parts and _split_of(parts[0])}):
        notes.append(
            f"the folder {words[0]!r} is used as a class, because there are other folders at its level; change it with "
            "--layout, such as --layout split"
        )
    elif repeated := _repeated(folders.values()):
        notes.append(
            f"the first folders are used as classes, and several of them have a folder {repeated!r}; --layout "
            "split/class or '*/class' uses the second ones"
        )
    without = [video for video in folders if video not in labels or ("class" in levels and labels[video].name is None)]
    if without:
        listed = ", ".join(sorted(without)[:5]) + (", ..." if len(without) > 5 else "")
        notes.append(f"{len(without)} videos are not in a class folder and get no class: {listed}")
    return tuple(notes)


def _repeated(folders: Iterable[Folders]) -> str | None:
    """The first name of a second-level folder that occurs in several first-level folders, which may be splits."""
    second = Counter(parts[1] for parts in {parts[:2] for parts in folders if len(parts) > 1})
    return min((name for name, count in second.items() if count > 1), default=None)


def _unread(folders: Sequence[Folders]) -> tuple[str, ...]:
    """Why the folders were not used, for folders that may have been meant as labels."""
    first = Counter(parts[0] for parts in folders if parts)
    above = 0
    while len({parts[above] for parts in folders if len(parts) > above}) == 1:
        above += 1
    if above and len({parts[above] for parts in folders if len(parts) > above}) > 1:
        name = "/".join(next(parts for parts in folders if len(parts) > above)[:above])
        layout = "*/" * above + "class"
        why = f"all videos are in the folder {name!r}: give that folder, or use --layout {layout!r}"
        return (f"no labels are taken from the folders, because {why}",)
    if len(first) > 1:
        inside = sum(first.values())
        why = f"only {inside} of {len(folders)} videos are in one; --layout class uses them"
        return (f"no labels are taken from the folders, because {why}",)
    return ()
