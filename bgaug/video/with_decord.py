"""Sequential reading by decord, with a check of its length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError, VideoDecodeError, VideoError
from bgaug.sizing import Size
from bgaug.video.container import check_all_there, check_regular, message_of, most_frames, open_container
from bgaug.video.frames import DecodedFrame, VideoReader, thumbnail_of
from bgaug.video.timeline import timeline_of
from bgaug.video.with_pyav import PyavReader

# In others (MPEG program streams, transport streams, GIF) it returns wrong frames or a wrong length.
_DECORD_CONTAINERS = frozenset({"mov", "mp4", "matroska", "webm", "avi"})


class DecordReader(VideoReader):
    """A video read by decord, sequentially; its length is checked against the packets of the file."""

    def __init__(self, path: Path) -> None:
        try:
            import decord
        except ImportError as error:
            raise UsageError(
                "decord is not installed (it has wheels only for Linux on x86-64); use --decoder pyav"
            ) from error
        self._decord = decord
        self._path = path
        # The facts come from PyAV; decord does not report rotation, codec or packets that are never shown.
        self.info = PyavReader(path).info
        self._check()

    def _check(self) -> None:
        """Refuse files that decord reads wrongly, or that end its process."""
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
        if claimed > most_frames(size):  # decord allocates memory for all of them, and ends the process
            raise self._mismatch(claimed, most_frames(size))

    def scan(self) -> Iterator[DecodedFrame]:
        """One pass; see `VideoReader.scan`."""
        times = self._times()
        # Decord may take a name for a protocol of FFmpeg or for UTF-8: it gets the number of the opened file instead.
        with open(self._path, "rb") as file:
            yield from self._scan(f"file:/proc/self/fd/{file.fileno()}", times)

    def _scan(self, url: str, times: list[float]) -> Iterator[DecodedFrame]:
        try:
            reader = self._decord.VideoReader(url, ctx=self._decord.cpu(0), num_threads=1)
            length = len(reader)
        except Exception as error:
            raise VideoDecodeError(self._path, "corrupt", f"decord cannot open it: {message_of(error)}") from error
        # If a container declares too many frames, decord appends copies of the last one. In AVI they are recognised by
        # the true length and left out; in other containers the difference may lie at the beginning.
        if length < len(times) or (length > len(times) and self.info.container != "avi"):
            raise self._mismatch(length, len(times))
        last: NDArray[np.uint8] | None = None
        for index in range(length):
            try:
                image = reader.next().asnumpy()
            except Exception as error:
                good = min(index, len(times))
                raise VideoDecodeError(
                    self._path, "corrupt", f"breaks off after {good} good frames: {message_of(error)}", good
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
        """Presentation times of the frames that really exist."""
        if self.info.container == "avi":
            # Packets of AVI may hold two images or none, so only decoding gives their number.
            return [frame.pts_seconds for frame in PyavReader(self._path).scan()]
        return [float(second) for second in timeline_of(self._path).times]

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
