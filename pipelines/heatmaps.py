"""`bgaug heatmap`: where encoders look on the same clips, as pictures, films and numbers.

Letters: T frames of a clip, H, W pixels of a stored frame, S side of the centre crop, K classes.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug import __version__
from bgaug.augment import centre_crop
from bgaug.encoders import file_sha256, find_checkpoint
from bgaug.errors import BgaugError, MasksError, UsageError
from bgaug.evaluate import bootstrap_interval
from bgaug.heatmap import activation_map, centre_crop_masks, grad_cam, localisation, stretch, upsample
from bgaug.mask.foreign import Values
from bgaug.model import ContrastiveLearner
from bgaug.pipelines.build_shards import build_shards
from bgaug.pipelines.clip_masks import ClipMasks, ForeignTruth, StoreTruth
from bgaug.pipelines.clip_probe import ClipProbe, fit_probes
from bgaug.pipelines.clips import longest_shot
from bgaug.pipelines.each_video import Setup
from bgaug.pipelines.embed import is_store, store_frames
from bgaug.pipelines.progress import Progress
from bgaug.pipelines.train import load_learner
from bgaug.store import Store, open_store
from bgaug.store.layout import write_durably
from bgaug.visualize import HeatmapRow, heatmap_film, heatmap_sheet, write_film, write_picture

MAPS = ("cam", "activation", "saliency")
NUMBERS = ("energy", "energy_ratio", "pointing", "ring", "ring_ratio", "far", "far_ratio", "iou")
RESULT = "heatmaps.json"
SHEET = "sheet.png"
_SHEET_ROWS = 40
_TITLE = 20


@dataclass(frozen=True)
class HeatmapOptions:
    """Which maps, of which clips, held against what.

    Attributes:
        maps: of `MAPS`; by default all, but for "cam" where nothing is labelled.
        stage: that "cam" and "activation" are taken from; by default the second for "cam", the last for "activation".
        videos: number of videos, spread evenly over those there are; 0 for all.
        clips: of each video, evenly spaced.
        target: the class of "cam": what the probe predicts ("predicted"), the video's own ("true"), or one by name.
        probe: labelled store that the probe is fitted on; by default the store itself, what is shown held out.
        masks: true masks, as `bgaug import` reads them, in place of the store's own.
        first: number of a video's first frame in the names of masks.
        values: what pixels of masks mean.
        films: write a film a clip.

    Raises:
        UsageError: a value out of its range.
    """

    maps: tuple[str, ...] | None = None
    stage: str | None = None
    videos: int = 12
    clips: int = 1
    target: str = "predicted"
    probe: str | None = None
    masks: Path | None = None
    first: int = 0
    values: Values = "nonzero"
    films: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.maps or () if name not in MAPS]
        if unknown or self.maps == ():
            raise UsageError(f"maps are {', '.join(MAPS)}; got {', '.join(unknown) or 'none'}")
        if self.videos < 0 or self.clips < 1:
            raise UsageError(f"videos must be 0 (all) or more and clips 1 or more, got {self.videos} and {self.clips}")


@dataclass(frozen=True, eq=False)
class Looked:
    """What `heatmap` reports.

    Attributes:
        out: the folder.
        clips: that were looked at.
        videos: they come from.
        masks: what the maps were held against.
        numbers: by map, run and number: {"mean", "low", "high", "clips"}, over the clips for which all runs have an answer;
            low and high are a 95 % interval over groups.
        differences: by map and run, likewise: its numbers less those of the first run.
        failures: videos that could not be used, or whose masks could not, and why.
        settings: how all that was come by.
    """

    out: Path
    clips: int
    videos: int
    masks: str
    numbers: Mapping[str, Mapping[str, Mapping[str, Any]]]
    differences: Mapping[str, Mapping[str, Mapping[str, Any]]]
    failures: Mapping[str, str]
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "out": str(self.out),
            "sheet": str(self.out / SHEET),
            "clips": self.clips,
            "videos": self.videos,
            "masks": self.masks,
            "numbers": self.numbers,
            "differences": self.differences,
            "failed": len(self.failures),
            "failures": dict(self.failures),
            "settings": dict(self.settings),
        }


@dataclass(frozen=True, eq=False)
class Run:
    """A trained encoder that is looked through.

    Attributes:
        title: short and its own.
        learner: in evaluation mode, frozen, on its device.
        config: of the run.
        checkpoint: the file that it comes from.
    """

    title: str
    learner: ContrastiveLearner
    config: Mapping[str, Any]
    checkpoint: Path

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


@dataclass
class _Kept:
    """What is gathered while clips go by."""

    rows: list[HeatmapRow] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)


def heatmap(
    run: Path,
    inputs: Sequence[str],
    out: Path,
    progress: Progress,
    *,
    against: Sequence[Path] = (),
    options: HeatmapOptions | None = None,
    device: str | None = None,
    overwrite: bool = False,
    in_process: bool = False,
) -> Looked:
    """Draw what encoders look at on the same clips, and tell how much of it is the foreground.

    All runs see the frames that the first one's configuration says, each at its own crop.

    Args:
        run: folder that `train` made, or one checkpoint.
        inputs: one store (its folder or URL), or videos; of those a store is built for the time being, and the masks are
            bgaug's.
        out: folder for sheet.png, a film a clip, and heatmaps.json.
        progress: receives what happens.
        against: other runs.
        options: which maps, of which clips, held against what.
        device: by default CUDA where there is one, else the CPU.
        overwrite: replace the result of an earlier call.
        in_process: read videos in this very process.

    Raises:
        UsageError: nothing labelled where a class is asked for, no such stage, or `out` holds a result.
        MasksError: masks from elsewhere cannot be understood, or belong to no video.
        CheckpointError: a run cannot be read.
        StoreError: a store cannot be read.
    """
    options = options or HeatmapOptions()
    out = out.resolve()
    _check_out(out, overwrite)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    runs = _load_runs([run, *against], where, progress)
    with _opened(inputs, progress, in_process) as (store, failures, is_ours):
        if store.header.frames == "none":
            raise UsageError(f"{store.path} keeps no frames; make a store to train from with `bgaug build-shards`")
        maps = _maps_wanted(options, store, is_ours)
        truth = (
            ForeignTruth(store, options.masks, options.first, options.values) if options.masks else StoreTruth(store)
        )
        probes = _probes(runs, maps, options, store, is_ours, progress)
        clips = list(_choose(runs[0], store, truth, options, "cam" in maps))
        kept = _Kept()
        _clear(out)
        progress.start("heat maps", len(clips))
        for number, (video, indices) in enumerate(clips):
            clip = _read(store, truth, video, indices, failures, progress)
            _look(kept, runs, probes, maps, options, store, clip, out, number)
            progress.advance(note=clip.id)
        titles = _titles(runs, maps)
        write_picture(out / SHEET, heatmap_sheet(kept.rows, titles, mask_title=truth.short))
        looked = _summary(out, kept, runs, maps, options, truth.name, failures, store)
    told = {**looked.to_json(), "clips": kept.told}
    write_durably(out / RESULT, json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False).encode())
    return looked


# --- what is looked at ----------------------------------------------------------------------------------------------


def _check_out(out: Path, overwrite: bool) -> None:
    if (out / RESULT).exists() and not overwrite:
        raise UsageError(f"{out} holds heat maps already; --overwrite replaces them")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is no folder")


def _clear(out: Path) -> None:
    """Take away what an earlier call wrote, so that nothing of it lies between the new."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        told = json.loads((out / RESULT).read_text("utf-8"))
        films = [Path(str(clip["film"])).name for clip in told["clips"] if clip.get("film")]
    except (OSError, ValueError, KeyError, TypeError):
        films = []
    for name in [RESULT, SHEET, *films]:
        (out / name).unlink(missing_ok=True)


def _load_runs(paths: Sequence[Path], device: torch.device, progress: Progress) -> list[Run]:
    runs = []
    for title, path in zip(_short_names(paths), paths, strict=True):
        checkpoint = find_checkpoint(path)
        learner, config = load_learner(checkpoint)
        runs.append(Run(title, learner.requires_grad_(False).to(device), config, checkpoint))
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
def _opened(
    inputs: Sequence[str], progress: Progress, in_process: bool
) -> Iterator[tuple[Store, dict[str, str], bool]]:
    """The store, the videos that failed, and whether the store is the user's own."""
    if is_store(inputs):
        yield open_store(inputs[0]), {}, True
        return
    with tempfile.TemporaryDirectory(prefix="bgaug-") as folder:
        root = Path(folder) / "shards"
        setup = Setup([Path(item) for item in inputs], root, jobs=1, in_process=in_process)
        outcome = build_shards(setup, progress, frames="raw")
        failures = {failure.id: f"{failure.message} [{failure.reason}]" for failure in outcome.failures}
        store = open_store(root)
        if not len(store):
            name, why = next(iter(failures.items()))
            raise BgaugError(f"none of {len(failures)} videos can be used; the first: {name}: {why}")
        yield store, failures, False


def _maps_wanted(options: HeatmapOptions, store: Store, is_ours: bool) -> tuple[str, ...]:
    """The maps; one that needs a probe is refused where there is nothing to fit it on."""
    can = options.probe is not None or (is_ours and bool((store.columns.label >= 0).any()))
    if options.maps is None:
        return MAPS if can else MAPS[1:]
    if "cam" in options.maps and not can:
        what = f"{store.path} has no labelled videos" if is_ours else "video files have no probe"
        raise UsageError(f"{what}: class maps need a labelled store, --probe STORE; or take --map activation")
    return tuple(dict.fromkeys(options.maps))


def _probes(
    runs: Sequence[Run], maps: Sequence[str], options: HeatmapOptions, store: Store, is_ours: bool, progress: Progress
) -> list[ClipProbe | None]:
    if "cam" not in maps:
        return [None] * len(runs)
    labelled = open_store(options.probe) if options.probe is not None else store
    own = options.probe is None and is_ours
    return [fit_probes(run.learner, run.config, labelled, progress, hold_out=own) for run in runs]


def _choose(
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


def _read(
    store: Store,
    truth: StoreTruth | ForeignTruth,
    video: int,
    indices: NDArray[np.int64],
    failures: dict[str, str],
    progress: Progress,
) -> Clip:
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


# --- what an encoder makes of a clip --------------------------------------------------------------------------------


def encoder_maps(
    run: Run, clip: Clip, maps: Sequence[str], stage: str | None, probe: ClipProbe | None, target: str | int | None
) -> tuple[dict[str, Tensor], int | None]:
    """Maps of one clip, on the CPU, 0 or more, and the class that "cam" speaks of.

    Args:
        run: the encoder.
        clip: the clip.
        maps: of `MAPS`.
        stage: see `HeatmapOptions`.
        probe: of the encoder's features, for "cam".
        target: the class of "cam"; None for what the probe predicts.

    Returns:
        By map, float32 (1, T', H', W') by frame, or (1, H', W') of "saliency".

    Raises:
        UsageError: no such stage.
    """
    crop = centre_crop(clip.frames.to(run.device), clip.box.to(run.device), run.config["crop"])
    # Gradient of the clip alone: weights keep none.
    with torch.set_grad_enabled("cam" in maps):
        stages: dict[str, Tensor] = run.learner.encoder.backbone(crop.requires_grad_("cam" in maps))
    names = list(stages)
    if stage is not None and stage not in stages:
        raise UsageError(f"{run.title} has no stage {stage!r}; it has {', '.join(names)}")
    found: dict[str, Tensor] = {}
    label = None
    if "cam" in maps:
        assert probe is not None
        with torch.enable_grad():
            code = stages[names[-1]].mean(dim=2).float().mean(dim=(2, 3))
            weight, label = probe.weight(clip.id, code.detach().cpu().numpy(), target)
            score = code @ torch.from_numpy(weight).to(code)
            found["cam"] = grad_cam(stages[stage or names[1]], score).cpu()
    with torch.no_grad():
        if "activation" in maps:
            found["activation"] = activation_map(stages[stage or names[-1]].detach()).cpu()
        if "saliency" in maps:
            still = {name: value.detach() for name, value in stages.items()}
            found["saliency"] = run.learner.encoder.decomposition(still).saliency.float().cpu()
    return {name: found[name] for name in maps}, label


def pixel_map(name: str, heat: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map at the size of pixels, in [0, 1]: what is drawn, and what is scored.

    "cam" keeps its zero, which says that nothing speaks for the class; the others are stretched, see
    `bgaug.heatmap.stretch`.

    Args:
        name: of `MAPS`.
        heat: 0 or more, (1, T', H', W') or (1, H', W').
        size: (T, H, W), or (H, W).

    Returns:
        float32 (1, *size).
    """
    whole = upsample(heat, size)
    if name != "cam":
        return stretch(whole)
    return whole / whole.max().clamp(min=torch.finfo(whole.dtype).tiny)


def score_map(name: str, heat: Tensor, masks: ClipMasks, box: Tensor, size: int) -> dict[str, float]:
    """Numbers of one clip's map against the frames whose masks are known.

    Args:
        name: of `MAPS`.
        heat: 0 or more, (1, T', H', W'), held against the mask of each frame; or (1, H', W'), held against all that is
            foreground in one of them.
        masks: of the clip.
        box: where the picture lies in a frame.
        size: S, pixels that the map is brought to.

    Returns:
        `NUMBERS`, nan where there is no answer.
    """
    if not masks.there.any():
        return dict.fromkeys(NUMBERS, float("nan"))
    there = torch.from_numpy(masks.there)
    mask, unknown = (
        centre_crop_masks(torch.from_numpy(values)[None], size, box)[:, there]
        for values in (masks.foreground, masks.unknown)
    )
    known = ~unknown
    if heat.ndim == 3:
        mask, known = mask.any(dim=1), known.all(dim=1) | mask.any(dim=1)
        heat = pixel_map(name, heat, (size, size))
    else:
        heat = pixel_map(name, heat, (len(masks.there), size, size))[:, there]
    numbers = localisation(heat, mask, max(1, round(size / 16)), known=known)
    return {name: float(numbers[name]) for name in NUMBERS}


def _look(
    kept: _Kept,
    runs: Sequence[Run],
    probes: Sequence[ClipProbe | None],
    maps: Sequence[str],
    options: HeatmapOptions,
    store: Store,
    clip: Clip,
    out: Path,
    number: int,
) -> None:
    """One clip through all encoders: its numbers, its row of the sheet, its film."""
    classes = probes[0].classes if probes[0] is not None else store.header.classes
    label = int(store.columns.label[clip.video])
    own = store.header.classes[label] if label >= 0 else None
    wanted = {"predicted": None, "true": own}.get(options.target, options.target)
    size, T, side = runs[0].config["crop"], len(clip.indices), clip.side
    shown: dict[tuple[str, str], NDArray[np.float32]] = {}
    numbers: dict[str, dict[str, Any]] = {name: {} for name in maps}
    said = {}
    for run, probe in zip(runs, probes, strict=True):
        heats, column = encoder_maps(run, clip, maps, options.stage, probe, wanted)
        said[run.title] = None if column is None else classes[column]
        for name, heat in heats.items():
            numbers[name][run.title] = score_map(name, heat, clip.masks, clip.box, size)
            whole = heat[:, None].expand(-1, T, -1, -1) if heat.ndim == 3 else heat
            shown[name, run.title] = pixel_map(name, whole, (T, side, side))[0].numpy()
    pictures = (centre_crop(clip.frames, clip.box, side)[0].permute(1, 2, 3, 0) * 255).round().to(torch.uint8).numpy()
    outlines = centre_crop_masks(torch.from_numpy(clip.masks.foreground)[None], side, clip.box)[0].numpy()
    heated = [shown[name, run.title] for name in maps for run in runs]
    place = clip.masks.middle
    caption = _caption(clip, place, own, said)
    kept.rows += [HeatmapRow(pictures[place], [h[place] for h in heated], outlines[place], caption)][
        : max(0, _SHEET_ROWS - len(kept.rows))
    ]
    film = None
    if options.films:
        film = f"{number:03d}_{''.join(c if c.isalnum() or c in '-.' else '_' for c in clip.id)[-80:]}.mp4"
        masks = [mask if there else None for mask, there in zip(outlines, clip.masks.there, strict=True)]
        frames = heatmap_film(pictures, heated, masks, _titles(runs, maps), caption=caption)
        write_film(out / film, frames, max(1.0, float(store.columns.fps[clip.video]) / runs[0].config["stride"]))
    group = int(store.columns.group[clip.video])
    kept.groups.append(group if _has_groups(store) else clip.video)
    kept.told.append(
        {
            "video": clip.id,
            "frames": clip.indices.tolist(),
            "masked_frames": clip.indices[clip.masks.there].tolist(),
            "class": own,
            "class_of_map": said,
            "film": film,
            "numbers": {
                name: {title: {n: _finite(value) for n, value in one.items()} for title, one in by_run.items()}
                for name, by_run in numbers.items()
            },
        }
    )


def _caption(clip: Clip, place: int, own: str | None, said: Mapping[str, str | None]) -> str:
    named = sorted({name for name in said.values() if name is not None})
    mapped = f"  cam of {', '.join(named)}" if named else ""
    return f"{clip.id}  #{clip.indices[place]}" + (f"  {own}" if own else "") + mapped


def _titles(runs: Sequence[Run], maps: Sequence[str]) -> list[str]:
    """Of the columns: without the ending that all runs share; what is too long loses its beginning."""
    if len(runs) == 1:
        return list(maps)
    names = [run.title for run in runs]
    shared = len(os.path.commonprefix([name[::-1] for name in names]))
    if 0 < shared < min(map(len, names)):
        names = [name[:-shared].rstrip("-_./ ") for name in names]
    return [f"{name}: {title[-(_TITLE - len(name)) :]}" for name in maps for title in names]


def _has_groups(store: Store) -> bool:
    groups = store.columns.group
    return bool((groups >= 0).all()) and len(np.unique(groups)) > 1


# --- numbers --------------------------------------------------------------------------------------------------------


def _summary(
    out: Path,
    kept: _Kept,
    runs: Sequence[Run],
    maps: Sequence[str],
    options: HeatmapOptions,
    masks: str,
    failures: Mapping[str, str],
    store: Store,
) -> Looked:
    groups = np.array(kept.groups)

    def values(name: str, run: Run, number: str) -> NDArray[np.float64]:
        """Of all clips for which every run has an answer, nan for the others: so means differ by the difference."""
        told = np.array([[c["numbers"][name][r.title][number] for c in kept.told] for r in runs], np.float64)
        return np.where(np.isfinite(told).all(axis=0), told[runs.index(run)], np.nan)

    numbers = {
        name: {run.title: {n: averaged(values(name, run, n), groups) for n in NUMBERS} for run in runs} for name in maps
    }
    differences = {
        name: {
            run.title: {n: averaged(values(name, run, n) - values(name, runs[0], n), groups) for n in NUMBERS}
            for run in runs[1:]
        }
        for name in maps
    }
    settings = {
        **asdict(options),
        "masks": None if options.masks is None else str(options.masks),
        "maps": list(maps),
        "intervals_over": "groups" if _has_groups(store) else "videos",
        "runs": {
            run.title: {
                "checkpoint": str(run.checkpoint),
                "sha256": file_sha256(run.checkpoint),
                "method": run.config["method"],
                "backbone": run.config["backbone"],
                "crop": run.config["crop"],
            }
            for run in runs
        },
        "frames": runs[0].config["num_frames"],
        "stride": runs[0].config["stride"],
        "bgaug_version": __version__,
    }
    videos = len({clip["video"] for clip in kept.told})
    return Looked(out, len(kept.told), videos, masks, numbers, differences, dict(failures), settings)


def averaged(values: NDArray[np.float64], groups: NDArray[np.int64]) -> dict[str, float | int | None]:
    """Mean over the clips that have an answer, with a 95 % interval over groups; None where there is none.

    Args:
        values: (clips,), nan where there is no answer.
        groups: int (clips,), what stands or falls together.
    """
    there = np.isfinite(values)
    if not there.any():
        return {"mean": None, "low": None, "high": None, "clips": 0}
    values, groups = values[there], groups[there]
    low, high = bootstrap_interval(values, groups) if len(np.unique(groups)) > 1 else (None, None)
    return {"mean": float(values.mean()), "low": low, "high": high, "clips": int(there.sum())}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
