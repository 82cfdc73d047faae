"""One conversion of decoded pictures to RGB, that of FFmpeg's own default.

By the matrix and range that the frame names: BT.601 and limited range where it names none, BT.709, BT.2020 and others by
their tags. Ordinary video (8 bits, 4:2:0) has each chroma sample repeated over its two by two pixels; where the depth or
the size asks for a scaler, chroma is repeated along rows and interpolated by a bicubic filter along columns (in odd widths
along both). Transfer curves are left as they are: HDR is not brought to SDR.

Letters: H, W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIRECT = frozenset(["yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p"])


class RgbConverter:
    """Converts frames of PyAV, with one scaler for all that are alike. Not to be shared between threads."""

    def __init__(self) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._scaler = VideoReformatter()
        self._bicubic = Interpolation.BICUBIC

    def __call__(self, frame: Any, height: int, width: int) -> NDArray[np.uint8]:
        """The picture as it is stored, uint8 (H, W, 3), RGB; scaled if it has another size."""
        if _has_siting(frame):
            frame = _without_siting(frame)
        # One thread: its own choice, one a processor, costs twice the time on pictures of this size.
        picture = self._scaler.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=self._bicubic, threads=1
        )
        plane: Any = picture.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        image: NDArray[np.uint8] = rows[:, : width * 3].reshape(height, width, 3)
        return image


def _has_siting(frame: Any) -> bool:
    """Whether the scaler would shift chroma by where the stream says that its samples lie."""
    name = frame.format.name
    return name.startswith("yuv") and (name not in _DIRECT or frame.width % 2 == 1 or frame.height % 2 == 1)


def _without_siting(frame: Any) -> Any:
    """The same picture without a chroma location: newer versions of FFmpeg follow it and older ones do not.

    Without it all versions agree, and files that name one and files that do not are converted alike.
    """
    import av

    bare: Any = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for ours, theirs in zip(bare.planes, frame.planes, strict=True):
        into = np.frombuffer(ours, np.uint8).reshape(-1, ours.line_size)
        source = np.frombuffer(theirs, np.uint8).reshape(-1, theirs.line_size)
        count = min(ours.line_size, theirs.line_size)
        into[:, :count] = source[: len(into), :count]
    bare.colorspace, bare.color_range = frame.colorspace, frame.color_range
    return bare
