"""Fine-tuning: an encoder and a linear head are trained on labelled videos and tested on others.

The learner and its loss are those of `bgaug train --method supervised`. Here labels may come from a list, there is one
training per fold, and nothing is written.

Letters: V clips of a video, N videos, K classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.data.loader import ClipLoader
from bgaug.errors import BgaugError, UsageError
from bgaug.model import METHODS, ContrastiveLearner
from bgaug.model.backbones import build_backbone
from bgaug.model.checkpoint import Run
from bgaug.pairs import Augmentation, SemiNegativePairs
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


@dataclass(frozen=True, eq=False)
class Finetuned:
    """A trained classifier.

    Attributes:
        model: a supervised learner, in evaluation mode, on its device.
        classes: int64 (K,), label of each column of its logits, ascending.
        config: configuration of the run whose encoder was fine-tuned.
    """

    model: ContrastiveLearner
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
        device = next(self.model.parameters()).device
        crops = evaluation_clips(dataset, self.config["crop"], device, batch_size, threads, progress, name)
        return encode(self.model.logits, crops, clips)

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


def _classifier(run: Run, num_classes: int, dropout: float, from_scratch: bool) -> ContrastiveLearner:
    if from_scratch:
        builder = run.permission.builder_for(run.config["backbone"], run.checkpoint)
        trunk = build_backbone(builder, **run.config["backbone_options"])
    else:
        trunk = copy.deepcopy(run.learner.encoder.backbone)
    method = replace(METHODS["supervised"], dropout=dropout)
    return ContrastiveLearner(trunk.requires_grad_(True), method, classes=num_classes)


def _train(
    model: ContrastiveLearner,
    run: Run,
    store: Store,
    videos: Ints,
    target: Tensor,
    options: FinetuneOptions,
    progress: Progress,
    threads: int,
    name: str,
) -> None:
    views = SemiNegativePairs(augmentation(run.config, options.flip), "none", views=1)
    settings = finetune_settings(options, run.config)
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
            pairs = views(batch.to(run.device, non_blocking=True))
            loss = model(replace(pairs, label=target[pairs.video]))["loss"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            value = float(loss.detach())
            if not math.isfinite(value):
                raise BgaugError(
                    f"{name} diverged at step {step} of {total}: the loss is {value}; use a lower learning rate"
                )
            progress.advance(1, f"loss {value:.3f}")
