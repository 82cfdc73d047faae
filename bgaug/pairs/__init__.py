"""Semi-negative pairs: clips over the static background of another video, composed on the device of the batch.

The terms, as this library uses them:

- **donor**: the video whose static background another clip borrows. Within a batch the donors are a derangement by
  video, ``pi``: no clip borrows from its own video.
- **composite**: ``m * x + (1 - m) * S[pi]``: the moving foreground of a clip (its pixels under the mask ``m``) over the
  background *image* of its donor. It is an image because a donor's moving clip would bring a second moving object.
- **semi-negative**: a composite, seen from its anchor, another view of the same video: same motion, foreign
  background. It is a positive for what moves and a negative for what stands still; hence "semi".
- **policy**: which mask, which donor, and how often: ours and the published alternatives, by name, in `POLICIES`.

Modules:

    policy         every policy as one dataclass; the published ones with their papers and faults
    semi_negative  SemiNegativePairs: from a batch to pairs, and again from their provenance
    masks          soft masks on the device: stored ones grown and feathered, by motion, FAME's, boxes
    donors         derangements, near and far backgrounds, images filled where a person stood
    augmentation   Augmentation: the random changes of a view
    draws          random numbers as a function of (key, stream, index)
    crops          boxes, flips, and frames cut and resized by them
    colours        brightness, contrast, saturation, hue, grey and normalisation as one affine map
    filters        blur and dilation
    taps           banded matrices that compute crops and filters

Letters: B clips, V views, T frames, C channels, H, W pixels of the stored frame, h, w pixels of the crop, S side of a
square crop, K images of a bank (in `donors`) or taps of a filter (in `taps`).

Every random number is a pure function of (key, stream, index): the same batch gives the same views whatever ran before,
on any device, and a clip's views do not depend on its neighbours in the batch. No function waits for the device or
carries a gradient, and all of them pass ``torch.compile(fullgraph=True)``.

Memory traffic is the cost of this work, so every function states how often it passes over which data. On a CPU a pass
handles a few frames at a time, so that the output of one step is still in the cache when the next step reads it; "a
pass" then means one over main memory. Large results are allocated once, because fresh pages cost more than the
arithmetic.

Reference: "Solution of wide and micro background bias in contrastive action representation learning", Engineering
Applications of Artificial Intelligence, 2024, of which only the abstract is public: the dynamic factor of a video is
fused with other static factors, "a random background image where the foreground is more similar than the background".
The formulas here are ours.
"""

from bgaug.pairs.augmentation import KINETICS_MEAN, KINETICS_STD, Augmentation
from bgaug.pairs.colours import HUE_GENERATOR, LUMA, colour_jitter
from bgaug.pairs.crops import centre_crop, crop_boxes, crop_resize, crop_resize_images, crop_resize_masks, flips
from bgaug.pairs.donors import derangement, fill_foreground, permutation, similar_backgrounds
from bgaug.pairs.draws import random_bits, uniform
from bgaug.pairs.filters import dilate, gaussian_blur
from bgaug.pairs.masks import area_weight, box_masks, fame_masks, motion_masks, random_boxes, soften
from bgaug.pairs.policy import POLICIES, Composition
from bgaug.pairs.semi_negative import Pairs, SemiNegativePairs, composite

__all__ = [
    "HUE_GENERATOR",
    "KINETICS_MEAN",
    "KINETICS_STD",
    "LUMA",
    "POLICIES",
    "Augmentation",
    "Composition",
    "Pairs",
    "SemiNegativePairs",
    "area_weight",
    "box_masks",
    "centre_crop",
    "colour_jitter",
    "composite",
    "crop_boxes",
    "crop_resize",
    "crop_resize_images",
    "crop_resize_masks",
    "derangement",
    "dilate",
    "fame_masks",
    "fill_foreground",
    "flips",
    "gaussian_blur",
    "motion_masks",
    "permutation",
    "random_bits",
    "random_boxes",
    "similar_backgrounds",
    "soften",
    "uniform",
]
