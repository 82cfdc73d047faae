"""Splits of the synthetic world kept in files, and scores of an encoder in it, for `bias.py` and `micro.py`.

A linear probe is trained on frozen features of biased videos and tested on each split; other probes measure how well
scene, prop and motion can be predicted from the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bgaug.files import write_arrays
from bgaug.files.archives import UNREADABLE, read_npz
from bgaug.metrics import LinearProbe, knn_accuracy
from bgaug.metrics.heatmap import centre_crop_masks, localisation, score_heatmaps
from bgaug.model import ContrastiveLearner
from bgaug.model.decomposition import CODES
from bgaug.pipelines.demo.world import world_splits
from bgaug.pipelines.demo.world_score import class_maps, encode, middle, middle_clips
from bgaug.pipelines.evaluate import features
from bgaug.progress import Progress
from bgaug.testing.synthetic import KINDS, REFERENCE_SIZE, SPLITS, SyntheticSplit, World, make_split

TESTS = ("iid", "wide", "micro", "swap", "photo", "conflict", "bgonly")
SPLITS_NEEDED = ("probe_train", *TESTS, "unbiased_train", "unbiased_test")
_PROOF = 8  # videos made again to check that a file belongs to this world: one of each class
_FACTORS = ("labels", "scene", "prop", "kind")
_PLAIN = ("frames", *_FACTORS)
_MASKS = ("masks", "moving", "degraded")
_TRUTH = ("plates", "backgrounds", *_MASKS)


def cached_splits(
    names: Sequence[str],
    draw: int,
    counts: Mapping[str, int] | None,
    jobs: int,
    progress: Progress,
    cache: Path,
    *,
    truth: bool = False,
    world: World = "plain",
    size: int = REFERENCE_SIZE,
) -> dict[str, SyntheticSplit]:
    """`world_splits`, kept in a folder, one .npz per split.

    A smaller split is the beginning of a larger one. A file is made again if it cannot be read, or if its first videos
    are not those of this world.
    """
    kind = f"-{world}" * (world != "plain") + f"-{size}" * (size != REFERENCE_SIZE) + "-truth" * truth
    fields = (*_PLAIN, *_TRUTH) if truth else _PLAIN
    found = {}
    for name in names:
        count = (counts or {}).get(name, SPLITS[name].count)
        path = cache / f"{name}-draw{draw}{kind}.npz"
        proof = make_split(name, count=min(count, _PROOF), draw=draw, truth=truth, world=world, size=size)
        kept = _read(path, proof, count, fields, progress)
        if kept is None:
            kept = world_splits([name], draw, {name: count}, jobs, progress, truth=truth, world=world, size=size)[name]
            write_arrays(path, {field: getattr(kept, field) for field in fields})
        else:
            progress.start(f"reading {path.name}", count)
            progress.advance(count, "already there")
        found[name] = kept
    return found


def _read(
    path: Path, proof: SyntheticSplit, count: int, fields: Sequence[str], progress: Progress
) -> SyntheticSplit | None:
    """A split from a file; None if there is no file, or it has too few videos or other ones."""
    if not path.exists():
        return None
    try:
        arrays = {field: array[:count] for field, array in read_npz(path, fields).items()}
    except UNREADABLE as error:
        progress.warn(f"{path} cannot be read and is made again: {error}")
        return None
    if len(arrays["labels"]) < count:
        return None
    split = SyntheticSplit(proof.name, 0, **arrays)
    if not _same_beginning(split, proof, fields):
        progress.warn(f"{path} has videos of another world and is made again")
        return None
    return split


def _same_beginning(split: SyntheticSplit, proof: SyntheticSplit, fields: Sequence[str]) -> bool:
    """Whether a split begins with these videos; on another kind of CPU a pixel may be off by one grey level."""
    for name in fields:
        found, expected = getattr(split, name)[: len(proof)], getattr(proof, name)
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return False
        if name in _MASKS:
            if (found != expected).mean() > 1e-3:
                return False
        elif np.abs(found.astype(np.int64) - expected).max() > (0 if name in _FACTORS else 1):
            return False
    return True


def world_scores(learner: ContrastiveLearner, splits: Mapping[str, SyntheticSplit]) -> dict[str, dict[str, float]]:
    """All scores of an encoder in the world, in percent, by code.

    Of each feature: the tests of `probe_accuracies`; `knn_iid`, `knn_swap` (ten nearest neighbours); `unbiased`, where
    the probe is trained and tested on videos without correlations: how much motion is in the feature at all; `scene`
    and
    `prop`, how well a probe reads those, by chance 12.5. In the micro world also `wide` and `swap` by the kind of prop,
    such as `swap_held`.

    Args:
        learner: learner in evaluation mode.
        splits: splits of `SPLITS_NEEDED`, by name.
    """
    values_of: dict[str, dict[str, NDArray[np.float32]]] = {which: {} for which in CODES}
    for name in SPLITS_NEEDED:
        for which, values in encode_all(learner, splits[name].frames).items():
            values_of[which][name] = values
    return {which: _scores(values, splits) for which, values in values_of.items()}


def _scores(features: Mapping[str, NDArray[np.float32]], splits: Mapping[str, SyntheticSplit]) -> dict[str, float]:
    labels = {name: splits[name].labels for name in SPLITS_NEEDED}
    probe = LinearProbe().fit(features["probe_train"], labels["probe_train"])
    found = {name: probe.accuracy(features[name], labels[name]) for name in TESTS}
    for name, kind in _several_kinds(splits):
        chosen = splits[name].kind == kind
        found[f"{name}_{KINDS[kind]}"] = probe.accuracy(features[name][chosen], labels[name][chosen])
    for name in ("iid", "swap"):
        found[f"knn_{name}"] = knn_accuracy(
            features["probe_train"], labels["probe_train"], features[name], labels[name]
        )
    train, test = splits["unbiased_train"], splits["unbiased_test"]
    for name, factor in (("unbiased", "labels"), ("scene", "scene"), ("prop", "prop")):
        probe = LinearProbe().fit(features["unbiased_train"], getattr(train, factor))
        found[name] = probe.accuracy(features["unbiased_test"], getattr(test, factor))
    return {name: round(100 * value, 2) for name, value in found.items()}


def _several_kinds(splits: Mapping[str, SyntheticSplit]) -> Iterator[tuple[str, int]]:
    """Splits and kinds of prop that are tested apart."""
    for name in ("wide", "swap"):
        kinds = np.unique(splits[name].kind).tolist()
        if len(kinds) > 1:
            yield from ((name, kind) for kind in kinds)


def heatmap_scores(
    learner: ContrastiveLearner,
    splits: Mapping[str, SyntheticSplit],
    probe_train: SyntheticSplit,
    which: str = "global",
) -> dict[str, dict[str, dict[str, float]]]:
    """Localisation of the mover by an encoder's maps.

    "activation", "activation_mean" and "saliency" are maps of the last stage, see
    `bgaug.metrics.heatmap.score_heatmaps`. "cam stage2" and so on are maps of the class that a linear probe on a code
    predicts, from the same code; in the last stage that is the class activation map.

    Args:
        learner: learner in evaluation mode.
        splits: splits with their truth, by name.
        probe_train: split on which the probe is trained.
        which: name of the code, "global" or "dynamic".

    Returns:
        Numbers by split and map, means over its videos.

    Raises:
        ValueError: a split has no masks.
    """
    probe = LinearProbe().fit(encode(learner, probe_train.frames, which), probe_train.labels)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, split in splits.items():
        if split.masks is None:
            raise ValueError(f"heat maps are scored against true masks; make {name!r} with truth=True")
        frames, masks = (torch.from_numpy(middle(values)) for values in (split.frames, split.masks))
        clips = middle_clips(split.frames)
        crop = clips.shape[3]
        found[name] = score_heatmaps(_maps_of(learner), frames, masks, crop)
        numbers: dict[str, dict[str, list[torch.Tensor]]] = {}
        known = torch.split(centre_crop_masks(masks, crop), 64)
        for part, mask in zip(torch.split(clips, 64), known, strict=True):
            for stage, heat in class_maps(learner, probe, part, which).items():
                for number, values in localisation(heat, mask, width=crop // 16).items():
                    numbers.setdefault(f"cam {stage}", {}).setdefault(number, []).append(values)
        for title, parts in numbers.items():
            found[name][title] = {number: float(torch.cat(values).nanmean()) for number, values in parts.items()}
    return found


def _maps_of(learner: ContrastiveLearner) -> Any:
    def encode_maps(clips: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        stages = learner.encoder.backbone(clips)
        return stages, learner.encoder.decomposition(stages).saliency

    return encode_maps


def encode_all(
    learner: ContrastiveLearner, frames: NDArray[np.uint8], batch_size: int = 128
) -> dict[str, NDArray[np.float32]]:
    """All codes of the same clips in one pass."""
    device = next(learner.parameters()).device
    parts = (middle_clips(frames[i : i + batch_size], device) for i in range(0, len(frames), batch_size))
    values = features.encode(lambda clips: torch.cat(list(learner.encode(clips).by_name.values()), dim=1), parts)
    return dict(zip(CODES, np.split(values, len(CODES), axis=1), strict=True))
