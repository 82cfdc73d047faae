"""Tiny segmentation models with random weights, made from the library's own configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

_HEADS = {
    "memory_attention_hidden_size": 128,
    "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": 64,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": 128,
    "memory_encoder_output_channels": 64,  # the attention has this number built in
    "mask_downsampler_embed_dim": 128,
    "memory_fuser_embed_dim": 128,
    "memory_fuser_intermediate_dim": 64,
}
_DECODER = {"hidden_size": 128, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}


def transformers() -> Any:
    """The library; without it, the test is skipped with a reason."""
    return pytest.importorskip("transformers", reason='segmentation models need pip install "bgaug[segment]"')


def _sam2() -> Any:
    library = transformers()
    backbone = library.Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        image_size=[64, 64],
        blocks_per_stage=[1, 1, 1, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 4, 4],
        window_positional_embedding_background_size=[4, 4],
        global_attention_blocks=[],
    )
    vision = library.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=128,
    )
    prompts = library.Sam2VideoPromptEncoderConfig(hidden_size=128, image_size=64, patch_size=16, mask_input_channels=8)
    config = library.Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=prompts,
        mask_decoder_config=library.Sam2VideoMaskDecoderConfig(**_DECODER),
        image_size=64,
        **_HEADS,
    )
    return library.Sam2VideoModel(config)


def _sam3() -> Any:
    library = transformers()
    backbone = library.Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        pretrain_image_size=56,
        window_size=2,
        global_attn_indexes=[1],
    )
    vision = library.Sam3VisionConfig(
        backbone_config=backbone, backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]], fpn_hidden_size=128
    )
    prompts = library.Sam3TrackerVideoPromptEncoderConfig(
        hidden_size=128, image_size=56, patch_size=14, mask_input_channels=8
    )
    config = library.Sam3TrackerVideoConfig(
        vision_config=vision,
        prompt_encoder_config=prompts,
        mask_decoder_config=library.Sam3TrackerVideoMaskDecoderConfig(**_DECODER),
        image_size=56,
        **_HEADS,
    )
    return library.Sam3TrackerVideoModel(config)


def has_kind(kind: str) -> bool:
    """Whether this version of the library has a kind of model."""
    return hasattr(transformers(), "Sam2VideoModel" if kind == "sam2_video" else "Sam3TrackerVideoModel")


def write_mask_model(folder: Path, kind: str = "sam2_video", **saved: Any) -> Path:
    """The folder of a tiny model with random weights; `saved` goes to `save_pretrained`."""
    library = transformers()
    library.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = _sam2() if kind == "sam2_video" else _sam3()
    # Fresh weights of 0 hide whether a memory, an object or a position is used.
    for weight in model.parameters():
        if not bool(weight.any()):
            torch.nn.init.normal_(weight, std=0.2)
    torch.nn.init.constant_(model.mask_decoder.pred_obj_score_head.proj_out.bias, 5.0)  # every object is there
    if kind == "sam3_video":
        _save_as_whole(model, folder)
    else:
        model.save_pretrained(folder, **saved)
    return folder


def _save_as_whole(model: Any, folder: Path) -> None:
    """As the published SAM 3 is: one part of a model that also detects objects by text."""
    names = {
        "vision_encoder.backbone.": "detector_model.vision_encoder.backbone.",
        "vision_encoder.neck.": "tracker_neck.",
    }
    weights = {"detector_model.text_projection.weight": torch.ones(3)}
    for name, value in model.state_dict().items():
        begin = next((begin for begin in names if name.startswith(begin)), "")
        renamed = names[begin] + name.removeprefix(begin) if begin else f"tracker_model.{name}"
        weights[renamed] = value.clone().contiguous()
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "sam3_video",
        "tracker_config": model.config.to_dict(),
        "detector_config": {"model_type": "sam3", "text_config": {"vocab_size": 49408}},
    }
    (folder / "config.json").write_text(json.dumps(config))
