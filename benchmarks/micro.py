"""Micro bias: what touches the mover, or moves along with it, predicts the action. A search for what helps.

    python benchmarks/micro.py --trials "simclr;semi"             # the temptation: some fifteen minutes on two cores
    python benchmarks/micro.py --device cuda                      # every trial: some minutes on a GPU and sixteen cores
    python benchmarks/micro.py --draw 1 --seeds 0,1,2 --trials "bgaug;semi;simclr;fame"     # what is claimed
    python benchmarks/micro.py --only show --device cuda --seeds 0,1,2
    python benchmarks/micro.py --only readings --draw 1 --seeds 0,1,2 --trials "semi;bgaug"   # of runs that are there
    python benchmarks/micro.py --only plot                        # needs matplotlib: pip install 'bgaug[plots]'

In the micro world (`bgaug.testing.synthetic`) the prop is larger, and lies still under the mover, follows it as a
shadow, or is held by it; masks drag a rim of the source's background along, come late, and have holes. Every trial
trains `tiny` for equal steps of 128 encoded views. *wide* has unseen scenes, *swap* also props that say nothing: what
an encoder loses from one to the other it owed to the prop.

Rules that were written down before anything was trained. A trial is better than plain `semi` if it loses less from wide
to swap at no loss of swap; of several, the one of higher swap wins; differences under three points are none. The search
sees draw 0 alone, one seed, the best with three. (It was to go from 400 steps to 800; a GPU ran all at 800.) What is
claimed is measured on draw 1, three seeds, which nothing was chosen on.

Every trial is a line of benchmarks/results/micro.jsonl, whether it helped or not; what is there is not run again. One
whose process broke off leaves no line: a rerun goes on with it. Lines with "commit" are of what did not help and was
taken out: that commit still has it, there `python benchmarks/micro.py --trials "..."` runs it (names of the dynamic
code's trials were others there: "dual" had what is "dual, mean pooled" here). "pool" is how the dynamic code was
pooled.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bias import RESULTS, Row, run_each, spread

COLUMNS = {
    "iid": "iid",
    "wide": "wide",
    "micro": "micro",
    "swap": "swap",
    "bgonly": "background only",
    "unbiased": "motion readable",
    "scene": "scene readable",
    "prop": "prop readable",
}
COUNTS = {"wide": 1000, "micro": 1000, "swap": 1000}  # the tests that decide: one point of standard error

MEAN = {"pool": "mean"}
TRIALS = {
    "simclr": Row("simclr"),
    "fame": Row("fame"),
    "semi": Row("semi"),
    "bgaug": Row("bgaug"),
    "dual": Row("dual"),
    # Pairs.
    "semi, mask hard": Row("semi", {"grow": 0, "sigma": 0}),
    "semi, donor near": Row("semi", {"donor": "near"}),
    "semi, donor far": Row("semi", {"donor": "far"}),
    # Negatives.
    "semi, momentum form": Row("semi", momentum=True),
    "semi, momentum form, queue of 256": Row("semi", {"queue": 256}, momentum=True),
    "semi, temperature 0.05": Row("semi", {"temperature": 0.05}),
    "semi, temperature 0.2": Row("semi", {"temperature": 0.2}),
    # The dynamic code, and its weight.
    "bgaug, micro term twice": Row("bgaug", {"w_dynamic": 1}),
    "bgaug, micro term alone": Row("bgaug", {"w_global": 0, "w_dynamic": 1}),
    "bgaug, mask hard": Row("bgaug", {"grow": 0, "sigma": 0}),
    "bgaug, mean pooled": Row("bgaug", MEAN),
    "dual, mean pooled": Row("dual", MEAN),
    "dual, mean pooled, micro term alone": Row("dual", MEAN | {"w_static": 0, "w_global": 0, "w_dynamic": 1}),
    "dual, mean pooled, micro term twice": Row("dual", MEAN | {"w_dynamic": 1}),
    "dual, mean pooled, gamma 0": Row("dual", MEAN | {"gamma": 0}),
    # The saliency that weighs it.
    "dual, mean pooled, saliency of stage 3": Row("dual", MEAN | {"stages": ["stage3"]}),
    "dual, mean pooled, saliency of stages 2 and 3": Row("dual", MEAN | {"stages": ["stage2", "stage3"]}),
    "dual, mean pooled, saliency of stage 2": Row("dual", MEAN | {"stages": ["stage2"]}),
}

COLOURS = {"bgaug": "#d62728", "semi": "#ff7f0e", "simclr": "#2ca02c", "fame": "#9467bd"}


@dataclass(frozen=True)
class Trial:
    """What is trained and scored at once."""

    name: str
    seed: int
    steps: int
    draw: int
    size: int
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}, {self.steps} steps"

    def folder(self, work: Path) -> Path:
        """Of its run."""
        plain = "".join(letter if letter.isalnum() else "_" for letter in self.name)
        return world_folder(work, self.draw, self.size) / "runs" / f"{plain}-steps{self.steps}-seed{self.seed}"


def world_folder(work: Path, draw: int, size: int) -> Path:
    """Of one draw at one size of frames."""
    return work / f"draw-{draw}-{size}"


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--trials", help="by name, separated by ;")
parser.add_argument("--seeds", default="0", help="with commas")
parser.add_argument("--steps", default="800", help="with commas")
parser.add_argument("--draw", type=int, default=0, help="of the world, training and tests")
parser.add_argument("--size", type=int, default=40, help="side of the frames; encoders see 4/5 of it")
parser.add_argument("--only", choices=("show", "plot", "picture", "world", "readings"), help="train nothing")
parser.add_argument("--work", type=Path, default=Path("out/micro"), help="folder for the world and the runs")
parser.add_argument("--out", type=Path, default=RESULTS / "micro.jsonl")
parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trials at once, one thread each")
parser.add_argument("--markdown", action="store_true", help="print the table as the documentation has it")
parser.add_argument("--device", default="cpu", help="cpu or cuda: its lines are others")
parser.add_argument("--trial", help=argparse.SUPPRESS)


def main() -> None:
    """Make the world, run the trials, show them."""
    options = parser.parse_args()
    if options.trial:
        run_trial(Trial(**json.loads(options.trial)), options.work)
    elif options.only == "picture":
        draw_world(options.out.with_name("micro.jpg"), options.draw)
    elif options.only == "readings":
        show_readings(list(wanted_trials(options)), options.work)
    elif options.only == "plot":
        draw_plot(read_lines(options.out), options.out.with_name("micro.png"))
    else:
        if options.only != "show":
            trials = list(wanted_trials(options))
            make_world(options.work, options.draw, options.size)
            if options.only is None:
                run_trials(trials, options)
        if options.only != "world":
            show(asked_for(read_lines(options.out), options), options.markdown)


def wanted_trials(options: argparse.Namespace) -> Iterator[Trial]:
    """Seed by seed, so that an early end leaves whole columns."""
    names = [name.strip() for name in options.trials.split(";")] if options.trials else list(TRIALS)
    unknown = [name for name in names if name not in TRIALS]
    if unknown:
        parser.error(f"no trial {', '.join(unknown)}; there are {'; '.join(TRIALS)}")
    for steps in options.steps.split(","):
        for seed in options.seeds.split(","):
            for name in names:
                yield Trial(name, int(seed), int(steps), options.draw, options.size, options.device)


def make_world(work: Path, draw: int, size: int) -> None:
    """The training split as videos, the store that the offline pipeline makes of it, and degraded masks in it; kept."""
    from world_scores import SPLITS_NEEDED, cached_splits

    from bgaug.cli.console import TerminalProgress
    from bgaug.pipelines.build.importing import import_masks
    from bgaug.pipelines.build.options import ShardOptions, VideoOptions
    from bgaug.pipelines.build.shards import build_shards
    from bgaug.pipelines.demo.world import world_splits, write_world

    folder = world_folder(work, draw, size)
    done = folder / "masks-imported"
    with TerminalProgress() as progress:
        if not done.exists():
            videos = write_world(folder / "videos", "pretrain", None, draw, progress, world="micro", size=size)
            one_shot = VideoOptions(shots=False, method="median")
            build_shards(
                ShardOptions(inputs=[videos], out=folder / "shards", video=one_shot, size=None, frames="raw"), progress
            )
            made = world_splits(["pretrain"], draw, {}, 0, progress, truth=True, world="micro", size=size)
            import_masks(folder / "shards", write_degraded_masks(made["pretrain"], folder / "degraded"), progress)
            done.touch()
        cache = folder / "splits"
        cached_splits(list(SPLITS_NEEDED), draw, COUNTS, 0, progress, cache, world="micro", size=size)


def write_degraded_masks(split: Any, folder: Path) -> Path:
    """Masks with the errors of an estimator, one .npz per video of `write_world`, for `bgaug import --masks`."""
    import numpy as np

    from bgaug.files import write_arrays
    from bgaug.masks import pack_mask
    from bgaug.testing.synthetic import ACTIONS

    assert split.degraded is not None
    for number, (label, masks) in enumerate(zip(split.labels.tolist(), split.degraded, strict=True)):
        place = folder / ACTIONS[label] / f"{number:05d}.npz"
        if not place.exists():
            write_arrays(place, {"packed": pack_mask(masks), "size": np.array(masks.shape[1:])})
    return folder


def run_trials(trials: Sequence[Trial], options: argparse.Namespace) -> None:
    """Each trial in a process of its own, with one thread: the same numbers however many run at once."""
    known = {key_of(line) for line in read_lines(options.out)}
    waiting = {}
    for trial in trials:
        if key_of(asdict(trial)) not in known:
            command = [sys.executable, __file__, "--trial", json.dumps(asdict(trial)), "--work", str(options.work)]
            waiting[trial] = command

    def keep(trial: Trial) -> None:
        line = (trial.folder(options.work) / "scores.json").read_text("utf-8")
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with open(options.out, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    run_each(waiting, options.jobs, keep)


def run_trial(trial: Trial, work: Path) -> None:
    """Train and score one trial in this process."""
    import torch
    from gpu import device_name
    from world_scores import SPLITS_NEEDED, cached_splits, world_scores

    from bgaug.model.checkpoint import load_run
    from bgaug.pipelines.train.run import TrainOptions, train
    from bgaug.progress import Silent

    torch.set_num_threads(1)
    row, folder, data = TRIALS[trial.name], trial.folder(work), world_folder(work, trial.draw, trial.size)
    begun = time.process_time()
    options = TrainOptions(
        method=row.method,
        backbone="tiny",
        steps=trial.steps,
        batch_size=row.batch,
        seed=trial.seed,
        num_frames=8,
        stride=1,
        crop=trial.size * 4 // 5,
        momentum=row.momentum,
        change=row.change,
        min_grade="none",
        amp="off",
    )
    train(data / "shards", folder, Silent(), options=replace(options, resume=True, device=trial.device, threads=0))
    seconds = time.process_time() - begun
    names = list(SPLITS_NEEDED)
    splits = cached_splits(names, trial.draw, COUNTS, 1, Silent(), data / "splits", world="micro", size=trial.size)
    learner = load_run(folder, device="cpu").learner.to(trial.device)
    scores: dict[str, Any] = dict(world_scores(learner, splits))
    record = {**asdict(trial), "method": row.method, "change": row.change, "batch": row.batch, "momentum": row.momentum}
    record |= {
        "pool": learner.method.pool,
        "cpu_seconds": round(seconds, 1),
        "on": device_name(torch.device(trial.device)),
        "scores": scores,
    }
    temporary = folder / "scores.tmp"
    temporary.write_text(json.dumps(record), "utf-8")
    os.replace(temporary, folder / "scores.json")


def show_readings(trials: Sequence[Trial], work: Path) -> None:
    """Scores of other codes of the same trained encoders, means over seeds; only the probe is trained."""
    import numpy as np
    import torch
    from world_scores import cached_splits

    from bgaug.metrics import LinearProbe
    from bgaug.model.checkpoint import load_run
    from bgaug.pipelines.demo.world_score import middle_clips
    from bgaug.progress import Silent

    titles, found = ("iid", "wide", "swap", "bgonly"), dict[tuple[str, str], list[list[float]]]()
    for trial in trials:
        data, learner = world_folder(work, trial.draw, trial.size), load_run(trial.folder(work), device="cpu").learner
        asked = {"jobs": 1, "progress": Silent(), "cache": data / "splits", "world": "micro", "size": trial.size}
        splits = cached_splits(["probe_train", *titles], trial.draw, COUNTS, **asked)
        codes: dict[str, dict[str, list[Any]]] = {name: {} for name in splits}
        for name, split in splits.items():
            for start in range(0, len(split), 128):
                with torch.no_grad():
                    stages = learner.encoder.backbone(middle_clips(split.frames[start : start + 128]))
                    weight = learner.encoder.decomposition(stages).saliency.unsqueeze(1)
                    for reading, code in readings_of(list(stages.values())[-1].float(), weight).items():
                        codes[name].setdefault(reading, []).append(code.numpy())
        for reading in codes["iid"]:
            values = {name: np.concatenate(of[reading]) for name, of in codes.items()}
            probe = LinearProbe().fit(values["probe_train"], splits["probe_train"].labels)
            accuracies = [100 * probe.accuracy(values[name], splits[name].labels) for name in titles]
            found.setdefault((trial.name, reading), []).append(accuracies)
    print("| trial | reading | seeds | " + " | ".join(COLUMNS[title] for title in titles) + " | wide - swap |")
    print("|" + "---|" * (len(titles) + 4))
    for (name, reading), rows in found.items():
        cells = [spread(column) for column in zip(*rows, strict=True)] + [spread([row[1] - row[2] for row in rows])]
        print("| " + " | ".join([name, reading, str(len(rows)), *cells]) + " |")


def readings_of(z: Any, weight: Any) -> dict[str, Any]:
    """Codes of the last stage's features z (B, C, T', H', W'), some of them weighed by the saliency (B, 1, H', W')."""
    import torch

    mean, deviation = z.mean(dim=2), z.std(dim=2, unbiased=False)
    change = (z[:, :, 1:] - z[:, :, :-1]).abs().mean(dim=2)

    def where_it_moves(code: Any) -> Any:
        return (code * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))

    return {
        "mean": mean.mean(dim=(2, 3)),
        "mean where it moves": where_it_moves(mean),
        "change": change.mean(dim=(2, 3)),
        "change where it moves": where_it_moves(change),
        "deviation": deviation.mean(dim=(2, 3)),
        "deviation where it moves": where_it_moves(deviation),
        "largest deviation of any cell": deviation.amax(dim=(2, 3)),
        "mean and deviation": torch.cat([mean.mean(dim=(2, 3)), where_it_moves(deviation)], dim=1),
    }


def draw_world(path: Path, draw: int) -> None:
    """Two videos of each kind of prop: as they are, their masks, and what a composite makes of them."""
    import numpy as np
    import torch

    from bgaug.masks import pack_mask
    from bgaug.pairs import Augmentation, SemiNegativePairs
    from bgaug.testing.synthetic import KINDS, make_split
    from bgaug.visualize import image_sheet, overlay, write_image

    split = make_split("pretrain", count=24, draw=draw, truth=True, world="micro")
    assert split.masks is not None and split.degraded is not None and split.backgrounds is not None
    chosen = [int(np.flatnonzero(split.kind == kind)[place]) for kind in range(len(KINDS)) for place in (0, 1)]
    S = split.frames.shape[2]
    batch = {
        "frames": torch.from_numpy(np.stack([split.frames[chosen]] * 2, axis=1)),
        "masks": torch.from_numpy(np.stack([pack_mask(split.degraded[chosen])] * 2, axis=1)),
        "backgrounds": torch.from_numpy(split.backgrounds[chosen]),
        "video": torch.arange(len(chosen)),
        "key": torch.arange(len(chosen)) + 7,
        "box": torch.tensor([[0, 0, S, S]]).expand(len(chosen), -1),
    }
    still = Augmentation(S, (1, 1), (1, 1), flip=0, jitter=0, grey=0, blur=0)
    composites = SemiNegativePairs(still)(batch).semi
    t, rows = 5, []
    for place, n in enumerate(chosen):
        pictures = [split.frames[n, at] for at in (2, t, 8)]
        pictures += [overlay(split.frames[n, t], mask[n, t]) for mask in (split.masks, split.degraded)]
        pictures.append((composites[place, :, t].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
        rows.append((pictures, KINDS[split.kind[n]]))
    titles = ["frame 2", "frame 5", "frame 8", "mover", "degraded mask", "composite"]
    write_image(path, image_sheet(rows, titles, width=140))


def key_of(line: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a line another trial than the others."""
    return (*(line[name] for name in ("name", "seed", "steps", "draw", "size")), line.get("device", "cpu"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every trial that was run."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def asked_for(lines: Sequence[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Lines of the trials, seeds, steps, draw, size and device that were asked for; by default of every trial."""
    names = [name.strip() for name in options.trials.split(";")] if options.trials else None
    steps, seeds = ([int(value) for value in text.split(",")] for text in (options.steps, options.seeds))
    return [
        line
        for line in lines
        if (names is None or line["name"] in names)
        and line["steps"] in steps
        and line["seed"] in seeds
        and (line["draw"], line["size"], line["device"]) == (options.draw, options.size, options.device)
    ]


def show(lines: Sequence[dict[str, Any]], markdown: bool = False) -> None:
    """A row for each trial, steps and feature: means and deviations over seeds; the highest swap first."""
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for line in lines:
        for code in ("global", "dynamic"):
            scores = line["scores"][code] | {"seconds": line["cpu_seconds"]}
            scores["lost"] = scores["wide"] - scores["swap"]
            groups.setdefault((line["name"], line["steps"], feature_of(line, code)), []).append(scores)
    rows = sorted(groups.items(), key=lambda row: -mean(scores["swap"] for scores in row[1]))
    columns = COLUMNS | {"lost": "wide - swap", "seconds": "CPU s"}
    titles = ["trial", "steps", "feature", "seeds", *columns.values()]
    if markdown:
        print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    else:
        print(f"{'trial':50}{'steps':>6}  {'feature':22}{'seeds':>5}" + "".join(f"{title:>17}" for title in titles[4:]))
    for (name, steps, feature), of in rows:
        cells = [spread([scores[column] for scores in of]) for column in columns]
        if markdown:
            print("| " + " | ".join([name, str(steps), feature, str(len(of)), *cells]) + " |")
        else:
            print(f"{name:50}{steps:>6}  {feature:22}{len(of):>5}" + "".join(f"{cell:>17}" for cell in cells))


def feature_of(line: dict[str, Any], code: str) -> str:
    """What was probed, in words: the global or the dynamic code, which runs before the last ones had otherwise."""
    return "mean" if code == "global" else {"mean": "mean where it moves"}.get(line["pool"], line["pool"])


def draw_plot(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Swap against wide of every trial of 800 steps at size 40; what lies on the diagonal owes the prop nothing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, sides = pyplot.subplots(1, 2, figsize=(12, 5.2), sharex=True, sharey=True)
    for axes, draw, title in ((sides[0], 0, "draw 0: the search, first seed"), (sides[1], 1, "draw 1: three seeds")):
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for line in lines:
            first = draw == 1 or (line["seed"] == 0 and line["device"] == "cuda")
            if (line["steps"], line["size"], line["draw"]) == (800, 40, draw) and first:
                for code in ("global", "dynamic") if draw or line["pool"] != "mean" else ("global",):
                    groups.setdefault((line["name"], feature_of(line, code)), []).append(line["scores"][code])
        for (name, feature), scores in groups.items():
            x, y = ([s[test] for s in scores] for test in ("wide", "swap"))
            colour = COLOURS.get(name, "#9db2c9")
            marker = "o" if feature == "mean" else "^"
            bars = [stdev(values) if len(values) > 1 else 0 for values in (x, y)]
            how = {"fmt": marker, "color": colour, "elinewidth": 1, "markersize": 6, "zorder": 2 + (name in COLOURS)}
            axes.errorbar(mean(x), mean(y), bars[1], bars[0], **how)
            if name in COLOURS:
                below = (name, feature) in {("bgaug", "mean"), ("fame", "deviation")}  # semi's dot is beside it
                place = (-6, -12) if below else (-6, 6)
                axes.annotate(name, (mean(x), mean(y)), place, textcoords="offset points", ha="right", fontsize=8)
        axes.plot([45, 100], [45, 100], color="#888888", linewidth=1)
        axes.plot([45, 100], [35, 90], color="#bbbbbb", linewidth=0.8, linestyle="--")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("wide: unseen scene, the class's prop, %")
        axes.grid(alpha=0.3)
    sides[0].set_ylabel("swap: unseen scene, any prop, %")
    figure.suptitle(
        "solid: nothing owed to the prop; dashed: ten points; circles: mean, triangles: deviation", fontsize=9
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
