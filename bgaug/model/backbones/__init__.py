"""Video encoders by name; each returns the feature maps of its stages, from the first to the last.

contract     the interface of an encoder, checks of encoders that users bring, weights by name
convolution  what the 3-D convolutional encoders share: padding with the end frames, input normalisation
tiny         tiny
residual     r3d18, r2plus1d18, r2plus1d18-14m, slow_r18
s3d          s3d
c3d          c3d
vit          vit
registry     encoders by name, or by "module:function"
"""

from bgaug.model.backbones.c3d import C3D as C3D
from bgaug.model.backbones.contract import STAGES as STAGES
from bgaug.model.backbones.contract import Backbone as Backbone
from bgaug.model.backbones.contract import count_parameters as count_parameters
from bgaug.model.backbones.contract import load_weights as load_weights
from bgaug.model.backbones.registry import build_backbone as build_backbone
from bgaug.model.backbones.residual import ResNet18 as ResNet18
from bgaug.model.backbones.residual import ShallowR2Plus1D as ShallowR2Plus1D
from bgaug.model.backbones.residual import SlowR18 as SlowR18
from bgaug.model.backbones.s3d import S3D as S3D
from bgaug.model.backbones.tiny import Tiny as Tiny
from bgaug.model.backbones.vit import VideoViT as VideoViT
from bgaug.names import BACKBONES as BACKBONES
