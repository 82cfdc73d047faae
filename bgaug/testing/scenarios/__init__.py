"""Scenes with walkers whose background, masks and camera are known: one difficulty a scenario.

    occ20 occ40 occ60   a stream of walkers; where their bodies pass, the ground is covered 20, 40, 60 % of the time
    multi               four walkers on ways of their own, to and fro
    noisy               as occ20 under a noise of 8 grey levels instead of 2
    lowc                as occ20, the walkers hardly unlike the ground
    shadow              as occ20, each walker with a soft shadow, which is no foreground
    slow                a smooth box that needs most of the clip to pass its own width
    stop40 stop60       one walks in, stands for 40 or 60 % of the clip, swaying by less than a pixel, and leaves
    flicker             as occ20, the light flickers by up to 6 %
    jitter1 jitter3     as occ20, the camera trembles by up to 1 or 3 pixels
    pan                 as occ20, the camera pans by 120 pixels
    cut                 as multi, halfway a cut to another scene
    stays               two people who never leave, sway and gesture, on smooth ground with a few lines

Lengths are for pictures 240 high and scale with the height; moves of the camera and the sway of who stops do not.

The rooms: make puts one together, scenes are where it plays, walkers are who walks there.
"""

from bgaug.testing.scenarios.make import PAN as PAN
from bgaug.testing.scenarios.make import SCENARIOS as SCENARIOS
from bgaug.testing.scenarios.make import Scenario as Scenario
from bgaug.testing.scenarios.make import make_scenario as make_scenario
