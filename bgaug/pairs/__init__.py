"""Semi-negative pairs: clips over the static background of another video, composed on the device of the batch.

The terms, as this library uses them:

- **donor**: the video that lends its static background to another clip. Within a batch the donors are a derangement by
  video, ``pi``: no clip borrows from its own video.
- **composite**: ``m * x + (1 - m) * S[pi]``: the moving foreground of a clip (its pixels under the mask ``m``) over the
  background *image* of its donor. It is an image because a donor's moving clip would bring a second moving object.
- **semi-negative**: a composite, seen from its anchor, another view of the same video: same motion, foreign
  background. It is a positive for what moves and a negative for what does not move; hence "semi".
- **policy**: which mask, which donor, and how often, as one value.
- **policies**: ours and the published alternatives, by name in `POLICIES`.

Modules:

    policy         every policy as one dataclass; the published ones with their papers and faults
    semi_negative  SemiNegativePairs: makes pairs from a batch, or the same pairs from their provenance
    masks          soft masks on the device: stored masks grown and feathered, masks by motion, FAME's, boxes
    donors         derangements, near and far backgrounds, images whose foreground is filled
    augmentation   Augmentation: the random changes of a view, and its colours as one affine map
    crops          boxes, flips, and frames cut and resized by them
    filters        banded matrices, blur and dilation
    draws          random numbers as a function of (key, stream, index)

Letters: B clips, V views, T frames, C channels, H, W pixels of the stored frame, h, w pixels of the crop, S side of a
square crop, K images of a bank (in `donors`) or taps of a filter (in `filters`).

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

from bgaug.names import POLICIES as POLICIES
from bgaug.pairs.augmentation import KINETICS_MEAN as KINETICS_MEAN
from bgaug.pairs.augmentation import KINETICS_STD as KINETICS_STD
from bgaug.pairs.augmentation import Augmentation as Augmentation
from bgaug.pairs.augmentation import colour_jitter as colour_jitter
from bgaug.pairs.crops import centre_crop as centre_crop
from bgaug.pairs.crops import crop_boxes as crop_boxes
from bgaug.pairs.crops import crop_resize as crop_resize
from bgaug.pairs.crops import crop_resize_images as crop_resize_images
from bgaug.pairs.crops import crop_resize_masks as crop_resize_masks
from bgaug.pairs.crops import flips as flips
from bgaug.pairs.donors import derangement as derangement
from bgaug.pairs.donors import fill_foreground as fill_foreground
from bgaug.pairs.donors import permutation as permutation
from bgaug.pairs.donors import similar_backgrounds as similar_backgrounds
from bgaug.pairs.draws import random_bits as random_bits
from bgaug.pairs.draws import uniform as uniform
from bgaug.pairs.filters import dilate as dilate
from bgaug.pairs.filters import gaussian_blur as gaussian_blur
from bgaug.pairs.masks import area_weight as area_weight
from bgaug.pairs.masks import box_masks as box_masks
from bgaug.pairs.masks import fame_masks as fame_masks
from bgaug.pairs.masks import motion_masks as motion_masks
from bgaug.pairs.masks import random_boxes as random_boxes
from bgaug.pairs.masks import soften as soften
from bgaug.pairs.policy import Composition as Composition
from bgaug.pairs.semi_negative import Pairs as Pairs
from bgaug.pairs.semi_negative import SemiNegativePairs as SemiNegativePairs
from bgaug.pairs.semi_negative import composite as composite
