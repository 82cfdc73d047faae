"""Semi-negative pairs: clips over the static background of another video, composed on the device of the batch.

The terms, as this library uses them:

- **donor**: the video whose static background another clip borrows. Within a batch the donors are a derangement by
  video, ``pi``: no clip borrows from its own video.
- **composite**: ``m * x + (1 - m) * S[pi]``: the moving foreground of a clip (its pixels under the mask ``m``) over the
  background *image* of its donor. An image, because a donor's moving clip would bring a second mover along.
- **semi-negative**: a composite, seen from its anchor, another view of the same video: same motion, foreign
  background. It is a positive for what moves and a negative for what stands still; hence "semi".
- **policy**: which mask, which donor, and how often: ours and the published alternatives, by name, in `POLICIES`.

    policy      every policy as one dataclass; the published ones with their papers and faults
    pairs       SemiNegativePairs: from a batch to pairs, and back from their provenance
    masks       soft masks on the device: stored ones grown and feathered, by motion, FAME's, boxes
    donors      derangements, near and far backgrounds, pictures filled where somebody stood

Letters: B clips, V views, T frames, H, W pixels of the stored frame, h, w pixels of the crop, K pictures of a bank.

Reference: "Solution of wide and micro background bias in contrastive action representation learning", Engineering
Applications of Artificial Intelligence, 2024, of which only the abstract is public: the dynamic factor of a video is
fused with other static factors, "a random background image where the foreground is more similar than the background".
The formulas here are ours.
"""

from bgaug.compose.donors import derangement, fill_foreground, permutation, similar_backgrounds
from bgaug.compose.masks import area_weight, box_masks, fame_masks, motion_masks, random_boxes, soften
from bgaug.compose.pairs import Pairs, SemiNegativePairs, composite
from bgaug.compose.policy import POLICIES, Composition

__all__ = [
    "POLICIES",
    "Composition",
    "Pairs",
    "SemiNegativePairs",
    "area_weight",
    "box_masks",
    "composite",
    "derangement",
    "fame_masks",
    "fill_foreground",
    "motion_masks",
    "permutation",
    "random_boxes",
    "similar_backgrounds",
    "soften",
]
