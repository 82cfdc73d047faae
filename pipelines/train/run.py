"""`bgaug train`: trains an encoder on a store."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.data.loader import ClipLoader
from bgaug.data.usable import ShotsLeftOut
from bgaug.errors import CheckpointError, UsageError
from bgaug.files import check_folder, make_folder, write_bytes, writing
from bgaug.model import METHODS, ContrastiveLearner, Method
from bgaug.model.backbones import count_parameters
from bgaug.model.checkpoint import CHECKPOINTS, find_checkpoint
from bgaug.names import POLICIES
from bgaug.pairs import Augmentation, Composition, SemiNegativePairs
from bgaug.pipelines.train.bias_monitor import NUMBERS, BiasMonitor
from bgaug.pipelines.train.labelled import ACCURACY, HELD_OUT, HeldOutAccuracy, training_clips, unlabelled_note
from bgaug.pipelines.train.loop import Keeping, Trained, Trainer
from bgaug.pipelines.train.optimisation import Optimisation, default_optimiser
from bgaug.pipelines.train.options import TrainOptions, parse_changes
from bgaug.pipelines.train.processes import Processes, processes
from bgaug.pipelines.train.reporter import TrainingReporter
from bgaug.pipelines.train.run_folder import CONFIG, LOG, holds_something, only_run
from bgaug.pipelines.train.start import Start
from bgaug.progress import Progress, Silent
from bgaug.provenance import git_state, store_content, versions
from bgaug.store import Store, open_store

__all__ = ["RunResult", "TrainOptions", "make_learner", "parse_changes", "train"]

_CONFIG_TOML = "config.toml"


@dataclass(frozen=True)
class RunResult:
    """Result of `train`.

    Attributes:
        trained: state of the run.
        out: folder of the run.
        left_out: shots of the store that are not trained on.
        reports: whether this process reports the result.
    """

    trained: Trained
    out: Path
    left_out: ShotsLeftOut
    reports: bool = True

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "steps": self.trained.steps,
            "loss": self.trained.loss if math.isfinite(self.trained.loss) else None,  # JSON has no nan
            "clips_per_second": round(self.trained.clips_per_second, 2),
            "waiting": round(self.trained.waiting, 4),
            "checkpoint": str(self.trained.checkpoint),
            "finished": self.trained.finished,
            "stopped": self.trained.stopped,
            "left_out": self.left_out.to_json(),
        }


def train(
    store_path: Path,
    out: Path,
    progress: Progress,
    options: TrainOptions | None = None,
) -> RunResult:
    """Train an encoder on a store.

    Args:
        store_path: store that `build_shards` made.
        out: folder of the run.
        progress: receives reports.
        options: options of the run.

    Raises:
        UsageError: options that contradict each other or the store.
        CheckpointError: `out` already has a run, or one with another configuration, or another process trains into it.
        StoreError: the store cannot be read.
        WriteError: `out` cannot be written; checked before the work if possible.
    """
    options = options or TrainOptions()
    with processes(options.device) as here, ExitStack() as held:
        progress = progress if here.first else Silent()
        store = open_store(store_path)
        _find_run(out, options)  # nothing is written into a folder that is not ours
        if here.first:
            held.enter_context(only_run(out))
        checkpoint = _find_run(out, options)
        check_folder(out)
        check_folder(out / CHECKPOINTS)
        here.wait()  # until all processes have read the unchanged folder
        run = _Run.prepare(store, options, here)
        if note := unlabelled_note(store, options, run.learner.method):
            progress.warn(note)
        config = _run_config(options, store, run)
        if checkpoint is None and here.first:
            _begin_run(out, config, options, store_path)
        left_out = run.loader.dataset.left_out
        _report_left_out(left_out, options, progress)
        return RunResult(run.train(out, config, checkpoint, progress), out, left_out, here.first)


@dataclass(frozen=True)
class _Run:
    """A run that is ready to start, on one of its processes."""

    store: Store
    options: TrainOptions
    here: Processes
    loader: ClipLoader
    learner: ContrastiveLearner
    pairs: SemiNegativePairs
    optimisation: Optimisation
    backbone_options: Mapping[str, float | str]
    monitor: BiasMonitor | None
    accuracy: HeldOutAccuracy | None

    @classmethod
    def prepare(cls, store: Store, options: TrainOptions, here: Processes) -> _Run:
        torch.manual_seed(options.seed)
        method = _resolved(options)
        accuracy = HeldOutAccuracy.of(store, options, method, _crop_size(store, options), here.device)
        _check_best(options, accuracy is not None)
        dataset = training_clips(store, options, method)
        batch_size = options.batch_size or max(2, min(64, len(dataset) // 2))
        if batch_size % here.world:
            raise UsageError(f"--batch-size {batch_size} must be a multiple of the number of processes, {here.world}")
        loader = ClipLoader(
            dataset,
            batch_size // here.world,
            seed=options.seed,
            threads=options.threads,
            rank=here.rank,
            world=here.world,
        )
        optimisation = _make_optimisation(options, batch_size, len(loader), here.device)
        method = _resolved(options, len(dataset), batch_size, optimisation.total_steps)
        start = Start.of(options.backbone, options.weights, options.trust)
        learner = _learner_of(method, start, len(store.header.classes)).to(here.device)
        pairs = make_pairs(store, options, method).to(here.device)
        prepared = _on_device(learner, options, optimisation, here)
        monitor = _make_monitor(store, options, here) if here.first else None
        return cls(store, options, here, loader, prepared, pairs, optimisation, start.options, monitor, accuracy)

    @property
    def batch_size(self) -> int:
        """Clips per batch, of all processes."""
        return self.loader.batch_size * self.here.world

    def train(self, out: Path, config: dict[str, Any], checkpoint: Path | None, progress: Progress) -> Trained:
        """Start, or continue from a checkpoint; stop at the end or after `stop_after` steps."""
        clips = self.learner.method.views * self.batch_size * self.optimisation.accumulate
        reporter = TrainingReporter(
            progress, self.learner, self.monitor, self.optimisation.total_steps, clips, self.accuracy
        )
        if self.options.tensorboard and self.here.first:
            reporter.use_tensorboard(out)
        trainer = Trainer(
            self.learner,
            self.pairs,
            self.loader,
            self.optimisation,
            out,
            config,
            keeping=self._keeping(),
            processes=self.here,
            on_step=reporter.step,
            on_epoch=reporter.epoch,
        )
        if checkpoint is not None:
            trainer.resume(checkpoint)
        self.here.wait()
        size = count_parameters(self.learner.encoder) / 1e6
        name = f"{self.options.method} on {self.options.backbone}, {size:.2f} M parameters"
        progress.start(f"training {name}", self.optimisation.total_steps)
        progress.advance(trainer.step)
        with reporter.begin(trainer.step):
            return trainer.run(self.options.stop_after)

    def _keeping(self) -> Keeping:
        o = self.options
        fetch = o.log_every or (20 if self.here.device.type == "cuda" else 1)
        return Keeping(o.checkpoint_every, o.keep, o.best, fetch)


def _on_device(
    learner: ContrastiveLearner, options: TrainOptions, optimisation: Optimisation, here: Processes
) -> ContrastiveLearner:
    """Apply memory format, synchronised normalisation and compilation where they are requested or useful."""
    cuda = here.device.type == "cuda"
    requested = options.channels_last
    if requested or (requested is None and cuda and optimisation.amp != "off"):
        for module in learner.modules():
            if isinstance(module, nn.Conv3d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    method = learner.method
    if options.compile and method.w_penalty:
        raise UsageError("--compile has no second derivative, which w_penalty needs; leave one of them out")
    if cuda and here.world > 1 and options.sync_norm and not (method.momentum or method.w_penalty):
        # With a momentum encoder the parts of a batch have their own statistics on purpose. Synchronised statistics
        # have no second derivative.
        learner = nn.SyncBatchNorm.convert_sync_batchnorm(learner)  # type: ignore[no-untyped-call]
    if options.compile:
        learner.encoder.compile()
        if learner.key_encoder is not None:
            learner.key_encoder.compile()
    return learner


def _check_best(options: TrainOptions, accuracy: bool) -> None:
    """Check that epochs will have the number that chooses the best checkpoint."""
    known = ("loss", *((ACCURACY,) if accuracy else ()), *(NUMBERS if options.meters else ()))
    if options.best is not None and options.best.removeprefix("-") not in known:
        more = "" if options.meters else f"; with --meters also {', '.join(NUMBERS)}"
        raise UsageError(f"--best-by: there is no number {options.best!r}; there are {', '.join(known)}{more}")


def _make_monitor(store: Store, options: TrainOptions, here: Processes) -> BiasMonitor | None:
    """A monitor on videos outside training if the store has such a split, else on training videos."""
    if not options.meters:
        return None
    splits = next(((name,) for name in HELD_OUT if name in store.names.splits), options.splits)
    clips = ClipOptions(num_frames=options.num_frames, stride=options.stride)
    dataset = ClipDataset(store, clips, seed=options.seed, splits=splits)
    try:
        return BiasMonitor(dataset, options.meters, _crop_size(store, options), here.device)
    except ValueError as error:
        raise UsageError(f"--meters {options.meters}: {error}") from error


def _run_config(options: TrainOptions, store: Store, run: _Run) -> dict[str, Any]:
    """All values that decide a run, as plain JSON values; stored with each checkpoint."""
    return {
        **options.deciding(),
        "batch_size": run.batch_size,
        "crop": _crop_size(store, options),
        "backbone_options": dict(run.backbone_options),
        "classes": list(store.header.classes),
        "resolved_method": asdict(run.learner.method),
        "store_content": store_content(store),
    }


def _find_run(out: Path, options: TrainOptions) -> Path | None:
    """The checkpoint to continue from; None to start."""
    if not (out / CHECKPOINTS).exists() and not (out / CONFIG).exists():
        if holds_something(out):
            raise UsageError(f"{out} exists and is not the folder of a run; name another --out")
        return None
    if options.resume:
        try:
            return find_checkpoint(out)
        except CheckpointError:
            return None  # interrupted before its first checkpoint
    if not options.overwrite:
        raise CheckpointError(f"{out} already has a run; give --resume to continue it, or --overwrite to start again")
    return None


def _begin_run(out: Path, config: dict[str, Any], options: TrainOptions, store: Path) -> None:
    make_folder(out)
    with writing(out):
        if options.overwrite:
            for path in (out / CHECKPOINTS).glob("*.pt"):
                path.unlink()
        (out / LOG).unlink(missing_ok=True)
    record = {"config": config, "store": str(store), "versions": versions(), "git": git_state()}
    write_bytes(out / CONFIG, json.dumps(record, indent=1).encode())
    write_bytes(out / _CONFIG_TOML, options.toml().encode())


def _report_left_out(left_out: ShotsLeftOut, options: TrainOptions, progress: Progress) -> None:
    """Report how many videos and shots are not trained on, and why."""
    reasons = {
        "grade": f"graded worse than {options.min_grade} (--min-grade none keeps them)",
        "no_background": "without a static background",
        "fragments": "fragments and transitions between shots",
    }
    parts = []
    for name, count in sorted(left_out.shots.items(), key=lambda item: -item[1]):
        whole = left_out.videos.get(name, 0)
        parts.append(f"{count} {reasons[name]}" + (f", and so {whole} whole videos" if whole else ""))
    if parts:
        shots, videos = (sum(counts.values()) for counts in (left_out.shots, left_out.videos))
        total = f"{shots} of {left_out.num_shots} shots ({videos} of {left_out.num_videos} videos)"
        progress.warn(f"{total} are not trained on: {'; '.join(parts)}")


def _make_optimisation(
    options: TrainOptions, batch_size: int, steps_per_epoch: int, device: torch.device
) -> Optimisation:
    """Optimiser and schedule, with the defaults of the backbone."""
    total = options.steps or max(1, options.epochs * steps_per_epoch // options.accumulate)
    optimiser, lr = default_optimiser(options.backbone, 0.01 * batch_size * options.accumulate / 64)
    try:
        return Optimisation(
            total_steps=total,
            optimiser=options.optimiser or optimiser,
            lr=options.lr or lr,
            weight_decay=options.weight_decay,
            warmup_steps=round(options.warmup * total),
            amp=options.amp or ("bf16" if device.type == "cuda" else "off"),
            schedule=options.schedule,
            drop_at=options.drop_at,
            drop=options.drop,
            accumulate=options.accumulate,
            clip_norm=options.clip_norm,
            ema=options.ema,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def make_learner(
    options: TrainOptions, num_videos: int, batch_size: int, steps: int, classes: int | None = None
) -> ContrastiveLearner:
    """The learner, with new weights or those of `--from`; `classes` is the number of classes, for a supervised method.

    Raises:
        UsageError: no such method or backbone, weights that do not fit, or too few videos for the queue.
        CheckpointError: the run of `--from` cannot be read.
    """
    method = _resolved(options, num_videos, batch_size, steps)
    return _learner_of(method, Start.of(options.backbone, options.weights, options.trust), classes)


def _learner_of(method: Method, start: Start, classes: int | None) -> ContrastiveLearner:
    try:
        return ContrastiveLearner(start.build(), method, classes=classes)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def _resolved(
    options: TrainOptions, num_videos: int | None = None, batch_size: int | None = None, steps: int | None = None
) -> Method:
    """The method of the options, with the settings for a data set; raises UsageError for one that is impossible."""
    try:
        return Method.resolve(
            options.method, num_videos, batch_size, steps, options.momentum, **_method_changes(options)
        )
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def _method_changes(options: TrainOptions) -> dict[str, Any]:
    """Fields of the method that the options replace; fields of its pairs become the field `composition`."""
    of_method = {f.name for f in fields(Method)} - {"name", "composition", "momentum"}
    of_pairs = {f.name for f in fields(Composition)}
    unknown = [name for name in options.change if name not in of_method | of_pairs]
    if unknown:
        raise UsageError(
            f"--set: no field {', '.join(unknown)}; a method has {', '.join(sorted(of_method))}; its pairs have "
            f"{', '.join(sorted(of_pairs))}"
        )
    pairs = {name: value for name, value in options.change.items() if name in of_pairs}
    if options.masks is not None and options.method in METHODS:
        policy = options.change.get("policy", METHODS[options.method].policy)
        if policy in POLICIES and Composition.resolve(policy).composes:
            pairs["mask"] = options.masks
    changes = {name: value for name, value in options.change.items() if name in of_method}
    return {**changes, "composition": pairs} if pairs else changes


def make_pairs(store: Store, options: TrainOptions, method: Method) -> SemiNegativePairs:
    """Makes training pairs from the store's batches."""
    size = _crop_size(store, options)
    augmentation = Augmentation.tiny(size) if options.backbone == "tiny" else Augmentation.standard(size)
    if options.flip is not None:
        augmentation = Augmentation(**{**asdict(augmentation), "flip": options.flip})
    composition, bank = method.compose, None
    if composition.composes and composition.donor == "bank":
        if options.bank is None:
            raise UsageError("donors from a bank need --bank NAME; `bgaug import STORE --backgrounds DIR` makes one")
        bank = torch.from_numpy(store.bank(options.bank).images)
    elif options.bank is not None:
        raise UsageError(f"--bank {options.bank} is not used by {method.name!r}; add --set donor=bank")
    return SemiNegativePairs(augmentation, composition, views=method.views, bank=bank)


def _crop_size(store: Store, options: TrainOptions) -> int:
    """Side of the crops: `--crop`, else 112 or the shorter side of the frames."""
    return options.crop or min(112, *store.size)
