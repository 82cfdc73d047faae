"""Building a shard against what no builder can beat: CPU and wall time, in one run.

python benchmarks/build.py [--quick] [--json]

One full shard, as a plan cuts them, from memory: videos of 250 frames of 128x171 with masks and one background each; 8
of them raw (133 MB), 64 as JPEG (`--quick`: 16). What is timed is the store's part of `bgaug build-shards`: adding
frames, masks and backgrounds of each video, and the commit; not decoding, not estimating, not making the store's
folder.

    raw     against opening, writing and syncing the same files with the same bytes
    jpeg    against converting and encoding the same frames by cv2, in quality 90 and 4:2:0, and nothing else

Frames are those of scenarios, brought there from 320x240: textured scenes with walkers and camera noise, 6.5 to 7.5 kB
as JPEG; masks are the walkers. All four take turns, in another order every time. Times are medians over repeats, ratios
are medians of the ratios within a repeat, spreads are (largest - least) / median. The files lie in the system's folder
for temporary files: set TMPDIR to measure another disk.
"""

import os

for pool in ("OMP", "OPENBLAS", "MKL"):  # idle threads that spin would be counted
    os.environ[f"{pool}_NUM_THREADS"] = "1"

import argparse
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.background import Background
from bgaug.sizing import STORE_SIZE, fit_frame
from bgaug.store import (
    FrameKind,
    Header,
    Identity,
    Plan,
    PlannedVideo,
    ShardWriter,
    Shot,
    VideoPayload,
    VideoRow,
    create_store,
)
from bgaug.testing.scenarios import make_scenario

SCENES = ("multi", "jitter3", "occ40", "pan")
NUM_FRAMES, FPS = 250, 25.0
NUM_VIDEOS: dict[FrameKind, int] = {"raw": 8, "jpeg": 64}
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]


@dataclass(frozen=True)
class Content:
    """A video that is to be stored, of one shot.

    Attributes:
        frames: uint8 (T, H, W, 3), RGB.
        masks: bool (T, H, W).
        background: of the shot.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    background: Background


def plain_background(image: NDArray[np.uint8]) -> Background:
    """A picture that was seen everywhere, without noise."""
    size = image.shape[:2]
    return Background(image, np.zeros(size, np.float32), np.ones(size, np.bool_))


def make_content(number: int) -> Content:
    """A scenario at the size of a store."""
    cv2.setNumThreads(1)
    made = make_scenario(SCENES[number % len(SCENES)], number, (240, 320), NUM_FRAMES)
    frames = np.stack([fit_frame(image, STORE_SIZE, "stretch") for image in made.frames])
    masks = [fit_frame(mask.astype(np.uint8) * 255, STORE_SIZE, "stretch") > 127 for mask in made.masks]
    return Content(frames, np.stack(masks), plain_background(fit_frame(made.backgrounds[0], STORE_SIZE, "stretch")))


def begin(root: Path, frames: FrameKind, names: Sequence[Sequence[str]], size: tuple[int, int] = STORE_SIZE) -> Header:
    """A store of these videos in these shards, with nothing in them yet."""
    plan = Plan(tuple(tuple(PlannedVideo(name, 1, 1) for name in shard) for shard in names))
    return create_store(root, Header(size=size, fit="stretch", frames=frames, classes=(), options={}), plan)


def add(writer: ShardWriter, header: Header, name: str, content: Content) -> None:
    """A video into a shard, frame by frame, as `bgaug build-shards` does."""
    payload = VideoPayload(header)
    for index, (image, mask) in enumerate(zip(content.frames, content.masks, strict=True)):
        payload.add_frame(index / FPS, image)
        payload.add_masks(mask[None])
    payload.add_background(content.background)
    count = len(content.frames)
    row = VideoRow(
        id=name,
        label=None,
        group=None,
        split=None,
        fps=FPS,
        height=header.size[0],
        width=header.size[1],
        start=0,
        num_frames=count,
        status="ok",
        shots=[Shot(start=0, stop=count, background=0)],
        identity=Identity(bytes=1, sha256=name),
        content="",
    )
    writer.add(row, payload)


# What is timed.


def build(root: Path, header: Header, contents: Sequence[Content]) -> None:
    """A shard from memory to the disk."""
    with ShardWriter(root, header, 0) as writer:
        for number, content in enumerate(contents):
            add(writer, header, f"{number:06d}", content)
        writer.commit()


def write(files: dict[Path, bytes]) -> None:
    """Bytes to the disk."""
    for path, data in files.items():
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def encode(contents: Sequence[Content]) -> None:
    """Pictures, kept nowhere."""
    for content in contents:
        for image in content.frames:
            cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), QUALITY)


@dataclass(frozen=True)
class Times:
    """Seconds of each repeat."""

    cpu: list[float]
    wall: list[float]

    def add(self, job: Callable[[], None]) -> None:
        """Run a job once."""
        cpu, wall = time.process_time(), time.perf_counter()
        job()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)

    def to_json(self) -> dict[str, float]:
        """Medians and spreads."""
        found = {}
        for name, values in (("cpu", self.cpu), ("wall", self.wall)):
            found[f"{name}_s"] = round(float(np.median(values)), 4)
            found[f"{name}_spread"] = round((max(values) - min(values)) / float(np.median(values)), 3)
        return found


class Bench:
    """The jobs, each of which leaves the folder empty.

    Args:
        folder: on the disk that is measured.
        contents: of each kind of shard.
    """

    def __init__(self, folder: Path, contents: Mapping[FrameKind, Sequence[Content]]) -> None:
        self._folder = folder
        self._contents = contents
        self.files: dict[FrameKind, dict[Path, bytes]] = {kind: self._built(kind) for kind in ("raw", "jpeg")}

    def _built(self, kind: FrameKind) -> dict[Path, bytes]:
        """The files of a shard, which warms up, too."""
        self.build(kind, Times([], []), keep=True)
        shard = self._folder / "shards" / "00000"
        files = {path.relative_to(shard): path.read_bytes() for path in shard.rglob("*") if path.is_file()}
        shutil.rmtree(self._folder)
        return files

    def build(self, kind: FrameKind, times: Times, *, keep: bool = False) -> None:
        """A shard."""
        contents = self._contents[kind]
        header = begin(self._folder, kind, [[f"{number:06d}" for number in range(len(contents))]])
        times.add(partial(build, self._folder, header, contents))
        if not keep:
            shutil.rmtree(self._folder)

    def write(self, times: Times) -> None:
        """The bytes of the raw shard."""
        files = {self._folder / name: data for name, data in self.files["raw"].items()}
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
        times.add(partial(write, files))
        shutil.rmtree(self._folder)

    def encode(self, times: Times) -> None:
        """The pictures of the JPEG shard."""
        times.add(partial(encode, self._contents["jpeg"]))


def measure(folder: Path, contents: Mapping[FrameKind, Sequence[Content]], repeats: int) -> dict[str, Any]:
    """All jobs in turns, in another order every time."""
    bench = Bench(folder / "shard", contents)
    jobs: dict[str, Callable[[Times], None]] = {
        "raw": partial(bench.build, "raw"),
        "write_fsync": bench.write,
        "jpeg": partial(bench.build, "jpeg"),
        "encoder": bench.encode,
    }
    times = {name: Times([], []) for name in jobs}
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        for name in rng.permutation(list(jobs)).tolist():
            jobs[name](times[name])
    pairs: tuple[tuple[FrameKind, str], ...] = (("raw", "write_fsync"), ("jpeg", "encoder"))
    return {
        kind: compare(times[kind], times[other], other) | {"shard_bytes": sum(map(len, bench.files[kind].values()))}
        for kind, other in pairs
    }


def compare(built: Times, other: Times, name: str) -> dict[str, Any]:
    """Building against what is named."""
    return {
        "build": built.to_json(),
        name: other.to_json(),
        "ratio_cpu": round(float(np.median(np.divide(built.cpu, other.cpu))), 3),
        "ratio_wall": round(float(np.median(np.divide(built.wall, other.wall))), 3),
    }


def show(result: dict[str, Any]) -> None:
    """The table."""
    for kind in ("raw", "jpeg"):
        row = result[kind]
        print(f"{kind}: a shard of {row['shard_bytes'] / 1e6:.1f} MB")
        for name, own in row.items():
            if isinstance(own, dict):
                cpu, wall = (f"{own[f'{c}_s']:7.3f} s +-{own[f'{c}_spread'] / 2:4.0%}" for c in ("cpu", "wall"))
                print(f"  {name:12s} CPU {cpu}   wall {wall}")
        print(f"  {'ratio':12s} CPU {row['ratio_cpu']:7.2f} x         wall {row['ratio_wall']:7.2f} x")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="5 repeats instead of 9, and a smaller JPEG shard")
    parser.add_argument("--json", action="store_true", help="one object as the last line instead of a table")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with ProcessPoolExecutor(2) as pool:
        made = list(pool.map(make_content, range(len(SCENES))))
    counts = NUM_VIDEOS | ({"jpeg": 16} if options.quick else {})
    contents = {kind: [made[number % len(made)] for number in range(count)] for kind, count in counts.items()}
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), contents, 5 if options.quick else 9)
    result["machine"] = {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()}
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
