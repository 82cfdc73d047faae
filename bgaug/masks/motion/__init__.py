"""Foreground masks from motion against the camera, where no static background is right.

cues        what distinguishes a body from the scene, in two rounds
consensus   agreement of pixels that look alike
classifier  the cues weighed; fitted by `benchmarks/fit_motion.py`
masks       masks of all frames of a shot, window by window
"""

from bgaug.masks.motion.masks import MotionMasks as MotionMasks
from bgaug.masks.motion.masks import PersonNetwork as PersonNetwork
from bgaug.masks.motion.masks import WindowMasks as WindowMasks
from bgaug.masks.motion.masks import motion_masks as motion_masks
