"""Choosing the composites of a bias evaluation: foregrounds, donors, still frames and those who stand beside.

A draw is a hash of the seed, what it is for and the video's id: nothing hangs on the number of workers, the size of batches
or how many composites there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.metrics.bias import Stripes, clear_shift
from bgaug.pipelines.evaluate.bias.clips import ClipReader, digest, picture_files, read_picture
from bgaug.pipelines.evaluate.bias.manifest import Donor, Inserted, Manifest, Row, SceneTest
from bgaug.progress import Progress
from bgaug.store import Store
from bgaug.store.index import GRADES

_TRIES = 64

DonorSource = Literal["backgrounds", "stripes", "bank", "folder"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Choice:
    """What is drawn for a manifest; see `bgaug.pipelines.evaluate.bias.run.BiasOptions`."""

    composites: int
    clips: int
    seed: int
    donors: DonorSource
    bank: str | None
    folder: Path | None
    min_grade: str | None
    min_area: float
    videos: int | None
    scenes: int
    scene_foregrounds: int
    grow: float
    feather: float
    ring: float


def draw(count: int, *purpose: object) -> int:
    """A number in 0..count-1 that hangs on nothing but what it is for."""
    return (_word(*purpose) * count) >> 64


def uniforms(count: int, *purpose: object) -> list[float]:
    """Numbers in [0, 1), of six digits, so that a file shows them whole."""
    return [draw(10**6, *purpose, number) / 10**6 for number in range(count)]


def _word(*purpose: object) -> int:
    text = "\0".join(str(part) for part in purpose)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclass(frozen=True, eq=False)
class _Foreground:
    video: int
    id: str
    label: str
    group: str
    shot: int
    starts: tuple[int, ...]
    still: int
    frame: int  # of the first clip's still, in the video
    moving: NDArray[np.uint8]  # (S, S), 0 or 1: all that its mask ever covers
    standing: NDArray[np.uint8]  # (S, S), its mask in that frame


def make_manifest(reader: ClipReader, content_hash: str, choice: Choice, progress: Progress) -> Manifest:
    """Choose foregrounds, donors, still frames and inserted foregrounds.

    Foregrounds are the labelled videos with a static background: those of the "test" split where the store has it and
    "train", else all. Donors are of another class and another group, where there is such a one.

    Raises:
        UsageError: there are no such videos, or not of two classes.
        StoreError: the store has no such bank.
    """
    store = reader.store
    foregrounds = _foregrounds(reader, choice, progress)
    labels = {one.label for one in foregrounds}
    if len(labels) < 2 and choice.min_grade is not None:
        progress.warn(f"shots of grade {choice.min_grade} or better are not of two classes: all are taken")
        return make_manifest(reader, content_hash, replace(choice, min_grade=None), progress)
    if len(labels) < 2:
        raise UsageError(
            f"{store.path} has {len(foregrounds)} labelled test videos with foreground masks and a static background, of "
            f"{len(labels)} classes; a bias evaluation needs two classes"
        )
    pick = _Picker(reader, choice)
    rows = [
        row
        for one in foregrounds
        for row in (_row(one, k, donor, foregrounds, choice.seed) for k, donor in enumerate(pick.donors(one)))
    ]
    return Manifest(
        content_hash=content_hash,
        seed=choice.seed,
        num_frames=reader.num_frames,
        stride=reader.stride,
        crop=reader.crop,
        grow=choice.grow,
        feather=choice.feather,
        ring=choice.ring,
        rows=tuple(rows),
        scene=_scene(foregrounds, pick.scenes(), choice),
    )


def video_group(store: Store, video: int) -> str:
    """Group of a video; where unknown, the video is one of its own."""
    code = int(store.columns.group[video])
    return store.names.groups[code] if code >= 0 else store.video_id(video)


def has_splits(store: Store) -> bool:
    """Whether videos are told apart as "train" and "test"."""
    return {"train", "test"} <= set(store.names.splits)


def _foregrounds(reader: ClipReader, choice: Choice, progress: Progress) -> list[_Foreground]:
    store = reader.store
    wanted = store.columns.label >= 0
    if has_splits(store):
        wanted &= store.columns.split == store.names.splits.index("test")
    videos = np.flatnonzero(wanted).tolist()
    if choice.videos is not None and choice.videos < len(videos):
        videos = sorted(
            sorted(videos, key=lambda video: _word(choice.seed, "video", store.video_id(video)))[: choice.videos]
        )
    progress.start("foregrounds", len(videos))
    found, left_out = [], []
    for video in videos:
        shot = _shot(reader, video, choice)
        one = None if shot is None else _foreground(reader, video, shot, choice)
        if one is None:
            left_out.append(store.video_id(video))
        else:
            found.append(one)
        progress.advance()
    if left_out:
        progress.warn(
            f"{len(left_out)} of {len(videos)} test videos are left out, such as {left_out[0]}: no static background, one "
            f"graded below {choice.min_grade}, or next to no foreground"
        )
    return found


def _foreground(reader: ClipReader, video: int, shot: int, choice: Choice) -> _Foreground | None:
    store = reader.store
    name = store.video_id(video)
    starts = reader.starts(video, shot, choice.clips)
    frames = [reader.frames(video, shot, start) for start in starts]
    masks = np.stack([reader.mask(video, part)[0, 0].cpu().numpy() for part in frames])  # (clips, T, S, S)
    area = masks.mean(axis=(2, 3)).min(axis=0)
    if masks.mean() < choice.min_area or not area.any():
        return None
    showing = np.flatnonzero(area)
    still = int(showing[draw(len(showing), choice.seed, "still", name)])
    return _Foreground(
        video=video,
        id=name,
        label=store.header.classes[int(store.columns.label[video])],
        group=video_group(store, video),
        shot=shot,
        starts=starts,
        still=still,
        frame=int(frames[0][still]),
        moving=(masks[0].max(axis=0) >= 0.5).astype(np.uint8),
        standing=(masks[0, still] >= 0.5).astype(np.uint8),
    )


def _row(one: _Foreground, k: int, donor: Donor, foregrounds: Sequence[_Foreground], seed: int) -> Row:
    purpose = (seed, "inserted", one.id, k)
    other = _pick(foregrounds, purpose, lambda other: other.label != one.label and other.group != one.group)
    other = other or _pick(foregrounds, purpose, lambda other: other.label != one.label)
    assert other is not None  # there are two classes
    inserted = Inserted(
        id=other.id,
        shot=other.shot,
        frame=other.frame,
        label=other.label,
        shift=clear_shift(one.moving, other.standing),
    )
    return Row(
        id=one.id,
        k=k,
        label=one.label,
        group=one.group,
        shot=one.shot,
        starts=one.starts,
        still=one.still,
        donor=donor,
        inserted=inserted,
    )


def _pick(items: Sequence[Item], purpose: Sequence[object], allowed: Callable[[Item], bool]) -> Item | None:
    """One of the allowed items at random; None if there is none."""
    for number in range(_TRIES):
        item = items[draw(len(items), *purpose, number)]
        if allowed(item):
            return item
    left = [item for item in items if allowed(item)]  # few are allowed: look at all
    return left[draw(len(left), *purpose, "left")] if left else None


class _Picker:
    """Donors from one source.

    Raises:
        UsageError: the source has nothing to give.
        StoreError: there is no such bank.
    """

    def __init__(self, reader: ClipReader, choice: Choice) -> None:
        self.reader, self.choice, self.seed = reader, choice, choice.seed
        self.all: list[Donor] = []
        self.groups: dict[str, str] = {}  # of videos
        if choice.donors == "backgrounds":
            self.all = _background_donors(reader, choice)
            self.groups = {one.id: video_group(reader.store, reader.store.find(one.id)) for one in self.all}
        elif choice.donors == "bank":
            if choice.bank is None:
                raise UsageError('donors="bank" needs the name of a bank; `bgaug import --backgrounds` makes one')
            bank = reader.store.bank(choice.bank)
            pictures = zip(bank.names, bank.pictures, strict=True)
            self.all = [Donor(kind="bank", id=f"{bank.name}/{name}", sha256=digest(image)) for name, image in pictures]
        elif choice.donors == "folder":
            if choice.folder is None:
                raise UsageError('donors="folder" needs a folder of pictures')
            files = [(name, read_picture(choice.folder / name)) for name in picture_files(choice.folder)]
            self.all = [Donor(kind="file", id=name, sha256=digest(image)) for name, image in files]
        elif choice.donors != "stripes":
            raise UsageError(f"donors must be backgrounds, stripes, bank or folder, got {choice.donors!r}")

    def donors(self, one: _Foreground) -> list[Donor]:
        """A donor for each composite of a foreground, each another one as long as there are such."""
        found: list[Donor] = []
        for k in range(self.choice.composites):
            found.append(self._donor(one, k, {donor.id for donor in found}))
        return found

    def _donor(self, one: _Foreground, k: int, used: set[str]) -> Donor:
        if self.choice.donors == "stripes":
            return self._stripes(one.id, k)
        purpose = (self.seed, "donor", one.id, k)

        def foreign(donor: Donor) -> bool:
            return donor.label != one.label and self.groups.get(donor.id) != one.group

        found = _pick(self.all, purpose, lambda donor: foreign(donor) and donor.id not in used)
        found = found or _pick(self.all, purpose, foreign)
        found = found or _pick(self.all, purpose, lambda donor: donor.label != one.label)
        if found is None:
            raise UsageError(
                f"no video of another class can lend {one.id} a background; take stripes, a bank or a folder"
            )
        return found

    def _stripes(self, *purpose: object) -> Donor:
        name = f"stripes {_word(self.seed, 'stripes', *purpose):016x}"
        return Donor(kind="stripes", id=name, stripes=Stripes.draw(uniforms(9, self.seed, "stripes", *purpose)))

    def scenes(self) -> list[Donor]:
        """Pictures for the scene probe, of as many groups as possible."""
        if self.choice.donors == "stripes":
            return [self._stripes("scene", number) for number in range(self.choice.scenes)]
        shuffled = sorted(self.all, key=lambda donor: _word(self.seed, "scene", donor.id))
        if self.choice.donors == "backgrounds":
            met: dict[str, int] = {}
            turns = {}
            for donor in shuffled:
                turns[donor.id] = met[self.groups[donor.id]] = met.get(self.groups[donor.id], -1) + 1
            shuffled.sort(key=lambda donor: turns[donor.id])
        return shuffled[: self.choice.scenes]


def _background_donors(reader: ClipReader, choice: Choice) -> list[Donor]:
    """The labelled videos with a static background that is good enough."""
    store, found = reader.store, []
    for video in np.flatnonzero(store.columns.label >= 0).tolist():
        shot = _shot(reader, video, choice)
        if shot is not None:
            label = store.header.classes[int(store.columns.label[video])]
            found.append(Donor(kind="video", id=store.video_id(video), shot=shot, label=label))
    return found


def _shot(reader: ClipReader, video: int, choice: Choice) -> int | None:
    """The longest shot with a background, where its grade will do; shots without a grade do."""
    shot = reader.longest_shot(video, background=True)
    if shot is None or choice.min_grade is None:
        return shot
    if choice.min_grade not in GRADES[1:]:
        raise UsageError(f"min_grade must be one of {', '.join(GRADES[1:])}, or None, got {choice.min_grade!r}")
    columns = reader.store.columns
    grade = int(columns.shot_grade[int(columns.shot_offsets[video]) + shot])
    return shot if grade <= GRADES.index(choice.min_grade) else None


def _scene(foregrounds: Sequence[_Foreground], donors: Sequence[Donor], choice: Choice) -> SceneTest | None:
    """Halves of some foregrounds by group; None where there are not two groups, or two pictures."""
    seed = choice.seed
    groups = sorted({one.group for one in foregrounds}, key=lambda group: _word(seed, "scene group", group))
    if len(donors) < 2 or len(groups) < 2 or choice.scene_foregrounds < 2:
        return None
    half_of = {group: place % 2 for place, group in enumerate(groups)}
    shuffled = sorted(foregrounds, key=lambda one: _word(seed, "scene foreground", one.id))
    halves: dict[str, int] = {}
    for half in (0, 1):
        half_count = choice.scene_foregrounds // 2
        halves |= {one.id: half for one in [one for one in shuffled if half_of[one.group] == half][:half_count]}
    return SceneTest(donors=tuple(donors), halves=dict(sorted(halves.items())))
