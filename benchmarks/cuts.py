"""How well shot boundaries are found: made films with known cuts, dissolves and fades, next to PySceneDetect.

python benchmarks/cuts.py [--data DIR] [--folds 3] [--films 10] [--seed 0] [--keep DIR] [--quick] [--json]

Films are joined from clips of JHMDB (the folds named), or of the folder `clips` (`--folds clips`; its videos of one
shot): every shot has 30 to 90 frames, clips that are shorter go back and forth, and no film uses a source twice.
Between two shots is a hard cut, a dissolve of 8, 15 or 30 frames, linear or soft, or a fade to black or white of 8, 15
or 30 frames, one to twelve flat frames, and a fade in as long. They are written as H.264 at 320x240, and all detectors
read the same files.

A detector reports frames: the first of a new shot, or the middle of a transition. One counts as right if it lies in a
transition or at most two frames from it, and only one for each transition; all others are wrong. For PySceneDetect
these are the starts of its scenes, with its default options. IoU: mean over the transitions that are found of the
frames that both intervals share, relative to those of either. Single shots: clips of the same folds, of which no
boundary is right. CPU time is that of the process, with decoding, per frame. PySceneDetect is `pip install
scenedetect`; without it only bgaug is measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.shots.boundaries import ShotFinder
from bgaug.shots.gradual import Boundary
from bgaug.video import open_video, read_video, write_video

DATA = Path(__file__).parents[2] / "shared" / "data"
SIZE, FPS = (240, 320), 30.0
KINDS, LENGTHS, SHOTS = ("cut", "dissolve", "fade"), (8, 15, 30), 8
TOLERANCE = 2
PEERS = ("ContentDetector", "AdaptiveDetector", "HistogramDetector", "HashDetector", "ThresholdDetector")
SEVERAL_SHOTS = {"bikes.mp4", "scene_cuts.mp4", "mmaction2_demo.mp4", "mmaction2_demo_spatiotemporal_det.mp4"}

Frames = NDArray[np.uint8]
Detector = Callable[[Path], list[Boundary]]


class Film(NamedTuple):
    """A file and its boundaries."""

    path: Path
    truth: list[Boundary]
    num_frames: int


def sources_of(data: Path, folds: str) -> dict[str, list[Path]]:
    """Files of one shot by their source."""
    found: dict[str, list[Path]] = defaultdict(list)
    if folds == "clips":
        for path in sorted((data / "clips").iterdir()):
            if path.name not in SEVERAL_SHOTS:
                found[path.name].append(path)
        return found
    root, wanted = data / "actions" / "jhmdb", folds.split(",")
    with (root / "labels.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row["fold"] in wanted:
                found[row["group"]].append(root / row["file"])
    return found


def back_and_forth(path: Path, begin: int, count: int) -> Frames:
    """So many frames of a clip at `SIZE`, from frame `begin` on."""
    frames = read_video(path).frames[:240]
    places = (begin + np.arange(count)) % max(1, 2 * len(frames) - 2)
    places = np.minimum(places, 2 * len(frames) - 2 - places)
    return np.stack([cv2.resize(frames[place], SIZE[::-1], interpolation=cv2.INTER_AREA) for place in places])


def mixed(old: Frames, new: Frames | Sequence[int], share: NDArray[np.float64]) -> Frames:
    """(1 - a) old + a new, frame by frame."""
    a = share[:, None, None, None]
    return np.rint((1 - a) * old + a * np.asarray(new)).astype(np.uint8)


def make_film(rng: np.random.Generator, sources: dict[str, list[Path]], path: Path, num_shots: int) -> Film:
    """Write a film."""
    names = [list(sources)[i] for i in rng.permutation(len(sources))[:num_shots]]
    lengths = rng.integers(30, 91, len(names)).tolist()
    longest = LENGTHS[-1]
    shots = [
        back_and_forth(sources[name][rng.integers(len(sources[name]))], int(rng.integers(30)), length + 2 * longest)
        for name, length in zip(names, lengths, strict=True)
    ]
    parts, truth, used, count = list[Frames](), list[Boundary](), 0, 0
    for number, (shot, length) in enumerate(zip(shots, lengths, strict=True)):
        parts.append(shot[used : used + length])
        count += length
        if number == len(shots) - 1:
            break
        middle, used, kind = transition(rng, shot[used + length :], shots[number + 1])
        truth.append(Boundary(count, count + len(middle), kind))  # type: ignore[arg-type]
        count += len(middle)
        parts.append(middle)
    write_video(path, np.concatenate(parts), fps=FPS)
    return Film(path, truth, count)


def transition(rng: np.random.Generator, old: Frames, new: Frames) -> tuple[Frames, int, str]:
    """The frames between two shots, how many frames of the new shot they use, and their kind."""
    kind, length = str(rng.choice(KINDS)), int(rng.choice(LENGTHS))
    a = np.arange(1, length + 1) / (length + 1)
    if rng.random() < 0.5:
        a = a * a * (3 - 2 * a)
    if kind == "cut":
        return new[:0], 0, kind
    if kind == "dissolve":
        return mixed(old[:length], new[:length], a), length, kind
    colour = [0, 0, 0] if rng.random() < 0.5 else [255, 255, 255]
    flat = np.broadcast_to(np.array(colour, np.uint8), (int(rng.integers(1, 13)), *new.shape[1:]))
    return np.concatenate([mixed(old[:length], colour, a), flat, mixed(new[:length], colour, a[::-1])]), length, kind


def ours(path: Path) -> list[Boundary]:
    """By `ShotFinder`."""
    finder = ShotFinder()
    with open_video(path) as reader:
        found = [each for frame in reader.scan() for each in finder.feed(frame.thumbnail())]
    return found + finder.finish()


def peers() -> Iterator[tuple[str, Detector]]:
    """The detectors of PySceneDetect, where it is installed."""
    try:
        import scenedetect
    except ImportError:
        return

    def by(name: str) -> Detector:
        def find(path: Path) -> list[Boundary]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scenes = scenedetect.detect(str(path), getattr(scenedetect, name)())
                starts = [int(start.get_frames()) for start, _ in scenes[1:]]
            return [Boundary(start, start, "cut") for start in starts]

        return find

    for name in PEERS:
        yield name, by(name)


def matched(truth: Sequence[Boundary], found: Sequence[Boundary]) -> tuple[list[Boundary | None], int]:
    """What was found of each boundary, and how many findings are wrong."""
    left, hits = list(found), list[Boundary | None]()
    for stop, start, _ in truth:
        near = [each for each in left if stop - TOLERANCE <= (each.stop + each.start) / 2 <= start + TOLERANCE]
        hits.append(near[0] if near else None)
        if near:
            left.remove(near[0])
    return hits, len(left)


def overlap(truth: Boundary, found: Boundary) -> float:
    """Intersection over union of two transitions."""
    shared = min(truth.start, found.start) - max(truth.stop, found.stop)
    return max(0, shared) / (max(truth.start, found.start) - min(truth.stop, found.stop))


def scores(films: Sequence[Film], singles: Sequence[Path], detect: Detector) -> dict[str, Any]:
    """Scores of a detector."""
    per_kind: dict[str, list[bool]] = defaultdict(list)
    wrong, overlaps, begun = 0, list[float](), time.process_time()
    found = [detect(film.path) for film in films]
    seconds = time.process_time() - begun
    for film, mine in zip(films, found, strict=True):
        hits, extra = matched(film.truth, mine)
        wrong += extra
        for true, hit in zip(film.truth, hits, strict=True):
            per_kind[true.kind].append(hit is not None)
            if hit is not None and true.kind != "cut" and hit.kind != "cut":
                overlaps.append(overlap(true, hit))
    right, total = sum(map(sum, per_kind.values())), sum(map(len, per_kind.values()))
    precision, recall = right / max(1, right + wrong), right / total
    return {
        "f1": 2 * precision * recall / max(1e-9, precision + recall),
        "precision": precision,
        "recall": recall,
        **{f"recall_{kind}": float(np.mean(per_kind[kind])) if per_kind[kind] else None for kind in KINDS},
        "iou": float(np.mean(overlaps)) if overlaps else None,
        "single_shots_cut": sum(bool(detect(path)) for path in singles),
        "cpu_ms_per_frame": 1000 * seconds / sum(film.num_frames for film in films),
    }


def measured(data: Path, folds: str, num_films: int, seed: int, folder: Path, num_singles: int) -> dict[str, Any]:
    """Scores of all detectors."""
    sources, rng = sources_of(data, folds), np.random.default_rng(seed)
    films = [make_film(rng, sources, folder / f"{folds}_{number}.mp4", SHOTS) for number in range(num_films)]
    singles = [path for paths in sources.values() for path in paths][:num_singles]
    detectors = {"bgaug": ours, **dict(peers())}
    counts = {kind: sum(each.kind == kind for film in films for each in film.truth) for kind in KINDS}
    about = {"films": num_films, "frames": sum(film.num_frames for film in films), "singles": len(singles), **counts}
    return {"films": about, "detectors": {name: scores(films, singles, each) for name, each in detectors.items()}}


def show(result: dict[str, Any]) -> None:
    """A table in Markdown."""
    print(", ".join(f"{count} {name}" for name, count in result["films"].items()))
    names = list(result["detectors"]["bgaug"])
    print("| detector | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for detector, row in result["detectors"].items():
        cells = ["" if row[name] is None else f"{row[name]:.3g}" for name in names]
        print(f"| {detector} | " + " | ".join(cells) + " |")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folds", default="3", help='folds of JHMDB, such as "0,1,2", or "clips"')
    parser.add_argument("--films", type=int, default=10)
    parser.add_argument("--singles", type=int, default=10_000, help="largest number of single shots")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to leave the films in")
    parser.add_argument("--quick", action="store_true", help="one film")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not (options.data / "actions" / "jhmdb").is_dir():
        parser.exit(2, f"{options.data} holds no actions/jhmdb; name the folder with --data\n")
    cv2.setNumThreads(1)
    films, singles = (1, 3) if options.quick else (options.films, options.singles)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        result = measured(options.data, options.folds, films, options.seed, folder, singles)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
