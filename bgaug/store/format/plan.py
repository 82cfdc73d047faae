"""The plan of a store: which video goes into which shard.

It follows from the videos and the options alone, never from how many processes will work on it, so that any number of
them, at any time, build the same store.
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

MAX_SHARD_BYTES = 128 * 2**20
LONG_SHARD_BYTES = 96 * 2**20
MAX_SHARD_VIDEOS = 64
_FEW_VIDEOS = 512
_SHARDS_FOR_FEW = 16


@dataclass(frozen=True, slots=True)
class PlannedVideo:
    """A video as the plan sees it.

    Attributes:
        id: its id in the store.
        bytes: size of its file.
        estimate: bytes that it is expected to take, in all its shards.
        part: which of its shards this is, from 0.
        parts: shards that it is spread over, each its own.
    """

    id: str
    bytes: int
    estimate: int
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Plan:
    """The videos of each shard, in order of id."""

    shards: tuple[tuple[PlannedVideo, ...], ...]

    @property
    def num_videos(self) -> int:
        """Videos in all shards."""
        return sum(video.part == 0 for shard in self.shards for video in shard)

    @property
    def estimate(self) -> int:
        """Bytes that the store is expected to take."""
        return sum(video.estimate for shard in self.shards for video in shard if video.part == 0)

    def to_bytes(self) -> bytes:
        """As the store keeps it: of each video its id, bytes, estimate; of one in several shards also part and parts."""
        return canonical_json(
            [[list(astuple(video))[: 3 if video.parts == 1 else 5] for video in shard] for shard in self.shards]
        )

    def summary(self) -> dict[str, object]:
        """What the header says of it."""
        return {
            "videos": self.num_videos,
            "shards": len(self.shards),
            "sha256": hashlib.sha256(self.to_bytes()).hexdigest(),
        }


def plan_shards(videos: Sequence[PlannedVideo]) -> Plan:
    """Cut the videos, sorted by id, into shards.

    A shard takes at most 128 MiB by the estimates and at most 64 videos. Below 512 videos a shard takes at most a
    sixteenth of them, so that small sets, too, are worked on side by side and resumed finely. A longer video gets
    shards of its own, of about 96 MiB each, so that there is room to end them between shots.
    """
    ordered = sorted(videos, key=lambda video: video.id)
    limit = MAX_SHARD_VIDEOS if len(ordered) >= _FEW_VIDEOS else max(1, -(-len(ordered) // _SHARDS_FOR_FEW))
    shards: list[list[PlannedVideo]] = []
    filled = 0
    for video in ordered:
        if video.estimate > MAX_SHARD_BYTES:
            parts = -(-video.estimate // LONG_SHARD_BYTES)
            shards += [[replace(video, part=part, parts=parts)] for part in range(parts)]
            filled = MAX_SHARD_BYTES  # the next video begins a shard
            continue
        if not shards or len(shards[-1]) >= limit or filled + video.estimate > MAX_SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(video)
        filled += video.estimate
    return Plan(tuple(tuple(shard) for shard in shards))


def read_plan(root: Path, sha256: str) -> Plan:
    """The plan that the store at `root` was made with.

    Raises:
        StoreDamageError: it is missing or not the one that the header names.
        StoreFormatError: it is no plan.
    """
    file = root / PLAN
    try:
        text = read_inside(root, PLAN, MAX_LIST_BYTES)
    except FileNotFoundError as error:
        raise StoreDamageError(file, "is missing") from error
    if hashlib.sha256(text).hexdigest() != sha256:
        raise StoreDamageError(file, "is not the plan that the header names (sha256 differs)")
    document = check_value(file, PlanDocument, parse_json(file, text))
    plan = Plan(tuple(tuple(PlannedVideo(*video) for video in shard) for shard in document))
    _check_plan(file, plan)
    return plan


def _check_plan(file: Path, plan: Plan) -> None:
    """See that the shards of a long video follow each other, each its own."""
    due: PlannedVideo | None = None  # the next part of a long video
    for number, shard in enumerate(plan.shards):
        for video in shard:
            if video.parts > 1 and len(shard) > 1:
                raise StoreFormatError(
                    file, f"{number}: {brief(video.id)} shares a shard, and has {video.parts} of its own"
                )
            if video.part if due is None else video != due:
                raise StoreFormatError(file, f"{number}: {brief(video.id)} is not what the shards before it ask for")
            due = replace(video, part=video.part + 1) if video.part + 1 < video.parts else None
    if due is not None:
        raise StoreFormatError(file, f"ends before part {due.part} of {brief(due.id)}")
