"""`bgaug inspect`: what files really hold, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bgaug.pipelines.build.find_videos import Source
from bgaug.progress import Progress
from bgaug.shots.boundaries import ShotFinder
from bgaug.shots.gradual import Boundary
from bgaug.video import DecodedFrame, Probe, probe_video


def probe_sources(sources: Sequence[Source], progress: Progress, *, deep: bool = False) -> Iterator[Probe]:
    """Examine videos; `deep` also decodes them, for their real frames, cuts, seeks and decord."""
    progress.start("videos", len(sources))
    for source in sources:
        yield _probe(source.path, deep)
        progress.advance(1, source.id)


def _probe(path: Path, deep: bool) -> Probe:
    """An error in one file, whatever it is, must not stop the others."""
    try:
        return probe_with_cuts(path) if deep else probe_video(path)
    except Exception as error:  # noqa: BLE001
        return Probe(path=path, error=f"{type(error).__name__}: {error} [crashed]")


def probe_with_cuts(path: Path) -> Probe:
    """A deep probe, with the cuts and transitions among the frames that it decoded."""
    finder = ShotFinder()
    boundaries: list[Boundary] = []

    def look(frame: DecodedFrame) -> None:
        boundaries.extend(finder.feed(frame.thumbnail()))

    found = probe_video(path, deep=True, on_frame=look)
    if found.error:
        return found
    boundaries += finder.finish()
    cuts = tuple(each.start for each in boundaries if each.kind == "cut")
    return replace(found, cuts=cuts, transitions=tuple(each for each in boundaries if each.kind != "cut"))
