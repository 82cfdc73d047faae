"""Foreground masks, offline, in numpy; those made on the device live in `bgaug.pairs`.

difference  pixels that differ from the static background
light       changes of the light over the whole image, and shadows
refine      the rim of a mask cut again along edges
bits        masks as they are stored
segmenter   foreground by a segmentation network in a file
external    masks made by people or by other models
motion      masks from motion against the camera, where no background is right
"""

from bgaug.masks.bits import SmallMasks as SmallMasks
from bgaug.masks.bits import pack_mask as pack_mask
from bgaug.masks.bits import unpack_mask as unpack_mask
from bgaug.masks.difference import FLOOR as FLOOR
from bgaug.masks.difference import difference_mask as difference_mask
from bgaug.masks.difference import foreground_mask as foreground_mask
from bgaug.masks.difference import frame_mask as frame_mask
from bgaug.masks.difference import threshold_map as threshold_map
