"""JHMDB as stores to train on and to test with, for `jhmdb.py`.

Folds 0 to 2 are the split `train`, one other fold is the split `test`; folds are disjoint in their source videos. Three
stores hold the same frames. They differ in their masks: `own` has those that bgaug makes without a network, `network`
those with a person network as a cue, `true` those that the data set gives. Three kinds of scenes are a bank of donors
for training, the three others stand behind the foregrounds of the tests.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bgaug.pipelines.build.importing import import_backgrounds, import_masks
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Progress

MASKS = ("own", "network", "true")
BANK = "scenes"
SIZE = (72, 96)
_TRAIN_FOLDS = ("0", "1", "2")
_TEST_KINDS = ("mountain", "sea", "street")  # by alphabet the last three of six
_MASK_PIXELS = (240, 320)


def make_stores(data: Path, work: Path, test_fold: int, progress: Progress, *, every: int = 1) -> None:
    """Stores `work/own`, `work/network`, `work/true` and test images `work/scenes/test`; what is there is kept.

    Args:
        data: folder with `actions/jhmdb`, `scenes` and `models/selfie_segmentation.tflite`.
        work: folder of the stores.
        test_fold: the fold of the split `test`.
        progress: receives what happens.
        every: only every so manieth clip is used, and there is no store `network` if it is not 1.
    """
    if (work / "done").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    clips = _write_labels(data / "actions" / "jhmdb", work / "labels.csv", test_fold, every)
    _sort_scenes(data / "scenes", work / "scenes")
    _unpack_masks(data / "actions" / "jhmdb", work / "masks", clips)
    for clip in clips:
        (work / "videos" / clip).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / "actions" / "jhmdb" / "videos" / clip, work / "videos" / clip)
    same: dict[str, Any] = {
        "inputs": [work / "videos"],
        "labels": work / "labels.csv",
        "size": SIZE,
        "frames": "raw",
    }
    build_shards(ShardOptions(out=work / "own", **same), progress)
    if not (work / "true").exists():
        shutil.copytree(work / "own", work / "copy", dirs_exist_ok=True)
        import_masks(work / "copy", work / "masks", progress)
        (work / "copy").rename(work / "true")
    network = data / "models" / "selfie_segmentation.tflite"
    if network.exists() and every == 1:
        build_shards(ShardOptions(out=work / "network", video=VideoOptions(segmenter=network), **same), progress)
    for name in MASKS:
        if (work / name).exists():
            import_backgrounds(work / name, work / "scenes" / "train", progress, name=BANK, overwrite=True)
    (work / "done").touch()


def _write_labels(folder: Path, out: Path, test_fold: int, every: int) -> list[str]:
    """The list of labels with splits; the clips in it, as CLASS/NAME."""
    with (folder / "labels.csv").open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["fold"] in (*_TRAIN_FOLDS, str(test_fold))][::every]
    with out.open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines)
        table.writerow(("file", "class", "group", "split"))
        for row in rows:
            split = "test" if row["fold"] == str(test_fold) else "train"
            table.writerow((row["file"].removeprefix("videos/"), row["class_name"], row["group"], split))
    return [row["file"].removeprefix("videos/") for row in rows]


def _sort_scenes(folder: Path, out: Path) -> None:
    for path in sorted(folder.glob("*.jpg")):
        place = out / ("test" if path.name.startswith(_TEST_KINDS) else "train")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / path.name)


def _unpack_masks(folder: Path, out: Path, clips: list[str]) -> None:
    """True masks as arrays of bool that `import_masks` reads."""
    for clip in clips:
        bits = np.load((folder / "masks" / clip).with_suffix(".npz"))["bits"]
        masks = np.unpackbits(bits, axis=1, count=np.prod(_MASK_PIXELS)).reshape(-1, *_MASK_PIXELS).astype(np.bool_)
        place = (out / clip).with_suffix(".npz")
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(place, masks=masks)
