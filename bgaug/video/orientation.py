"""How a picture is turned and mirrored for display, from the display matrix that its file carries.

Letters: H, W pixels.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 0.0175  # the tangent of one degree, as in FFmpeg


@dataclass(frozen=True)
class Orientation:
    """What display needs: sides exchanged first (a reflection in the main diagonal), then mirrored.

    Attributes:
        transposed: rows become columns.
        left_right: mirrored left to right.
        top_bottom: mirrored top to bottom.
    """

    transposed: bool = False
    left_right: bool = False
    top_bottom: bool = False

    @property
    def mirrored(self) -> bool:
        """Whether it is more than a turn: mirrored left to right, then turned by `rotation_degrees`."""
        return self.transposed ^ self.left_right ^ self.top_bottom

    @property
    def rotation_degrees(self) -> int:
        """Counter-clockwise turn, after mirroring if `mirrored`: 0, 90, 180 or 270."""
        if self.transposed:
            return 270 if self.left_right else 90
        return 180 if self.top_bottom else 0

    def upright(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A view of the picture, uint8 (H, W, 3), the way it is meant to be seen."""
        if self.transposed:
            image = image.transpose(1, 0, 2)
        return image[:: -1 if self.top_bottom else 1, :: -1 if self.left_right else 1]


AS_STORED = Orientation()


def orientation_of(frame: Any) -> Orientation:
    """Orientation of a decoded frame of PyAV. A matrix that is no quarter turn, mirrored or not, leaves it as stored."""
    from av.sidedata.sidedata import SideDataContainer

    # Not `frame.side_data`: that is kept in the frame and refers back to it, so that frames pile up until they are
    # collected as garbage.
    of: Any = SideDataContainer
    for data in of(frame):
        if data.type.name == "DISPLAYMATRIX":
            return orientation_from(bytes(data))
    return AS_STORED


def orientation_from(matrix: bytes) -> Orientation:
    """Orientation by a display matrix: nine 32-bit numbers of this machine's byte order, as FFmpeg hands them out.

    Its first two rows say where the axes go: x' = a x + c y, y' = b x + d y.
    """
    if len(matrix) < 36:
        return AS_STORED
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if straight and max(abs(b), abs(c)) <= _TOLERANCE * straight:
        return Orientation(False, a < 0, d < 0)
    if crossed and max(abs(a), abs(d)) <= _TOLERANCE * crossed:
        return Orientation(True, c < 0, b < 0)
    return AS_STORED
