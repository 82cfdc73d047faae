"""Trained encoders: loaded from a run or a file, and written as safetensors under published names.

    from bgaug import load_encoder
    encoder = load_encoder("run")  # or "encoder.safetensors"
    features = encoder(clips)  # float in [0, 1], (B, 3, T, h, w) -> (B, D)

No file that is read here is trusted.

torch_files  files of torch.save, read without executing anything
description  the description of an encoder in a run or a file, checked
builders     which function builds the encoder of a file, and checks of its options
weights      weights from elsewhere; safetensors, whose header is checked first
load         the encoder as a module, loaded from a run or a file, and written to a file
mask_files   the folder of a video segmentation model, checked
mask_model   a video segmentation model of the library transformers
tracking     objects of a shot, followed by it through windows in bounded memory
"""

from bgaug.model.pretrained.builders import NO_PERMISSION as NO_PERMISSION
from bgaug.model.pretrained.builders import CodePermission as CodePermission
from bgaug.model.pretrained.builders import own_clips as own_clips
from bgaug.model.pretrained.description import PUBLISHED as PUBLISHED
from bgaug.model.pretrained.description import EncoderInfo as EncoderInfo
from bgaug.model.pretrained.weights import backbone_options as backbone_options
from bgaug.model.pretrained.weights import own_weights as own_weights
from bgaug.model.pretrained.weights import read_weights as read_weights
