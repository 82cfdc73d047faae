"""Foreground masks made elsewhere, by people or by segmentation models: found for videos, read frame by frame.

Four forms, told apart by what is there; NAME is a video's id, with or without its suffix:

    NAME/000012.png         a picture a frame: 1, 8 or 16 bit, grey, palette or colour. The last run of digits in the
                            name is the frame's number
    NAME.npz, NAME.npy      bool or integers (T, H, W) under `masks`, or as the only array; or bits as `pack_mask` writes
                            them, uint8 (T, P) under `packed`, with [H, W] under `size`
    NAME.json               a list with an entry a frame: null, a run-length object, or a list of them
    ANY.json                one file for many videos, as COCO or YouTube-VIS have it

Run lengths are COCO's: {"size": [H, W], "counts": [...]} with columns in order and zeros first, counts as numbers or as
COCO's string. Several objects of a frame are united, whatever their category. Polygons are refused.

A frame of which a file says that nobody is there has an empty mask; a frame of which it says nothing has none.

Letters: T frames, H, W pixels, P packed bytes of one mask.
"""

from bgaug.masks.external.find import FoundMasks, find_masks
from bgaug.masks.external.pixels import VALUES, ExternalMasks
from bgaug.masks.external.run_lengths import decode_run_lengths

__all__ = ["VALUES", "ExternalMasks", "FoundMasks", "decode_run_lengths", "find_masks"]
