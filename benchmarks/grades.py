"""How well the grades of `bgaug.shots.quality` foretell how good the masks are, which they are given without any truth.

python benchmarks/grades.py [--truth gt|ut|real|scenarios] [--data DIR] [--methods a,b] [--sequences a,b] [--json]

The kinds of truth are those of `accuracy.py`; real is gt and ut together. A row for each shot and method: score and
grade, the F1 that the masks really have, what lowered the score; then the rank correlation of score and F1. Methods are
taken as they are, without looking at the camera first: those that fail are what a grade must find. Grading is timed in
CPU milliseconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from accuracy import LOADERS, Sequence, Shot, fail, find_sequences, short_name

from bgaug.background import ShotSampler, ShotSamples, background_of
from bgaug.masks import foreground_mask
from bgaug.names import BACKGROUND_METHODS as METHODS
from bgaug.shots.cuts import camera_motion
from bgaug.shots.quality import grade_shot
from bgaug.testing.scores import MaskScores

DEFAULT = "auto,median,patches,plate"
BAD, GOOD = 0.5, 0.9

Row = dict[str, Any]


def rows_of(truth: str, data: Path, wanted: list[str], methods: list[str], max_masks: int = 60) -> list[Row]:
    """Rows of all sequences of one kind whose masks are scored."""
    rows = []
    for item in find_sequences(truth, data, wanted):
        sequence = LOADERS[truth](item, None)
        for shot in sequence.shots:
            if any(shot.start <= index < shot.stop for index in sequence.masks):
                rows += rows_of_shot(sequence, shot, methods, max_masks)
    return rows


def rows_of_shot(sequence: Sequence, shot: Shot, methods: list[str], max_masks: int) -> list[Row]:
    """One shot, by each method."""
    samples = samples_of(sequence, shot)
    camera = camera_motion(samples.images)
    name = short_name(sequence.name) + (f"@{shot.start}" if shot.start else "")
    rows = []
    for method in methods:
        background = background_of(samples, method)  # type: ignore[arg-type]
        begun = time.process_time()
        quality = grade_shot(samples, background, camera)
        milliseconds = 1000 * (time.process_time() - begun)
        row = {"sequence": name, "method": method, "camera": camera.verdict, "ms": milliseconds}
        row |= {"score": quality.score, "grade": quality.grade, "f1": true_f1(sequence, shot, background, max_masks)}
        rows.append(row | {"reasons": list(quality.reasons), "signals": quality.signals})
    return rows


def samples_of(sequence: Sequence, shot: Shot) -> ShotSamples:
    """Samples of a shot, at the size of its frames."""
    height, width = sequence.frames.shape[1:3]
    sampler = ShotSampler((height, width), side=min(height, width))
    for index, image in enumerate(sequence.frames[shot.start : shot.stop]):
        if sampler.wants(index):
            sampler.add(index, image)
    return sampler.shot()


def true_f1(sequence: Sequence, shot: Shot, background: Any, max_masks: int) -> float:
    """F1 of the masks over at most so many frames of the shot."""
    known = [index for index in sequence.masks if shot.start <= index < shot.stop]
    scores = MaskScores()
    for index in known[:: -(-len(known) // max_masks)]:
        scores.add(foreground_mask(sequence.frames[index : index + 1], background)[0], sequence.masks[index])
    return scores.f1


def spearman(rows: list[Row]) -> float:
    """Rank correlation of score and F1; ties share their mean rank."""
    score, f1 = (ranks(np.array([row[key] for row in rows])) for key in ("score", "f1"))
    if len(rows) < 3 or score.std() == 0 or f1.std() == 0:
        return float("nan")
    return float(np.corrcoef(score, f1)[0, 1])


def ranks(values: Any) -> Any:
    """Mean rank of each value."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def summary(rows: list[Row]) -> dict[str, Any]:
    """The figures under the table."""
    auto = [row for row in rows if row["method"] == "auto"]
    bad, good = [row for row in rows if row["f1"] < BAD], [row for row in rows if row["f1"] > GOOD]
    return {
        "backgrounds": len(rows),
        "spearman": spearman(rows),
        "spearman_auto": spearman(auto),
        "mean_error": float(np.mean([abs(row["score"] - row["f1"]) for row in rows])),
        "bad": len(bad),
        "bad_but_a_to_c": [f"{row['sequence']} {row['method']}" for row in bad if row["grade"] in "ABC"],
        "good": len(good),
        "good_and_a_or_b": sum(row["grade"] in "AB" for row in good),
        "ms": float(np.median([row["ms"] for row in rows])),
        "signals": {
            key: spearman([{"score": row["signals"][key], "f1": row["f1"]} for row in rows])
            for key in rows[0]["signals"]
        },
    }


def show(rows: list[Row]) -> None:
    """The table, and what it comes to."""
    print(f"{'sequence':14s}{'method':9s}{'score':>6s} grade{'F1':>6s}  reasons")
    for row in sorted(rows, key=lambda row: row["f1"]):
        start = f"{row['sequence']:14s}{row['method']:9s}{row['score']:6.2f}   {row['grade']}  {row['f1']:6.2f}  "
        print(start + "; ".join(row["reasons"]))
    found = summary(rows)
    rho = f"Spearman {found['spearman']:.3f}, auto alone {found['spearman_auto']:.3f}"
    print(f"\n{rho}; mean error {found['mean_error']:.3f}")
    print(f"F1 below {BAD}: {found['bad']}, of them A, B or C: {', '.join(found['bad_but_a_to_c']) or 'none'}")
    print(f"F1 above {GOOD}: {found['good']}, of them A or B: {found['good_and_a_or_b']}")
    print("Spearman of each signal: " + ", ".join(f"{key} {value:.2f}" for key, value in found["signals"].items()))
    print(f"{found['ms']:.1f} ms CPU a grade (median)")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--truth", choices=[*LOADERS, "real"], default="real")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BGAUG_TEST_DATA", beside)))
    parser.add_argument("--methods", default=DEFAULT, help=f"comma-separated, of {', '.join(METHODS)}")
    parser.add_argument("--sequences", default="", help="comma-separated, with or without the data set's prefix")
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    options = parser.parse_args(arguments)
    options.methods = [name for name in options.methods.split(",") if name]
    if unknown := set(options.methods) - set(METHODS):
        fail(f"unknown methods {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    if options.truth == "real" and options.sequences:
        fail("--sequences needs --truth gt, ut or scenarios")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Grade, score and print."""
    cv2.setNumThreads(1)
    options = parse(arguments)
    kinds = ["gt", "ut"] if options.truth == "real" else [options.truth]
    wanted = [name for name in options.sequences.split(",") if name]
    rows = [row for kind in kinds for row in rows_of(kind, options.data, wanted, options.methods)]
    if not rows:
        fail("no sequence among these has masks to score")
    if options.json:
        print(json.dumps({"truth": options.truth, "rows": rows, "summary": summary(rows)}))
    else:
        show(rows)


if __name__ == "__main__":
    main()
