"""Fine-tuning: an encoder and a linear head are trained on labelled videos and tested on others.

Letters: B clips, V clips of a video, T frames, S side of the crop, N videos, K classes, D features.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bgaug.data.batch import Batch
from bgaug.data.loader import ClipLoader
from bgaug.errors import BgaugError, UsageError
from bgaug.model.backbones import Backbone, build_backbone
from bgaug.model.checkpoint import Run
from bgaug.pairs import Augmentation, colour_jitter, crop_boxes, crop_resize, flips
from bgaug.pipelines.evaluate.features import clips_of, encode, evaluation_clips
from bgaug.pipelines.evaluate.options import FinetuneOptions
from bgaug.pipelines.train.optimisation import Optimisation, default_optimiser, make_optimiser
from bgaug.progress import Progress
from bgaug.store import Store

Ints = NDArray[np.int64]


def finetune_settings(options: FinetuneOptions, config: Mapping[str, Any]) -> dict[str, Any]:
    """All options, with the defaults of a run's configuration filled in."""
    optimiser, lr = default_optimiser(config["backbone"], 0.01 * options.batch_size / 32)
    chosen = {
        "optimiser": options.optimiser or optimiser,
        "lr": options.lr or lr,
        "flip": augmentation(config, options.flip).flip,
    }
    return {**asdict(options), **chosen}


class ClipClassifier(nn.Module):
    """A backbone and a linear head on the mean over cells and time of its last stage.

    Args:
        backbone: the network.
        num_classes: K.
        dropout: dropout before the head.
    """

    def __init__(self, backbone: Backbone, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(list(backbone.dims.values())[-1], num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits (B, K) of float clips in [0, 1], (B, 3, T, S, S)."""
        last = list(self.backbone(clips).values())[-1]
        logits: Tensor = self.head(self.dropout(last.float().mean(dim=(2, 3, 4))))
        return logits


@dataclass(frozen=True, eq=False)
class Finetuned:
    """A trained classifier.

    Attributes:
        model: in evaluation mode, on its device.
        classes: int64 (K,), label of each column of its logits, ascending.
        config: configuration of the run whose encoder was fine-tuned.
    """

    model: ClipClassifier
    classes: Ints
    config: Mapping[str, Any]

    def logits(
        self,
        store: Store,
        videos: Ints,
        progress: Progress,
        *,
        clips: int = 10,
        batch_size: int = 8,
        threads: int = 2,
        name: str = "testing",
    ) -> NDArray[np.float32]:
        """Logits of videos, float32 (N, K): means over the centre crops of V evenly spaced clips.

        The batch size, in videos, changes the result by rounding only.
        """
        dataset = clips_of(store, self.config, videos, views=clips, sampling="uniform")
        device = self.model.head.weight.device
        crops = evaluation_clips(dataset, self.config["crop"], device, batch_size, threads, progress, name)
        return encode(self.model, crops, clips)

    def predict(self, store: Store, videos: Ints, progress: Progress, **options: Any) -> Ints:
        """Most likely labels of videos, int64 (N,); see `logits` for the arguments."""
        labels: Ints = self.classes[self.logits(store, videos, progress, **options).argmax(axis=1)]
        return labels


def finetune(
    run: Run,
    store: Store,
    videos: Ints,
    labels: Ints,
    progress: Progress,
    *,
    options: FinetuneOptions | None = None,
    from_scratch: bool = False,
    threads: int = 2,
    name: str = "fine-tuning",
) -> Finetuned:
    """Train an encoder and a head on labelled videos.

    With `from_scratch`, the training starts from fresh weights of the same backbone.

    On a CPU the same call gives the same weights to the bit, with any number of reading threads. The learner of the
    run and the random generator of torch do not change.

    Raises:
        UsageError: the training videos have fewer than two classes.
        BgaugError: the training diverged.
    """
    options = options or FinetuneOptions()
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UsageError(f"fine-tuning needs training videos of two classes or more, got {len(classes)}")
    # Batches name videos by their index in the store.
    target = torch.full((len(store),), -1, dtype=torch.int64)
    target[torch.from_numpy(videos)] = torch.from_numpy(targets)
    with seeded(options.seed, run.device):
        model = _classifier(run, len(classes), options.dropout, from_scratch).to(run.device)
        _train(model, run, store, np.sort(videos), target.to(run.device), options, progress, threads, name)
    return Finetuned(model.eval(), classes.astype(np.int64), run.config)


def augmentation(config: Mapping[str, Any], flip: float | None = None) -> Augmentation:
    """The augmentation for a run's backbone, by default with the flip probability of the run."""
    tiny = config["backbone"] == "tiny"
    recipe = Augmentation.tiny(config["crop"]) if tiny else Augmentation.standard(config["crop"])
    flip = config.get("flip") if flip is None else flip
    return recipe if flip is None else Augmentation(**{**asdict(recipe), "flip": flip})


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the random generators of torch; afterwards they are as before."""
    devices: Sequence[torch.device] = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _classifier(run: Run, num_classes: int, dropout: float, from_scratch: bool) -> ClipClassifier:
    if from_scratch:
        builder = run.permission.builder_for(run.config["backbone"], run.checkpoint)
        trunk = build_backbone(builder, **run.config["backbone_options"])
    else:
        trunk = copy.deepcopy(run.learner.encoder.backbone)
    return ClipClassifier(trunk.requires_grad_(True), num_classes, dropout)


def _train(
    model: ClipClassifier,
    run: Run,
    store: Store,
    videos: Ints,
    target: Tensor,
    options: FinetuneOptions,
    progress: Progress,
    threads: int,
    name: str,
) -> None:
    recipe, settings = augmentation(run.config, options.flip), finetune_settings(options, run.config)
    dataset = clips_of(store, run.config, videos, seed=options.seed, views=1)
    # The loader yields whole batches only, so few videos make a smaller one.
    loader = ClipLoader(dataset, min(options.batch_size, len(videos)), seed=options.seed, threads=threads)
    total = options.epochs * len(loader)
    plan = Optimisation(
        total_steps=total,
        optimiser=settings["optimiser"],
        lr=settings["lr"],
        weight_decay=options.weight_decay,
        warmup_steps=round(options.warmup * total),
    )
    optimiser = make_optimiser(model, plan)
    model.train()
    progress.start(name, total)
    step = 0
    for _ in range(options.epochs):
        for batch in loader:
            for group in optimiser.param_groups:
                group["lr"] = plan.lr_at(step)
            batch = batch.to(run.device, non_blocking=True)
            loss = nn.functional.cross_entropy(model(training_view(batch, recipe)), target[batch.video])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
            value = float(loss.detach())
            if not math.isfinite(value):
                raise BgaugError(
                    f"{name} diverged at step {step} of {total}: the loss is {value}; use a lower learning rate"
                )
            progress.advance(1, f"loss {value:.3f}")


def training_view(batch: Batch, recipe: Augmentation) -> Tensor:
    """The first clip of each sample, augmented: float32 (B, 3, T, S, S)."""
    boxes = crop_boxes(batch.key, batch.box, recipe)
    clips = crop_resize(batch.frames[:, 0], boxes, recipe.size, flips(batch.key, recipe))
    return colour_jitter(clips, batch.key, recipe, out=clips)
