"""Small stores, written without a decoder.

`make_store`: the grey level of an image names its video. `make_full_store`: noise in everything that a store may hold.
`make_noise_store`: noise in shards and parts that the caller chooses. `make_moving_store`: what is kept for cameras
that move.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bgaug.background import Background, BackgroundView, Canvas
from bgaug.masks import SmallMasks
from bgaug.names import FrameKind
from bgaug.pipelines.build.process_video import put_shot
from bgaug.shots.shot import Shot as EstimatedShot
from bgaug.sizing import Fit, Size
from bgaug.store import (
    Failure,
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
    write_bank,
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
    image = np.full((*SIZE, 3), grey(number), np.uint8)
    for index in range(num_frames):
        payload.add_frame(index / 25, image)
        payload.add_masks(np.full((1, *SIZE), number % 2 == 0))
    for _ in range(num_backgrounds):
        payload.add_background(Background(image, np.ones(SIZE, np.float32), np.ones(SIZE, np.bool_)))
    return payload


def make_row(name: str, num_frames: int, shots: list[Shot], **other: Any) -> VideoRow:
    """The row of a video without a class; `other` replaces fields or adds them."""
    fields: dict[str, Any] = {
        "label": None,
        "group": None,
        "split": None,
        "fps": 25.0,
        "height": SIZE[0],
        "width": SIZE[1],
        "start": 0,
        "status": "ok",
        "identity": Identity(bytes=1, sha256="x"),
        "content": "",
    }
    return VideoRow(**{**fields, "id": name, "num_frames": num_frames, "shots": shots, **other})


def row_of(number: int, num_frames: int = NUM_FRAMES, num_backgrounds: int = 1) -> VideoRow:
    ends = [num_frames * place // num_backgrounds for place in range(num_backgrounds + 1)]
    shots = [Shot(start=ends[k], stop=ends[k + 1], background=k) for k in range(num_backgrounds)]
    return make_row(f"{number}.mp4", num_frames, shots, identity=Identity(bytes=1, sha256=str(number)))


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


# --- noise ------------------------------------------------------------------------------------------------------------

FULL_SIZE = (16, 24)

Part = tuple[str, int, int]
"""Id of a video, first frame of a part of it, and how many."""

THREE: list[list[Part]] = [[("walk/a é.mp4", 0, 5), ("walk/b.mp4", 0, 70)], [("c.mp4", 0, 6)]]


def noise(rng: np.random.Generator, size: Size) -> np.ndarray:
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def make_full_store(root: Path, kind: FrameKind, prefix: str = "") -> Path:
    """Four shards: two videos; a video and a failure; the two parts of a long video. And a bank."""
    names = [[f"{prefix}a.mp4", f"{prefix}b é.mp4"], [f"{prefix}bad.mp4", f"{prefix}c.mp4"]]
    long = [PlannedVideo(f"{prefix}long.mp4", 9, 9, part, 2) for part in range(2)]
    plan = Plan((*(tuple(PlannedVideo(name, 5, 5) for name in some) for some in names), (long[0],), (long[1],)))
    options = {"holds": "clips", "method": "median", "labels": "0" * 64}
    header = create_store(root, Header(FULL_SIZE, "pad", kind, ("run", "walk"), options, created_with="0"), plan)
    rng = np.random.default_rng(len(prefix))
    for shard, some in enumerate([*names, [f"{prefix}long.mp4"], [f"{prefix}long.mp4"]]):
        with ShardWriter(root, header, shard) as writer:
            for number, name in enumerate(some):
                if "bad" in name:
                    writer.fail(Failure(id=name, reason="corrupt", message="broke off"))
                else:
                    add_full_video(writer, header, name, 6 * (shard == 3), number, rng, long="long" in name)
            writer.commit()
    finish_store(root)
    write_bank(root, "places", [("x.png", noise(rng, FULL_SIZE)), ("y.png", noise(rng, FULL_SIZE))])
    return root


def add_full_video(
    writer: ShardWriter, header: Header, name: str, first: int, number: int, rng: np.random.Generator, *, long: bool
) -> None:
    payload = VideoPayload(header)
    count = 6
    for t in range(count):
        payload.add_frame((first + t) / 25, None if header.frames == "none" else noise(rng, FULL_SIZE))
    payload.add_masks(rng.random((count, *FULL_SIZE)) < 0.4)
    background = Background(noise(rng, FULL_SIZE), rng.random(FULL_SIZE, np.float32), rng.random(FULL_SIZE) < 0.9)
    shots = [
        Shot(start=first, stop=first + 4, background=payload.add_background(background), camera="static", grade="B"),
        Shot(start=first + 4, stop=first + count, background=-1, reasons=["short"]),
    ]
    row = make_row(
        name,
        count,
        shots,
        label=("run", "walk", None)[number % 3],
        group="g" if number else None,
        split="train",
        height=48,
        width=64,
        first=first,
        total_frames=12 if long else None,
        identity=Identity(bytes=5, sha256="0" * 64),
    )
    writer.add(row, payload)


def make_noise_store(
    root: Path,
    shards: Sequence[Sequence[Part]] = THREE,
    *,
    fit: Fit = "stretch",
    size: Size = (24, 24),
    source: Size = (48, 96),
    frames: FrameKind = "jpeg",
    holds: str = "clips",
    status: str = "ok",
) -> Path:
    """A store of noise: frames, masks, a background a part."""
    plan = Plan(tuple(tuple(PlannedVideo(name, 1, 1) for name, first, _ in shard) for shard in shards))
    header = create_store(root, Header(size, fit, frames, (), {"holds": holds}), plan)
    rng = np.random.default_rng(0)
    for number, parts in enumerate(shards):
        with ShardWriter(root, header, number) as writer:
            for name, first, count in parts:
                payload = VideoPayload(header)
                for index in range(first, first + count):
                    payload.add_frame(index / 25, noise(rng, size))
                if holds == "clips":
                    payload.add_masks(rng.random((count, *size)) < 0.5)
                image = noise(rng, size)
                known = payload.add_background(
                    Background(image, np.ones(size, np.float32), rng.random(size) < 0.9, grade="B")
                )
                shots = [Shot(start=first, stop=first + count - 1, background=known, camera="static", grade="B")]
                shots += [Shot(start=first + count - 1, stop=first + count, background=-1, camera="moving")]
                row = make_row(name, count, shots, height=source[0], width=source[1], first=first, status=status)
                writer.add(row, payload)
            writer.commit()
    finish_store(root)
    return root


# --- cameras that move ------------------------------------------------------------------------------------------------

MOVING_IDS = ("long.mp4", "pan.mp4", "plain.mp4", "shake.mp4")


def noise_background(rng: np.random.Generator, size: Size) -> Background:
    levels = np.round(rng.random(size, np.float32) * 80) / 8
    return Background(noise(rng, size), levels.astype(np.float32), rng.random(size) < 0.9)


def noise_canvas(rng: np.random.Generator, num_places: int = 5) -> Canvas:
    """A canvas of noise, 20x30 for frames of 18x26, all of whose frames could be aligned."""
    seen = noise_background(rng, (20, 30))
    transforms = np.tile(np.eye(2, 3, dtype=np.float32), (num_places, 1, 1))
    transforms += rng.uniform(-0.2, 0.2, transforms.shape).astype(np.float32)
    confidence = rng.uniform(0.5, 1, num_places).astype(np.float32)
    indices = np.sort(rng.choice(8, num_places, replace=False)).astype(np.int64)
    return Canvas(seen.image, seen.noise, seen.valid, transforms, confidence, transforms[0], indices, (18, 26))


def moving_shots(size: Size) -> dict[str, list[EstimatedShot]]:
    """By video, shots as they are estimated: with views and small masks, with a canvas, without one, with neither."""
    rng = np.random.default_rng(1)

    def views(*frames: int) -> tuple[BackgroundView, ...]:
        return tuple(BackgroundView(frame, noise_background(rng, size)) for frame in frames)

    def small(count: int, shape: Size) -> SmallMasks:
        return SmallMasks.of(rng.random((count, *shape)) < 0.5)

    pan = [
        EstimatedShot(0, 8, "moving", None, None, "B", ("fast",), views(1, 4, 6), small(8, (5, 7))),
        EstimatedShot(8, 12, "static", noise_background(rng, size), None, "A"),
        EstimatedShot(12, 20, "moving", None, None, "F", (), views(3), small(8, (6, 9))),
    ]
    shake = [
        EstimatedShot(0, 8, "jitter", noise_background(rng, size), noise_canvas(rng), "C"),
        EstimatedShot(8, 10, "jitter", noise_background(rng, size), None, "D"),
        EstimatedShot(10, 18, "jitter", noise_background(rng, size), noise_canvas(rng, 3), "C"),
    ]
    plain = [EstimatedShot(0, 5, "static", noise_background(rng, size), None, "A")]
    long = [EstimatedShot(0, 24, "moving", None, None, "C", (), views(2, 9, 15, 22))]
    return {"long.mp4": long, "pan.mp4": pan, "plain.mp4": plain, "shake.mp4": shake}


def make_moving_store(root: Path, kind: FrameKind = "none", prefix: str = "", size: Size = FULL_SIZE) -> Path:
    """Five shards: a video that pans and one that shakes, a plain one, and the two parts of a long one; one failure."""
    shots = moving_shots(size)
    planned = [PlannedVideo(prefix + name, 5, 5) for name in ("pan.mp4", "shake.mp4", "plain.mp4", "z.mp4")]
    parts = [(PlannedVideo(f"{prefix}long.mp4", 9, 9, part, 2),) for part in range(2)]
    plan = Plan((tuple(planned[:2]), tuple(planned[2:3]), tuple(planned[3:]), *parts))
    header = Header(size, "stretch", kind, ("run", "walk"), {"holds": "backgrounds" if kind == "none" else "clips"})
    header = create_store(root, header, plan)
    rng = np.random.default_rng(2)
    long = shots["long.mp4"][0]
    work = [
        [("pan.mp4", shots["pan.mp4"]), ("shake.mp4", shots["shake.mp4"])],
        [("plain.mp4", shots["plain.mp4"])],
        [],
        [("long.mp4", [long.part(0, 16)])],
        [("long.mp4", [long.part(16, 24)])],
    ]
    for shard, videos in enumerate(work):
        with ShardWriter(root, header, shard) as writer:
            for name, own in videos:
                payload = VideoPayload(header)
                first, stop = own[0].start, own[-1].stop
                for frame in range(first, stop):
                    payload.add_frame(frame / 25, None if kind == "none" else noise(rng, size))
                if kind != "none":
                    payload.add_masks(rng.random((stop - first, *size)) < 0.5)
                rows = [put_shot(payload, shot, for_builds=True) for shot in own]
                total = 24 if name == "long.mp4" else None
                more: dict[str, Any] = {"first": first, "total_frames": total, "label": "run", "split": "train"}
                more["identity"] = Identity(bytes=5, sha256="0" * 64)
                writer.add(make_row(prefix + name, stop - first, rows, **more), payload)
            if not videos:
                writer.fail(Failure(id=f"{prefix}z.mp4", reason="corrupt", message="broke off"))
            writer.commit()
    finish_store(root)
    return root
