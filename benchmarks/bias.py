"""The table of the bias benchmark: methods x tests in the synthetic world, at equal steps and encoded views.

    python benchmarks/bias.py --quick                     # three methods, one seed: under ten minutes on two cores
    python benchmarks/bias.py --seeds 0,1,2               # every rival: some five hours on two cores
    python benchmarks/bias.py --group ablations --seeds 0 # fourteen changes of our own; more of them:
    benchmarks/micro.py
    python benchmarks/bias.py --only show                 # nothing is trained: the table of what is there

Every method trains the same encoder (`tiny`) on the same store, whose masks and backgrounds bgaug extracted itself from
the world's videos, for the same number of steps of 128 encoded views. Then frozen features are probed; see
`world_scores.py`. A cell is one method, seed, number of steps and draw of the world: it is kept, an
interrupted one goes on where it stopped, and whatever is there already is not trained again. Tests come from another
draw of the world (`--data-seed 1`) than the demo's and than anything that was used to choose.

The result goes to benchmarks/results/bias.json, with a plot next to it (needs matplotlib: pip install 'bgaug[plots]');
cells stay in --work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BATCH = 64
STEPS = 800
TESTS = ("iid", "wide", "micro", "swap", "photo", "conflict", "bgonly")
DEFAULT = "bgaug"
FEATURE = {"bgaug": "dynamic"}  # feature of its runs; the others have "global"


@dataclass(frozen=True)
class Row:
    """One line of the table: a preset, with fields of it changed.

    Attributes:
        method: a key of `bgaug.model.METHODS`.
        change: fields of Method and Composition to replace.
        batch: clips a step, so that 2 x 64 views are encoded.
        momentum: whether it is the momentum form.
    """

    method: str
    change: dict[str, Any] = field(default_factory=dict)
    batch: int = BATCH
    momentum: bool = False


MEAN = {"pool": "mean"}
RIVALS = {
    "bgaug": Row("bgaug"),
    "fame": Row("fame"),
    "simclr": Row("simclr"),
    "semi": Row("semi"),
    "fame-published": Row("fame-published"),
    "moco": Row("moco", momentum=True),
    "actorcutmix": Row("actorcutmix"),
    "be": Row("be"),
    "stillmix": Row("stillmix"),
    "cutmix": Row("cutmix"),
    "mixup": Row("mixup"),
    "byol": Row("byol", momentum=True),
    "dclr": Row("dclr", batch=21),  # six encoded views a clip
    "untrained": Row("simclr"),  # random weights
    "be-inter": Row("be-inter"),
    "actorcutmix-published": Row("actorcutmix-published"),
    "dual, mean pooled": Row("dual", MEAN),
}
ABLATIONS = {
    "semi, donor frame": Row("semi", {"donor": "frame"}),
    "semi, donor clip": Row("semi", {"donor": "clip"}),
    "semi, donor inpainted": Row("semi", {"donor": "inpainted"}),
    "semi, donor near": Row("semi", {"donor": "near"}),
    "semi, mask hard": Row("semi", {"grow": 0, "sigma": 0}),
    "semi, mask by motion": Row("semi", {"mask": "motion"}),
    "semi, FAME's mask": Row("semi", {"mask": "fame"}),
    "dual, mean pooled, gamma 0": Row("dual", MEAN | {"gamma": 0}),
    "dual, mean pooled, gamma 1": Row("dual", MEAN | {"gamma": 1}),
    "dual, mean pooled, one stream": Row("dual", MEAN | {"two_streams": False}),
    "dual, no micro term": Row("dual", {"w_dynamic": 0}),
    "dual, mean pooled, no static term": Row("dual", MEAN | {"w_static": 0}),
    "dual, mean pooled, saliency of stage 2": Row("dual", MEAN | {"stages": ("stage2",)}),
    "dual, mean pooled, momentum form": Row("dual", MEAN, momentum=True),
}
GROUPS = {"rivals": RIVALS, "ablations": ABLATIONS, "all": RIVALS | ABLATIONS}
TOY = dict.fromkeys(("pretrain", "probe_train", *TESTS, "unbiased_train", "unbiased_test"), 64)  # of eight classes each
QUICK = ("simclr", "fame", "bgaug")
HEAT_TESTS = ("iid", "swap")
LABELS: dict[str, tuple[tuple[int, int], str]] = {
    "fame-published": ((-5, 5), "right"),
    "bgaug": ((0, -16), "center"),
    "dual, mean pooled": ((-6, 14), "right"),
    "actorcutmix-published": ((-6, -41), "right"),
    "actorcutmix": ((-6, -22), "right"),
    "semi": ((-6, -11), "right"),
}
HEAT_PICTURE = ("simclr", "fame", "bgaug")


@dataclass(frozen=True)
class Cell:
    """What is trained and scored at once."""

    row: str
    seed: int
    steps: int
    data_seed: int

    def __str__(self) -> str:
        return f"{self.row}, seed {self.seed}, {self.steps} steps"

    def folder(self, work: Path) -> Path:
        """Of its run."""
        name = self.row.replace(", ", "-").replace(" ", "_").replace("'", "").replace(".", "")
        return work / f"draw-{self.data_seed}" / "runs" / f"{name}-steps{self.steps}-seed{self.seed}"


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="simclr, fame and bgaug, one seed, 400 steps")
parser.add_argument("--methods", help="rows by name, with commas; by default all of the group")
parser.add_argument("--group", choices=GROUPS, default="rivals")
parser.add_argument("--seeds", default="0,1,2", help="with commas")
parser.add_argument("--steps", default=str(STEPS), help="with commas; the first is the table's, others make a curve")
parser.add_argument("--data-seed", type=int, default=1, help="draw of the world, training and tests")
parser.add_argument("--only", choices=("world", "train", "score", "heat", "show"), help="one part of the work")
parser.add_argument("--work", type=Path, default=Path("out/bias"), help="folder for the world and the cells")
parser.add_argument("--out", type=Path, default=RESULTS / "bias.json")
parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells at once, one thread each")
parser.add_argument("--markdown", action="store_true", help="print the table as the documentation has it")
parser.add_argument("--json", action="store_true", help="print the result as the last line of stdout")
parser.add_argument("--toy", action="store_true", help="a world of a few videos and two steps, to see that it runs")
parser.add_argument("--cell", help=argparse.SUPPRESS)


def main() -> None:
    """Make the world, run the cells, gather the table."""
    options = parser.parse_args()
    if options.cell:
        run_cell(Cell(**json.loads(options.cell)), options.work, options.only, TOY if options.toy else None)
        return
    cells = list(wanted_cells(options))
    if options.only != "show":
        make_world(options.work, options.data_seed, TOY if options.toy else None)
    if options.only in (None, "train", "score"):
        run_cells(cells, options)
    if options.only == "heat" or (options.only is None and not options.quick):
        score_heat(cells, options)
    result = gather(options)
    if not options.quick:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        temporary = options.out.with_suffix(".tmp")
        temporary.write_text(compact(result) + "\n", "utf-8")
        os.replace(temporary, options.out)
        draw_plot(result, options.out.with_suffix(".png"))
    show_markdown(result) if options.markdown else show(result)
    if options.json:
        print(json.dumps(result))


def wanted_cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Seed by seed, so that an early end leaves whole columns."""
    if options.quick:
        options.methods, options.seeds, options.steps = ",".join(QUICK), "0", "2" if options.toy else "400"
    rows = GROUPS[options.group]
    names = (
        [name.strip() for name in options.methods.split(";" if ";" in options.methods else ",")]
        if options.methods
        else list(rows)
    )
    unknown = [name for name in names if name not in GROUPS["all"]]
    if unknown:
        parser.error(
            f"no row {', '.join(unknown)}; there are {'; '.join(GROUPS['all'])} "
            "(separate them by ; if a name has a comma)"
        )
    for steps in options.steps.split(","):
        for seed in options.seeds.split(","):
            for name in names:
                yield Cell(name, int(seed), int(steps), options.data_seed)


def make_world(work: Path, draw: int, counts: dict[str, int] | None) -> None:
    """Videos of the training split, and the store that the offline pipeline makes of them; kept."""
    from world_scores import SPLITS_NEEDED, cached_splits

    from bgaug.cli.console import TerminalProgress
    from bgaug.pipelines.build.options import ShardOptions, VideoOptions
    from bgaug.pipelines.build.shards import build_shards
    from bgaug.pipelines.demo.world import write_world

    folder = work / f"draw-{draw}"
    with TerminalProgress() as progress:
        videos = write_world(folder / "videos", "pretrain", (counts or {}).get("pretrain"), draw, progress, 0)
        one_shot = VideoOptions(shots=False, method="median")
        build_shards(
            ShardOptions(inputs=[videos], out=folder / "shards", video=one_shot, size=None, frames="raw"), progress
        )
        cached_splits(list(SPLITS_NEEDED), draw, counts, 0, progress, folder / "splits")


def run_cells(cells: Sequence[Cell], options: argparse.Namespace) -> None:
    """Each cell in a process of its own, with one thread: the same numbers however many run at once."""
    known = known_cells(options)
    waiting = [cell for cell in cells if (cell.row, cell.seed, cell.steps, cell.data_seed) not in known]
    commands = {}
    for cell in waiting:
        command = [sys.executable, __file__, "--cell", json.dumps(asdict(cell)), "--work", str(options.work)]
        command += ["--only", options.only] if options.only else []
        commands[cell] = command + (["--toy"] if options.toy else [])
    run_each(commands, options.jobs)


def run_each(commands: Mapping[T, list[str]], jobs: int, finished: Callable[[T], None] = lambda _: None) -> None:
    """Commands side by side, one thread each; what ends well is handed to `finished`, what fails is told."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    # glibc keeps what is freed instead of asking the system anew for every activation: a tenth of the time.
    environment |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}
    waiting, running = list(commands), dict[subprocess.Popen[bytes], T]()
    done, failed, begun = 0, 0, time.monotonic()
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            running[subprocess.Popen(commands[name], env=environment, stdout=subprocess.DEVNULL)] = name
        time.sleep(0.5)
        for process in [p for p in running if p.poll() is not None]:
            name = running.pop(process)
            done, failed = done + 1, failed + bool(process.returncode)
            if not process.returncode:
                finished(name)
            state = "failed" if process.returncode else "done"
            print(f"[{done}/{len(commands)}] {name}: {state} ({time.monotonic() - begun:.0f} s)", file=sys.stderr)
    if failed:
        print(f"{failed} failed; rerun to try them again", file=sys.stderr)


def run_cell(cell: Cell, work: Path, only: str | None, counts: dict[str, int] | None) -> None:
    """Train and score one cell in this process."""
    import torch
    from world_scores import SPLITS_NEEDED, cached_splits, world_scores

    from bgaug.model import ContrastiveLearner
    from bgaug.model.checkpoint import load_run
    from bgaug.pipelines.train.run import TrainOptions, train
    from bgaug.progress import Silent

    torch.set_num_threads(1)
    row, folder, data = GROUPS["all"][cell.row], cell.folder(work), work / f"draw-{cell.data_seed}"
    begun = time.process_time()
    untrained = cell.row == "untrained"
    if only != "score" and not untrained:
        train(
            data / "shards",
            folder,
            Silent(),
            options=TrainOptions(
                method=row.method,
                backbone="tiny",
                steps=cell.steps,
                batch_size=row.batch,
                seed=cell.seed,
                num_frames=8,
                stride=1,
                crop=32,
                momentum=row.momentum,
                change=row.change,
                min_grade="none",
                resume=True,
                device="cpu",
                threads=0,
            ),
        )
    if only == "train":
        return
    seconds = time.process_time() - begun
    splits = cached_splits(list(SPLITS_NEEDED), cell.data_seed, counts, 1, Silent(), data / "splits")
    torch.manual_seed(cell.seed)
    learner = ContrastiveLearner("tiny", row.method).eval() if untrained else load_run(folder, device="cpu").learner
    scores: dict[str, Any] = dict(world_scores(learner, splits))
    record = {**asdict(cell), "cpu_seconds": round(seconds, 1), "torch": torch.__version__, "scores": scores}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "scores.tmp"
    temporary.write_text(json.dumps(record), "utf-8")
    os.replace(temporary, folder / "scores.json")


def score_heat(cells: Sequence[Cell], options: argparse.Namespace) -> None:
    """How much of what the trained encoders look at is the mover, in videos of known masks."""
    from world_scores import cached_splits, heatmap_scores

    from bgaug.model.checkpoint import load_run
    from bgaug.pipelines.demo.world_score import heatmap_image
    from bgaug.progress import Silent

    data = options.work / f"draw-{options.data_seed}"
    counts = TOY if options.toy else None
    splits = cached_splits(HEAT_TESTS, options.data_seed, counts, 0, Silent(), data / "splits", truth=True)
    trained = cached_splits(["probe_train"], options.data_seed, counts, 0, Silent(), data / "splits")
    probe_train = trained["probe_train"]
    learners = {}
    for cell in cells:
        folder = cell.folder(options.work)
        if not (folder / "scores.json").exists() or cell.row == "untrained":
            continue
        learner = load_run(folder, device="cpu").learner
        if cell.seed == 0 and cell.row in HEAT_PICTURE:
            learners[cell.row] = learner
        if not (folder / "heat.json").exists():
            heat = heatmap_scores(learner, splits, probe_train)
            (folder / "heat.json").write_text(json.dumps(heat), "utf-8")
    if len(learners) == len(HEAT_PICTURE) and not options.quick:
        from bgaug.testing.synthetic import make_split
        from bgaug.visualize import write_image

        shown = make_split("swap", count=8, draw=options.data_seed, truth=True)
        image = heatmap_image({name: learners[name] for name in HEAT_PICTURE}, shown, probe_train)
        write_image(options.out.with_name("heatmaps.jpg"), image)


Key = tuple[str, int, int, int]


def known_cells(options: argparse.Namespace) -> dict[Key, dict[str, Any]]:
    """Cells in the kept result, and over them those in the work folder, by row, seed, steps and draw."""
    kept: list[dict[str, Any]] = []
    if options.out.exists() and not options.quick:
        kept += json.loads(options.out.read_text("utf-8")).get("cells", [])
    for path in sorted(options.work.glob("draw-*/runs/*/scores.json")):
        kept.append(json.loads(path.read_text("utf-8")))
        if path.with_name("heat.json").exists():
            kept[-1]["heat"] = json.loads(path.with_name("heat.json").read_text("utf-8"))
    return {(cell["row"], cell["seed"], cell["steps"], cell["data_seed"]): cell for cell in kept}


def gather(options: argparse.Namespace) -> dict[str, Any]:
    """All cells as one record; the tables are of the draw that was asked for."""
    everything = known_cells(options)
    cells = {key[:3]: cell for key, cell in everything.items() if key[3] == options.data_seed}
    steps = int(options.steps.split(",")[0])
    others = sorted({length for _, _, length in cells} - {steps})
    seeds = sorted({seed for _, seed, length in cells if length == steps})
    methods = {name: table_row(cells, name, steps, seeds) for name in GROUPS["all"]}
    return {
        "seeds": seeds,
        "steps": steps,
        "default": DEFAULT,
        "feature": {"of all": "global"} | FEATURE,
        "data_seed": options.data_seed,
        "command": f"python benchmarks/bias.py --group all --seeds {','.join(map(str, seeds))} --steps {options.steps}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, one thread a cell",
        "methods": {name: methods[name] for name in RIVALS if methods[name]},
        "curve": {
            str(length): {name: row for name in RIVALS if (row := table_row(cells, name, length, seeds))}
            for length in others
        },
        "ablations": {name: methods[name] for name in ABLATIONS if methods[name]},
        "cells": [everything[key] for key in sorted(everything)],
    }


def table_row(
    cells: dict[tuple[str, int, int], dict[str, Any]], name: str, steps: int, seeds: Sequence[int]
) -> dict[str, Any]:
    """Percent by test, in the order of seeds, as far as there are cells."""
    found = [cells[name, seed, steps] for seed in seeds if (name, seed, steps) in cells]
    if not found:
        return {}
    code = FEATURE.get(name, "global")
    row = {test: [cell["scores"][code][test] for cell in found] for test in (*TESTS, "unbiased", "scene", "prop")}
    row["static_scene"] = [cell["scores"]["static"]["scene"] for cell in found]
    row["dynamic_scene"] = [cell["scores"]["dynamic"]["scene"] for cell in found]
    row["dynamic_swap"] = [cell["scores"]["dynamic"]["swap"] for cell in found]
    row["knn_swap"] = [cell["scores"][code]["knn_swap"] for cell in found]
    for test in HEAT_TESTS:
        row[f"heat_{test}"] = [
            round(cell["heat"][test]["cam stage2"]["energy_ratio"], 3) for cell in found if "heat" in cell
        ]
    row["seeds"] = [cell["seed"] for cell in found]
    row["cpu_seconds"] = [cell["cpu_seconds"] for cell in found]
    return row


def compact(result: dict[str, Any], by_line: Sequence[str] = ("methods", "ablations", "cells")) -> str:
    """JSON with a line for each entry of some of its fields, which are lists or objects."""
    parts = []
    for name, value in result.items():
        text = json.dumps(value)
        if name in by_line and isinstance(value, list):
            text = "[\n" + ",\n".join(f"  {json.dumps(entry)}" for entry in value) + "\n ]"
        elif name in by_line:
            lines = [f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items()]
            text = "{\n" + ",\n".join(lines) + "\n }"
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


def show(result: dict[str, Any]) -> None:
    """The table, on stdout."""
    columns = (
        "iid",
        "wide",
        "micro",
        "swap",
        "conflict",
        "bgonly",
        "unbiased",
        "scene",
        "static_scene",
        "dynamic_scene",
    )
    print(f"{result['steps']} steps, draw {result['data_seed']}; percent, mean +- deviation over seeds")
    print(f"{'':34}{'n':>3}" + "".join(f"{name:>14}" for name in columns))
    for name, row in (result["methods"] | result["ablations"]).items():
        cells = "".join(f"{spread(row[column]):>14}" for column in columns)
        print(f"{name:34}{len(row['seeds']):>3}{cells}")


def show_markdown(result: dict[str, Any]) -> None:
    """The table with means and deviations, for a page."""
    columns = {
        "iid": "iid",
        "swap": "swapped background",
        "conflict": "conflicting background",
        "bgonly": "background only",
        "unbiased": "motion readable",
        "scene": "scene readable",
        "static_scene": "scene in the static code",
        "heat_swap": "decision on the mover",
    }
    for title in ("methods", "ablations"):
        shown = {column: name for column, name in columns.items() if any(row[column] for row in result[title].values())}
        print(f"| {title} | seeds | " + " | ".join(shown.values()) + " |")
        print("|---|---|" + "---|" * len(shown))
        for name, row in result[title].items():
            cells = [
                spread(row[column]) + (" x" if column.startswith("heat") else "") if row[column] else ""
                for column in shown
            ]
            print(f"| {name} | {len(row['seeds'])} | " + " | ".join(cells) + " |")
        print()


def spread(values: Sequence[float]) -> str:
    """Mean, and the sample's deviation where there is one."""
    return f"{mean(values):.1f}" + (f" +- {stdev(values):.1f}" if len(values) > 1 else "")


def draw_plot(result: dict[str, Any], path: Path) -> None:
    """Accuracy iid against swap, one dot a method, bars of one deviation."""
    colours = {"bgaug": "#d62728", "semi": "#ff7f0e"}
    dots = [
        Dot(name, row["swap"], row["iid"], colours.get(name, GREY_BLUE), *LABELS.get(name, ((4, 4), "left")))
        for name, row in result["methods"].items()
    ]
    across, up = "accuracy with swapped background, %", "accuracy where the background agrees, %"
    draw_dots(dots, (across, up), f"{result['steps']} steps of 128 encoded views", path)


GREY_BLUE = "#4c6a92"


@dataclass(frozen=True)
class Dot:
    """One row of a table in a plot: values by seed, and how its name is placed at the dot."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = GREY_BLUE
    place: tuple[int, int] = (4, 4)
    side: str = "left"
    filled: bool = True


def draw_dots(dots: Sequence[Dot], axis_names: tuple[str, str], title: str, path: Path) -> None:
    """Means over seeds with bars of one deviation; nothing but a note where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: pip install 'bgaug[plots]'", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 5))
    for dot in dots:
        x, y = mean(dot.x), mean(dot.y)
        bars = [stdev(values) if len(values) > 1 else 0 for values in (dot.x, dot.y)]
        face = dot.colour if dot.filled else "white"
        how = {"color": dot.colour, "markerfacecolor": face, "capsize": 2, "elinewidth": 1}
        axes.errorbar(x, y, xerr=bars[0], yerr=bars[1], fmt="o", **how)
        axes.annotate(dot.name, (x, y), xytext=dot.place, ha=dot.side, textcoords="offset points", fontsize=8)
    axes.set_xlabel(axis_names[0])
    axes.set_ylabel(axis_names[1])
    axes.set_title(f"{title}; bars: one deviation over seeds", fontsize=10)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
