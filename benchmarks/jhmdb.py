"""Does it help on real web video? Methods trained on JHMDB and tested with foreign backgrounds.

    python benchmarks/jhmdb.py --data DATA --quick                # three methods, few steps: under ten minutes
    python benchmarks/jhmdb.py --data DATA --seeds 0,1,2          # every row: some hours on two cores
    python benchmarks/jhmdb.py --data DATA --rows "simclr;bgaug, own masks"
    python benchmarks/jhmdb.py --only show                        # nothing is trained: the table of what is there

DATA holds `actions/jhmdb` (videos, true masks and labels.csv with group and fold), `scenes` (pictures without an
action) and `models`. Every row trains the encoder `tiny` without labels on folds 0 to 2, for the same number of steps
of 128 encoded views; a linear probe on plain clips of these folds is tested on fold 3. Test clips are composed with
*true* masks over pictures of three kinds of scenes; other kinds are donors of training. Columns:

    iid               plain clips
    scuba             the person over an unseen scene
    scufo             one frame of that, repeated
    contrasted        share that is right in scuba and wrong in scufo
    background_only   the clip's own background
    foreground_only   the person over grey
    self              the person over a still image of the own scene: what composing itself costs
    r1                nearest neighbour of plain clips in the training folds

A row with true masks in training is a ceiling, not a result. Features are read as the global code, the dynamic code and
as moments (mean, deviation and skewness over time, each normalised, with weights 1, 8 and 4, after SemanticMoments,
arXiv 2602.09146). A supervised row also has its own classifier, `head`. A cell is one row and seed. It is kept in the
result and in --work, and is not trained again.

p-values and intervals are over source videos, of the mean over seeds, paired; see `paired_difference`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from bias import GREY_BLUE, RESULTS, Dot, compact, draw_dots, run_each, spread

CLIP = {"num_frames": 8, "stride": 3, "crop": 56}
STEPS, BATCH = 350, 64
VIEWS = ("plain", "scuba", "scufo", "background_only", "foreground_only", "self")
COLUMNS = ("iid", "scuba", "scufo", "contrasted", "background_only", "foreground_only", "self", "r1")
READINGS = ("global", "dynamic", "moments", "head")
SCENES = {"donor": "bank"}
SUPERVISED = {"policy": "background", "probability": 0.5}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        method: a key of `bgaug.model.METHODS`.
        masks: the store that it trains on, one of `jhmdb_data.MASKS`.
        change: fields of Method and Composition to replace.
        momentum: whether it is the momentum form.
        batch: clips a step, so that as many views are encoded in each row.
    """

    method: str
    masks: str = "own"
    change: dict[str, Any] = field(default_factory=dict)
    momentum: bool = False
    batch: int = BATCH

    @property
    def labelled(self) -> bool:
        """Whether it learns labels."""
        return self.method.startswith("supervised")


ROWS = {
    "simclr": Row("simclr"),
    "bgaug, own masks": Row("bgaug"),
    "bgaug, own masks, scenes": Row("bgaug", change=SCENES),
    "bgaug, network, scenes": Row("bgaug", "network", SCENES),
    "bgaug, true masks, scenes": Row("bgaug", "true", SCENES),
    "fame": Row("fame"),
    "bgaug, network": Row("bgaug", "network"),
    "bgaug, true masks": Row("bgaug", "true"),
    "stillmix": Row("stillmix"),
    "actorcutmix, own masks": Row("actorcutmix"),
    "semi, own masks, scenes": Row("semi", change=SCENES),
    "moco": Row("moco", momentum=True),
    "byol": Row("byol", momentum=True),
    "fame-published": Row("fame-published"),
    "actorcutmix, true masks": Row("actorcutmix", "true"),
    "untrained": Row("simclr"),
    "supervised": Row("supervised", batch=2 * BATCH),
    "supervised, own masks, scenes": Row("supervised", change=SUPERVISED | SCENES, batch=2 * BATCH),
    "supervised, true masks, scenes": Row("supervised", "true", SUPERVISED | SCENES, batch=2 * BATCH),
    "supervised, fame": Row("supervised", change={"policy": "fame", "probability": 0.5}, batch=2 * BATCH),
    "supervised, stillmix": Row("supervised", change={"policy": "stillmix", "probability": 0.5}, batch=2 * BATCH),
    "albar": Row("supervised-albar", change={"w_penalty": 1.0}),
    "albar, own masks, scenes": Row("supervised-albar", change=SUPERVISED | SCENES | {"w_penalty": 1.0}),
}
QUICK = ("simclr", "bgaug, own masks, scenes", "untrained")
RIVALS = ("simclr", "fame", "stillmix", "actorcutmix, own masks", "moco", "byol")

Cells = dict[tuple[str, int], dict[str, Any]]
"""Records of cells by row and seed."""


@dataclass(frozen=True)
class Cell:
    """What is trained and scored at once."""

    row: str
    seed: int
    steps: int
    test_fold: int

    def __str__(self) -> str:
        return f"{self.row}, seed {self.seed}"

    def folder(self, work: Path) -> Path:
        """Of its run."""
        name = self.row.replace(", ", "-").replace(" ", "_")
        return work / "runs" / f"{name}-steps{self.steps}-seed{self.seed}"


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, help="folder of the real videos")
parser.add_argument("--work", type=Path, default=Path("out/jhmdb"), help="folder of the stores and the cells")
parser.add_argument("--rows", help="rows by name, with semicolons; by default all")
parser.add_argument("--seeds", default="0,1,2", help="with commas")
parser.add_argument("--steps", type=int, default=STEPS)
parser.add_argument("--test-fold", type=int, default=3)
parser.add_argument("--quick", action="store_true", help="three rows, one seed, a quarter of the clips, 60 steps")
parser.add_argument("--only", choices=("stores", "show"), help="one part of the work")
parser.add_argument("--out", type=Path, default=RESULTS / "jhmdb.json")
parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells at once, one thread each")
parser.add_argument("--json", action="store_true", help="print the result as the last line of stdout")
parser.add_argument("--cell", help=argparse.SUPPRESS)


def main() -> None:
    """Make the stores, run the cells, gather the table."""
    options = parser.parse_args()
    if options.cell:
        run_cell(Cell(**json.loads(options.cell)), options.work)
        return
    if options.quick:
        options.rows, options.seeds, options.steps = ";".join(QUICK), "0", 60
        options.work = options.work / "quick"
    if options.only != "show":
        prepare(options)
    if options.only is None:
        waiting = [cell for cell in cells_of(options) if cell not in known_cells(options)]
        command = [sys.executable, __file__, "--work", str(options.work), "--cell"]
        run_each({cell: [*command, json.dumps(asdict(cell))] for cell in waiting}, options.jobs)
    result = gather(options)
    if not options.quick and options.only is None:
        options.out.write_text(compact(result, ("cells", "comparisons", "runs")) + "\n", "utf-8")
        draw_plot(result, options.out.with_suffix(".png"))
    show(result)
    if options.json:
        print(json.dumps(result))


def prepare(options: argparse.Namespace) -> None:
    """The stores, as far as they are not there."""
    from jhmdb_data import make_stores

    from bgaug.cli.console import TerminalProgress

    if options.data is None:
        parser.error("--data DATA is needed to make the stores")
    with TerminalProgress() as progress:
        make_stores(options.data, options.work, options.test_fold, progress, every=4 if options.quick else 1)


def cells_of(options: argparse.Namespace) -> Iterator[Cell]:
    """Seed by seed, so that an early end leaves whole columns."""
    names = [name.strip() for name in options.rows.split(";")] if options.rows else list(ROWS)
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no row {', '.join(unknown)}; there are {'; '.join(ROWS)}")
    for seed in options.seeds.split(","):
        for name in names:
            yield Cell(name, int(seed), options.steps, options.test_fold)


def run_cell(cell: Cell, work: Path) -> None:
    """Train and score one cell in this process."""
    import torch
    from jhmdb_data import BANK

    from bgaug.model import ContrastiveLearner
    from bgaug.model.checkpoint import load_run
    from bgaug.pipelines.train.run import TrainOptions, train
    from bgaug.progress import Silent
    from bgaug.store.index import content_hash

    torch.set_num_threads(1)
    row, folder = ROWS[cell.row], cell.folder(work)
    begun = time.process_time()
    run = None
    if cell.row == "untrained":
        torch.manual_seed(cell.seed)
        learner = ContrastiveLearner("tiny", row.method).eval()
    else:
        how = TrainOptions(
            method=row.method,
            backbone="tiny",
            steps=cell.steps,
            batch_size=row.batch,
            seed=cell.seed,
            **CLIP,
            momentum=row.momentum,
            min_grade="none",  # every row sees the same clips
            bank=BANK if row.change.get("donor") == "bank" else None,
            change=row.change,
            resume=True,
            device="cpu",
            threads=0,
        )
        train(work / row.masks, folder, Silent(), options=how)
        run = load_run(folder, device="cpu")
        learner = run.learner
    seconds = time.process_time() - begun
    about = {"cpu_seconds": round(seconds), "store": content_hash(work / row.masks)}
    record = {**asdict(cell), **about, "torch": torch.__version__, **scored(learner, run, work)}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "scores.tmp"
    temporary.write_text(json.dumps(record), "utf-8")
    os.replace(temporary, folder / "scores.json")


def scored(learner: Any, run: Any, work: Path) -> dict[str, Any]:
    """Percent by reading and column, and right composites of each test video by view, as a string of digits."""
    import torch

    from bgaug.pipelines.evaluate.bias import scores
    from bgaug.pipelines.evaluate.bias.composer import Composer
    from bgaug.pipelines.evaluate.bias.readout import head_of
    from bgaug.pipelines.evaluate.bias.run import plan_bias
    from bgaug.pipelines.evaluate.options import BiasOptions
    from bgaug.progress import Silent
    from bgaug.store import open_store

    store, folder = open_store(work / "true"), work / "scenes" / "test"
    asked = BiasOptions(donors="folder", folder=folder, min_grade=None, scene_foregrounds=0)
    manifest = plan_bias(store, CLIP["num_frames"], CLIP["stride"], CLIP["crop"], asked, Silent())
    composer = Composer(store, manifest, folder)
    widths: dict[str, int] = {}

    def encoder(clips: torch.Tensor) -> torch.Tensor:
        parts = readings(learner, clips)
        widths.update({name: part.shape[1] for name, part in parts.items()})
        return torch.cat(list(parts.values()), dim=1)

    with torch.no_grad():
        encoded = scores.encode_composites(encoder, composer, 32, Silent())
        train = scores.train_set(encoder, composer, encoded, 32, Silent())
    found: dict[str, Any] = {"videos": 0, "scores": {}, "hits": {}}
    first = 0
    for name, width in widths.items():
        part = slice(first, first + width)
        first += width
        sides = {
            side: {view: values[:, part] for view, values in getattr(encoded, side).items()}
            for side in ("of_video", "of_row")
        }
        learnt, codes = replace(train, features=train.features[:, part]), replace(encoded, **sides)
        heads = {name: None}
        if name == "global" and learner.method.supervised:
            heads["head"] = head_of(run, store, "global", Silent())
        for reading, head in heads.items():
            tested = scores.classify(learnt, store, manifest, codes, head)
            found["scores"][reading], found["hits"][reading] = numbers(tested, codes.of_video["plain"], learnt)
        found["videos"] = len(codes.of_video["plain"])
    rows = [rows[0] for rows in scores.by_video(manifest)]
    found["groups"] = [row.group for row in rows]
    return found


def readings(learner: Any, clips: Any) -> dict[str, Any]:
    """Features of clips by reading, each (B, D)."""
    import torch
    from torch.nn.functional import normalize

    from bgaug.model.encoder import codes_of

    stages = learner.encoder.backbone(clips)
    codes = codes_of(stages, learner.encoder.decomposition)
    last = list(stages.values())[-1].float()
    centred = last - last.mean(dim=2, keepdim=True)
    deviation = (centred.square().mean(dim=2) + 1e-6).sqrt()
    skewness = centred.pow(3).mean(dim=2) / deviation.pow(3)
    moments = [part.mean(dim=(2, 3)) for part in (last.mean(dim=2), deviation, skewness)]
    weighted = [weight * normalize(part, dim=1) for weight, part in zip((1, 8, 4), moments, strict=True)]
    return {"global": codes.global_code, "dynamic": codes.dynamic, "moments": torch.cat(weighted, dim=1)}


def numbers(tested: Any, plain: Any, learnt: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Percent by column, and hits by video of some views."""
    import numpy as np

    from bgaug.metrics import retrieval

    hits = {view: tested.hit(view) for view in VIEWS}
    hits["contrasted"] = hits["scuba"] & ~hits["scufo"]
    places = [np.flatnonzero(tested.place == video) for video in range(len(plain))]
    ranks = retrieval(plain, tested.labels[[of[0] for of in places]], learnt.features, learnt.labels).ranks
    shares = {"iid" if view == "plain" else view: round(100 * float(hit.mean()), 2) for view, hit in hits.items()}
    shares["r1"] = round(100 * float((ranks < 1).mean()), 2)
    by_video = {
        view: "".join(str(int(hits[view][of].sum())) for of in places) for view in ("plain", "scuba", "contrasted")
    }
    return shares, by_video


def known_cells(options: argparse.Namespace) -> dict[Cell, dict[str, Any]]:
    """Cells of the kept result, and over them those in the work folder."""
    kept: list[dict[str, Any]] = []
    if options.out.exists() and not options.quick:
        kept += json.loads(options.out.read_text("utf-8"))["runs"]
    for path in sorted(options.work.glob("runs/*/scores.json")):
        kept.append(json.loads(path.read_text("utf-8")))
    return {Cell(**{name: cell[name] for name in Cell.__dataclass_fields__}): cell for cell in kept}


def gather(options: argparse.Namespace) -> dict[str, Any]:
    """All cells as one record."""
    from jhmdb_data import MASKS

    known = known_cells(options)
    cells = {
        (cell.row, cell.seed): found
        for cell, found in known.items()
        if (cell.steps, cell.test_fold) == (options.steps, options.test_fold)
    }
    table: dict[str, Any] = {}
    for name in ROWS:
        seeds = sorted(seed for row, seed in cells if row == name)
        for reading in READINGS if seeds else ():
            scores = [found for seed in seeds if (found := cells[name, seed]["scores"].get(reading))]
            if not scores:
                continue
            table[f"{name}; {reading}"] = {column: [score[column] for score in scores] for column in COLUMNS}
    return {
        "protocol": {
            "data": "JHMDB, folds 0 to 2 without labels and for the probe, test fold below",
            "test_fold": options.test_fold,
            "videos": next((found["videos"] for found in cells.values()), 0),
            "backbone": "tiny",
            "clip": CLIP,
            "steps": options.steps,
            "batch": BATCH,
            "composites": "true masks, three each, over pictures of three kinds of scenes; donors are of three others",
            "seeds": {name: sorted(seed for row, seed in cells if row == name) for name in ROWS},
            "stores": {name: stores_of(cells, name) for name in MASKS},
            "machine": f"{platform.machine()}, {platform.system()}, one thread a cell",
        },
        "cells": table,
        "comparisons": comparisons(cells),
        "runs": list(known.values()),
    }


def stores_of(cells: Cells, masks: str) -> list[str | None]:
    """Content hashes of the stores of some masks that cells were trained on: several if the masks have changed.

    None stands for cells that were run before the hash was kept.
    """
    return sorted({found.get("store") for (row, _), found in cells.items() if ROWS[row].masks == masks}, key=str)


def comparisons(cells: Cells) -> dict[str, Any]:
    """Ours, by its dynamic code, against the best reading of each rival over the seeds of both, in scuba and iid."""
    import numpy as np

    from bgaug.metrics import paired_difference

    found: dict[str, Any] = {}
    ours_rows = [name for name in ROWS if name.startswith("bgaug")]
    for ours in ours_rows:
        for rival in RIVALS:
            seeds = [seed for row, seed in cells if row == ours and (rival, seed) in cells]
            if not seeds:
                continue
            best = best_reading(cells, rival, seeds)
            groups = np.array(cells[ours, seeds[0]]["groups"])
            for view in ("scuba", "plain"):
                sides = [by_video(cells, rival, best, view, seeds), by_video(cells, ours, "dynamic", view, seeds)]
                paired = paired_difference(*sides, groups, n=10_000)
                found[f"{ours} against {rival} ({best}), {'iid' if view == 'plain' else view}"] = {
                    "ours": round(100 * float(sides[1].mean()), 2),
                    "rival": round(100 * float(sides[0].mean()), 2),
                    "low": round(100 * paired.low, 2),
                    "high": round(100 * paired.high, 2),
                    "p": round(paired.p, 5),
                    "seeds": len(seeds),
                }
    return found


def best_reading(cells: Cells, row: str, seeds: Sequence[int]) -> str:
    """The reading with the highest mean in scuba."""
    known = cells[row, seeds[0]]["scores"]
    return max(known, key=lambda reading: mean(cells[row, seed]["scores"][reading]["scuba"] for seed in seeds))


def by_video(cells: Cells, row: str, reading: str, view: str, seeds: Sequence[int]) -> Any:
    """Share of right composites of each test video, mean over seeds: float (V,)."""
    import numpy as np

    counts = np.array([[int(digit) for digit in cells[row, seed]["hits"][reading][view]] for seed in seeds])
    return counts.mean(axis=0) / 3


def show(result: dict[str, Any]) -> None:
    """The table and the comparisons, on stdout."""
    about = result["protocol"]
    print(f"fold {about['test_fold']}, {about['videos']} videos, {about['steps']} steps; percent, mean +- deviation")
    print(f"{'':40}{'n':>3}" + "".join(f"{name:>17}" for name in COLUMNS))
    for name, row in result["cells"].items():
        print(f"{name:40}{len(row['iid']):>3}" + "".join(f"{spread(row[column]):>17}" for column in COLUMNS))
    if mixed := [name for name, stores in about["stores"].items() if len(stores) > 1]:
        print(f"cells of one table were trained on different stores of masks: {', '.join(mixed)}")
    for name, found in result["comparisons"].items():
        low, high, p, seeds = (found[key] for key in ("low", "high", "p", "seeds"))
        ratio = found["ours"] / max(found["rival"], 1e-9)
        print(f"{name}: {found['ours']} to {found['rival']}, {ratio:.2f} x, {low} to {high}, {p = }, {seeds} seeds")


def draw_plot(result: dict[str, Any], path: Path) -> None:
    """Contrasted against iid, one dot a row by its best reading; rows with true masks are hollow."""
    best: dict[str, dict[str, list[float]]] = {}
    for name, row in result["cells"].items():
        kept = best.get(name.split(";")[0])
        if kept is None or mean(row["contrasted"]) > mean(kept["contrasted"]):
            best[name.split(";")[0]] = row
    dots = [
        Dot(
            name,
            row["contrasted"],
            row["iid"],
            "#d62728" if name.startswith("bgaug") else GREY_BLUE,
            filled="true masks" not in name,
        )
        for name, row in best.items()
    ]
    across = "right over an unseen scene, and wrong for one frame of it (contrasted), %"
    draw_dots(dots, (across, "accuracy on plain clips, %"), f"JHMDB, fold {result['protocol']['test_fold']}", path)


if __name__ == "__main__":
    main()
