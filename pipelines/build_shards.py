"""`bgaug build-shards`: frames, masks and backgrounds of each video into a store to train from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bgaug.annotations import Label
from bgaug.background import Background, fit_background
from bgaug.background.align import FrameAligner, placed
from bgaug.background.picture import view
from bgaug.background.stabilise import Canvas
from bgaug.errors import UsageError, VideoError
from bgaug.mask import difference_mask, frame_mask, threshold_map
from bgaug.pipelines.each_video import (
    Outcome,
    Recipe,
    Setup,
    build_store,
)
from bgaug.pipelines.extract_backgrounds import add_backgrounds, ended_run, row_of, size_of
from bgaug.pipelines.progress import Progress
from bgaug.pipelines.sources import Source, find_videos
from bgaug.pipelines.watch import Watched, WatchOptions, watch
from bgaug.sizing import STORE_SIZE, Fit, Size, fit_frame, resize_area, working_size
from bgaug.store import FrameKind, Header, Shot, Store, VideoPayload, VideoRow, identify, open_store, verify_store
from bgaug.video import DecodedFrame, VideoReader, open_video


@dataclass(frozen=True)
class BuildVideo:
    """The work on one video.

    Attributes:
        options: how videos are decoded, and backgrounds estimated that are not in the store.
        backgrounds: a store that `extract-backgrounds` made, or None.
    """

    options: WatchOptions
    backgrounds: Store | None

    def __call__(self, source: Source, label: Label, header: Header) -> tuple[VideoRow, VideoPayload]:
        """See `EachVideo`."""
        try:
            payload = VideoPayload(header)
            with open_video(source.path, self.options.decoder) as reader:
                shots = self._stored_shots(source, payload, reader)
                if shots:
                    watched = self._masks_known(reader, payload, shots)
                else:
                    watched, held = self._in_one_pass(reader, payload)
                    shots = add_backgrounds(payload, watched)
                    self._masks_after(reader, payload, shots, watched, held)
            return row_of(source, label, reader.info, shots, watched), payload
        except VideoError as error:
            if self.options.on_error == "fail":
                raise ended_run(error) from error
            raise

    def _stored_shots(self, source: Source, payload: VideoPayload, reader: VideoReader) -> list[Shot] | None:
        """Shots from the store of backgrounds, these in the payload; None where it has none of this very file."""
        if self.backgrounds is None:
            return None
        try:
            video = self.backgrounds.find(source.id)
        except KeyError:
            return None
        row = self.backgrounds.row(video)
        if row.identity != identify(source.path):
            return None  # the file is another one now
        if any(shot.camera == "jitter" for shot in row.shots):
            return None  # its masks are made against a canvas, which the store does not hold
        shots = []
        for number, shot in enumerate(row.shots):
            place = -1
            if shot.background >= 0:
                place = payload.add_background(self._fitted(self.backgrounds, video, number, payload.header, reader))
            shots.append(shot.model_copy(update={"background": place}))
        return shots

    def _fitted(self, store: Store, video: int, shot: int, header: Header, reader: VideoReader) -> Background:
        found = store.background(video, shot)
        if store.header.fit == "stretch" and header.fit != "stretch":
            found = _unstretched(found, (reader.info.height, reader.info.width))
            return fit_background(found, header.size, header.fit)
        return fit_background(found, header.size, "stretch")

    def _masks_known(self, reader: VideoReader, payload: VideoPayload, shots: list[Shot]) -> Watched:
        """One pass whose shots and backgrounds are known: frames and masks as they come."""
        masker = _Masker(payload, shots)

        def keep(frame: DecodedFrame) -> None:
            fitted = fit_frame(frame.rgb(), payload.header.size, payload.header.fit)
            payload.add_frame(frame.pts_seconds, fitted)
            masker.add(frame.index, fitted)

        # Cuts and cameras were looked at when the backgrounds were made.
        return watch(reader, replace(self.options, shots=False), keep, sample=False)

    def _in_one_pass(self, reader: VideoReader, payload: VideoPayload) -> tuple[Watched, list[NDArray[np.uint8]]]:
        """Shots, backgrounds and frames in the same pass; fitted frames are held for the masks, if memory allows."""
        header = payload.header
        held: list[NDArray[np.uint8]] = []
        limit = self.options.memory // (header.size[0] * header.size[1] * 3)

        def keep(frame: DecodedFrame) -> None:
            fitted = fit_frame(frame.rgb(), header.size, header.fit)
            payload.add_frame(frame.pts_seconds, fitted)
            if len(held) == frame.index < limit:
                held.append(fitted)

        return watch(reader, self.options, keep), held

    def _masks_after(
        self,
        reader: VideoReader,
        payload: VideoPayload,
        shots: list[Shot],
        watched: Watched,
        held: list[NDArray[np.uint8]],
    ) -> None:
        """Masks of every frame, from the frames held, else from a second pass."""
        masker = _Masker(payload, shots, [shot.canvas for shot in watched.shots])
        count = len(payload.pts_seconds)
        if len(held) == count and not any(shot.canvas for shot in watched.shots):
            for index, fitted in enumerate(held):
                masker.add(index, fitted)
            return
        for frame in islice(reader.scan(), count):
            masker.add(frame.index, fit_frame(frame.rgb(), payload.header.size, payload.header.fit), frame.rgb())


class _Masker:
    """Masks of a video's frames, in order, by the background of the shot that each lies in."""

    def __init__(self, payload: VideoPayload, shots: list[Shot], canvases: Sequence[Canvas | None] = ()) -> None:
        self._payload = payload
        self._shots = shots
        self._canvases = canvases or [None] * len(shots)
        self._thresholds = [threshold_map(background.noise) for background in payload.backgrounds]
        self._shot = -1
        self._steady: _Steady | None = None
        self._previous: NDArray[np.uint8] | None = None
        self._next_shot()

    def add(self, index: int, image: NDArray[np.uint8], whole: NDArray[np.uint8] | None = None) -> None:
        """The next frame, at the store's size and, for a camera that shakes, as it was."""
        while index >= self._shots[self._shot].stop and self._shot + 1 < len(self._shots):
            self._next_shot()
        shot = self._shots[self._shot]
        if self._steady is not None and whole is not None:
            mask = self._steady.mask(whole, index - shot.start)
            header = self._payload.header
            mask = fit_frame(mask.astype(np.uint8) * 255, header.size, header.fit) > 127
        elif shot.background >= 0:
            background = self._payload.backgrounds[shot.background]
            mask = frame_mask(image, background.at(index - shot.start), self._thresholds[shot.background])
        else:
            mask = difference_mask(image, image if self._previous is None else self._previous)
            self._previous = image
        self._payload.add_masks(mask[None])

    def _next_shot(self) -> None:
        self._shot += 1
        self._previous = None
        canvas = self._canvases[self._shot]
        self._steady = None if canvas is None else _Steady(canvas)


class _Steady:
    """Masks of the frames of a camera that shakes, each against what it sees of the canvas."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._aligner = FrameAligner(canvas.image, canvas.valid, canvas.size)
        self._threshold = threshold_map(canvas.noise)

    def mask(self, image: NDArray[np.uint8], frame: int) -> NDArray[np.bool_]:
        """Mask of a frame of the shot, bool, at the size of the canvas's frames."""
        canvas = self._canvas
        image = resize_area(image, canvas.size)
        transform = placed(self._aligner, image, canvas.guess(frame)).transform
        seen, threshold = (view(layer, transform, canvas.size) for layer in (canvas.image, self._threshold))
        known: NDArray[np.bool_] = view(canvas.valid, transform, canvas.size)
        return frame_mask(image, seen, threshold) & known


def _unstretched(background: Background, source: Size) -> Background:
    """A background stored stretched, back in its video's aspect."""
    size = working_size(source, min(background.image.shape[:2]))
    stretched = fit_background(background, size, "stretch")
    return replace(stretched, image=resize_area(background.image, size))


def build_shards(
    setup: Setup,
    progress: Progress,
    *,
    options: WatchOptions | None = None,
    size: Size | None = STORE_SIZE,
    fit: Fit = "stretch",
    frames: FrameKind = "jpeg",
    backgrounds: Path | None = None,
) -> Outcome:
    """Build a store to train from.

    Args:
        setup: inputs, store, labels, processes.
        progress: receives what happens.
        options: how videos are decoded, and backgrounds estimated that `backgrounds` does not hold.
        size: (height, width) of the store; None for the videos' own, if they have but one.
        fit: how other aspects are brought to it.
        frames: how frames are kept: "jpeg", "raw" or "none".
        backgrounds: a store that `extract-backgrounds` made. A video that it lacks, or whose file has changed since,
            gets its background in the same pass.

    Raises:
        UsageError: inputs that contradict each other, or backgrounds smaller than the store.
        StoreError: a store cannot be read or written, or was begun with other options.
    """
    options = options or WatchOptions()
    sources = find_videos(setup.inputs)
    size = size or size_of(setup, sources)
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
