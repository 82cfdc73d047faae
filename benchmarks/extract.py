"""What extracting a background costs beside decoding alone: CPU time, in one run.

python benchmarks/extract.py [VIDEO...] [--repeats N] [--json]

Without videos, a 10-second 320x240 clip is generated. Per video: the minimum over interleaved repeats of the CPU time of
each job, and its ratio to a full RGB decode by the same reader.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from bgaug.background import ShotSampler, background_of, median_by_bits
from bgaug.mask import frame_mask, threshold_map
from bgaug.pipelines.watch import WatchOptions, watch
from bgaug.synthetic import make_split
from bgaug.video import open_video, write_video


def decode(path: Path) -> None:
    """Every frame to RGB."""
    with open_video(path) as reader:
        for _ in reader.iter():
            pass


def decode_only(path: Path) -> None:
    """Every frame, none to RGB."""
    with open_video(path) as reader:
        for _ in reader.scan():
            pass


def extract(path: Path) -> None:
    """Median background and noise, the video taken for one shot."""
    with open_video(path) as reader:
        watch(reader, WatchOptions(shots=False))


def extract_shots(path: Path) -> None:
    """The same for each shot, with cuts and camera verdicts, as `bgaug extract-backgrounds` does."""
    with open_video(path) as reader:
        watch(reader, WatchOptions())


def extract_and_mask(path: Path) -> None:
    """Background, and the mask of every frame at full size, in a second pass."""
    with open_video(path) as reader:
        sampler = ShotSampler((reader.info.height, reader.info.width), side=10_000)
        for frame in reader.scan():
            if sampler.wants(frame.index):
                sampler.add(frame.index, frame.rgb())
        background = background_of(sampler.shot())
        threshold = threshold_map(background.noise)
        for _, _, image in reader.iter():
            frame_mask(image, background.image, threshold)


def naive(path: Path) -> None:
    """All frames in memory, numpy's median."""
    with open_video(path) as reader:
        frames = np.stack([image for _, _, image in reader.iter()])
    np.median(frames, axis=0)


def decord_and_numpy(path: Path) -> None:
    """What one writes by hand: decord's get_batch of all frames, numpy's median."""
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    np.median(reader.get_batch(range(len(reader))).asnumpy(), axis=0)


JOBS: dict[str, Callable[[Path], None]] = {
    "decode": decode,
    "decode, not converted": decode_only,
    "extract": extract,
    "extract, cuts, camera": extract_shots,
    "extract and mask": extract_and_mask,
    "decode + np.median": naive,
    "decord + np.median": decord_and_numpy,
}


def cpu_seconds(job: Callable[[Path], None], path: Path) -> float:
    """CPU time of one call."""
    begun = time.process_time()
    job(path)
    return time.process_time() - begun


def median_speed(repeats: int) -> float:
    """How many times faster the bit search is than numpy's median at 51 samples of 320x240."""
    samples = np.random.default_rng(0).integers(0, 256, (51, 240, 320, 3), dtype=np.uint8)
    ratios = []
    for _ in range(repeats):
        times = []
        for run in (lambda: np.median(samples, axis=0), lambda: median_by_bits(samples)):
            begun = time.process_time()
            run()
            times.append(time.process_time() - begun)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        videos = options.videos
        if not videos:
            videos = [Path(folder) / "generated.mp4"]
            frames = make_split("unbiased_test", count=1, size=320, num_frames=250).frames[0, :, :240]
            write_video(videos[0], frames, options={"crf": "23"}, pixel_format="yuv420p")
        result = {"median_51_speedup": round(median_speed(options.repeats), 2), "videos": {}}
        for path in videos:
            times: dict[str, list[float]] = {name: [] for name in JOBS}
            for _ in range(options.repeats):
                for name, job in JOBS.items():
                    times[name].append(cpu_seconds(job, path))
            best = {name: min(values) for name, values in times.items()}
            result["videos"][path.name] = {
                name: {"cpu_ms": round(1000 * value, 1), "ratio": round(value / best["decode"], 2)}
                for name, value in best.items()
            }
    if options.json:
        print(json.dumps(result))
        return
    print(f"median of 51 samples: {result['median_51_speedup']}x faster than np.median")
    for name, rows in result["videos"].items():
        print(name)
        for job, row in rows.items():
            print(f"  {job:24s}{row['cpu_ms']:9.1f} ms  {row['ratio']:6.2f} x decode")


if __name__ == "__main__":
    main()
