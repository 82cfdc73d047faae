"""Errors about stores with hostile content: the path, the field, and never data that the store does not hold."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr
from hostile import KINDS, Hung, bomb, canonical, crc32c, load, no_longer_than, reseal, sealed
from numcodecs.zstd import Zstd
from stores import FULL_SIZE, make_full_store

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.errors import StoreDamageError, StoreError, StoreFormatError
from bgaug.store import FrameKind, Store, merge_stores, open_store, repair_store, verify_store
from bgaug.store.array_file import _content_bytes
from bgaug.store.format.documents import parse_json
from bgaug.store.format.payload import _jpeg_shape, decode_jpeg

COMMIT = "shards/00000/COMMIT.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[FrameKind, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {kind: make_full_store(folder / kind, kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def root(request: pytest.FixtureRequest, whole: dict[FrameKind, Path], tmp_path: Path) -> Path:
    """A store of each kind, that may be changed."""
    return Path(shutil.copytree(whole[request.param], tmp_path / request.param))


@pytest.fixture
def jpeg(whole: dict[FrameKind, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole["jpeg"], tmp_path / "jpeg"))


def change(root: Path, name: str, edit: Callable[[Any], object]) -> None:
    """Edit a document and update the checksums."""
    document = load(root / name)
    edit(document)
    (root / name).write_bytes(canonical(document))
    reseal(root, name)


def everything(store: Store) -> list[Any]:
    """What a store holds, in plain values."""
    found: list[Any] = [list(store.videos), [failure.id for failure in store.failures]]
    for video in range(len(store)):
        count = store.num_frames(video)
        if store.header.frames != "none":
            found.append(store.clip(video, 0, count).tobytes())
        found += [store.packed_masks(video, 0, count).tobytes(), store.pts_seconds(video, 0, count).tolist()]
        found += [store.row(video).id, store.background(video, 0).image.tobytes()]
    return found


# --- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [10**7, 10**12, -1, "3", None, 2**64])
def test_a_header_that_declares_other_shards_costs_nothing(jpeg: Path, number: Any) -> None:
    change(jpeg, "zarr.json", lambda node: node["attributes"]["bgaug"]["plan"].update(shards=number))
    begun = time.process_time()
    output = "9999996 of 10000000 shards are missing" if number == 10**7 else r"plan\.shards: Input should be"
    with pytest.raises(StoreError, match=output):
        open_store(jpeg)
    if number == 10**7:
        paths = {problem.path.name for problem in verify_store(jpeg).problems}
        assert {"shards", "plan.json"} <= paths and len(paths) < 5
    assert time.process_time() - begun < 2


FIELDS: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "size": ("zarr.json", lambda d: d["attributes"]["bgaug"].update(size=[10**6, 10**6]), "size"),
    "pixels": ("zarr.json", lambda d: d["attributes"]["bgaug"].update(size=[60000, 60000]), "size"),
    "classes": ("zarr.json", lambda d: d["attributes"]["bgaug"].update(classes=["run", "run"]), "classes"),
    "options": ("zarr.json", lambda d: d["attributes"]["bgaug"].update(options=[]), "options"),
    "start": (COMMIT, lambda d: d["videos"][1].update(start=-1), r"videos\.1\.start"),
    "start far": (COMMIT, lambda d: d["videos"][1].update(start=2**62), "starts at frame"),
    "fps": (COMMIT, lambda d: d["videos"][0].update(fps="fast"), r"videos\.0\.fps"),
    "missing": (COMMIT, lambda d: d["videos"][0].pop("shots"), r"videos\.0\.shots"),
    "status": (COMMIT, lambda d: d["videos"][0].update(status="great"), r"videos\.0\.status"),
    "camera": (COMMIT, lambda d: d["videos"][0]["shots"][0].update(camera="x"), r"videos\.0\.shots\.0\.camera"),
    "F": (COMMIT, lambda d: d.update(F=10**12), "declares 1000000000000 frames"),
    "K": (COMMIT, lambda d: d.update(K=99), "declares 99 backgrounds"),
    "twice": (COMMIT, lambda d: d["videos"][1].update(id="a.mp4"), "two entries for one video"),
    "background": (COMMIT, lambda d: d["videos"][0]["shots"][0].update(background=7), "background 7"),
    "shot": (COMMIT, lambda d: d["videos"][0]["shots"][1].update(stop=10**9), "6 frames, its shots 1000000000"),
    "file": (COMMIT, lambda d: d["files"].update({"../../x": [1, 1]}), "is not in its folder"),
    "long": (COMMIT, lambda d: d["videos"][0].update(id=["A" * 10**6]), r"videos\.0\.id.*\.\.\."),
}


@pytest.mark.parametrize("name", FIELDS)
def test_errors_name_path_and_field(jpeg: Path, name: str) -> None:
    file, edit, field = FIELDS[name]
    change(jpeg, file, edit)
    shutil.rmtree(jpeg / "index")
    with pytest.raises(StoreError, match=field) as caught:
        open_store(jpeg)
    assert str(caught.value.path).startswith(str(jpeg)) and len(str(caught.value)) < 500
    if file == COMMIT:
        assert any(problem.path == jpeg / COMMIT for problem in verify_store(jpeg).problems)


@pytest.mark.parametrize(
    "name", ["zarr.json", "plan.json", COMMIT, "index/COMMIT.json", "shards/00000/masks/zarr.json"]
)
@pytest.mark.parametrize("text", [b"[" * 200_000, b"NaN", b"9" * 9999])
def test_json_that_is_none_is_damage(jpeg: Path, name: str, text: bytes) -> None:
    (jpeg / name).write_bytes(text)
    problems: list[Any] = []
    try:
        problems = list(verify_store(jpeg, deep=True).problems)
    except StoreError as error:
        problems = [error]
    assert problems
    try:
        everything(open_store(jpeg))
    except StoreError as error:
        assert str(jpeg) in str(error)


def test_json_that_costs_more_than_it_is_long() -> None:
    for text in (b"[" + b"[]," * 10_000_000 + b"0]", b'{"a":[' + b"0," * 20_000_000 + b"0]}"):
        begun = time.process_time()
        with pytest.raises(StoreFormatError, match="values in"):
            parse_json("x", text)
        assert time.process_time() - begun < 3


ARRAYS: dict[str, Callable[[Any], object]] = {
    "chunk 0": lambda d: d["codecs"][0]["configuration"].update(chunk_shape=[0, 48]),
    "chunk huge": lambda d: d["codecs"][0]["configuration"].update(chunk_shape=[2**40, 48]),
    "grid 0": lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[0, 48]),
    "shape huge": lambda d: d.update(shape=[2**62, 48]),
    "shape negative": lambda d: d.update(shape=[-1, 48]),
    "no shape": lambda d: d.update(shape=[]),
    "row huge": lambda d: d.update(shape=[12, 2**40]),
    "dtype": lambda d: d.update(data_type="object"),
    "big endian": lambda d: d["codecs"][0]["configuration"]["codecs"][0].update(configuration={"endian": "big"}),
    "codec": lambda d: d["codecs"][0]["configuration"]["codecs"].append({"name": "gzip", "configuration": {}}),
    "no codecs": lambda d: d.pop("codecs"),
    "other codecs": lambda d: d.update(codecs=[{"name": "bytes"}]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_none_is_reported(jpeg: Path, name: str) -> None:
    change(jpeg, "shards/00000/masks/zarr.json", ARRAYS[name])
    with pytest.raises(StoreError, match="masks") as caught:
        open_store(jpeg).masks(0, 0, 6)
    assert str(caught.value.path).endswith("zarr.json")
    assert any("masks" in str(problem.path) for problem in verify_store(jpeg).problems)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_bomb_is_not_unpacked(root: Path) -> None:
    """100 kB that declare hundreds of megabytes, or do not declare a size."""
    good = (root / "shards/00000/pts_seconds/c/0").read_bytes()
    packed = bomb(2**28)
    unsaid = packed[:4] + bytes([packed[4] & 0x3F]) + packed[9:]  # without its size
    for data in (packed, good + packed, unsaid):
        (root / "shards/00000/pts_seconds/c/0").write_bytes(data)
        reseal(root, "shards/00000/pts_seconds/c/0")
        with pytest.raises(StoreDamageError, match="pts_seconds"):
            open_store(root).pts_seconds(0, 0, 6)
        assert any("pts_seconds" in str(problem.message) for problem in verify_store(root, deep=True).problems)


def test_an_array_that_claims_more_than_its_file_can_hold(root: Path) -> None:
    """Times of 32 million frames, all 0, whose chunk and metadata agree."""
    count = 2**25
    (root / "shards/00000/pts_seconds/c/0").write_bytes(bomb(8 * count))
    reseal(root, "shards/00000/pts_seconds/c/0")

    def grow(document: Any) -> None:
        document["shape"] = document["chunk_grid"]["configuration"]["chunk_shape"] = [count]

    change(root, "shards/00000/pts_seconds/zarr.json", grow)
    with pytest.raises(StoreFormatError, match="would decompress from"):
        open_store(root).pts_seconds(0, 0, 6)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 65791, 65792, 70000])
def test_what_a_frame_of_zstd_declares(count: int) -> None:
    data = np.random.default_rng(0).integers(0, 9, count, dtype=np.uint8)
    assert _content_bytes(bytes(Zstd(1, checksum=True).encode(data))[:14]) == count
    assert _content_bytes(bytes(Zstd(1, checksum=False).encode(data))[:14]) is None


@pytest.mark.parametrize("name", ["zarr.json", "plan.json", COMMIT, "index/COMMIT.json", "shards/00000/masks/c/0/0"])
def test_a_pipe_is_not_waited_for(jpeg: Path, name: str) -> None:
    truth = everything(open_store(jpeg))
    (jpeg / name).unlink()
    os.mkfifo(jpeg / name)
    try:
        with no_longer_than(20):
            for act in (lambda: everything(open_store(jpeg)), lambda: verify_store(jpeg, deep=True).problems):
                try:
                    found = act()
                except StoreError as error:
                    assert "named pipe" in str(error) and name.split("/")[0] in str(error)
                else:
                    assert (
                        found == truth
                        or any("named pipe" in str(one) or "index" in str(one) for one in found)
                        or (name == "plan.json")
                    )
    except Hung:
        pytest.fail(f"waits for {name}")


def test_a_file_or_folder_in_the_place_of_the_index_is_passed_over(root: Path) -> None:
    truth = everything(open_store(root))
    shutil.rmtree(root / "index")
    for make in (lambda: (root / "index").write_text("x"), lambda: (root / "index").mkdir()):
        make()
        assert everything(open_store(root)) == truth
        assert [problem.path.name for problem in verify_store(root).problems] == ["index"]
        if (root / "index").is_file():
            (root / "index").unlink()
    repair_store(root, verify_store(root))
    assert verify_store(root, deep=True).problems == ()


# --- what the documents declare ---------------------------------------------------------------------------------------


def test_an_index_that_contradicts_the_commits_is_reported(jpeg: Path) -> None:
    """Labels of another class: whole in itself, and sealed."""
    codes = np.array([1, 0, 0, 0], "<i4")
    (jpeg / "index/label/c/0").write_bytes(bytes(Zstd(1, checksum=True).encode(codes)))
    reseal(jpeg, "index/label/c/0")
    assert open_store(jpeg).columns.label.tolist() == codes.tolist()
    (problem,) = verify_store(jpeg).problems
    assert problem.path == jpeg / "index" and "label" in problem.message
    repair_store(jpeg, verify_store(jpeg))
    assert open_store(jpeg).columns.label.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("name", ["part_shard", "part_start", "shot_stop", "num_frames", "id_bytes", "fps"])
def test_an_index_that_cannot_be_is_passed_over(jpeg: Path, name: str) -> None:
    truth = everything(open_store(jpeg))
    values = np.frombuffer(Zstd().decode((jpeg / f"index/{name}/c/0").read_bytes()), np.uint8).copy()
    values[:] = 255
    (jpeg / f"index/{name}/c/0").write_bytes(bytes(Zstd(1, checksum=True).encode(values)))
    reseal(jpeg, f"index/{name}/c/0")
    assert everything(open_store(jpeg)) == truth
    (problem,) = verify_store(jpeg).problems
    assert problem.path == jpeg / "index" and "cannot be used" in problem.message


def test_content_that_the_arrays_do_not_have_is_reported_by_a_deep_verification(root: Path) -> None:
    change(root, COMMIT, lambda record: record["videos"][0].update(content="0" * 64))
    assert verify_store(root).problems == ()
    (problem,) = verify_store(root, deep=True).problems
    assert problem.path == root / "shards/00000" and "a.mp4 has other content" in problem.message


def test_a_shard_of_jpegs_in_a_raw_store_is_reported(whole: dict[FrameKind, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole["raw"], tmp_path / "raw"))
    shutil.rmtree(root / "shards/00000")
    shutil.copytree(whole["jpeg"] / "shards/00000", root / "shards/00000")
    reseal(root, COMMIT)
    for deep in (False, True):
        assert any("of another kind" in problem.message for problem in verify_store(root, deep=deep).problems)
    with pytest.raises(StoreFormatError, match=r"frames.*chunk_shape|frames.*expected"):
        open_store(root).clip(0, 0, 3)


def test_a_declared_array_without_its_file_is_reported(root: Path) -> None:
    def forget(record: Any) -> None:
        record["files"].pop("masks/c/0/0")

    (root / "shards/00000/masks/c/0/0").unlink()
    change(root, COMMIT, forget)
    (problem,) = verify_store(root).problems
    assert problem.path == root / "shards/00000/masks" and "no file of data" in problem.message
    shutil.rmtree(root / "shards/00000/masks")
    change(root, COMMIT, lambda record: record["files"].pop("masks/zarr.json"))
    (problem,) = verify_store(root).problems
    assert problem.path == root / "shards/00000/zarr.json" and "declares other arrays" in problem.message


def test_pictures_of_another_size_are_not_decoded(jpeg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = cv2.imencode(".jpg", np.zeros((2000, 3000, 3), np.uint8))[1]
    assert _jpeg_shape(other.tobytes()) == (2000, 3000, 3)
    assert _jpeg_shape(cv2.imencode(".png", np.zeros((20, 30, 3), np.uint8))[1].tobytes()) is None
    progressive = cv2.imencode(".jpg", np.zeros((16, 24, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
    calls: list[int] = []
    monkeypatch.setattr("bgaug.store.format.payload.cv2.imdecode", lambda *args: calls.append(1))
    for data in (other, progressive, other[:100], other[:0]):
        with pytest.raises(StoreDamageError, match="not a JPEG of 16x24"):
            decode_jpeg(data.reshape(-1), np.empty((*FULL_SIZE, 3), np.uint8))
    assert not calls


def test_times_that_run_backwards_or_are_none(jpeg: Path) -> None:
    def put(times: list[float]) -> None:
        packed = bytes(Zstd(1, checksum=True).encode(np.array(times, "<f8")))
        (jpeg / "shards/00000/pts_seconds/c/0").write_bytes(packed)
        reseal(jpeg, "shards/00000/pts_seconds/c/0")

    options = ClipOptions(num_frames=4, stride_seconds=0.04)
    put([0.5 - t / 25 for t in range(12)])
    assert ClipDataset(jpeg, options)[0].pts_seconds.shape == (2, 4)
    for odd in (float("nan"), float("inf"), -1e300):
        put([odd, *(t / 25 for t in range(1, 12))])
        with pytest.raises(StoreDamageError, match="pts_seconds: has impossible values"):
            open_store(jpeg).pts_seconds(0, 0, 4)


# --- links ------------------------------------------------------------------------------------------------------------

LINKED = ("shards", "shards/00000", "shards/00000/frames", "shards/00000/frames/c", "shards/00000/frames/c/0")


def outside_of(root: Path, name: str) -> Path:
    """Move a part of a store out of it, and leave a link behind."""
    outside = root.parent / "outside"
    outside.mkdir(exist_ok=True)
    moved = outside / Path(name).name
    shutil.move(root / name, moved)
    (root / name).symlink_to(moved)
    return outside


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", [*LINKED, COMMIT, "index", "index/fps", "banks", "banks/places", "plan.json"])
def test_a_link_that_leads_outside_is_neither_read_nor_followed(jpeg: Path, tmp_path: Path, name: str) -> None:
    truth = everything(open_store(jpeg))
    outside = outside_of(jpeg, name)
    before = snapshot(outside)
    assert any(
        str(problem.path).startswith(str(jpeg / name)) or name in ("index/fps",)
        for problem in verify_store(jpeg).problems
    ) or (name == "banks")
    if name.startswith("shards"):
        with pytest.raises(StoreError):
            everything(open_store(jpeg))
    elif name.startswith("banks"):
        with pytest.raises(StoreError):
            open_store(jpeg).bank("places")
    else:
        assert everything(open_store(jpeg)) == truth  # from the commits
    other = make_full_store(tmp_path / "other", "jpeg", "other ")
    for act in (
        lambda: merge_stores([jpeg, other], tmp_path / "merged", prefix=True),
        lambda: repair_store(jpeg, verify_store(jpeg, deep=True)),
    ):
        try:
            act()
        except StoreError as error:
            assert str(jpeg) in str(error)
    assert snapshot(outside) == before
    for path in (tmp_path / "merged").rglob("*"):
        assert not path.is_symlink()


def test_repair_removes_the_link_and_a_rerun_can_follow(jpeg: Path) -> None:
    outside = outside_of(jpeg, "shards/00001")
    before = snapshot(outside)
    repair = repair_store(jpeg, verify_store(jpeg))
    assert repair.videos == ("bad.mp4", "c.mp4") and not os.path.lexists(jpeg / "shards/00001")
    assert snapshot(outside) == before


def test_the_store_itself_may_be_named_by_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert everything(open_store(tmp_path / "link")) == everything(open_store(root))
    assert verify_store(tmp_path / "link", deep=True).problems == ()


# --- names of dimensions ----------------------------------------------------------------------------------------------


def test_dimensions_have_names_and_one_size_each(root: Path) -> None:
    for folder in (*sorted((root / "shards").glob("0*")), root / "index", root / "banks/places"):
        sizes: dict[str, int] = {}
        for file in sorted(folder.glob("*/zarr.json")):
            array = zarr.open_array(file.parent, mode="r")
            names = array.metadata.to_dict()["dimension_names"]
            assert isinstance(names, tuple) and len(names) == array.ndim
            for name, size in zip(names, array.shape, strict=True):
                assert sizes.setdefault(str(name), size) == size


def test_stores_without_names_of_dimensions_are_whole(root: Path) -> None:
    truth, report = everything(open_store(root)), verify_store(root)
    for file in sorted(root.glob("*/*/*/zarr.json")) + sorted(root.glob("index/*/zarr.json")):
        document = load(file)
        del document["dimension_names"]
        file.write_bytes(json.dumps(document, sort_keys=True).encode())
        reseal(root, file.relative_to(root).as_posix())
    old = verify_store(root, deep=True)
    assert old.problems == () and old.content_hash == report.content_hash and everything(open_store(root)) == truth


def test_xarray_opens_a_shard(root: Path) -> None:
    xarray = pytest.importorskip("xarray")
    opened = xarray.open_zarr(root / "shards/00000", consolidated=False)
    assert opened.sizes["frame"] == 12 and opened["masks"].dims == ("frame", "byte_of_mask")


def test_the_seals_of_this_test_are_those_of_the_store(jpeg: Path) -> None:
    assert crc32c(b"123456789") == 0xE3069283
    for file in (jpeg / COMMIT, jpeg / "index/COMMIT.json"):
        assert canonical(sealed(load(file))) == file.read_bytes()
