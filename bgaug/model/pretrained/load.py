"""An encoder as a module, loaded from a run or a file and written to a file, and weights from elsewhere.

Letters: B clips, T frames, h, w pixels, D features.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from bgaug.errors import CheckpointError, UsageError
from bgaug.files import check_replaceable, write_bytes
from bgaug.model.backbones import Backbone, build_backbone
from bgaug.model.backbones.contract import check_finite
from bgaug.model.backbones.convolution import KineticsNormalisation
from bgaug.model.checkpoint import load_run
from bgaug.model.decomposition import Codes
from bgaug.model.encoder import codes_of, decomposition_for
from bgaug.model.pretrained.builders import Builder, CodePermission, check_fit, check_options
from bgaug.model.pretrained.description import FORM, MARK, EncoderInfo, check_stages, method_for
from bgaug.model.pretrained.torch_files import read_errors
from bgaug.model.pretrained.weights import STATIC_STAGE, SUFFIX, read_safetensors
from bgaug.names import FEATURES


class VideoEncoder(nn.Module):
    """A trained backbone that returns one feature per clip: the default feature of its method.

    Args:
        backbone: the network; its state dict has published names (torchvision's, for r3d18, r2plus1d18 and s3d).
        info: description of the encoder and of its training clips.
        static_stage: last stage of the static code; None for the backbone's own.

    Attributes:
        feature: feature that a call returns, one of `bgaug.model.decomposition.FEATURES`; by default `info.feature`.
    """

    def __init__(self, backbone: Backbone, info: EncoderInfo, static_stage: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.info = info
        self.feature = info.feature
        self.static_stage = static_stage
        self.decomposition = decomposition_for(backbone, method_for(info.decomposition))

    def forward(self, clips: Tensor, feature: str | None = None) -> Tensor:
        """Features of clips, as `bgaug evaluate` and `bgaug embed` take them of the same run.

        Args:
            clips: float in [0, 1], (B, 3, T, h, w), RGB, every `info.stride`-th frame. Size and T need not be those of
                training, but features are best where they are near.
            feature: one of `bgaug.model.decomposition.FEATURES`; "global" is the mean over cells and time of the last
                stage; by default `self.feature`.

        Returns:
            float32 (B, D), of "dynamic+static" (B, 2D).

        Raises:
            ValueError: clips of another type or shape, too short to read motion from, or no such feature.
        """
        which = feature or self.feature
        if which != "global":
            return self.codes(clips).feature(which)
        last = list(self.stages(clips).values())[-1]
        return last.mean(dim=2).float().mean(dim=(2, 3))

    def codes(self, clips: Tensor) -> Codes:
        """Global, dynamic and static code of clips, as in the training; arguments and errors as `forward`."""
        return codes_of(self.stages(clips), self.decomposition, self.static_stage)

    def stages(self, clips: Tensor) -> dict[str, Tensor]:
        """Feature maps (B, C, T', H', W') by stage, in order; arguments and errors as `forward`."""
        if not clips.is_floating_point() or clips.ndim != 5 or clips.shape[1] != 3:
            raise ValueError(
                f"clips must be float in [0, 1], (B, 3, T, h, w), got {clips.dtype} {tuple(clips.shape)}; uint8 frames "
                "(B, T, h, w, 3) become such by clips.permute(0, 4, 1, 2, 3).float() / 255"
            )
        stages: dict[str, Tensor] = self.backbone(clips)
        return stages


def load_encoder(
    path: str | Path,
    *,
    best: bool = False,
    averaged: bool = True,
    feature: str | None = None,
    backbone: str | Builder | None = None,
    trust: bool = False,
) -> VideoEncoder:
    """The encoder of a run or of a file, in evaluation mode, on the CPU.

    Nothing in the file is executed, and no name in it is imported: an encoder that is not in `bgaug.names.BACKBONES` is
    built only if you give its builder or trust the file.

    Args:
        path: folder of a run, one of its checkpoints, or a .safetensors file that `export_encoder` wrote.
        best: load the best checkpoint of a run instead of the last.
        averaged: use the moving average of the encoder if the run kept one.
        feature: feature that a call returns, one of `bgaug.model.decomposition.FEATURES`; by default that of
            `bgaug evaluate` and `bgaug embed` for the same run.
        backbone: builder in place of the one that the file names: a name, "module:function", or the function.
        trust: import the "module:function" that the file names. Only for your own files.

    Raises:
        CheckpointError: there is nothing to load, it does not fit this bgaug or its own description, or it names an
            encoder of its own.
        UsageError: no such feature, or no such module or function.
    """
    if feature is not None and feature not in FEATURES:
        raise UsageError(f"features are {', '.join(FEATURES)}, got {feature!r}")
    path, permission = Path(path), CodePermission(backbone, trust)
    if path.suffix.lower() == SUFFIX and not path.is_dir():
        encoder = _of_file(path, permission)
    else:
        encoder = _of_run(path, best, averaged, permission)
    encoder.feature = feature or encoder.feature
    return encoder.eval()


def export_encoder(encoder: VideoEncoder, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write an encoder as safetensors, in one step: weights under the backbone's own names, `EncoderInfo` as metadata.

    Names of the weights of a separate last stage for the static code begin with "static_stage.".

    Args:
        encoder: encoder that `load_encoder` returned.
        path: path of the file, named .safetensors.
        overwrite: replace an existing file.

    Returns:
        Its absolute path.

    Raises:
        UsageError: the file exists, or has another suffix.
        WriteError: it cannot be written.
    """
    from safetensors.torch import save

    path = Path(path).resolve()
    if path.suffix.lower() != SUFFIX:
        raise UsageError(f"{path.name}: weights are written as safetensors; name the file encoder{SUFFIX}")
    check_replaceable(path, overwrite=overwrite)
    state = encoder.backbone.state_dict()
    if encoder.static_stage is not None:
        state |= {f"{STATIC_STAGE}{name}": value for name, value in encoder.static_stage.state_dict().items()}
    weights = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    return write_bytes(path, save(weights, metadata=encoder.info.metadata()))


def _of_run(path: Path, best: bool, averaged: bool, permission: CodePermission) -> VideoEncoder:
    run = load_run(path, best=best, averaged=averaged, device="cpu", permission=permission)
    learner, config = run.learner, run.config
    backbone, method = learner.encoder.backbone, learner.method
    info = EncoderInfo(
        backbone=config["backbone"],
        options=config["backbone_options"],
        size=config["crop"],
        num_frames=config["num_frames"],
        stride=config["stride"],
        normalisation="none",
        temporal_padding="none",
        dim=0,
        method=config["method"],
        checkpoint_sha256=run.sha256,
        feature=method.feature,
        decomposition={"stages": method.stages and list(method.stages), "pool": method.pool},
        static_stage=learner.encoder.static_stage is not None,
    )
    return VideoEncoder(backbone, _described(info, backbone), learner.encoder.static_stage)


def _described(info: EncoderInfo, backbone: Backbone) -> EncoderInfo:
    """The description, completed by the attributes of the network."""
    normalises = any(isinstance(module, KineticsNormalisation) for module in backbone.modules())
    return replace(
        info,
        normalisation="kinetics" if normalises else "none",
        temporal_padding=getattr(backbone, "temporal_padding", "none"),
        dim=list(backbone.dims.values())[-1],
    )


def _of_file(path: Path, permission: CodePermission) -> VideoEncoder:
    weights, info = _read_file(path)
    builder = permission.builder_for(info.backbone, path)
    options = check_options(builder, info.options, path)
    info = replace(info, backbone=builder if isinstance(builder, str) else info.backbone)

    def make() -> VideoEncoder:
        backbone = build_backbone(builder, **options)
        check_stages(method_for(info.decomposition), backbone.dims)
        return VideoEncoder(backbone, _described(info, backbone), backbone.last_stage() if info.static_stage else None)

    try:
        named = {
            name if name.startswith(STATIC_STAGE) else f"backbone.{name}": value for name, value in weights.items()
        }
        check_fit(make, named)
        check_finite(named)
        encoder = make()
        encoder.load_state_dict(named)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} does not fit its own description: {str(error)[:300]}") from error
    return encoder


def _read_file(path: Path) -> tuple[dict[str, Tensor], EncoderInfo]:
    with read_errors(path, "weights", CheckpointError, missing="no such run or file"):
        weights, metadata = read_safetensors(path)
    if MARK not in metadata:
        raise CheckpointError(
            f"{path} has no description of its encoder; use build_backbone(name) and load_weights(backbone, "
            "read_weights(path)) for weights from elsewhere"
        )
    if metadata[MARK] != FORM:
        raise CheckpointError(f"{path} has form {metadata[MARK][:50]}; this bgaug reads {FORM}: update bgaug")
    try:
        return weights, EncoderInfo.parse(metadata)
    except ValueError as error:
        raise CheckpointError(f"{path}: its description is invalid ({error})") from error
