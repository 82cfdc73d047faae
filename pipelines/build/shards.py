"""`bgaug build-shards`: frames, masks and backgrounds of all videos into a store for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import cast, overload

import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background, BackgroundView, fit_background
from bgaug.errors import SegmenterError, UsageError, VideoError
from bgaug.labels import Label
from bgaug.masks.segmenter import Segmenter
from bgaug.pipelines.build.backgrounds import find_sources, size_of
from bgaug.pipelines.build.clips import Cutter, LongVideo, ShotMasks, fitted_shot, masks_from, network_mask
from bgaug.pipelines.build.find_videos import FoundVideos, Source
from bgaug.pipelines.build.forecast import Forecast, forecast
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.process_video import ProcessedVideo, process_video, put_shot
from bgaug.pipelines.build.run import Outcome, build_store
from bgaug.pipelines.build.segmenters import mask_network, pinned
from bgaug.pipelines.build.shard import Put
from bgaug.progress import Progress
from bgaug.shots.cuts import Verdict
from bgaug.shots.shot import Shot
from bgaug.sizing import Fit, Size, fit_frame, resize_area, working_size
from bgaug.store import Header, Store, VideoPayload, VideoRow, identify, open_store, verify_store
from bgaug.store import Shot as ShotRow
from bgaug.video import DecodedFrame, VideoReader, declared_length, open_video


class _StoredShots(Sequence[Shot]):
    """The shots of a video from a store of backgrounds; each is read when it is needed, so one at a time is in memory.

    Args:
        store: the store of backgrounds.
        video: index of the video there.
        rows: its shots there.
        header: of the store that is built, to whose size backgrounds are brought.
        source: (height, width) of the video's frames as displayed.
    """

    def __init__(self, store: Store, video: int, rows: Sequence[ShotRow], header: Header, source: Size) -> None:
        self.starts = {row.start: number for number, row in enumerate(rows)}
        self._store, self._video, self._rows, self._header, self._source = store, video, rows, header, source

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, number: int) -> Shot: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Shot]: ...
    def __getitem__(self, number: int | slice) -> Shot | Sequence[Shot]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        row = self._rows[number]
        views = [BackgroundView(frame - row.start, self._fitted(number, frame)) for frame in row.background_frames]
        return Shot(
            row.start,
            row.stop,
            cast(Verdict, row.camera),
            self._fitted(number) if row.background >= 0 and not views else None,
            canvas=self._store.canvas(self._video, number),
            grade=row.grade,
            reasons=tuple(row.reasons),
            views=tuple(views),
            masks=self._store.shot_masks(self._video, number),
        )

    def _fitted(self, number: int, frame: int | None = None) -> Background:
        found, size, fit = self._store.background(self._video, number, frame), self._header.size, self._header.fit
        if self._store.header.fit == "stretch" and fit != "stretch":
            return fit_background(_unstretched(found, self._source), size, fit)
        return fit_background(found, size, "stretch")


@dataclass(frozen=True)
class _BuildVideo:
    """The work on one video.

    Attributes:
        options: how videos are decoded, and backgrounds estimated that the store does not have.
        backgrounds: a store that `extract-backgrounds` made, or None.
    """

    options: VideoOptions
    backgrounds: Store | None

    def __call__(self, source: Source, label: Label, header: Header, put: Put, parts: int = 1) -> list[VideoRow]:
        """See `EachVideo`."""
        network = mask_network(self.options)  # a network that cannot be loaded ends the run
        try:
            return self._build(source, label, header, put, parts, network)
        except SegmenterError as error:
            raise VideoError(source.path, "crashed", f"its masks could not be made: {error}") from error

    def _build(
        self, source: Source, label: Label, header: Header, put: Put, parts: int, network: Segmenter | None
    ) -> list[VideoRow]:
        with open_video(source.path, self.options.decoder) as reader:
            known = self._stored_shots(source, header, reader)
            if parts > 1:
                return self._in_parts(source, label, header, reader, known, put, parts, network)
            payload = VideoPayload(header)
            shots: Sequence[Shot]
            if known is not None:
                video, shots = self._masks_known(reader, payload, known, network), known
            else:
                video, held = self._in_one_pass(reader, payload, network)
                shots = [fitted_shot(header, shot) for shot in video.shots]
                if network is None:
                    self._masks_after(reader, payload, shots, held)
            rows = [put_shot(payload, shot, masks_from=masks_from(shot, network)) for shot in shots]
            row = video.row(source, label, reader, rows)
        put(payload)
        return [row]

    def _stored_shots(self, source: Source, header: Header, reader: VideoReader) -> _StoredShots | None:
        """Shots from the store of backgrounds; None where it has none of this very file."""
        if self.backgrounds is None:
            return None
        try:
            video = self.backgrounds.find(source.id)
        except KeyError:
            return None
        row = self.backgrounds.row(video)
        if row.identity != identify(source.path):
            return None  # the file has changed
        makes_masks = self.options.segmenter_as != "mask"
        if makes_masks and any(s.camera == "jitter" and not (s.has_canvas_result or s.masks) for s in row.shots):
            return None  # a store of an earlier version: the masks need a canvas, which it does not hold
        return _StoredShots(self.backgrounds, video, row.shots, header, reader.info.display_size)

    def _masks_known(
        self, reader: VideoReader, payload: VideoPayload, known: _StoredShots, network: Segmenter | None
    ) -> ProcessedVideo:
        """One pass with known shots and backgrounds: frames and masks at once."""
        masks = ShotMasks(payload.header, known)

        def keep(frame: DecodedFrame) -> None:
            fitted = fit_frame(frame.rgb(), payload.header.size, payload.header.fit, frame.display_size)
            payload.add_frame(frame.pts_seconds, fitted)
            if network is None:
                mask = masks.mask(frame.index, fitted, frame.rgb())
            else:
                mask = network_mask(payload.header, network, frame)
            payload.add_masks(mask[None])

        return process_video(reader, self.options, keep, known=())  # read one by one: none is held

    def _in_one_pass(
        self, reader: VideoReader, payload: VideoPayload, network: Segmenter | None
    ) -> tuple[ProcessedVideo, list[NDArray[np.uint8]]]:
        """Shots, backgrounds and frames in one pass; fitted frames are held for the masks, if memory allows.

        A network needs no background: its masks are made in the same pass.
        """
        header = payload.header
        held: list[NDArray[np.uint8]] = []
        limit = self.options.memory // (header.size[0] * header.size[1] * 3)

        def keep(frame: DecodedFrame) -> None:
            fitted = fit_frame(frame.rgb(), header.size, header.fit, frame.display_size)
            payload.add_frame(frame.pts_seconds, fitted)
            if network is not None:
                payload.add_masks(network_mask(header, network, frame)[None])
            elif len(held) == frame.index < limit:
                held.append(fitted)

        return process_video(reader, self.options, keep), held

    def _masks_after(
        self, reader: VideoReader, payload: VideoPayload, shots: Sequence[Shot], held: list[NDArray[np.uint8]]
    ) -> None:
        """Masks of every frame, from the frames held, else from a second pass."""
        masks = ShotMasks(payload.header, shots)
        count = len(payload.pts_seconds)
        if len(held) == count and not any(shot.canvas for shot in shots):
            for index, fitted in enumerate(held):
                payload.add_masks(masks.mask(index, fitted)[None])
            return
        for frame in islice(reader.scan(), count):
            fitted = fit_frame(frame.rgb(), payload.header.size, payload.header.fit, frame.display_size)
            payload.add_masks(masks.mask(frame.index, fitted, frame.rgb())[None])

    def _in_parts(
        self,
        source: Source,
        label: Label,
        header: Header,
        reader: VideoReader,
        known: _StoredShots | None,
        put: Put,
        parts: int,
        network: Segmenter | None,
    ) -> list[VideoRow]:
        """A long video; see `bgaug.pipelines.build.clips`."""
        expected = reader.info.declared_frames or declared_length(source.path)
        long = LongVideo(header, Cutter(expected, parts), put, network)
        if known is not None:

            def keep(frame: DecodedFrame) -> None:
                if frame.index in known.starts:
                    long.begin_shot(known[known.starts[frame.index]])
                long.add(frame)

            video = process_video(reader, self.options, keep, known=())  # read one by one: none is held
        else:
            with open_video(source.path, self.options.decoder) as follower:
                frames = follower.scan()

                def follow(shot: Shot) -> None:
                    long.begin_shot(fitted_shot(header, shot))
                    for frame in islice(frames, shot.stop - shot.start):
                        long.add(frame)

                video = process_video(reader, self.options, on_shot=follow)
        long.finish()
        row = video.row(source, label, reader, [shot for _, shots in long.parts for shot in shots])
        return [
            row.model_copy(
                update={
                    "first": first,
                    "shots": shots,
                    "num_frames": shots[-1].stop - first,
                    "total_frames": row.num_frames if len(long.parts) > 1 else None,
                }
            )
            for first, shots in long.parts
        ]


def _unstretched(background: Background, source: Size) -> Background:
    """A background that was stored stretched, in the aspect of its video."""
    size = working_size(source, min(background.image.shape[:2]))
    stretched = fit_background(background, size, "stretch")
    return replace(stretched, image=resize_area(background.image, size))


def build_shards(options: ShardOptions, progress: Progress) -> Outcome:
    """Build a store to train from.

    Args:
        options: inputs, store, and how.
        progress: receives what happens.

    Raises:
        UsageError: inputs that contradict each other, or backgrounds smaller than the store.
        SegmenterError: the segmentation network cannot be used.
        StoreError: a store cannot be read or written, or was begun with other options.
    """
    return build_store(options, *_plan(options, progress), progress)


def forecast_shards(options: ShardOptions, progress: Progress) -> Forecast:
    """What `build_shards` with the same options would take; writes nothing there. See `forecast`."""
    return forecast(options, *_plan(options, progress), progress)


def _plan(options: ShardOptions, progress: Progress) -> tuple[FoundVideos, _BuildVideo, Header]:
    """The videos, the work on each of them, and the header of the store."""
    sources = find_sources(options, progress)
    size = size_of(options, sources)
    backgrounds = options.backgrounds
    store = None if backgrounds is None else _check_backgrounds(open_store(backgrounds), size, options.fit)
    video, video_options = pinned(options)
    stored_options = {
        "holds": "clips",
        **video_options,
        "backgrounds": None if backgrounds is None else verify_store(backgrounds).content_hash,
    }
    header = Header(size, options.fit, options.frames, (), stored_options)
    return sources, _BuildVideo(video, store), header


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
