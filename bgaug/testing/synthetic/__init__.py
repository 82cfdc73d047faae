"""The world whose answers are known: actions x scenes x props.

A small sprite moves in one of eight ways over a textured scene; a prop touches it. Only the motion is the class; in biased splits the scene (wide bias) and, independently, the prop (micro bias)
agree with it in 95 videos of 100. Masks and backgrounds are known exactly, so everything that estimates them can be
scored here too. Flipping a video or reversing its time changes its class.

There are two worlds: in the plain one the prop is a mat that lies under the mover, part of the background; in the micro
one it is larger, and may move along with the mover as its shadow or in its hands; see `bgaug.testing.synthetic.props`.

Letters: N videos, T frames, S pixels of a side, P = S + 2 margins: the side of the canvas on which a video is drawn
before the camera looks at it, 3 colours (RGB). Lengths are for S = 40 and scale with S; positions are (x, y) in
pixels of the frame, its top left corner at (0, 0), while the camera is at rest.
"""

from bgaug.testing.synthetic.canvas import REFERENCE_SIZE
from bgaug.testing.synthetic.damage import worn_masks
from bgaug.testing.synthetic.movers import ACTIONS, NUM_CLASSES
from bgaug.testing.synthetic.props import KINDS, NUM_PROPS
from bgaug.testing.synthetic.scenes import FIRST_PHOTO, FIRST_UNSEEN, PHOTOS
from bgaug.testing.synthetic.splits import CORRELATION, SPLITS, Split, SyntheticSplit, make_split
from bgaug.testing.synthetic.video import MASK_LEVEL, NOISE, SyntheticVideo, World, make_video

__all__ = [
    "ACTIONS",
    "CORRELATION",
    "FIRST_PHOTO",
    "FIRST_UNSEEN",
    "KINDS",
    "MASK_LEVEL",
    "NOISE",
    "NUM_CLASSES",
    "NUM_PROPS",
    "PHOTOS",
    "REFERENCE_SIZE",
    "SPLITS",
    "Split",
    "SyntheticSplit",
    "SyntheticVideo",
    "World",
    "make_split",
    "make_video",
    "worn_masks",
]
