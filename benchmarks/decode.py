"""Decoding side by side: CPU time of whole files and of random clips, in one run; peak memory of a long video.

python benchmarks/decode.py [VIDEO...] [--repeats N] [--long] [--json]

Without videos, a 10-second 320x240 H.264 clip is generated. Sequential: every frame to RGB. Random: 8 clips of 16
frames at random places, each from a freshly opened file. Times are minima over interleaved repeats, ratios are to
decord's `get_batch` of all frames (sequential) and to decord's seek (random). `wrong` counts clips that differ from a
sequential pass. --long adds the peak memory of extracting a background from ten minutes of 1080p (generated once:
minutes).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np

from bgaug.testing.synthetic import make_split
from bgaug.video import open_video, probe_video, read_video, write_video
from bgaug.video.timeline import _read

FRAMES = 16


def ours(path: Path) -> None:
    """bgaug, every frame."""
    with open_video(path) as reader:
        for _ in reader.iter():
            pass


def not_converted(path: Path) -> None:
    """PyAV, decoding without RGB: the floor."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for _ in container.decode(stream):
            pass


def plain_pyav(path: Path) -> None:
    """PyAV as its examples have it."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")


def plain_decord(path: Path) -> None:
    """Decord's get_batch of all frames."""
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    reader.get_batch(range(len(reader))).asnumpy()


def plain_cv2(path: Path) -> None:
    """cv2.VideoCapture, to RGB."""
    capture = cv2.VideoCapture(str(path))
    while True:
        good, image = capture.read()
        if not good:
            break
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def probe(path: Path) -> None:
    """The packet-level table that random access rests on."""
    _read(path)


SEQUENTIAL: dict[str, Callable[[Path], None]] = {
    "decord get_batch": plain_decord,
    "bgaug": ours,
    "PyAV, not converted": not_converted,
    "PyAV to_ndarray": plain_pyav,
    "cv2": plain_cv2,
    "bgaug's packet table": probe,
}


def clip_by_bgaug(path: Path, start: int) -> np.ndarray:
    """Frames by index, sought where that is exact."""
    with open_video(path) as reader:
        return reader.get(range(start, start + FRAMES))


def clip_by_decord(path: Path, start: int) -> np.ndarray:
    """Frames by index."""
    import decord

    frames: np.ndarray = decord.VideoReader(str(path), num_threads=1).get_batch(range(start, start + FRAMES)).asnumpy()
    return frames


def clip_by_cv2(path: Path, start: int) -> np.ndarray:
    """Frames by setting the position."""
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_POS_FRAMES, start)
    images = [capture.read()[1] for _ in range(FRAMES)]
    return np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in images])


RANDOM = {"decord": clip_by_decord, "bgaug": clip_by_bgaug, "cv2": clip_by_cv2}


def cpu_ms(run: Callable[[], object]) -> float:
    """CPU milliseconds of a call."""
    begun = time.process_time()
    run()
    return 1000 * (time.process_time() - begun)


def sequential(path: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Whole files."""
    times: dict[str, list[float]] = {name: [] for name in SEQUENTIAL}
    for _ in range(repeats):
        for name, job in SEQUENTIAL.items():
            times[name].append(cpu_ms(partial(job, path)))
    best = {name: min(values) for name, values in times.items()}
    return {name: {"cpu_ms": round(t, 2), "ratio": round(t / best["decord get_batch"], 3)} for name, t in best.items()}


def random_clips(path: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Eight clips a file."""
    whole = read_video(path).frames
    starts = np.random.default_rng(0).integers(0, max(1, len(whole) - FRAMES), 8).tolist()
    result = {}
    for name, read in RANDOM.items():
        wrong, times = 0, []
        for start in starts:
            try:
                times.append(min(cpu_ms(partial(read, path, start)) for _ in range(repeats)))
                got = read(path, start).astype(np.int16)
                wrong += bool(np.abs(got - whole[start : start + FRAMES]).mean() > 2)
            except (RuntimeError, ValueError, cv2.error):
                wrong += 1
        result[name] = {"cpu_ms": round(float(np.mean(times)), 2) if times else float("nan"), "wrong": wrong}
    for row in result.values():
        row["ratio"] = round(row["cpu_ms"] / result["decord"]["cpu_ms"], 3)
    return result


def write_long(path: Path, seconds: int = 600, height: int = 1080, width: int = 1920) -> None:
    """A long video of a scene with a mover, encoded fast."""
    scene = np.kron(make_split("unbiased_test", count=1, size=120).frames[0, 0], np.ones((16, 16, 1), np.uint8))
    scene = np.ascontiguousarray(scene[:height, :width])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "30"}
        for number in range(seconds * 30):
            image = scene.copy()
            left = (number * 7) % (width - 100)
            image[height // 2 : height // 2 + 200, left : left + 100] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


EXTRACT = """
import re, sys
from pathlib import Path
from bgaug.labels import Label
from bgaug.pipelines.build.options import VideoOptions
from bgaug.pipelines.build.find_videos import Source
from bgaug.pipelines.build.backgrounds import ExtractVideo
from bgaug.store import Header
path = Path(sys.argv[1])
ExtractVideo(VideoOptions())(Source("x", path, 1), Label(), Header((256, 342), "stretch", "none", (), {}), id)
# Not getrusage: its peak is handed down from the process that forked this one.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def peak_megabytes(path: Path) -> float:
    """Peak resident memory of a process that extracts one background; Linux alone."""
    done = subprocess.run([sys.executable, "-c", EXTRACT, str(path)], capture_output=True, text=True, check=True)
    return round(int(done.stdout.split()[-1]) / 1024, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--seconds", type=int, default=600, help="of the long video")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        videos = options.videos
        if not videos:
            videos = [Path(folder) / "generated.mp4"]
            frames = make_split("unbiased_test", count=1, size=320, num_frames=250).frames[0, :, :240]
            write_video(videos[0], frames, options={"crf": "23"}, pixel_format="yuv420p")
        for path in videos:
            result[path.name] = {
                "sequential": sequential(path, options.repeats),
                "random": random_clips(path, options.repeats),
                "seeks": probe_video(path).seeks or "exact",
            }
        if options.long:
            write_long(Path(folder) / "long.mp4", options.seconds)
            result["long"] = {"seconds": options.seconds, "peak_mb": peak_megabytes(Path(folder) / "long.mp4")}
    if options.json:
        print(json.dumps(result))
        return
    for name, row in result.items():
        print(name, "" if name != "long" else row)
        for kind in ("sequential", "random") if name != "long" else ():
            for job, values in row[kind].items():  # type: ignore[index]
                print(f"  {kind:11s}{job:22s}", "  ".join(f"{key} {value}" for key, value in values.items()))


if __name__ == "__main__":
    main()
