"""Reading by decord: from the first frame to the last, its length checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError, VideoDecodeError, VideoError
from bgaug.sizing import Size
from bgaug.video.container import check_all_there, check_regular, most_frames, open_container, said
from bgaug.video.frames import DecodedFrame, VideoReader, thumbnail_of
from bgaug.video.timeline import timeline_of
from bgaug.video.with_pyav import PyavReader

# Elsewhere (MPEG program streams, transport streams, GIF) its frames or its length were found wrong.
_DECORD_CONTAINERS = frozenset({"mov", "mp4", "matroska", "webm", "avi"})


class DecordReader(VideoReader):
    """A video read by decord, from the first frame to the last, its length checked against the packets of the file."""

    def __init__(self, path: Path) -> None:
        try:
            import decord
        except ImportError as error:
            raise UsageError(
                "decord is not installed (it has wheels for Linux on x86-64 alone); use --decoder pyav"
            ) from error
        self._decord = decord
        self._path = path
        # PyAV says what the file is; decord does not know rotation, codec or which packets are never shown.
        self.info = PyavReader(path).info
        self._check()

    def _check(self) -> None:
        """Refuse what decord is known to read wrongly, or not to survive."""
        if not _DECORD_CONTAINERS & set(self.info.container.split(",")):
            raise VideoError(
                self._path,
                "unsupported_container",
                f"decord returns other frames from {self.info.container}; use --decoder pyav",
            )
        if self.info.mirrored:
            raise VideoError(self._path, "unsupported_container", "decord does not mirror; use --decoder pyav")
        with open_container(self._path) as (_, stream):
            claimed, size = int(stream.frames), check_regular(self._path)
        if claimed > most_frames(size):  # decord asks for memory for all of them, and ends the process
            raise self._mismatch(claimed, most_frames(size))

    def scan(self) -> Iterator[DecodedFrame]:
        """One pass; see `VideoReader.scan`."""
        times = self._times()
        # Decord takes a name for a protocol of FFmpeg or for UTF-8 where it can: it gets the opened file by its number.
        with open(self._path, "rb") as file:
            yield from self._scan(f"file:/proc/self/fd/{file.fileno()}", times)

    def _scan(self, url: str, times: list[float]) -> Iterator[DecodedFrame]:
        try:
            reader = self._decord.VideoReader(url, ctx=self._decord.cpu(0), num_threads=1)
            length = len(reader)
        except Exception as error:
            raise VideoDecodeError(self._path, "corrupt", f"decord cannot open it: {said(error)}") from error
        # Where a container claims too much, decord fills up with copies of the last frame. In AVI those are known by
        # the true length and left out; elsewhere the difference may lie at the beginning.
        if length < len(times) or (length > len(times) and self.info.container != "avi"):
            raise self._mismatch(length, len(times))
        last: NDArray[np.uint8] | None = None
        for index in range(length):
            try:
                image = reader.next().asnumpy()
            except Exception as error:
                good = min(index, len(times))
                raise VideoDecodeError(
                    self._path, "corrupt", f"breaks off after {good} good frames: {said(error)}", good
                ) from error
            if image.shape != (self.info.height, self.info.width, 3):
                raise VideoDecodeError(
                    self._path, "corrupt", f"decord returns a frame of {image.shape = }; use --decoder pyav", index
                )
            if index < len(times):
                yield _DecordFrame(index, times[index], image, self.info.display_size)
                last = image
            elif last is None or not np.array_equal(image, last):
                raise self._mismatch(length, len(times))
        check_all_there(self._path, len(times), self.info.declared_frames)

    def _times(self) -> list[float]:
        """Presentation times of the frames that there really are."""
        if self.info.container == "avi":
            # Packets of AVI may hold two pictures or none: who wants to know their number has to decode them.
            return [frame.pts_seconds for frame in PyavReader(self._path).scan()]
        return [float(second) for second in timeline_of(self._path).seconds()]

    def _mismatch(self, length: int, shown: int) -> VideoDecodeError:
        return VideoDecodeError(
            self._path,
            "length_mismatch",
            f"decord sees {length} frames where at most {shown} are shown; use --decoder pyav",
        )


@dataclass(frozen=True, slots=True)
class _DecordFrame:
    index: int
    pts_seconds: float
    image: NDArray[np.uint8]
    display_size: Size

    def rgb(self) -> NDArray[np.uint8]:
        return self.image

    def thumbnail(self) -> NDArray[np.uint8]:
        return thumbnail_of(self.image)
