"""`bgaug evaluate --protocol bias`: accuracy of a run's features when the background suggests another class.

A manifest chooses composites of the store's foregrounds over foreign images; a linear probe on plain clips of other
videos classifies them. See `bgaug.metrics.bias` for the tests.

manifest   the composites, as a file
scenes     which masks and scenes of a store may be used
choice     how they are chosen
composer   clips of a store, the composites, and a contact sheet
scores     the classifier and the metrics
readout    the classifier of a supervised run, in place of a probe

Letters: B clips, T frames, S side of the crop, R composites, D features.
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

from bgaug.files import check_folder, check_replaceable, write_bytes
from bgaug.model.checkpoint import Run, load_run
from bgaug.model.pretrained import NO_PERMISSION, CodePermission
from bgaug.pipelines.evaluate.bias.choice import make_manifest
from bgaug.pipelines.evaluate.bias.composer import OF_ROW, OF_VIDEO, ClipReader, Composer, bias_sheet
from bgaug.pipelines.evaluate.bias.manifest import Manifest, check_manifest, read_manifest, write_manifest
from bgaug.pipelines.evaluate.bias.readout import OwnHead, head_of
from bgaug.pipelines.evaluate.bias.scores import (
    Tested,
    class_table,
    classify,
    encode_composites,
    metrics,
    scene_probe,
    train_set,
)
from bgaug.pipelines.evaluate.features import Encoder, encoder_of, feature_of
from bgaug.pipelines.evaluate.options import BiasOptions
from bgaug.progress import Progress
from bgaug.store import Store, open_store
from bgaug.store.index import content_hash
from bgaug.visualize import KINDS, write_image

_MANIFEST, _REPORT, _SHEET = "manifest.json", "report.json", "sheet.png"
_OWN_FILES: dict[str, tuple[bytes, ...]] = {
    _MANIFEST: (b'{\n "format": "bgaug-bias"',),
    _REPORT: (b'{\n "',),
    _SHEET: KINDS[".png"],
}
"""The files that are written, with the first bytes that those of an earlier evaluation have."""


_DONORS = {"video": "scenes of videos", "bank": "images of a bank", "file": "images of a folder", "stripes": "stripes"}


@dataclass(frozen=True, eq=False)
class BiasReport:
    """Result of a bias evaluation.

    Attributes:
        metrics: percent by name; see docs/bias.md.
        settings: how the metrics were computed.
        classes: one row per class: "class", "videos", "plain", "scuba", "contrasted", "background_only", "drop" (plain
            minus scuba), "to_background" (share predicted as the donor's class, where donors have one), and the donor
            with the largest loss: "fooled_by", "fooled_by_class", "lost" (of the right class's probability, summed).
        manifest: the composites.
        names: names of the composites, `id__k`, R.
        hits: bool (R,) by view, composites that are classified as their action.
        has_same_class: bool (R,), composites of videos with a "same_class" view; its hits mean nothing for the others.
    """

    metrics: dict[str, float]
    settings: dict[str, Any]
    classes: list[dict[str, Any]]
    manifest: Manifest
    names: tuple[str, ...] = ()
    hits: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    has_same_class: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def to_json(self) -> dict[str, Any]:
        """The report of `--json`."""
        return {**self.metrics, "classes": self.classes, "settings": self.settings}


def evaluate_bias(
    run: Path,
    store_path: Path,
    progress: Progress,
    *,
    options: BiasOptions | None = None,
    feature: str | None = None,
    device: str | None = None,
    permission: CodePermission = NO_PERMISSION,
) -> BiasReport:
    """Evaluate a run on composites of a store's labelled videos.

    Args:
        run: folder that `train` made, or one checkpoint.
        store_path: a store that `build_shards` made.
        progress: receives progress and warnings.
        options: options of the evaluation.
        feature: one of `bgaug.model.decomposition.FEATURES`; by default that of the run's method.
        device: CUDA by default where it is available, else the CPU.
        permission: code that may be imported for an encoder that is not one of bgaug's.

    Raises:
        UsageError: options that contradict each other or the store, too few videos, or a manifest of another store.
        CheckpointError: the run cannot be read.
        StoreError: the store cannot be read, or has no such bank.
        WriteError: `options.out` cannot be written; reported before the work where possible.
    """
    options = options or BiasOptions()
    check_out(options)
    return bias_of(
        load_run(run, device=device, permission=permission), open_store(store_path), progress, options, feature
    )


def bias_of(run: Run, store: Store, progress: Progress, options: BiasOptions, feature: str | None = None) -> BiasReport:
    """`evaluate_bias` of a run and a store that are open."""
    config = run.config
    manifest = plan_bias(store, config["num_frames"], config["stride"], config["crop"], options, progress)
    for name in ("num_frames", "stride", "crop"):
        if getattr(manifest, name) != config[name]:
            progress.warn(f"the manifest's clips have {name} {getattr(manifest, name)}; the run has {config[name]}")
    feature = feature_of(run, feature)
    about = {"run": str(run.path), "feature": feature, "readout": options.readout}
    encoder = encoder_of(run, feature)
    head = head_of(run, store, feature, progress) if options.readout == "head" else None
    return score_bias(encoder, store, manifest, progress, options=options, about=about, device=run.device, head=head)


def plan_bias(
    store: Store,
    num_frames: int,
    stride: int,
    crop: int,
    options: BiasOptions,
    progress: Progress,
) -> Manifest:
    """The manifest that the options name, or a new one.

    A new manifest has clips of `num_frames` frames at distance `stride`, and centre crops of side `crop`. The store
    needs frames and masks, in a folder.

    Raises:
        UsageError: the manifest cannot be read or was made for another store, or too few videos can be used.
        StoreError: the store has no such bank.
    """
    hashed = content_hash(Path(store.path))
    if options.manifest is not None:
        manifest = read_manifest(options.manifest)
        check_manifest(manifest, store, hashed, str(options.manifest))
        return manifest
    # Always on the CPU: another device may round masks differently, and the draws would differ.
    return make_manifest(ClipReader(store, num_frames, stride, crop), hashed, options, progress)


@torch.no_grad()
def score_bias(
    encoder: Encoder,
    store: Store,
    manifest: Manifest,
    progress: Progress,
    *,
    options: BiasOptions | None = None,
    about: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    head: OwnHead | None = None,
) -> BiasReport:
    """Evaluate any encoder on a manifest's composites.

    The classifier is a linear probe on plain clips. It is fitted on the train split if the store has a train and a test
    split; otherwise each group is held out in turn, several groups at a time if there are more than twenty.

    Args:
        encoder: from float32 clips in [0, 1], (B, 3, T, S, S), to features (B, D).
        store: the store that the manifest was made for.
        manifest: the test.
        progress: receives progress.
        options: only `out`, `folder`, `sheet_rows` and `batch_size` are used.
        about: further settings for the report, such as the encoder's name.
        device: device on which clips are composed and encoded.
        head: classifies the features in place of a probe.

    Raises:
        UsageError: an image of a donor is missing or has changed, or no video is left to fit the probe on.
    """
    options = options or BiasOptions()
    composer = Composer(store, manifest, options.folder, device)
    size = options.batch_size
    encoded = encode_composites(encoder, composer, size, progress)
    train = train_set(encoder, composer, encoded, size, progress)
    tested = classify(train, store, manifest, encoded, head)
    shares = metrics(tested, encoded) | scene_probe(encoder, composer, size, progress)
    percent = {name: round(100 * value, 4 if "drift" in name else 2) for name, value in shares.items()}
    hits = {name: tested.hit(name) for name in (*OF_VIDEO, *OF_ROW)}
    names = tuple(row.name for row in manifest.rows)
    settings = {**(about or {}), **_settings(manifest, tested, options)}
    report = BiasReport(percent, settings, class_table(tested), manifest, names, hits, tested.has_same_class)
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
        "donors": ", ".join(sorted({_DONORS[row.donor.kind] for row in rows})),
        "videos": (videos := len(np.unique(tested.place))),
        "test_videos": videos + len(manifest.left_out),
        "left_out": manifest.reasons,
        "masks_from": manifest.masks_from,
        "same_class_videos": len(manifest.same_class),
        "groups": len(np.unique(tested.groups)),
        "composites": len(rows),
        "clips": len(rows[0].starts),
        "frames": manifest.num_frames,
        "stride": manifest.stride,
        "crop": manifest.crop,
        "grow": manifest.grow,
        "feather": manifest.feather,
        "ring": manifest.ring,
        "held_out": tested.held_out,
    }


def check_out(options: BiasOptions) -> None:
    """Check, before any work, that the report may be written.

    Raises:
        UsageError: other files of these names exist.
        WriteError: the folder cannot be written.
    """
    if options.out is None:
        return
    check_folder(options.out)
    for name, kinds in _OWN_FILES.items():
        check_replaceable(
            options.out / name, overwrite=options.overwrite, kinds=kinds, what="of an earlier bias evaluation"
        )


def _write_report(report: BiasReport, composer: Composer, out: Path, rows: int) -> None:
    write_manifest(report.manifest, out / _MANIFEST)
    write_image(out / _SHEET, bias_sheet(composer, rows=rows))
    write_bytes(out / _REPORT, json.dumps(report.to_json(), indent=1).encode() + b"\n")
