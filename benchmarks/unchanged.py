"""Show that a change of the code leaves its results equal to the bit: stores, weights, features, metrics.

    python benchmarks/unchanged.py --data DATA --out before.json --keep kept     # at the commit before the change
    python benchmarks/unchanged.py --data DATA --out after.json --compare before.json --read-old kept

DATA holds `actions/ut_interaction_set1` with its `labels.csv`. All of its videos are used, unless --videos gives a
smaller number. The script uses the command line only (`python -m bgaug.cli.main`, run in the folder of the checkout
whose bgaug this Python imports) and reads checkpoints with torch. It therefore works at any commit whose options stand
in OPTIONS.

--compare prints `equal` or `different` for every entry, and the exit code is 1 after a difference. Weights are hashed
twice: with the names of the tensors, and without. A difference in the names only is printed as `renamed` and is no
failure; --read-old then shows whether checkpoints with the old names still load. Without --data, --out must exist, and
the two files are compared.

--read-old opens the store and the checkpoint that --keep saved at an earlier commit, and compares content hash,
features and metrics with those of that commit.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CLIPS = "actions/ut_interaction_set1"
STORES = ("median", "auto")
METHODS = ("bgaug", "dual", "moco", "byol")

# Every option that the script uses, by command. The first name that the command's --help lists is used: add a new name
# beside the old one when an option is renamed.
OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "build-shards": {
        "out": ("--out",),
        "labels": ("--labels",),
        "backgrounds by": ("--background-method", "--estimator", "--method"),
        "jobs": ("--jobs",),
        "json": ("--json",),
    },
    "verify": {"deep": ("--deep",), "json": ("--json",)},
    "train": {
        "out": ("--out",),
        "method": ("--method",),
        "backbone": ("--backbone",),
        "steps": ("--steps",),
        "batch": ("--batch-size",),
        "frames": ("--num-frames", "--clip-frames", "--frames"),
        "crop": ("--crop",),
        "seed": ("--seed",),
        "threads": ("--reader-threads", "--threads"),
        "device": ("--device",),
        "json": ("--json",),
    },
    "evaluate": {
        "protocol": ("--protocol", "--protocols"),
        "clips": ("--num-clips", "--clips"),
        "bias out": ("--bias-out",),
        "threads": ("--reader-threads", "--threads"),
        "device": ("--device",),
        "json": ("--json",),
    },
    "embed": {"out": ("--out",), "clips": ("--num-clips", "--clips"), "device": ("--device",), "json": ("--json",)},
}
TRAINING: Mapping[str, object] = {
    "backbone": "tiny",
    "steps": 50,
    "batch": 8,
    "frames": 8,
    "crop": 64,
    "seed": 0,
    "threads": 1,
    "device": "cpu",
    "json": True,
}
ENCODING: Mapping[str, object] = {"clips": 2, "device": "cpu", "json": True}
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


def main() -> None:
    """Run the jobs, write the file, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the real videos; without it, --out is read, not made")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--compare", type=Path, help="JSON file of an earlier commit")
    parser.add_argument("--keep", type=Path, help="new folder for the store and the run, for --read-old later")
    parser.add_argument("--read-old", type=Path, help="folder that --keep saved at an earlier commit")
    parser.add_argument("--videos", type=int, help="use only the first so many videos, sorted by name")
    given = parser.parse_args()
    if given.data is not None:
        with tempfile.TemporaryDirectory() as work:
            results = run_all(given.data.resolve(), Path(work), given.videos)
            given.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
            if given.keep is not None:
                keep(Path(work), results, given.keep)
    faults = 0
    if given.compare is not None:
        before, after = (json.loads(path.read_text("utf-8")) for path in (given.compare, given.out))
        print(f"commit {before['commit'][:12]} against {after['commit'][:12]}")
        for name in ("torch", "threads", "machine", "videos"):
            if before[name] != after[name]:
                print(f"note: {name} is {before[name]} before and {after[name]} after")
        faults += report(before["results"], after["results"])
    if given.read_old is not None:
        faults += read_old(given.read_old.resolve())
    sys.exit(1 if faults else 0)


def run_all(data: Path, work: Path, limit: int | None) -> dict[str, Any]:
    """All jobs of this commit, and where they ran."""
    import torch

    begun = time.monotonic()
    videos = sorted((data / CLIPS).glob("*.avi"))[:limit]
    clips = work / "clips"
    clips.mkdir()
    for video in videos:
        shutil.copy(video, clips)  # a build skips links that lead out of its folder
    rows = (data / CLIPS / "labels.csv").read_text("utf-8").splitlines()
    names = {video.name for video in videos}
    (work / "labels.csv").write_text("\n".join([rows[0], *(r for r in rows[1:] if r.split(",")[0] in names)]) + "\n")
    results: dict[str, Any] = {}
    for method in STORES:
        step(f"build a store with {method} backgrounds")
        out = work / f"store-{method}"
        options = {"out": out, "labels": work / "labels.csv", "backgrounds by": method, "jobs": 1, "json": True}
        call("build-shards", [clips], options, allowed=(0, 1))
        results[f"store {method}: content_hash"] = content_hash(out)
    store = work / f"store-{STORES[0]}"
    for method in METHODS:
        step(f"train {method}")
        call("train", [store], {**TRAINING, "out": work / f"run-{method}", "method": method})
        results |= {f"weights {method}: {key}": value for key, value in hash_weights(work / f"run-{method}").items()}
    run = work / f"run-{METHODS[0]}"
    step("evaluate and embed")
    results |= measure(run, store, work)
    manifest = (work / "bias" / "manifest.json").read_bytes()
    results["bias manifest: sha256"] = hashlib.sha256(manifest).hexdigest()
    return {
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": 1,
        "machine": platform.machine(),
        "videos": f"{len(videos)} of {CLIPS}",
        "seconds": round(time.monotonic() - begun),
        "results": results,
    }


def measure(run: Path, store: Path, work: Path) -> dict[str, Any]:
    """Metrics of three protocols, and the hash of the features."""
    import numpy as np

    protocols = {**ENCODING, "threads": 1}
    found = call("evaluate", [run, store], {**protocols, "protocol": "linear,retrieval"})
    biased = call("evaluate", [run, store], {**protocols, "protocol": "bias", "bias out": work / "bias"})
    call("embed", [run, store], {**ENCODING, "out": work / "features.npz"})
    with np.load(work / "features.npz") as arrays:
        features, ids = arrays["features"], arrays["ids"]
    results: dict[str, Any] = {
        "features: sha256": hashlib.sha256(np.ascontiguousarray(features).tobytes()).hexdigest(),
        "features: shape": list(features.shape),
        "features: ids": hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest(),
    }
    for name, result in (("linear,retrieval", found), ("bias", biased)):
        results |= {f"{name}: {key}": value for key, value in sorted(numbers(result))}
    return results


def numbers(result: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number of an evaluation's result by its place, without its settings."""
    if isinstance(result, bool):
        return
    if isinstance(result, (int, float)):
        yield name, result
    elif isinstance(result, dict):
        for key, value in result.items():
            if key != "settings":
                yield from numbers(value, f"{name}.{key}" if name else key)
    elif isinstance(result, list):
        for place, value in enumerate(result):
            label = value.get("class", place) if isinstance(value, dict) else place
            yield from numbers(value, f"{name}.{label}")


def content_hash(store: Path) -> str:
    """Hash of what a store holds, after every frame was decoded."""
    verified = call("verify", [store], {"deep": True, "json": True})
    return str(verified["content_hash"])


def hash_weights(run: Path) -> dict[str, str]:
    """Hashes of the learner's tensors: sorted by name, and by value only."""
    import torch

    path = max((run / "checkpoints").glob("step-*.pt"))
    tensors = torch.load(path, map_location="cpu", weights_only=True)["learner"]
    digests = {}
    for name, tensor in tensors.items():
        head = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
        digests[name] = hashlib.sha256(head + tensor.contiguous().numpy().tobytes()).hexdigest()
    return {
        "with names": _joined(f"{name} {digests[name]}" for name in sorted(digests)),
        "values": _joined(sorted(digests.values())),
    }


def _joined(lines: Iterator[str] | Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def keep(work: Path, results: Mapping[str, Any], folder: Path) -> None:
    """Save the store, the run and the results for a later commit."""
    shutil.copytree(work / f"store-{STORES[0]}", folder / "store")
    shutil.copytree(work / f"run-{METHODS[0]}", folder / "run", ignore=shutil.ignore_patterns("features"))
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def read_old(folder: Path) -> int:
    """Open a store and a run of an earlier commit; returns the number of differences."""
    earlier = json.loads((folder / "results.json").read_text("utf-8"))
    print(f"\nstore and run of commit {earlier['commit'][:12]}, read at {commit()[:12]}")
    with tempfile.TemporaryDirectory() as work:
        store, run = Path(work, "store"), Path(work, "run")
        shutil.copytree(folder / "store", store)  # nothing is written into the folder
        shutil.copytree(folder / "run", run)
        name = f"store {STORES[0]}: content_hash"
        after = {name: content_hash(store)} | measure(run, store, Path(work))
    return report({key: value for key, value in earlier["results"].items() if key in after}, after)


def report(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print a line for every entry, metrics that are equal as one; returns the number of differences."""
    faults, equal_metrics = 0, 0
    for name in before | after:
        old, new = before.get(name), after.get(name)
        if old == new:
            if isinstance(old, (int, float)):
                equal_metrics += 1
            else:
                print(f"equal      {name}")
            continue
        values = name.replace("with names", "values")
        if values != name and before.get(values) == after.get(values):
            print(f"renamed    {name}: only names of tensors")
            continue
        faults += 1
        print(f"different  {name}: {_short(old)} before, {_short(new)} after")
    print(f"equal      {equal_metrics} metrics")
    print(f"{faults} differences")
    return faults


def _short(value: Any) -> str:
    return "missing" if value is None else str(value)[:16]


def call(
    command: str, arguments: Sequence[object], options: Mapping[str, object], allowed: tuple[int, ...] = (0,)
) -> dict[str, Any]:
    """The last line of a command's output, which is JSON."""
    line = [sys.executable, "-m", "bgaug.cli.main", command, *map(str, arguments)]
    for key, value in options.items():
        line += [option(command, key)] if value is True else [option(command, key), str(value)]
    done = subprocess.run(line, cwd=root(), env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise SystemExit(f"{' '.join(line)} left with {done.returncode}:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def option(command: str, key: str) -> str:
    """The name that a command of this commit has for an option."""
    names = OPTIONS[command][key]
    for name in names:
        if name in help_words(command):
            return name
    raise SystemExit(f"{command} lists none of {', '.join(names)} in --help: add its name for {key!r} to OPTIONS")


@functools.cache
def help_words(command: str) -> frozenset[str]:
    """All options that a command's help page lists at the beginning of a row."""
    line = [sys.executable, "-m", "bgaug.cli.main", command, "--help"]
    wide = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    page = subprocess.run(line, cwd=root(), env=wide, capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^[│|]?\s*\*?\s*(--[a-z][a-z0-9-]*)", page, re.MULTILINE)
    return frozenset(rows)


@functools.cache
def root() -> Path:
    """The checkout whose bgaug this Python imports."""
    command = [sys.executable, "-c", "import bgaug; print(bgaug.__file__)"]
    shown = subprocess.run(command, cwd=Path(sys.executable).parent, capture_output=True, text=True, check=True)
    return Path(shown.stdout.strip()).resolve().parents[1]


def commit() -> str:
    """The commit of that checkout; `+changes` after it if tracked files differ."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root(), capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")


def step(text: str) -> None:
    """Print on stderr which job begins."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
