"""What extracting a background costs beside decoding alone: CPU time, in one run.

python benchmarks/extract.py [VIDEO...] [--repeats N] [--json]

Without videos, two 10-second clips of 320x240 are generated: people who walk before a camera that stands still, and
before one that shakes. Per video and job: minimum and median over interleaved repeats of the CPU time, its spread
(interquartile range over median), and the median ratio to a full RGB decode by the same reader in the same repeat.
"""

import os

for pool in ("OMP", "OPENBLAS", "MKL"):  # as in the worker processes: idle threads that spin would be counted
    os.environ[f"{pool}_NUM_THREADS"] = "1"

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bgaug.background import Background, ShotSampler, background_of, fit_background, median_by_bits
from bgaug.masks import foreground_mask, frame_mask, threshold_map
from bgaug.pipelines.build.options import VideoOptions
from bgaug.pipelines.build.process_video import process_video
from bgaug.sizing import STORE_SIZE, fit_frame
from bgaug.testing.scenarios import make_scenario
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


def median_and_noise(path: Path, side: int = 360) -> Background:
    """Median background and noise of the video, taken for one shot of a camera that stands still."""
    with open_video(path) as reader:
        info = reader.info
        sampler = ShotSampler((info.height, info.width), side=side, expected_frames=info.declared_frames or 0)
        for frame in reader.scan():
            if sampler.wants(frame.index):
                sampler.add(frame.index, frame.rgb)
    return background_of(sampler.shot(), "median")


def extract(path: Path, method: str = "median", shots: bool = True) -> None:
    """As `bgaug extract-backgrounds` does: of each shot, with cuts, camera verdict and grade."""
    with open_video(path) as reader:
        process_video(reader, VideoOptions(method=method, shots=shots))


def extract_and_mask(path: Path) -> None:
    """Background, and the mask of every frame at full size, in a second pass."""
    background = median_and_noise(path, side=10_000)
    threshold = threshold_map(background.noise)
    with open_video(path) as reader:
        for _, _, image in reader.iter():
            frame_mask(image, background.image, threshold)


def mog2(path: Path) -> None:
    """What one writes with OpenCV: its mixture of Gaussians sees every frame, and gives background and masks."""
    model = cv2.createBackgroundSubtractorMOG2(detectShadows=False)
    with open_video(path) as reader:
        for _, _, image in reader.iter():
            model.apply(image)
    model.getBackgroundImage()


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


JOBS: dict[str, Callable[[Path], Any]] = {
    "decode": decode,
    "decode, not converted": decode_only,
    "median and noise": median_and_noise,
    "extract, one shot": lambda path: extract(path, shots=False),
    "extract": extract,
    "extract, method auto": lambda path: extract(path, "auto"),
    "median, noise, masks": extract_and_mask,
    "MOG2": mog2,
    "decode + np.median": naive,
    "decord + np.median": decord_and_numpy,
}


def generate(folder: Path) -> list[Path]:
    """Ten seconds of 320x240 H.264 each: four who walk before a camera that stands still, and one that shakes."""
    paths = []
    for name in ("multi", "jitter3"):
        paths.append(folder / f"{name}.mp4")
        frames = make_scenario(name, size=(240, 320), num_frames=250).frames
        write_video(paths[-1], frames, options={"crf": "23"}, pixel_format="yuv420p")
    return paths


def cpu_seconds(job: Callable[[], Any]) -> float:
    """CPU time of one call."""
    begun = time.process_time()
    job()
    return time.process_time() - begun


def measure(path: Path, repeats: int) -> dict[str, dict[str, float]]:
    """All jobs on one video, interleaved."""
    times: dict[str, list[float]] = {name: [] for name in JOBS}
    for _ in range(repeats):
        for name, job in JOBS.items():
            times[name].append(cpu_seconds(partial(job, path)))
    return {name: summary(own, times["decode"]) for name, own in times.items()}


def summary(own: list[float], decoding: list[float]) -> dict[str, float]:
    """The numbers of one job."""
    low, middle, high = np.percentile(own, [25, 50, 75])
    return {
        "cpu_ms": round(1000 * float(middle), 1),
        "min_cpu_ms": round(1000 * min(own), 1),
        "spread": round(float((high - low) / middle), 2),
        "ratio": round(statistics.median(a / b for a, b in zip(own, decoding, strict=True)), 2),
        "min_ratio": round(min(own) / min(decoding), 2),
    }


def mask_ms(path: Path, repeats: int) -> float:
    """CPU milliseconds of one frame's mask at the size of a training store, frames and background given."""
    with open_video(path) as reader:
        frames = np.stack([fit_frame(image, STORE_SIZE, "stretch") for _, _, image in reader.iter(stride=5)])
    background = fit_background(median_and_noise(path), STORE_SIZE, "stretch")
    return round(
        1000 * min(cpu_seconds(lambda: foreground_mask(frames, background)) for _ in range(repeats)) / len(frames), 3
    )


def median_speed(repeats: int) -> float:
    """How many times faster the bit search is than numpy's median at 51 samples of 320x240."""
    samples = np.random.default_rng(0).integers(0, 256, (51, 240, 320, 3), dtype=np.uint8)
    slow, fast = (lambda: np.median(samples, axis=0)), (lambda: median_by_bits(samples))
    return round(statistics.median(cpu_seconds(slow) / cpu_seconds(fast) for _ in range(repeats)), 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    result: dict[str, Any] = {"median_51_speedup": median_speed(options.repeats), "videos": {}}
    with tempfile.TemporaryDirectory() as folder:
        for path in options.videos or generate(Path(folder)):
            rows = measure(path, options.repeats)
            result["videos"][str(path)] = {"mask_ms_per_frame": mask_ms(path, options.repeats), "jobs": rows}
    if options.json:
        print(json.dumps(result))
        return
    print(f"median of 51 samples: {result['median_51_speedup']}x faster than np.median")
    for name, found in result["videos"].items():
        print(f"{name}: a mask at {STORE_SIZE[0]}x{STORE_SIZE[1]} takes {found['mask_ms_per_frame']} ms")
        for job, row in found["jobs"].items():
            print(
                f"  {job:24s}{row['cpu_ms']:9.1f} ms (least {row['min_cpu_ms']:.1f}, spread {row['spread']:.0%})"
                f"{row['ratio']:8.2f} x decode (of least times {row['min_ratio']:.2f})"
            )


if __name__ == "__main__":
    main()
