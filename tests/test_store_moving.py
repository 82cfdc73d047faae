"""What a store keeps for cameras that move: backgrounds at frames, canvases, small masks."""

from __future__ import annotations

import json
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr
from hostile import KINDS, canonical, load, reseal
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import FULL_SIZE, MOVING_IDS, make_moving_store, make_row, moving_shots, noise_background, noise_canvas
from test_dataset import drawn
from zarr.storage import LocalStore

from bgaug.background import BackgroundView
from bgaug.background.image import Canvas
from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.errors import StoreDamageError, StoreError, StoreFormatError
from bgaug.masks import SmallMasks
from bgaug.pipelines.build.export import export_videos
from bgaug.pipelines.build.process_video import put_shot
from bgaug.progress import Silent
from bgaug.shots.shot import Shot as EstimatedShot
from bgaug.store import (
    FrameKind,
    Header,
    Plan,
    PlannedVideo,
    ShardWriter,
    Shot,
    Store,
    VideoPayload,
    create_store,
    finish_store,
    merge_stores,
    open_store,
    repair_store,
    replace_masks,
    verify_store,
)
from bgaug.store.format.canvas import can_be_stored
from bgaug.store.format.layout import read_header

COMMIT = "shards/00000/COMMIT.json"
NEW_ARRAYS = {"canvas_image", "canvas_noise", "canvas_valid", "canvas_places", "small_masks"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[FrameKind, Path]:
    folder = tmp_path_factory.mktemp("moving")
    return {kind: make_moving_store(folder / kind, kind) for kind in KINDS}


@pytest.fixture
def root(whole: dict[FrameKind, Path], tmp_path: Path) -> Path:
    """A store of backgrounds that may be changed."""
    return Path(shutil.copytree(whole["none"], tmp_path / "none"))


def assert_same_canvas(found: Canvas | None, expected: Canvas | None) -> None:
    assert (found is None) == (expected is None)
    if found is None or expected is None:
        return
    for name in ("image", "noise", "valid", "transforms", "confidence", "usual", "indices"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype and np.array_equal(one, other), name
    assert found.size == expected.size


def everything(store: Store) -> list[Any]:
    """What the store has of moving cameras, in plain values, by id without a prefix."""
    found: list[Any] = []
    for video in range(len(store)):
        for number, shot in enumerate(store.row(video).shots):
            images = [store.background(video, number, frame).image.tobytes() for frame in range(shot.start, shot.stop)]
            canvas, masks = store.canvas(video, number), store.shot_masks(video, number)
            layers = [] if canvas is None else [canvas.image.tobytes(), canvas.noise.tobytes(), canvas.valid.tobytes()]
            layers += [] if canvas is None else [canvas.transforms.tobytes(), canvas.indices.tobytes()]
            small = None if masks is None else masks.packed(0, len(masks)).tobytes()
            found.append((shot.start, shot.stop, shot.has_canvas_result, images, layers, small))
    return found


# --- round trip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_shots_read_back_as_they_were_estimated(whole: dict[FrameKind, Path], kind: FrameKind) -> None:
    store, expected = open_store(whole[kind]), moving_shots(FULL_SIZE)
    assert list(store.videos) == list(MOVING_IDS)
    for video, name in enumerate(MOVING_IDS[1:], 1):
        for number, shot in enumerate(expected[name]):
            assert_same_canvas(store.canvas(video, number), shot.canvas)
            row, masks = store.row(video).shots[number], store.shot_masks(video, number)
            assert row.has_canvas_result is (shot.camera == "jitter") and row.camera == shot.camera
            assert (masks is None) == (shot.masks is None)
            if masks is not None and shot.masks is not None:
                assert len(masks) == shot.stop - shot.start and masks.size == shot.masks.size
                for frame in (0, 7, 3, 3):
                    assert np.array_equal(masks.at(frame), shot.masks.at(frame))
                with pytest.raises(IndexError, match="8 frames"):
                    masks.at(8)
            assert store.background_frames(video, number).tolist() == [shot.start + one.frame for one in shot.views]
            if shot.background is not None:
                assert np.array_equal(store.background(video, number).image, shot.background.image)
    assert verify_store(whole[kind], deep=True).problems == ()


def test_the_nearest_of_several_backgrounds_is_read(whole: dict[FrameKind, Path]) -> None:
    store, shots = open_store(whole["none"]), moving_shots(FULL_SIZE)
    pan = store.find("pan.mp4")
    views = {view.frame: view.background for view in shots["pan.mp4"][0].views}
    # Frames 1, 4 and 6: of two that are equally near, the earlier one.
    for frame, nearest in ((0, 1), (2, 1), (3, 4), (4, 4), (5, 4), (6, 6), (7, 6), (100, 6), (-5, 1), (None, 4)):
        found, out = store.background(pan, 0, frame), np.empty((*FULL_SIZE, 3), np.uint8)
        assert np.array_equal(found.image, views[nearest].image) and np.array_equal(found.valid, views[nearest].valid)
        assert np.array_equal(found.noise, views[nearest].noise) and found.grade == "B"
        store.background_into(pan, 0, out, frame)
        assert np.array_equal(out, found.image)
    assert np.array_equal(store.background(pan, 2, 12).image, shots["pan.mp4"][2].views[0].background.image)
    for read in (store.canvas, store.shot_masks, store.background_frames, store.background):
        with pytest.raises(IndexError, match="no shot 3"):
            read(pan, 3)
    assert pickle.loads(pickle.dumps(store)).canvas(store.find("shake.mp4"), 0) is not None


def test_a_shot_in_two_shards_keeps_the_nearest_background_of_every_frame(whole: dict[FrameKind, Path]) -> None:
    store, (long,) = open_store(whole["jpeg"]), moving_shots(FULL_SIZE)["long.mp4"]
    assert store.shots(0)[:, :2].tolist() == [[0, 16], [16, 24]]
    assert [store.background_frames(0, shot).tolist() for shot in (0, 1)] == [[2, 9, 15, 22], [15, 22]]
    frames = np.array([view.frame for view in long.views])
    for frame in range(24):
        nearest = long.views[int(np.abs(frames - frame).argmin())].background
        assert np.array_equal(store.background(0, int(frame >= 16), frame).image, nearest.image)


def test_a_part_of_a_shot_counts_its_frames_from_its_own_beginning() -> None:
    rng = np.random.default_rng(0)
    views = tuple(BackgroundView(frame, noise_background(rng, (4, 4))) for frame in (1, 5, 11, 30))
    shot = EstimatedShot(100, 140, "moving", canvas=noise_canvas(rng), views=views)
    part = shot.part(108, 110)
    assert (part.start, part.stop, part.camera) == (108, 110, "moving")
    assert [100 + view.frame for view in views[1:3]] == [108 + view.frame for view in part.views] == [105, 111]
    assert part.canvas is not None and shot.canvas is not None
    assert np.array_equal(part.canvas.indices + 8, shot.canvas.indices)
    assert shot.part(100, 140).views == views


def test_a_store_without_moving_cameras_has_nothing_new(tmp_path: Path, whole: dict[FrameKind, Path]) -> None:
    folder = whole["none"] / "shards" / "00001"
    names = {path.name for path in folder.iterdir()}
    assert not names & NEW_ARRAYS and "valid" in names
    (shot,) = load(folder / "COMMIT.json")["videos"][0]["shots"]
    assert list(shot) == ["background", "camera", "grade", "reasons", "start", "stop"]
    assert Shot.model_validate(shot).content == [0, 5]
    assert NEW_ARRAYS <= {path.name for path in (whole["none"] / "shards/00000").iterdir()}


def test_an_index_of_an_earlier_version_is_read(root: Path) -> None:
    """Without the columns of moving cameras, the index is only right for stores that have none."""
    truth = everything(open_store(root))
    record = load(root / "index/COMMIT.json")
    for name in ("background_frame", "background_frame_offsets"):
        shutil.rmtree(root / "index" / name)
        record["files"] = {key: value for key, value in record["files"].items() if not key.startswith(f"{name}/")}
    (root / "index/COMMIT.json").write_bytes(canonical(record))
    reseal(root, "index/COMMIT.json")
    store = open_store(root)
    assert store.columns.background_frame.size == 0
    with pytest.raises(StoreDamageError, match="other shots of pan"):
        store.row(store.find("pan.mp4"))
    assert store.row(store.find("shake.mp4")).shots[0].canvas is not None
    (problem,) = verify_store(root).problems
    assert "background_frame" in problem.message
    repair_store(root, verify_store(root))
    assert everything(open_store(root)) == truth


def test_a_remote_store_reads_the_same(whole: dict[FrameKind, Path]) -> None:
    far = open_store(LocalStore(whole["none"], read_only=True))
    assert everything(far) == everything(open_store(whole["none"]))


def test_zarr_reads_the_arrays(root: Path) -> None:
    group = zarr.open_group(root / "shards/00000", mode="r")
    shake = moving_shots(FULL_SIZE)["shake.mp4"]
    canvas = load(root / COMMIT)["videos"][1]["shots"][2]["canvas"]
    pixels = slice(canvas["pixel"], canvas["pixel"] + 600)
    image = np.asarray(group["canvas_image"][pixels]).reshape(20, 30, 3)  # type: ignore[index]
    assert shake[2].canvas is not None and np.array_equal(image, shake[2].canvas.image)


# --- limits of what is written ----------------------------------------------------------------------------------------


def test_frames_that_could_not_be_aligned_are_left_out() -> None:
    canvas = noise_canvas(np.random.default_rng(0), 5)
    unsure = replace(canvas, confidence=np.array([0.9, 0.2, 0.7, 0.0, 0.6], np.float32))
    unsure.transforms[1] = np.nan
    payload = VideoPayload(Header(FULL_SIZE, "stretch", "none", (), {}))
    row = payload.add_canvas(unsure, 10)
    assert row.num_places == 3 and payload.totals.canvas_places == 3
    assert payload.canvases[0]["canvas_places"][:, 0].tolist() == (canvas.indices[[0, 2, 4]] + 10).tolist()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 3.0, -2.0])
def test_a_canvas_that_no_reader_accepts_is_not_written(wrong: float) -> None:
    canvas = noise_canvas(np.random.default_rng(0))
    assert can_be_stored(canvas) and not can_be_stored(replace(canvas, confidence=canvas.confidence * 0))
    canvas.transforms[2, 0, 0] = wrong
    assert not can_be_stored(canvas)
    payload = VideoPayload(Header(FULL_SIZE, "stretch", "none", (), {}))
    row = put_shot(payload, EstimatedShot(0, 8, "jitter", None, canvas), for_builds=True)
    assert not row.has_canvas_result and "canvas" not in row.to_json()


def test_a_training_store_keeps_backgrounds_only() -> None:
    shots = moving_shots(FULL_SIZE)
    payload = VideoPayload(Header(FULL_SIZE, "stretch", "none", (), {}))
    rows = [put_shot(payload, shot) for shot in (*shots["pan.mp4"], *shots["shake.mp4"])]
    assert [row.background_frames for row in rows] == [[1, 4, 6], [], [15], [], [], []]
    assert [row.background for row in rows] == [0, 3, 4, 5, 6, 7]
    assert not any(row.has_canvas_result or row.masks for row in rows)


def test_small_masks_check_their_shape() -> None:
    with pytest.raises(ValueError, match="5x7"):
        SmallMasks(np.zeros((3, 6), np.uint8), (5, 7))
    masks = SmallMasks.of(np.random.default_rng(0).random((600, 5, 7)) < 0.5)
    assert np.array_equal(np.concatenate(list(masks.blocks())), masks.packed(0, 600)) and masks.num_bytes == 3000


def test_small_masks_of_a_long_shot_are_read_block_by_block(tmp_path: Path) -> None:
    count, size = 3000, (120, 160)
    small = SmallMasks(np.random.default_rng(0).integers(0, 256, (count, 2400), dtype=np.uint8), size)
    header = create_store(
        tmp_path / "s", Header((8, 8), "stretch", "none", (), {}), Plan(((PlannedVideo("a.mp4", 1, 1),),))
    )
    payload = VideoPayload(header)
    for frame in range(count):
        payload.add_frame(frame / 25, None)
    rows = [put_shot(payload, EstimatedShot(0, count, "moving", masks=small), for_builds=True)]
    with ShardWriter(tmp_path / "s", header, 0) as writer:
        writer.add(make_row("a.mp4", count, rows), payload)
        writer.commit()
    finish_store(tmp_path / "s")
    masks = open_store(tmp_path / "s").shot_masks(0)
    assert masks is not None and masks.num_bytes == small.num_bytes == 7_200_000
    tracemalloc.start()
    try:
        for frame in range(0, count, 5):
            assert np.array_equal(masks.at(frame), small.at(frame))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# --- upkeep -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_merging_keeps_everything(whole: dict[FrameKind, Path], tmp_path: Path, kind: FrameKind, copy: bool) -> None:
    other = make_moving_store(tmp_path / "other", kind, "~ ")
    merge_stores([whole[kind], other], tmp_path / "merged", copy=copy)
    assert verify_store(tmp_path / "merged", deep=True).problems == ()
    merged = open_store(tmp_path / "merged")
    assert everything(merged) == everything(open_store(whole[kind])) + everything(open_store(other))


def test_replaced_masks_leave_the_rest(whole: dict[FrameKind, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole["jpeg"], tmp_path / "jpeg"))
    truth, before = everything(open_store(root)), open_store(root).row(1).content
    assert replace_masks(root, read_header(root), 0, lambda row, masks: ~masks) == ["pan.mp4", "shake.mp4"]
    finish_store(root)
    assert everything(open_store(root)) == truth and open_store(root).row(1).content != before
    assert verify_store(root, deep=True).problems == ()
    replace_masks(root, read_header(root), 0, lambda row, masks: ~masks)
    finish_store(root)
    assert open_store(root).row(1).content == before


def test_export_writes_each_background(whole: dict[FrameKind, Path], tmp_path: Path) -> None:
    export_videos(whole["none"], ["pan.mp4", "shake.mp4"], tmp_path / "out", Silent())
    about = json.loads((tmp_path / "out/pan.json").read_bytes())
    pan, static, last = moving_shots(FULL_SIZE)["pan.mp4"]
    names = [f"backgrounds/pan/shot_000_frame_{frame:06d}" for frame in (1, 4, 6)]
    assert about["shots"][0]["background"] == [f"{name}.png" for name in names]
    assert about["shots"][0]["valid"] == [f"{name}_valid.png" for name in names]
    assert about["shots"][1]["background"] == "backgrounds/pan/shot_001.png" and "canvas" not in about["shots"][1]
    for view, name in zip(pan.views, names, strict=True):
        image = cv2.imread(str(tmp_path / "out" / f"{name}.png"), cv2.IMREAD_COLOR_RGB)
        assert image is not None and np.array_equal(image, view.background.image)
    assert static.background is not None and len(last.views) == 1
    export_videos(whole["none"], ["pan.mp4"], tmp_path / "out", Silent(), overwrite=True)
    assert len(list((tmp_path / "out/backgrounds/pan").iterdir())) == 2 * 5


def test_the_content_hash_covers_what_moving_cameras_have(root: Path) -> None:
    def hash_with(edit: Callable[[Any], object]) -> str | None:
        copy = Path(shutil.copytree(root, root.parent / "copy", dirs_exist_ok=True))
        record = load(copy / COMMIT)
        edit(record["videos"])
        (copy / COMMIT).write_bytes(canonical(record))
        reseal(copy, COMMIT)
        found = verify_store(copy).content_hash
        shutil.rmtree(copy)
        return found

    usual = [1.0, 0.0, 2.0, 0.0, 1.0, 2.0]
    hashes = {
        verify_store(root).content_hash,
        hash_with(lambda videos: videos[0]["shots"][0].update(background_frames=[1, 4, 7])),
        hash_with(lambda videos: videos[1]["shots"][0]["canvas"].update(usual=usual)),
        hash_with(lambda videos: videos[1]["shots"][1].pop("canvas")),
        hash_with(lambda videos: videos[0]["shots"][0]["masks"].update(size=[7, 5])),
    }
    assert len(hashes) == 5 and None not in hashes
    assert hash_with(lambda videos: videos[0]["shots"][0].update(grade="F")) in hashes


# --- damage and hostile content ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_found_or_changes_nothing(whole: dict[FrameKind, Path], data: st.DataObject) -> None:
    root = whole["none"]
    paths = sorted(path for name in NEW_ARRAYS for path in (root / "shards/00000" / name).rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(paths))
    before = path.read_bytes()
    place, bit = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(0, 7))
    truth = everything(open_store(root))
    try:
        path.write_bytes(before[:place] + bytes([before[place] ^ 1 << bit]) + before[place + 1 :])
        assert any(path == problem.path for problem in verify_store(root).problems)
        try:
            assert everything(open_store(root)) == truth
        except StoreError as error:
            assert str(root) in str(error)
    finally:
        path.write_bytes(before)


def edited(root: Path, edit: Callable[[Any], object], name: str = COMMIT) -> Path:
    document = load(root / name)
    edit(document)
    (root / name).write_bytes(canonical(document))
    reseal(root, name)
    return root


PAN, SHAKE = ("videos", 0, "shots"), ("videos", 1, "shots")
CANVAS = (*SHAKE, 0, "canvas")
FIELDS: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "frames descend": ((*PAN, 0, "background_frames"), [4, 1, 6], "ascending"),
    "frames twice": ((*PAN, 0, "background_frames"), [4, 4, 6], "ascending"),
    "frames behind": ((*PAN, 0, "background_frames"), [1, 4, 20], "background of frame 20 of 20"),
    "frames below": ((*PAN, 0, "background_frames"), [-1, 4, 6], r"background_frames\.0"),
    "no frames": ((*PAN, 0, "background_frames"), [], "background_frames"),
    "too many frames": ((*PAN, 0, "background_frames"), [1, 2, 4, 6], "has background 3, expected 4"),
    "too few frames": ((*PAN, 0, "background_frames"), [1, 6], "has background 3, expected 2"),
    "frames no list": ((*PAN, 0, "background_frames"), 3, "background_frames"),
    "frames of nothing": ((*PAN, 0, "background"), -1, "no background"),
    "pixel": ((*CANVAS, "pixel"), 1, "canvas at pixel 1"),
    "pixel below": ((*CANVAS, "pixel"), -1, r"canvas\.pixel"),
    "place": ((*CANVAS, "place"), 3, "place 3"),
    "places": ((*CANVAS, "num_places"), 0, r"canvas\.num_places"),
    "size": ((*CANVAS, "size"), [10**5, 1], r"canvas\.size"),
    "pixels": ((*CANVAS, "size"), [60000, 60000], "more than 33554432 pixels"),
    "three sides": ((*CANVAS, "size"), [20, 30, 3], r"canvas\.size"),
    "other size": ((*CANVAS, "size"), [20, 31], "canvas at pixel 600 and place 5, expected 620 and 5"),
    "frame size": ((*CANVAS, "frame_size"), [0, 26], r"canvas\.frame_size"),
    "usual": ((*CANVAS, "usual"), [1.0, 0.0, 0.0], r"canvas\.usual"),
    "usual singular": ((*CANVAS, "usual"), [0.0] * 6, "close to the identity"),
    "usual far": ((*CANVAS, "usual"), [1.0, 0.0, 1e9, 0.0, 1.0, 0.0], "close to the identity"),
    "canvas list": ((*SHAKE, 0, "canvas"), [], "canvas"),
    "masks": ((*PAN, 0, "masks"), {"byte": 1, "size": [5, 7]}, "small masks at byte 1"),
    "mask size": ((*PAN, 0, "masks", "size"), [6, 7], "small masks at byte 40, expected 48"),
    "mask size huge": ((*PAN, 0, "masks", "size"), [65535, 65535], "more than 33554432 pixels"),
    "mask size none": ((*PAN, 0, "masks", "size"), [0, 7], r"masks\.size"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_record_that_cannot_be_is_refused(root: Path, name: str) -> None:
    path, value, message = FIELDS[name]

    def edit(record: Any) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    edited(root, edit)
    shutil.rmtree(root / "index")
    with pytest.raises(StoreFormatError, match=message) as caught:
        open_store(root)
    assert str(caught.value.path).startswith(str(root)) and len(str(caught.value)) < 500
    assert any(problem.path == root / COMMIT for problem in verify_store(root).problems)
    repair_store(root, verify_store(root))
    assert not (root / "shards/00000").exists()


def test_a_record_of_more_than_the_arrays_hold_is_refused(root: Path) -> None:
    """A canvas of a hundred megabytes, of which there are 600 pixels: nothing of that size is allocated."""

    def edit(record: Any) -> None:
        record["videos"][1]["shots"][2]["canvas"]["size"] = [5000, 6000]
        record["videos"][0]["shots"][2]["masks"]["size"] = [5000, 6000]

    store = open_store(edited(root, edit))
    with pytest.raises(StoreDamageError, match="canvas_image.*rows 0 to"):
        store.canvas(store.find("shake.mp4"), 2)
    with pytest.raises(StoreDamageError, match="small_masks.*rows 0 to"):
        store.shot_masks(store.find("pan.mp4"), 2)
    named = {problem.path.name for problem in verify_store(root).problems}
    assert named == {"canvas_image", "canvas_noise", "canvas_valid", "small_masks"}


def test_a_shard_with_an_array_too_many_or_too_few_is_reported(root: Path) -> None:
    def without(record: Any) -> None:
        for shot in record["videos"][0]["shots"]:
            shot.pop("masks", None)

    assert any("small_masks" in problem.message for problem in verify_store(edited(root, without)).problems)

    def with_one(record: Any) -> None:
        record["videos"][0]["shots"][0]["masks"] = {"byte": 0, "size": [5, 7]}

    other = "shards/00001/COMMIT.json"
    problems = verify_store(edited(root, with_one, other)).problems
    assert any("small_masks" in problem.message for problem in problems)
    with pytest.raises(StoreDamageError, match="small_masks"):
        open_store(root).shot_masks(2, 0)


@pytest.mark.parametrize(
    ("column", "value"), [(0, 0.5), (0, -1), (0, 2.0**40), (1, 0.2), (1, 7), (2, 0), (4, np.nan), (7, 1e9), (0, 1e3)]
)
def test_places_that_cannot_be_are_damage(root: Path, column: int, value: float) -> None:
    """Also frames that are not in order; a transform that cannot be inverted must not reach the alignment."""
    array = zarr.open_array(root / "shards/00000/canvas_places", mode="r+")
    values = np.asarray(array[...])
    values[0, column] = value
    array[...] = values
    reseal(root, "shards/00000/canvas_places/c/0/0")
    store = open_store(root)
    with pytest.raises(StoreDamageError, match="canvas_places"):
        store.canvas(store.find("shake.mp4"), 0)
    if value != 1e3:  # in itself it is possible
        assert any("canvas_places" in problem.message for problem in verify_store(root, deep=True).problems)


@pytest.mark.parametrize("name", ["background_frame", "background_frame_offsets"])
@pytest.mark.parametrize("change", ["-1", "7", "gone"])
def test_an_index_that_cannot_be_is_passed_over(root: Path, name: str, change: str) -> None:
    truth = everything(open_store(root))
    if change == "gone":
        shutil.rmtree(root / "index" / name)
        record = load(root / "index/COMMIT.json")
        record["files"] = {key: value for key, value in record["files"].items() if not key.startswith(f"{name}/")}
        (root / "index/COMMIT.json").write_bytes(canonical(record))
        reseal(root, "index/COMMIT.json")
    else:
        array = zarr.open_array(root / "index" / name, mode="r+")
        array[...] = np.full(array.shape, int(change), array.dtype)
        reseal(root, f"index/{name}/c/0")
    assert everything(open_store(root)) == truth
    assert any("cannot be used" in problem.message for problem in verify_store(root).problems)


# --- clips ------------------------------------------------------------------------------------------------------------


def test_a_clip_gets_the_background_nearest_to_the_middle_of_its_second_view(whole: dict[FrameKind, Path]) -> None:
    store, shots = open_store(whole["jpeg"]), moving_shots(FULL_SIZE)
    for views in (1, 2):
        options = ClipOptions(num_frames=3, stride=1, views=views, min_shot_seconds=0)
        dataset = ClipDataset(store, options, seed=3)
        assert len(dataset) == len(MOVING_IDS)
        seen = set()
        for epoch in range(30):
            dataset.set_epoch(epoch)
            for index, video in enumerate(dataset.videos.tolist()):
                sample = dataset[index]
                middle = int(sample.start[-1]) + 1
                expected = store.background(video, int(sample.shot), middle)
                assert np.array_equal(sample.backgrounds.numpy(), expected.image)
                if store.video_id(video) == "pan.mp4" and int(sample.shot) == 0:
                    nearest = min(shots["pan.mp4"][0].views, key=lambda view: abs(view.frame - middle))
                    assert np.array_equal(sample.backgrounds.numpy(), nearest.background.image)
                    seen.add(nearest.frame)
        assert seen == {1, 4, 6}


def test_grades_and_statuses_count_as_for_others(whole: dict[FrameKind, Path]) -> None:
    options = ClipOptions(num_frames=2, stride=1)
    good = ClipDataset(whole["jpeg"], options, min_grade="B")
    assert [good.store.video_id(video) for video in good.videos.tolist()] == ["pan.mp4", "plain.mp4"]
    assert {shot for shot, _ in drawn(good, 0, 40)} == {0, 1}  # the third has the grade F
    assert len(ClipDataset(whole["jpeg"], options, statuses=["ok"])) == len(MOVING_IDS)
