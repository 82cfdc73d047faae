"""How near every background method and its masks come to the truth, beside the methods that others use.

python benchmarks/accuracy.py [--truth gt|ut|scenarios] [--data DIR] [--methods a,b] [--sequences a,b] [--refine]
[--json]
    [--every N] [--jobs N]

--truth gt: a folder of sequences with `video.*`, `gt.zip` (%06d.png by frame), `bg_ref.png`, `bg_valid.png`.
--truth ut: a folder of clips with `plate.png`, `valid.png`, `masks.zip`; videos in `../ut_interaction_set1`.
--truth scenarios: scenes that `bgaug.testing.scenarios` makes, passed through H.264, cut into shots by
`bgaug.shots.cuts`.

Every method sees the same frames. Backgrounds and masks are timed in CPU seconds of one thread, decoding left out. A
peer's mask is passed through a 5x5 median and a 3x3 closing, as ours is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
import torch
from numpy.typing import NDArray

from bgaug import pairs
from bgaug.background import Background
from bgaug.masks import difference_mask, foreground_mask
from bgaug.names import BACKGROUND_METHODS as METHODS
from bgaug.shots.cuts import CutFinder
from bgaug.shots.estimate import estimate_background
from bgaug.sizing import resize_area
from bgaug.testing.scenarios import LENGTHS, SCENARIOS, make_scenario
from bgaug.testing.scores import FOREGROUND, MaskScores, background_scores, ghost_share
from bgaug.video import read_video, thumbnail_of

Frames = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Row = dict[str, Any]

STATIC = ("office", "board", "cavignal", "highwayi", "humanbody2")
MOVING_CAMERA = ("birds", "cyclists", "surfers", "jump", "skiing")  # a static background of theirs there is none
MASKS_UNSCORED = ("foliage",)  # its truth looks like thresholded differences
SKIPPED_FRAMES = {"highwayi": 15}
MANY_FRAMES = 300  # longer sequences are scored at every fifth frame only
EVERY = 5
ZONE_SHARE = 0.05  # of the time covered: the pixels that zAGE looks at
FAME_SHARE, FAME_FRAMES, FAME_STRIDE, FAME_SIDE = 0.35, 16, 2, 112
POST = "median 5, close 3"
PERFECT = "perfect background"
PLAIN_THRESHOLD = 25  # of the plain median; the best of 20 to 40 on scenes with tiny movers

COLUMNS = {
    "age": ("AGE", 7, 2),
    "age_rgb": ("AGErgb", 7, 2),
    "zage": ("zAGE", 7, 2),
    "peps": ("pEPs%", 7, 2),
    "ms_ssim": ("MS-SSIM", 8, 3),
    "ghost": ("ghost", 7, 3),
    "f1": ("F1", 7, 3),
    "iou": ("IoU", 7, 3),
    "boundary_f": ("bndF", 7, 3),
    "background_seconds": ("bg s", 8, 3),
    "mask_ms": ("mask ms", 8, 2),
}


@dataclass(frozen=True, eq=False)
class Shot:
    """Frames start to stop of a sequence, the true background (H, W, 3), and the frame that saw it so."""

    start: int
    stop: int
    truth: Frames
    reference: int


@dataclass(frozen=True, eq=False)
class Sequence:
    """A video and its truth: of each shot the background, and the masks of some frames, uint8 (H, W), by number."""

    name: str
    frames: Frames
    shots: list[Shot]
    valid: Bools
    masks: dict[int, Frames]
    persons: Bools | None = None
    zone: Bools | None = None
    moving_camera: bool = False


# The three kinds of truth.


def load_gt(folder: Path, every: int | None) -> Sequence:
    """A sequence with a mask for every frame."""
    video = next(path for path in sorted(folder.glob("video.*")))
    frames = read_video(video).frames
    short = short_name(folder.name)
    step = every or (EVERY if len(frames) > MANY_FRAMES else 1)
    masks = read_masks(folder / "gt.zip")
    first = SKIPPED_FRAMES.get(short, 0)
    chosen = {i: masks[i] for i in sorted(masks) if first <= i < len(frames) and i % step == 0}
    return Sequence(
        name=folder.name,
        frames=frames,
        shots=[Shot(0, len(frames), read_picture(folder / "bg_ref.png"), 0)],
        valid=read_grey(folder / "bg_valid.png") > 0,
        masks={} if short in MASKS_UNSCORED else chosen,
        moving_camera=short in MOVING_CAMERA,
    )


def load_ut(folder: Path, every: int | None) -> Sequence:
    """A clip of people who never leave."""
    frames = read_video(folder.parents[1] / "ut_interaction_set1" / f"{folder.name}.avi").frames
    masks = read_masks(folder / "masks.zip")
    valid = read_grey(folder / "valid.png") > 0
    return Sequence(
        name=folder.name,
        frames=frames,
        shots=[Shot(0, len(frames), read_picture(folder / "plate.png"), 0)],
        valid=valid,
        masks={i: mask for i, mask in masks.items() if i % (every or 1) == 0},
        persons=valid & np.any([mask == FOREGROUND for mask in masks.values()], 0),
    )


def load_scenario(name: str, every: int | None) -> Sequence:
    """A scenario as a compressed file would bring it, cut where `CutFinder` finds cuts."""
    scenario = make_scenario(name, compress=True)
    num_frames = len(scenario.frames)
    step = every or (1 if name in LENGTHS else EVERY)
    shots = []
    finder = CutFinder()
    cuts = [cut for image in scenario.frames if (cut := finder.feed(thumbnail_of(image))) is not None]
    for start, stop in pairwise([0, *cuts, *finder.finish(), num_frames]):
        number = sum((start + stop) // 2 >= cut for cut in scenario.cuts)
        edges = [0, *scenario.cuts, num_frames]
        shots.append(Shot(start, stop, scenario.backgrounds[number], (edges[number] + edges[number + 1]) // 2))
    return Sequence(
        name=name,
        frames=scenario.frames,
        shots=shots,
        valid=np.ones(scenario.frames.shape[1:3], np.bool_),
        masks={i: np.where(scenario.masks[i], FOREGROUND, 0).astype(np.uint8) for i in range(0, num_frames, step)},
        zone=scenario.masks.mean(0) > ZONE_SHARE,
    )


LOADERS: dict[str, Callable[[Any, int | None], Sequence]] = {"gt": load_gt, "ut": load_ut, "scenarios": load_scenario}
NEEDED = {"gt": ("gt.zip", "bg_ref.png", "bg_valid.png"), "ut": ("masks.zip", "plate.png", "valid.png")}
PLACES = {"gt": "backgrounds", "ut": "actions/ut_truth"}


def find_sequences(truth: str, data: Path, wanted: list[str]) -> list[Any]:
    """Folders of the sequences, or names of the scenarios; exits with 2 where there are none."""
    found: list[Any]
    if truth == "scenarios":
        found = list(SCENARIOS)
    else:
        place = data / PLACES[truth] if (data / PLACES[truth]).is_dir() else data
        folders = sorted(place.iterdir()) if place.is_dir() else []
        found = [folder for folder in folders if all((folder / name).is_file() for name in NEEDED[truth])]
        if not found:
            fail(f"no sequences in {place}: looked for folders with {', '.join(NEEDED[truth])}; say --data DIR")
    names = [{Path(item).name, short_name(Path(item).name)} for item in found]
    if missing := set(wanted) - set().union(*names):
        fail(f"no such sequence: {', '.join(sorted(missing))}")
    return [item for item, called in zip(found, names, strict=True) if not wanted or called & set(wanted)]


def data_folder() -> Path:
    """Where real videos are looked for."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("BGAUG_TEST_DATA", beside))


def fail(message: str) -> None:
    """Wrong usage: one line, exit 2."""
    print(message, file=sys.stderr)
    raise SystemExit(2)


def short_name(name: str) -> str:
    """Name of a sequence without that of its data set: "office" of "cdnet_office"."""
    return name.split("_", 1)[-1] if not name[0].isdigit() else name


def read_picture(path: Path) -> Frames:
    """RGB picture, uint8 (H, W, 3)."""
    return np.asarray(cv2.cvtColor(np.asarray(cv2.imread(str(path))), cv2.COLOR_BGR2RGB), np.uint8)


def read_grey(path: Path) -> Frames:
    """Grey picture, uint8 (H, W)."""
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)


def read_masks(path: Path) -> dict[int, Frames]:
    """Masks by number of their frame."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        data = {int(Path(name).stem): np.frombuffer(archive.read(name), np.uint8) for name in names}
    return {i: np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8) for i, coded in sorted(data.items())}


# Our methods: a background, and the masks that follow from it.


def score_method(sequence: Sequence, method: str, refine: bool) -> Row:
    """One of `METHODS` on one sequence."""
    rows = []
    masks = MaskScores()
    for shot in sequence.shots:
        frames = sequence.frames[shot.start : shot.stop]
        begun = time.process_time()
        background = estimate_background(frames, method)  # type: ignore[arg-type]
        seconds = time.process_time() - begun
        row = score_background(sequence, shot, background)
        mask_seconds = score_masks(sequence, shot, background, refine, masks)
        rows.append({**row, "background_seconds": seconds, "mask_seconds": mask_seconds})
    row = {key: mean(row[key] for row in rows) for key in rows[0]}
    row["background_seconds"] = sum(row["background_seconds"] for row in rows)
    return finished(row, masks, sum(row["mask_seconds"] for row in rows))


def score_perfect(sequence: Sequence, refine: bool) -> Row:
    """Our masks on the true background, with the noise that the frames have: the ceiling of a difference."""
    masks, seconds = MaskScores(), 0.0
    for shot in sequence.shots:
        noise = estimate_background(sequence.frames[shot.start : shot.stop], "median").noise
        seconds += score_masks(sequence, shot, Background(shot.truth, noise, sequence.valid), refine, masks)
    return finished({}, masks, seconds)


def score_background(sequence: Sequence, shot: Shot, background: Background) -> Row:
    """Scores of a background, as the shot's reference frame sees it; none under a moving camera."""
    if sequence.moving_camera:
        return {}
    inside = min(max(shot.reference - shot.start, 0), shot.stop - shot.start - 1)
    image = background.image if sequence.zone is None else background.at(inside)  # scenarios know what it saw
    row = asdict(background_scores(image, shot.truth, sequence.valid))
    if sequence.zone is not None:
        row["zage"] = background_scores(image, shot.truth, sequence.zone).age
    if sequence.persons is not None:
        row["ghost"] = ghost_share(image, shot.truth, sequence.persons)
    return row


def score_masks(sequence: Sequence, shot: Shot, background: Background, refine: bool, scores: MaskScores) -> float:
    """Add the masks of a shot's scored frames to the scores; CPU seconds that the masks took."""
    chosen = [i for i in sequence.masks if shot.start <= i < shot.stop]
    if not chosen:
        return 0.0
    frames = sequence.frames[chosen]
    begun = time.process_time()
    masks = foreground_mask(frames, background, refine=refine)
    seconds = time.process_time() - begun
    for index, mask in zip(chosen, masks, strict=True):
        scores.add(mask, sequence.masks[index])
    return seconds


def finished(row: Row, masks: MaskScores, mask_seconds: float) -> Row:
    """A row with what was counted over all masks of a sequence."""
    row = {key: value for key, value in row.items() if key != "mask_seconds"}
    if masks.num_frames:
        row |= {"f1": masks.f1, "iou": masks.iou, "boundary_f": masks.boundary_f}
        row["mask_ms"] = 1000 * mask_seconds / masks.num_frames
    return row


# The peers: masks alone, one after another in order of time.


def subtractor_masks(frames: Frames, make: Callable[[], Any], warm: bool) -> Iterator[Bools]:
    """Masks of one of OpenCV's background subtractors, in one pass, or in a second after a whole first one."""
    subtractor = make()
    if warm:
        for image in frames:
            subtractor.apply(image)
    for image in frames:
        yield cleaned(subtractor.apply(image) > 0)


def difference_masks(frames: Frames) -> Iterator[Bools]:
    """Difference of each frame to the one before; cleaned inside."""
    for index, image in enumerate(frames):
        yield difference_mask(image, frames[max(0, index - 1)])


def fame_masks(frames: Frames) -> Iterator[Bools]:
    """FAME's mask of 16 frames from the middle at 112x112, resized to full size, for every frame."""
    stride = FAME_STRIDE if len(frames) > FAME_STRIDE * (FAME_FRAMES - 1) else 1
    count = min(FAME_FRAMES, len(frames))
    first = (len(frames) - 1 - stride * (count - 1)) // 2
    clip = np.stack([resize_area(frames[first + stride * k], (FAME_SIDE, FAME_SIDE)) for k in range(count)])
    height, width = frames.shape[1:3]
    tensor = torch.from_numpy(clip).permute(3, 0, 1, 2)[None] / 255
    small = pairs.fame_masks(tensor, FAME_SHARE)[0, 0, 0].numpy().astype(np.uint8)
    mask = cleaned(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST) > 0)
    for _ in frames:
        yield mask


def plain_masks(frames: Frames) -> Iterator[Bools]:
    """What differs from the median of 51 frames by a fixed threshold, after a 3x3 median: no other step."""
    chosen = np.linspace(0, len(frames) - 1, min(51, len(frames))).round().astype(int)
    median = np.median(frames[chosen], 0).astype(np.uint8)
    for image in frames:
        differs = (cv2.absdiff(image, median).max(2) > PLAIN_THRESHOLD).astype(np.uint8)
        yield np.asarray(cv2.medianBlur(differs, 3) > 0)


def cleaned(mask: Any) -> Bools:
    """A mask after the same clean-up as ours."""
    smooth = cv2.medianBlur(np.asarray(mask, np.uint8), 5)
    return np.asarray(cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0)


def mog2() -> Any:
    """OpenCV's defaults, without shadows."""
    return cv2.createBackgroundSubtractorMOG2(detectShadows=False)


def knn() -> Any:
    """OpenCV's defaults, without shadows."""
    return cv2.createBackgroundSubtractorKNN(detectShadows=False)


PEERS: dict[str, Callable[[Frames], Iterable[Bools]]] = {
    f"plain median > {PLAIN_THRESHOLD}": plain_masks,
    "MOG2 online": lambda frames: subtractor_masks(frames, mog2, warm=False),
    "MOG2 warm": lambda frames: subtractor_masks(frames, mog2, warm=True),
    "KNN online": lambda frames: subtractor_masks(frames, knn, warm=False),
    "KNN warm": lambda frames: subtractor_masks(frames, knn, warm=True),
    "frame difference": difference_masks,
    f"FAME {FAME_SHARE}": fame_masks,
}


def score_peer(sequence: Sequence, masks_of: Callable[[Frames], Iterable[Bools]]) -> Row:
    """A peer on one sequence: it sees every frame, and those with a truth are scored."""
    scores, seconds, begun = MaskScores(), 0.0, time.process_time()
    for index, mask in enumerate(masks_of(sequence.frames)):
        seconds += time.process_time() - begun
        if index in sequence.masks:
            scores.add(mask, sequence.masks[index])
        begun = time.process_time()
    row = finished({}, scores, seconds)
    return {**row, "mask_ms": 1000 * seconds / len(sequence.frames)} if row else row


# Everything on everything.


def score_sequence(item: Any, truth: str, methods: list[str], refine: bool, every: int | None) -> tuple[str, Row]:
    """All methods and peers on one sequence."""
    cv2.setNumThreads(1)
    sequence = LOADERS[truth](item, every)
    rows: Row = {}
    for method in methods:
        try:
            rows[method] = score_method(sequence, method, refine)
        except Exception as error:  # noqa: BLE001 - its row says why, the others go on
            rows[method] = {"error": f"{type(error).__name__}: {error}"}
    if sequence.masks:
        rows |= {name: score_peer(sequence, masks_of) for name, masks_of in PEERS.items()}
        rows[PERFECT] = score_perfect(sequence, refine)
    return sequence.name, rows


def groups_of(truth: str, names: list[str]) -> dict[str, list[str]]:
    """Which sequences are averaged together."""
    if truth == "gt":
        return {"static": [name for name in names if short_name(name) in STATIC], "all": names}
    return {"ut" if truth == "ut" else "all": names}


def means_over(sequences: dict[str, Row], names: list[str]) -> Row:
    """Mean of each column over the sequences that have it, by method."""
    methods = list(dict.fromkeys(method for name in names for method in sequences[name]))
    found: Row = {}
    for method in methods:
        rows = [sequences[name][method] for name in names if method in sequences[name]]
        known = {key: [row[key] for row in rows if key in row] for key in COLUMNS}
        found[method] = {key: statistics.fmean(values) for key, values in known.items() if values}
        found[method]["failed"] = sum("error" in row for row in rows)
    return found


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean."""
    return statistics.fmean(values)


def notes_on(truth: str, options: argparse.Namespace) -> list[str]:
    """What one must know to read the numbers."""
    notes = [
        "AGE: mean absolute error in grey levels of the luminance (BT.601); AGErgb: of the three channels.",
        "pEPs: share of pixels whose luminance is off by more than 20. Background and masks in CPU time.",
        f"Peers' masks: {POST}. Warm: masks of a second pass.",
        f"FAME: one mask a clip from {FAME_FRAMES} frames, stride {FAME_STRIDE}, {FAME_SIDE}x{FAME_SIDE}.",
        f"Ours and {PERFECT}: {'refined by GrabCut' if options.refine else 'not refined'}.",
    ]
    if truth == "gt":
        usual = f"every frame, every {EVERY}th above {MANY_FRAMES} frames"
        notes += [
            f"Masks scored: {f'every {options.every}th frame' if options.every else usual}; in highwayi from frame 15.",
            "foliage: no mask scores. traffic: the camera jitters.",
            f"No background scores, for their cameras move: {', '.join(MOVING_CAMERA)}.",
        ]
    if truth == "ut":
        notes.append(f"The truth was made by differencing against the plate: {PERFECT} proves nothing here.")
    if truth == "scenarios":
        notes += [
            f"zAGE: AGE where walkers are more than {ZONE_SHARE:.0%} of the time. Seed 0, H.264 crf 23.",
            f"Masks scored: every {options.every or EVERY}th frame.",
            f"{PERFECT}: the scene before H.264, which lets colours bleed at edges; one from the frames can do better.",
            "pan: no static background, the middle frame's view is taken for it. stop60: who stands is the majority.",
        ]
    return notes


def print_table(title: str, rows: dict[str, Row]) -> None:
    """One table: a row a method, a column where any row has one."""
    used = [key for key in COLUMNS if any(key in row for row in rows.values())]
    print(f"\n{title:24s}" + "".join(f"{COLUMNS[key][0]:>{COLUMNS[key][1]}}" for key in used))
    for name, row in rows.items():
        if "error" in row:
            print(f"  {name:22s}{row['error']}")
            continue
        cells = []
        for key in used:
            _, width, digits = COLUMNS[key]
            cells.append(f"{row[key]:{width}.{digits}f}" if key in row else f"{'-':>{width}}")
        failed = f"  ({row['failed']} failed)" if row.get("failed") else ""
        print(f"  {name:22s}" + "".join(cells) + failed)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--truth", choices=list(LOADERS), default="gt")
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated; all by default")
    parser.add_argument("--sequences", default="", help="comma-separated, with or without the data set's prefix")
    parser.add_argument("--refine", action="store_true", help="our masks with GrabCut")
    parser.add_argument("--every", type=int, help="score the masks of every so many frames")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", action="store_true", help="one object instead of tables")
    options = parser.parse_args(arguments)
    options.methods = [name for name in options.methods.split(",") if name]
    if unknown := set(options.methods) - set(METHODS):
        fail(f"unknown methods {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    if options.jobs < 1 or (options.every is not None and options.every < 1):
        fail("--jobs and --every must be 1 or more")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Score and print."""
    options = parse(arguments)
    items = find_sequences(options.truth, options.data, [name for name in options.sequences.split(",") if name])
    work = joblib.delayed(score_sequence)
    jobs = [work(item, options.truth, options.methods, options.refine, options.every) for item in items]
    sequences: dict[str, Row] = dict(joblib.Parallel(n_jobs=options.jobs)(jobs))
    groups = {group: names for group, names in groups_of(options.truth, list(sequences)).items() if names}
    means = {group: means_over(sequences, names) for group, names in groups.items()}
    notes = notes_on(options.truth, options)
    if options.json:
        print(json.dumps({"truth": options.truth, "notes": notes, "sequences": sequences, "means": means}))
        return
    for name, rows in sequences.items():
        print_table(name, rows)
    for group, rows in means.items():
        print_table(f"mean of {group} ({len(groups[group])})", rows)
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
