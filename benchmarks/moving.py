"""Masks, grades and backgrounds against truth, where cameras move and people never leave, with simpler methods.

python benchmarks/moving.py [DATA] [--segmenter PATH] [--folds 3] [--every N] [--jobs N] [--parts masks,cameras]
    [--json]

masks: J (IoU) and F1 of JHMDB and of the four sequences of DAVIS that nothing was fitted to, as means over frames, then
over videos. The masks are made as `bgaug build-shards` makes them, at the size of the frames. In the tolerant J a band
of 5 pixels (at 240 of short side) to both sides of the true edge is not scored. The first and the last frame of DAVIS
are left out. Then, how well grades and scores foretell J, and how many moving shots get a background.
cameras: virtual cameras over static scenes whose plate is known, with three seeds each: AGE is the mean difference of
the largest channel, over all, behind bodies, and that of the plain frame outside bodies, the floor.

CPU seconds per second of video, in one thread: extraction alone (`process_video`), and with frames and masks made in a
second pass, without encoding and writing them. The rate of JHMDB's videos is that of their files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import joblib
import numpy as np
from accuracy import data_folder, difference_masks, fail, fame_masks, plain_masks
from moving_data import CAMERAS, REPORTED, SCENES, Bools, Clip, Frames, davis, jhmdb, overlap, virtual

from bgaug.background import BackgroundView
from bgaug.pipelines.build.clips import ShotMasks, fitted_shot
from bgaug.pipelines.build.options import VideoOptions
from bgaug.pipelines.build.process_video import ProcessedVideo, process_video
from bgaug.shots import by_motion, estimate
from bgaug.shots.quality import GRADES, Quality
from bgaug.shots.shot import Shot
from bgaug.sizing import fit_frame
from bgaug.store import Header, VideoPayload
from bgaug.video import open_video, read_video, write_video

Row = dict[str, Any]

BAND = 5 / 240  # of the short side
SEEDS = (1, 2, 3)
USABLE = ("A", "B", "C", "D")
PEERS: dict[str, Callable[[Frames], Iterable[Bools]]] = {
    "FAME's mask": fame_masks,
    "frame difference": difference_masks,
    "plain median, threshold of 25": plain_masks,
    "centred ellipse, 15 %": lambda frames: ellipses(frames, 0.15),
    "centred ellipse, 25 %": lambda frames: ellipses(frames, 0.25),
    "whole image": lambda frames: np.ones(frames.shape[:3], np.bool_),
}


def ellipses(frames: Frames, share: float) -> Bools:
    """For every frame the same ellipse in the middle, with the aspect of the image."""
    count, height, width = frames.shape[:3]
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((2 * x + 1) / width - 1, (2 * y + 1) / height - 1)
    return np.broadcast_to(radius <= np.sqrt(4 * share / np.pi), (count, height, width))


class Judgements:
    """Every quality that is measured while a video is processed; the pipeline keeps grades only."""

    def __init__(self) -> None:
        self.found: list[Quality] = []

    def noting(self, measure: Callable[..., Quality]) -> Callable[..., Quality]:
        """The same function, whose results are kept."""

        def measured(*arguments: Any) -> Quality:
            self.found.append(measure(*arguments))
            return self.found[-1]

        return measured

    def score(self, shot: Shot) -> float:
        """Score of the shot that was judged last; that of its grade where it was not judged."""
        fitting = [own.score for own in self.found if own.grade == shot.grade and own.reasons == shot.reasons]
        return fitting[-1] if fitting else GRADES.get(shot.grade or "F", 0.0)


def processed(path: Path, network: Path | None) -> tuple[ProcessedVideo, Judgements, float]:
    """A video's shots as `extract-backgrounds` estimates them, what was measured, and CPU seconds."""
    notes = Judgements()
    begun = time.process_time()
    with (
        mock.patch.object(estimate, "grade_shot", notes.noting(estimate.grade_shot)),
        mock.patch.object(by_motion, "grade_by_motion", notes.noting(by_motion.grade_by_motion)),
        open_video(path) as reader,
    ):
        found = process_video(reader, VideoOptions(segmenter=network))
    return found, notes, time.process_time() - begun


def made_masks(path: Path, video: ProcessedVideo) -> tuple[Bools, float]:
    """Masks of all frames at their own size, as `build-shards` makes them from known shots, and CPU seconds."""
    begun = time.process_time()
    with open_video(path) as reader:
        header = Header(reader.info.display_size, "crop", "jpeg", (), {})
        payload = VideoPayload(header)
        masks = ShotMasks(header, [fitted_shot(header, shot) for shot in video.shots])
        made = []
        for frame in reader.scan():
            fitted = fit_frame(frame.rgb(), header.size, header.fit, frame.display_size)
            payload.add_frame(frame.pts_seconds, fitted)
            made.append(masks.mask(frame.index, fitted, frame.rgb()))
            payload.add_masks(made[-1][None])
    return np.stack(made), time.process_time() - begun


def scored(clip: Clip, masks: Iterable[Bools], truth: Bools) -> Row:
    """J, F1 and tolerant J of a clip's masks."""
    size = truth.shape[2], truth.shape[1]
    width = 2 * round(BAND * min(size)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    chosen = range(1, len(truth) - 1) if clip.data == "DAVIS" else range(len(truth))
    values = []
    for t, mask in enumerate(masks):
        if t not in chosen:
            continue
        if mask.shape != truth.shape[1:]:
            mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        edge = cv2.morphologyEx(truth[t].astype(np.uint8), cv2.MORPH_GRADIENT, disc) > 0
        values.append((*overlap(mask, truth[t]), overlap(mask, truth[t], ~edge)[0]))
    return dict(zip(("J", "F1", "tolerant"), np.mean(values, 0).tolist(), strict=True))


def score_clip(clip: Clip, networks: dict[str, Path | None]) -> Row:
    """A clip's row: what it is, and the scores of every method."""
    cv2.setNumThreads(1)
    video = read_video(clip.video)
    truth = clip.masks()[: len(video.frames)]
    row: Row = {"clip": clip.name, "data": clip.data, "seconds": len(video.frames) / video.fps, "methods": {}}
    for name, network in networks.items():
        found, notes, extraction = processed(clip.video, network)
        masks, second = made_masks(clip.video, found)
        shot = max(found.shots, key=lambda own: own.stop - own.start)
        row["methods"][name] = {
            **scored(clip, masks, truth),
            "camera": shot.camera,
            "grade": shot.grade,
            "score": notes.score(shot),
            "path": "motion" if shot.masks is not None else "background",
            "has_background": shot.background is not None or bool(shot.views),
            "extraction": extraction,
            "together": extraction + second,
        }
    for name, method in PEERS.items():
        begun = time.process_time()
        masks = np.stack(list(method(video.frames)))
        seconds = time.process_time() - begun
        row["methods"][name] = {**scored(clip, masks, truth), "extraction": seconds, "together": seconds}
    return row


def look(data: Path, scene: str, camera: str, seed: int, network: Path | None) -> Row:
    """Backgrounds of a virtual camera against the plate."""
    cv2.setNumThreads(1)
    shown = virtual(data, scene, camera, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, shown.frames, fps=30)
        found, notes, seconds = processed(path, network)
        masks, _ = made_masks(path, found)
    shot = max(found.shots, key=lambda own: own.stop - own.start)
    views = list(shot.views)
    if shot.background is not None:
        views = [BackgroundView((shot.stop - shot.start) // 2, shot.background)]
    rows = []
    for view in views:
        t = shot.start + view.frame
        known, body = shown.known[t], shown.bodies[t]
        apart = cv2.absdiff(np.asarray(view.background.image), shown.plates[t]).max(2)
        plain = cv2.absdiff(shown.frames[t], shown.plates[t]).max(2)
        behind = apart[body & known].mean() if body.any() else np.nan
        rows.append((apart[known].mean(), behind, plain[known & ~body].mean()))
    age, behind, floor = np.nanmean(rows, 0).tolist() if rows else (None, None, None)
    return {
        "scene": scene,
        "camera": camera,
        "seed": seed,
        "age": age,
        "behind": behind,
        "floor": floor,
        "J": float(np.mean([overlap(own, true)[0] for own, true in zip(masks, shown.bodies, strict=True)])),
        "verdict": shot.camera,
        "grade": shot.grade,
        "score": notes.score(shot),
        "cpu": seconds,
    }


def summary(rows: list[Row], name: str) -> Row:
    """Means of a method over clips."""
    own = [row["methods"][name] for row in rows]
    seconds = sum(row["seconds"] for row in rows)
    means = {key: float(np.mean([each[key] for each in own])) for key in ("J", "F1", "tolerant")}
    over = float(np.mean([each["J"] > 0.5 for each in own]))
    cpu = {key: sum(each[key] for each in own) / seconds for key in ("extraction", "together")}
    return {"clips": len(own), **means, "over_half": over, **cpu}


def by(rows: list[Row], name: str, key: str) -> dict[str, Row]:
    """The same by camera verdict or by grade."""
    values = sorted({str(row["methods"][name][key]) for row in rows})
    return {value: summary([row for row in rows if str(row["methods"][name][key]) == value], name) for value in values}


def grades(rows: list[Row], name: str) -> Row:
    """How well scores foretell J, and the share of moving shots that get a background."""
    own = [row["methods"][name] for row in rows]
    moving = [each for each in own if each["camera"] == "moving"]
    right = [each for each in moving if each["J"] > 0.5]
    by_motion = [each for each in own if each["path"] == "motion"]
    return {
        "spearman": spearman([each["score"] for each in own], [each["J"] for each in own]),
        "spearman_by_motion": spearman([e["score"] for e in by_motion], [e["J"] for e in by_motion]),
        "score_error": float(np.mean([abs(each["score"] - each["F1"]) for each in own])),
        "shots_by_motion": len(by_motion),
        "moving": len(moving),
        "moving_right": len(right),
        "moving_right_with_background": sum(e["has_background"] and e["grade"] in USABLE for e in right),
    }


def spearman(one: list[float], other: list[float]) -> float | None:
    """Rank correlation; None for fewer than three pairs."""
    if len(one) < 3:
        return None
    ranks = [_ranks(np.asarray(own)) for own in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: Any) -> Any:
    """Ranks, the mean for ties."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def show(title: str, rows: dict[str, Row]) -> None:
    """A table in Markdown."""
    columns = list(next(iter(rows.values()))) if rows else []
    print(f"\n{title}\n\n| | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, row in rows.items():
        cells = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


def measured_masks(options: argparse.Namespace, networks: dict[str, Path | None]) -> Row:
    """Part a and b: the rows, and tables of them."""
    clips = davis(options.data, REPORTED[:1] if options.quick else REPORTED) + jhmdb(
        options.data, options.folds, options.every
    )
    work = joblib.delayed(score_clip)
    rows = joblib.Parallel(n_jobs=options.jobs)(work(clip, networks) for clip in clips)
    tables = {}
    for data in ("JHMDB", "DAVIS"):
        own = [row for row in rows if row["data"] == data]
        tables[data] = {name: summary(own, name) for name in (own[0]["methods"] if own else ())}
        for name in networks if own else ():
            for key in ("camera", "grade", "path"):
                tables[f"{data}, {name}, by {key}"] = by(own, name, key)
    tables["grades"] = {
        f"{data}, {name}": grades([row for row in rows if row["data"] in data], name)
        for name in networks
        for data in ("JHMDB", "DAVIS", "JHMDB DAVIS")
        if any(row["data"] in data for row in rows)
    }
    return {"rows": rows, "tables": tables}


def measured_cameras(options: argparse.Namespace, networks: dict[str, Path | None]) -> Row:
    """Part c: the rows, and a table of means by scene and by camera."""
    work = joblib.delayed(look)
    scenes, cameras = (names[:1] if options.quick else names for names in (SCENES, CAMERAS))
    tables: dict[str, dict[str, Row]] = {}
    rows: list[Row] = []
    for name, network in networks.items():
        jobs = [
            work(options.data, scene, camera, seed, network)
            for scene in scenes
            for camera in cameras
            for seed in SEEDS[: options.seeds]
        ]
        own = joblib.Parallel(n_jobs=options.jobs)(jobs)
        rows += [{"method": name, **row} for row in own]
        groups = {scene: [row for row in own if row["scene"] == scene] for scene in scenes}
        groups |= {camera: [row for row in own if row["camera"] == camera] for camera in cameras}
        tables[f"virtual cameras, {name}"] = {key: means(each) for key, each in {**groups, "all": own}.items()}
    return {"rows": rows, "tables": tables}


def means(rows: list[Row]) -> Row:
    """Means over virtual cameras; AGE only over those with a background."""
    found = [row for row in rows if row["age"] is not None]
    usable = [row for row in found if row["grade"] in USABLE]

    def mean(own: list[Row], key: str) -> float:
        return float(np.nanmean([row[key] for row in own])) if own else float("nan")

    return {
        "shots": len(rows),
        "with_background": len(found),
        "D_or_better": len(usable) / len(rows),
        **{key: mean(found, key) for key in ("age", "behind", "floor")},
        "behind_if_D": mean(usable, "behind"),
        "J": mean(rows, "J"),
        "spread_behind": float(np.nanstd([row["behind"] for row in found])) if found else float("nan"),
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=data_folder(), metavar="DATA")
    parser.add_argument("--segmenter", type=Path, help="also measure with this segmentation network as a cue")
    parser.add_argument("--folds", default="3", help='folds of JHMDB, such as "0,1"')
    parser.add_argument("--every", type=int, default=1, help="every so manieth clip")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of virtual cameras, up to three")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--parts", default="masks,cameras")
    parser.add_argument("--quick", action="store_true", help="three videos, one virtual camera")
    parser.add_argument("--json", action="store_true", help="one object instead of tables")
    options = parser.parse_args()
    if options.quick:
        options.every, options.seeds = 92, 1
    options.folds = [int(fold) for fold in options.folds.split(",")]
    options.parts = options.parts.split(",")
    if set(options.parts) - {"masks", "cameras"}:
        fail(f"--parts are masks and cameras, got {','.join(options.parts)}")
    if options.every < 1 or options.jobs < 1 or not 1 <= options.seeds <= len(SEEDS):
        fail("--every and --jobs must be 1 or more, --seeds 1 to 3")
    if not (options.data / "actions" / "jhmdb").is_dir():
        fail(f"{options.data} holds no actions/jhmdb; name the folder of the data")
    return options


def main() -> None:
    """Measure and print."""
    options = parse()
    networks: dict[str, Path | None] = {"bgaug": None}
    if options.segmenter is not None:
        networks["bgaug, with the network"] = options.segmenter
    result = {}
    if "masks" in options.parts:
        result["masks"] = measured_masks(options, networks)
    if "cameras" in options.parts:
        result["cameras"] = measured_cameras(options, networks)
    if options.json:
        print(json.dumps(result))
        return
    for part in result.values():
        for title, rows in part["tables"].items():
            show(title, rows)


if __name__ == "__main__":
    main()
