from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import make_row
from worlds import moving_square

from bgaug.background import Background
from bgaug.errors import (
    StoreDamageError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
    StoreOptionsError,
)
from bgaug.masks import foreground_mask
from bgaug.names import FrameKind
from bgaug.shots.estimate import estimate_background
from bgaug.store import (
    Failure,
    Header,
    Identity,
    Plan,
    PlannedVideo,
    ShardWriter,
    Shot,
    Store,
    VideoPayload,
    VideoRow,
    create_store,
    finish_store,
    identify,
    open_store,
    pending_shards,
    plan_shards,
    verify_store,
)
from bgaug.store.format.layout import COMMIT


def plan_of(*sizes: int) -> Plan:
    """Shards of up to three videos and a bad one; `write_shard` fills them."""
    names = ("0 ü.mp4", "1 ü.mp4", "2 ü.mp4", "bad0.mp4")
    return Plan(tuple(tuple(PlannedVideo(f"{i}/{n}", size, size) for n in names) for i, size in enumerate(sizes)))


def header_of(frames: FrameKind = "jpeg", size: tuple[int, int] = (48, 64), **options: object) -> Header:
    return Header(size, "stretch", frames, ("run", "walk"), dict(options))


def write_shard(root: Path, header: Header, shard: int, videos: list[np.ndarray], failures: int = 0) -> None:
    with ShardWriter(root, header, shard) as writer:
        for number, frames in enumerate(videos):
            background = estimate_background(frames)
            payload = VideoPayload(header)
            for t, image in enumerate(frames):
                payload.add_frame(t / 25, image)
            payload.add_masks(foreground_mask(frames, background))
            shots = [Shot(start=0, stop=len(frames), background=payload.add_background(background))]
            writer.add(
                make_row(
                    f"{shard}/{number} ü.mp4",
                    len(frames),
                    shots,
                    label=("run", "walk", None)[number % 3],
                    group="g1" if number else None,
                    height=frames.shape[1],
                    width=frames.shape[2],
                ),
                payload,
            )
        for number in range(failures):
            writer.fail(Failure(id=f"{shard}/bad{number}.mp4", reason="corrupt", message="broke off"))
        writer.commit()


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    plan = plan_of(1, 1)
    header = create_store(root, header_of(), plan)
    write_shard(root, header, 0, [moving_square(0, 30)[0], moving_square(1, 21)[0]])
    write_shard(root, header, 1, [moving_square(2, 17)[0]], failures=1)
    finish_store(root)
    return root


# --- write and read ---------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    frames=st.sampled_from(["jpeg", "raw"]),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    height=st.integers(9, 40),
    width=st.integers(9, 40),
    stride=st.integers(1, 3),
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    frames: FrameKind,
    lengths: list[int],
    height: int,
    width: int,
    stride: int,
) -> None:
    root = tmp_path_factory.mktemp("roundtrip") / "s"
    header = create_store(root, header_of(frames, (height, width)), plan_of(1))
    videos = [moving_square(i, n, height, width, side=5)[0] for i, n in enumerate(lengths)]
    write_shard(root, header, 0, videos)
    finish_store(root)
    assert verify_store(root, deep=True).problems == ()
    store = open_store(root)
    for video, truth in enumerate(videos):
        span = 1 + (len(truth) - 1) // stride
        got = store.clip(video, 0, span, stride)
        background = estimate_background(truth)
        if frames == "raw":
            assert np.array_equal(got, truth[::stride])
        else:
            assert np.abs(got.astype(int) - truth[::stride]).mean() < 12  # JPEG, half chroma, tiny images
        assert np.array_equal(store.masks(video, 0, span, stride), foreground_mask(truth, background)[::stride])
        read = store.background(video)
        assert np.array_equal(read.image, background.image) and np.array_equal(read.noise, background.noise)
        assert np.array_equal(read.valid, background.valid)
        assert np.allclose(store.pts_seconds(video, 0, span, stride), np.arange(len(truth))[::stride] / 25)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_videos_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Many shots, with and without a background, empty and full masks, one frame, odd sizes, any names."""
    size = data.draw(st.tuples(st.integers(1, 33), st.integers(1, 33)), "size")
    kind: FrameKind = data.draw(st.sampled_from(("jpeg", "raw", "none")), "kind")
    text = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8)
    names = data.draw(st.lists(text, min_size=1, max_size=4, unique=True), "names")
    rng = np.random.default_rng(data.draw(st.integers(0, 9), "seed"))
    root = tmp_path_factory.mktemp("any") / data.draw(st.sampled_from(("s", "ü s", "日本")), "folder")
    header = create_store(root, header_of(kind, size), Plan((tuple(PlannedVideo(name, 1, 1) for name in names),)))
    truth = {}
    with ShardWriter(root, header, 0) as writer:
        for name in names:
            lengths = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=9), "shots")
            payload, shots, stop = VideoPayload(header), [], 0
            frames = rng.integers(0, 256, (sum(lengths), *size, 3), np.uint8)
            masks = rng.random(frames.shape[:3]) < data.draw(st.sampled_from((0, 0.5, 1)), "masks")
            for length in lengths:
                number, start, stop = -1, stop, stop + length
                if data.draw(st.booleans(), "background"):
                    picture = frames[start] // 2
                    noise = rng.integers(0, 9, size).astype(np.float32)
                    number = payload.add_background(Background(picture, noise, masks[start]))
                shots.append(Shot(start=start, stop=stop, background=number))
            for t, image in enumerate(frames):
                payload.add_frame(t / 7, image)
            payload.add_masks(masks)
            row = VideoRow(
                id=name,
                label=None,
                group=None,
                split=None,
                fps=7.0,
                height=size[0],
                width=size[1],
                start=0,
                num_frames=stop,
                status="ok",
                shots=shots,
                identity=Identity(bytes=1, sha256="x"),
                content="",
            )
            writer.add(row, payload)
            truth[name] = frames, masks, shots, payload.backgrounds
        writer.commit()
    finish_store(root)
    assert verify_store(root, deep=True).problems == ()
    store = open_store(root)
    assert list(store.videos) == sorted(names, key=lambda name: name)
    for video, name in enumerate(store.videos):
        frames, masks, shots, backgrounds = truth[name]
        assert np.array_equal(store.masks(video, 0, len(frames)), masks)
        if kind == "raw":
            assert np.array_equal(store.clip(video, 0, len(frames)), frames)
        assert store.shots(video)[:, :2].tolist() == [[shot.start, shot.stop] for shot in shots]
        for number, shot in enumerate(shots):
            if shot.background >= 0:
                read, written = store.background(video, number), backgrounds[shot.background]
                assert np.array_equal(read.image, written.image) and np.array_equal(read.valid, written.valid)
                assert np.array_equal(read.noise, written.noise)
            else:
                with pytest.raises(StoreError, match="has no static background"):
                    store.background(video, number)


def test_rows_labels_and_order(store_path: Path) -> None:
    store = open_store(store_path)
    assert list(store.videos) == ["0/0 ü.mp4", "0/1 ü.mp4", "1/0 ü.mp4"]
    assert store.columns.label.tolist() == [0, 1, 0]
    assert [store.num_frames(i) for i in range(3)] == [30, 21, 17]
    assert store.names.groups == ("g1",) and store.columns.group.tolist() == [-1, 0, -1]
    assert store.find("1/0 ü.mp4") == 2 and store.row(2).num_frames == 17
    assert [failure.id for failure in store.failures] == ["1/bad0.mp4"]
    with pytest.raises(KeyError, match="no video 'x'"):
        store.find("x")


def test_clips_outside_a_video_are_refused(store_path: Path) -> None:
    store = open_store(store_path)
    for start, count, stride in ((0, 31, 1), (29, 2, 1), (-1, 2, 1), (0, 16, 2), (0, 0, 1)):
        with pytest.raises(IndexError, match="has 30 frames"):
            store.clip(0, start, count, stride)
    with pytest.raises(IndexError, match="no shot 1"):
        store.background(0, 1)


def test_filling_a_given_buffer(store_path: Path) -> None:
    store = open_store(store_path)
    out = np.zeros((5, 48, 64, 3), np.uint8)
    assert store.clip(1, 3, 5, 2, out=out) is out
    assert np.array_equal(out, store.clip(1, 3, 5, 2))
    packed = np.zeros((5, 384), np.uint8)
    assert np.array_equal(store.packed_masks(1, 3, 5, 1, out=packed), store.packed_masks(1, 3, 5, 1))


def test_any_zarr_reader_opens_it(store_path: Path) -> None:
    root = zarr.open_group(store_path, mode="r")
    attributes = root.attrs["bgaug"]
    assert isinstance(attributes, dict) and attributes["format"] == "bgaug-store"
    group = zarr.open_group(store_path / "shards" / "00000", mode="r")
    store = open_store(store_path)
    masks = group["masks"]
    assert isinstance(masks, zarr.Array)
    assert np.array_equal(np.asarray(masks[30:40]), store.packed_masks(1, 0, 10))
    frames, offsets = group["frames"], group["frame_offsets"]
    assert isinstance(frames, zarr.Array) and isinstance(offsets, zarr.Array)
    left, right = np.asarray(offsets[:2]).tolist()
    assert np.asarray(frames[left : left + 2]).tobytes() == b"\xff\xd8" and right > left  # a JPEG image


def test_a_store_travels_between_processes_and_threads(store_path: Path) -> None:
    store = open_store(store_path)
    expected = store.clip(0, 0, 8)
    copied = pickle.loads(pickle.dumps(store))
    assert np.array_equal(copied.clip(0, 0, 8), expected)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda i: store.clip(i % 3, 0, 8), range(60)):
            assert got.shape == expected.shape
    for start in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(start).Pool(1) as workers:
            assert np.array_equal(workers.apply(Store.clip, (store, 0, 0, 8)), expected)


def test_a_forked_process_does_not_wait_for_a_lock_of_its_parent(store_path: Path) -> None:
    store = open_store(store_path)
    expected = store.clip(0, 0, 8)
    with store._shards._lock:  # as a thread holds it at the moment of the fork
        process = os.fork()
        if process == 0:
            signal.alarm(20)
            os._exit(0 if np.array_equal(store.clip(0, 0, 8), expected) else 1)
    assert os.waitpid(process, 0)[1] == 0


# --- the plan ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 2 * 10**8)), min_size=1, max_size=900))
def test_plans_take_every_video_once_and_keep_to_the_limits(videos: list[tuple[int, int]]) -> None:
    planned = [PlannedVideo(f"v{i:04d}", size, estimate) for i, (size, estimate) in enumerate(videos)]
    plan = plan_shards(planned[::-1])
    whole = [replace(video, part=0, parts=1) for shard in plan.shards for video in shard if video.part == 0]
    assert whole == planned and plan.num_videos == len(planned)
    for shard in plan.shards:
        assert len(shard) <= 64
        assert sum(video.estimate / video.parts for video in shard) <= 128 * 2**20
    assert Plan.to_bytes(plan) == Plan.to_bytes(plan_shards(planned))


def test_small_sets_are_cut_finely() -> None:
    assert [len(s) for s in plan_shards([PlannedVideo(f"{i:03d}", 1, 1) for i in range(60)]).shards] == [4] * 15


# --- resuming and refusing --------------------------------------------------------------------------------------------


def test_the_same_options_go_on_and_others_are_named(store_path: Path) -> None:
    plan = plan_of(1, 1)
    assert create_store(store_path, header_of(), plan).plan["shards"] == 2
    assert pending_shards(store_path, plan) == []
    assert pending_shards(store_path, plan, retry_failed=True) == [1]
    with pytest.raises(StoreOptionsError, match="size: 48x64 there, 40x64 now.*method: None there, median now"):
        create_store(store_path, header_of(size=(40, 64), method="median"), plan)
    with pytest.raises(StoreOptionsError, match=r"4 added \(2/0 ü.mp4, ...\), 4 of another size \(1/0 ü.mp4, ...\)"):
        create_store(store_path, header_of(), plan_of(1, 2, 3))
    create_store(store_path, header_of("raw"), plan, overwrite=True)
    assert pending_shards(store_path, plan) == [0, 1]


def test_other_folders_are_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(StoreFormatError, match="not a bgaug store"):
            create_store(tmp_path, header_of(), plan_of(1), overwrite=overwrite)
    (tmp_path / "zarr.json").write_text("{}")
    with pytest.raises(StoreFormatError):
        create_store(tmp_path, header_of(), plan_of(1), overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_too_little_space_is_reported_before_the_first_byte(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="GiB are free"):
        create_store(tmp_path / "s", header_of(), plan_of(10**18))
    assert not (tmp_path / "s" / "zarr.json").exists()


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "s"
    header = create_store(root, header_of(), plan_of(1))
    with pytest.raises(RuntimeError, match="power"), ShardWriter(root, header, 0):
        raise RuntimeError("power")
    assert pending_shards(root, plan_of(1)) == [0]
    with pytest.raises(StoreError, match="1 of 1 shards are missing"):
        open_store(root)
    assert len(open_store(root, allow_incomplete=True)) == 0


def test_one_writer_a_shard(tmp_path: Path) -> None:
    root = tmp_path / "s"
    header = create_store(root, header_of(), plan_of(1))
    with ShardWriter(root, header, 0), pytest.raises(StoreLockedError, match=f"process {os.getpid()}"):
        ShardWriter(root, header, 0).__enter__()


def test_what_a_dead_writer_left_is_cleared(tmp_path: Path) -> None:
    root = tmp_path / "s"
    header = create_store(root, header_of(), plan_of(1))
    half = root / "shards" / ".tmp-00000" / "masks"
    half.mkdir(parents=True)
    (half / "zarr.json").write_text("half")
    write_shard(root, header, 0, [moving_square(0, 9)[0]])
    (root / "shards" / ".tmp-00007").mkdir()
    finish_store(root)
    assert sorted(path.name for path in (root / "shards").iterdir()) == ["00000"]
    assert verify_store(root).problems == ()


# --- damage -----------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_found(store_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = [path for path in store_path.rglob("*") if path.is_file()]
    for path in files:
        whole = path.read_bytes()
        if not whole:
            continue
        place, bit = int(rng.integers(len(whole))), int(rng.integers(8))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            found = bool(verify_store(store_path).problems)
        except StoreError:
            found = True
        assert found, f"{path.relative_to(store_path)}: bit {bit} of byte {place}"
        path.write_bytes(whole)
    assert verify_store(store_path).problems == ()


def test_every_missing_file_is_found(store_path: Path) -> None:
    for path in [path for path in store_path.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        path.unlink()
        try:
            found = bool(verify_store(store_path).problems)
        except StoreError:
            found = True
        assert found, path.relative_to(store_path)
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["frames", "masks", "backgrounds", "pts_seconds", "frame_crc"])
def test_a_missing_array_is_never_served_as_zeros(store_path: Path, name: str) -> None:
    chunk = next(path for path in (store_path / "shards/00000" / name / "c").rglob("*") if path.is_file())
    chunk.unlink()
    store = open_store(store_path)
    with pytest.raises(StoreDamageError, match="bgaug verify"):
        store.clip(0, 0, 8)
        store.masks(0, 0, 8)
        store.background(0)
        store.pts_seconds(0, 0, 8)


@pytest.mark.parametrize("name", ["frames", "masks", "backgrounds"])
def test_a_changed_byte_is_reported_on_reading(store_path: Path, name: str) -> None:
    chunk = next(path for path in (store_path / "shards/00000" / name / "c").rglob("*") if path.is_file())
    data = bytearray(chunk.read_bytes())
    data[40] ^= 4
    chunk.write_bytes(bytes(data))
    store = open_store(store_path)
    with pytest.raises(StoreDamageError):
        store.clip(0, 0, 8)
        store.masks(0, 0, 8)
        store.background(0)


def test_extra_files_are_named(store_path: Path) -> None:
    (store_path / "shards" / "00001" / "notes.txt").write_text("mine")
    (problem,) = verify_store(store_path).problems
    assert problem.path.name == "notes.txt" and "does not belong" in problem.message


def test_a_lost_index_is_derived_again(store_path: Path) -> None:
    before = open_store(store_path)
    shutil.rmtree(store_path / "index")
    (store_path / "failures.jsonl").unlink()
    read_only = open_store(store_path)
    assert list(read_only.videos) == list(before.videos)
    assert len(verify_store(store_path).problems) == 2
    finish_store(store_path)
    assert verify_store(store_path).problems == ()


def test_other_versions_are_refused(store_path: Path) -> None:
    file = store_path / "zarr.json"
    node = json.loads(file.read_text())
    node["attributes"]["bgaug"]["version"] = [2, 0]
    file.write_text(json.dumps(node))
    with pytest.raises(StoreFormatError, match="version"):
        open_store(store_path)
    with pytest.raises(StoreFormatError, match="no zarr.json"):
        open_store(store_path / "shards")


def test_a_damaged_commit_costs_its_shard_and_is_named(store_path: Path) -> None:
    commit = store_path / "shards" / "00000" / COMMIT
    commit.write_bytes(commit.read_bytes().replace(b"walk", b"talk"))
    report = verify_store(store_path)
    assert report.content_hash is None
    assert any(problem.path == commit for problem in report.problems)


# --- content ----------------------------------------------------------------------------------------------------------


def test_content_hash_is_that_of_the_content(tmp_path: Path) -> None:
    hashes = []
    for name, length in (("a", 12), ("b", 12), ("c", 13)):
        root = tmp_path / name
        header = create_store(root, header_of(), plan_of(1))
        write_shard(root, header, 0, [moving_square(0, length)[0]])
        finish_store(root)
        hashes.append(verify_store(root).content_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_identity_distinguishes_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    data = bytearray(np.random.default_rng(0).bytes(3 * 2**20))
    path.write_bytes(data)
    first = identify(path)
    data[-1] ^= 1
    path.write_bytes(data)
    assert identify(path) != first and identify(path).bytes == 3 * 2**20
