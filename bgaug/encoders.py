"""Trained encoders for others: loaded from a run or a file, and written as safetensors under published names.

    from bgaug import load_encoder
    encoder = load_encoder("run")  # or "encoder.safetensors"
    features = encoder(clips)  # float in [0, 1], (B, 3, T, h, w) -> (B, D)

Letters: B clips, T frames, h, w pixels, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bgaug import __version__
from bgaug.backbone import Backbone, build_backbone, load_weights
from bgaug.backbone.convolution import KineticsNormalisation
from bgaug.errors import CheckpointError, UsageError
from bgaug.files import check_replaceable, write_bytes
from bgaug.motion import Codes, MotionAwareDecomposition

SUFFIX = ".safetensors"
MARK = "bgaug_encoder"
FORM = "1"
PUBLISHED: dict[str, float | str] = {"temporal_padding": "zeros", "normalise": True}
"""Options of `build_backbone` that weights published by torchvision need."""


@dataclass(frozen=True)
class EncoderInfo:
    """What an encoder is, and what clips it was trained on. Kept as text in the metadata of a file.

    Attributes:
        backbone: its name for `bgaug.backbone.build_backbone`.
        options: of `build_backbone`.
        size: side of the square crops, pixels.
        num_frames: T.
        stride: distance of the frames.
        normalisation: "none", or "kinetics": what the encoder itself does first. Clips come in [0, 1] either way.
        temporal_padding: "replicate" or "zeros"; "none" where an encoder has no such thing.
        dim: D.
        method: that trained it.
        checkpoint_sha256: of the checkpoint's bytes.
        bgaug_version: that wrote it.
    """

    backbone: str
    options: Mapping[str, float | str]
    size: int
    num_frames: int
    stride: int
    normalisation: str
    temporal_padding: str
    dim: int
    method: str
    checkpoint_sha256: str
    bgaug_version: str = __version__

    def metadata(self) -> dict[str, str]:
        """Everything as text, as safetensors keeps it; mappings as JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        text = {name: json.dumps(dict(v)) if isinstance(v, Mapping) else str(v) for name, v in values.items()}
        return {"format": "pt", MARK: FORM, **text}

    @classmethod
    def parse(cls, metadata: Mapping[str, str]) -> EncoderInfo:
        """The reverse of `metadata`; raises KeyError or ValueError where something is missing or no number."""
        values: dict[str, Any] = {field.name: metadata[field.name] for field in fields(cls)}
        for name in ("size", "num_frames", "stride", "dim"):
            values[name] = int(values[name])
        values["options"] = json.loads(values["options"])
        return cls(**values)


class VideoEncoder(nn.Module):
    """A trained backbone that gives one feature a clip: the mean over cells and time of its last stage.

    Args:
        backbone: the network; its state dict has published names (torchvision's, for r3d18, r2plus1d18 and s3d).
        info: what it is, and what clips it was trained on.
    """

    def __init__(self, backbone: Backbone, info: EncoderInfo) -> None:
        super().__init__()
        self.backbone = backbone
        self.info = info

    def forward(self, clips: Tensor) -> Tensor:
        """Features of clips.

        Args:
            clips: float in [0, 1], (B, 3, T, h, w), RGB, every `info.stride`-th frame. Size and T need not be those of
                training, but features are best where they are near.

        Returns:
            float32 (B, D): what `ContrastiveLearner.features` calls "g".

        Raises:
            ValueError: clips of another type or shape.
        """
        last = list(self.stages(clips).values())[-1]
        return last.mean(dim=2).float().mean(dim=(2, 3))

    def codes(self, clips: Tensor) -> Codes:
        """Global, dynamic and static code of clips, see `bgaug.motion.Codes`; arguments and errors as `forward`.

        "dynamic" is what `bgaug evaluate` takes of a run of the default method. All are by the default decomposition,
        whatever `--set` changed in training, and "static" is of the same last stage, also where training had one of its own.
        """
        decomposition = MotionAwareDecomposition(self.backbone.saliency_stages, reach=self.backbone.temporal_reach)
        codes: Codes = decomposition(self.stages(clips))
        return codes

    def stages(self, clips: Tensor) -> dict[str, Tensor]:
        """Feature maps (B, C, T', H', W') by stage, in order; arguments and errors as `forward`."""
        if not clips.is_floating_point() or clips.ndim != 5 or clips.shape[1] != 3:
            raise ValueError(
                f"clips must be float in [0, 1], (B, 3, T, h, w), got {clips.dtype} {tuple(clips.shape)}; uint8 frames "
                "(B, T, h, w, 3) become such by clips.permute(0, 4, 1, 2, 3).float() / 255"
            )
        stages: dict[str, Tensor] = self.backbone(clips)
        return stages


def load_encoder(path: str | Path, *, best: bool = False, averaged: bool = True) -> VideoEncoder:
    """The encoder of a run or of a file, in evaluation mode, on the CPU.

    Args:
        path: folder of a run, one of its checkpoints, or a .safetensors file that `export_encoder` wrote.
        best: of a run: its best checkpoint instead of the last.
        averaged: of a run that kept a moving average of the encoder: take that.

    Raises:
        CheckpointError: there is nothing to load, or it does not fit this bgaug.
    """
    path = Path(path)
    if path.suffix.lower() == SUFFIX:
        state, info = _read_file(path)
    else:
        state, info = _read_checkpoint(find_checkpoint(path, best=best), averaged)
    try:
        backbone = build_backbone(info.backbone, **info.options)
        load_weights(backbone, state)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit its own description: {error}") from error
    return VideoEncoder(backbone, _described(info, backbone)).eval()


def export_encoder(encoder: VideoEncoder, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write an encoder as safetensors, in one step: weights under the backbone's own names, `EncoderInfo` as metadata.

    Args:
        encoder: what `load_encoder` returned.
        path: the file, named .safetensors.
        overwrite: replace a file that is there.

    Returns:
        Its absolute path.

    Raises:
        UsageError: the file is there, or has another suffix.
        WriteError: the system refuses; the earlier file is as it was.
    """
    from safetensors.torch import save

    path = Path(path).resolve()
    if path.suffix.lower() != SUFFIX:
        raise UsageError(f"{path.name}: weights are written as safetensors; name the file encoder{SUFFIX}")
    check_replaceable(path, overwrite=overwrite)
    weights = {name: value.detach().cpu().contiguous() for name, value in encoder.backbone.state_dict().items()}
    return write_bytes(path, save(weights, metadata=encoder.info.metadata()))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights from a file, on the CPU: from parameter name to tensor. Nothing in the file is executed.

    Args:
        path: .safetensors; or any other suffix: what `torch.save` wrote of a state dict, also under "state_dict".

    Raises:
        UsageError: there is no such file, it cannot be read, or holds something else.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == SUFFIX:
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file of weights") from error
    except Exception as error:
        raise UsageError(f"{path} cannot be read as weights ({type(error).__name__}: {error})") from error
    if isinstance(state, Mapping) and state.get("format") == "bgaug-checkpoint":
        raise UsageError(f"{path} is a checkpoint of a run: take its encoder out with `bgaug export-weights`")
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{path} must hold a state dict, from parameter name to tensor; got {type(state).__name__}")
    return dict(state)


def backbone_options(path: str | Path) -> dict[str, float | str]:
    """Options of `build_backbone` that the weights of a file need: what a file from here says, else `PUBLISHED`.

    Raises:
        UsageError: it is named .safetensors and cannot be read, or its description is not whole.
    """
    path = Path(path)
    metadata = _metadata(path) if path.suffix.lower() == SUFFIX else {}
    if MARK not in metadata:
        return dict(PUBLISHED)
    try:
        return dict(EncoderInfo.parse(metadata).options)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path}: its description is not whole ({error})") from error


def trained_form(config: Mapping[str, Any]) -> dict[str, float | str]:
    """Options of `build_backbone` that a run was trained with, by its configuration."""
    if "backbone_options" in config:
        return dict(config["backbone_options"])
    return dict(PUBLISHED) if config.get("weights") else {}  # runs before 0.8 say no more


def find_checkpoint(run: str | Path, *, best: bool = False) -> Path:
    """The last, or the best, checkpoint of a run's folder; a file is taken as it is.

    Raises:
        CheckpointError: there is none.
    """
    run = Path(run)
    if run.is_file():
        return run
    found = sorted((run / "checkpoints").glob("best.pt" if best else "step-*.pt"))
    if not found:
        what = "best checkpoint; train with --best" if best else "checkpoint; is it a folder that `bgaug train` made?"
        raise CheckpointError(f"{run} holds no {what}" if run.exists() else f"{run}: no such run or file")
    return found[-1]


def file_sha256(path: str | Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_checkpoint(path: Path, averaged: bool) -> tuple[dict[str, Tensor], EncoderInfo]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict) or state.get("format") != "bgaug-checkpoint" or state.get("version") != 1:
        raise CheckpointError(f"{path} is no checkpoint that this bgaug ({__version__}) reads")
    config, average = state["config"], state.get("averaged") if averaged else None
    weights, prefix = (average, "module.backbone.") if average else (state["learner"], "encoder.backbone.")
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    info = EncoderInfo(
        backbone=config["backbone"],
        options=trained_form(config),
        size=config["crop"],
        num_frames=config["num_frames"],
        stride=config["stride"],
        normalisation="none",
        temporal_padding="none",
        dim=0,
        method=config["method"],
        checkpoint_sha256=file_sha256(path),
    )
    return found, info


def _described(info: EncoderInfo, backbone: Backbone) -> EncoderInfo:
    """The same with what the network itself says."""
    normalises = any(isinstance(module, KineticsNormalisation) for module in backbone.modules())
    return replace(
        info,
        normalisation="kinetics" if normalises else "none",
        temporal_padding=getattr(backbone, "temporal_padding", "none"),
        dim=list(backbone.dims.values())[-1],
    )


def _read_file(path: Path) -> tuple[dict[str, Tensor], EncoderInfo]:
    try:
        weights, metadata = read_weights(path), _metadata(path)
    except UsageError as error:
        raise CheckpointError(str(error)) from error
    if MARK not in metadata:
        raise CheckpointError(
            f"{path} does not say what encoder it holds; build_backbone(name) and load_weights(backbone, "
            "read_weights(path)) take weights from elsewhere"
        )
    if metadata[MARK] != FORM:
        raise CheckpointError(f"{path} has form {metadata[MARK]}; this bgaug reads {FORM}: update bgaug")
    try:
        return weights, EncoderInfo.parse(metadata)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: its description is not whole ({error})") from error


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} cannot be read as safetensors ({error})") from error
