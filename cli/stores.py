"""Commands about stores: verify, preview, merge, import, segment, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bgaug.cli.console import FAILED, TerminalProgress, human_bytes, note, pairs_table, show
from bgaug.names import MaskValues
from bgaug.pipelines.build.options import Partial
from bgaug.pipelines.options import Option, StorePath
from bgaug.pipelines.segment.options import SegmentOptions

if TYPE_CHECKING:
    from bgaug.store import Header, Problem, Repair

_NAMED = 20


def verify_command(
    store: StorePath,
    deep: Annotated[bool, Option("Also decode every frame, mask and background.")] = False,
    repair: Annotated[bool, Option("Drop what is damaged, so that a rerun of the build makes it again.")] = False,
    *,
    as_json: bool,
) -> None:
    """Check every commit, size and checksum of a store.

    The content hash is the same for the same videos and options, by any process and at any time. Exits with 1 if
    anything was wrong, also where it was repaired: the videos named are then to be built again.

    Examples:
        bgaug verify shards

        bgaug verify shards --deep --json

        bgaug verify shards --repair
    """
    from bgaug.store import repair_store, restore_header, verify_store
    from bgaug.store.format.layout import num_shards

    restored = repair and restore_header(store)
    with TerminalProgress() as progress:
        progress.start("shards", num_shards(_header(store)))
        report = verify_store(store, deep=deep, on_shard=progress.advance)
        for problem in report.problems:
            progress.warn(_described(problem))
        repaired = repair_store(store, report) if repair and report.problems else None
    wrong = bool(report.problems) or restored
    result = {
        "ok": not wrong,
        "problems": [_problem_json(problem) for problem in report.problems],
        "shards": report.num_shards,
        "videos": report.num_videos,
        "frames": report.num_frames,
        "bytes": report.num_bytes,
        "content_hash": report.content_hash,
    }
    shown = {**result, "problems": len(report.problems), "bytes": human_bytes(report.num_bytes)}
    verdict = "whole" if not wrong else f"{len(report.problems) + restored} problems"
    if repair:
        result |= _repair_json(repaired, restored)
        shown |= {name: _listed(value) for name, value in _repair_json(repaired, restored).items()}
    show(result, as_json, lambda: pairs_table(f"{store}: {verdict}", shown))
    if wrong:
        hint = "--repair drops what is damaged, so that the command that built the store makes it again"
        for line in _repair_lines(repaired, restored) if repair else [hint]:
            note(line)
        raise typer.Exit(FAILED)


def _header(store: Path) -> Header:
    from bgaug.errors import StoreDamageError
    from bgaug.store.format.layout import read_header

    try:
        return read_header(store)
    except StoreDamageError as error:
        raise StoreDamageError(error.path, f"{error.message}; --repair restores it from its copy") from error


def _described(problem: Problem) -> str:
    lost = f" (holds {', '.join(problem.videos[:3])}{', ...' if len(problem.videos) > 3 else ''})"
    return f"{problem.path}: {problem.message}{lost if problem.videos else ''}"


def _problem_json(problem: Problem) -> dict[str, Any]:
    return {"path": str(problem.path), "message": problem.message, "videos": problem.videos}


def _repair_json(repair: Repair | None, restored: bool) -> dict[str, Any]:
    return {
        "repaired": repair is not None or restored,
        "header_restored": restored,
        "rebuild": list(repair.videos) if repair else [],
        "banks": list(repair.banks) if repair else [],
        "left": [_problem_json(problem) for problem in repair.left] if repair else [],
    }


def _listed(value: Any) -> Any:
    return len(value) if isinstance(value, list) else "yes" if value else "no"


def _repair_lines(repair: Repair | None, restored: bool) -> list[str]:
    """What was done, and what is to be done now."""
    lines = ["the header was restored from its copy"] if restored else []
    if repair is not None and repair.banks:
        lines.append(f"dropped donor banks, to be imported again: {_first(repair.banks)}")
    if repair is not None and repair.videos:
        lines.append(f"{len(repair.videos)} videos are to be built again: {_first(repair.videos)}")
        lines.append("run the command that built the store again: it builds these again")
    if repair is not None and repair.left:
        lines += [f"left: {_described(problem)}" for problem in repair.left[:_NAMED]]
        lines.append("run the command that built the store again: it also builds again what is left")
    if repair is None or not (repair.banks or repair.videos or repair.left):
        lines.append("the store is whole now")
    return lines


def _first(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest


def preview_command(
    store: StorePath,
    out: Annotated[Path, Option("The image, .png or .jpg.", metavar="IMAGE")] = Path("sheet.png"),
    rows: Annotated[int, Option("Number of videos shown.", ge=1)] = 12,
    seed: Annotated[int, Option("Seed of the random generator for frames and donors.")] = 0,
    overwrite: Annotated[bool, Option("Replace an existing file, whatever it is; otherwise only an image.")] = False,
    *,
    as_json: bool,
) -> None:
    """Draw a contact sheet: frame, background, mask, and the frame's foreground over another background.

    Where a background was never seen, but filled in, it is hatched. Of a store of backgrounds, several are drawn of a
    camera that moves, and the canvas of one that shakes.

    Examples:
        bgaug preview shards --out sheet.png

        bgaug preview shards --rows 30 --seed 1
    """
    from bgaug.files import check_replaceable
    from bgaug.store import open_store
    from bgaug.visualize import KINDS, contact_sheet, write_image

    kind = out.suffix.lower()
    what = f"a {kind.removeprefix('.').upper()} image" if kind in KINDS else "an image"
    check_replaceable(out, overwrite=overwrite, kinds=KINDS.get(kind, ()), what=what, inputs=[store])
    path = write_image(out, contact_sheet(open_store(store), rows=rows, seed=seed))
    show({"sheet": str(path)}, as_json, lambda: str(path))


def merge_command(
    stores: Annotated[list[Path], Option("Stores, two or more.", argument=True, metavar="STORES...")],
    out: Annotated[Path, Option("The new store.", metavar="STORE")],
    copy: Annotated[bool, Option("Copy files that could be linked.")] = False,
    prefix: Annotated[bool, Option("Put the name of each store's folder before its videos' ids.")] = False,
    overwrite: Annotated[bool, Option("Begin again where the store exists.")] = False,
    *,
    as_json: bool,
) -> None:
    """Join stores of the same size, fit and kind of frames into a new one.

    Nothing is encoded again: files are linked where the disk allows it, else copied. A rerun goes on where an earlier
    one stopped.

    Examples:
        bgaug merge shards-1 shards-2 --out shards

        bgaug merge ucf101 hmdb51 --out both --prefix --copy
    """
    from dataclasses import asdict

    from bgaug.pipelines.build.importing import merge

    with TerminalProgress() as progress:
        merged = merge(stores, out, progress, copy=copy, prefix=prefix, overwrite=overwrite)
    result = asdict(merged)
    shown = {**result, "bytes": human_bytes(merged.bytes)}
    show(result, as_json, lambda: pairs_table(f"{len(stores)} stores in {out}", shown))


def import_command(
    store: StorePath,
    masks: Annotated[
        Path | None,
        Option(
            "Folder with NAME/000000.png, NAME.npz, NAME.npy or NAME.json, where NAME is a video's id with or without "
            "its suffix; or one .json for all, in the format of COCO or YouTube-VIS."
        ),
    ] = None,
    backgrounds: Annotated[Path | None, Option("Folder of images, walked recursively.")] = None,
    first: Annotated[int, Option("Masks: number of a video's first frame where names carry numbers.", ge=0)] = 0,
    values: Annotated[
        MaskValues, Option("Masks: foreground is every value except 0, or as CDnet defines it only 255.")
    ] = "nonzero",
    missing: Annotated[
        Partial, Option("Masks: what frames without one get in a video that has some: their own, or an empty one.")
    ] = "keep",
    name: Annotated[str | None, Option("Backgrounds: name of the bank; by default that of the folder.")] = None,
    overwrite: Annotated[bool, Option("Backgrounds: replace an existing bank of that name.")] = False,
    *,
    as_json: bool,
) -> None:
    """Import masks or donor images from elsewhere into a store.

    Masks take the place of the store's own, brought to its size as the frames were; a video whose masks do not fit it
    keeps its own, is named, and the exit code is 1. Images become a bank of donors, cropped where the store pads.

    Examples:
        bgaug import shards --masks masks/

        bgaug import shards --masks instances.json --first 1 --missing empty

        bgaug import shards --backgrounds places/ --name places
    """
    from bgaug.errors import UsageError
    from bgaug.pipelines.build.importing import ImportedBackgrounds, ImportedMasks, import_backgrounds, import_masks

    if masks is not None and backgrounds is None and name is None and not overwrite:
        with TerminalProgress() as progress:
            imported: ImportedMasks | ImportedBackgrounds = import_masks(
                store, masks, progress, first=first, values=values, partial=missing
            )
        title = f"masks from {masks} in {store}"
    elif backgrounds is not None and masks is None and (first, values, missing) == (0, "nonzero", "keep"):
        with TerminalProgress() as progress:
            imported = import_backgrounds(store, backgrounds, progress, name=name, overwrite=overwrite)
        title = f"donors from {backgrounds} in {store}"
    elif (masks is None) == (backgrounds is None):
        raise UsageError("import takes either --masks or --backgrounds, got " + ("neither" if not masks else "both"))
    else:
        raise UsageError("--name and --overwrite go with --backgrounds, --first, --values and --missing with --masks")
    _show_counts(title, imported.to_json(), as_json)


def segment_command(options: SegmentOptions, as_json: bool) -> None:
    """Replace the masks of a store by those of a video segmentation model, such as SAM 2.

    Boxes and points of the objects are made from the stored masks. The model follows the objects through each shot, in
    windows of bounded memory. A video that cannot be segmented keeps its masks, is named, and the exit code is 1. The
    model runs in the library transformers: pip install "bgaug[segment]".

    Examples:
        bgaug segment shards videos/ --model facebook/sam2.1-hiera-tiny

        bgaug segment shards videos/ --model sam2/ --window 200 --objects 2

        bgaug segment shards videos/ --model sam2/ --device cpu --json
    """
    from bgaug.pipelines.segment.run import segment

    with TerminalProgress() as progress:
        found = segment(options, progress)
    result = found.to_json()
    shown = {**result, "model": found.model.name}
    _show_counts(f"masks by {found.model.name} in {options.store}", shown if not as_json else result, as_json)


def export_command(
    store: StorePath,
    out: Annotated[Path, Option("Folder of the images and of the JSON.", metavar="FOLDER")],
    videos: Annotated[list[str] | None, Option("Ids of videos.", argument=True, metavar="[VIDEOS...]")] = None,
    every: Annotated[bool, Option("Export all videos of the store.", flag="all")] = False,
    with_frames: Annotated[bool, Option("Also write the frames.", old=("frames",))] = False,
    overwrite: Annotated[bool, Option("Replace the files of an earlier export.")] = False,
    *,
    as_json: bool,
) -> None:
    """Write masks, backgrounds and all other data of a store about videos as PNGs and JSON.

    OUT/masks is what `bgaug import --masks` reads. All images have the store's size.

    Examples:
        bgaug export shards walk/1.mp4 --out images --with-frames

        bgaug export shards --all --out images --json
    """
    from bgaug.errors import UsageError
    from bgaug.pipelines.build.export import export_videos
    from bgaug.store import open_store

    if every == bool(videos):
        raise UsageError("export takes either ids of videos or --all, got " + ("both" if every else "neither"))
    ids = list(open_store(store).videos) if every else videos or []
    with TerminalProgress() as progress:
        exported = export_videos(store, ids, out, progress, frames=with_frames, overwrite=overwrite)
    _show_counts(f"from {store} in {out}", exported.to_json(), as_json)


def _show_counts(title: str, result: dict[str, Any], as_json: bool) -> None:
    shown = {name: value for name, value in result.items() if name != "failures"}
    show(result, as_json, lambda: pairs_table(title, shown))
    if result["failed"]:
        raise typer.Exit(FAILED)
