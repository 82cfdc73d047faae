"""Small real data: pre-trained on a handful of clips, asked about UT-Interaction with one recording left out at a time.

    python benchmarks/real.py --data DATA --work out/real [--seeds 0,1,2] [--steps 400]
    python benchmarks/real.py --data DATA --work out/real --quick     # a few steps, to see that it runs

DATA holds the folders `clips` and `backgrounds` to pre-train on (static shots of them take part) and
`actions/ut_interaction_set1` with its `labels.csv`. Every UT clip is brought to one size, and its feature is the mean
over ten clips of one length: the files' sizes and lengths give their labels away. Retrieval (R@1) and a linear probe,
each recording against the others. Then the bias evaluation: accuracy where what lies far from the foreground is foreign
(*wide* bias), and where a ring about it is (*micro* bias), and how far the feature moves by it, over how far features
of two videos lie apart.

Forty clips teach an encoder little, and sixty tell few differences apart: the intervals are over recordings, the
differences are paired, and p is of a permutation of recordings. Cells are kept in --work; the result goes to --out.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bgaug.metrics import LinearProbe, bootstrap_interval, leave_one_out_retrieval, paired_difference
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import load_run
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.evaluate.bias.run import BiasOptions, plan_bias, score_bias
from bgaug.pipelines.evaluate.embed import EmbedOptions, embed_store
from bgaug.pipelines.train.run import TrainOptions, train
from bgaug.progress import Silent
from bgaug.store import open_store

METHODS = ("untrained", "simclr", "moco", "fame", "semi", "bgaug")
OURS = "bgaug"
CODES = dict.fromkeys(("simclr", "fame", "semi"), ("global", "dynamic")) | {
    "bgaug": ("dynamic", "global")
}  # its own first, then one beside it
OTHER = {code: f", {code} code" for code in ("global", "dynamic")}
BIAS = ("plain", "far", "ring", "far_drift", "ring_drift")
CLIP = {"num_frames": 8, "stride": 2, "crop": 56}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, required=True, help="folder of the real videos")
parser.add_argument("--work", type=Path, default=Path("out/real"))
parser.add_argument("--seeds", default="0,1,2")
parser.add_argument("--methods", default=",".join(METHODS))
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--batch", type=int, default=9)
parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "real.json")
parser.add_argument("--quick", action="store_true")


def main() -> None:
    """Build, train, ask, print."""
    options = parser.parse_args()
    if options.quick:
        options.steps, options.seeds = 2, "0"
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    videos, actions = options.data, options.data / "actions" / "ut_interaction_set1"
    build(options.work / "pretrain", [videos / "clips", videos / "backgrounds"], None)
    build(options.work / "ut", [actions], actions / "labels.csv")
    found: dict[str, dict[str, list[NDArray[np.bool_]]]] = {}
    bias: dict[str, dict[str, list[float]]] = {}
    groups: NDArray[np.str_] = np.array([])
    for name in options.methods.split(","):
        for seed in seeds:
            begun = time.process_time()
            learner, config = trained(options, name, seed)
            for code in CODES.get(name, ("global",)):
                row = name + (OTHER[code] if code != CODES.get(name, ("global",))[0] else "")
                hits, groups, apart = cell(options, learner, config, code)
                for protocol, values in hits.items():
                    found.setdefault(row, {}).setdefault(protocol, []).append(values)
                for metric, value in foreign(options, learner, config, code).items():
                    share = value / apart if metric.endswith("drift") else value
                    bias.setdefault(row, {}).setdefault(metric, []).append(round(share, 2))
            print(f"{name}, seed {seed}: {time.process_time() - begun:.0f} CPU s", flush=True)
    result = {
        "data": "UT-Interaction set 1, one recording left out at a time",
        "pretrain_videos": len(open_store(options.work / "pretrain")),
        "steps": options.steps,
        "batch": options.batch,
        "seeds": seeds,
        "clip": CLIP,
        "methods": {name: numbers(name, found, groups) | {"bias": bias[name]} for name in found},
    }
    show(result)
    if not options.quick:
        options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def build(out: Path, videos: list[Path], labels: Path | None) -> None:
    """A store of videos, where it is not there yet; what fails is named in it."""
    build_shards(ShardOptions(inputs=videos, out=out, labels=labels, size=(128, 171)), Silent())


def cell(
    options: argparse.Namespace, learner: ContrastiveLearner, config: dict[str, Any], code: str
) -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.str_], float]:
    """UT clips classified correctly, by protocol; the recording of each clip; mean cosine distance of two clips."""
    asked = EmbedOptions(feature=code, clips=10)
    embedding = embed_store(learner, config, open_store(options.work / "ut"), Silent(), asked)
    values, labels = embedding.features, np.asarray(embedding.labels)
    recordings = np.asarray(embedding.groups)
    ranks = leave_one_out_retrieval(values, labels, recordings).ranks
    linear = np.zeros(len(labels), np.bool_)
    for recording in np.unique(recordings):
        test = recordings == recording
        linear[test] = LinearProbe().fit(values[~test], labels[~test]).predict(values[test]) == labels[test]
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    apart = 1 - (unit @ unit.T)[~np.eye(len(unit), dtype=np.bool_)].mean()
    return {"retrieval": ranks < 1, "linear": linear}, recordings, float(apart)


def foreign(
    options: argparse.Namespace, learner: ContrastiveLearner, config: dict[str, Any], code: str
) -> dict[str, float]:
    """What the bias evaluation says of a feature, on the same composites for all."""
    store, asked = open_store(options.work / "ut"), BiasOptions(composites=1)
    plan = plan_bias(store, config["num_frames"], config["stride"], config["crop"], asked, Silent())
    report = score_bias(lambda clips: learner.features(clips, code), store, plan, Silent(), options=asked)
    return {name: report.metrics[name] for name in BIAS}


def trained(options: argparse.Namespace, name: str, seed: int) -> tuple[ContrastiveLearner, dict[str, Any]]:
    """An encoder and its configuration; trained as far as it is not yet."""
    if name == "untrained":
        torch.manual_seed(seed)
        return ContrastiveLearner("tiny", "simclr").eval(), {**CLIP, "backbone": "tiny", "method": name}
    out = options.work / f"{name}-steps{options.steps}-seed{seed}"
    if not (out / "checkpoints" / f"step-{options.steps:08d}.pt").exists():
        asked = {
            "backbone": "tiny",
            "steps": options.steps,
            "batch_size": options.batch,
            "seed": seed,
            "keep": 1,
            "min_grade": "none",
            **CLIP,
        }
        how = TrainOptions(method=name, momentum=name == "moco", **asked)
        train(options.work / "pretrain", out, Silent(), options=replace(how, resume=True, device="cpu", threads=0))
    run = load_run(out, device="cpu")
    learner, config = run.learner, run.config
    learner.encoder.decomposition.pool = "deviation"  # a reading: no weight depends on it
    return learner, config


def numbers(
    name: str, found: dict[str, dict[str, list[NDArray[np.bool_]]]], groups: NDArray[np.str_]
) -> dict[str, Any]:
    """Percent by seed with an interval over recordings, and how ours differs, of each protocol."""
    told: dict[str, Any] = {}
    for protocol, runs in found[name].items():
        # A clip's hits are averaged over seeds first: recordings are what is drawn again.
        per_clip = np.mean(runs, axis=0)
        low, high = bootstrap_interval(per_clip, groups)
        told[protocol] = {
            "by_seed": [round(100 * float(run.mean()), 1) for run in runs],
            "interval": [round(100 * low, 1), round(100 * high, 1)],
        }
        if name != OURS and OURS in found:
            paired = paired_difference(per_clip, np.mean(found[OURS][protocol], axis=0), groups)
            told[protocol]["ours_less_this"] = {
                "difference": round(100 * paired.difference, 1),
                "interval": [round(100 * paired.low, 1), round(100 * paired.high, 1)],
                "p": round(paired.p, 4),
            }
    return told


def show(result: dict[str, Any]) -> None:
    """The table, on stdout."""
    print(
        f"{result['pretrain_videos']} videos to pre-train on, {result['steps']} steps of {result['batch']}; "
        "percent, chance 16.7"
    )
    for protocol in ("retrieval", "linear"):
        print(f"{protocol:22}{'by seed':>24}{'mean':>8}{'spread':>8}{'95 % over recordings':>24}   ours less this")
        for name, row in result["methods"].items():
            values, told = row[protocol]["by_seed"], row[protocol].get("ours_less_this")
            spread = f"{stdev(values):.1f}" if len(values) > 1 else ""
            listed = " ".join(f"{value:.1f}" for value in values)
            low, high = row[protocol]["interval"]
            against = (
                f"{told['difference']:+.1f} [{told['interval'][0]:+.1f}, {told['interval'][1]:+.1f}] p {told['p']}"
                if told
                else ""
            )
            print(f"{name:22}{listed:>24}{mean(values):8.1f}{spread:>8}{f'{low:.1f} to {high:.1f}':>24}   {against}")
    print(
        f"{'bias':22}"
        + "".join(f"{metric:>20}" for metric in BIAS)
        + "   (percent; drifts over the distance of two videos)"
    )
    for name, row in result["methods"].items():
        cells = (row["bias"][metric] for metric in BIAS)
        print(f"{name:22}" + "".join(f"{' '.join(f'{value:.1f}' for value in values):>20}" for values in cells))


if __name__ == "__main__":
    main()
