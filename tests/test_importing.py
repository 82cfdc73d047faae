"""Import of masks and images, export of files, merged stores."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from stores import Part, make_noise_store
from worlds import Recorder, moving_square, scene

from bgaug.errors import MasksError, StoreError, UsageError
from bgaug.masks import unpack_mask
from bgaug.names import FrameKind
from bgaug.pipelines.build.export import export_videos
from bgaug.pipelines.build.importing import ImportedMasks, import_backgrounds, import_masks, merge
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.sizing import Fit, Size, fit_frame
from bgaug.store import (
    Store,
    open_store,
    verify_store,
)
from bgaug.video import write_video

SOURCE: Size = (48, 96)
SIZE: Size = (24, 24)


@pytest.fixture(autouse=True)
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk is most of what a small store costs."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def masks_of(root: Path) -> dict[str, np.ndarray]:
    store = open_store(root)
    return {name: store.masks(video, 0, store.num_frames(video)) for video, name in enumerate(store.videos)}


def contents(root: Path) -> list[str]:
    store = open_store(root)
    return [store.row(video).content for video in range(len(store))]


def put(path: Path, mask: np.ndarray) -> Path:
    """A mask as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes())
    return path


def rectangle(size: Size, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(size, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


# --- masks in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        ("stretch", (4, 8, 8, 11)),  # half the height, a quarter of the width
        ("pad", (8, 10, 8, 11)),  # a quarter, below six black rows
        ("crop", (4, 8, 4, 10)),  # half of the middle 48 columns
    ],
)
@pytest.mark.parametrize("scale", [1, 2, 0.5])
def test_masks_are_brought_to_the_size_as_frames_are(
    tmp_path: Path, fit: Fit, expected: tuple[int, int, int, int], scale: float
) -> None:
    root = make_noise_store(tmp_path / "s", fit=fit)
    mask = rectangle(SOURCE, 8, 16, 32, 44)
    given = cv2.resize(mask.astype(np.uint8), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST) > 0
    for index in range(6):
        put(tmp_path / "m" / "c" / f"{index}.png", given)
    result = import_masks(root, tmp_path / "m", Silent())
    assert (result.videos, result.frames, result.kept, result.emptied, result.failures) == (1, 6, 0, 0, {})
    assert result.without == ("walk/a é.mp4", "walk/b.mp4") and result.unused == ()
    store = open_store(root)
    assert np.array_equal(masks_of(root)["c.mp4"], np.repeat(rectangle(SIZE, *expected)[None], 6, 0))
    assert [store.row(video).imported_masks for video in range(3)] == [True, False, False]
    assert verify_store(root, deep=True).problems == ()


def test_a_pixel_is_foreground_that_is_covered_by_half(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s", size=(24, 48))
    put(tmp_path / "m" / "c" / "0.png", rectangle(SOURCE, 0, 48, 0, 1))
    put(tmp_path / "m" / "c" / "1.png", rectangle(SOURCE, 0, 1, 0, 1))
    import_masks(root, tmp_path / "m", Silent())
    masks = masks_of(root)["c.mp4"]
    assert np.array_equal(masks[0], rectangle((24, 48), 0, 24, 0, 1)) and not masks[1].any()


@pytest.mark.parametrize("partial", ["keep", "empty"])
def test_frames_without_a_mask_keep_theirs_or_are_emptied(tmp_path: Path, partial: Any) -> None:
    root = make_noise_store(tmp_path / "s")
    before = masks_of(root)
    for index in (0, 5, 69):
        put(tmp_path / "m" / "walk" / "b" / f"{index:06d}.png", rectangle(SIZE, index // 5, 20, 2, 9))
    result = import_masks(root, tmp_path / "m", Silent(), partial=partial)
    assert (result.videos, result.frames) == (1, 3)
    assert (result.kept, result.emptied) == ((67, 0) if partial == "keep" else (0, 67))
    after = masks_of(root)
    for index in range(70):
        expected = before["walk/b.mp4"][index] if partial == "keep" else np.zeros(SIZE, np.bool_)
        if index in (0, 5, 69):
            expected = rectangle(SIZE, index // 5, 20, 2, 9)
        assert np.array_equal(after["walk/b.mp4"][index], expected), index
    assert all(np.array_equal(after[name], before[name]) for name in ("c.mp4", "walk/a é.mp4"))
    assert verify_store(root, deep=True).problems == ()


def test_importing_again_changes_nothing(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s")
    old = verify_store(root).content_hash
    put(tmp_path / "m" / "c" / "3.png", rectangle(SOURCE, 8, 30, 32, 44))
    first = import_masks(root, tmp_path / "m", Silent())
    new = verify_store(root).content_hash
    commit = (root / "shards" / "00001" / "COMMIT.json").stat().st_ino
    assert import_masks(root, tmp_path / "m", Silent()) == first
    assert verify_store(root).content_hash == new != old
    assert (root / "shards" / "00001" / "COMMIT.json").stat().st_ino == commit


@pytest.mark.parametrize(
    ("fit", "source"),
    [("stretch", SOURCE), ("pad", SOURCE), ("crop", SOURCE), ("pad", (25, 24)), ("crop", SIZE)],
)
def test_what_export_writes_import_reads(tmp_path: Path, fit: Fit, source: Size) -> None:
    root = make_noise_store(tmp_path / "s", fit=fit, source=source)
    before, rows = masks_of(root), contents(root)
    export_videos(root, list(before), tmp_path / "out", Silent())
    for name, masks in before.items():
        file = tmp_path / "inverse" / f"{name}.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, masks=~masks)
    import_masks(root, tmp_path / "inverse", Silent())
    assert all(np.array_equal(masks, ~before[name]) for name, masks in masks_of(root).items())
    result = import_masks(root, tmp_path / "out" / "masks", Silent())
    assert (result.videos, result.frames, result.kept, result.without, result.unused) == (3, 81, 0, (), ())
    assert contents(root) == rows and result.failures == {}


def test_masks_that_do_not_fit_affects_no_other_video(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s", [[(f"{n}.mp4", 0, 4) for n in range(8)]])
    before = masks_of(root)
    good = rectangle(SOURCE, 0, 24, 0, 96)
    put(tmp_path / "m" / "0" / "0.png", good.T)
    put(tmp_path / "m" / "1" / "0.png", good)
    put(tmp_path / "m" / "1" / "2.png", good).write_bytes(b"\x89PNG\r\n\x1a\n")
    for number in range(1, 5):
        put(tmp_path / "m" / "2" / f"{number}.png", good)
    np.save(tmp_path / "m" / "3.npy", np.stack([good] * 5))
    np.save(tmp_path / "m" / "4.npy", good[None, :, :95])  # within two percent
    np.save(tmp_path / "m" / "5.npy", good[None, :, :94])
    put(tmp_path / "m" / "6" / "0.png", good).with_suffix(".jpg").write_bytes(b"")
    (tmp_path / "m" / "7.json").write_text("[null, null, null, null]")
    seen = Recorder()
    result = import_masks(root, tmp_path / "m", seen)
    assert (result.videos, result.frames, result.kept) == (1, 1, 3) and result.without == ("7.mp4",)
    for number, text in (
        (0, "0: frame 0 is 96x48, the video 48x96: expected a mask of the whole image"),
        (1, "1/2.png: a PNG that breaks off"),
        (2, "2: has a mask of frame 4, the video has 4, counted from 0; numbers that begin with 1 need --first 1"),
        (3, "3.npy: has a mask of frame 4, the video has 4, counted from 0"),
        (5, "5.npy: frame 0 is 48x94"),
        (6, "6/0.jpg: masks are read only from PNGs"),
    ):
        assert text in result.failures[f"{number}.mp4"], number
        assert any(f"{number}.mp4 keeps its masks" in line and text in line for line in seen.warnings)
    assert len(result.failures) == 6
    assert any("used for their first frames: 1 (4.mp4)" in line for line in seen.warnings)
    after = masks_of(root)
    assert [name for name in before if not np.array_equal(before[name], after[name])] == ["4.mp4"]
    assert [open_store(root).row(video).imported_masks for video in range(8)] == [n == 4 for n in range(8)]
    assert result.to_json()["failed"] == 6 and verify_store(root, deep=True).problems == ()


def test_a_partial_video_takes_the_masks_of_its_beginning(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s", status="partial")
    put(tmp_path / "m" / "c" / "5.png", rectangle(SIZE, 0, 3, 0, 3))
    put(tmp_path / "m" / "c" / "6.png", rectangle(SIZE, 0, 3, 0, 3))
    result = import_masks(root, tmp_path / "m", Silent())
    assert (result.videos, result.frames, result.kept, result.failures) == (1, 1, 5, {})


LONG: list[list[Part]] = [[("a.mp4", 0, 4)], [("long.mp4", 0, 10)], [("long.mp4", 10, 7)], [("long.mp4", 17, 3)]]


def test_a_video_in_several_shards_gets_each_its_own(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s", LONG)
    before = masks_of(root)["long.mp4"]
    given = {index: rectangle(SIZE, index, index + 2, 0, 9) for index in (0, 9, 10, 12)}
    for index, mask in given.items():
        put(tmp_path / "m" / "long" / f"{index}.png", mask)
    result = import_masks(root, tmp_path / "m", Silent())
    assert (result.videos, result.frames, result.kept) == (1, 4, 16)
    after = masks_of(root)["long.mp4"]
    for index in range(20):
        assert np.array_equal(after[index], given.get(index, before[index])), index
    put(tmp_path / "m" / "long" / "19.png", np.ones((7, 5)))
    put(tmp_path / "m" / "a" / "1.png", np.ones(SIZE))
    result = import_masks(root, tmp_path / "m", Silent())
    assert result.videos == 1 and list(result.failures) == ["long.mp4"]
    assert np.array_equal(masks_of(root)["long.mp4"], after) and masks_of(root)["a.mp4"][1].all()
    assert verify_store(root, deep=True).problems == ()


def test_all_parts_are_left_where_the_last_cannot_be_read(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s", LONG)
    old = verify_store(root)
    put(tmp_path / "m" / "long" / "0.png", np.ones(SIZE))
    put(tmp_path / "m" / "long" / "19.png", np.ones(SIZE)).write_bytes(b"")
    assert list(import_masks(root, tmp_path / "m", Silent()).failures) == ["long.mp4"]
    assert verify_store(root) == old


def run_of(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def test_one_file_for_all(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s")
    before = masks_of(root)
    mask = rectangle(SOURCE, 8, 16, 32, 44)
    file = tmp_path / "all.json"
    images = [
        {"id": 1, "file_name": "c/0001.jpg", "height": 48, "width": 96},
        {"id": 2, "file_name": "walk/a é/0005.jpg", "height": 48, "width": 96},
        {"id": 3, "file_name": "elsewhere/0001.jpg", "height": 48, "width": 96},
    ]
    file.write_text(
        json.dumps({"images": images, "annotations": [{"id": 1, "image_id": 1, "segmentation": run_of(mask)}]})
    )
    seen = Recorder()
    result = import_masks(root, file, seen, first=1)
    assert (result.videos, result.frames, result.kept) == (2, 2, 9)
    assert result.without == ("walk/b.mp4",) and result.unused == ("all.json: elsewhere",)
    assert any("but of no video: 1 (all.json: elsewhere)" in line for line in seen.warnings)
    assert any(line.startswith("videos without masks") and "1 (walk/b.mp4)" in line for line in seen.warnings)
    after = masks_of(root)
    assert np.array_equal(after["c.mp4"][0], rectangle(SIZE, 4, 8, 8, 11)) and not after["walk/a é.mp4"][4].any()
    assert np.array_equal(after["c.mp4"][1:], before["c.mp4"][1:])


def test_stores_and_folders_that_cannot_be_used(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s")
    put(tmp_path / "m" / "nobody" / "0.png", np.ones(SIZE))
    with pytest.raises(MasksError, match="holds no masks of the 3 videos"):
        import_masks(root, tmp_path / "m", Silent())
    with pytest.raises(MasksError, match="no such file"):
        import_masks(root, tmp_path / "x", Silent())
    with pytest.raises(UsageError, match="first = -1"):
        import_masks(root, tmp_path / "m", Silent(), first=-1)
    backgrounds = make_noise_store(tmp_path / "bg", holds="backgrounds", frames="none")
    with pytest.raises(UsageError, match="holds only backgrounds, no masks"):
        import_masks(backgrounds, tmp_path / "m", Silent())
    with pytest.raises(StoreError, match="not a bgaug store"):
        import_masks(tmp_path, tmp_path / "m", Silent())


def test_a_store_without_frames_takes_masks(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s", frames="none")
    put(tmp_path / "m" / "c" / "0.png", np.ones(SIZE))
    assert import_masks(root, tmp_path / "m", Silent()).frames == 1 and masks_of(root)["c.mp4"][0].all()
    assert verify_store(root, deep=True).problems == ()


def test_true_masks_of_real_clips(real_data: Path, tmp_path: Path, report: list[str]) -> None:
    """Every fifth frame has a true silhouette; the store then has it at its own size; nothing else changes."""
    names = ("11_2_3", "0_1_4")
    for name in names:
        with zipfile.ZipFile(real_data / "actions" / "ut_truth" / name / "masks.zip") as archive:
            archive.extractall(tmp_path / "truth" / name)
    videos = [real_data / "actions" / "ut_interaction_set1" / f"{name}.avi" for name in names]
    build_shards(
        ShardOptions(
            inputs=videos,
            out=tmp_path / "s",
            in_process=True,
            video=VideoOptions(method="median", shots=False),
            size=(64, 86),
        ),
        Silent(),
    )
    before = masks_of(tmp_path / "s")
    result = import_masks(tmp_path / "s", tmp_path / "truth", Silent(), values="cdnet")
    after = masks_of(tmp_path / "s")
    files = {name: sorted((tmp_path / "truth" / name).glob("*.png")) for name in names}
    assert result.videos == 2 and result.frames == sum(map(len, files.values())) and not result.failures
    assert result.frames + result.kept == sum(map(len, after.values()))
    agreement = []
    for name in names:
        true = {int(file.stem): cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files[name]}
        for index, mask in enumerate(after[f"{name}.avi"]):
            expected = before[f"{name}.avi"][index]
            if index in true:
                own = expected
                expected = fit_frame((np.asarray(true[index]) == 255).astype(np.uint8) * 255, (64, 86), "stretch") > 127
                agreement.append((own & expected).sum() / max(1, (own | expected).sum()))
            assert np.array_equal(mask, expected), (name, index)
    # Masks of the median are no truth where people stand, but they are of the same people.
    assert np.mean(agreement) > 0.2
    report.append(f"true masks of two clips against those of the median: IoU {np.mean(agreement):.2f}")


# --- import of images -------------------------------------------------------------------------------------------------


def write_image(path: Path, picture: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
    return path


def turned(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with the note of a camera that was held otherwise."""
    tag = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + tag + struct.pack("<I", 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize(("fit", "used"), [("stretch", "stretch"), ("crop", "crop"), ("pad", "crop")])
def test_a_folder_of_pictures_becomes_a_bank(
    tmp_path: Path, fit: Fit, used: Fit, capfd: pytest.CaptureFixture[str]
) -> None:
    root = make_noise_store(tmp_path / "s", fit=fit)
    old = verify_store(root)
    folder = tmp_path / "places of é!"
    pictures = {name: scene(seed, 40, 60) for seed, name in enumerate(("z.png", "a/b.bmp", "a.tif"))}
    for name, picture in pictures.items():
        write_image(folder / name, picture)
    write_image(folder / "small.PNG", scene(9, 5, 4))
    write_image(folder / ".hidden" / "x.png", scene(1))
    write_image(folder / ".x.png", scene(1))
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "empty.png").write_bytes(b"")
    seen = Recorder()
    result = import_backgrounds(root, folder, seen)
    capfd.readouterr()  # output of decoders
    assert (result.bank, result.images) == ("places-of-é-", 4)
    assert sorted(result.failures) == ["broken.jpg", "empty.png"] and result.to_json()["failed"] == 2
    assert len(seen.warnings) == 2 and "broken.jpg cannot be read as an image" in seen.warnings[0]
    bank = open_store(root).bank("places-of-é-")
    assert bank.names == ("a.tif", "a/b.bmp", "small.PNG", "z.png") and bank.images.shape == (4, *SIZE, 3)
    for name, picture in pictures.items():
        assert np.array_equal(bank.images[bank.names.index(name)], fit_frame(picture, SIZE, used)), name
    assert verify_store(root, deep=True) == old


def test_the_note_of_the_camera_is_honoured(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s", size=(40, 30))
    picture = np.zeros((30, 40, 3), np.uint8)
    picture[:, :10] = (200, 30, 30)  # on the left; the camera's tag requests a turn by 90 degrees
    jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.jpeg").write_bytes(turned(jpeg, 6))
    import_backgrounds(root, tmp_path / "b", Silent(), name="turned")
    bank = open_store(root).bank("turned")
    assert np.abs(bank.images[0].astype(int) - np.rot90(picture, -1)).mean() < 3


def test_links_that_lead_out_are_left_out(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s")
    write_image(tmp_path / "b" / "x.png", scene(0))
    (tmp_path / "b" / "y.png").symlink_to(tmp_path / "b" / "x.png")
    (tmp_path / "b" / "z.png").symlink_to(write_image(tmp_path / "out.png", scene(1)))
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert import_backgrounds(root, tmp_path / "b", Silent()).images == 2
    assert open_store(root).bank("b").names == ("x.png", "y.png")


def test_banks_that_cannot_be_made(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s")
    write_image(tmp_path / "b" / "x.png", scene(0))
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"")
    import_backgrounds(root, tmp_path / "b", Silent())
    with pytest.raises(UsageError, match="already has a bank 'b'; give another --name, or --overwrite"):
        import_backgrounds(root, tmp_path / "b", Silent())
    assert import_backgrounds(root, tmp_path / "b", Silent(), overwrite=True).images == 1
    for folder, text in (("none", "no image in"), ("gone", "no such folder"), ("s/plan.json", "expected a folder")):
        with pytest.raises(UsageError, match=text):
            import_backgrounds(root, tmp_path / folder, Silent())
    with pytest.raises(UsageError, match="no image for the bank 'b'"):
        import_backgrounds(root, tmp_path / "bad", Silent(), name="b", overwrite=True)
    assert open_store(root).bank("b").names == ("x.png",)
    with pytest.raises(UsageError, match="a bank's name consists of"):
        import_backgrounds(root, tmp_path / "b", Silent(), name="../x")


# --- out --------------------------------------------------------------------------------------------------------------


def read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None and picture.dtype == np.uint8
    return np.asarray(picture if picture.ndim == 2 else picture[..., ::-1])


def names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("kind", ["jpeg", "raw"])
def test_all_that_a_store_holds_of_a_video_comes_out(tmp_path: Path, frames: bool, kind: FrameKind) -> None:
    root, out = make_noise_store(tmp_path / "s", fit="pad", frames=kind), tmp_path / "out"
    result = export_videos(root, ["walk/b.mp4"], out, Silent(), frames=frames)
    assert (result.videos, result.frames, result.failures) == (1, 70, {})
    store = open_store(root)
    video = store.find("walk/b.mp4")
    kinds = ("masks", "frames") if frames else ("masks",)
    expected = {f"{kind}/walk/b/{index:06d}.png" for kind in kinds for index in range(70)}
    expected |= {"backgrounds/walk/b/shot_000.png", "backgrounds/walk/b/shot_000_valid.png", "walk/b.json"}
    assert names_below(out) == expected and result.files == len(expected)
    masks, clip = store.masks(video, 0, 70), store.clip(video, 0, 70)
    for index in range(70):
        assert np.array_equal(read(out / "masks" / "walk" / "b" / f"{index:06d}.png"), masks[index] * np.uint8(255))
        if frames:
            assert np.array_equal(read(out / "frames" / "walk" / "b" / f"{index:06d}.png"), clip[index])
    background = store.background(video)
    assert np.array_equal(read(out / "backgrounds" / "walk" / "b" / "shot_000.png"), background.image)
    valid = read(out / "backgrounds" / "walk" / "b" / "shot_000_valid.png")
    assert np.array_equal(valid, background.valid * np.uint8(255))
    about = json.loads((out / "walk" / "b.json").read_text("utf-8"))
    assert (about["id"], about["fps"], about["num_frames"]) == ("walk/b.mp4", 25.0, 70)
    assert (about["source_size"], about["size"], about["fit"]) == ([48, 96], [24, 24], "pad")
    assert about["content_box"] == [6, 0, 12, 24] and about["imported_masks"] is False
    assert about["pts_seconds"] == store.pts_seconds(video, 0, 70).tolist()
    assert about["frames"] == ("frames/walk/b" if frames else None)
    assert [(shot["start"], shot["stop"], shot["grade"]) for shot in about["shots"]] == [(0, 69, "B"), (69, 70, None)]
    assert [shot["background"] for shot in about["shots"]] == ["backgrounds/walk/b/shot_000.png", None]


def test_a_video_in_several_shards_comes_out_whole(tmp_path: Path) -> None:
    root, out = make_noise_store(tmp_path / "s", LONG), tmp_path / "out"
    export_videos(root, ["long.mp4"], out, Silent())
    masks = masks_of(root)["long.mp4"]
    found = sorted((out / "masks" / "long").iterdir())
    assert len(found) == 20 and all(
        np.array_equal(read(path) > 0, mask) for path, mask in zip(found, masks, strict=True)
    )
    shots = json.loads((out / "long.json").read_text())["shots"]
    assert [shot["start"] for shot in shots] == [0, 9, 10, 16, 17, 19]
    store = open_store(root)
    for number in (0, 2, 4):
        picture = read(out / "backgrounds" / "long" / f"shot_{number:03d}.png")
        assert np.array_equal(picture, store.background(1, number).image)


def test_only_backgrounds(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s", holds="backgrounds", frames="none")
    export_videos(root, ["c.mp4"], tmp_path / "out", Silent())
    shots = {f"backgrounds/c/shot_000{end}.png" for end in ("", "_valid")}
    assert names_below(tmp_path / "out") == {"c.json", *shots}
    assert json.loads((tmp_path / "out" / "c.json").read_text())["masks"] is None
    with pytest.raises(UsageError, match="keeps no frames"):
        export_videos(root, ["c.mp4"], tmp_path / "out", Silent(), frames=True, overwrite=True)


def test_videos_that_differ_by_their_suffix_keep_it(tmp_path: Path) -> None:
    ids = ["a.avi", "a.b.mp4", "a.mp4", "b.c", "b.c.mp4", "d.mp4", "d/e.mp4", "dd.mp4"]
    root = make_noise_store(tmp_path / "s", [[(name, 0, 2) for name in ids]])
    before = contents(root)
    export_videos(root, ids, tmp_path / "out", Silent())
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {
        "a.avi.json", "a.b.json", "a.mp4.json", "b.json", "b.c.mp4.json", "d.json", "dd.json",
    }  # fmt: skip
    result = import_masks(root, tmp_path / "out" / "masks", Silent())
    assert (result.videos, result.frames, result.unused) == (8, 16, ()) and contents(root) == before


@pytest.mark.parametrize(
    "name",
    ["../a.mp4", "/etc/a.mp4", "x/../../a.mp4", "..", "../..mp4", "a\0b.mp4", "", "x/../y.mp4", "x//y.mp4", "./y.mp4"],
)
def test_no_id_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    root = make_noise_store(tmp_path / "s", [[("a.mp4", 0, 2), (name, 0, 2)]])
    with pytest.raises(UsageError, match="its id names no file inside"):
        export_videos(root, ["a.mp4", name], tmp_path / "deep" / "er" / "out", Silent())
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("name", ["...mp4", "x/..mp4", "....", "x/....mp4"])
def test_ids_of_dots_stay_inside(tmp_path: Path, name: str) -> None:
    root = make_noise_store(tmp_path / "s", [[(name, 0, 2)]])
    export_videos(root, [name], tmp_path / "deep" / "er" / "out", Silent())
    assert names_below(tmp_path / "deep" / "er" / "out" / "masks") == {f"{name}/00000{n}.png" for n in (0, 1)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "s"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["er"]


def test_an_earlier_export_is_replaced_only_on_request(tmp_path: Path) -> None:
    root, out = make_noise_store(tmp_path / "s"), tmp_path / "out"
    export_videos(root, ["c.mp4"], out, Silent())
    mine = put(out / "masks" / "c" / "000006.png", np.ones(SIZE))
    (out / "masks" / "c" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"c\.json exists; give --overwrite"):
        export_videos(root, ["walk/b.mp4", "c.mp4"], out, Silent())
    assert not (out / "walk").exists() and mine.exists()
    (out / "c.json").unlink()
    with pytest.raises(UsageError, match=r"masks/c/000000\.png exists"):
        export_videos(root, ["c.mp4"], out, Silent())
    export_videos(root, ["c.mp4", "c.mp4"], out, Silent(), overwrite=True)
    assert not mine.exists() and (out / "masks" / "c" / "notes.txt").exists() and (out / "c.json").exists()


def test_a_damaged_video_affects_no_other_video(tmp_path: Path) -> None:
    root, out = make_noise_store(tmp_path / "s"), tmp_path / "out"
    file = next(path for path in (root / "shards" / "00001" / "masks" / "c").rglob("*") if path.is_file())
    data = bytearray(file.read_bytes())
    data[20] ^= 4
    file.write_bytes(data)
    seen = Recorder()
    result = export_videos(root, list(open_store(root).videos), out, seen)
    assert result.videos == 2 and list(result.failures) == ["c.mp4"] and "c.mp4" in seen.warnings[0]
    assert not any("c" == path.stem or path.parent.name == "c" for path in out.rglob("*") if path.is_file())
    assert (out / "walk" / "b.json").exists()


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = make_noise_store(tmp_path / "s"), tmp_path / "out"

    class Stop(BaseException): ...

    def stop(store: Store, video: int, start: int, *more: Any) -> Any:
        if start:
            raise Stop
        return np.zeros((64, *SIZE), np.bool_)

    monkeypatch.setattr(Store, "masks", stop)
    with pytest.raises(Stop):
        export_videos(root, ["walk/b.mp4"], out, Silent())
    assert names_below(out) == set()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.undo()
    with pytest.raises(StoreError, match="cannot be written"):
        export_videos(root, ["walk/b.mp4"], tmp_path / "file", Silent())


def test_the_nearest_id_is_named(tmp_path: Path) -> None:
    root = make_noise_store(tmp_path / "s")
    with pytest.raises(UsageError, match=r"has no video 'walk/b'; did you mean 'walk/b.mp4'\?"):
        export_videos(root, ["walk/b"], tmp_path / "out", Silent())
    with pytest.raises(UsageError, match=r"did you mean 'c.mp4'\?"):
        export_videos(root, ["qqqqqqqq"], tmp_path / "out", Silent())


# --- merging ----------------------------------------------------------------------------------------------------------


def test_merging_counts_what_there_is_now(tmp_path: Path) -> None:
    a = make_noise_store(tmp_path / "a")
    b = make_noise_store(tmp_path / "b", [[("z.mp4", 0, 3)]])
    merged = merge([a, b], tmp_path / "c", Silent())
    report = verify_store(tmp_path / "c", deep=True)
    assert report.problems == ()
    assert (merged.videos, merged.failed, merged.frames, merged.shards) == (4, 0, 84, 3)
    assert merged.bytes == report.num_bytes


def test_a_store_is_never_merged_into_itself(tmp_path: Path) -> None:
    a, b = make_noise_store(tmp_path / "a"), make_noise_store(tmp_path / "b", [[("z.mp4", 0, 3)]])
    before = verify_store(a, deep=True)
    (tmp_path / "link").symlink_to(a)
    for out in (a, tmp_path / "b" / ".." / "a", tmp_path / "link", tmp_path):
        with pytest.raises(UsageError, match="is one of the stores to be merged, or contains one"):
            merge([b, a], out, Silent(), overwrite=True)
    assert verify_store(a, deep=True) == before


# --- all of it --------------------------------------------------------------------------------------------------------


def test_built_from_videos_exported_and_imported(tmp_path: Path) -> None:
    """A store as the pipeline builds it; its masks are replaced by the truth at the videos' own size."""
    (tmp_path / "videos").mkdir()
    truth: dict[str, np.ndarray] = {}
    for number in range(3):
        frames, truth[f"{number}.mp4"], _ = moving_square(number, 20, 48, 64, side=16)
        write_video(tmp_path / "videos" / f"{number}.mp4", frames)
    build_shards(
        ShardOptions(
            inputs=[tmp_path / "videos"],
            out=tmp_path / "s",
            in_process=True,
            video=VideoOptions(method="median", shots=False),
            size=(24, 32),
        ),
        Silent(),
    )
    for name, masks in truth.items():
        (tmp_path / "m").mkdir(exist_ok=True)
        np.savez(tmp_path / "m" / f"{name}.npz", masks=masks)
    result: ImportedMasks = import_masks(tmp_path / "s", tmp_path / "m", Silent())
    assert (result.videos, result.frames, result.kept) == (3, 60, 0)
    expected: Mapping[str, np.ndarray] = {
        name: np.stack([fit_frame(mask.astype(np.uint8) * 255, (24, 32), "stretch") > 127 for mask in masks])
        for name, masks in truth.items()
    }
    store = open_store(tmp_path / "s")
    for video, name in enumerate(store.videos):
        packed = store.packed_masks(video, 0, 20)
        assert np.array_equal(unpack_mask(packed, 24, 32), expected[name])
    assert verify_store(tmp_path / "s", deep=True).problems == ()
