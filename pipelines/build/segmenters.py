"""The segmentation network of a build: tried once in a process of its own, then loaded once in each worker."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from bgaug.errors import SegmenterError
from bgaug.masks.segmenter import Segmenter
from bgaug.pipelines.build.options import BuildOptions, VideoOptions
from bgaug.pipelines.build.workers import Begins, Worker, WorkerLost

_FIELDS = ("segmenter", "segmenter_as", "segmenter_digest")


def segmenter_of(options: VideoOptions) -> Segmenter | None:
    """The segmentation network that the options name, loaded once per process; None if they name none.

    Its use is for where motion decides about the masks: moving cameras, and people who never leave. With
    `segmenter_as` "mask" it is also what makes the masks.

    Raises:
        SegmenterError: it cannot be used, or model or settings changed since the build began.
    """
    if options.segmenter is None:
        return None
    path = options.segmenter
    return _loaded(path, options.segmenter_digest, _stamp(path), _stamp(path.with_suffix(".toml")))


def mask_network(options: VideoOptions) -> Segmenter | None:
    """The network that makes the masks of all frames; None if the background makes them."""
    return segmenter_of(options) if options.segmenter_as == "mask" else None


def pinned(options: BuildOptions) -> tuple[VideoOptions, dict[str, Any]]:
    """How videos are processed, with the network that exists now, and the same for the header of a store.

    The network is tried first. Without one, neither the options nor the header differ from those of a bgaug that knows
    no networks.

    Raises:
        SegmenterError: it cannot be read or run.
    """
    video = options.video
    stored = {name: value for name, value in asdict(video).items() if name not in _FIELDS}
    if video.segmenter is None:
        return video, stored
    tried = _Trial(video.segmenter)
    if options.in_process:
        segmenter = tried(lambda place: None)
    else:
        worker = Worker()
        try:
            segmenter = worker.run(tried, lambda place: None, options.timeout_seconds)
        except WorkerLost as lost:
            raise SegmenterError(
                video.segmenter, f"OpenCV cannot run this model: {lost.message}. Check the file; export it again"
            ) from lost
        finally:
            worker.stop()
    stored |= {"segmenter": video.segmenter.name, "segmenter_as": video.segmenter_as, **segmenter}
    return replace(video, segmenter_digest=stored.pop("digest")), stored


@dataclass(frozen=True)
class _Trial:
    """A task that loads a network and runs it once: some damaged models crash OpenCV."""

    path: Path

    def __call__(self, begins: Begins) -> dict[str, Any]:
        begins(0)
        segmenter = Segmenter.load(self.path)
        segmenter.share(np.full((64, 64, 3), 128, np.uint8))
        return {
            "digest": segmenter.digest,
            "segmenter_sha256": segmenter.sha256,
            "segmenter_settings": segmenter.settings.model_dump(mode="json"),
        }

    def without(self, lost: WorkerLost) -> Self:
        raise lost


@lru_cache(maxsize=1)
def _loaded(path: Path, digest: str | None, *stamps: tuple[int, ...]) -> Segmenter:
    """A network; `stamps` tell a file that was written again."""
    segmenter = Segmenter.load(path)
    if digest is not None and segmenter.digest != digest:
        raise SegmenterError(path, "the model or its settings changed during the build: run the same command again")
    return segmenter


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
