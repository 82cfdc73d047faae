"""`bgaug train`: from a store to a trained encoder."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.data.loader import ClipLoader
from bgaug.errors import CheckpointError, UsageError
from bgaug.files import check_folder, make_folder, write_bytes, writing
from bgaug.model import METHODS, ContrastiveLearner, Method
from bgaug.model.backbones import BACKBONES, Backbone, build_backbone, count_parameters, load_weights
from bgaug.model.checkpoint import CHECKPOINTS
from bgaug.model.checkpoint import find_checkpoint as last_checkpoint
from bgaug.model.pretrained import PUBLISHED, backbone_options, own_weights
from bgaug.model.pretrained.builders import check_options, takes_options
from bgaug.pairs import Augmentation, Composition, SemiNegativePairs
from bgaug.pipelines.train.bias_monitor import NUMBERS, BiasMeters
from bgaug.pipelines.train.log import CONFIG, LOG
from bgaug.pipelines.train.loop import Keeping, Trained, Trainer
from bgaug.pipelines.train.optimisation import Optimisation
from bgaug.pipelines.train.options import TrainOptions, parse_changes
from bgaug.pipelines.train.processes import Processes, processes
from bgaug.pipelines.train.reporter import Telling
from bgaug.pipelines.train.run_folder import holds_something, only_run
from bgaug.progress import Progress, Silent
from bgaug.provenance import git_state, store_content, versions
from bgaug.store import Store, open_store

__all__ = ["RunResult", "TrainOptions", "make_learner", "parse_changes", "train"]

CONFIG_TOML = "config.toml"
HELD_OUT = ("val", "test")


@dataclass(frozen=True)
class RunResult:
    """What `train` reports.

    Attributes:
        trained: how the run stands.
        out: its folder.
        here_tells: whether this is the process that tells of it.
    """

    trained: Trained
    out: Path
    here_tells: bool = True

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
        }


def train(
    store_path: Path,
    out: Path,
    progress: Progress,
    options: TrainOptions | None = None,
) -> RunResult:
    """Train an encoder on a store.

    Args:
        store_path: made by `build_shards`.
        out: folder of the run.
        progress: receives what happens.
        options: what decides the run, and how it is run.

    Raises:
        UsageError: options that contradict each other or the store.
        CheckpointError: `out` holds a run already, or one with another configuration, or another process trains into it.
        StoreError: the store cannot be read.
        WriteError: `out` cannot be written; found out before the work where that can be.
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
        here.wait()  # until all have looked at the folder as it was
        run = _Run.prepare(store, options, here)
        config = run_config(options, store, run.learner.method, run.batch_size)
        if checkpoint is None and here.first:
            _begin_run(out, config, options, store_path)
        return RunResult(run.train(out, config, checkpoint, progress), out, here.first)


@dataclass(frozen=True)
class _Run:
    """A run that is ready to begin, on one of its processes."""

    store: Store
    options: TrainOptions
    here: Processes
    loader: ClipLoader
    learner: ContrastiveLearner
    pairs: SemiNegativePairs
    optimisation: Optimisation
    meters: BiasMeters | None

    @classmethod
    def prepare(cls, store: Store, options: TrainOptions, here: Processes) -> _Run:
        check_best(options)
        torch.manual_seed(options.seed)
        dataset = make_dataset(store, options)
        batch_size = options.batch_size or max(2, min(64, len(dataset) // 2))
        if batch_size % here.world:
            raise UsageError(f"--batch-size {batch_size} cannot be shared out equally to {here.world} processes")
        loader = ClipLoader(
            dataset,
            batch_size // here.world,
            seed=options.seed,
            threads=options.threads,
            rank=here.rank,
            world=here.world,
        )
        optimisation = make_optimisation(options, batch_size, len(loader), here.device)
        learner = make_learner(options, len(dataset), batch_size, optimisation.total_steps).to(here.device)
        pairs = make_pairs(store, options, learner.method).to(here.device)
        prepared = _on_device(learner, options, optimisation, here)
        meters = make_meters(store, options, here) if here.first else None
        return cls(store, options, here, loader, prepared, pairs, optimisation, meters)

    @property
    def batch_size(self) -> int:
        """Clips a step, of all processes."""
        return self.loader.batch_size * self.here.world

    def train(self, out: Path, config: dict[str, Any], checkpoint: Path | None, progress: Progress) -> Trained:
        """Begin, or go on from a checkpoint; stop at the end or after so many steps."""
        told = Telling(progress, self.learner, self.meters, self.optimisation.total_steps, self._clips_a_step)
        if self.options.tensorboard and self.here.first:
            told.watch(out)
        trainer = Trainer(
            self.learner,
            self.pairs,
            self.loader,
            self.optimisation,
            out,
            config,
            keeping=self._keeping(),
            processes=self.here,
            on_step=told.step,
            on_epoch=told.epoch,
        )
        if checkpoint is not None:
            trainer.resume(checkpoint)
        self.here.wait()
        size = count_parameters(self.learner.encoder) / 1e6
        name = f"{self.options.method} on {self.options.backbone}, {size:.2f} M parameters"
        progress.start(f"training {name}", self.optimisation.total_steps)
        progress.advance(trainer.step)
        with told.begin(trainer.step):
            return trainer.run(self.options.stop_after)

    @property
    def _clips_a_step(self) -> int:
        """Clips encoded in a step: two views of each."""
        return 2 * self.batch_size * self.optimisation.accumulate

    def _keeping(self) -> Keeping:
        o = self.options
        fetch = o.log_every or (20 if self.here.device.type == "cuda" else 1)
        return Keeping(o.checkpoint_every, o.keep, o.best, fetch)


def _on_device(
    learner: ContrastiveLearner, options: TrainOptions, optimisation: Optimisation, here: Processes
) -> ContrastiveLearner:
    """Memory format, synchronised normalisation and compilation, as far as they are wanted and of use."""
    cuda = here.device.type == "cuda"
    wanted = options.channels_last
    if wanted or (wanted is None and cuda and optimisation.amp != "off"):
        for module in learner.modules():
            if isinstance(module, nn.Conv3d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    if cuda and here.world > 1 and options.sync_norm and not learner.method.momentum:
        # With a momentum encoder the parts of a batch are normalised apart on purpose.
        learner = nn.SyncBatchNorm.convert_sync_batchnorm(learner)  # type: ignore[no-untyped-call]
    if options.compile:
        learner.encoder.compile()
        if learner.key_encoder is not None:
            learner.key_encoder.compile()
    return learner


def check_best(options: TrainOptions) -> None:
    """Whether the number that chooses the best checkpoint will be there, before an epoch is spent on it.

    Raises:
        UsageError: it will not.
    """
    known = ("loss", *NUMBERS) if options.meters else ("loss",)
    if options.best is not None and options.best.removeprefix("-") not in known:
        more = "" if options.meters else f"; with --meters also {', '.join(NUMBERS)}"
        raise UsageError(f"--best-by: there is no number {options.best!r}; there are {', '.join(known)}{more}")


def make_meters(store: Store, options: TrainOptions, here: Processes) -> BiasMeters | None:
    """Meters on videos that are not trained on, where the store has such a split; else on training videos."""
    if not options.meters:
        return None
    splits = next(((name,) for name in HELD_OUT if name in store.names.splits), options.splits)
    clips = ClipOptions(num_frames=options.num_frames, stride=options.stride)
    dataset = ClipDataset(store, clips, seed=options.seed, splits=splits)
    try:
        return BiasMeters(dataset, options.meters, crop_size(store, options), here.device)
    except ValueError as error:
        raise UsageError(f"--meters {options.meters}: {error}") from error


def run_config(options: TrainOptions, store: Store, method: Method, batch_size: int) -> dict[str, Any]:
    """Everything that decides a run, as plain JSON values; kept with each checkpoint."""
    return {
        **options.deciding(),
        "batch_size": batch_size,
        "crop": crop_size(store, options),
        "backbone_options": trunk_options(options),
        "classes": list(store.header.classes),
        "resolved_method": asdict(method),
        "store_content": store_content(store),
    }


def _find_run(out: Path, options: TrainOptions) -> Path | None:
    """The checkpoint to go on from; None to begin."""
    if not (out / CHECKPOINTS).exists() and not (out / CONFIG).exists():
        if holds_something(out):
            raise UsageError(f"{out} exists and holds something else than a run; name another --out")
        return None
    if options.resume:
        try:
            return last_checkpoint(out)
        except CheckpointError:
            return None  # interrupted before its first checkpoint
    if not options.overwrite:
        raise CheckpointError(f"{out} holds a run already: --resume to go on with it, --overwrite to begin anew")
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
    write_bytes(out / CONFIG_TOML, options.toml().encode())


def make_dataset(store: Store, options: TrainOptions) -> ClipDataset:
    """Training clips of a store."""
    splits = options.splits
    if splits is None and "train" in store.names.splits:
        splits = ("train",)
    clips = ClipOptions(num_frames=options.num_frames, stride=options.stride)
    return ClipDataset(store, clips, seed=options.seed, splits=splits, min_grade=options.min_grade)


def make_optimisation(
    options: TrainOptions, batch_size: int, steps_per_epoch: int, device: torch.device
) -> Optimisation:
    """Optimiser and schedule that suit the backbone, where nothing else is asked for."""
    total = options.steps or max(1, options.epochs * steps_per_epoch // options.accumulate)
    tiny = options.backbone == "tiny"
    try:
        return Optimisation(
            total_steps=total,
            optimiser=options.optimiser or ("adamw" if tiny else "sgd"),
            lr=options.lr or (2e-3 if tiny else 0.01 * batch_size * options.accumulate / 64),
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


def make_learner(options: TrainOptions, num_videos: int, batch_size: int, steps: int) -> ContrastiveLearner:
    """The learner, with fresh weights.

    Raises:
        UsageError: no such method or backbone, or a queue that the data cannot fill.
    """
    try:
        method = Method.resolve(
            options.method, num_videos, batch_size, steps, options.momentum, **method_changes(options)
        )
        trunk = build_backbone(options.backbone, **trunk_options(options))
        if options.weights is not None:
            _begin_with(trunk, options.backbone, options.weights)
        return ContrastiveLearner(trunk, method)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def _begin_with(trunk: Backbone, name: str, weights: str) -> None:
    """Weights of a file, in place; ValueError where they do not fit, with what would."""
    try:
        load_weights(trunk, own_weights(weights))
    except UsageError:
        raise
    except ValueError as error:
        published = ", ".join(known for known in BACKBONES if takes_options(known, PUBLISHED))
        hint = (
            ""
            if takes_options(name, PUBLISHED)
            else (
                f"; no weights are published for {name}, which takes those that `bgaug export-weights` wrote of a run with it; "
                f"published weights go with {published}"
            )
        )
        raise ValueError(f"{weights}: {error}{hint}") from error


def trunk_options(options: TrainOptions) -> dict[str, float | str]:
    """Options of `build_backbone`: those that the weights it begins with need, if any.

    Raises:
        UsageError: the weights cannot be read, or are of another encoder.
        CheckpointError: their description has an option that the encoder does not take.
    """
    if options.weights is None:
        return {}
    return check_options(options.backbone, backbone_options(options.weights, options.backbone), options.weights)


def method_changes(options: TrainOptions) -> dict[str, Any]:
    """Fields of the method that the options replace; those of the composition are gathered in one of them.

    Raises:
        UsageError: a name that neither has.
    """
    of_method = {f.name for f in fields(Method)} - {"name", "composition", "momentum"}
    of_pairs = {f.name for f in fields(Composition)}
    unknown = [name for name in options.change if name not in of_method | of_pairs]
    if unknown:
        raise UsageError(
            f"nothing named {', '.join(unknown)} to change; a method has {', '.join(sorted(of_method))}; its pairs have "
            f"{', '.join(sorted(of_pairs))}"
        )
    pairs = {name: value for name, value in options.change.items() if name in of_pairs}
    if options.masks is not None and options.method in METHODS and METHODS[options.method].composite:
        pairs["mask"] = options.masks
    changes = {name: value for name, value in options.change.items() if name in of_method}
    return {**changes, "composition": pairs} if pairs else changes


def make_pairs(store: Store, options: TrainOptions, method: Method) -> SemiNegativePairs:
    """What makes training pairs of the store's batches."""
    size = crop_size(store, options)
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
    return SemiNegativePairs(augmentation, composition, bank=bank)


def crop_size(store: Store, options: TrainOptions) -> int:
    """Side of the crops: what was asked for, else 112 or what the frames hold."""
    return options.crop or min(112, *store.size)
