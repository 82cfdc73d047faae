"""Checkpoints of runs: written in one step, the last few and the best kept, and read without executing anything.

`load_run` loads the learner of a run; everything that looks at a trained encoder begins with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bgaug import __version__
from bgaug.errors import CheckpointError
from bgaug.files import open_regular, replacing, writing
from bgaug.model.backbones import build_backbone
from bgaug.model.backbones.contract import check_finite
from bgaug.model.decomposition import OLD_FEATURES
from bgaug.model.learner import ContrastiveLearner
from bgaug.model.method import Method
from bgaug.model.parallel import choose_device
from bgaug.model.pretrained.builders import NO_PERMISSION, CodePermission, check_fit, check_options
from bgaug.model.pretrained.description import check_stages, checked_config, present_fields
from bgaug.model.pretrained.torch_files import read_errors, read_torch_file

FORMAT = "bgaug-checkpoint"
VERSION = 1
CHECKPOINTS = "checkpoints"
_BEST = "best.pt"


@dataclass(frozen=True, eq=False)
class Run:
    """A run that was loaded.

    Attributes:
        path: folder of the run or one checkpoint, as the caller named it.
        folder: folder of the run; results about the run are kept there.
        checkpoint: file that was loaded.
        sha256: hash of the checkpoint's bytes.
        learner: the learner, in evaluation mode, on its device.
        config: configuration of the run; "backbone" is the backbone that was built.
        permission: code that the user allowed to be imported for an encoder that is not one of bgaug's.
    """

    path: Path
    folder: Path
    checkpoint: Path
    sha256: str
    learner: ContrastiveLearner
    config: dict[str, Any]
    permission: CodePermission = NO_PERMISSION

    @property
    def device(self) -> torch.device:
        """Device of the learner."""
        return next(self.learner.parameters()).device


def load_run(
    path: str | Path,
    *,
    best: bool = False,
    averaged: bool = True,
    device: str | torch.device | None = None,
    permission: CodePermission = NO_PERMISSION,
) -> Run:
    """Load the learner of a run from its last or its best checkpoint, or from the checkpoint that is named.

    Args:
        path: folder that `train` made, or one checkpoint of it.
        best: load the best checkpoint instead of the last.
        averaged: use the moving average of the encoder where the run kept one.
        device: device of the learner; CUDA by default where it is available, else the CPU.
        permission: code that may be imported for an encoder that is not one of bgaug's.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, does not fit this bgaug or its own configuration, or
            names an encoder that is not one of bgaug's.
        UsageError: there is no such device.
    """
    path, where = Path(path), choose_device(device)
    checkpoint = find_checkpoint(path, best=best)
    learner, config = _load_learner(checkpoint, averaged, permission)
    inside = checkpoint.parent.name == CHECKPOINTS
    folder = path if path.is_dir() else checkpoint.parent.parent if inside else checkpoint.parent
    return Run(path, folder, checkpoint, _file_sha256(checkpoint), learner.to(where), config, permission)


def _load_learner(path: Path, averaged: bool, permission: CodePermission) -> tuple[ContrastiveLearner, dict[str, Any]]:
    """The learner of a checkpoint, in evaluation mode on the CPU, and the run's configuration."""
    state = load_checkpoint(path)
    config, method = checked_config(state.get("config"), path)
    builder = permission.builder_for(config["backbone"], path)
    config["backbone_options"] = check_options(builder, config.get("backbone_options") or {}, path)
    config["backbone"] = builder if isinstance(builder, str) else config["backbone"]
    average = state.get("averaged") if averaged else None

    def make() -> ContrastiveLearner:
        trunk = build_backbone(builder, **config["backbone_options"])
        check_stages(method, trunk.dims)
        classes = len(config.get("classes") or ()) if method.supervised else None
        return ContrastiveLearner(trunk, method, classes=classes)

    try:
        check_fit(make, state["learner"])
        learner = make()
        _load(learner, state["learner"])
        if average is not None:
            _load(learner.encoder, {name.removeprefix("module."): value for name, value in average.items()})
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} does not fit its own configuration: {str(error)[:300]}") from error
    return learner.eval(), config


def _load(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights by name; raises ValueError or RuntimeError if one is missing, does not fit or is not finite."""
    known = module.state_dict()
    check_finite({name: value for name, value in weights.items() if name in known})
    # The moving average of an encoder also has a counter of its updates.
    module.load_state_dict({name: value for name, value in weights.items() if name != "n_averaged"})


def find_checkpoint(run: str | Path, *, best: bool = False) -> Path:
    """The last, or the best, checkpoint of a run's folder; a file is taken as it is.

    Raises:
        CheckpointError: there is none.
    """
    run = Path(run)
    try:
        if run.is_dir():
            found = sorted((run / CHECKPOINTS).glob(_BEST if best else "step-*.pt"))
            if not found and best:
                raise CheckpointError(f"{run} holds no best checkpoint; train with --best-by")
            if not found:
                raise CheckpointError(f"{run} holds no checkpoint; is it a folder that `bgaug train` made?")
            return found[-1]
        open_regular(run).close()
    except FileNotFoundError as error:
        raise CheckpointError(f"{run}: no such run or file") from error
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        raise CheckpointError(f"{run} is not a run: {getattr(error, 'strerror', None) or error}") from error
    return run


def is_checkpoint(path: str | Path) -> bool:
    """Whether a file is a checkpoint of a run, by its content; False if it cannot be read. Nothing in it is executed.

    Files named .safetensors are not opened.
    """
    if Path(path).suffix.lower() == ".safetensors":
        return False
    try:
        with read_errors(path, "a checkpoint", CheckpointError, missing="no such checkpoint"):
            state = read_torch_file(Path(path))
    except CheckpointError:
        return False
    return isinstance(state, dict) and state.get("format") == FORMAT


def _file_sha256(path: str | Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint; nothing in it is executed or imported.

    "learner" is a state dict; "config" is not checked.

    Raises:
        CheckpointError: the file is missing or damaged, or is not a checkpoint of this version.
    """
    with read_errors(path, "a checkpoint", CheckpointError, missing="no such checkpoint"):
        state = read_torch_file(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a bgaug checkpoint")
    if type(state.get("version")) is not int or state["version"] != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {str(state.get('version'))[:50]}; this bgaug ({__version__}) reads "
            f"{VERSION}: update bgaug"
        )
    if "learner" not in state:
        raise CheckpointError(f"{path} holds no learner")
    for name in ("learner", "averaged"):
        weights = state.get(name)
        if weights is None and name == "averaged":
            continue  # the run keeps no moving average
        if not isinstance(weights, dict) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()
        ):
            raise CheckpointError(f"{path}: {name} must map names to tensors")
        state[name] = {_OLD_CODE.sub(lambda found: OLD_FEATURES[found[0]], key): v for key, v in weights.items()}
    return state


_OLD_CODE = re.compile(r"(?<=heads\.)[gdr](?=\.)|(?<=predictors\.)[gdr](?=\.)|(?<=queue_)[gdr]$")
"""One-letter names of the codes in the weights of files that 0.1.0 wrote."""


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int, best: bool = False) -> Path:
    """Write a checkpoint in one step, then delete old ones.

    Args:
        folder: folder of the run's checkpoints.
        step: step of the training; part of the file's name.
        state: plain values and tensors.
        keep: number of newest checkpoints that stay, at least 1.
        best: also keep it as the best checkpoint, until a better one is written.

    Returns:
        Its absolute path.

    Raises:
        CheckpointError: it cannot be written; earlier checkpoints are unchanged.
    """
    path = folder / f"step-{step:08d}.pt"
    try:
        with replacing(path) as unfinished, open(unfinished, "wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, "step": step, **state}, file)
        if best:
            _keep_as_best(path)
    except (OSError, RuntimeError) as error:  # torch raises its own error for a full disk
        raise CheckpointError(
            f"{path} cannot be written ({_reason(error)}); --resume continues from the checkpoint before"
        ) from error
    with writing(folder):
        for old in sorted(folder.glob("step-*.pt"))[:-keep]:
            old.unlink()
    return path.resolve()


def _keep_as_best(path: Path) -> None:
    """A hard link, so that the best checkpoint stays when old ones are deleted; a copy where links are impossible."""
    with replacing(path.with_name(_BEST)) as unfinished:
        unfinished.unlink()
        try:
            os.link(path, unfinished)
        except OSError:
            shutil.copyfile(path, unfinished)


def _reason(error: Exception) -> str:
    """Message of the operating system, which may be the cause of an error of torch."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    text = str(cause.strerror if isinstance(cause, OSError) else error)
    return text.splitlines()[0].removeprefix("cannot be written: ")


def saved_config(state: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A checkpoint's configuration; raises CheckpointError if it is not made of plain JSON values."""
    config = state.get("config")
    if not isinstance(config, dict) or not _is_json(config):
        raise CheckpointError(f"{path} has no configuration of plain values")
    try:
        # Runs of 0.1.0 have other names of fields; `present_fields` is also applied where a run is loaded.
        found = {name: config[name] for name in ("resolved_method", "change") if isinstance(config.get(name), dict)}
        present = {name: present_fields(values) for name, values in found.items()}
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be resumed: {error}") from error
    if "resolved_method" in present:
        # A field that was added since then has its default.
        present["resolved_method"] = asdict(Method("")) | present["resolved_method"]
    return config | present


def check_resumable(state: Mapping[str, Any], path: Path, optimiser: torch.optim.Optimizer, total_steps: int) -> None:
    """Check that a training can continue from a checkpoint, which is not trusted: types, ranges and shapes.

    Args:
        state: content of the checkpoint.
        path: path of the checkpoint, for messages.
        optimiser: optimiser of the training; the checkpoint must have the same settings.
        total_steps: steps of the whole run.

    Raises:
        CheckpointError: a value is missing, or is not one that this training would have written.
    """
    faults = [
        f"{name} is {_shown(state.get(name))}" for name, is_good in _PARTS.items() if not is_good(state.get(name))
    ]
    if not faults and not 0 <= state["step"] <= total_steps:
        faults = [f"step is {state['step']} of {total_steps}"]
    faults = faults or _optimiser_faults(state["optimiser"], optimiser)
    if faults:
        raise CheckpointError(f"{path} cannot be resumed: {'; '.join(faults[:3])}")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_plain(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(part, (str, int, float, bool, type(None))) for part in value.values()
    )


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_loader(value: Any) -> bool:
    return _are_plain(value) and _is_count(value.get("epoch")) and _is_count(value.get("step"))


def _are_bytes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.ndim == 1


_PARTS: dict[str, Callable[[Any], bool]] = {
    "step": _is_count,
    "recent": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "best": lambda value: value is None or _is_number(value),
    "loader": _is_loader,
    "scaler": lambda value: value is None or _are_plain(value),
    "rng": _are_bytes,
    "cuda_rng": lambda value: value is None or _are_bytes(value),
    "optimiser": lambda value: (
        isinstance(value, dict)
        and isinstance(value.get("state"), dict)
        and isinstance(value.get("param_groups"), list)
        and all(isinstance(group, dict) for group in value["param_groups"])
    ),
}


def _optimiser_faults(saved: Mapping[str, Any], optimiser: torch.optim.Optimizer) -> list[str]:
    """Settings that differ from the optimiser's, and numbers of another shape than their weights."""
    own = optimiser.state_dict()["param_groups"]
    if len(saved["param_groups"]) != len(own):
        return [f"the optimiser has {len(saved['param_groups'])} groups of weights, not {len(own)}"]
    for theirs, ours in zip(saved["param_groups"], own, strict=True):
        for name, value in ours.items():
            if name != "lr" and (type(theirs.get(name)) is not type(value) or theirs[name] != value):
                return [f"the optimiser's {name} is {_shown(theirs.get(name))}, not {_shown(value)}"]
    weights = dict(enumerate(weight for group in optimiser.param_groups for weight in group["params"]))
    for number, parts in saved["state"].items():
        if number not in weights or not isinstance(parts, dict):
            return [f"the optimiser has numbers of a weight {_shown(number)}, which does not exist"]
        for name, value in parts.items():
            shapes = (weights[number].shape, torch.Size())
            if not (value is None or _is_number(value) or (isinstance(value, Tensor) and value.shape in shapes)):
                return [f"the optimiser's {_shown(name)} of the weight {number} is {_shown(value)}"]
    return []


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return repr(value)[:60] if isinstance(value, (str, int, float, type(None))) else type(value).__name__
