"""`bgaug demo`: the whole job on a generated world whose answers are known.

Eight motions are to be told apart; in the training videos the scene and a prop predict the motion in 95 of 100 videos.
A linear probe is trained on such biased videos and tested where the scene still agrees (iid), where scene and prop were
swapped for others (swap), and where the mover was taken out and nothing but background is left (bgonly).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

from bgaug import __version__
from bgaug.augment import centre_crop
from bgaug.evaluate import LinearProbe
from bgaug.model import ContrastiveLearner
from bgaug.pipelines.build_shards import build_shards
from bgaug.pipelines.each_video import Outcome, Setup, processors
from bgaug.pipelines.extract_backgrounds import extract_backgrounds
from bgaug.pipelines.progress import Progress
from bgaug.pipelines.train import TrainOptions, load_learner, train
from bgaug.pipelines.watch import WatchOptions
from bgaug.store import open_store
from bgaug.store.layout import write_durably
from bgaug.synthetic import ACTIONS, SPLITS, SyntheticSplit, make_split
from bgaug.video import write_video
from bgaug.visualize import contact_sheet, write_picture

TESTS = ("iid", "swap", "bgonly")
METHODS = ("simclr", "bgaug")
CROP = 32
FRAMES = 8
_PER_TASK = 64


@dataclass(frozen=True)
class DemoOptions:
    """How much of it.

    Attributes:
        videos: of the training split.
        probe: videos that the linear probe is trained on.
        tests: videos of each test.
        steps: of each training; below 400 the order of methods is luck.
        seed: of the trainings.
    """

    videos: int = 2048
    probe: int = 1024
    tests: int = 400
    steps: int = 400
    seed: int = 0

    @classmethod
    def quick(cls) -> DemoOptions:
        """A minute, to see that everything runs; its accuracies mean nothing."""
        return cls(videos=96, probe=64, tests=48, steps=6)


@dataclass(frozen=True)
class DemoResult:
    """What the demo ends with.

    Attributes:
        accuracies: percent, by row ("untrained", then the methods) and test.
        backgrounds: outcome of the extraction.
        shards: outcome of the build.
        sheet: contact sheet, an absolute path.
        steps: of each training.
        seconds: of the whole.
    """

    accuracies: dict[str, dict[str, float]]
    backgrounds: Outcome
    shards: Outcome
    sheet: Path
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
            "seconds": round(self.seconds, 1),
        }


def demo(
    out: Path, progress: Progress, *, options: DemoOptions | None = None, jobs: int = 0, overwrite: bool = False
) -> DemoResult:
    """Run the whole job in a folder; a second run goes on where the first was interrupted.

    Args:
        out: folder for videos, stores, runs and the contact sheet.
        progress: receives what happens.
        options: how much of it.
        jobs: processes; 0 for one a processor.
        overwrite: begin anew, whatever an earlier run left in `out`.

    Raises:
        CheckpointError: an earlier run in `out` trained with other options.
        StoreError: a store cannot be written.
    """
    options = options or DemoOptions()
    begun = time.monotonic()
    if overwrite:
        _clear(out)
    world = write_world(out / "videos", options.videos, progress, jobs)
    # One shot each, of twelve frames, and a camera that shakes by a pixel of forty: too little to weigh evidence on.
    one_shot = WatchOptions(shots=False, method="median")
    extracted = extract_backgrounds(
        Setup([world], out / "backgrounds", jobs=jobs), progress, options=one_shot, size=None
    )
    built = build_shards(
        Setup([world], out / "shards", jobs=jobs),
        progress,
        options=one_shot,
        size=None,
        backgrounds=out / "backgrounds",
    )
    sheet = write_picture(out / "sheet.png", contact_sheet(open_store(out / "shards"), rows=10, width=160))
    splits = _make_splits(options, progress, jobs)
    torch.manual_seed(options.seed)
    accuracies = {"untrained": score(ContrastiveLearner("tiny", "simclr").eval(), splits)}
    for method in METHODS:
        train(
            out / "shards",
            out / f"run-{method}",
            progress,
            options=TrainOptions(
                method=method,
                backbone="tiny",
                steps=options.steps,
                batch_size=min(64, options.videos // 2),
                seed=options.seed,
                num_frames=FRAMES,
                stride=1,
                crop=CROP,
                momentum=False,  # the form in the batch for both: equal views, equal steps
            ),
            resume=True,
        )
        accuracies[method] = score(load_learner(out / f"run-{method}")[0], splits)
    return DemoResult(accuracies, extracted, built, sheet, options.steps, time.monotonic() - begun)


# --- the world ----------------------------------------------------------------------------------------------------


def write_world(folder: Path, count: int, progress: Progress, jobs: int = 0) -> Path:
    """The training split as small mp4 files in class folders; what is there from an earlier run is kept."""
    record = folder.parent / "world.json"
    wanted = json.dumps({"split": "pretrain", "count": count, "bgaug": __version__}).encode()
    progress.start("generating videos", count)
    if record.exists() and record.read_bytes() == wanted:
        progress.advance(count, "already there")
        return folder
    if record.exists():
        _clear(folder.parent)  # what was made of another world is of no use
    for action in ACTIONS:
        (folder / action).mkdir(parents=True, exist_ok=True)
    tasks = [
        joblib.delayed(_write_videos)(folder, first, min(first + _PER_TASK, count))
        for first in range(0, count, _PER_TASK)
    ]
    for written in joblib.Parallel(n_jobs=jobs or processors(), return_as="generator_unordered")(tasks):
        progress.advance(written)
    write_durably(record, wanted)
    return folder


def _clear(out: Path) -> None:
    for name in ("videos", "backgrounds", "shards", *(f"run-{method}" for method in METHODS)):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / "world.json").unlink(missing_ok=True)


def _write_videos(folder: Path, start: int, stop: int) -> int:
    split = make_split("pretrain", start=start, stop=stop)
    for number, (frames, label) in enumerate(zip(split.frames, split.labels.tolist(), strict=True), start):
        write_video(folder / ACTIONS[label] / f"{number:05d}.mp4", frames, fps=12)
    return stop - start


def _make_splits(options: DemoOptions, progress: Progress, jobs: int) -> dict[str, SyntheticSplit]:
    counts = {"probe_train": options.probe, **dict.fromkeys(TESTS, options.tests)}
    progress.start("generating tests", sum(counts.values()))
    splits = {}
    run: Callable[..., Any] = joblib.Parallel(n_jobs=jobs or processors())
    for name, count in counts.items():
        count = min(count, SPLITS[name].count)
        parts = run(
            joblib.delayed(make_split)(name, start=first, stop=min(first + _PER_TASK, count))
            for first in range(0, count, _PER_TASK)
        )
        frames, labels, scene, prop = (
            np.concatenate([getattr(part, field) for part in parts]) for field in ("frames", "labels", "scene", "prop")
        )
        splits[name] = SyntheticSplit(name, 0, frames, labels, scene, prop)
        progress.advance(count)
    return splits


# --- scoring ------------------------------------------------------------------------------------------------------


def score(learner: ContrastiveLearner, splits: dict[str, SyntheticSplit]) -> dict[str, float]:
    """Accuracy in percent of a linear probe on frozen features, by test."""
    train_split = splits["probe_train"]
    probe = LinearProbe().fit(encode(learner, train_split.frames), train_split.labels)
    return {
        name: round(100 * probe.accuracy(encode(learner, splits[name].frames), splits[name].labels), 1)
        for name in TESTS
    }


@torch.no_grad()
def encode(learner: ContrastiveLearner, frames: NDArray[np.uint8], batch_size: int = 128) -> NDArray[np.float32]:
    """Global codes (N, D) of the middle frames of uint8 videos (N, T, S, S, 3)."""
    first = (frames.shape[1] - FRAMES) // 2
    clips = torch.from_numpy(frames[:, first : first + FRAMES])
    features = []
    for part in torch.split(clips, batch_size):
        box = torch.tensor([[0, 0, frames.shape[2], frames.shape[3]]]).expand(len(part), -1)
        features.append(learner.features(centre_crop(part, box, CROP)).numpy())
    return np.concatenate(features)
