"""Scenes with walkers whose background, masks and camera are known, with one difficulty per scenario.

    occ20 occ40 occ60   a stream of walkers; where their bodies pass, the ground is covered 20, 40, 60 % of the time
    multi               four walkers on separate ways, to and fro
    noisy               as occ20 with a noise of 8 grey levels instead of 2
    lowc                as occ20, with walkers of nearly the same colours as the ground
    shadow              as occ20, each walker with a soft shadow, which is no foreground
    slow                a smooth box that needs most of the clip to pass its own width
    stop40 stop60       one person walks in, stands for 40 or 60 % of the clip, swaying by less than a pixel, and leaves
    flicker             as occ20, the light flickers by up to 6 %
    jitter1 jitter3     as occ20, the camera trembles by up to 1 or 3 pixels
    pan                 as occ20, the camera pans by 120 pixels
    cut                 as multi, halfway a cut to another scene
    stays               two people who never leave, sway and gesture, on smooth ground with a few lines
    tiny                six distant walkers, together under 1 % of the image; half of them stop for a third of the clip
    lights              as tiny, and in two places the light is dimmed by a third, for a third of the time
    few                 a crowd in six frames, between which all people have gone elsewhere
    rim                 a crowd along the lower rim, of which the image shows the upper halves

Lengths hold for images 240 pixels high and scale with the height, except camera motion and sway.
"""

from bgaug.testing.scenarios.make import LENGTHS as LENGTHS
from bgaug.testing.scenarios.make import PAN as PAN
from bgaug.testing.scenarios.make import SCENARIOS as SCENARIOS
from bgaug.testing.scenarios.make import Scenario as Scenario
from bgaug.testing.scenarios.make import make_scenario as make_scenario
