"""What heat maps are made of: the runs, the store, those of its clips that are chosen, and the probes of a class.

Letters: T frames of a clip, H, W pixels of a stored frame.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.errors import BgaugError, MasksError, UsageError
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import load_run
from bgaug.model.pretrained import NOTHING_SAID, Word
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.evaluate.clips import longest_shot
from bgaug.pipelines.evaluate.embed import is_store, store_frames
from bgaug.pipelines.heatmap.clip_masks import ClipMasks, ForeignTruth, StoreTruth
from bgaug.pipelines.heatmap.clip_probe import ClipProbe, fit_probes
from bgaug.pipelines.heatmap.options import MAPS, HeatmapOptions
from bgaug.progress import Progress
from bgaug.store import Store, open_store


@dataclass(frozen=True, eq=False)
class Run:
    """A trained encoder that is looked through.

    Attributes:
        title: short and its own.
        learner: in evaluation mode, frozen, on its device.
        config: of the run.
        checkpoint: the file that it comes from.
        sha256: hash of that file.
    """

    title: str
    learner: ContrastiveLearner
    config: Mapping[str, Any]
    checkpoint: Path
    sha256: str

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.learner.parameters()).device


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip of a store's video.

    Attributes:
        video: its index in the store.
        id: of the video.
        indices: int64 (T,), its frames.
        frames: uint8 (1, T, H, W, 3).
        box: int64 (1, 4), where the picture lies in a frame.
        masks: what is known of its foreground.
    """

    video: int
    id: str
    indices: NDArray[np.int64]
    frames: Tensor
    box: Tensor
    masks: ClipMasks

    @property
    def side(self) -> int:
        """Pixels of the stored frames' centre square."""
        return int(self.box[0, 2:].min())


def load_runs(paths: Sequence[Path], device: str | None, progress: Progress, word: Word = NOTHING_SAID) -> list[Run]:
    """The runs, warned of where they were trained on other clips than the first, whose clips all of them see."""
    runs = []
    for title, path in zip(_short_names(paths), paths, strict=True):
        loaded = load_run(path, device=device, word=word)
        config = loaded.config
        runs.append(Run(title, loaded.learner.requires_grad_(False), config, loaded.checkpoint, loaded.sha256))
        for name, what in (("num_frames", "frames"), ("stride", "a stride")):
            if config[name] != runs[0].config[name]:
                progress.warn(
                    f"{title} was trained on {what} of {config[name]}, and is shown those of {runs[0].title}, "
                    f"{runs[0].config[name]}"
                )
    return runs


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UsageError("the same run was named twice")


@contextmanager
def opened_store(
    inputs: Sequence[str], progress: Progress, in_process: bool
) -> Iterator[tuple[Store, dict[str, str], bool]]:
    """The store, the videos that failed, and whether the store is the user's own."""
    if is_store(inputs):
        yield open_store(inputs[0]), {}, True
        return
    with tempfile.TemporaryDirectory(prefix="bgaug-") as folder:
        root = Path(folder) / "shards"
        options = ShardOptions(
            inputs=[Path(item) for item in inputs], out=root, jobs=1, in_process=in_process, frames="raw"
        )
        outcome = build_shards(options, progress)
        failures = {failure.id: f"{failure.message} [{failure.reason}]" for failure in outcome.failures}
        store = open_store(root)
        if not len(store):
            name, why = next(iter(failures.items()))
            raise BgaugError(f"none of {len(failures)} videos can be used; the first: {name}: {why}")
        yield store, failures, False


def maps_wanted(options: HeatmapOptions, store: Store, is_ours: bool) -> tuple[str, ...]:
    """The maps; one that needs a probe is refused where there is nothing to fit it on."""
    can = options.probe is not None or (is_ours and bool((store.columns.label >= 0).any()))
    if options.maps is None:
        return MAPS if can else MAPS[1:]
    if "cam" in options.maps and not can:
        what = f"{store.path} has no labelled videos" if is_ours else "video files have no probe"
        raise UsageError(f"{what}: class maps need a labelled store, --probe STORE; or take --map activation")
    return tuple(dict.fromkeys(options.maps))


def run_probes(
    runs: Sequence[Run], maps: Sequence[str], options: HeatmapOptions, store: Store, is_ours: bool, progress: Progress
) -> list[ClipProbe | None]:
    """A probe a run for "cam"; where it is fitted on the very store that is shown, what is shown is held out."""
    if "cam" not in maps:
        return [None] * len(runs)
    labelled = open_store(options.probe) if options.probe is not None else store
    own = options.probe is None and is_ours
    return [
        fit_probes(run.learner, run.config, labelled, progress, hold_out=own, feature=options.feature) for run in runs
    ]


def chosen_clips(
    run: Run, store: Store, truth: StoreTruth | ForeignTruth, options: HeatmapOptions, cam: bool
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Videos and the frames of their clips."""
    videos = np.array(truth.videos, np.int64)
    if cam and options.probe is None and {"train", "test"} <= set(store.names.splits):
        held = videos[store.columns.split[videos] == store.names.splits.index("test")]
        videos = held if len(held) else videos
    if options.target == "true":
        videos = videos[store.columns.label[videos] >= 0]
    if not len(videos):
        raise UsageError(f"{store.path} holds no video to show: none is labelled, which --target true asks for")
    if 0 < options.videos < len(videos):
        videos = videos[np.unique(np.linspace(0, len(videos) - 1, options.videos).round().astype(int))]
    for video in videos.tolist():
        shot = longest_shot([(int(s[0]), int(s[1])) for s in store.shots(video)])
        for indices in store_frames(store, video, run.config, options.clips):
            yield video, truth.moved(video, indices, shot)


def read_clip(
    store: Store,
    truth: StoreTruth | ForeignTruth,
    video: int,
    indices: NDArray[np.int64],
    failures: dict[str, str],
    progress: Progress,
) -> Clip:
    """The clip; masks that cannot be used are warned of, told among the failures, and left out."""
    name = store.video_id(video)
    try:
        masks = truth.masks(video, indices)
    except MasksError as error:
        if name not in failures:
            progress.warn(f"{name} is shown without numbers: {error}")
        failures[name] = str(error)
        masks = ClipMasks.none(len(indices), store.size)
    frames = torch.from_numpy(store.frames_at(video, indices))[None]
    return Clip(video, name, indices, frames, torch.tensor([store.content_box(video)]), masks)
