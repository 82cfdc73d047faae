"""A synthetic world with known answers: actions x scenes x props.

A small sprite moves in one of eight ways over a textured scene; a prop touches it. Only the motion is the class; in
biased splits the scene (wide bias) and, independently, the prop (micro bias) agree with it in 95 videos of 100. Masks
and backgrounds are known exactly, so estimates of them can be scored. A flip of a video or of its time changes its
class.

There are two worlds: in the plain one the prop is a mat under the mover, part of the background; in the micro one it is
larger, and may move with the mover as its shadow or in its hands; see `bgaug.testing.synthetic.drawing`.

Letters: N videos, T frames, S pixels of a side, P = S + 2 margins: the side of the canvas on which a video is drawn
before the camera crops it, 3 colours (RGB). Lengths are for S = 40 and scale with S; positions are (x, y) in pixels of
the frame, with its top left corner at (0, 0), while the camera is at rest.
"""

from bgaug.testing.synthetic.drawing import ACTIONS as ACTIONS
from bgaug.testing.synthetic.drawing import FIRST_PHOTO as FIRST_PHOTO
from bgaug.testing.synthetic.drawing import FIRST_UNSEEN as FIRST_UNSEEN
from bgaug.testing.synthetic.drawing import KINDS as KINDS
from bgaug.testing.synthetic.drawing import NUM_CLASSES as NUM_CLASSES
from bgaug.testing.synthetic.drawing import NUM_PROPS as NUM_PROPS
from bgaug.testing.synthetic.drawing import PHOTOS as PHOTOS
from bgaug.testing.synthetic.drawing import REFERENCE_SIZE as REFERENCE_SIZE
from bgaug.testing.synthetic.splits import SPLITS as SPLITS
from bgaug.testing.synthetic.splits import SyntheticSplit as SyntheticSplit
from bgaug.testing.synthetic.splits import make_split as make_split
from bgaug.testing.synthetic.video import SyntheticVideo as SyntheticVideo
from bgaug.testing.synthetic.video import World as World
from bgaug.testing.synthetic.video import degraded_masks as degraded_masks
from bgaug.testing.synthetic.video import make_video as make_video
