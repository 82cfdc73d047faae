"""Foreground masks made by people or by segmentation models: matched with videos, read frame by frame.

Four formats, recognised by their files; NAME is a video's id, with or without its suffix:

    NAME/000012.png         an image per frame: 1, 8 or 16 bit, grey, palette or colour. The last run of digits in the
                            name is the number of the frame
    NAME.npz, NAME.npy      bool or integers (T, H, W) under `masks`, or as the only array; or bits of `pack_mask`,
                            uint8 (T, P) under `packed`, with [H, W] under `size`
    NAME.json               a list with an entry per frame: null, a run-length object, or a list of them
    ANY.json                one file for many videos, in the layout of COCO or YouTube-VIS

Run lengths are COCO's: {"size": [H, W], "counts": [...]} with columns in order and zeros first, counts as numbers or as
COCO's string. Several objects of a frame are united, whatever their category. Polygons are refused.

A frame with an entry that lists no object has an empty mask; a frame without an entry has none.

`prompts` makes boxes and points for segmentation models from the masks of a clip.

Letters: T frames, H, W pixels, P packed bytes of one mask.
"""

from bgaug.masks.external.find import find_masks as find_masks
from bgaug.masks.external.pixels import VALUES as VALUES
from bgaug.masks.external.pixels import ExternalMasks as ExternalMasks
from bgaug.masks.external.run_lengths import decode_run_lengths as decode_run_lengths
