"""`bgaug extract-backgrounds`: one pass over each video, its static background into a store."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bgaug.annotations import Label
from bgaug.background import NUM_SAMPLES, SAMPLE_MEMORY, Method, ShotSampler, fit_background
from bgaug.pipelines.each_video import (
    Outcome,
    Recipe,
    Setup,
    Source,
    build_store,
    find_videos,
    native_size,
)
from bgaug.pipelines.progress import Progress
from bgaug.sizing import BACKGROUND_SIZE, Fit, Size
from bgaug.store import Header, Shot, VideoPayload, VideoRow, identify
from bgaug.video import Decoder, VideoInfo, VideoReader, open_video


@dataclass(frozen=True)
class BackgroundOptions:
    """How backgrounds are estimated.

    Attributes:
        method: of `bgaug.background.METHODS`.
        decoder: of `bgaug.video.DECODERS`.
        num_samples: frames that a background is estimated from.
        background_side: longest short side, in pixels, at which it is estimated.
        memory: bytes of samples held by each worker.
    """

    method: Method = "auto"
    decoder: Decoder = "auto"
    num_samples: int = NUM_SAMPLES
    background_side: int = 360
    memory: int = SAMPLE_MEMORY


@dataclass(frozen=True)
class ExtractVideo:
    """The work on one video."""

    options: BackgroundOptions

    def __call__(self, source: Source, label: Label, header: Header) -> tuple[VideoRow, VideoPayload]:
        """See `EachVideo`."""
        payload = VideoPayload(header)
        with open_video(source.path, self.options.decoder) as reader:
            sampler = sample_background(reader, self.options, payload)
            background = fit_background(sampler.background(), header.size, header.fit)
            return row_of(source, label, reader.info, payload, payload.add_background(background)), payload


def make_sampler(info: VideoInfo, options: BackgroundOptions, expected_frames: int | None) -> ShotSampler:
    """A sampler for a video."""
    return ShotSampler(
        (info.height, info.width),
        num_samples=options.num_samples,
        memory=options.memory,
        expected_frames=expected_frames,
        side=options.background_side,
    )


def sample_background(reader: VideoReader, options: BackgroundOptions, payload: VideoPayload) -> ShotSampler:
    """One pass over a video: its samples, and every frame's time into the payload."""
    sampler = make_sampler(reader.info, options, reader.info.declared_frames)
    for frame in reader.scan():
        payload.add_frame(frame.pts_seconds, None)
        if sampler.wants(frame.index):
            sampler.add(frame.index, frame.rgb())
    if sampler.num_held >= min(sampler.num_wanted, sampler.num_frames):
        return sampler
    # The container claimed far more frames than there are, so too few were sampled: once more, without its claim.
    sampler = make_sampler(reader.info, options, None)
    for frame in reader.scan():
        if sampler.wants(frame.index):
            sampler.add(frame.index, frame.rgb())
    return sampler


def row_of(source: Source, label: Label, info: VideoInfo, payload: VideoPayload, background: int) -> VideoRow:
    """The row of a video that is one shot."""
    num_frames = len(payload.pts_seconds)
    return VideoRow(
        id=source.id,
        label=label.name,
        group=label.group,
        split=label.split,
        fps=info.fps,
        height=info.height,
        width=info.width,
        start=0,
        num_frames=num_frames,
        status="ok",
        shots=[Shot(start=0, stop=num_frames, background=background)],
        identity=identify(source.path),
        content="",
    )


def extract_backgrounds(
    setup: Setup,
    progress: Progress,
    *,
    options: BackgroundOptions | None = None,
    size: Size | None = BACKGROUND_SIZE,
    fit: Fit = "stretch",
) -> Outcome:
    """Extract the backgrounds of all videos into a store.

    Args:
        setup: inputs, store, labels, processes.
        progress: receives what happens.
        options: how backgrounds are estimated.
        size: (height, width) at which they are stored; None for the videos' own, if they have but one.
        fit: how other aspects are brought to it.

    Raises:
        UsageError: inputs that contradict each other.
        StoreError: the store cannot be written, or was begun with other options.
    """
    options = options or BackgroundOptions()
    sources = find_videos(setup.inputs)
    recipe = Recipe(
        each_video=ExtractVideo(options),
        size=size or native_size(sources),
        fit=fit,
        frames="none",
        options={"holds": "backgrounds", **asdict(options)},
    )
    return build_store(setup, sources, recipe, progress)
