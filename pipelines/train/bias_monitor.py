"""Bias of an encoder during its training, measured on a few videos after each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bgaug.data.batch import Batch
from bgaug.data.dataset import ClipDataset
from bgaug.metrics import LinearProbe
from bgaug.model import ContrastiveLearner
from bgaug.pairs import Augmentation, Pairs, SemiNegativePairs
from bgaug.pipelines.evaluate.features import encode

NUMBERS = ("motion_r1", "scene_r1", "background_probe")
_BACKGROUNDS = 8  # classes of the background probe
_SEED = 20
_CHUNK = 16  # clips per forward pass


class BiasMonitor:
    """Measures bias in percent, on the same composites each time.

    - ``motion_r1``: share of composites whose nearest plain clip (another clip of the dataset's videos) belongs to the
      video of the foreground.
    - ``scene_r1``: share whose nearest plain clip belongs to the video of the background. Chance is one divided by the
      number of videos for both; an encoder of motion has a high first number and a low second one.
    - ``background_probe``: accuracy of a linear probe that predicts which of eight backgrounds a clip has, trained on
      one half of the videos and tested on the other; chance is 12.5.

    Args:
        dataset: two views per video, with backgrounds and masks.
        videos: number of videos, at least 4; at most those of the dataset are used.
        crop: side of the centre crop, pixels.
        device: device of the encoder.

    Raises:
        ValueError: fewer than 4 videos.
    """

    def __init__(self, dataset: ClipDataset, videos: int, crop: int, device: torch.device) -> None:
        count = min(videos, len(dataset))
        if count < 4:
            raise ValueError(f"the bias monitor needs 4 videos or more, got {count}")
        chosen = np.random.default_rng(_SEED).permutation(len(dataset))[:count]
        self.batch = Batch(
            **{name: v.clone() for name, v in dataset.collate(dataset.__getitems__(chosen.tolist())).items()}
        )
        still = Augmentation(
            size=crop, scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grey=0, blur=0, channel_gain=0, hue=0
        )
        self.pairs = SemiNegativePairs(still, "background").to(device)
        self.device = device

    def __call__(self, learner: ContrastiveLearner) -> dict[str, float]:
        """The numbers of an encoder as it is now; its training mode is restored."""
        with evaluating(learner):
            places = torch.arange(len(self.batch.video))
            pairs = self.compose()
            plain, composed = (self._encode(learner, clips) for clips in (pairs.anchor, pairs.semi))
            found = nearest(composed, plain)
            moved = places.numpy()[pairs.weight.cpu().numpy() > 0]
            donor = pairs.donor.cpu().numpy()
            few = min(_BACKGROUNDS, len(places) // 2)
            lender = (places + 1) % few  # never the clip's own place
            lent = self.compose(lender)
            known = lent.weight.cpu().numpy() > 0
            return {
                "motion_r1": _percent(found[moved] == moved),
                "scene_r1": _percent(found[moved] == donor[moved]),
                "background_probe": _probe_accuracy(self._encode(learner, lent.semi), lender.numpy(), known),
            }

    def compose(self, donor: Tensor | None = None) -> Pairs:
        """Plain clips and composites of all videos, on the device."""
        donor = None if donor is None else donor.to(self.device)
        pairs: Pairs = self.pairs(self.batch.to(self.device), donor)
        return pairs

    def _encode(self, learner: ContrastiveLearner, clips: Tensor) -> NDArray[np.float32]:
        return encode(lambda part: learner.features(part, learner.method.feature), torch.split(clips, _CHUNK))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients in the block; the training mode is restored afterwards."""
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was)


def nearest(queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> NDArray[np.int64]:
    """Index of the nearest gallery feature by cosine similarity, centred on the gallery's mean: int64 (Q,)."""
    mean = gallery.mean(axis=0)
    queries, gallery = (
        v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (queries - mean, gallery - mean)
    )
    return np.asarray((queries @ gallery.T).argmax(axis=1), np.int64)


def _probe_accuracy(features: NDArray[np.float32], background: NDArray[np.int64], known: NDArray[np.bool_]) -> float:
    """Accuracy in percent of a background probe, trained on every second clip of a background, tested on the others."""
    rank = np.zeros(len(background), np.int64)
    for name in np.unique(background):
        same = np.flatnonzero(background == name)
        rank[same] = np.arange(len(same))
    train, test = known & (rank % 2 == 0), known & (rank % 2 == 1)
    if not train.any() or not test.any():
        return float("nan")
    return round(
        100 * LinearProbe().fit(features[train], background[train]).accuracy(features[test], background[test]), 2
    )


def _percent(hits: NDArray[np.bool_]) -> float:
    """Share of hits, in percent to two digits."""
    return round(100 * float(np.mean(hits)), 2)
