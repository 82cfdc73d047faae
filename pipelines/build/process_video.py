"""One pass over a video: its frames' times, its shots, and what each shot's background is estimated from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bgaug.background import Background, ShotSampler
from bgaug.background.stabilise import Canvas
from bgaug.errors import VideoDecodeError
from bgaug.pipelines.build.options import VideoOptions
from bgaug.shots.cuts import CutFinder
from bgaug.shots.estimate import estimate_shot
from bgaug.video import DecodedFrame, VideoReader

MIN_SHOT_SECONDS = 1.0
_TOLERANCE_SECONDS = 1e-6


@dataclass
class WatchedShot:
    """A shot, as far as it was seen.

    Attributes:
        start: first frame.
        stop: one past the last.
        camera: verdict, see `bgaug.shots.cuts.Camera`; "unknown" for a shot too short to be judged.
        background: at the working size; None where there is none that stands still.
        canvas: of a camera that shakes, at the working size: what its frames are held against.
        grade: A to F; None for a shot too short to be judged.
        reasons: what lowered it.
    """

    start: int
    stop: int
    camera: str = "unknown"
    background: Background | None = None
    canvas: Canvas | None = None
    grade: str | None = None
    reasons: tuple[str, ...] = ()


@dataclass
class Watched:
    """What a pass saw.

    Attributes:
        pts_seconds: time of every frame.
        shots: in order, together all frames.
        broken: why the video breaks off behind them; None where it does not.
    """

    pts_seconds: list[float] = field(default_factory=list)
    shots: list[WatchedShot] = field(default_factory=list)
    broken: VideoDecodeError | None = None


def watch(
    reader: VideoReader,
    options: VideoOptions,
    on_frame: Callable[[DecodedFrame], None] | None = None,
    *,
    sample: bool = True,
    on_shot: Callable[[WatchedShot], None] | None = None,
) -> Watched:
    """See a video through.

    Args:
        reader: open.
        options: how.
        on_frame: called with every frame, in order, some frames late around cuts.
        sample: False where the shots and their backgrounds are known already; none are returned then.
        on_shot: called with every shot once it has been seen whole; none are kept then.

    Raises:
        VideoDecodeError: the video breaks off, and is not to be salvaged or has no good frame.
    """
    watched = Watched()
    tell = on_shot or watched.shots.append
    sampler = _new_sampler(reader, options, 0)
    start = 0
    for frame, is_cut in _settled(reader, options, watched):
        if is_cut:
            tell(_judge(sampler, start, frame.index, _seconds(watched, start, frame.index, reader), options))
            sampler, start = _new_sampler(reader, options, frame.index), frame.index
        if sample and sampler.wants(frame.index - start):
            sampler.add(frame.index - start, frame.rgb)
        if on_frame is not None:
            on_frame(frame)
    stop = len(watched.pts_seconds)
    if not sample:
        return watched
    tell(_judge(sampler, start, stop, _seconds(watched, start, stop, reader) if start else None, options))
    return watched


def _new_sampler(reader: VideoReader, options: VideoOptions, start: int) -> ShotSampler:
    return ShotSampler(
        reader.info.display_size,
        num_samples=options.num_samples,
        memory=options.memory,
        side=options.background_side,
        expected_frames=(reader.info.declared_frames or 0) - start,  # were it the last shot; a hint, no more
    )


def _settled(reader: VideoReader, options: VideoOptions, watched: Watched) -> Iterator[tuple[DecodedFrame, bool]]:
    """Frames, each with whether a new shot begins with it; held back for as long as that is not sure."""
    finder = CutFinder()
    held: deque[DecodedFrame] = deque()
    cuts: set[int] = set()
    try:
        for frame in reader.scan():
            watched.pts_seconds.append(frame.pts_seconds)
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
        if options.on_error != "salvage" or not watched.pts_seconds:
            raise
        watched.broken = error
    cuts |= set(finder.finish())
    for frame in held:
        yield frame, frame.index in cuts


def _seconds(watched: Watched, start: int, stop: int, reader: VideoReader) -> float:
    """How long a shot is shown, by the times of its frames: rates vary, and a shot has its own."""
    times = watched.pts_seconds
    end = times[stop] if stop < len(times) else times[-1] + 1 / reader.info.fps
    return end - times[start]


def _judge(sampler: ShotSampler, start: int, stop: int, seconds: float | None, options: VideoOptions) -> WatchedShot:
    """A shot with its background, if it has one; `seconds` None for the only shot of a video, however short."""
    shot = WatchedShot(start, stop)
    if seconds is not None and seconds < MIN_SHOT_SECONDS - _TOLERANCE_SECONDS:
        return shot  # too short to tell, and to train on
    found = estimate_shot(sampler.shot(), options.method, look_at_camera=options.shots)
    shot.camera = found.camera
    shot.background, shot.canvas = found.background, found.canvas
    shot.grade, shot.reasons = found.quality.grade, found.quality.reasons
    return shot
