"""Foreground masks, offline, in numpy; the device forms live in `compose`.

difference  what differs from the static background
light       the background in the light of a frame
shadow      what is the background made darker
refine      the rim cut along edges
soft        masks with soft rims
bits        masks as they are stored
foreign     masks made elsewhere, by people or by other models
"""

from bgaug.masks.bits import pack_mask as pack_mask
from bgaug.masks.bits import unpack_mask as unpack_mask
from bgaug.masks.difference import FLOOR as FLOOR
from bgaug.masks.difference import difference_mask as difference_mask
from bgaug.masks.difference import foreground_mask as foreground_mask
from bgaug.masks.difference import frame_mask as frame_mask
from bgaug.masks.difference import threshold_map as threshold_map
from bgaug.masks.soft import soft_mask as soft_mask
