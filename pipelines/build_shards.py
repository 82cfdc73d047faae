"""`bgaug build-shards`: frames, masks and backgrounds of each video into a store to train from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bgaug.annotations import Label
from bgaug.background import Background, fit_background
from bgaug.errors import UsageError
from bgaug.mask import frame_mask, threshold_map
from bgaug.pipelines.each_video import (
    Outcome,
    Recipe,
    Setup,
    Source,
    build_store,
    find_videos,
    native_size,
)
from bgaug.pipelines.extract_backgrounds import BackgroundOptions, make_sampler, row_of
from bgaug.pipelines.progress import Progress
from bgaug.sizing import STORE_SIZE, Fit, Size, fit_frame, resize_area, working_size
from bgaug.store import FrameKind, Header, Store, VideoPayload, VideoRow, identify, open_store, verify_store
from bgaug.video import VideoReader, open_video


@dataclass(frozen=True)
class BuildVideo:
    """The work on one video.

    Attributes:
        options: how backgrounds are estimated that are not in the store.
        backgrounds: a store that `extract-backgrounds` made, or None.
    """

    options: BackgroundOptions
    backgrounds: Store | None

    def __call__(self, source: Source, label: Label, header: Header) -> tuple[VideoRow, VideoPayload]:
        """See `EachVideo`."""
        payload = VideoPayload(header)
        with open_video(source.path, self.options.decoder) as reader:
            background = self._stored_background(source, reader, header)
            if background is None:
                background = self._in_one_pass(reader, payload, header)
            else:
                self._masks_pass(reader, payload, header, background, keep_frames=True)
            number = payload.add_background(background)
            return row_of(source, label, reader.info, payload, number), payload

    def _stored_background(self, source: Source, reader: VideoReader, header: Header) -> Background | None:
        if self.backgrounds is None:
            return None
        try:
            video = self.backgrounds.find(source.id)
        except KeyError:
            return None
        if self.backgrounds.row(video).identity != identify(source.path):
            return None  # the file is another one now
        found = self.backgrounds.background(video)
        if self.backgrounds.header.fit == "stretch" and header.fit != "stretch":
            found = _unstretched(found, (reader.info.height, reader.info.width))
            return fit_background(found, header.size, header.fit)
        return fit_background(found, header.size, "stretch")

    def _in_one_pass(self, reader: VideoReader, payload: VideoPayload, header: Header) -> Background:
        """Samples and frames in the same pass; the masks afterwards, from the frames held, if memory allows that."""
        sampler = make_sampler(reader.info, self.options, None)
        held: list[NDArray[np.uint8]] | None = []
        limit = self.options.memory // (header.size[0] * header.size[1] * 3)
        for frame in reader.scan():
            image = frame.rgb()
            if sampler.wants(frame.index):
                sampler.add(frame.index, image)
            fitted = fit_frame(image, header.size, header.fit)
            payload.add_frame(frame.pts_seconds, fitted)
            if held is not None:
                held.append(fitted)
                held = held if len(held) <= limit else None
        background = fit_background(sampler.background(), header.size, header.fit)
        if held is None:
            self._masks_pass(reader, payload, header, background, keep_frames=False)
            return background
        threshold = threshold_map(background.noise)
        for index, image in enumerate(held):
            payload.add_masks(frame_mask(image, background.at(index), threshold)[None])
        return background

    def _masks_pass(
        self, reader: VideoReader, payload: VideoPayload, header: Header, background: Background, *, keep_frames: bool
    ) -> None:
        """One pass whose background is known: masks of every frame, and the frames themselves if asked for."""
        threshold = threshold_map(background.noise)
        for frame in reader.scan():
            image = fit_frame(frame.rgb(), header.size, header.fit)
            if keep_frames:
                payload.add_frame(frame.pts_seconds, image)
            payload.add_masks(frame_mask(image, background.at(frame.index), threshold)[None])


def _unstretched(background: Background, source: Size) -> Background:
    """A background stored stretched, back in its video's aspect."""
    size = working_size(source, min(background.image.shape[:2]))
    stretched = fit_background(background, size, "stretch")
    return replace(stretched, image=resize_area(background.image, size))


def build_shards(
    setup: Setup,
    progress: Progress,
    *,
    options: BackgroundOptions | None = None,
    size: Size | None = STORE_SIZE,
    fit: Fit = "stretch",
    frames: FrameKind = "jpeg",
    backgrounds: Path | None = None,
) -> Outcome:
    """Build a store to train from.

    Args:
        setup: inputs, store, labels, processes.
        progress: receives what happens.
        options: how backgrounds are estimated that `backgrounds` does not hold.
        size: (height, width) of the store; None for the videos' own, if they have but one.
        fit: how other aspects are brought to it.
        frames: how frames are kept: "jpeg", "raw" or "none".
        backgrounds: a store that `extract-backgrounds` made. A video that it lacks, or whose file has changed since,
            gets its background in the same pass.

    Raises:
        UsageError: inputs that contradict each other, or backgrounds smaller than the store.
        StoreError: a store cannot be read or written, or was begun with other options.
    """
    options = options or BackgroundOptions()
    sources = find_videos(setup.inputs)
    size = size or native_size(sources)
    store = None if backgrounds is None else _check_backgrounds(open_store(backgrounds), size, fit)
    recipe = Recipe(
        each_video=BuildVideo(options, store),
        size=size,
        fit=fit,
        frames=frames,
        options={
            "holds": "clips",
            **asdict(options),
            "backgrounds": None if backgrounds is None else verify_store(backgrounds).content_hash,
        },
    )
    return build_store(setup, sources, recipe, progress)


def _check_backgrounds(store: Store, size: Size, fit: Fit) -> Store:
    height, width = store.size
    if height < size[0] or width < size[1]:
        raise UsageError(
            f"the backgrounds in {store.path} are {height}x{width}, smaller than --size {size[0]}x{size[1]}: extract "
            "them again at that size or more, or leave --backgrounds out"
        )
    if store.header.fit not in ("stretch", fit) or (
        fit == store.header.fit != "stretch" and height * size[1] != width * size[0]
    ):
        raise UsageError(
            f"the backgrounds in {store.path} were fitted by {store.header.fit!r} to {height}x{width} and cannot be "
            f"brought to {fit!r} at {size[0]}x{size[1]}; extract them with --fit stretch"
        )
    return store
