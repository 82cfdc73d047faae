"""Options of `bgaug heatmap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from bgaug.names import FEATURES, MaskValues
from bgaug.pipelines.options import RUNNING, EncoderOptions, Option, record

MAPS = ("cam", "activation", "saliency")
_EXPLAINED = FEATURES[:2]
_MASKS = "Masks"
OF_A_CALL = ("device", "backbone", "trust", "against", "overwrite", "in_process")
"""Options that are not kept with the result."""


@record
class HeatmapOptions(EncoderOptions):
    """`bgaug heatmap`: which maps, of which clips, compared with which masks."""

    maps: Annotated[
        tuple[str, ...] | None,
        Option(
            "Kinds of maps. cam: evidence for a class, by a linear probe on the run's feature. activation: what is "
            "active, whatever the class. saliency: where features move. By default all, but cam only with labels.",
            flag="map",
            names=MAPS,
            commas=True,
        ),
    ] = None
    stage: Annotated[
        str | None, Option("Stage of cam and activation; by default the second for cam, the last for activation.")
    ] = None
    videos: Annotated[int, Option("Number of videos shown, spread evenly; 0 for all.", ge=0)] = 12
    clips: Annotated[int, Option("Evenly spaced clips of each video.", ge=1)] = 1
    target: Annotated[
        str, Option("Class of cam: predicted by the probe, true, or the name of a class.", metavar="CLASS")
    ] = "predicted"
    probe: Annotated[
        str | None,
        Option("Labelled store that the linear probe is fitted on, instead of the one shown.", metavar="STORE"),
    ] = None
    masks: Annotated[
        Path | None,
        Option("True masks in place of the store's, as `bgaug import` reads them; some frames suffice.", panel=_MASKS),
    ] = None
    first: Annotated[int, Option("Number of a video's first frame in the names of masks.", panel=_MASKS, ge=0)] = 0
    values: Annotated[
        MaskValues,
        Option("Meaning of the pixels of masks; cdnet: 50 is background, 85 and 170 are left out.", panel=_MASKS),
    ] = "nonzero"
    films: Annotated[bool, Option("Write one film per clip, besides the sheet.")] = True
    feature: Annotated[
        str | None,
        Option(
            "Code that cam explains; by default that of the run's method: dynamic for bgaug, dual.", names=_EXPLAINED
        ),
    ] = None
    against: Annotated[
        tuple[Path, ...], Option("Another run, shown next to it on the same frames.", metavar="RUN")
    ] = ()
    overwrite: Annotated[bool, Option("Replace the result of an earlier call.", panel=RUNNING)] = False
    in_process: bool = False
    """Read videos in the calling process."""
