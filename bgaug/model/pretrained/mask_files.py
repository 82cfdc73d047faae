"""The folder of a segmentation model: its configuration and weights, checked before the network is built.

Pickles are never read. The sizes in the configuration are limited, and keys that name code are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from bgaug.errors import SegmenterError
from bgaug.files import MalformedFile, open_regular, read_regular
from bgaug.model.pretrained.weights import check_safetensors

Rgb = tuple[float, float, float]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LONGEST_JSON = 4 << 20
_LARGEST_NUMBER = 1 << 17  # in a configuration: the words of a vocabulary
_LARGEST_SIDE = 4096  # pixels of the square image
_MOST_LAYERS = 2000  # some 30 times as many as the largest published model has


def folder_of(model: str | Path, local_files_only: bool) -> tuple[Path, str]:
    """Folder of a model on this machine, and the name for its provenance.

    Raises:
        SegmenterError: there is no such folder, and no such model on the hub, or it cannot be downloaded.
    """
    path = Path(model)
    if path.exists():
        if not path.is_dir():
            raise SegmenterError(path, f"is a file; give the folder of the model, with {CONFIG} in it")
        return path, path.resolve().name
    name = str(model)
    if not _HUB_NAME.fullmatch(name):
        raise SegmenterError(name, "no such folder; a model on the hub is named like facebook/sam2.1-hiera-tiny")
    hub = import_module("huggingface_hub")  # a dependency of transformers
    try:
        found = hub.snapshot_download(
            name, allow_patterns=["*.json", "*.safetensors"], local_files_only=local_files_only
        )
    except (OSError, ValueError) as error:  # also the hub's own errors, and those of the connection
        offline = local_files_only or type(error).__name__ in ("LocalEntryNotFoundError", "OfflineModeIsEnabled")
        fix = "it was not downloaded before; without --offline and with a connection to the hub, it is downloaded"
        reason = fix if offline else f"the hub refuses it ({str(error).strip().splitlines()[0][:200]})"
        raise SegmenterError(name, f"no such folder, and no such model from the hub: {reason}") from error
    return Path(found), name


def read_json(path: Path, missing: str) -> dict[str, Any]:
    """A JSON object from a file; `missing` is the message if there is none.

    Raises:
        SegmenterError: it cannot be read, or is no JSON object.
    """
    with _reading(path, missing):
        data = read_regular(path, _LONGEST_JSON)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SegmenterError(path, f"is no JSON ({str(error)[:200]})") from error
    if not isinstance(found, dict):
        raise SegmenterError(path, "is no JSON object")
    return found


@contextmanager
def _reading(path: Path, missing: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise SegmenterError(path, missing) from error
    except OSError as error:
        raise SegmenterError(path, f"cannot be read: {error.strerror or error}") from error
    except MalformedFile as error:
        raise SegmenterError(path, f"{error}; is it whole? Copy or download it again") from error


def weight_files(folder: Path) -> list[Path]:
    """The files of weights, whole by their headers, in order of their names.

    Raises:
        SegmenterError: one is missing or damaged.
    """
    names = [WEIGHTS]
    if not (folder / WEIGHTS).exists() and (folder / INDEX).exists():
        places = read_json(folder / INDEX, "was deleted").get("weight_map")
        names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) and places else [""]
        if not all(re.fullmatch(r"[\w-][\w.-]*\.safetensors", name) for name in names):
            raise SegmenterError(folder / INDEX, "has no map from weights to files of safetensors in its folder")
    for name in names:
        with _reading(folder / name, "is missing: expected the weights of the model as safetensors"):
            check_safetensors(folder / name)
    return [folder / name for name in names]


def sha256_of(files: list[Path]) -> str:
    """See `bgaug.model.pretrained.mask_model.MaskModelInfo`."""
    digests = []
    for path in files:
        with open_regular(path) as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    lines = "".join(f"{digest}  {path.name}\n" for digest, path in zip(digests, files, strict=True))
    return digests[0] if len(files) == 1 else hashlib.sha256(lines.encode()).hexdigest()


def check_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse sizes that no model of these kinds has: building it would take all time or memory."""
    layers = 0
    for key, value in _numbers(config):
        if not abs(value) <= _LARGEST_NUMBER or ("image_size" in key and not 0 < value <= _LARGEST_SIDE):
            raise SegmenterError(folder / CONFIG, f"declares {key} = {value}, which no model of this kind has")
        if "feat_sizes" in key or "feature_sizes" in key:
            if not 0 < value <= _LARGEST_SIDE // 4:
                raise SegmenterError(folder / CONFIG, f"declares {key} = {value}, which no model of this kind has")
        elif re.search("layers|blocks_per|depth|levels|multimask|maskmem", key):
            layers += max(0, int(value))
    if layers > _MOST_LAYERS:
        raise SegmenterError(folder / CONFIG, f"declares {layers} layers, and at most {_MOST_LAYERS} are admitted")


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a document, with the key that it is under."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _numbers(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part, key)


def plain_config(value: Any) -> Any:
    """A configuration without keys that name code, kernels or formats of weights."""
    if isinstance(value, dict):
        named = ("auto_map", "quantization_config", "custom_pipelines", "attn_implementation")
        return {k: plain_config(part) for k, part in value.items() if k not in named and not k.startswith("_")}
    return [plain_config(part) for part in value] if isinstance(value, list) else value


def colours_of(folder: Path, side: int) -> tuple[Rgb, Rgb] | None:
    """Mean and standard deviation of the colours by the processor's configuration; None if the folder has none.

    Raises:
        SegmenterError: they are invalid, or for images of another size than `side`.
    """
    for name in _PROCESSORS:
        if not (folder / name).exists():
            continue
        config = read_json(folder / name, "was deleted")
        config = next((config[key] for key in ("video_processor", "image_processor") if key in config), config)
        if not isinstance(config, dict) or "image_mean" not in config:
            continue
        size = config.get("size")
        if isinstance(size, dict) and {size.get("height"), size.get("width")} not in ({side}, {None}):
            raise SegmenterError(folder / name, f"declares images of {size}, its network takes {side}x{side}")
        if config.get("do_normalize") is False:
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return _rgb(folder / name, config, "image_mean", 0.0), _rgb(folder / name, config, "image_std", 1e-3)
    return None


def _rgb(path: Path, config: Mapping[str, Any], key: str, least: float) -> Rgb:
    values = config.get(key)
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(type(value) in (int, float) and least <= value <= 1 for value in values)
    ):
        raise SegmenterError(path, f"expected {key} of three numbers from {least} to 1, got {str(values)[:100]}")
    red, green, blue = map(float, values)
    return red, green, blue
