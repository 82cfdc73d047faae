"""Heat maps over the clip that they are of: its row of the sheet, its film, and what is written on them.

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
from bgaug.pipelines.heatmap.clips import Clip, Run
from bgaug.pipelines.heatmap.compute import pixel_map
from bgaug.visualize import HeatmapRow, heatmap_film, write_film

SHEET_ROWS = 40
_TITLE = 20


@dataclass(frozen=True, eq=False)
class DrawnClip:
    """A clip and its maps, as they are shown.

    Attributes:
        clip: the clip.
        frames: uint8 (T, S, S, 3), RGB.
        maps: float32 in [0, 1], (T, S, S) each.
        outlines: bool (T, S, S), the foreground.
        caption: what is written under it.
    """

    clip: Clip
    frames: NDArray[np.uint8]
    maps: Sequence[NDArray[np.float32]]
    outlines: NDArray[np.bool_]
    caption: str

    def row(self) -> HeatmapRow:
        """Of the sheet: the middle frame that has a mask."""
        place = self.clip.masks.middle
        return HeatmapRow(self.frames[place], [heat[place] for heat in self.maps], self.outlines[place], self.caption)

    def write_film(self, path: Path, titles: Sequence[str], fps: float) -> None:
        """All frames; those without a mask have no outline."""
        masks = [mask if there else None for mask, there in zip(self.outlines, self.clip.masks.there, strict=True)]
        write_film(path, heatmap_film(self.frames, self.maps, masks, titles, caption=self.caption), fps)


def drawn_map(name: str, heat: Tensor, clip: Clip) -> NDArray[np.float32]:
    """A map as it is shown over a clip, float32 (T, S, S); one without time stands still."""
    T = len(clip.indices)
    whole = heat[:, None].expand(-1, T, -1, -1) if heat.ndim == 3 else heat
    drawn: NDArray[np.float32] = pixel_map(name, whole, (T, clip.side, clip.side))[0].numpy()
    return drawn


def draw_clip(
    clip: Clip, maps: Sequence[NDArray[np.float32]], own: str | None, said: Mapping[str, str | None]
) -> DrawnClip:
    """A clip under its maps.

    Args:
        clip: the clip.
        maps: in the order of their columns, see `drawn_map`.
        own: class of the video.
        said: by run, the class that "cam" speaks of.
    """
    square = centre_crop(clip.frames, clip.box, clip.side)[0].permute(1, 2, 3, 0)
    frames = (square * 255).round().to(torch.uint8).numpy()
    outlines = centre_crop_masks(torch.from_numpy(clip.masks.foreground)[None], clip.side, clip.box)[0].numpy()
    return DrawnClip(clip, frames, maps, outlines, _caption(clip, clip.masks.middle, own, said))


def film_name(number: int, video_id: str) -> str:
    """Of a clip's film: its own, and one that any file system takes."""
    return f"{number:03d}_{''.join(c if c.isalnum() or c in '-.' else '_' for c in video_id)[-80:]}.mp4"


def column_titles(runs: Sequence[Run], maps: Sequence[str]) -> list[str]:
    """Of the columns: without the ending that all runs share; what is too long loses its beginning."""
    if len(runs) == 1:
        return list(maps)
    names = [run.title for run in runs]
    shared = len(os.path.commonprefix([name[::-1] for name in names]))
    if 0 < shared < min(map(len, names)):
        names = [name[:-shared].rstrip("-_./ ") for name in names]
    return [f"{name}: {title[-(_TITLE - len(name)) :]}" for name in maps for title in names]


def _caption(clip: Clip, place: int, own: str | None, said: Mapping[str, str | None]) -> str:
    named = sorted({name for name in said.values() if name is not None})
    mapped = f"  cam of {', '.join(named)}" if named else ""
    return f"{clip.id}  #{clip.indices[place]}" + (f"  {own}" if own else "") + mapped
