"""Features of videos with all that is known of these, and their form in a file.

Letters: N videos, V clips of a video, D features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Embedding:
    """Features of videos, and what is known of these.

    Attributes:
        ids: of the videos, in order.
        features: float32 (N, D), or (N, V, D) by clip.
        starts: int64 (N, V), first frame of each clip.
        labels: int64 (N,), -1 where unknown.
        class_names: what labels mean.
        groups: int64 (N,), -1 where unknown.
        group_names: what groups mean.
        splits: int64 (N,), -1 where unknown.
        split_names: what splits mean.
        failures: videos that could not be used, and why.
        settings: how the features were come by.
    """

    ids: tuple[str, ...]
    features: NDArray[np.float32]
    starts: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    groups: NDArray[np.int64]
    group_names: tuple[str, ...]
    splits: NDArray[np.int64]
    split_names: tuple[str, ...]
    failures: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as arrays without Python objects; settings as JSON, and apart what tells where they come from."""
        told = {
            name: str(self.settings[name]) for name in ("checkpoint_sha256", "bgaug_version") if name in self.settings
        }
        return {
            "ids": _texts(self.ids),
            "features": self.features,
            "starts": self.starts,
            "labels": self.labels,
            "class_names": _texts(self.class_names),
            "groups": self.groups,
            "group_names": _texts(self.group_names),
            "splits": self.splits,
            "split_names": _texts(self.split_names),
            "failed_ids": _texts(list(self.failures)),
            "failed_reasons": _texts(list(self.failures.values())),
            "settings": np.array(json.dumps(self.settings, ensure_ascii=False)),
            **{name: np.array(value) for name, value in told.items()},
        }


def _texts(texts: Sequence[str]) -> NDArray[np.str_]:
    return np.array(list(texts), dtype=np.str_)
