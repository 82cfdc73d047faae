"""`Batch`: clips with masks and backgrounds, all uint8, as they are copied from the host to the device.

Letters: B clips, V views (clips of one video), T frames, H, W pixels, P packed bytes of one mask = ceil(H * W / 8).
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Batch(MutableMapping[str, Tensor]):
    """A batch of training samples in the layout at rest; also a mapping from field name to tensor.

    One sample, as ``ClipDataset[i]`` returns it, is the same object without the leading B. Because it is a mutable
    mapping, torch's ``default_collate`` and ``pin_memory`` return a ``Batch`` again.

    Attributes:
        frames: uint8 (B, V, T, H, W, 3), RGB.
        masks: uint8 (B, V, T, P), foreground bits, most significant first, rows of W then H; see
            `bgaug.pairs.masks.unpack_masks`.
        backgrounds: uint8 (B, H, W, 3), RGB: the background of the shot that the clips come from; of a moving camera,
            as a frame near the middle of the second view sees it.
        video: int64 (B,), index of the video in the store.
        shot: int64 (B,), index of the shot in its video.
        label: int64 (B,), class index, -1 where unknown.
        grade: int64 (B,), grade of the shot: 1 to 6 for A to F, 0 for none.
        start: int64 (B, V), first frame of each clip in its video.
        pts_seconds: float64 (B, V, T), presentation time of each frame.
        box: int64 (B, 4), (top, left, height, width) of the image inside the frame: the whole frame, except in padded
            stores.
        key: int64 (B,), the sample's key of randomness, a function of only (seed, epoch, sample).
    """

    frames: Tensor
    masks: Tensor
    backgrounds: Tensor
    video: Tensor
    shot: Tensor
    label: Tensor
    grade: Tensor
    start: Tensor
    pts_seconds: Tensor
    box: Tensor
    key: Tensor

    def __getitem__(self, name: str) -> Tensor:
        if name not in FIELDS:
            raise KeyError(name)
        value: Tensor = getattr(self, name)
        return value

    def __setitem__(self, name: str, value: Tensor) -> None:
        if name not in FIELDS:
            raise KeyError(f"a batch has no field {name!r}; it has {', '.join(FIELDS)}")
        setattr(self, name, value)

    def __delitem__(self, name: str) -> None:
        raise TypeError("the fields of a batch cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(FIELDS)

    def __len__(self) -> int:
        return len(FIELDS)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return Batch(**{name: value.to(device, non_blocking=non_blocking) for name, value in self.items()})


FIELDS = tuple(field.name for field in fields(Batch))
