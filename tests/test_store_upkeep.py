"""Merging, repairing, replacing masks, donor banks, and reading from elsewhere than a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from worlds import moving_square, scene

from bgaug.errors import StoreDamageError, StoreError, StoreFormatError, UsageError
from bgaug.masks import pack_mask, unpack_mask
from bgaug.names import FrameKind
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.store import (
    VideoRow,
    merge_stores,
    open_store,
    repair_store,
    replace_masks,
    restore_header,
    verify_store,
    write_bank,
)
from bgaug.store.format.layout import COMMIT, read_header, seal, unseal
from bgaug.store.index import content_hash
from bgaug.video import write_video


def build(folder: Path, out: Path, frames: FrameKind = "jpeg") -> Path:
    options = VideoOptions(method="median", shots=False)
    build_shards(
        ShardOptions(inputs=[folder], out=out, in_process=True, video=options, size=None, frames=frames), Silent()
    )
    return out


def make_videos(folder: Path, *numbers: int) -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        write_video(folder / f"{number}.mp4", moving_square(number, 20 + number)[0])
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two stores of three videos each, and their videos."""
    folder = tmp_path_factory.mktemp("halves")
    for name, numbers in (("a", (1, 2, 3)), ("b", (4, 5, 6))):
        build(make_videos(folder / f"videos_{name}", *numbers), folder / name)
    return folder


@pytest.fixture
def halves(built: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of both stores, which a test may change."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path / "a", tmp_path / "b"


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """A copy of the first store and of its videos."""
    shutil.copytree(built / "videos_a", tmp_path / "videos_a")
    return Path(shutil.copytree(built / "a", tmp_path / "a"))


# --- merging ----------------------------------------------------------------------------------------------------------


def test_merged_stores_are_the_store_of_all_videos(halves: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for file in (*(tmp_path / "videos_a").iterdir(), *(tmp_path / "videos_b").iterdir()):
        shutil.copy(file, tmp_path / "all")  # not encoded again: encoders are not always deterministic
    whole = build(tmp_path / "all", tmp_path / "whole")
    merge_stores(halves, tmp_path / "c")
    report = verify_store(tmp_path / "c", deep=True)
    assert report.problems == () and report.content_hash == verify_store(whole).content_hash
    merged, built = open_store(tmp_path / "c"), open_store(whole)
    assert list(merged.videos) == list(built.videos)
    for video in range(6):
        assert np.array_equal(merged.clip(video, 0, 20), built.clip(video, 0, 20))
        assert np.array_equal(merged.masks(video, 0, 20), built.masks(video, 0, 20))


@pytest.mark.parametrize("copy", [False, True])
def test_merging_links_or_copies_and_changes_nothing(halves: tuple[Path, Path], tmp_path: Path, copy: bool) -> None:
    before = [verify_store(root).content_hash for root in halves]
    merge_stores(halves, tmp_path / "c", copy=copy)
    name = Path("shards/00000/frames/c/0")
    assert (tmp_path / "c" / name).samefile(halves[0] / name) is not copy
    assert [verify_store(root, deep=True).content_hash for root in halves] == before
    shutil.rmtree(halves[0])
    assert verify_store(tmp_path / "c", deep=True).problems == ()


def test_the_same_video_twice_is_refused_or_distinguished(halves: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"both have a video '1.mp4'; --prefix"):
        merge_stores([halves[0], shutil.copytree(halves[0], tmp_path / "twin")], tmp_path / "c")
    merge_stores([halves[0], tmp_path / "twin"], tmp_path / "c", prefix=True)
    assert list(open_store(tmp_path / "c").videos) == [f"{s}/{i}.mp4" for s in ("a", "twin") for i in (1, 2, 3)]
    assert verify_store(tmp_path / "c", deep=True).problems == ()


def test_a_merge_that_was_stopped_goes_on(halves: tuple[Path, Path], tmp_path: Path) -> None:
    class Stop(Exception): ...

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        merge_stores(halves, tmp_path / "c", on_shard=stop)
    with pytest.raises(StoreError, match="shards are missing"):
        open_store(tmp_path / "c")
    merge_stores(halves, tmp_path / "c")
    assert len(open_store(tmp_path / "c")) == 6


def test_stores_that_do_not_go_together_are_refused(halves: tuple[Path, Path], tmp_path: Path) -> None:
    raw = build(tmp_path / "videos_b", tmp_path / "raw", "raw")
    with pytest.raises(UsageError, match="frames jpeg, .* has raw"):
        merge_stores([halves[0], raw], tmp_path / "c")
    with pytest.raises(UsageError, match="two stores or more"):
        merge_stores([halves[0]], tmp_path / "c")
    shutil.rmtree(halves[1] / "shards" / "00001")
    with pytest.raises(StoreError, match="00001 is missing: finish the store"):
        merge_stores(halves, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_classes_are_joined_and_labels_keep_their_names(tmp_path: Path) -> None:
    for letter, names in (("a", ("walk", "run")), ("b", ("wave", "walk"))):
        for name in names:
            make_videos(tmp_path / f"videos_{letter}" / name, *((1, 2) if letter == "a" else (3, 4)))
        build(tmp_path / f"videos_{letter}", tmp_path / letter)
    merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    store = open_store(tmp_path / "c")
    assert store.header.classes == ("run", "walk", "wave")
    assert [store.header.classes[label] for label in store.columns.label] == [
        name.split("/")[0] for name in store.videos
    ]
    assert verify_store(tmp_path / "c").problems == ()


# --- repairing --------------------------------------------------------------------------------------------------------


def flip(path: Path, offset: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)


def test_a_repaired_store_lacks_what_was_damaged_and_a_rerun_builds_just_that(root: Path, tmp_path: Path) -> None:
    before = verify_store(root)
    flip(root / "shards" / "00001" / "frames" / "c" / "0", 700)
    kept = (root / "shards" / "00000" / COMMIT).stat().st_ino
    repair = repair_store(root, verify_store(root, deep=True))
    assert repair.videos == ("2.mp4",) and len(repair.found) == 1
    assert [problem.path.name for problem in repair.left] == []
    assert not (root / "shards" / "00001").exists()
    build(tmp_path / "videos_a", root)
    after = verify_store(root, deep=True)
    assert after.problems == () and after.content_hash == before.content_hash
    assert (root / "shards" / "00000" / COMMIT).stat().st_ino == kept


def test_what_is_derived_is_derived_again(root: Path) -> None:
    before = verify_store(root)
    flip(next((root / "index").rglob("c/0")))
    (root / "failures.jsonl").unlink()
    (root / "shards" / "00000" / "stray.txt").write_text("stray")
    repair = repair_store(root, verify_store(root))
    assert len(repair.found) == 3 and repair.videos == () and repair.left == ()
    assert verify_store(root, deep=True) == before


@pytest.mark.parametrize("what", ["cut", "flip", "format"])
def test_a_damaged_header_is_restored_from_its_copy(root: Path, what: str) -> None:
    file = root / "zarr.json"
    good = file.read_bytes()
    damaged = {
        "cut": good[:100],
        "flip": good.replace(b"jpeg", b"jqeg"),
        "format": good.replace(b"bgaug-st", b"bgbug-st"),
    }
    file.write_bytes(damaged[what])
    with pytest.raises((StoreDamageError, StoreFormatError)):
        verify_store(root)
    assert restore_header(root) and file.read_bytes() == good and not restore_header(root)
    file.write_bytes(good + b" ")
    assert [problem.path.name for problem in verify_store(root).problems] == ["zarr.json"]


def test_no_store_is_made_of_anything_else(tmp_path: Path) -> None:
    with pytest.raises(StoreFormatError):
        restore_header(tmp_path)


def test_a_damaged_plan_is_written_again_by_a_rerun(root: Path, tmp_path: Path) -> None:
    good = (root / "plan.json").read_bytes()
    flip(root / "plan.json", 5)
    assert [problem.path.name for problem in verify_store(root).problems] == ["plan.json"]
    build(tmp_path / "videos_a", root)
    assert (root / "plan.json").read_bytes() == good and verify_store(root).problems == ()


# --- other masks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", ["jpeg", "raw"])
def test_masks_are_replaced_and_all_else_is_kept(tmp_path: Path, frames: FrameKind) -> None:
    root = build(make_videos(tmp_path / "v", 1, 2), tmp_path / "s", frames)
    before = open_store(root)
    clips = [before.clip(video, 0, 20) for video in range(2)]
    masks = [before.packed_masks(video, 0, 21) for video in range(2)]
    old = verify_store(root)

    def give(row: VideoRow, known: np.ndarray) -> np.ndarray | None:
        return ~known if row.id == "2.mp4" else None

    header = read_header(root)
    assert [replace_masks(root, header, shard, give) for shard in range(2)] == [[], ["2.mp4"]]
    repair_store(root, verify_store(root))
    new = verify_store(root, deep=True)
    assert new.problems == () and new.content_hash != old.content_hash
    store = open_store(root)
    assert np.array_equal(store.packed_masks(1, 0, 21), ~masks[1])
    assert np.array_equal(store.packed_masks(0, 0, 21), masks[0])
    assert all(np.array_equal(store.clip(video, 0, 20), clips[video]) for video in range(2))
    assert [store.row(video).imported_masks for video in range(2)] == [False, True]
    # Putting the first ones back gives the first content, but for the note that they came from elsewhere.
    replace_masks(root, header, 1, lambda row, masks: ~masks)
    assert open_store(root).row(1).content == before.row(1).content


def test_a_replacement_that_fails_leaves_the_shard(root: Path) -> None:
    before = verify_store(root)

    def fail(row: VideoRow, masks: np.ndarray) -> np.ndarray:
        raise RuntimeError("no masks after all")

    with pytest.raises(RuntimeError):
        replace_masks(root, read_header(root), 0, fail)
    assert verify_store(root, deep=True) == before


@pytest.mark.parametrize("step", ["committed", "moved"])
def test_a_killed_replacement_is_settled_by_the_next_writer(
    root: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if killed between commit and the renames, or between the two renames."""

    class Killed(BaseException): ...

    real = os.rename
    calls = []

    def rename(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == (1 if step == "committed" else 2):
            raise Killed
        real(source, target)

    before = verify_store(root)
    with monkeypatch.context() as patched:
        patched.setattr("bgaug.store.commit.os.rename", rename)
        patched.setattr("bgaug.store.commit.shutil.rmtree", lambda *args, **more: None)
        with pytest.raises(Killed):
            replace_masks(root, read_header(root), 0, lambda row, masks: ~masks)
    assert (root / "shards" / "00000").exists() is (step == "committed")
    build(tmp_path / "videos_a", root)
    after = verify_store(root, deep=True)
    assert after.problems == ()
    assert (after.content_hash == before.content_hash) is (step == "committed")
    assert not [path.name for path in (root / "shards").iterdir() if path.name.startswith(".")]


# --- donor banks ------------------------------------------------------------------------------------------------------


def test_a_bank_is_kept_next_to_the_videos(root: Path) -> None:
    pictures = [(f"ü {number}.png", scene(number)) for number in range(5)]
    assert write_bank(root, "places", pictures) == 5
    bank = open_store(root).bank("places")
    assert bank.names == tuple(name for name, _ in pictures)
    assert np.array_equal(bank.images, np.stack([picture for _, picture in pictures]))
    assert verify_store(root, deep=True).problems == ()
    with pytest.raises(UsageError, match="already has a bank 'places'"):
        write_bank(root, "places", pictures)
    assert write_bank(root, "places", pictures[:2], overwrite=True) == 2 == len(open_store(root).bank("places").names)
    for name in ("", "../x", ".hidden", "a b"):
        with pytest.raises(UsageError, match="a bank's name consists of"):
            write_bank(root, name, pictures)
    with pytest.raises(UsageError, match="no image"):
        write_bank(root, "none", [])
    with pytest.raises(StoreError, match="no bank of images 'none'"):
        open_store(root).bank("none")


def test_a_damaged_bank_is_reported_and_dropped(root: Path) -> None:
    write_bank(root, "places", [("x", scene(1))])
    for name in ("pictures/c/0/0/0/0", COMMIT, "zarr.json"):
        whole = (root / "banks" / "places" / name).read_bytes()
        flip(root / "banks" / "places" / name, 12)
        assert verify_store(root).problems, name
        (root / "banks" / "places" / name).write_bytes(whole)
    flip(root / "banks" / "places" / COMMIT, 12)
    assert repair_store(root, verify_store(root)).banks == ("places",)
    assert verify_store(root).problems == ()


def test_banks_come_along_in_a_merge(halves: tuple[Path, Path], tmp_path: Path) -> None:
    write_bank(halves[0], "places", [("x", scene(1))])
    write_bank(halves[0], "both", [("x", scene(2))])
    write_bank(halves[1], "both", [("x", scene(2))])
    write_bank(halves[1], "places", [("y", scene(3))])
    merge_stores(halves, tmp_path / "c")
    store = open_store(tmp_path / "c")
    assert sorted(path.name for path in (tmp_path / "c" / "banks").iterdir()) == ["both", "places", "places-2"]
    assert store.bank("places-2").names == ("y",) and verify_store(tmp_path / "c").problems == ()


def test_a_bank_of_another_size_is_not_merged(halves: tuple[Path, Path], tmp_path: Path) -> None:
    """Nothing is read of a file of gigabytes."""
    root = tmp_path / "banked"
    shutil.copytree(halves[0], root)
    write_bank(root, "places", [("x", scene(1))])
    with (root / "banks" / "places" / "zarr.json").open("wb") as file:
        file.truncate(2**36)
    with pytest.raises(StoreDamageError, match="other than the [0-9]+ bytes that were committed"):
        merge_stores([root, halves[1]], tmp_path / "merged")
    assert not list((tmp_path / "merged" / "banks").glob("[!.]*"))


# --- reading from elsewhere -------------------------------------------------------------------------------------------


def test_masks_unpack_to_what_was_packed() -> None:
    masks = np.random.default_rng(0).random((3, 7, 5)) < 0.5
    assert np.array_equal(unpack_mask(pack_mask(masks), 7, 5), masks)


def test_a_folder_that_zarr_opens_reads_the_same(root: Path) -> None:
    near = open_store(root)
    far = open_store(zarr.storage.LocalStore(root, read_only=True))
    assert list(far.videos) == list(near.videos)
    for video in range(3):
        assert np.array_equal(far.clip(video, 1, 8, 2), near.clip(video, 1, 8, 2))
        assert np.array_equal(far.packed_masks(video, 1, 8, 2), near.packed_masks(video, 1, 8, 2))
        assert np.array_equal(far.background(video).image, near.background(video).image)
        assert np.array_equal(far.pts_seconds(video, 0, 20), near.pts_seconds(video, 0, 20))
    assert far.row(1) == near.row(1) and far.failures == []


# --- what cannot be trusted -------------------------------------------------------------------------------------------


def reseal(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record and give it the checksum of what it is then."""
    record = unseal(file, file.read_bytes())
    change(record)
    file.write_bytes(seal(record))


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "frames/../../x", "frames/c/x"])
def test_a_commit_cannot_name_files_elsewhere(halves: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    reseal(halves[0] / "shards" / "00000" / COMMIT, lambda record: record["files"].update({name: [1, 1]}))
    for act in (lambda: verify_store(halves[0]), lambda: merge_stores(halves, tmp_path / "c")):
        try:
            act()
        except StoreError as error:
            assert "is not in its folder" in str(error)
        else:
            assert any("is not in its folder" in problem.message for problem in verify_store(halves[0]).problems)


@pytest.mark.parametrize(
    ("change", "output"),
    [
        ({"shard": 7}, "is the record of shard 7"),
        ({"F": 99}, "declares 99 frames"),
        ({"K": 5}, "declares 5 backgrounds"),
    ],
)
def test_a_record_that_contradicts_itself_is_reported(root: Path, change: dict[str, int], output: str) -> None:
    reseal(root / "shards" / "00000" / COMMIT, lambda record: record.update(change))
    assert any(output in problem.message for problem in verify_store(root).problems)


def test_swapped_shards_are_reported(root: Path, tmp_path: Path) -> None:
    shards = root / "shards"
    (shards / "00000").rename(shards / "x")
    (shards / "00001").rename(shards / "00000")
    (shards / "x").rename(shards / "00001")
    shutil.rmtree(root / "index")
    assert any("belong to other shards" in problem.message for problem in verify_store(root).problems)


def test_rows_of_a_later_minor_version_are_read_and_invalid_ones_reported(root: Path) -> None:
    shutil.rmtree(root / "index")
    commit = root / "shards" / "00000" / COMMIT
    reseal(commit, lambda record: record["videos"][0].update({"added_later": 1}))
    assert len(open_store(root)) == 3
    reseal(commit, lambda record: record["videos"][0].update({"fps": "fast"}))
    with pytest.raises(StoreFormatError, match=r"COMMIT.json: videos.0.fps: .*number"):
        open_store(root)


@pytest.mark.parametrize("text", [b'{"a":1e999,"crc32c":0}', b'{"a":"\\ud800","crc32c":0}', b"[]", b"7", b"{}"])
def test_records_that_are_no_records_are_damage(root: Path, text: bytes) -> None:
    (root / "shards" / "00000" / COMMIT).write_bytes(text)
    assert verify_store(root).problems
    (root / "index" / COMMIT).write_bytes(text)
    with pytest.raises(StoreDamageError):
        open_store(root)


def test_odd_letters_in_names_and_messages(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "v", 1)
    strange = os.fsencode(videos) + b"/line\xe2\x80\xa8end \xff\xc2\x85.mp4"
    os.rename(os.fsencode(videos / "1.mp4"), strange)
    with open(os.fsencode(videos) + b"/\xe2\x80\xa8 \xfe.mp4", "wb") as file:
        file.write(b"no video")
    root = build(videos, tmp_path / "s")
    store = open_store(root)
    assert list(store.videos) == ["line\u2028end \\xff\x85.mp4"] and store.num_frames(0) == 21
    assert [failure.id for failure in store.failures] == ["\u2028 \\xfe.mp4"]
    assert verify_store(root, deep=True).problems == ()


def test_the_content_hash_needs_only_the_commits(root: Path) -> None:
    assert content_hash(root) == verify_store(root).content_hash
    shutil.rmtree(root / "shards" / "00000" / "frames")
    assert content_hash(root) == verify_store(root).content_hash
    store = open_store(root)
    (root / "shards" / "00000" / COMMIT).unlink()
    with pytest.raises(StoreDamageError, match=r"COMMIT.json: is missing: run `bgaug verify`"):
        store.row(0)
    with pytest.raises(StoreDamageError, match="has no COMMIT.json"):
        content_hash(root)
