"""Video encoders by name; each returns the feature maps of its stages, from the first to the last.

contract     what the library asks of an encoder, of one's own too
convolution  3-D convolutions that repeat the end frames in time; published input normalisation
tiny         tiny
resnet18     r3d18 and r2plus1d18
vcop         r2plus1d18-14m
s3d          s3d
slow         slow_r18
c3d          c3d
vit          vit
registry     encoders by name, or by "module:function"
weights      weights by name
"""

from bgaug.model.backbones.c3d import C3D as C3D
from bgaug.model.backbones.contract import STAGES as STAGES
from bgaug.model.backbones.contract import Backbone as Backbone
from bgaug.model.backbones.contract import count_parameters as count_parameters
from bgaug.model.backbones.registry import build_backbone as build_backbone
from bgaug.model.backbones.resnet18 import ResNet18 as ResNet18
from bgaug.model.backbones.s3d import S3D as S3D
from bgaug.model.backbones.slow import SlowR18 as SlowR18
from bgaug.model.backbones.tiny import Tiny as Tiny
from bgaug.model.backbones.vcop import ShallowR2Plus1D as ShallowR2Plus1D
from bgaug.model.backbones.vit import VideoViT as VideoViT
from bgaug.model.backbones.weights import load_weights as load_weights
from bgaug.names import BACKBONES as BACKBONES
