"""Clip-consistent geometry and colour, on the device of the clips, with randomness drawn from a key.

    recipe     Augmentation: what may happen to a view
    draws      random numbers as a function of (key, stream, index)
    crops      boxes, flips, and frames cut and resized by them
    colours    brightness, contrast, saturation, hue, grey and normalisation as one affine map
    filters    blur and dilation
    taps       banded matrices, by which crops and filters are computed

Letters: B clips, T frames, C channels, H, W pixels of the stored frame, h, w pixels of the crop, S side of a square crop,
K taps.

Every random number is a pure function of (key, stream, index): the same batch gives the same views whatever ran before,
on any device, and a clip's views do not depend on its neighbours in the batch. Nothing here waits for the device, nothing
carries a gradient, and all of it goes through ``torch.compile(fullgraph=True)``.

Memory is what this work costs, so every function says how often it passes over which data. On a CPU a pass goes by a few
frames at a time, that what one step writes is still in the cache when the next reads it; "a pass" then means one over
main memory, and large results are allocated once, because fresh pages cost more than the arithmetic.
"""

from bgaug.augment.colours import HUE_GENERATOR as HUE_GENERATOR
from bgaug.augment.colours import LUMA as LUMA
from bgaug.augment.colours import colour_jitter as colour_jitter
from bgaug.augment.crops import centre_crop as centre_crop
from bgaug.augment.crops import crop_boxes as crop_boxes
from bgaug.augment.crops import crop_resize as crop_resize
from bgaug.augment.crops import crop_resize_images as crop_resize_images
from bgaug.augment.crops import crop_resize_masks as crop_resize_masks
from bgaug.augment.crops import flips as flips
from bgaug.augment.draws import random_bits as random_bits
from bgaug.augment.draws import uniform as uniform
from bgaug.augment.filters import dilate as dilate
from bgaug.augment.filters import gaussian_blur as gaussian_blur
from bgaug.augment.recipe import KINETICS_MEAN as KINETICS_MEAN
from bgaug.augment.recipe import KINETICS_STD as KINETICS_STD
from bgaug.augment.recipe import Augmentation as Augmentation
