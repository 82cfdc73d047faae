"""`bgaug extract-backgrounds`: one pass over each video, the static backgrounds of its shots into a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bgaug.errors import BgaugError, VideoError
from bgaug.labels import Label
from bgaug.pipelines.build.find_videos import FoundVideos, Source, find_videos
from bgaug.pipelines.build.options import BuildOptions, VideoOptions
from bgaug.pipelines.build.plan import native_size
from bgaug.pipelines.build.process_video import Watched, watch
from bgaug.pipelines.build.run import Outcome, Recipe, build_store
from bgaug.pipelines.build.shard import Put
from bgaug.pipelines.build.shot_masks import known_shot, placed_shots
from bgaug.progress import Progress
from bgaug.sizing import Size
from bgaug.store import Header, Shot, VideoPayload, VideoRow, identify
from bgaug.video import VideoInfo, open_video


@dataclass(frozen=True)
class ExtractVideo:
    """The work on one video."""

    options: VideoOptions

    def __call__(self, source: Source, label: Label, header: Header, put: Put, parts: int = 1) -> list[VideoRow]:
        """See `EachVideo`."""
        try:
            payload = VideoPayload(header)
            with open_video(source.path, self.options.decoder) as reader:
                watched = watch(reader, self.options)
            for pts_seconds in watched.pts_seconds:
                payload.add_frame(pts_seconds, None)
            shots = placed_shots(payload, [known_shot(header, shot) for shot in watched.shots])
            row = row_of(source, label, reader.info, shots, watched)
            put(payload)
            return [row]
        except VideoError as error:
            if self.options.on_error == "fail":
                raise ended_run(error) from error
            raise


def ended_run(error: VideoError) -> BgaugError:
    """The error that a bad video ends the run with, where that was asked for."""
    return BgaugError(f"{error}; it ends the run because of --on-error fail")


def row_of(source: Source, label: Label, info: VideoInfo, shots: list[Shot], watched: Watched) -> VideoRow:
    """The row of a video."""
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
        num_frames=len(watched.pts_seconds),
        status="partial" if watched.broken else status,
        shots=shots,
        expected_frames=info.declared_frames if watched.broken else None,
        identity=identify(source.path),
        content="",
    )


def size_of(options: BuildOptions, sources: Sequence[Source]) -> Size:
    """The size of what is stored; see `native_size` where it is the videos' own."""
    return options.size or native_size(sources, timeout_seconds=options.timeout_seconds, in_process=options.in_process)


def find_sources(options: BuildOptions, progress: Progress) -> FoundVideos:
    """The videos that the options name."""
    return find_videos(options.inputs, progress, follow_links=options.follow_links)


def extract_backgrounds(options: BuildOptions, progress: Progress) -> Outcome:
    """Extract the backgrounds of all videos into a store.

    Args:
        options: inputs, store, and how.
        progress: receives what happens.

    Raises:
        UsageError: inputs that contradict each other.
        StoreError: the store cannot be written, or was begun with other options.
        BgaugError: a video cannot be used, and that is to end the run.
    """
    sources = find_sources(options, progress)
    recipe = Recipe(
        each_video=ExtractVideo(options.video),
        size=size_of(options, sources),
        fit=options.fit,
        frames="none",
        options={"holds": "backgrounds", **asdict(options.video)},
    )
    return build_store(options, sources, recipe, progress)
