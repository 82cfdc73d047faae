"""What heat maps are drawn over: runs by title, the store, its chosen clips, and the foreground masks of these clips.

Letters: T frames of a clip, H, W pixels of a stored frame.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.data.clips import evaluated_shot
from bgaug.errors import BgaugError, MasksError, UsageError
from bgaug.masks.external import find_masks
from bgaug.model.checkpoint import Run, load_run
from bgaug.model.pretrained import NO_PERMISSION, CodePermission
from bgaug.names import MaskValues
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.evaluate.embed import is_store, store_clips
from bgaug.pipelines.heatmap.options import MAPS, HeatmapOptions
from bgaug.progress import Progress
from bgaug.sizing import Size
from bgaug.store import Store, open_store

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ClipMasks:
    """Foreground masks of a clip's frames.

    Attributes:
        foreground: bool (T, H, W), False where nothing is known.
        unknown: bool (T, H, W), pixels that are neither foreground nor background.
        there: bool (T,), frames that have a mask.
    """

    foreground: Bools
    unknown: Bools
    there: Bools

    @classmethod
    def none(cls, num_frames: int, size: Size) -> Self:
        """Masks of a clip without any mask."""
        empty = np.zeros((num_frames, *size), np.bool_)
        return cls(empty, empty, np.zeros(num_frames, np.bool_))

    @property
    def middle(self) -> int:
        """The frame with a mask that is nearest to the middle; the middle frame if there is none."""
        half = len(self.there) // 2
        known = np.flatnonzero(self.there)
        return int(known[np.abs(known - half).argmin()]) if len(known) else half


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip of a store's video.

    Attributes:
        video: index of the video in the store.
        id: id of the video.
        indices: int64 (T,), numbers of its frames.
        frames: uint8 (1, T, H, W, 3).
        box: int64 (1, 4), box of the content in a frame.
        masks: masks of its foreground.
    """

    video: int
    id: str
    indices: Ints
    frames: Tensor
    box: Tensor
    masks: ClipMasks

    @property
    def side(self) -> int:
        """Side of the stored frames' centre square, pixels."""
        return int(self.box[0, 2:].min())


class StoreTruth:
    """The masks of the store, one per frame: estimated by bgaug, unless others were imported.

    Attributes:
        name: description of these masks.
        short: title of their column.
        videos: indices of the videos that have masks.
    """

    name = "the store's own, which bgaug estimated unless others were imported"
    short = "store's mask"

    def __init__(self, store: Store) -> None:
        self._store = store
        self.videos = tuple(range(len(store)))

    def moved(self, video: int, indices: Ints, shot: tuple[int, int]) -> Ints:
        """The same clip: all frames have masks."""
        return indices

    def masks(self, video: int, indices: Ints) -> ClipMasks:
        """Masks of frames, int64 (T,)."""
        foreground = np.concatenate([self._store.masks(video, int(index), 1) for index in indices])
        return ClipMasks(foreground, np.zeros_like(foreground), np.ones(len(indices), np.bool_))


class ExternalTruth:
    """Masks from elsewhere, of the frames that have one; see `find_masks` for the arguments.

    Attributes:
        name: description of these masks.
        short: title of their column.
        videos: indices of the videos that have masks.

    Raises:
        MasksError: the masks cannot be understood, or belong to no video of the store.
        UsageError: an option is out of range.
    """

    short = "true mask"

    def __init__(self, store: Store, path: Path, first: int = 0, values: MaskValues = "nonzero") -> None:
        found = find_masks(path, list(store.videos), first=first, values=values)
        if not found.of:
            raise MasksError(
                path, f"holds no masks of the {len(store)} videos of {store.path}; see `bgaug import --help`"
            )
        self.name = f"{path}, on the frames that have one there"
        self._store = store
        self._of = {store.find(video_id): masks for video_id, masks in found.of.items()}
        self.videos: tuple[int, ...] = tuple(sorted(self._of))

    def moved(self, video: int, indices: Ints, shot: tuple[int, int]) -> Ints:
        """The nearest clip of the shot that contains a frame with a mask; the same clip if there is none."""
        try:
            known = self._of[video].indices_of(self._store.num_frames(video))
        except MasksError:
            return indices  # reported when the masks are read
        steps = indices - indices[0]
        begins = np.arange(shot[0], shot[1] - steps.max())
        sees = begins[np.isin(begins[:, None] + steps, known).any(axis=1)]
        return indices if not len(sees) else sees[np.abs(sees - indices[0]).argmin()] + steps

    def masks(self, video: int, indices: Ints) -> ClipMasks:
        """Masks of frames, int64 (T,).

        Raises:
            MasksError: the masks cannot be understood, or belong to another video.
        """
        masks = self._of[video]
        known = set(masks.indices_of(self._store.num_frames(video)))
        header, columns = self._store.header, self._store.columns
        source = int(columns.height[video]), int(columns.width[video])
        found = ClipMasks.none(len(indices), self._store.size)
        foreground, unknown = found.foreground.copy(), found.unknown.copy()
        with masks:
            for place, index in enumerate(indices.tolist()):
                mask = masks.frame(index) if index in known else None
                if mask is None:
                    continue
                found.there[place] = True
                foreground[place] = masks.fitted(index, mask, source, header.size, header.fit)
                without_answer = masks.unknown(index)
                if without_answer is not None:
                    unknown[place] = masks.fitted(index, without_answer, source, header.size, header.fit)
        return ClipMasks(foreground, unknown & ~foreground, found.there)


Truth = StoreTruth | ExternalTruth


def load_runs(
    paths: Sequence[Path], device: str | None, progress: Progress, permission: CodePermission = NO_PERMISSION
) -> dict[str, Run]:
    """Runs by short titles, without gradients for their weights.

    All runs get the clips of the first run; a warning names the runs that were trained on other clips.
    """
    runs: dict[str, Run] = {}
    for title, path in zip(_short_names(paths), paths, strict=True):
        run = load_run(path, device=device, permission=permission)
        # Maps need gradients of the clip only; those of the weights would take memory.
        run.learner.requires_grad_(False)
        runs[title] = run
        first, config = next(iter(runs.items())), run.config
        for name, what in (("num_frames", "frames"), ("stride", "a stride")):
            if config[name] != first[1].config[name]:
                progress.warn(
                    f"{title} was trained on {what} of {config[name]}, and gets the clips of {first[0]}, "
                    f"{first[1].config[name]}"
                )
    return runs


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as are needed to distinguish them."""
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
    """The store, the videos that failed, and whether the store is an input; else it is temporary."""
    if is_store(inputs):
        yield open_store(inputs[0]), {}, True
        return
    with tempfile.TemporaryDirectory(prefix="bgaug-") as folder:
        root = Path(folder) / "shards"
        # Raw frames: JPEG would change what the encoder sees.
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


def requested_maps(options: HeatmapOptions, store: Store, is_input: bool) -> tuple[str, ...]:
    """The maps to draw.

    Raises:
        UsageError: "cam" is requested, and there are no labelled videos to fit a probe on.
    """
    can = options.probe is not None or (is_input and bool((store.columns.label >= 0).any()))
    if options.maps is None:
        return MAPS if can else MAPS[1:]
    if "cam" in options.maps and not can:
        what = f"{store.path} has no labelled videos" if is_input else "video files have no probe"
        raise UsageError(f"{what}: class maps need a labelled store, --probe STORE; or use --map activation")
    return tuple(dict.fromkeys(options.maps))


def chosen_clips(
    config: Mapping[str, int], store: Store, truth: Truth, options: HeatmapOptions, cam: bool
) -> Iterator[tuple[int, Ints]]:
    """Index of the video, and int64 (T,) frames, of each clip to draw.

    Only videos with masks are chosen. With class maps (`cam`) and a probe that is fitted on this store, only its test
    split is.
    """
    videos = np.array(truth.videos, np.int64)
    if cam and options.probe is None and {"train", "test"} <= set(store.names.splits):
        held = videos[store.columns.split[videos] == store.names.splits.index("test")]
        videos = held if len(held) else videos
    if options.target == "true":
        videos = videos[store.columns.label[videos] >= 0]
    if not len(videos):
        raise UsageError(f"{store.path} holds no video to show: none is labelled, which --target true requires")
    if 0 < options.videos < len(videos):
        videos = videos[np.unique(np.linspace(0, len(videos) - 1, options.videos).round().astype(int))]
    for video in videos.tolist():
        start, stop = store.shots(video)[evaluated_shot(store, video) or 0, :2].tolist()
        for indices in store_clips(store, video, config, options.clips):
            yield video, truth.moved(video, indices, (start, stop))


def read_clip(
    store: Store, truth: Truth, video: int, indices: Ints, failures: dict[str, str], progress: Progress
) -> Clip:
    """Read a clip and its masks; masks that cannot be used are reported as a failure and left out."""
    name = store.video_id(video)
    try:
        masks = truth.masks(video, indices)
    except MasksError as error:
        # Reported once per video, whatever the number of its clips.
        if name not in failures:
            progress.warn(f"{name} is shown without numbers: {error}")
        failures[name] = str(error)
        masks = ClipMasks.none(len(indices), store.size)
    frames = torch.from_numpy(store.frames_at(video, indices))[None]
    return Clip(video, name, indices, frames, torch.tensor([store.content_box(video)]), masks)
