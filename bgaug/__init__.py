"""bgaug: against background bias in video representation learning.

The rooms, in the order in which a video passes through them:

    files           files written in one step, and errors of the system as ours
    text            names from outside made safe for terminals, logs and images
    outside         files from outside: regular, bounded, nothing executed
    video           what a file holds; one sequential pass; frames by index and time
    background      the static background of a shot
    shots           hard cuts, and whether the camera stands still
    mask            foreground masks from it
    quality         a grade for a background and its masks, without labels
    estimate        the background of a shot, from its camera to its grade
    scores          how near a background or a mask comes to the truth
    scenarios       shots whose background and masks are known
    sizing          frame sizes, and one resize for all
    store           the on-disk format: plan, write, commit, verify, read
    annotations     labels: lists of the data sets, CSV, class folders
    dataset         ClipDataset: clips of a store
    loader          ClipLoader: host batches, threads, exact resume
    batch           what crosses to the device
    augment         clip-consistent geometry and colour, on the device
    compose         donors, composites, semi-negative pairs
    backbone        video encoders by name
    motion          the motion-aware decomposition
    losses          InfoNCE, the semi-negative loss, the dual loss
    model           backbone, heads, momentum encoder, queues
    encoders        trained encoders for others: loaded, exported
    trainer         the loop, checkpoints
    evaluate        retrieval, probes, few labels, and how sure the numbers are
    bias            foreign backgrounds: test clips, and what they tell
    heatmap         where an encoder looks, and how much of that is the mover
    synthetic       the world whose answers are known
    visualize       contact sheets, heat maps side by side
    pipelines       many videos, processes, resuming
    cli             the command line

Public names load on first use: importing bgaug loads neither torch nor a decoder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bgaug.compose import SemiNegativePairs as SemiNegativePairs
    from bgaug.dataset import ClipDataset as ClipDataset
    from bgaug.encoders import load_encoder as load_encoder
    from bgaug.estimate import estimate_background as estimate_background
    from bgaug.loader import ClipLoader as ClipLoader
    from bgaug.loader import SemiNegativeDataset as SemiNegativeDataset
    from bgaug.losses import DualLoss as DualLoss
    from bgaug.losses import SemiNegativeLoss as SemiNegativeLoss
    from bgaug.mask import foreground_mask as foreground_mask
    from bgaug.motion import MotionAwareDecomposition as MotionAwareDecomposition
    from bgaug.store import open_store as open_store
    from bgaug.video import open_video as open_video
    from bgaug.video import read_video as read_video

__version__ = "0.1.0"

_ROOM_OF = {
    "read_video": "video",
    "open_video": "video",
    "estimate_background": "estimate",
    "foreground_mask": "mask",
    "open_store": "store",
    "ClipDataset": "dataset",
    "ClipLoader": "loader",
    "SemiNegativeDataset": "loader",
    "SemiNegativePairs": "compose",
    "MotionAwareDecomposition": "motion",
    "SemiNegativeLoss": "losses",
    "DualLoss": "losses",
    "load_encoder": "encoders",
}

__all__ = ["__version__", *_ROOM_OF]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'bgaug' has no attribute {name!r}")
    return getattr(import_module(f"bgaug.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
