"""What the user of `bgaug heatmap` may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bgaug.errors import UsageError
from bgaug.names import MaskValues

MAPS = ("cam", "activation", "saliency")
FEATURES = ("global", "dynamic")


@dataclass(frozen=True)
class HeatmapOptions:
    """Which maps, of which clips, held against what.

    Attributes:
        maps: of `MAPS`; by default all, but for "cam" where nothing is labelled.
        stage: that "cam" and "activation" are taken from; by default the second for "cam", the last for "activation".
        videos: number of videos, spread evenly over those there are; 0 for all.
        clips: of each video, evenly spaced.
        target: the class of "cam": what the probe predicts ("predicted"), the video's own ("true"), or one by name.
        probe: labelled store that the probe is fitted on; by default the store itself, what is shown held out.
        masks: true masks, as `bgaug import` reads them, in place of the store's own.
        first: number of a video's first frame in the names of masks.
        values: what pixels of masks mean.
        films: write a film a clip.
        feature: the code whose classes "cam" explains, "global" or "dynamic"; by default each run's own.

    Raises:
        UsageError: a value out of its range.
    """

    maps: tuple[str, ...] | None = None
    stage: str | None = None
    videos: int = 12
    clips: int = 1
    target: str = "predicted"
    probe: str | None = None
    masks: Path | None = None
    first: int = 0
    values: MaskValues = "nonzero"
    films: bool = True
    feature: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.maps or () if name not in MAPS]
        if unknown or self.maps == ():
            raise UsageError(f"maps are {', '.join(MAPS)}; got {', '.join(unknown) or 'none'}")
        if self.feature not in (None, *FEATURES):
            raise UsageError(f"class maps explain the feature global or dynamic, got {self.feature!r}")
        if self.videos < 0 or self.clips < 1:
            raise UsageError(f"videos must be 0 (all) or more and clips 1 or more, got {self.videos} and {self.clips}")
