"""`bgaug extract-backgrounds`: the static backgrounds of all shots into a store, in one pass over each video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bgaug.labels import Label
from bgaug.pipelines.build.clips import fitted_shot
from bgaug.pipelines.build.find_videos import FoundVideos, Source, find_videos
from bgaug.pipelines.build.options import BuildOptions, VideoOptions
from bgaug.pipelines.build.plan import native_size
from bgaug.pipelines.build.process_video import process_video, put_shot
from bgaug.pipelines.build.run import Outcome, build_store
from bgaug.pipelines.build.segmenters import pinned
from bgaug.pipelines.build.shard import Put
from bgaug.progress import Progress
from bgaug.sizing import Size
from bgaug.store import Header, VideoPayload, VideoRow
from bgaug.video import open_video


@dataclass(frozen=True)
class ExtractVideo:
    """The work on one video."""

    options: VideoOptions

    def __call__(self, source: Source, label: Label, header: Header, put: Put, parts: int = 1) -> list[VideoRow]:
        """See `EachVideo`."""
        payload = VideoPayload(header)
        with open_video(source.path, self.options.decoder) as reader:
            video = process_video(reader, self.options)
        for pts_seconds in video.pts_seconds:
            payload.add_frame(pts_seconds, None)
        shots = [put_shot(payload, fitted_shot(header, shot), for_builds=True) for shot in video.shots]
        row = video.row(source, label, reader, shots)
        put(payload)
        return [row]


def size_of(options: BuildOptions, sources: Sequence[Source]) -> Size:
    """The size of what is stored; see `native_size` where it is the videos' own."""
    return options.size or native_size(sources, options)


def find_sources(options: BuildOptions, progress: Progress) -> FoundVideos:
    """The videos that the options name."""
    return find_videos(options.inputs, progress, follow_links=options.follow_links)


def extract_backgrounds(options: BuildOptions, progress: Progress) -> Outcome:
    """Extract the backgrounds of all videos into a store.

    Args:
        options: inputs, store, and how.
        progress: receives what happens.

    Raises:
        UsageError: contradictory inputs.
        SegmenterError: the segmentation network cannot be used.
        StoreError: the store cannot be written, or was begun with other options.
        BgaugError: a video cannot be used, and `on_error` is "fail".
    """
    sources = find_sources(options, progress)
    video, stored_options = pinned(options)
    header = Header(size_of(options, sources), options.fit, "none", (), {"holds": "backgrounds", **stored_options})
    return build_store(options, sources, ExtractVideo(video), header, progress)
