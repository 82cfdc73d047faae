"""Random training clips from a store against decoding the same clips from their videos: CPU time a clip, in one run.

python benchmarks/serve.py [VIDEOS STORE] [--clips N] [--json]

VIDEOS is the folder that STORE was built from with `bgaug build-shards`. Without them, videos are generated and a store
is built of them. decord seeks and decodes, as a training script without a store would, and resizes in the decoder.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from bgaug.pipelines.build_shards import build_shards
from bgaug.pipelines.each_video import Setup
from bgaug.pipelines.progress import Silent
from bgaug.store import Store, open_store
from bgaug.synthetic import make_split
from bgaug.video import write_video

FRAMES = 16


def generate(folder: Path, gop: int, count: int = 12) -> Path:
    """Some 8-second videos of 320x240."""
    folder.mkdir(parents=True)
    for number in range(count):
        split = make_split("unbiased_test", start=number, stop=number + 1, size=320, num_frames=200)
        options = {"crf": "23", "g": str(gop)}
        write_video(folder / f"{number}.mp4", split.frames[0, :, :240], options=options, pixel_format="yuv420p")
    return folder


def measure(read: Callable[[int, int], object], clips: list[tuple[int, int]]) -> float:
    """CPU milliseconds a clip: the median of three passes, after one clip to warm up."""
    read(*clips[0])
    passes = []
    for _ in range(3):
        begun = time.process_time()
        for video, start in clips:
            read(video, start)
        passes.append((time.process_time() - begun) * 1000 / len(clips))
    return sorted(passes)[1]


def by_decord(store: Store, videos: Path) -> Callable[[int, int], object]:
    """Open, seek and decode with decord."""
    import decord

    height, width = store.size

    def read(video: int, start: int) -> object:
        path = str(videos / store.video_id(video))
        reader = decord.VideoReader(path, width=width, height=height, num_threads=1)
        return reader.get_batch(range(start, start + FRAMES)).asnumpy()

    return read


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="?", type=Path)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        videos, path = options.videos, options.store
        if videos is None or path is None:
            videos, path = generate(Path(folder) / "videos", gop=250), Path(folder) / "store"
            build_shards(Setup([videos], path, jobs=1), Silent())
        store = open_store(path)
        rng = np.random.default_rng(0)
        long_enough = [video for video in range(len(store)) if store.num_frames(video) > FRAMES]
        clips = [
            (video, int(rng.integers(store.num_frames(video) - FRAMES)))
            for video in rng.choice(long_enough, options.clips).tolist()
        ]
        frames = np.empty((FRAMES, *store.size, 3), np.uint8)
        cpu = {
            "store frames": measure(lambda video, start: store.clip(video, start, FRAMES, out=frames), clips),
            "store masks": measure(lambda video, start: store.packed_masks(video, start, FRAMES), clips),
            "decord": measure(by_decord(store, videos), clips),
        }
    result = {"frames_kept_as": store.header.frames, "cpu_ms_per_clip": {k: round(v, 3) for k, v in cpu.items()}}
    if options.json:
        print(json.dumps(result))
        return
    print(f"{FRAMES} frames of {store.size[0]}x{store.size[1]}, kept as {store.header.frames}; CPU of one thread")
    for name, value in cpu.items():
        speed = f"{1000 / value:8.0f} clips/s   {cpu['decord'] / value:7.1f} x less than decord"
        print(f"  {name:14s}{value:9.3f} ms a clip  {speed}")


if __name__ == "__main__":
    main()
