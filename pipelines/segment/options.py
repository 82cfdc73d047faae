"""Options of `bgaug segment`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from bgaug.pipelines.build.options import DecoderOption, FollowLinks
from bgaug.pipelines.options import RUNNING, DeviceOptions, Option, StorePath, record

PROMPTS = "Prompts"


@record
class SegmentOptions(DeviceOptions):
    """`bgaug segment`: which videos, by which model, prompted how."""

    store: StorePath
    inputs: Annotated[
        Sequence[Path],
        Option(
            "Folders and files of the store's videos, as build-shards got them.", argument=True, metavar="VIDEOS..."
        ),
    ]
    model: Annotated[
        str,
        Option(
            "Folder of a model of SAM 2, or of the tracker of SAM 3, as the library transformers writes it; or its "
            "name on the Hugging Face hub, such as facebook/sam2.1-hiera-tiny.",
            metavar="MODEL",
        ),
    ]
    offline: Annotated[bool, Option("Download nothing: a model of the hub must have been downloaded before.")] = False
    window: Annotated[
        int,
        Option(
            "Frames that are held at a time, some 3 MB each at 1024x1024. Objects that are new in a window are also "
            "followed back to its first frame.",
            ge=1,
            le=10_000,
        ),
    ] = 96
    objects: Annotated[
        int, Option("Largest number of objects that are followed at a time.", panel=PROMPTS, ge=1, le=64)
    ] = 4
    points: Annotated[int, Option("Largest number of points on an object.", panel=PROMPTS, ge=0, le=32)] = 3
    negative_points: Annotated[
        int,
        Option("Largest number of points in the box of an object that lie off it.", panel=PROMPTS, ge=0, le=32),
    ] = 0
    decoder: DecoderOption = "auto"
    follow_links: FollowLinks = False
    commit_seconds: Annotated[
        float,
        Option("Masks are written at least this often.", panel=RUNNING, metavar="SECONDS", rare=True, ge=0, le=86_400),
    ] = 60
