"""Foreground masks, offline, in numpy; the device forms live in `compose`.

difference  what differs from the static background
bits        masks as they are stored
"""

from bgaug.mask.bits import pack_mask as pack_mask
from bgaug.mask.bits import unpack_mask as unpack_mask
from bgaug.mask.difference import FLOOR as FLOOR
from bgaug.mask.difference import difference_mask as difference_mask
from bgaug.mask.difference import foreground_mask as foreground_mask
from bgaug.mask.difference import frame_mask as frame_mask
from bgaug.mask.difference import threshold_map as threshold_map
