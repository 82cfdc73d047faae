"""One pass over a video: decode, find cuts, and estimate the background and grade of each shot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bgaug.background import ShotSampler
from bgaug.errors import VideoDecodeError
from bgaug.labels import Label
from bgaug.pipelines.build.find_videos import Source
from bgaug.pipelines.build.options import VideoOptions
from bgaug.shots.cuts import CutFinder
from bgaug.shots.estimate import Shot, estimate_shot
from bgaug.store import Shot as ShotRow
from bgaug.store import VideoPayload, VideoRow, identify
from bgaug.store.format.canvas import can_be_stored
from bgaug.video import DecodedFrame, VideoReader

_MIN_SHOT_SECONDS, _TOLERANCE_SECONDS = 1.0, 1e-6


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
        for frame, _ in _settled(reader, replace(options, shots=False), video):
            if on_frame is not None:
                on_frame(frame)
        return video
    add = on_shot or video.shots.append
    sampler = _new_sampler(reader, options, 0)
    start = 0
    for frame, is_cut in _settled(reader, options, video):
        if is_cut:
            add(_judge(sampler, start, _seconds(video, start, frame.index, reader), options))
            sampler, start = _new_sampler(reader, options, frame.index), frame.index
        if sampler.wants(frame.index - start):
            sampler.add(frame.index - start, frame.rgb)
        if on_frame is not None:
            on_frame(frame)
    stop = len(video.pts_seconds)
    add(_judge(sampler, start, _seconds(video, start, stop, reader) if start else None, options))
    return video


def put_shot(payload: VideoPayload, shot: Shot, *, for_builds: bool = False) -> ShotRow:
    """The backgrounds of a shot, at the store's size, into the payload; the shot as a row has it.

    Args:
        payload: of the video.
        shot: its frames are counted within the video.
        for_builds: also put what masks are made from, so that later builds need not estimate it again: the canvas of a
            camera that shakes, and small masks.
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
    if for_builds and shot.masks is not None:
        more["masks"] = payload.add_small_masks(shot.masks)
    elif for_builds and shot.camera == "jitter" and shot.canvas is None:
        more["canvas"] = None  # known: no later build needs to look for one
    elif for_builds and shot.canvas is not None and can_be_stored(shot.canvas):
        more["canvas"] = payload.add_canvas(shot.canvas, shot.start)
    return row.model_copy(update=more)


def _new_sampler(reader: VideoReader, options: VideoOptions, start: int) -> ShotSampler:
    return ShotSampler(
        reader.info.display_size,
        num_samples=options.num_samples,
        memory=options.memory,
        side=options.background_side,
        expected_frames=(reader.info.declared_frames or 0) - start,  # of the last shot; only a hint
    )


def _settled(reader: VideoReader, options: VideoOptions, video: ProcessedVideo) -> Iterator[tuple[DecodedFrame, bool]]:
    """Frames, each with whether it begins a new shot; a frame is held back until that is certain."""
    finder = CutFinder()
    held: deque[DecodedFrame] = deque()
    cuts: set[int] = set()
    try:
        for frame in reader.scan():
            video.pts_seconds.append(frame.pts_seconds)
            if not options.shots:
                yield frame, False
                continue
            cut = finder.feed(frame.thumbnail())
            cuts |= {cut} if cut is not None else set()
            held.append(frame)
            while held and held[0].index < finder.num_settled:
                yield held[0], held[0].index in cuts
                held.popleft()
    except VideoDecodeError as error:
        if options.on_error != "salvage" or not video.pts_seconds:
            raise
        video.broken = error
    cuts |= set(finder.finish())
    for frame in held:
        yield frame, frame.index in cuts


def _seconds(video: ProcessedVideo, start: int, stop: int, reader: VideoReader) -> float:
    """How long a shot is shown, by the times of its frames: the frame rate may vary."""
    times = video.pts_seconds
    end = times[stop] if stop < len(times) else times[-1] + 1 / reader.info.fps
    return end - times[start]


def _judge(sampler: ShotSampler, start: int, seconds: float | None, options: VideoOptions) -> Shot:
    """A shot with its background, if it has one; `seconds` is None for the only shot of a video, however short."""
    if seconds is not None and seconds < _MIN_SHOT_SECONDS - _TOLERANCE_SECONDS:
        return Shot(start, start + sampler.num_frames)  # too short to be graded, and to train on
    shot = estimate_shot(sampler.shot(), options.method, look_at_camera=options.shots)
    return replace(shot, start=start, stop=start + sampler.num_frames)
