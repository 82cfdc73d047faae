"""`bgaug train`: from a store to a trained encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch

from bgaug import __version__
from bgaug.augment import Augmentation
from bgaug.backbone import Backbone, build_backbone, count_parameters, load_weights
from bgaug.compose import Composition, SemiNegativePairs
from bgaug.dataset import ClipDataset, ClipOptions
from bgaug.errors import CheckpointError, UsageError
from bgaug.loader import ClipLoader
from bgaug.model import METHODS, ContrastiveLearner, Method
from bgaug.pipelines.progress import Progress
from bgaug.store import Store, open_store
from bgaug.store.layout import write_durably
from bgaug.trainer import CHECKPOINTS, CONFIG, LOG, Optimisation, Trained, Trainer, last_checkpoint, load_checkpoint


@dataclass(frozen=True)
class TrainOptions:
    """What decides a run; None stands for what suits backbone and data.

    Attributes:
        method: a key of `bgaug.model.METHODS`.
        backbone: a name of `bgaug.backbone.BACKBONES`.
        weights: file of published weights to begin with, by torchvision's names; the backbone then pads with zeros in
            time and normalises its input, as they expect.
        epochs: passes over the videos.
        steps: of the whole run, instead of epochs.
        batch_size: clips a step; by default 64, or half of the videos if that is less.
        seed: of weights, order, clips and augmentation.
        lr: by default .01 x batch / 64 with SGD, for `tiny` 2e-3 with AdamW.
        num_frames: frames of a clip.
        stride: distance of the frames.
        crop: side of the crops, pixels; by default 112, or what the store's frames hold.
        flip: probability of a left-right flip; 0 where left and right mean something. `tiny` does not flip by default.
        masks: "stored", or "motion" to compute them anew on the device; what the method says if None.
        bank: the store's bank of pictures that donors come from, where the pairs want one.
        change: fields of `bgaug.model.Method` and of `bgaug.compose.Composition` to replace, by name: an ablation.
        momentum: the form with momentum encoder and queue; by default for more than 2,000 videos.
        splits: videos to train on, by split; by default "train" where the store has such a split, else all.
        min_grade: leave out shots below this grade.
        amp: "off" or "bf16"; by default bf16 on CUDA.
    """

    method: str = "bgaug"
    backbone: str = "r3d18"
    weights: str | None = None
    epochs: int = 200
    steps: int | None = None
    batch_size: int | None = None
    seed: int = 0
    lr: float | None = None
    num_frames: int = 16
    stride: int = 2
    crop: int | None = None
    flip: float | None = None
    masks: str | None = None
    bank: str | None = None
    change: Mapping[str, Any] = field(default_factory=dict)
    momentum: bool | None = None
    splits: tuple[str, ...] | None = None
    min_grade: str | None = None
    amp: Literal["off", "bf16"] | None = None


@dataclass(frozen=True)
class RunResult:
    """What `train` reports."""

    trained: Trained
    out: Path

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "steps": self.trained.steps,
            "loss": self.trained.loss,
            "clips_per_second": round(self.trained.clips_per_second, 2),
            "checkpoint": str(self.trained.checkpoint),
            "finished": self.trained.finished,
        }


def train(
    store_path: Path,
    out: Path,
    progress: Progress,
    *,
    options: TrainOptions | None = None,
    resume: bool = False,
    overwrite: bool = False,
    stop_after: int | None = None,
    device: str | None = None,
    threads: int = 2,
) -> RunResult:
    """Train an encoder on a store.

    Args:
        store_path: made by `build_shards`.
        out: folder of the run.
        progress: receives what happens.
        options: what decides the run.
        resume: go on from the last checkpoint in `out`, if there is one.
        overwrite: begin anew where `out` holds a run.
        stop_after: stop after so many steps of this call, as an interruption would.
        device: by default CUDA where there is one, else the CPU.
        threads: that read clips.

    Raises:
        UsageError: options that contradict each other or the store.
        CheckpointError: `out` holds a run already, or one with another configuration.
        StoreError: the store cannot be read.
    """
    options = options or TrainOptions()
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    store = open_store(store_path)
    checkpoint = _find_run(out, resume=resume, overwrite=overwrite)
    torch.manual_seed(options.seed)
    dataset = make_dataset(store, options)
    batch_size = options.batch_size or max(2, min(64, len(dataset) // 2))
    loader = ClipLoader(dataset, batch_size, seed=options.seed, threads=threads)
    optimisation = make_optimisation(options, batch_size, len(loader), where)
    learner = make_learner(options, len(dataset), batch_size, optimisation.total_steps).to(where)
    config = run_config(options, store, learner.method, batch_size)

    def on_step(line: dict[str, float]) -> None:
        progress.advance(1, f"loss {line['loss']:.3f}  lr {line['lr']:.2e}  epoch {line['epoch'] + 1:.0f}")

    pairs = make_pairs(store, options, learner.method).to(where)
    trainer = Trainer(learner, pairs, loader, optimisation, out, config, on_step)
    if checkpoint is not None:
        trainer.resume(checkpoint)
    else:
        _begin_run(out, config, store_path)
    name = f"{options.method} on {options.backbone}, {count_parameters(learner.encoder) / 1e6:.2f} M parameters"
    progress.start(f"training {name}", optimisation.total_steps)
    progress.advance(trainer.step)
    return RunResult(trainer.run(stop_after), out)


def run_config(options: TrainOptions, store: Store, method: Method, batch_size: int) -> dict[str, Any]:
    """Everything that decides a run, as plain JSON values; kept with each checkpoint."""
    return {
        **asdict(options),
        "splits": None if options.splits is None else list(options.splits),
        "change": dict(options.change),
        "batch_size": batch_size,
        "crop": crop_size(store, options),
        "classes": list(store.header.classes),
        "resolved_method": asdict(method),
    }


def _find_run(out: Path, *, resume: bool, overwrite: bool) -> Path | None:
    """The checkpoint to go on from; None to begin."""
    if not (out / CHECKPOINTS).exists() and not (out / CONFIG).exists():
        if out.is_dir() and any(out.iterdir()):
            raise UsageError(f"{out} exists and holds something else than a run; name another --out")
        return None
    if resume:
        try:
            return last_checkpoint(out)
        except CheckpointError:
            return None  # interrupted before its first checkpoint
    if not overwrite:
        raise CheckpointError(f"{out} holds a run already: --resume to go on with it, --overwrite to begin anew")
    for path in (out / CHECKPOINTS).glob("step-*.pt"):
        path.unlink()
    return None


def _begin_run(out: Path, config: dict[str, Any], store: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / LOG).unlink(missing_ok=True)
    versions = {"bgaug": __version__, "torch": torch.__version__}
    record = {"config": config, "store": str(store), "versions": versions}
    write_durably(out / CONFIG, json.dumps(record, indent=1).encode())


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
    total = options.steps or options.epochs * steps_per_epoch
    amp = options.amp or ("bf16" if device.type == "cuda" else "off")
    if options.backbone == "tiny":
        return Optimisation(total, "adamw", options.lr or 2e-3, 1e-4, round(0.05 * total), amp)
    return Optimisation(total, "sgd", options.lr or 0.01 * batch_size / 64, 1e-4, round(0.05 * total), amp)


def make_learner(options: TrainOptions, num_videos: int, batch_size: int, steps: int) -> ContrastiveLearner:
    """The learner, with fresh weights.

    Raises:
        UsageError: no such method or backbone, or a queue that the data cannot fill.
    """
    try:
        method = Method.resolve(
            options.method, num_videos, batch_size, steps, options.momentum, **method_changes(options)
        )
        trunk = make_backbone(options.backbone, options.weights)
        if options.weights is not None:
            load_weights(trunk, _read_weights(options.weights))
        return ContrastiveLearner(trunk, method)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def make_backbone(name: str, weights: str | None) -> Backbone:
    """The encoder with fresh weights; of the form that published ones need if those are to be loaded.

    Raises:
        ValueError: no such backbone.
        TypeError: it has no such form.
    """
    return build_backbone(name, temporal_padding="zeros", normalise=True) if weights else build_backbone(name)


def _read_weights(path: str) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(f"{path} cannot be read as weights ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"{path} must hold a state dict, from parameter name to tensor; got {type(state).__name__}")
    return state


def parse_changes(settings: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE, as the command line has them, to values: JSON where it is JSON, else text; stages by commas.

    Raises:
        UsageError: a setting without `=`, or one twice.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        name = name.strip().replace("-", "_")
        if not separator or not name or name in changes:
            raise UsageError(f"--set takes NAME=VALUE, each name once, got {setting!r}")
        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text.strip()
    if isinstance(changes.get("stages"), str):
        changes["stages"] = [stage.strip() for stage in changes["stages"].split(",")]
    return changes


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
        bank = torch.from_numpy(store.bank(options.bank).pictures)
    elif options.bank is not None:
        raise UsageError(f"--bank {options.bank} is not used by {method.name!r}; add --set donor=bank")
    return SemiNegativePairs(augmentation, composition, bank=bank)


def crop_size(store: Store, options: TrainOptions) -> int:
    """Side of the crops: what was asked for, else 112 or what the frames hold."""
    return options.crop or min(112, *store.size)


def load_learner(run: Path) -> tuple[ContrastiveLearner, dict[str, Any]]:
    """The learner of a run's last checkpoint, in evaluation mode, and the run's configuration.

    Raises:
        CheckpointError: there is none, or it does not fit this bgaug.
    """
    path = last_checkpoint(run)
    state = load_checkpoint(path)
    config = state["config"]
    try:
        trunk = make_backbone(config["backbone"], config.get("weights"))
        learner = ContrastiveLearner(trunk, Method(**config["resolved_method"]))
        learner.load_state_dict(state["learner"])
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit its own configuration: {str(error).splitlines()[0]}") from error
    return learner.eval(), config
