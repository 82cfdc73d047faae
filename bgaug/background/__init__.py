"""The static background of a shot: what the camera sees where nothing moves.

picture     Background: the picture, and what is known of it
median      the exact temporal median
samples     the frames that it is estimated from, kept in one pass
estimate    which method does it
"""

from bgaug.background.estimate import METHODS as METHODS
from bgaug.background.estimate import Method as Method
from bgaug.background.estimate import background_of as background_of
from bgaug.background.estimate import estimate_background as estimate_background
from bgaug.background.median import NUM_SAMPLES as NUM_SAMPLES
from bgaug.background.median import evenly_spaced as evenly_spaced
from bgaug.background.median import median_by_bits as median_by_bits
from bgaug.background.median import temporal_median as temporal_median
from bgaug.background.picture import NOISE_STEP as NOISE_STEP
from bgaug.background.picture import Background as Background
from bgaug.background.picture import fit_background as fit_background
from bgaug.background.picture import quantise_noise as quantise_noise
from bgaug.background.samples import SAMPLE_MEMORY as SAMPLE_MEMORY
from bgaug.background.samples import ShotSampler as ShotSampler
from bgaug.background.samples import ShotSamples as ShotSamples
from bgaug.background.samples import max_channel_difference as max_channel_difference
