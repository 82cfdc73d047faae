"""`bgaug inspect`: what files really hold, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bgaug.pipelines.build.find_videos import Source, find_videos
from bgaug.progress import Progress
from bgaug.shots.cuts import CutFinder
from bgaug.video import DecodedFrame, Probe, probe_video


def probe_videos(
    inputs: Sequence[Path], progress: Progress, *, deep: bool = False, follow_links: bool = False
) -> Iterator[Probe]:
    """Look into every video of folders and files.

    Args:
        inputs: folders, walked recursively, and files.
        progress: receives what happens.
        deep: also decode: real frames, cuts, seeks tried, decord.
        follow_links: also follow links that lead out of the folders.

    Raises:
        UsageError: an input is missing, or nothing is found.
    """
    return probe_sources(find_videos(inputs, progress, follow_links=follow_links), progress, deep=deep)


def probe_sources(sources: Sequence[Source], progress: Progress, *, deep: bool = False) -> Iterator[Probe]:
    """The same for videos that were found; see `probe_videos`."""
    progress.start("videos", len(sources))
    for source in sources:
        yield _probe(source.path, deep)
        progress.advance(1, source.id)


def _probe(path: Path, deep: bool) -> Probe:
    """One file costs itself alone, whatever it breaks."""
    try:
        return probe_with_cuts(path) if deep else probe_video(path)
    except Exception as error:  # noqa: BLE001
        return Probe(path=path, error=f"{type(error).__name__}: {error} [crashed]")


def probe_with_cuts(path: Path) -> Probe:
    """A deep probe, with the cuts among the frames that it decoded."""
    finder = CutFinder()
    cuts: list[int] = []

    def look(frame: DecodedFrame) -> None:
        cut = finder.feed(frame.thumbnail())
        if cut is not None:
            cuts.append(cut)

    found = probe_video(path, deep=True, on_frame=look)
    return found if found.error else replace(found, cuts=(*cuts, *finder.finish()))
