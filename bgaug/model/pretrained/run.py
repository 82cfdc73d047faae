"""A run's checkpoint: found, read without executing anything, and the learner that it describes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bgaug import __version__
from bgaug.errors import CheckpointError
from bgaug.model import ContrastiveLearner
from bgaug.model.backbones import build_backbone
from bgaug.model.backbones.weights import check_finite
from bgaug.model.pretrained.builders import NOTHING_SAID, Word, check_fit, check_options
from bgaug.model.pretrained.description import check_stages, checked_config, trained_form
from bgaug.model.pretrained.torch_files import read_torch_file
from bgaug.untrusted import MalformedFile, open_regular

FORMAT = "bgaug-checkpoint"
VERSION = 1
CHECKPOINTS = "checkpoints"
BEST = "best.pt"


def find_checkpoint(run: str | Path, *, best: bool = False) -> Path:
    """The last, or the best, checkpoint of a run's folder; a file is taken as it is.

    Raises:
        CheckpointError: there is none.
    """
    run = Path(run)
    try:
        if run.is_dir():
            found = sorted((run / CHECKPOINTS).glob(BEST if best else "step-*.pt"))
            if not found:
                what = (
                    "best checkpoint; train with --best"
                    if best
                    else "checkpoint; is it a folder that `bgaug train` made?"
                )
                raise CheckpointError(f"{run} holds no {what}")
            return found[-1]
        open_regular(run).close()
    except FileNotFoundError as error:
        raise CheckpointError(f"{run}: no such run or file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{run} is no run: {getattr(error, 'strerror', None) or error}") from error
    return run


def file_sha256(path: str | Path) -> str:
    """Of a regular file's bytes, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed or imported.

    Returns:
        Its content; "learner" is a state dict, "config" is not checked.

    Raises:
        CheckpointError: it is missing, not whole, or not one of ours.
    """
    try:
        state = read_torch_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error.strerror or error}") from error
    except MalformedFile as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint; is it whole? It {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a bgaug checkpoint")
    if type(state.get("version")) is not int or state["version"] != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {str(state.get('version'))[:50]}; this bgaug ({__version__}) reads {VERSION}: "
            "update bgaug"
        )
    for name in ("learner", "averaged"):
        if name in state and not (_is_state(state[name]) or (name == "averaged" and state[name] is None)):
            raise CheckpointError(f"{path}: {name} must map names to tensors")
    if "learner" not in state:
        raise CheckpointError(f"{path} holds no learner")
    return state


def load_learner(
    run: str | Path, *, best: bool = False, averaged: bool = True, word: Word = NOTHING_SAID
) -> tuple[ContrastiveLearner, dict[str, Any]]:
    """The learner of a run's last checkpoint, in evaluation mode on the CPU, and the run's configuration.

    Args:
        run: folder of the run, or one checkpoint of it.
        best: the best checkpoint instead of the last.
        averaged: take the moving average of the encoder, where the run kept one.
        word: the user's, on who builds an encoder that is none of bgaug's.

    Returns:
        The configuration's "backbone" is what was built: bgaug's, or what the user's word allows.

    Raises:
        CheckpointError: there is none, it does not fit this bgaug or its own configuration, or names an encoder of its own.
    """
    path = find_checkpoint(run, best=best)
    state = load_checkpoint(path)
    config, method = checked_config(state.get("config"), path)
    builder = word.over(config["backbone"], path)
    config["backbone_options"] = check_options(builder, trained_form(config), path)
    config["backbone"] = builder if isinstance(builder, str) else config["backbone"]
    average = state.get("averaged") if averaged else None

    def make() -> ContrastiveLearner:
        trunk = build_backbone(builder, **config["backbone_options"])
        check_stages(method, trunk.dims)
        return ContrastiveLearner(trunk, method)

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
    """Weights by name, all of them and finite.

    Raises:
        ValueError: a number is not finite, or a name or shape does not fit.
        RuntimeError: likewise.
    """
    known = module.state_dict()
    check_finite({name: value for name, value in weights.items() if name in known})
    # The average of an encoder also counts its updates, which is no part of it.
    module.load_state_dict({name: value for name, value in weights.items() if name != "n_averaged"})


def _is_state(state: object) -> bool:
    """Whether it maps names to tensors."""
    return isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
