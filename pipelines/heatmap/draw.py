"""Drawing heat maps over their clip: its row of the sheet, its film, titles and captions.

Letters: T frames of a clip, S side of the stored frames' centre square.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.metrics.heatmap import centre_crop_masks
from bgaug.pairs import centre_crop
from bgaug.pipelines.heatmap.clips import Clip
from bgaug.pipelines.heatmap.compute import pixel_map
from bgaug.visualize import HeatmapRow, heatmap_film, write_film

SHEET_ROWS = 40
_TITLE = 20


@dataclass(frozen=True, eq=False)
class _DrawnClip:
    """A clip with its maps, ready to be drawn.

    Attributes:
        clip: the clip.
        frames: uint8 (T, S, S, 3), RGB.
        maps: float32 in [0, 1], (T, S, S) each.
        outlines: bool (T, S, S), the foreground.
        caption: text under the clip.
    """

    clip: Clip
    frames: NDArray[np.uint8]
    maps: Sequence[NDArray[np.float32]]
    outlines: NDArray[np.bool_]
    caption: str

    def row(self) -> HeatmapRow:
        """Row of the sheet, with the middle frame that has a mask."""
        place = self.clip.masks.middle
        return HeatmapRow(self.frames[place], [heat[place] for heat in self.maps], self.outlines[place], self.caption)

    def write_film(self, path: Path, titles: Sequence[str], fps: float) -> None:
        """Write all frames; frames without a mask have no outline."""
        masks = [mask if there else None for mask, there in zip(self.outlines, self.clip.masks.there, strict=True)]
        write_film(path, heatmap_film(self.frames, self.maps, masks, titles, caption=self.caption), fps)


def drawn_map(name: str, heat: Tensor, clip: Clip) -> NDArray[np.float32]:
    """A map at the size of the clip, float32 (T, S, S); a map without time is repeated."""
    T = len(clip.indices)
    whole = heat[:, None].expand(-1, T, -1, -1) if heat.ndim == 3 else heat
    drawn: NDArray[np.float32] = pixel_map(name, whole, (T, clip.side, clip.side))[0].numpy()
    return drawn


def draw_clip(
    clip: Clip, maps: Sequence[NDArray[np.float32]], own: str | None, explained: Mapping[str, str | None]
) -> _DrawnClip:
    """A clip with its maps, in the order of their columns.

    `own` is the class of the video, `explained` the class that "cam" explains, by run.
    """
    square = centre_crop(clip.frames, clip.box, clip.side)[0].permute(1, 2, 3, 0)
    frames = (square * 255).round().to(torch.uint8).numpy()
    outlines = centre_crop_masks(torch.from_numpy(clip.masks.foreground)[None], clip.side, clip.box)[0].numpy()
    return _DrawnClip(clip, frames, maps, outlines, _caption(clip, clip.masks.middle, own, explained))


def film_name(number: int, video_id: str) -> str:
    """A unique name for a clip's film that every file system accepts."""
    return f"{number:03d}_{''.join(c if c.isalnum() or c in '-.' else '_' for c in video_id)[-80:]}.mp4"


def column_titles(runs: Sequence[str], maps: Sequence[str]) -> list[str]:
    """Titles of the columns, without the ending that all runs share; long titles lose their beginning."""
    if len(runs) == 1:
        return list(maps)
    names = list(runs)
    shared = len(os.path.commonprefix([name[::-1] for name in names]))
    if 0 < shared < min(map(len, names)):
        names = [name[:-shared].rstrip("-_./ ") for name in names]
    return [f"{name}: {title[-(_TITLE - len(name)) :]}" for name in maps for title in names]


def _caption(clip: Clip, place: int, own: str | None, explained: Mapping[str, str | None]) -> str:
    named = sorted({name for name in explained.values() if name is not None})
    mapped = f"  cam of {', '.join(named)}" if named else ""
    return f"{clip.id}  #{clip.indices[place]}" + (f"  {own}" if own else "") + mapped
