"""`bgaug evaluate`: metrics of a run's encoder on the labelled videos of a store.

labelled     labelled videos: classes, groups and splits, from the store or from a list
features     frozen features, kept in the run's folder
protocols    metrics of frozen features
fine_tuning  encoder and head trained on labelled videos
bias         composites over foreign images
report       outcomes, metrics and comparisons
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bgaug import __version__
from bgaug.errors import UsageError, WriteError
from bgaug.files import write_bytes
from bgaug.model.checkpoint import Run, load_run
from bgaug.pipelines.evaluate.features import Features, feature_of, frozen_features
from bgaug.pipelines.evaluate.fine_tuning import finetune, finetune_settings
from bgaug.pipelines.evaluate.labelled import LabelledVideos, find_labels
from bgaug.pipelines.evaluate.options import PROTOCOLS, EvaluateOptions
from bgaug.pipelines.evaluate.protocols import few_labels, linear_probe, neighbour_votes, retrieve
from bgaug.pipelines.evaluate.report import Outcome, Report
from bgaug.progress import Progress
from bgaug.provenance import store_content
from bgaug.store import Store, open_store
from bgaug.text import json_bytes

if TYPE_CHECKING:
    from bgaug.pipelines.evaluate.bias.run import BiasReport

_FROZEN = {"retrieval", "linear", "knn", "fewshot"}
_FOLDER = "evaluations"


def evaluate(run: Path, store_path: Path, progress: Progress, options: EvaluateOptions | None = None) -> Report:
    """Evaluate a run on the labelled videos of a store, and keep the report in RUN/evaluations.

    The test split (else "val") is tested against the train split if there are both; else each group against the others
    if groups are known; else each video. Where a classifier is trained, groups are dealt to at most twenty folds, for
    fine-tuning to `FinetuneOptions.folds`. With several splits, every metric is the mean over them.

    Args:
        run: folder that `train` made, or one checkpoint.
        store_path: a store that `build_shards` made.
        progress: receives progress and warnings.
        options: which protocols, and how.

    Raises:
        UsageError: no protocols, no labelled videos, or options that do not fit them.
        CheckpointError: the run cannot be read.
        StoreError: the store cannot be read.
        LabelsError: the list of labels cannot be understood, or belongs to other videos.
        WriteError: the folder of the bias report cannot be written.
    """
    options = options or EvaluateOptions()
    protocols = options.protocols
    if not protocols:
        raise UsageError(f"protocols are {', '.join(PROTOCOLS)}; got none")
    if "bias" in protocols:
        from bgaug.pipelines.evaluate.bias.run import check_out

        check_out(options.bias)
    loaded = load_run(run, best=options.best, device=options.device, permission=options.permission)
    job = _Job(loaded, open_store(store_path), options, progress)
    # The bias protocol reads the labels of the store: as the only protocol it needs no list.
    parts = job.labelled() if set(protocols) != {"bias"} else []
    features = job.features(parts)
    reports = {part.split: job.report(part, features) for part in parts}
    report = Report.joined(reports, parts[0].classes if parts else job.store.header.classes)
    report.bias = job.bias() if "bias" in protocols else None
    report.settings = {**job.settings(store_path, parts), **report.settings, "bgaug_version": __version__}
    _keep(report, loaded, progress)
    return report


@dataclass(frozen=True, eq=False)
class _Job:
    """One evaluation: a run, a store and options."""

    run: Run
    store: Store
    options: EvaluateOptions
    progress: Progress

    def labelled(self) -> list[LabelledVideos]:
        """Labelled videos of each split; warnings name guesses, videos without a label and unknown classes.

        Raises:
            UsageError: some splits have train and test videos and others do not, so that no mean over them is possible.
        """
        parts = find_labels(self.store, self.options)
        # The splits of one list share notes: each is reported once.
        for note in dict.fromkeys(note for part in parts for note in part.notes):
            self.progress.warn(note)
        # A mean over splits that are tested in different ways has no meaning.
        if len({part.held_out.kind for part in parts}) > 1:
            lacking = [str(part.split) for part in parts if part.held_out.kind != "split"]
            raise UsageError(
                f"the store holds no train or no test videos of split {', '.join(lacking)}, but of others it does; "
                "name only those with --labels-split"
            )
        for part in parts:
            self._warn(part)
        return parts

    def _warn(self, part: LabelledVideos) -> None:
        where = f"split {part.split}: " if part.split is not None else ""
        held = part.held_out
        if part.unlabelled:
            total = len(part.unlabelled) + len(part.ids)
            self.progress.warn(f"{where}{len(part.unlabelled)} of {total} videos have no label and are left out")
        unseen = held.unseen(part.labels)
        if len(unseen):
            names = [part.classes[number] for number in np.unique(part.labels[unseen]).tolist()]
            missing = "the train split" if held.kind == "split" else f"the other {held.kind}s"
            self.progress.warn(
                f"{where}{len(unseen)} of {len(held.test)} tested videos always count as wrong: their class does not "
                f"occur in {missing} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
            )

    def features(self, parts: Sequence[LabelledVideos]) -> Features | None:
        """Features of the videos of all splits; None if no protocol needs them."""
        o = self.options
        if not _FROZEN & set(o.protocols) or not parts:
            return None
        # Each video is encoded once, however many splits it is in.
        videos = np.unique(np.concatenate([part.videos[part.held_out.taking_part] for part in parts]))
        sizes: dict[str, Any] = {"clips": o.clips, "batch_size": o.batch_size, "threads": o.threads, "cache": o.cache}
        return frozen_features(self.run, self.store, videos, self.progress, **sizes)

    def report(self, part: LabelledVideos, features: Features | None) -> Report:
        """All protocols except bias on one split."""
        report, o = Report(), self.options
        if len(part.held_out.taking_part) < len(part.ids):
            # Videos that are neither tested nor learnt from must not reach a probe.
            part = part.only(part.held_out.taking_part)
        if features is not None:
            values = features.of(feature_of(self.run, o.feature), part.videos)
            if "retrieval" in o.protocols:
                retrieve(values, part, report, self.progress, centre=o.centre)
            if "linear" in o.protocols:
                linear_probe(values, part, report, self.progress, l2=o.l2)
            if "knn" in o.protocols:
                neighbour_votes(values, part, report, neighbours=o.neighbours)
            if "fewshot" in o.protocols:
                few: dict[str, Any] = {"shots": o.shots, "draws": o.draws, "seed": o.seed, "classifier": o.classifier}
                few_labels(values, part, report, self.progress, **few)
        if "finetune" in o.protocols:
            self._finetune(part, report)
        return report

    def _finetune(self, part: LabelledVideos, report: Report) -> None:
        """Train encoder and head for each fold, from the run's weights and on request also from fresh weights."""
        o, held = self.options, part.held_out
        folds = list(held.folds(part.labels, o.finetune.folds))
        # Fresh weights show what the labels give without the training of the run.
        for measure, scratch in (("finetune", False), ("scratch", True))[: 1 + o.from_scratch]:
            predicted = np.full(len(part.ids), -1, np.int64)
            for number, (train, test) in enumerate(folds, 1):
                name = "from scratch" if scratch else "fine-tuning"
                name += f", fold {number} of {len(folds)}" if len(folds) > 1 else ""
                tuned = finetune(
                    self.run,
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
            report.outcomes[measure] = Outcome.of(part, tested == part.labels[held.test], tested)
        report.settings["finetune"] = {**finetune_settings(o.finetune, self.run.config), "trainings": len(folds)}

    def bias(self) -> BiasReport:
        """The bias protocol, on the labels of the store."""
        from bgaug.pipelines.evaluate.bias.run import bias_of

        if self.options.labels is not None:
            self.progress.warn("the bias protocol uses the store's own labels, groups and splits, not the list")
        return bias_of(self.run, self.store, self.progress, self.options.bias, self.options.feature)

    def settings(self, store_path: Path, parts: Sequence[LabelledVideos]) -> Mapping[str, Any]:
        """How the metrics are computed; where splits differ, the settings of the first."""
        config, options = self.run.config, self.options
        settings: dict[str, Any] = {
            "protocols": list(options.protocols),
            "run": str(self.run.path),
            "checkpoint": self.run.checkpoint.name,
            "checkpoint_sha256": self.run.sha256,
            "method": config["method"],
            "backbone": config["backbone"],
            "store": str(store_path),
            "content_hash": store_content(self.store),
            "feature": feature_of(self.run, options.feature),
            "clips": options.clips,
            "crop": config["crop"],
            "crop_kind": "centre",
            "frames": config["num_frames"],
            "stride": config["stride"],
            "size": list(self.store.size),
            "centring": "retrieval also with centred features" if options.centre else "none",
        }
        if not parts:
            return settings
        first, held = parts[0], parts[0].held_out
        return settings | {
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


def _keep(report: Report, run: Run, progress: Progress) -> None:
    """Write the report to the run's folder; a warning if that is not possible."""
    content = report.to_json()
    # Reports that are written in the same second differ by the hash in their names.
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    now = datetime.now(UTC)
    file = run.folder / _FOLDER / f"{now:%Y%m%d-%H%M%S}-{key}.json"
    content |= {"time": now.isoformat(timespec="seconds"), "file": str(file)}
    try:
        write_bytes(file, json_bytes(content, indent=1) + b"\n")
    # The work of hours is returned even if its file cannot be written.
    except WriteError as error:
        progress.warn(f"the evaluation is not kept: {error}")
    else:
        report.file = file
