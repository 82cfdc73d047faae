"""Choosing the composites of a bias evaluation: foregrounds, donors, still frames and inserted foregrounds.

A draw is a hash of the seed, its purpose and the video's id. It does not depend on the number of workers, the batch
size or the number of composites.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.metrics.bias import Stripes, clear_shift
from bgaug.pipelines.evaluate.bias.composer import (
    REFERENCE_CROP,
    ClipReader,
    digest,
    donor_file,
    has_splits,
    image_files,
    video_group,
)
from bgaug.pipelines.evaluate.bias.manifest import Donor, Inserted, Manifest, Row, SceneTest
from bgaug.pipelines.evaluate.bias.scenes import check_grade, foreground_shot, scene_shot
from bgaug.progress import Progress

_TRIES = 64

if TYPE_CHECKING:
    from bgaug.pipelines.evaluate.options import BiasOptions

_Item = TypeVar("_Item")


def draw(count: int, *purpose: object) -> int:
    """A number in 0..count-1 that depends on its purpose only."""
    return (_word(*purpose) * count) >> 64


def uniforms(count: int, *purpose: object) -> list[float]:
    """Numbers in [0, 1) of six digits, so that a file holds them exactly."""
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
    moving: NDArray[np.uint8]  # (S, S), 0 or 1: union of its masks over time
    standing: NDArray[np.uint8]  # (S, S), its mask in that frame


def make_manifest(reader: ClipReader, content_hash: str, options: BiasOptions, progress: Progress) -> Manifest:
    """Choose foregrounds, donors, still frames and inserted foregrounds.

    Foregrounds are the labelled videos with masks, of the test split if the store has a train and a test split. Donors
    are of another class and, if possible, of another group.

    Raises:
        UsageError: these videos do not have two classes, or a grade is none.
        StoreError: the store has no such bank.
    """
    check_grade("min_grade", options.min_grade)
    check_grade("donor_grade", options.donor_grade)
    store = reader.store
    foregrounds, left_out = _foregrounds(reader, options, progress)
    labels = {one.label for one in foregrounds}
    if len(labels) < 2 and options.min_grade is not None:
        progress.warn(f"masks of grade {options.min_grade} or better do not have two classes: all grades are used")
        return make_manifest(reader, content_hash, replace(options, min_grade=None), progress)
    _warn_of(left_out, len(foregrounds), progress)
    if len(labels) < 2:
        raise UsageError(
            f"{store.path} has {len(foregrounds)} labelled test videos with foreground masks, of {len(labels)} "
            "classes; a bias evaluation needs two classes"
        )
    pick = _Picker(reader, options, progress)
    scale = reader.crop / REFERENCE_CROP
    rows = [
        row
        for one in foregrounds
        for row in (_row(one, k, donor, foregrounds, options.seed) for k, donor in enumerate(pick.donors(one)))
    ]
    same_class = {one.id: donor for one in foregrounds if (donor := pick.same_class(one)) is not None}
    return Manifest(
        content_hash=content_hash,
        seed=options.seed,
        num_frames=reader.num_frames,
        stride=reader.stride,
        crop=reader.crop,
        grow=round(options.grow * scale, 4),
        feather=round(options.feather * scale, 4),
        ring=round(options.ring * scale, 4),
        rows=tuple(rows),
        same_class=same_class,
        scene=_scene(foregrounds, pick.scenes(), options),
        masks_from=dict(Counter(store.masks_from(one.video, one.shot) for one in foregrounds).most_common()),
        left_out=left_out,
    )


def _foregrounds(
    reader: ClipReader, options: BiasOptions, progress: Progress
) -> tuple[list[_Foreground], dict[str, str]]:
    """The tested foregrounds, and by id why other test videos are left out."""
    store = reader.store
    requested = store.columns.label >= 0
    if has_splits(store):
        requested &= store.columns.split == store.names.splits.index("test")
    videos = np.flatnonzero(requested).tolist()
    if options.videos is not None and options.videos < len(videos):
        videos = sorted(
            sorted(videos, key=lambda video: _word(options.seed, "video", store.video_id(video)))[: options.videos]
        )
    progress.start("foregrounds", len(videos))
    found, left_out = [], {}
    for video in videos:
        one = _foreground(reader, video, options)
        if isinstance(one, str):
            left_out[store.video_id(video)] = one
        else:
            found.append(one)
        progress.advance()
    return found, left_out


def _warn_of(left_out: Mapping[str, str], kept: int, progress: Progress) -> None:
    for reason, count in Counter(left_out.values()).most_common():
        first = next(name for name, why in left_out.items() if why == reason)
        progress.warn(f"{count} of {len(left_out) + kept} test videos left out: {reason}, such as {first}")


def _foreground(reader: ClipReader, video: int, options: BiasOptions) -> _Foreground | str:
    """The foreground of a video, or why it cannot be tested."""
    store = reader.store
    shot, reason = foreground_shot(store, video, options.min_grade)
    if shot is None:
        return reason
    name = store.video_id(video)
    starts = reader.starts(video, shot, options.clips)
    frames = [reader.frames(video, shot, start) for start in starts]
    masks = np.stack([reader.mask(video, part)[0, 0].cpu().numpy() for part in frames])  # (clips, T, S, S)
    area = masks.mean(axis=(2, 3)).min(axis=0)
    if not area.any():
        return "no foreground in the clip"
    if masks.mean() < options.min_area:
        return f"foreground on less than {100 * options.min_area:g} % of the clip"
    showing = np.flatnonzero(area)
    still = int(showing[draw(len(showing), options.seed, "still", name)])
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
        start=other.starts[0],
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


def _pick(items: Sequence[_Item], purpose: Sequence[object], allowed: Callable[[_Item], bool]) -> _Item | None:
    """A random one of the allowed items; None if there is none."""
    for number in range(_TRIES if items else 0):
        item = items[draw(len(items), *purpose, number)]
        if allowed(item):
            return item
    left = [item for item in items if allowed(item)]  # few items are allowed
    return left[draw(len(left), *purpose, "left")] if left else None


class _Picker:
    """Donors from one source.

    Raises:
        UsageError: the source is empty.
        StoreError: the store has no such bank.
    """

    def __init__(self, reader: ClipReader, options: BiasOptions, progress: Progress) -> None:
        self.reader, self.options, self.seed = reader, options, options.seed
        self.all: list[Donor] = []
        self.videos = _scene_donors(reader, options.donor_grade)
        if options.donors == "backgrounds":
            if len({one.label for one in self.videos}) < 2 and options.donor_grade is not None:
                progress.warn(
                    f"backgrounds of grade {options.donor_grade} or better do not have two classes: all are used"
                )
                self.videos = _scene_donors(reader, None)
            self.all = self.videos
        elif options.donors == "bank":
            if options.bank is None:
                raise UsageError('donors="bank" needs the name of a bank; `bgaug import --backgrounds` makes one')
            bank = reader.store.bank(options.bank)
            images = zip(bank.names, bank.images, strict=True)
            self.all = [Donor(kind="bank", id=f"{bank.name}/{name}", sha256=digest(image)) for name, image in images]
        elif options.donors == "folder":
            if options.folder is None:
                raise UsageError('donors="folder" needs a folder of images')
            files = [(name, donor_file(options.folder / name)) for name in image_files(options.folder)]
            self.all = [Donor(kind="file", id=name, sha256=digest(image)) for name, image in files]
        elif options.donors != "stripes":
            raise UsageError(f"donors must be backgrounds, stripes, bank or folder, got {options.donors!r}")
        self.groups = {one.id: video_group(reader.store, reader.store.find(one.id)) for one in self.videos}
        self.of_class: defaultdict[str | None, list[Donor]] = defaultdict(list)
        for one in self.videos:
            self.of_class[one.label].append(one)

    def donors(self, one: _Foreground) -> list[Donor]:
        """A donor for each composite of a foreground, different ones as far as possible."""
        found: list[Donor] = []
        for k in range(self.options.composites):
            found.append(self._donor(one, k, {donor.id for donor in found}))
        return found

    def _donor(self, one: _Foreground, k: int, used: set[str]) -> Donor:
        if self.options.donors == "stripes":
            return self._stripes(one.id, k)
        purpose = (self.seed, "donor", one.id, k)

        def foreign(donor: Donor) -> bool:
            return donor.label != one.label and self.groups.get(donor.id) != one.group

        found = _pick(self.all, purpose, lambda donor: foreign(donor) and donor.id not in used)
        found = found or _pick(self.all, purpose, foreign)
        found = found or _pick(self.all, purpose, lambda donor: donor.label != one.label)
        if found is None:
            raise UsageError(
                f"no video of another class shows its scene behind {one.id}; use stripes, a bank or a folder"
            )
        return found

    def same_class(self, one: _Foreground) -> Donor | None:
        """The scene of another video of the same class and another group; None if there is none."""
        purpose = (self.seed, "same class", one.id)
        return _pick(self.of_class[one.label], purpose, lambda donor: self.groups[donor.id] != one.group)

    def _stripes(self, *purpose: object) -> Donor:
        name = f"stripes {_word(self.seed, 'stripes', *purpose):016x}"
        return Donor(kind="stripes", id=name, stripes=Stripes.draw(uniforms(9, self.seed, "stripes", *purpose)))

    def scenes(self) -> list[Donor]:
        """Images for the scene probe, of as many groups as possible."""
        if self.options.donors == "stripes":
            return [self._stripes("scene", number) for number in range(self.options.scenes)]
        shuffled = sorted(self.all, key=lambda donor: _word(self.seed, "scene", donor.id))
        if self.options.donors == "backgrounds":
            # The first donor of every group comes before the second of any.
            met: Counter[str] = Counter()
            turns = {}
            for donor in shuffled:
                turns[donor.id] = met[self.groups[donor.id]]
                met[self.groups[donor.id]] += 1
            shuffled.sort(key=lambda donor: turns[donor.id])
        return shuffled[: self.options.scenes]


def _scene_donors(reader: ClipReader, least: str | None) -> list[Donor]:
    """The labelled videos whose scene can be shown without its foreground, with backgrounds of a sufficient grade."""
    store, found = reader.store, []
    for video in np.flatnonzero(store.columns.label >= 0).tolist():
        shot = scene_shot(store, video, least)
        if shot is not None:
            label = store.header.classes[int(store.columns.label[video])]
            found.append(Donor(kind="video", id=store.video_id(video), shot=shot, label=label))
    return found


def _scene(foregrounds: Sequence[_Foreground], donors: Sequence[Donor], options: BiasOptions) -> SceneTest | None:
    """Two halves of some foregrounds by group; None if there are fewer than two groups or two images."""
    seed = options.seed
    groups = sorted({one.group for one in foregrounds}, key=lambda group: _word(seed, "scene group", group))
    if len(donors) < 2 or len(groups) < 2 or options.scene_foregrounds < 2:
        return None
    # Every other group of a random order: both halves have as many groups.
    half_of = {group: place % 2 for place, group in enumerate(groups)}
    shuffled = sorted(foregrounds, key=lambda one: _word(seed, "scene foreground", one.id))
    halves: dict[str, int] = {}
    for half in (0, 1):
        half_count = options.scene_foregrounds // 2
        halves |= {one.id: half for one in [one for one in shuffled if half_of[one.group] == half][:half_count]}
    return SceneTest(donors=tuple(donors), halves=dict(sorted(halves.items())))
