"""Small stores, written without a decoder: the grey level of an image names its video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bgaug.background import Background
from bgaug.names import FrameKind
from bgaug.store import (
    Header,
    Identity,
    Plan,
    PlannedVideo,
    ShardWriter,
    Shot,
    VideoPayload,
    VideoRow,
    create_store,
    finish_store,
)

SIZE = (8, 8)
NUM_FRAMES = 20


def header_of(frames: FrameKind = "jpeg", **options: object) -> Header:
    return Header(SIZE, "stretch", frames, (), dict(options))


def plan_of(*shards: int) -> Plan:
    """Shards of so many videos each; the k-th of all is named `k.mp4`."""
    numbers = iter(range(sum(shards)))
    return Plan(tuple(tuple(PlannedVideo(f"{next(numbers)}.mp4", 1, 1) for _ in range(n)) for n in shards))


def grey(number: int) -> int:
    """The grey level of a video."""
    return 10 + 20 * number


def payload_of(header: Header, number: int, num_frames: int = NUM_FRAMES, num_backgrounds: int = 1) -> VideoPayload:
    payload = VideoPayload(header)
    picture = np.full((*SIZE, 3), grey(number), np.uint8)
    for index in range(num_frames):
        payload.add_frame(index / 25, picture)
        payload.add_masks(np.full((1, *SIZE), number % 2 == 0))
    for _ in range(num_backgrounds):
        payload.add_background(Background(picture, np.ones(SIZE, np.float32), np.ones(SIZE, np.bool_)))
    return payload


def row_of(number: int, num_frames: int = NUM_FRAMES, num_backgrounds: int = 1) -> VideoRow:
    ends = [num_frames * place // num_backgrounds for place in range(num_backgrounds + 1)]
    return VideoRow(
        id=f"{number}.mp4",
        label=None,
        group=None,
        split=None,
        fps=25.0,
        height=SIZE[0],
        width=SIZE[1],
        start=0,
        num_frames=num_frames,
        status="ok",
        shots=[Shot(start=ends[k], stop=ends[k + 1], background=k) for k in range(num_backgrounds)],
        identity=Identity(bytes=1, sha256=str(number)),
        content="",
    )


def write_shard(root: Path, header: Header, shard: int, numbers: range) -> None:
    with ShardWriter(root, header, shard) as writer:
        for number in numbers:
            writer.add(row_of(number), payload_of(header, number))
        writer.commit()


def make_store(root: Path, *shards: int, frames: FrameKind = "jpeg", **options: object) -> Header:
    """A finished store of these shards."""
    header = create_store(root, header_of(frames, **options), plan_of(*shards))
    first = 0
    for shard, count in enumerate(shards):
        write_shard(root, header, shard, range(first, first + count))
        first += count
    finish_store(root)
    return header
