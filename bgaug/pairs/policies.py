"""Composition policies as values; their names are in `bgaug.names.POLICIES`.

Ours: `background` (the default) and its variants `frame`, `clip`, `inpainted`, `bank`, `near`, `far`, which differ only
in the donor; `none` leaves both views plain.

Published, each as a composition of the second view. Their other parts (losses, label mixing, reference networks) are
left out, so that a comparison is about pairs only:

- `fame`, `fame-published`. S. Ding et al., "Motion-aware contrastive video representation learning via
  foreground-background merging", CVPR 2022, arXiv 2109.15130. One mask of half of the image for all frames, over the
  donor's *moving* clip. Faults: the mask covers the whole path of the actor; the donor's actor is visible; the
  published code multiplies a hue in radians by 2 pi once more, which mixes up the colour bins, and draws donors by a
  permutation in which a clip may be its own donor. `fame` fixes the last two, `fame-published` keeps them; colour bins
  and numbers of pixels are those of the published code in both.
- `be`, `be-inter`. J. Wang et al., "Removing the background by adding the background: towards background robust
  self-supervised video representation learning", CVPR 2021, arXiv 2009.05769. One frame of the same clip (or of another
  video) blended into all frames, its share drawn from U(0, 0.3). Fault: the clip's own background stays at 70 % or
  more. Its extra negative (a clip of disturbed motion) is left out, because it is a third encoded view.
- `stillmix`. H. Li et al., "Mitigating and evaluating static bias of action representations in the background and the
  foreground", ICCV 2023, arXiv 2211.12883. Half of every pixel is one frame of another video, on half of the clips. The
  paper picks frames in which a 2-D network recognises the class; here it is any frame of the batch, or an image of a
  bank that you made (``donor="bank"``). Fault: the mixed-in frame shows its own actor.
- `actorcutmix`, `actorcutmix-published`. Y. Zou et al., "Learning representational invariances for data-efficient
  action recognition", 2021, arXiv 2103.16565. The actors' boxes over the other clip, whose own actors are cut out; the
  weight of the pair is 1 - (1 - r)^4 for the boxes' area r. Boxes are the bounding boxes of the stored masks, in place
  of a detector's. Faults: boxes contain some of the source's background; the published code leaves black holes where
  the donor's actors were (`actorcutmix` fills them from the donor's background) and pairs the batch with its reverse,
  in place of which a random permutation is used here: on average one clip per batch is its own donor.
- `mixup`. H. Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, arXiv 1710.09412: two clips blended.
  `cutmix`. S. Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", ICCV
  2019, arXiv 1905.04899: a box of another clip. Both mix labels; a pair has none, so here the clip keeps at least half
  and the pair has full weight. Fault: neither depends on motion.
"""

from __future__ import annotations

from bgaug.pairs.policy import Composition

NONE = Composition(mask="none")
BACKGROUND = Composition()
FRAME = Composition(donor="frame")
CLIP = Composition(donor="clip")
INPAINTED = Composition(donor="inpainted")
BANK = Composition(donor="bank")
NEAR = Composition(donor="near")
FAR = Composition(donor="far")
FAME = Composition(mask="fame", donor="clip")
FAME_PUBLISHED = Composition(mask="fame-published", donor="clip", pairing="permutation")
BE = Composition(mask="blend", donor="own_frame", blend=("uniform", 0.0, 0.3))
BE_INTER = Composition(mask="blend", donor="frame", blend=("uniform", 0.0, 0.3))
STILLMIX = Composition(mask="blend", donor="frame", blend=("beta", 200.0, 200.0), majority=False, probability=0.5)
ACTORCUTMIX = Composition(mask="boxes", donor="scene", weight="area")
ACTORCUTMIX_PUBLISHED = Composition(mask="boxes", donor="scene-published", weight="area", pairing="permutation")
MIXUP = Composition(mask="blend", donor="clip", blend=("beta", 1.0, 1.0))
CUTMIX = Composition(mask="random_box", donor="clip", blend=("beta", 1.0, 1.0))
