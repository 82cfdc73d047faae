"""A video that several shards share: built in one go, a shard's worth at a time in memory.

It is read by two readers. One runs ahead to the end of a shot and learns its background; the other follows, and its
frames and masks are what is kept. So of an hour no more is held than one shot's samples and one shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bgaug.pipelines.build.shot_masks import KnownShot, ShotMasker
from bgaug.sizing import fit_frame
from bgaug.store import Header, Shot, VideoPayload
from bgaug.store.format.layout import FRAMES_PER_CHUNK
from bgaug.video import DecodedFrame

_SLACK = 0.25


@dataclass(frozen=True)
class Cutter:
    """Where a video is cut into parts: between shots, where one ends near enough; else within one.

    Attributes:
        expected_frames: of the video, as far as is known.
        parts: how many there may be; the last takes whatever there is more than was expected.
    """

    expected_frames: int
    parts: int

    def cut(self, part: int, begun: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(part, start, stop) of the pieces of the shot that follows, where `part` began at frame `begun`."""
        length = self.expected_frames / self.parts
        while part < self.parts - 1:
            target = length * (part + 1)
            if start > begun and start >= target - _SLACK * length:
                part, begun = part + 1, start
                continue
            if stop <= target + _SLACK * length:
                break
            steps = max(1, round((target - start) / FRAMES_PER_CHUNK))
            middle = start + steps * FRAMES_PER_CHUNK
            if middle >= stop:
                break
            yield part, start, middle
            part, begun, start = part + 1, middle, middle
        yield part, start, stop


@dataclass
class Part:
    """What one shard gets of the video.

    Attributes:
        first: its first frame, counted within the video.
        shots: as the shard's row has them.
    """

    first: int
    payload: VideoPayload
    shots: list[Shot] = field(default_factory=list)


class LongVideo:
    """Cuts a video into parts as its frames come.

    Args:
        header: of the store.
        cutter: where to cut.
        put: called with each part when it is whole.

    Attributes:
        parts: shots and first frame of those that were put, in order.
    """

    def __init__(self, header: Header, cutter: Cutter, put: Callable[[VideoPayload], None]) -> None:
        self.parts: list[tuple[int, list[Shot]]] = []
        self._header = header
        self._cutter = cutter
        self._put = put
        self._part = Part(0, VideoPayload(header))
        self._number = 0
        self._pieces: list[tuple[int, int, int]] = []
        self._known: KnownShot | None = None
        self._masker: ShotMasker | None = None

    def begin_shot(self, known: KnownShot) -> None:
        """The frames that follow are of this shot."""
        self._known = known
        self._masker = ShotMasker(self._header, known)
        pieces = self._cutter.cut(self._number, self._part.first, known.shot.start, known.shot.stop)
        self._pieces = list(pieces)

    def add(self, frame: DecodedFrame) -> None:
        """The next frame of the shot."""
        assert self._masker is not None
        if self._pieces and frame.index == self._pieces[0][1]:
            self._begin_piece(*self._pieces.pop(0))
        payload = self._part.payload
        fitted = fit_frame(frame.rgb(), self._header.size, self._header.fit, frame.display_size)
        payload.add_frame(frame.pts_seconds, fitted)
        payload.add_masks(self._masker.mask(frame.index, fitted, frame.rgb())[None])

    def finish(self) -> None:
        """Put the last part."""
        if self._part.payload.pts_seconds:
            self._put(self._part.payload)
            self.parts.append((self._part.first, self._part.shots))

    def _begin_piece(self, part: int, start: int, stop: int) -> None:
        if part != self._number:
            self.finish()
            self._part, self._number = Part(start, VideoPayload(self._header)), part
        assert self._known is not None
        number = -1
        if self._known.background is not None:
            number = self._part.payload.add_background(self._known.background)
        piece = self._known.shot.model_copy(update={"start": start, "stop": stop, "background": number})
        self._part.shots.append(piece)
