"""`bgaug evaluate`: what a run's encoder is worth on the labelled videos of a store.

labelled    which videos: classes, groups and splits, from the store or from a list
features    frozen features, kept beside the run
protocols   what is asked of them
finetune    encoder and head trained on labels
bias        composites over foreign pictures
evaluation  from how each video was judged to metrics and comparisons
evaluate    all of it, split by split
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bgaug import __version__
from bgaug.errors import UsageError, WriteError
from bgaug.files import write_bytes
from bgaug.metrics import HeldOut
from bgaug.model.checkpoint import Run, load_run
from bgaug.pipelines.evaluate.features import Features, frozen_features
from bgaug.pipelines.evaluate.fine_tuning import finetune, finetune_settings
from bgaug.pipelines.evaluate.labelled import LabelledVideos, find_labels
from bgaug.pipelines.evaluate.options import PROTOCOLS, EvaluateOptions
from bgaug.pipelines.evaluate.protocols import Found, Frozen, few_labels, outcome_of, probe, retrieve, vote
from bgaug.pipelines.evaluate.report import Evaluation, compare, gather
from bgaug.progress import Progress
from bgaug.provenance import store_content
from bgaug.store import Store, open_store
from bgaug.text import json_bytes

if TYPE_CHECKING:
    from bgaug.pipelines.evaluate.bias.run import BiasReport

__all__ = ["Evaluation", "compare", "evaluate"]

FROZEN = ("retrieval", "linear", "knn", "fewshot")
FOLDER = "evaluations"


def evaluate(
    run: Path,
    store_path: Path,
    progress: Progress,
    options: EvaluateOptions | None = None,
) -> Evaluation:
    """Evaluate a run on the labelled videos of a store, and keep what was found in RUN/evaluations.

    The "test" split (else "val") is held against "train" where there are both; else each group against the others, where
    all groups are known; else each video. Where a classifier is trained, groups are dealt to at most twenty folds, for
    fine-tuning to `FinetuneOptions.folds`. With several splits, every metric is the mean over them.

    Args:
        run: folder that `train` made, or one checkpoint.
        store_path: made by `build_shards`.
        progress: receives what happens.
        options: how.

    Raises:
        UsageError: an unknown protocol, no labelled videos, or options that do not go with them.
        CheckpointError: the run cannot be read.
        StoreError: the store cannot be read.
        LabelsError: the list of labels cannot be understood, or is of other videos.
        WriteError: the folder of the bias report cannot be written.
    """
    options = options or EvaluateOptions()
    protocols = options.protocols
    if not protocols:
        raise UsageError(f"protocols are {', '.join(PROTOCOLS)}; got none")
    if "bias" in protocols:
        from bgaug.pipelines.evaluate.bias.run import check_out

        check_out(options.bias)
    loaded = load_run(run, best=options.best, device=options.device, word=options.word)
    store = open_store(store_path)
    parts: list[LabelledVideos] = []
    if set(protocols) != {"bias"}:
        parts = _labelled(store, options, progress)
    held_out = [part.held_out() for part in parts]
    _check_alike(parts, held_out)
    job = _Job(loaded, store, store_path, tuple(protocols), options, progress)
    for part, held in zip(parts, held_out, strict=True):
        job.tell(part, held)
    features = job.features(parts, held_out)
    found = [job.ask(part, held, features) for part, held in zip(parts, held_out, strict=True)]
    bias = job.bias() if "bias" in protocols else None
    settings = job.settings(parts, held_out, found)
    names = parts[0].classes if parts else store.header.classes
    return _kept(gather(found, [part.split for part in parts], names, settings, bias), loaded, progress)


def _check_alike(parts: Sequence[LabelledVideos], held_out: Sequence[HeldOut]) -> None:
    """No mean over splits of which some hold train and test videos and others do not.

    Raises:
        UsageError: that is so.
    """
    if len({held.kind for held in held_out}) > 1:
        lacking = [str(part.split) for part, held in zip(parts, held_out, strict=True) if held.kind != "split"]
        raise UsageError(
            f"the store holds no train or no test videos of split {', '.join(lacking)}, but of others it does; name those "
            "alone with --labels-split"
        )


@dataclass(frozen=True, eq=False)
class _Job:
    """One evaluation: what is evaluated, on what, and how."""

    loaded: Run
    store: Store
    store_path: Path
    protocols: tuple[str, ...]
    options: EvaluateOptions
    progress: Progress

    @property
    def feature(self) -> str:
        """The feature: what is asked for, else the run's own."""
        return self.options.feature or self.loaded.learner.method.feature

    def tell(self, part: LabelledVideos, held: HeldOut) -> None:
        """What is left out, and who cannot be right."""
        where = f"split {part.split}: " if part.split is not None else ""
        if part.unlabelled:
            total = len(part.unlabelled) + len(part.ids)
            self.progress.warn(f"{where}{len(part.unlabelled)} of {total} videos have no label and are left out")
        unseen = held.unseen(part.labels)
        if len(unseen):
            names = [part.classes[number] for number in np.unique(part.labels[unseen]).tolist()]
            lacking = "the train split lacks" if held.kind == "split" else "no video that they are held against has"
            self.progress.warn(
                f"{where}{len(unseen)} of {len(held.test)} tested videos cannot be right, and count as wrong: {lacking} their class "
                f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
            )

    def features(self, parts: Sequence[LabelledVideos], held_out: Sequence[HeldOut]) -> Features | None:
        """Features of all videos that any split asks for; None where no protocol does."""
        if not set(self.protocols) & set(FROZEN):
            return None
        wanted = [part.videos[held.taking_part] for part, held in zip(parts, held_out, strict=True)]
        o = self.options
        return frozen_features(
            self.loaded,
            self.store,
            np.unique(np.concatenate(wanted)),
            self.progress,
            clips=o.clips,
            batch_size=o.batch_size,
            threads=o.threads,
            cache=o.cache,
        )

    def ask(self, part: LabelledVideos, held: HeldOut, features: Features | None) -> Found:
        """All protocols but bias on one split."""
        found, o = Found(), self.options
        if len(held.taking_part) < len(part.ids):
            part = part.only(held.taking_part)
            held = part.held_out()
        if features is not None:
            frozen = Frozen(features.of(self.feature, part.videos), part, held, self.progress)
            if "retrieval" in self.protocols:
                retrieve(frozen, found, centre=o.centre)
            if "linear" in self.protocols:
                probe(frozen, found, l2=o.l2)
            if "knn" in self.protocols:
                vote(frozen, found, neighbours=o.neighbours)
            if "fewshot" in self.protocols:
                few_labels(frozen, found, shots=o.shots, draws=o.draws, seed=o.seed, classifier=o.classifier)
        if "finetune" in self.protocols:
            self.finetune(part, held, found)
        return found

    def finetune(self, part: LabelledVideos, held: HeldOut, found: Found) -> None:
        """Encoder and head trained for each fold, from the run's weights and, if asked for, from fresh ones."""
        o = self.options
        folds = list(held.folds(part.labels, o.finetune.folds))
        for measure, scratch in (("finetune", False), ("scratch", True))[: 1 + o.from_scratch]:
            predicted = np.full(len(part.ids), -1, np.int64)
            for number, (train, test) in enumerate(folds, 1):
                name = "from scratch" if scratch else "fine-tuning"
                name += f", fold {number} of {len(folds)}" if len(folds) > 1 else ""
                tuned = finetune(
                    self.loaded,
                    self.store,
                    part.videos[train],
                    part.labels[train],
                    self.progress,
                    options=o.finetune,
                    from_scratch=scratch,
                    threads=o.threads,
                    name=name,
                )
                predicted[test] = tuned.predict(
                    self.store,
                    part.videos[test],
                    self.progress,
                    clips=o.clips,
                    batch_size=o.batch_size,
                    threads=o.threads,
                    name=f"testing {name}",
                )
            tested = predicted[held.test]
            found.outcomes[measure] = outcome_of(part, held.test, tested == part.labels[held.test], tested)
        found.settings["finetune"] = {**finetune_settings(o.finetune, self.loaded.config), "trainings": len(folds)}

    def bias(self) -> BiasReport:
        """Composites over foreign pictures: a protocol of its own."""
        from bgaug.pipelines.evaluate.bias.run import bias_of

        if self.options.labels is not None:
            self.progress.warn("the bias protocol goes by the store's own labels, groups and splits, not by the list")
        return bias_of(self.loaded, self.store, self.progress, self.options.bias, self.options.feature)

    def settings(
        self, parts: Sequence[LabelledVideos], held_out: Sequence[HeldOut], found: Sequence[Found]
    ) -> dict[str, Any]:
        """How the numbers were come by; where splits differ, of the first."""
        config, options = self.loaded.config, self.options
        settings: dict[str, Any] = {
            "protocols": list(self.protocols),
            "run": str(self.loaded.path),
            "checkpoint": self.loaded.checkpoint.name,
            "checkpoint_sha256": self.loaded.sha256,
            "method": config["method"],
            "backbone": config["backbone"],
            "store": str(self.store_path),
            "content_hash": store_content(self.store),
            "feature": self.feature,
            "clips": options.clips,
            "crop": config["crop"],
            "crop_kind": "centre",
            "frames": config["num_frames"],
            "stride": config["stride"],
            "size": list(self.store.size),
            "centring": "retrieval also with centred features" if options.centre else "none",
        }
        if parts:
            first, held = parts[0], held_out[0]
            settings |= {
                "labels": first.origin,
                **({"label_notes": list(first.notes)} if first.notes else {}),
                "split": [part.split for part in parts] if first.split is not None else None,
                "held_out": str(held),
                "videos": len(first.ids),
                "tested": len(held.test),
                "learnt_from": len(held.train),
                "groups": len(np.unique(held.groups[held.test])),
                "classes": first.num_classes,
                "chance": round(100 / first.num_classes, 2),
                "unlabelled": len(first.unlabelled),
                "left_out_by_split": len(first.ids) - len(held.taking_part),
                "class_unseen": len(held.unseen(first.labels)),
            }
        for f in reversed(found):
            settings |= f.settings
        return {**settings, "bgaug_version": __version__}


def _labelled(store: Store, o: EvaluateOptions, progress: Progress) -> list[LabelledVideos]:
    """Labels of each split, and a word on what was guessed."""
    parts = find_labels(store, o.labels, o.labels_format, o.splits, o.class_names, o.first_class, o.columns)
    for note in dict.fromkeys(note for part in parts for note in part.notes):
        progress.warn(note)
    return parts


def _kept(result: Evaluation, loaded: Run, progress: Progress) -> Evaluation:
    """The same, written beside the run; or a warning that it could not be."""
    told = result.to_json()
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    now = datetime.now(UTC)
    file = loaded.folder / FOLDER / f"{now:%Y%m%d-%H%M%S}-{key}.json"
    told |= {"time": now.isoformat(timespec="seconds"), "file": str(file)}
    try:
        write_bytes(file, json_bytes(told, indent=1) + b"\n")
    except WriteError as error:
        progress.warn(f"the evaluation is not kept: {error}")
        return result
    return replace(result, file=file)
