"""Random training clips from stores, through other readers and from videos; `ClipLoader` against worker processes.

python benchmarks/serve.py [VIDEOS [STORE]] [--quick] [--json]

CPU time and speed of clips of 16 frames, every frame and every fourth, by one thread, from a warm cache. Readers take
turns, in another order every round. Times are medians over rounds, ratios are medians of the ratios within a round,
spreads are (largest - least) / median. Before they are timed, frames are compared with those of the store.

Without VIDEOS, scenarios of 320x240 are generated: textured scenes with walkers and camera noise, before a camera that
stands still, trembles or pans. x264 (veryfast, crf 23) encodes them with a keyframe every 250 frames, and again with
one every 12. A frame takes 480 to 900 bytes, with many keyframes 1,500 to 2,200, 0.2 to 0.4 ms to decode, and 6.5 to
7.2 kB as JPEG of 128x171; real clips brought to that size and encoded likewise took 450 to 1,700 bytes, 0.2 to 0.6 ms
and 5 to 8.5 kB. VIDEOS is a folder of others, of some seconds each, STORE what `bgaug build-shards` made of it; at most
24 of its videos are read.

    memmap       numpy's memmap over bare frames of the same size, copied into a given buffer: the limit
    raw jpeg     bgaug, frames of a store into a given buffer
    masks        bgaug, packed masks
    zarr         zarr-python on the arrays of the raw store, opened once
    tensorstore  likewise, where it is installed
    decord pyav  open, seek and decode the video, resized to the store's size
    webdataset   tar of JPEG pictures, a video a sample, read in order, a clip of each decoded; where it is installed

The loaders give batches of 32 clips with masks and backgrounds, in the same order: by two threads, and by two worker
processes of torch's DataLoader. Their CPU time is that of all processes; what starting up costs is taken off, by
running two lengths.
"""

import os

# Before torch is loaded, as the command line does: idle threads that spin would be counted.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0")
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import itertools
import json
import platform
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
import zarr
from build import QUALITY, SCENES, Content, add, begin, plain_background
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.data.loader import ClipLoader
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.store import FrameKind, ShardWriter, Store, finish_store, open_store
from bgaug.testing.scenarios import make_scenario
from bgaug.video import write_video

FRAMES, STRIDES = 16, (1, 4)
GOPS = (250, 12)
MAX_VIDEOS, SHARD_VIDEOS = 24, 8
BATCH, THREADS = 32, 2

Read = Callable[[int, int, int], NDArray[np.uint8]]
"""Index of a video, first frame, stride: uint8 (FRAMES, ...)."""
Clip = tuple[int, int, int]


@dataclass(frozen=True)
class Amount:
    """How much is measured.

    Attributes:
        videos: generated.
        num_frames: of each.
        rounds: in which every reader has its turn.
        seconds: CPU seconds of a turn, as far as `least_clips` fit in.
        least_clips: of a turn.
        loader_videos: of an epoch of the loaders.
        loader_frames: of each of them.
        loader_epochs: by which the second run is longer than the first; twice that for raw frames, which are faster.
        loader_repeats: of each loader.
    """

    videos: int
    num_frames: int
    rounds: int
    seconds: float
    least_clips: int
    loader_videos: int
    loader_frames: int
    loader_epochs: int
    loader_repeats: int


FULL = Amount(12, 250, 5, 0.3, 18, 256, 40, 4, 5)
QUICK = Amount(3, 200, 3, 0.05, 3, 64, 32, 2, 3)


@dataclass(frozen=True)
class Corpus:
    """The same videos as files and as stores; they have the same indices in all of them.

    Attributes:
        folder: for files to compare with.
        files: video files by a word for them, "" or how often they have keyframes; in order of index.
        raw: store of raw frames.
        jpeg: store of JPEG frames.
    """

    folder: Path
    files: dict[str, list[Path]]
    raw: Store
    jpeg: Store

    def __len__(self) -> int:
        return len(self.files[next(iter(self.files))])

    def clips(self, stride: int, count: int) -> list[Clip]:
        """Clips of random videos at random places; any few neighbours among them are of all videos, at places apart."""
        rng = np.random.default_rng(stride)
        span = (FRAMES - 1) * stride + 1
        long_enough = [video for video in range(len(self)) if self.raw.num_frames(video) >= span]
        if not long_enough:
            return []
        places = (rng.random() + np.arange(count) * (5**0.5 - 1) / 2) % 1  # the golden ratio leaves no large gaps
        videos = [video for _ in range(count) for video in rng.permutation(long_enough).tolist()]
        return [
            (video, int(place * (self.raw.num_frames(video) - span + 1)), stride)
            for video, place in zip(videos, places.tolist(), strict=False)
        ]


def encode(folder: Path, num_frames: int, number: int) -> None:
    """One scenario, as a video of each GOP."""
    cv2.setNumThreads(1)
    frames = make_scenario(SCENES[number % len(SCENES)], number, (240, 320), num_frames).frames
    for gop in GOPS:
        options = {"preset": "veryfast", "crf": "23", "g": str(gop)}
        write_video(folder / f"gop{gop}" / f"{number:02d}.mp4", frames, options=options, pixel_format="yuv420p")


def generate(folder: Path, amount: Amount) -> dict[str, Path]:
    """Folders of the same videos, by their GOP."""
    folders = {f"gop{gop}": folder / f"gop{gop}" for gop in GOPS}
    for path in folders.values():
        path.mkdir()
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(partial(encode, folder, amount.num_frames), range(amount.videos)))
    return folders


def build(folder: Path, videos: dict[str, Path], path: Path | None) -> Corpus:
    """Both stores: the one that is there or that is built, and its frames written in the other way."""
    if path is None:
        path = folder / "raw"
        options = VideoOptions(method="median", shots=False)
        source = next(iter(videos.values()))
        build_shards(ShardOptions(inputs=[source], out=path, in_process=True, video=options, frames="raw"), Silent())
    store = open_store(path)
    count = min(len(store), MAX_VIDEOS)
    kind: FrameKind = "jpeg" if store.header.frames == "raw" else "raw"
    other = rewrite(store, folder / kind, kind, [(video, 0, store.num_frames(video)) for video in range(count)])
    files = {word: [where / store.video_id(video) for video in range(count)] for word, where in videos.items()}
    return Corpus(folder, files, *((store, other) if kind == "jpeg" else (other, store)))


def rewrite(store: Store, root: Path, kind: FrameKind, pieces: Sequence[tuple[int, int, int]]) -> Store:
    """A store whose videos are pieces of another's: (video, first frame, frames), one shot each."""
    names = [f"{number:06d}" for number in range(len(pieces))]
    shards = [names[first : first + SHARD_VIDEOS] for first in range(0, len(names), SHARD_VIDEOS)]
    header = begin(root, kind, shards, store.size)
    for shard, videos in enumerate(shards):
        with ShardWriter(root, header, shard) as writer:
            for name in videos:
                add(writer, header, name, content_of(store, *pieces[int(name)]))
            writer.commit()
    finish_store(root)
    return open_store(root)


def content_of(store: Store, video: int, start: int, count: int) -> Content:
    """Frames and masks of a part of a video, with the background of its first shot, if that has one."""
    frames = store.clip(video, start, count)
    known = store.shots(video)[0, 2] >= 0
    background = store.background(video) if known else plain_background(frames[0])
    return Content(frames, store.masks(video, start, count), background)


# Readers.


def by_memmap(corpus: Corpus) -> Read:
    """All frames in one bare file."""
    store, path = corpus.raw, corpus.folder / "frames"
    lengths = [store.num_frames(video) for video in range(len(corpus))]
    with open(path, "wb") as file:
        file.writelines(store.clip(video, 0, length).tobytes() for video, length in enumerate(lengths))
    frames = np.memmap(path, np.uint8, "r", shape=(sum(lengths), *store.size, 3))
    firsts = np.cumsum([0, *lengths]).tolist()
    out = np.empty((FRAMES, *store.size, 3), np.uint8)

    def read(video: int, start: int, stride: int) -> NDArray[np.uint8]:
        first = firsts[video] + start
        np.copyto(out, frames[first : first + (FRAMES - 1) * stride + 1 : stride])
        return out

    return read


def by_store(store: Store) -> Read:
    """Frames of a store into a given buffer."""
    out = np.empty((FRAMES, *store.size, 3), np.uint8)
    return lambda video, start, stride: store.clip(video, start, FRAMES, stride, out=out)


def by_masks(store: Store) -> Read:
    """Packed masks of a store."""
    return lambda video, start, stride: store.packed_masks(video, start, FRAMES, stride)


def by_array(corpus: Corpus, opened: Callable[[Path], Any], read_slice: Callable[[Any, slice], Any]) -> Read:
    """Another library on the arrays of the raw store; `opened` opens that of a shard's folder, once."""
    store = corpus.raw
    shards = store.shard_of(np.arange(len(corpus))).tolist()
    arrays = {shard: opened(Path(store.path) / "shards" / f"{shard:05d}") for shard in set(shards)}
    places = [(arrays[shard], store.row(video).start) for video, shard in enumerate(shards)]

    def read(video: int, start: int, stride: int) -> NDArray[np.uint8]:
        array, first = places[video][0], places[video][1] + start
        return np.asarray(read_slice(array, slice(first, first + (FRAMES - 1) * stride + 1, stride)))

    return read


def by_zarr(corpus: Corpus, name: str) -> Read:
    """Zarr-python."""
    return by_array(corpus, lambda shard: zarr.open_group(shard, mode="r")[name], lambda array, part: array[part])


def by_tensorstore(corpus: Corpus) -> Read:
    """Tensorstore, on one thread."""
    import tensorstore

    context = {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}

    def opened(shard: Path) -> Any:
        where = {"driver": "file", "path": str(shard / "frames")}
        return tensorstore.open({"driver": "zarr3", "kvstore": where, "context": context}, read=True).result()

    return by_array(corpus, opened, lambda array, part: array[part].read().result())


def by_decord(corpus: Corpus, word: str) -> Read:
    """Open, seek, decode and resize with decord."""
    import decord

    height, width = corpus.raw.size
    paths = [str(path) for path in corpus.files[word]]

    def read(video: int, start: int, stride: int) -> NDArray[np.uint8]:
        reader = decord.VideoReader(paths[video], width=width, height=height, num_threads=1)
        frames: NDArray[np.uint8] = reader.get_batch(range(start, start + FRAMES * stride, stride)).asnumpy()
        return frames

    return read


def by_pyav(corpus: Corpus, word: str) -> Read:
    """Open, seek to the keyframe, decode from there on and resize with PyAV; frames are told by their times."""
    store, (height, width) = corpus.raw, corpus.raw.size
    paths = [str(path) for path in corpus.files[word]]
    out = np.empty((FRAMES, height, width, 3), np.uint8)

    def read(video: int, start: int, stride: int) -> NDArray[np.uint8]:
        times = iter((store.pts_seconds(video, start, FRAMES, stride) - 1e-3).tolist())
        wanted, taken = next(times), 0
        with av.open(paths[video]) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            container.seek(int(wanted / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time < wanted:
                    continue
                out[taken] = frame.reformat(width, height, "rgb24").to_ndarray()
                wanted, taken = next(times, float("inf")), taken + 1
                if taken == FRAMES:
                    break
        return out

    return read


def by_webdataset(corpus: Corpus) -> Read:
    """The next video of a tar, whatever is asked for, and a clip of it decoded."""
    import webdataset

    store, path = corpus.jpeg, corpus.folder / "videos.tar"
    with tarfile.open(path, "w") as tar:
        for video in range(len(corpus)):
            for frame, image in enumerate(store.clip(video, 0, store.num_frames(video))):
                data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), QUALITY)[1].tobytes()
                entry = tarfile.TarInfo(f"{video:06d}.{frame:06d}.jpg")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    dataset = webdataset.WebDataset(str(path), shardshuffle=False)
    samples: Iterator[dict[str, Any]] = itertools.chain.from_iterable(itertools.repeat(dataset))
    out = np.empty((FRAMES, *store.size, 3), np.uint8)

    def read(video: int, start: int, stride: int) -> NDArray[np.uint8]:
        sample = next(samples)
        pictures = [sample[key] for key in sorted(key for key in sample if key.endswith("jpg"))]
        start %= max(1, len(pictures) - (FRAMES - 1) * stride)
        for slot, data in enumerate(pictures[start : start + FRAMES * stride : stride]):
            picture: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=out[slot])
        return out

    return read


def installed(name: str) -> bool:
    """Whether a peer is there; says so if not."""
    found = importlib.util.find_spec(name) is not None
    if not found:
        print(f"{name} is not installed: left out", file=sys.stderr)
    return found


def make_readers(corpus: Corpus) -> dict[str, Read]:
    """All readers by name."""
    readers = {
        "memmap": by_memmap(corpus),
        "raw": by_store(corpus.raw),
        "jpeg": by_store(corpus.jpeg),
        "masks": by_masks(corpus.jpeg),
        "zarr": by_zarr(corpus, "frames"),
        "zarr_masks": by_zarr(corpus, "masks"),
    }
    if installed("tensorstore"):
        readers["tensorstore"] = by_tensorstore(corpus)
    for name, by in (("decord", by_decord), ("pyav", by_pyav)):
        if name == "pyav" or installed(name):
            readers |= {f"{name}_{word}".rstrip("_"): by(corpus, word) for word in corpus.files}
    if installed("webdataset"):
        readers["webdataset"] = by_webdataset(corpus)
    return readers


def check(readers: dict[str, Read], corpus: Corpus, clips: Sequence[Clip]) -> None:
    """Say which readers do not give the bytes of the raw store, or after compression the frames nearest to them."""
    store = corpus.raw
    for name, read in readers.items():
        truth = store.packed_masks if name.endswith("masks") else store.clip
        lossy = name.startswith(("jpeg", "decord", "pyav"))
        for video, start, stride in clips if name != "webdataset" else ():
            got = read(video, start, stride).astype(np.int16)
            errors = {
                shift: float(np.abs(got - truth(video, start + shift, FRAMES, stride)).mean())
                for shift in ((-1, 0, 1) if lossy else (0,))
                if 0 <= start + shift < store.num_frames(video) - (FRAMES - 1) * stride
            }
            if min(errors.values()) < 0.9 * errors[0] or (not lossy and errors[0]):
                file = next(iter(corpus.files.values()))[video].name
                print(f"{name}: not the frames asked for, of {file} from {start} on", file=sys.stderr)
                break


# Times.


@dataclass(frozen=True)
class Times:
    """Of one reader: seconds a clip, one of each round."""

    cpu: list[float]
    wall: list[float]


def timed(read: Read, clips: Sequence[Clip]) -> tuple[float, float]:
    """CPU and wall seconds a clip."""
    cpu, wall = time.process_time(), time.perf_counter()
    for clip in clips:
        read(*clip)
    return (time.process_time() - cpu) / len(clips), (time.perf_counter() - wall) / len(clips)


def measure(readers: dict[str, Read], corpus: Corpus, amount: Amount) -> dict[str, Times]:
    """All readers at all strides, in turns; each reads as many clips a round as its time allows."""
    jobs: dict[str, tuple[Read, list[Clip], int]] = {}
    for stride in STRIDES:
        clips = corpus.clips(stride, 256)
        if not clips:
            print(f"no video is long enough for a stride of {stride}: left out", file=sys.stderr)
            continue
        check(readers, corpus, clips[:2])  # which warms up, too
        for name, read in readers.items():
            each, _ = timed(read, clips[:1])
            name += "" if stride == 1 else f"_stride{stride}"
            jobs[name] = read, clips, max(amount.least_clips, round(amount.seconds / each))
    rng = np.random.default_rng(0)
    times = {name: Times([], []) for name in jobs}
    for number in range(amount.rounds):
        for name in rng.permutation(list(jobs)).tolist():
            read, clips, count = jobs[name]
            turn = [clips[place % len(clips)] for place in range(number * count, (number + 1) * count)]
            cpu, wall = timed(read, turn)
            times[name].cpu.append(cpu)
            times[name].wall.append(wall)
    return times


# Loaders.


def cpu_seconds() -> float:
    """CPU time of this process and of the ended ones that it had started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def by_clip_loader(dataset: ClipDataset, epochs: int) -> None:
    """Batches of some epochs by threads."""
    loader = ClipLoader(dataset, BATCH, threads=THREADS, prefetch=2)
    for _ in range(epochs):
        for _ in loader:
            pass


def by_dataloader(dataset: ClipDataset, epochs: int) -> None:
    """As many batches, in the same order, by worker processes; one run, so that they are started once."""
    order = ClipLoader(dataset, BATCH).order
    batches = [batch.tolist() for epoch in range(epochs) for batch in order(epoch)]
    for _ in DataLoader(dataset, batch_sampler=batches, num_workers=THREADS, collate_fn=ClipDataset.collate):
        pass


LOADERS = {"clip_loader": by_clip_loader, "dataloader": by_dataloader}


def loader_times(store: Store, epochs: int, repeats: int) -> dict[str, Times]:
    """Seconds a clip of both, without what starting costs: what `epochs` more take."""
    dataset = ClipDataset(store, ClipOptions(num_frames=FRAMES, stride=1, views=1))
    clips = epochs * (len(dataset) // BATCH) * BATCH
    times = {name: Times([], []) for name in LOADERS}
    for _ in range(repeats):
        for name, run in LOADERS.items():
            marks = [(cpu_seconds(), time.perf_counter())]
            for length in (1, 1 + epochs):
                run(dataset, length)
                marks.append((cpu_seconds(), time.perf_counter()))
            cpu, wall = ((long - 2 * short + begun) / clips for begun, short, long in zip(*marks, strict=True))
            times[name].cpu.append(cpu)
            times[name].wall.append(wall)
    return times


def measure_loaders(corpus: Corpus, amount: Amount) -> dict[str, dict[str, Times]]:
    """On stores of many short videos, which are pieces of the corpus."""
    pieces = []
    for video, start, _ in corpus.clips(1, amount.loader_videos):
        length = min(amount.loader_frames, corpus.raw.num_frames(video))
        pieces.append((video, min(start, corpus.raw.num_frames(video) - length), length))
    found: dict[str, dict[str, Times]] = {}
    kinds: tuple[tuple[FrameKind, int], ...] = (("raw", 2 * amount.loader_epochs), ("jpeg", amount.loader_epochs))
    for kind, epochs in kinds:
        store = rewrite(corpus.raw, corpus.folder / f"loader-{kind}", kind, pieces)
        found[kind] = loader_times(store, epochs, amount.loader_repeats)
    return found


# What it comes to.


def ratio(above: Times, below: Times) -> float:
    """Of CPU times, within each round."""
    return float(np.median([a / b for a, b in zip(above.cpu, below.cpu, strict=True)]))


def spread(values: list[float]) -> float:
    """(Largest - least) / median."""
    return float((max(values) - min(values)) / np.median(values))


def ratios(times: dict[str, Times], loaders: dict[str, dict[str, Times]]) -> dict[str, float]:
    """What readers are compared by."""
    videos = [name for name in times if name.startswith(("decord", "pyav")) and not name.endswith("_stride4")]
    pairs = [("raw", "memmap"), ("zarr", "raw"), ("zarr_masks", "masks"), ("tensorstore", "raw"), ("masks", "jpeg")]
    pairs += [(name, below) for below in ("jpeg", "raw") for name in videos] + [("webdataset", "jpeg")]
    found = {
        f"{above}_over_{below}{end}": ratio(times[above + end], times[below + end])
        for end in ("", "_stride4")
        for above, below in pairs
        if above + end in times
    }
    for kind, own in loaders.items():
        found[f"dataloader_over_clip_loader_{kind}"] = ratio(own["dataloader"], own["clip_loader"])
    return {name: round(value, 3) for name, value in found.items()}


def mask_bytes(store: Store) -> dict[str, float]:
    """Bytes that masks take on the disk."""
    count = sum(store.num_frames(video) for video in range(len(store)))
    size = sum(path.stat().st_size for path in (Path(store.path) / "shards").glob("*/masks/**/*") if path.is_file())
    height, width = store.size
    return {
        "packed_on_disk_per_video": round(size / len(store)),
        "uint8_over_disk": round(count * height * width / size, 2),
    }


def machine() -> dict[str, Any]:
    """Where it was measured."""
    packages = ("numpy", "opencv-python", "zarr", "torch", "av", "decord", "tensorstore", "webdataset")
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version(), **found}


def result_of(corpus: Corpus, times: dict[str, Times], loaders: dict[str, dict[str, Times]]) -> dict[str, Any]:
    """Everything, as it is printed for `--json`."""
    return {
        "cpu_ms_per_clip": {name: round(1000 * float(np.median(own.cpu)), 4) for name, own in times.items()},
        "spread": {name: round(spread(own.cpu), 3) for name, own in times.items()},
        "clips_per_second": {name: round(1 / float(np.median(own.wall)), 1) for name, own in times.items()},
        "loader": {
            kind: {name: round(1000 * float(np.median(one.cpu)), 4) for name, one in own.items()}
            for kind, own in loaders.items()
        },
        "loader_spread": {
            kind: {name: round(spread(one.cpu), 3) for name, one in own.items()} for kind, own in loaders.items()
        },
        "loader_clips_per_second": {
            kind: {name: round(1 / float(np.median(one.wall)), 1) for name, one in own.items()}
            for kind, own in loaders.items()
        },
        "ratios": ratios(times, loaders),
        "mask_bytes": mask_bytes(corpus.jpeg),
        "size": list(corpus.raw.size),
        "machine": machine(),
    }


def show(result: dict[str, Any]) -> None:
    """The tables."""
    print(f"clips of {FRAMES} frames of {result['size'][0]}x{result['size'][1]}; CPU of one thread, warm cache")
    print(f"{'':22s}{'every frame':>30s}{'every fourth':>30s}")
    for name in (name for name in result["cpu_ms_per_clip"] if not name.endswith("_stride4")):
        line = f"  {name:20s}"
        for key in (name, f"{name}_stride4"):
            if key in result["cpu_ms_per_clip"]:
                cpu, fast = result["cpu_ms_per_clip"][key], result["clips_per_second"][key]
                line += f"{cpu:9.3f} ms +-{result['spread'][key] / 2:4.0%}{fast:9.0f}/s"
        print(line)
    print(f"batches of {BATCH} clips with masks and backgrounds; CPU of all processes")
    for kind, own in result["loader"].items():
        for name, cpu in own.items():
            fast, wide = result["loader_clips_per_second"][kind][name], result["loader_spread"][kind][name]
            print(f"  {kind:5s}{name:15s}{cpu:9.3f} ms +-{wide / 2:4.0%}{fast:9.0f}/s")
    print(f"{'ratios of CPU time':40s}{'every frame':>14s}{'every fourth':>14s}")
    for name, value in result["ratios"].items():
        if not name.endswith("_stride4"):
            other = result["ratios"].get(f"{name}_stride4")
            print(f"  {name.replace('_over_', ' / '):38s}{value:14.2f}" + (f"{other:14.2f}" if other else ""))
    sizes = result["mask_bytes"]
    size, less = sizes["packed_on_disk_per_video"], sizes["uint8_over_disk"]
    print(f"masks take {size:,} bytes a video, {less} x less than with a byte a pixel")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="?", type=Path)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true", help="less of everything: half a minute")
    parser.add_argument("--json", action="store_true", help="one object as the last line instead of tables")
    options = parser.parse_args()
    amount = QUICK if options.quick else FULL
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = {"": options.videos} if options.videos else generate(folder, amount)
        corpus = build(folder, videos, options.store)
        # Before other libraries start threads of their own, which worker processes would inherit.
        loaders = measure_loaders(corpus, amount)
        times = measure(make_readers(corpus), corpus, amount)
        result = result_of(corpus, times, loaders)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
