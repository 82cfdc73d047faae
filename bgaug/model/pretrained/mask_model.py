"""A video segmentation model that follows objects from boxes and points: SAM 2, SAM 2.1, and the tracker of SAM 3.

The network is that of the library transformers (extra `segment`); its folder holds config.json and safetensors, as
`save_pretrained` writes them. Nothing in the folder is executed: the class of the network is chosen here, pickles are
never read, and the sizes in the configuration are checked against the weights before any memory is allocated. The
library's own processors need torchvision, so images are prepared here, by the values of their configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bgaug.errors import SegmenterError, UsageError
from bgaug.model.pretrained.mask_files import (
    CONFIG,
    Rgb,
    check_config,
    colours_of,
    folder_of,
    plain_config,
    read_json,
    sha256_of,
    weight_files,
)

_INSTALL = 'segmentation models need the library transformers: pip install "bgaug[segment]"'


@dataclass(frozen=True)
class Kind:
    """A kind of network.

    Attributes:
        prefix: beginning of the names of its classes in transformers.
        mean: mean of the colours, where the folder of the model has no configuration of a processor.
        std: their standard deviation, likewise.
        part: key of its configuration, in that of a model with other parts, which are not built; empty for the whole.
    """

    prefix: str
    mean: Rgb
    std: Rgb
    part: str = ""


KINDS: Mapping[str, Kind] = {
    "sam2_video": Kind("Sam2Video", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "sam3_tracker_video": Kind("Sam3TrackerVideo", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "sam3_video": Kind("Sam3TrackerVideo", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), part="tracker_config"),
}
"""By `model_type` of their configuration."""


@dataclass(frozen=True)
class MaskModelInfo:
    """The provenance of masks.

    Attributes:
        name: name of the model on the hub, else that of its folder.
        kind: one of `KINDS`.
        sha256: of its file of weights; for several, of the lines "sha256  name" of all.
    """

    name: str
    kind: str
    sha256: str


class VideoMaskModel:
    """A model that is loaded; see `load_mask_model`, and `bgaug.model.pretrained.tracking` for its use.

    Attributes:
        info: provenance.
        network: a module of transformers, in evaluation mode, float32.
        side: pixels of the square image that it takes.
        device: device of its weights.
    """

    def __init__(self, network: nn.Module, info: MaskModelInfo, mean: Rgb, std: Rgb) -> None:
        self.network = network
        self.info = info
        config: Any = network.config
        self.side = int(config.image_size)
        self.device = next(network.parameters()).device
        self._mean = torch.tensor(mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(3, 1, 1)
        self._session = getattr(_transformers(), f"{KINDS[info.kind].prefix}InferenceSession")
        # The farthest earlier frame that the network looks back at, other than the one with the prompt.
        self.memory_frames = max(int(config.num_maskmem), int(config.max_object_pointers_in_encoder))

    def square(self, frame: Tensor) -> Tensor:
        """A frame, uint8 (H, W, 3), at the network's size: uint8 (3, side, side) on its device."""
        image = frame.to(self.device).permute(2, 0, 1)[None].float()
        if image.shape[2:] != (self.side, self.side):
            image = nn.functional.interpolate(image, (self.side, self.side), mode="bilinear", antialias=True)
        return image[0].round_().clamp_(0, 255).to(torch.uint8)

    def normalised(self, image: Tensor) -> Tensor:
        """An image of `square` as the network takes it: float32 (3, side, side)."""
        return (image.float() / 255 - self._mean) / self._std

    def new_session(self) -> Any:
        """The state of the network for one object: a session of transformers, without frames."""
        return self._session(
            video_height=self.side,
            video_width=self.side,
            inference_device=self.device,
            inference_state_device=self.device,
            video_storage_device=self.device,
            dtype=torch.float32,
        )


def load_mask_model(
    model: str | Path, device: torch.device | str = "cpu", *, local_files_only: bool = False
) -> VideoMaskModel:
    """A segmentation model from a folder, or from the Hugging Face hub.

    Args:
        model: folder that `save_pretrained` wrote; or a name on the hub, such as facebook/sam2.1-hiera-tiny, of which
            only configurations and safetensors are downloaded.
        device: device of the weights.
        local_files_only: use only what was downloaded before.

    Raises:
        UsageError: transformers is not installed.
        SegmenterError: there is no such model, it is of another kind, its weights are damaged or incomplete, or do
            not fit its configuration.
    """
    library = _transformers()
    folder, name = folder_of(model, local_files_only)
    config = read_json(folder / CONFIG, "is missing: expected the folder of a model, as save_pretrained writes it")
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SegmenterError(
            folder / CONFIG, f"declares a model of the type {str(kind)[:50]!r}; this bgaug uses {', '.join(KINDS)}"
        )
    if not hasattr(library, f"{KINDS[kind].prefix}InferenceSession"):
        raise UsageError(f"{_INSTALL}; its version {library.__version__} has no {KINDS[kind].prefix}")
    check_config(folder, config)
    files = weight_files(folder)
    info = MaskModelInfo(name, kind, sha256_of(files))
    built = config.get(KINDS[kind].part) if KINDS[kind].part else config
    if not isinstance(built, dict):
        raise SegmenterError(folder / CONFIG, f"has no {KINDS[kind].part}, which describes what follows objects")
    network = _network(library, KINDS[kind], folder, plain_config(built), sum(f.stat().st_size for f in files))
    mean, std = colours_of(folder, network.config.image_size) or (KINDS[kind].mean, KINDS[kind].std)
    return VideoMaskModel(network.to(device), info, mean, std)


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise UsageError(f"{_INSTALL} ({error})") from error


def _network(library: Any, kind: Kind, folder: Path, config: dict[str, Any], num_bytes: int) -> Any:
    build, described = getattr(library, f"{kind.prefix}Model"), getattr(library, f"{kind.prefix}Config")
    try:
        with _quiet(library):
            made = described.from_dict(config)
            with torch.device("meta"):
                count = sum(weight.numel() for weight in build(made).parameters())
            if count > num_bytes:
                raise SegmenterError(
                    folder, f"declares {count} weights, and its files of weights have only {num_bytes} bytes"
                )
            network, found = build.from_pretrained(
                str(folder),
                config=described.from_dict(config),
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except SegmenterError:
        raise
    except Exception as error:
        # The library raises whatever a part of a wrong configuration or file leads to.
        raise SegmenterError(folder, f"cannot be loaded as {kind.prefix}: {_brief(error)}") from error
    _tie(network, found)
    wrong = [(key.replace("_", " "), sorted(map(str, found[key]))) for key in _REPORTED if found.get(key)]
    if wrong:
        counts = ", ".join(f"{len(names)} {what}" for what, names in wrong)
        raise SegmenterError(folder, f"does not fit its own {CONFIG}: {counts}; the first is {wrong[0][1][0][:100]}")
    if type(network.config.image_size) is not int:
        raise SegmenterError(folder / CONFIG, f"expected a whole number image_size, got {network.config.image_size!r}")
    if not all(bool(torch.isfinite(weight).all()) for weight in network.parameters()):
        raise SegmenterError(folder, "has weights that are not finite")
    return network.eval().requires_grad_(False)


def _tie(network: Any, found: dict[str, Any]) -> None:
    """The prompts have the positions of the image; versions before 5 wrote this weight once, and read it twice."""
    if _TIED in found["missing_keys"]:
        found["missing_keys"] = set(found["missing_keys"]) - {_TIED}
        positions = network.shared_image_embedding.positional_embedding
        network.prompt_encoder.shared_embedding.positional_embedding.data.copy_(positions)


_TIED = "prompt_encoder.shared_embedding.positional_embedding"
_REPORTED = ("missing_keys", "mismatched_keys", "error_msgs")


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Without the library's bars and warnings: what matters in them becomes an error here."""
    logs = library.utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()
