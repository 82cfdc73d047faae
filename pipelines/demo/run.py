"""`bgaug demo`: the whole job on a generated world whose answers are known.

There are eight classes of motion; in the training videos the scene and a prop predict the motion in 95 of 100 videos.
A linear probe is trained on such biased videos and tested where the scene still agrees (iid), where scene and prop were
swapped for others (swap), and where the mover was taken out and nothing but background is left (bgonly).
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bgaug import __version__
from bgaug.errors import UsageError
from bgaug.files import check_folder, check_replaceable, write_bytes, writing
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import load_run
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.options import BackgroundOptions, ShardOptions, VideoOptions
from bgaug.pipelines.build.run import Outcome
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.demo.world import world_splits, write_world
from bgaug.pipelines.demo.world_score import CROP, FRAMES, heatmap_image, probe_accuracies
from bgaug.pipelines.train.run import TrainOptions, train
from bgaug.progress import Progress
from bgaug.store import open_store
from bgaug.testing.synthetic import SPLITS, make_split
from bgaug.visualize import KINDS, contact_sheet, write_image

TESTS = ("iid", "swap", "bgonly")
METHODS = ("simclr", "bgaug")
SHEET, HEATMAPS, RECORD = "sheet.png", "heatmaps.png", "world.json"


@dataclass(frozen=True)
class DemoOptions:
    """Sizes of the demonstration.

    Attributes:
        videos: videos of the training split.
        probe: videos on which the linear probe is trained.
        tests: videos of each test.
        steps: steps of each training; below 400 the order of the methods is random.
        seed: seed of the trainings.
    """

    videos: int = 2048
    probe: int = 1024
    tests: int = 400
    steps: int = 400
    seed: int = 0

    @classmethod
    def quick(cls) -> DemoOptions:
        """A run of a minute, as a test of the installation; its accuracies mean nothing."""
        return cls(videos=96, probe=64, tests=48, steps=6)


@dataclass(frozen=True)
class DemoResult:
    """Result of the demonstration.

    Attributes:
        accuracies: accuracy in percent, by row ("untrained", then the methods) and test.
        backgrounds: outcome of the extraction.
        shards: outcome of the build.
        sheet: absolute path of the contact sheet.
        heatmaps: absolute path of the class maps of both encoders in videos with swapped backgrounds.
        steps: steps of each training.
        seconds: seconds of the whole run.
    """

    accuracies: dict[str, dict[str, float]]
    backgrounds: Outcome
    shards: Outcome
    sheet: Path
    heatmaps: Path
    steps: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "videos": self.shards.to_json()["videos"],
            "failed": len(self.backgrounds.failures) + len(self.shards.failures),
            "background_bytes": self.backgrounds.bytes,
            "shard_bytes": self.shards.bytes,
            "steps": self.steps,
            "accuracies": self.accuracies,
            "sheet": str(self.sheet),
            "heatmaps": str(self.heatmaps),
            "seconds": round(self.seconds, 1),
        }


def demo(
    out: Path, progress: Progress, *, options: DemoOptions | None = None, jobs: int = 0, overwrite: bool = False
) -> DemoResult:
    """Run the whole job in a folder; a second run continues where the first was interrupted.

    Args:
        out: folder for videos, stores, runs and images.
        progress: receives reports.
        options: sizes.
        jobs: number of processes; 0 for one per processor.
        overwrite: remove the results of an earlier run in `out` and start again.

    Raises:
        CheckpointError: an earlier run in `out` was trained with other options.
        UsageError: `out` has videos that are not the demonstration's.
        StoreError: a store cannot be written.
        WriteError: another file cannot be written.
    """
    options = options or DemoOptions()
    begun = time.monotonic()
    check_folder(out)
    for name in (SHEET, HEATMAPS):
        check_replaceable(out / name, overwrite=overwrite, kinds=KINDS[".png"], what="a PNG image")
    if overwrite:
        _clear(out)
    extracted, built = _make_stores(out, options, progress, jobs)
    sheet = write_image(out / SHEET, contact_sheet(open_store(out / "shards"), rows=10, width=160))
    requested = {"probe_train": options.probe, **dict.fromkeys(TESTS, options.tests)}
    counts = {name: min(count, SPLITS[name].count) for name, count in requested.items()}
    splits = world_splits(list(counts), 0, counts, jobs, progress)
    torch.manual_seed(options.seed)
    accuracies = {"untrained": probe_accuracies(ContrastiveLearner("tiny", "simclr").eval(), splits, TESTS)}
    learners = {method: _train(out, method, options, progress) for method in METHODS}
    for method, learner in learners.items():
        accuracies[method] = probe_accuracies(learner, splits, TESTS, learner.method.feature)
    shown = make_split("swap", count=8, truth=True)
    heat = write_image(out / HEATMAPS, heatmap_image(learners, shown, splits["probe_train"]))
    return DemoResult(accuracies, extracted, built, sheet, heat, options.steps, time.monotonic() - begun)


def _make_stores(out: Path, options: DemoOptions, progress: Progress, jobs: int) -> tuple[Outcome, Outcome]:
    """The videos, a store of their backgrounds, and a training store."""
    world = _write_videos(out, options.videos, progress, jobs)
    # Each video is one shot of twelve frames, and its camera shakes by a pixel of forty: too little to choose a method.
    one_shot = VideoOptions(shots=False, method="median")
    backgrounds = BackgroundOptions(inputs=[world], out=out / "backgrounds", jobs=jobs, video=one_shot, size=None)
    extracted = extract_backgrounds(backgrounds, progress)
    shards = ShardOptions(
        inputs=[world], out=out / "shards", jobs=jobs, video=one_shot, size=None, backgrounds=out / "backgrounds"
    )
    return extracted, build_shards(shards, progress)


def _train(out: Path, method: str, options: DemoOptions, progress: Progress) -> ContrastiveLearner:
    run = out / f"run-{method}"
    chosen = TrainOptions(
        method=method,
        backbone="tiny",
        steps=options.steps,
        batch_size=min(64, options.videos // 2),
        seed=options.seed,
        num_frames=FRAMES,
        stride=1,
        crop=CROP,
        momentum=False,  # both methods in the same form: equal views, equal steps
        min_grade="none",  # shots of twelve frames are too short for a grade that means something
        resume=True,
    )
    train(out / "shards", run, progress, options=chosen)
    return load_run(run, device="cpu").learner


def _write_videos(out: Path, count: int, progress: Progress, jobs: int) -> Path:
    """The training split as videos; the results of an earlier run on another world are removed."""
    record = out / RECORD
    requested = json.dumps({"split": "pretrain", "count": count, "bgaug": __version__}).encode()
    if record.exists() and record.read_bytes() == requested:
        progress.start("generating videos", count)
        progress.advance(count, "already there")
        return out / "videos"
    if record.exists():
        _clear(out)
    write_world(out / "videos", "pretrain", count, 0, progress, jobs)
    write_bytes(record, requested)
    return out / "videos"


def _clear(out: Path) -> None:
    """Remove the results of an earlier run.

    Raises:
        UsageError: folders of these names exist without a record of the demonstration.
    """
    names = ("videos", "backgrounds", "shards", *(f"run-{method}" for method in METHODS))
    there = [name for name in names if (out / name).exists()]
    if there and not (out / RECORD).is_file() and not (out / "videos" / RECORD).is_file():
        raise UsageError(f"{out / there[0]} was not made by `bgaug demo` and is not removed; name another --out")
    with writing(out):
        for name in there:
            shutil.rmtree(out / name)
        (out / RECORD).unlink(missing_ok=True)
