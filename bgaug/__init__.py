"""bgaug: against background bias in video representation learning.

Packages and modules, in the order in which a video passes through them:

    errors          the tree of errors
    names           names that options take: closed sets, and registries of methods, formats, backbones
    files           files written in one step; pickles, archives and other files from outside read with bounded cost
    text            names from outside made safe for terminals, logs and images
    progress        how a long job reports its progress
    provenance      versions and hashes that a result is kept with
    sizing          frame sizes, and one resize for all
    video           the content of a file; one sequential pass; frames by index and time
    background      the static background of a shot: samples, median, alignment, methods by name
    masks           foreground masks from a background; masks that others made
    shots           cuts, camera motion, and a shot from its samples to background and grade
    labels          lists of the data sets, CSV, class folders
    store           the on-disk format: plan, write, commit, verify, read
    data            ClipDataset, ClipLoader, Batch: clips of a store for training
    pairs           on the device: augmentation, donors, masks, policies, semi-negative pairs
    model           backbones, decomposition, losses, learner, checkpoints, pretrained encoders
    metrics         retrieval, probes, few labels, statistics, bias, heat maps: arrays in, numbers out
    visualize       contact sheets, heat maps side by side
    testing         worlds whose answers are known, and scores against the truth
    pipelines       one folder per job: the order of work over many videos
    cli             the command line

Public names load on first use: importing bgaug loads neither torch nor a decoder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bgaug.data.dataset import ClipDataset as ClipDataset
    from bgaug.data.loader import ClipLoader as ClipLoader
    from bgaug.data.loader import SemiNegativeDataset as SemiNegativeDataset
    from bgaug.masks import foreground_mask as foreground_mask
    from bgaug.model.decomposition import MotionAwareDecomposition as MotionAwareDecomposition
    from bgaug.model.losses import DualLoss as DualLoss
    from bgaug.model.losses import SemiNegativeLoss as SemiNegativeLoss
    from bgaug.model.pretrained.load import load_encoder as load_encoder
    from bgaug.pairs import SemiNegativePairs as SemiNegativePairs
    from bgaug.shots.estimate import estimate_background as estimate_background
    from bgaug.store import open_store as open_store
    from bgaug.video import open_video as open_video
    from bgaug.video import read_video as read_video

__version__ = "0.1.0"

_HOME_OF = {
    "read_video": "video",
    "open_video": "video",
    "estimate_background": "shots.estimate",
    "foreground_mask": "masks",
    "open_store": "store",
    "ClipDataset": "data.dataset",
    "ClipLoader": "data.loader",
    "SemiNegativeDataset": "data.loader",
    "SemiNegativePairs": "pairs",
    "MotionAwareDecomposition": "model.decomposition",
    "SemiNegativeLoss": "model.losses",
    "DualLoss": "model.losses",
    "load_encoder": "model.pretrained.load",
}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'bgaug' has no attribute {name!r}")
    return getattr(import_module(f"bgaug.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
