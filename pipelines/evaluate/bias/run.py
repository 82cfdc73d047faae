"""`bgaug evaluate --protocol bias`: what a run's features are worth when the background says something else.

Composites of a store's own foregrounds and masks over foreign pictures, chosen by a manifest; a linear probe on plain clips
of other videos is the classifier. See `bgaug.metrics.bias` for what the tests are.

    bias_manifest   which composites, as a file
    bias_choice     choosing them
    bias_clips      clips, masks and pictures of a store
    bias_composer   the composites, and a sheet of them
    bias_probe      the classifier and the numbers

Letters: B clips, T frames, S side of the crop, R composites, D embedding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.errors import UsageError
from bgaug.files import check_folder, check_replaceable, write_bytes
from bgaug.model.checkpoint import load_run
from bgaug.model.pretrained import NOTHING_SAID, Word, own_clips
from bgaug.pipelines.evaluate.bias.choice import Choice, DonorSource, make_manifest
from bgaug.pipelines.evaluate.bias.clips import ClipReader
from bgaug.pipelines.evaluate.bias.composer import OF_ROW, OF_VIDEO, Composer, bias_sheet
from bgaug.pipelines.evaluate.bias.manifest import Manifest, check_manifest, read_manifest, write_manifest
from bgaug.pipelines.evaluate.bias.probe import (
    Encode,
    Encoder,
    Tested,
    class_table,
    classify,
    encode_composites,
    metrics,
    scene_probe,
    train_set,
)
from bgaug.progress import Progress
from bgaug.store import Store, open_store
from bgaug.store.verify import content_hash
from bgaug.visualize import KINDS, write_picture

__all__ = [
    "BiasOptions",
    "BiasReport",
    "Composer",
    "bias_sheet",
    "evaluate_bias",
    "plan_bias",
    "read_manifest",
    "score_bias",
    "write_manifest",
]


MANIFEST, REPORT, SHEET = "manifest.json", "report.json", "sheet.png"
OWN_FILES: dict[str, tuple[bytes, ...]] = {
    MANIFEST: (b'{\n "format": "bgaug-bias"',),
    REPORT: (b'{\n "',),
    SHEET: KINDS[".png"],
}
"""What is written, and how files of an earlier evaluation begin."""


@dataclass(frozen=True)
class BiasOptions:
    """What a bias evaluation is made of; lengths are pixels of a crop of 112 and scale with the crop.

    Attributes:
        composites: of each test video, each over another picture.
        clips: of each video, whose features are averaged.
        seed: of all draws.
        donors: "backgrounds" of other videos, generated "stripes", a "bank" of the store or a "folder" of pictures.
        bank: name of the bank.
        folder: of the pictures.
        min_grade: shots graded worse are neither foregrounds nor donors, A to F; None takes all.
        min_area: test videos whose masks cover less, as a share of the clip, are left out.
        videos: test videos at most, chosen by the seed; all if None.
        scenes: pictures of the scene probe.
        scene_foregrounds: videos that it sees before each.
        grow: dilation of the masks.
        feather: sigma of their seams.
        ring: width of the ring.
        manifest: file with the test to take, in place of a new one; everything above but `folder` is then its business.
        out: folder for manifest.json, report.json and sheet.png; nothing is written if None.
        overwrite: replace files of these names in `out` whatever they are; else only those of an earlier evaluation.
        sheet_rows: composites on the sheet.
        batch_size: clips encoded at once; does not change the result.

    Raises:
        UsageError: a value out of its range.
    """

    composites: int = 3
    clips: int = 1
    seed: int = 0
    donors: DonorSource = "backgrounds"
    bank: str | None = None
    folder: Path | None = None
    min_grade: str | None = "C"
    min_area: float = 0.002
    videos: int | None = None
    scenes: int = 8
    scene_foregrounds: int = 24
    grow: float = 0.0
    feather: float = 1.0
    ring: float = 7.0
    manifest: Path | None = None
    out: Path | None = None
    overwrite: bool = False
    sheet_rows: int = 8
    batch_size: int = 16

    def __post_init__(self) -> None:
        for name in ("composites", "clips", "scenes", "sheet_rows", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("min_area", "grow", "feather", "ring", "scene_foregrounds"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.videos is not None and self.videos < 1:
            raise UsageError(f"videos must be at least 1, or None for all, got {self.videos}")


@dataclass(frozen=True, eq=False)
class BiasReport:
    """What a bias evaluation found.

    Attributes:
        metrics: percent by name; see docs/bias.md.
        settings: how they were come by.
        classes: a row a class: "class", "videos", "plain", "scuba", "contrasted", "background_only", "drop" (plain less
            scuba), "to_background" (share predicted as the donor's class, where donors have one), and the donor over
            which most was lost: "fooled_by", "fooled_by_class", "lost" (of the right class's probability, summed).
        manifest: the composites.
        names: of the composites, `id__k`, R.
        hits: by view, bool (R,): whether each composite was classified as the action.
    """

    metrics: dict[str, float]
    settings: dict[str, Any]
    classes: list[dict[str, Any]]
    manifest: Manifest
    names: tuple[str, ...] = ()
    hits: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**self.metrics, "classes": self.classes, "settings": self.settings}


def evaluate_bias(
    run: Path,
    store_path: Path,
    progress: Progress,
    *,
    options: BiasOptions | None = None,
    which: str | None = None,
    device: str | None = None,
    word: Word = NOTHING_SAID,
) -> BiasReport:
    """Evaluate a run on composites of a store's labelled videos.

    Args:
        run: folder that `train` made.
        store_path: made by `build_shards`.
        progress: receives what happens.
        options: what the test is made of.
        which: one of `bgaug.model.decomposition.FEATURES`; by default the run's own, `bgaug.model.Method.feature`.
        device: by default CUDA where there is one, else the CPU.
        word: the user's, on who builds an encoder that is none of bgaug's.

    Raises:
        UsageError: options that contradict each other or the store, too few videos, or a manifest of another store.
        CheckpointError: the run cannot be read.
        StoreError: the store cannot be read, or has no such bank.
        WriteError: `options.out` cannot be written; found out before the work where that can be.
    """
    options = options or BiasOptions()
    check_out(options)
    loaded = load_run(run, device=device, word=word)
    learner, config = loaded.learner, loaded.config
    store = open_store(store_path)
    manifest = plan_bias(store, config["num_frames"], config["stride"], config["crop"], options, progress)
    for name in ("num_frames", "stride", "crop"):
        if getattr(manifest, name) != config[name]:
            progress.warn(f"the manifest's clips have {name} {getattr(manifest, name)}; the run has {config[name]}")
    feature = which or learner.method.feature
    about = {"run": str(run), "feature": feature}

    def encode(clips: Tensor) -> Tensor:
        with own_clips(config):
            return learner.features(clips, feature)

    return score_bias(
        encode,
        store,
        manifest,
        progress,
        options=options,
        about=about,
        device=loaded.device,
    )


def plan_bias(
    store: Store,
    num_frames: int,
    stride: int,
    crop: int,
    options: BiasOptions,
    progress: Progress,
) -> Manifest:
    """The manifest that the options name, or a new one.

    Args:
        store: with frames, masks and backgrounds, in a folder.
        num_frames: of a clip, for a new manifest.
        stride: distance of the frames, likewise.
        crop: side of the centre crop, likewise.
        options: what the test is made of.
        progress: receives what happens.

    Raises:
        UsageError: the manifest cannot be read or was made for another store, or too few videos can be used.
        StoreError: the store has no such bank.
    """
    hashed = content_hash(Path(store.path))
    if options.manifest is not None:
        manifest = read_manifest(options.manifest)
        check_manifest(manifest, store, hashed, str(options.manifest))
        return manifest
    scale = crop / 112
    chosen = {name: getattr(options, name) for name in Choice.__dataclass_fields__}
    chosen |= {name: round(getattr(options, name) * scale, 4) for name in ("grow", "feather", "ring")}
    # Always on the CPU: another device may round a mask the other way, and the draw would differ.
    return make_manifest(ClipReader(store, num_frames, stride, crop), hashed, Choice(**chosen), progress)


@torch.no_grad()
def score_bias(
    encode: Encode,
    store: Store,
    manifest: Manifest,
    progress: Progress,
    *,
    options: BiasOptions | None = None,
    about: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> BiasReport:
    """Evaluate any encoder on a manifest's composites.

    The classifier is a linear probe on plain clips: of the "train" split where the store has it and "test"; else each
    group in turn is held out (some at a time above twenty), so the probe never saw the group that it is tested on.

    Args:
        encode: from float32 clips in [0, 1], (B, 3, T, S, S), to features (B, D).
        store: that the manifest was made for.
        manifest: the test.
        progress: receives what happens.
        options: `out`, `folder`, `sheet_rows` and `batch_size` count here.
        about: further settings to report, such as the encoder's name.
        device: where clips are composed and encoded.

    Raises:
        UsageError: a picture of a donor is not there or another one now, or no video is left to train the probe on.
    """
    options = options or BiasOptions()
    composer = Composer(store, manifest, options.folder, device)
    encoder = Encoder(encode, options.batch_size)
    of_video, of_row = encode_composites(encoder, composer, progress)
    train = train_set(encoder, composer, of_video["plain"], progress)
    tested = classify(train, store, manifest, of_video, of_row)
    shares = metrics(tested, of_video, of_row) | scene_probe(encoder, composer, progress)
    percent = {name: round(100 * value, 4 if name.endswith("drift") else 2) for name, value in shares.items()}
    hits = {name: tested.hit(name) for name in (*OF_VIDEO, *OF_ROW)}
    names = tuple(row.name for row in manifest.rows)
    settings = {**(about or {}), **_settings(manifest, tested, options)}
    report = BiasReport(percent, settings, class_table(tested), manifest, names, hits)
    if options.out is not None:
        _write_report(report, composer, options.out, options.sheet_rows)
    return report


def _settings(manifest: Manifest, tested: Tested, options: BiasOptions) -> dict[str, Any]:
    rows = manifest.rows
    return {
        "manifest_sha256": manifest.sha256,
        "manifest": None if options.manifest is None else str(options.manifest),
        "content_hash": manifest.content_hash,
        "seed": manifest.seed,
        "donors": ", ".join(sorted({row.donor.kind for row in rows})),
        "videos": len(np.unique(tested.place)),
        "composites": len(rows),
        "clips": len(rows[0].starts),
        "frames": manifest.num_frames,
        "stride": manifest.stride,
        "crop": manifest.crop,
        "grow": manifest.grow,
        "feather": manifest.feather,
        "ring": manifest.ring,
        "held_out": tested.how,
    }


def check_out(options: BiasOptions) -> None:
    """See, before any work, whether the report may be written.

    Raises:
        UsageError: files of other kinds are there.
        WriteError: the folder cannot be written.
    """
    if options.out is None:
        return
    check_folder(options.out)
    for name, kinds in OWN_FILES.items():
        check_replaceable(
            options.out / name, overwrite=options.overwrite, kinds=kinds, what="of an earlier bias evaluation"
        )


def _write_report(report: BiasReport, composer: Composer, out: Path, rows: int) -> None:
    write_manifest(report.manifest, out / MANIFEST)
    write_picture(out / SHEET, bias_sheet(composer, rows=rows))
    write_bytes(out / REPORT, json.dumps(report.to_json(), indent=1).encode() + b"\n")
