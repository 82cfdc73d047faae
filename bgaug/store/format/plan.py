"""The plan of a store: which video goes into which shard.

It depends only on the videos and the options, not on the number of processes: any number of them, at any time, build
the same store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from bgaug.errors import StoreDamageError, StoreFormatError
from bgaug.store.format.documents import MAX_LIST_BYTES, PlanDocument, brief, check_value, parse_json
from bgaug.store.format.inside import read_inside
from bgaug.store.format.layout import PLAN, canonical_json

_MAX_SHARD_BYTES = 128 * 2**20
_LONG_SHARD_BYTES = 96 * 2**20
_MAX_SHARD_VIDEOS = 64
_FEW_VIDEOS = 512
_SHARDS_FOR_FEW = 16


@dataclass(frozen=True, slots=True)
class PlannedVideo:
    """A video in the plan."""

    id: str  # id in the store
    bytes: int  # size of the file
    estimate: int  # expected bytes in all shards of the video
    part: int = 0  # which of its shards this is, from 0
    parts: int = 1  # number of shards of the video; a video in several shards shares none


@dataclass(frozen=True)
class Plan:
    """The videos of each shard, in order of id."""

    shards: tuple[tuple[PlannedVideo, ...], ...]

    @property
    def num_videos(self) -> int:
        """Number of videos."""
        return sum(video.part == 0 for shard in self.shards for video in shard)

    @property
    def estimate(self) -> int:
        """Expected bytes of the store."""
        return sum(video.estimate for shard in self.shards for video in shard if video.part == 0)

    def to_bytes(self) -> bytes:
        """Content of plan.json: id, bytes and estimate of each video, and part and parts if it is in several shards."""
        return canonical_json(
            [[list(astuple(video))[: 3 if video.parts == 1 else 5] for video in shard] for shard in self.shards]
        )

    def summary(self) -> dict[str, object]:
        """The plan in the header."""
        return {
            "videos": self.num_videos,
            "shards": len(self.shards),
            "sha256": hashlib.sha256(self.to_bytes()).hexdigest(),
        }


def plan_shards(videos: Sequence[PlannedVideo]) -> Plan:
    """Distribute the videos, sorted by id, over shards.

    A shard gets at most 128 MiB by the estimates and at most 64 videos. Below 512 videos a shard gets at most a
    sixteenth of them, so that small sets are also built in parallel and resumed in small steps. A longer video gets
    shards of its own of about 96 MiB each, which leaves room to end them between shots.
    """
    ordered = sorted(videos, key=lambda video: video.id)
    limit = _MAX_SHARD_VIDEOS if len(ordered) >= _FEW_VIDEOS else max(1, -(-len(ordered) // _SHARDS_FOR_FEW))
    shards: list[list[PlannedVideo]] = []
    filled = 0
    for video in ordered:
        if video.estimate > _MAX_SHARD_BYTES:
            parts = -(-video.estimate // _LONG_SHARD_BYTES)
            shards += [[replace(video, part=part, parts=parts)] for part in range(parts)]
            filled = _MAX_SHARD_BYTES  # the next video begins a shard
            continue
        if not shards or len(shards[-1]) >= limit or filled + video.estimate > _MAX_SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(video)
        filled += video.estimate
    return Plan(tuple(tuple(shard) for shard in shards))


def read_plan(root: Path, sha256: str) -> Plan:
    """The plan that the store at `root` was built with.

    Raises:
        StoreDamageError: it is missing or differs from the one in the header.
        StoreFormatError: it is not a plan.
    """
    file = root / PLAN
    try:
        text = read_inside(root, PLAN, MAX_LIST_BYTES)
    except FileNotFoundError as error:
        raise StoreDamageError(file, "is missing") from error
    if hashlib.sha256(text).hexdigest() != sha256:
        raise StoreDamageError(file, "is not the plan in the header (sha256 differs)")
    document = check_value(file, PlanDocument, parse_json(file, text))
    plan = Plan(tuple(tuple(PlannedVideo(*video) for video in shard) for shard in document))
    _check_plan(file, plan)
    return plan


def _check_plan(file: Path, plan: Plan) -> None:
    """Check that the shards of a long video follow each other and contain nothing else."""
    expected: PlannedVideo | None = None  # the next part of a long video
    for number, shard in enumerate(plan.shards):
        for video in shard:
            if video.parts > 1 and len(shard) > 1:
                raise StoreFormatError(
                    file, f"{number}: {brief(video.id)} shares a shard, and has {video.parts} of its own"
                )
            if video.part if expected is None else video != expected:
                raise StoreFormatError(file, f"{number}: {brief(video.id)} does not continue the shards before it")
            expected = replace(video, part=video.part + 1) if video.part + 1 < video.parts else None
    if expected is not None:
        raise StoreFormatError(file, f"ends before part {expected.part} of {brief(expected.id)}")
