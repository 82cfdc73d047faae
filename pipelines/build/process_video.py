"""One pass over a video: decode, find cuts, and estimate the background and grade of each shot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.background import ShotSampler
from bgaug.errors import VideoDecodeError
from bgaug.labels import Label
from bgaug.names import MasksFrom
from bgaug.pipelines.build.find_videos import Source
from bgaug.pipelines.build.options import VideoOptions
from bgaug.pipelines.build.segmenters import segmenter_of
from bgaug.shots.boundaries import REASONS, ShotFinder
from bgaug.shots.by_motion import FlowFrames
from bgaug.shots.estimate import estimate_shot
from bgaug.shots.gradual import Boundary
from bgaug.shots.shot import Shot
from bgaug.store import Shot as ShotRow
from bgaug.store import VideoPayload, VideoRow, identify
from bgaug.store.format.canvas import can_be_stored
from bgaug.video import DecodedFrame, VideoReader, open_video

_MIN_SHOT_SECONDS, _TOLERANCE_SECONDS = 1.0, 1e-6
_FLOW_MEMORY = 32 * 2**20  # bytes of frames for flow: 7 seconds of 16:9, 9 of 4:3; longer shots are read again


@dataclass
class ProcessedVideo:
    """The result of a pass.

    Attributes:
        pts_seconds: time of every frame.
        shots: in order, together all frames.
        broken: why the video breaks off after them; None where it does not.
    """

    pts_seconds: list[float] = field(default_factory=list)
    shots: list[Shot] = field(default_factory=list)
    broken: VideoDecodeError | None = None

    def row(self, source: Source, label: Label, reader: VideoReader, shots: list[ShotRow]) -> VideoRow:
        """The row of the video in a store, with its shots as the store has them."""
        info = reader.info
        status = "ok" if any(shot.background >= 0 for shot in shots) else "no_static_background"
        return VideoRow(
            id=source.id,
            label=label.name,
            group=label.group,
            split=label.split,
            fps=info.fps,
            height=info.display_size[0],
            width=info.display_size[1],
            start=0,
            num_frames=len(self.pts_seconds),
            status="partial" if self.broken else status,
            shots=shots,
            expected_frames=info.declared_frames if self.broken else None,
            identity=identify(source.path),
            content="",
        )


def process_video(
    reader: VideoReader,
    options: VideoOptions,
    on_frame: Callable[[DecodedFrame], None] | None = None,
    *,
    known: Sequence[Shot] | None = None,
    on_shot: Callable[[Shot], None] | None = None,
) -> ProcessedVideo:
    """Decode a video and estimate what its shots need.

    Args:
        reader: open.
        options: how.
        on_frame: called with every frame, in order; around cuts some frames late.
        known: the shots with their backgrounds, where a store has them already: then nothing is estimated.
        on_shot: called with every shot once it is complete; the result then holds no shots.

    Raises:
        VideoDecodeError: the video breaks off, and is not to be salvaged or has no good frame.
    """
    video = ProcessedVideo(shots=list(known or ()))
    if known is not None:
        for frame, _ in _settled(reader, replace(options, shots=False), video, ShotFinder()):
            if on_frame is not None and frame is not None:
                on_frame(frame)
        return video
    finder = ShotFinder()
    shots = _Shots(reader, options, video.pts_seconds, on_shot or video.shots.append)
    for frame, found in _settled(reader, options, video, finder):
        if found is not None:
            shots.end(found)
        if frame is None:
            break
        if finder.fade_from is None or frame.index < finder.fade_from:
            shots.add(frame)
        if on_frame is not None:
            on_frame(frame)
    shots.finish()
    return video


class _Shots:
    """The shot that is going on, and those before it.

    Args:
        reader: open.
        options: how.
        times: of the frames so far, in seconds.
        put: called with every shot, and with the frames of every transition as a shot of their own.
    """

    def __init__(
        self, reader: VideoReader, options: VideoOptions, times: list[float], put: Callable[[Shot], None]
    ) -> None:
        self._reader, self._options, self._times, self._put = reader, options, times, put
        self._begin(0)

    def add(self, frame: DecodedFrame) -> None:
        """The next frame; only those of fades that go on are left out."""
        if self._sampler.wants(frame.index - self._start):
            self._sampler.add(frame.index - self._start, frame.rgb)
        if self._frames is not None and self._frames.wants(frame.index - self._start):
            self._frames.add(frame.rgb())

    def end(self, found: Boundary) -> None:
        """The shot ends, maybe some frames back, and the next one begins."""
        if found.stop > self._start:
            self._sampler.end_at(found.stop - self._start)
            if self._frames is not None:
                self._frames.end_at(found.stop - self._start)
            self._put(self._judged(found.stop, self._seconds(found.stop)))
        if found.start > found.stop:
            self._put(Shot(found.stop, found.start, reasons=(REASONS[found.kind],)))
        self._begin(found.start)

    def finish(self) -> None:
        """The video has ended."""
        stop = len(self._times)
        if stop > self._start or not stop:
            self._put(self._judged(stop, self._seconds(stop) if self._start else None))

    def _begin(self, start: int) -> None:
        self._start = start
        self._sampler = ShotSampler(
            self._reader.info.display_size,
            num_samples=self._options.num_samples,
            memory=self._options.memory,
            side=self._options.background_side,
            expected_frames=(self._reader.info.declared_frames or 0) - start,  # of the last shot; only a hint
        )

        self._frames = self._flow_frames(start)

    def _flow_frames(self, start: int) -> FlowFrames | None:
        """For the frames between which flow may be measured; None where no mask comes from motion."""
        reader, options = self._reader, self._options
        if options.method != "auto" or not options.shots:
            return None
        memory = min(options.memory, _FLOW_MEMORY)
        frames = FlowFrames(reader.info.display_size, reader.info.fps, memory=memory)

        def read_again() -> Iterator[NDArray[np.uint8]]:
            with open_video(reader.info.path, options.decoder) as again:
                for frame in islice(again.scan(), start, start + frames.num_frames, frames.stride):
                    yield frame.rgb()

        frames.read_again = read_again
        return frames

    def _seconds(self, stop: int) -> float:
        """How long the shot is shown, by the times of its frames: the frame rate may vary."""
        times = self._times
        end = times[stop] if stop < len(times) else times[-1] + 1 / self._reader.info.fps
        return end - times[self._start]

    def _judged(self, stop: int, seconds: float | None) -> Shot:
        """The shot with its background, if it has one; `seconds` is None for the only one, however short."""
        if seconds is not None and seconds < _MIN_SHOT_SECONDS - _TOLERANCE_SECONDS:
            return Shot(self._start, stop)  # too short to be graded, and to train on
        network = None if self._frames is None else segmenter_of(self._options)
        samples, options = self._sampler.shot(), self._options
        shot = estimate_shot(
            samples, options.method, look_at_camera=options.shots, frames=self._frames, network=network
        )
        return replace(shot, start=self._start, stop=stop)


def put_shot(
    payload: VideoPayload, shot: Shot, *, for_builds: bool = False, masks_from: MasksFrom | None = None
) -> ShotRow:
    """The backgrounds of a shot, at the store's size, into the payload; the shot as a row has it.

    Args:
        payload: of the video.
        shot: its frames are counted within the video.
        for_builds: also put what masks are made from, so that later builds need not estimate it again: the canvas of a
            camera that shakes, and small masks.
        masks_from: where its masks come from; None for what the row implies.
    """
    backgrounds = [view.background for view in shot.views] if shot.background is None else [shot.background]
    numbers = [payload.add_background(background) for background in backgrounds]
    row = ShotRow(
        start=shot.start,
        stop=shot.stop,
        background=numbers[0] if numbers else -1,
        camera=shot.camera,
        grade=shot.grade,
        reasons=list(shot.reasons),
    )
    more: dict[str, Any] = {}
    if shot.background is None and shot.views:
        more["background_frames"] = [shot.start + view.frame for view in shot.views]
    if shot.background is not None and not shot.background.shadows:
        more["shadows"] = False
    if for_builds and shot.masks is not None:
        more["masks"] = payload.add_small_masks(shot.masks)
    elif for_builds and shot.camera == "jitter" and shot.canvas is None:
        more["canvas"] = None  # known: no later build needs to look for one
    elif for_builds and shot.canvas is not None and can_be_stored(shot.canvas):
        more["canvas"] = payload.add_canvas(shot.canvas, shot.start)
    row = row.model_copy(update=more)
    return row if masks_from in (None, row.own_masks_from) else row.model_copy(update={"masks_from": masks_from})


def _settled(
    reader: VideoReader, options: VideoOptions, video: ProcessedVideo, finder: ShotFinder
) -> Iterator[tuple[DecodedFrame | None, Boundary | None]]:
    """Frames, each with the boundary that ends before it; a frame is held back until that is certain.

    If the video ends with a transition, its boundary comes last, without a frame.
    """
    held: deque[DecodedFrame] = deque()
    found: deque[Boundary] = deque()

    def released(stop: int) -> Iterator[tuple[DecodedFrame | None, Boundary | None]]:
        while held and held[0].index < stop:
            begins = bool(found) and found[0].start == held[0].index
            yield held[0], found.popleft() if begins else None
            held.popleft()

    try:
        for frame in reader.scan():
            video.pts_seconds.append(frame.pts_seconds)
            if not options.shots:
                yield frame, None
                continue
            found += finder.feed(frame.thumbnail())
            held.append(frame)
            yield from released(finder.num_settled)
    except VideoDecodeError as error:
        if options.on_error != "salvage" or not video.pts_seconds:
            raise
        video.broken = error
    found += finder.finish()
    yield from released(len(video.pts_seconds))
    if found:
        yield None, found[0]
