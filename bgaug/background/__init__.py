"""The static background of a shot: what the camera sees where nothing moves.

picture     Background: the picture, and what is known of it
samples     the frames that it is estimated from, kept in one pass
methods     the methods by name
median      the exact temporal median
gated       a median in which samples weigh little where they move
lowrank     temporal decomposition into a static and a sparse part
patches     the samples in which least moves near by
plate       the ground predicted under people who never leave
models      OpenCV's models, for comparison
evidence    which of two pictures shows the background, told without knowing it
auto        all of them weighed against each other, region by region
align       where a frame of a moving camera lies in a background
moving      the background of a camera that shakes or pans
"""

from bgaug.background.image import NOISE_STEP as NOISE_STEP
from bgaug.background.image import Background as Background
from bgaug.background.image import Canvas as Canvas
from bgaug.background.image import fit_background as fit_background
from bgaug.background.image import quantise_noise as quantise_noise
from bgaug.background.median import NUM_SAMPLES as NUM_SAMPLES
from bgaug.background.median import evenly_spaced as evenly_spaced
from bgaug.background.median import median_by_bits as median_by_bits
from bgaug.background.median import temporal_median as temporal_median
from bgaug.background.methods import background_of as background_of
from bgaug.background.samples import SAMPLE_MEMORY as SAMPLE_MEMORY
from bgaug.background.samples import ShotSampler as ShotSampler
from bgaug.background.samples import ShotSamples as ShotSamples
from bgaug.background.samples import max_channel_difference as max_channel_difference
