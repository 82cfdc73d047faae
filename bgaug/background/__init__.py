"""The static background of a shot: the scene without anything that moves.

image     Background, and for a camera that moves Canvas and BackgroundView
samples   the frames that a background is estimated from, collected in one pass
methods   the estimators by name, the least moving patches, and OpenCV's models
median    the exact temporal median
gated     a median with small weights for samples in motion
lowrank   decomposition into a static and a sparse part
plate     the ground predicted under people who never leave
few       the consensus of a few samples
relit     changes of the light in one place
auto      all of them, compared region by region by evidence
align     places of the frames of a moving camera in a background
moving    the background of a camera that shakes or pans
flow      dense optical flow, and the camera in it
shown     where aligned frames show the background
views     the background of a camera that moves, as single frames see it
"""

from bgaug.background.image import NOISE_STEP as NOISE_STEP
from bgaug.background.image import Background as Background
from bgaug.background.image import BackgroundView as BackgroundView
from bgaug.background.image import Canvas as Canvas
from bgaug.background.image import fit_background as fit_background
from bgaug.background.image import quantise_noise as quantise_noise
from bgaug.background.median import NUM_SAMPLES as NUM_SAMPLES
from bgaug.background.median import evenly_spaced as evenly_spaced
from bgaug.background.median import median_by_bits as median_by_bits
from bgaug.background.methods import background_of as background_of
from bgaug.background.samples import SAMPLE_MEMORY as SAMPLE_MEMORY
from bgaug.background.samples import ShotSampler as ShotSampler
from bgaug.background.samples import ShotSamples as ShotSamples
from bgaug.background.samples import max_channel_difference as max_channel_difference
