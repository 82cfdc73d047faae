"""docs/store.md is enough to read a store: by Zarr's own readers, and by one written from that page only."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, cast, get_args

import cv2
import google_crc32c
import jsonschema
import numpy as np
import pytest
import tensorstore
import zarr
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from pydantic import BaseModel
from stores import MOVING_IDS, make_moving_store
from worlds import moving_square, scene

from bgaug.masks import unpack_mask
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.sizing import FITS
from bgaug.store import (
    Failure,
    FrameKind,
    Identity,
    MaskModel,
    Shot,
    VideoRow,
    finish_store,
    open_store,
    replace_masks,
    verify_store,
    write_bank,
)
from bgaug.store.array_file import ArrayFile
from bgaug.store.format.columns import OPTIONAL_COLUMNS
from bgaug.store.format.layout import read_header
from bgaug.store.format.records import CAMERAS, GRADES, MASKS_FROM, STATUSES, CanvasRow, SmallMasksRow
from bgaug.store.places import Folder
from bgaug.video import write_video

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "store.md").read_text("utf-8")
SCHEMA: dict[str, Any] = json.loads((DOCS / "store.schema.json").read_bytes())
SIZE = 45, 61  # of so many pixels that masks end within a byte
KINDS = ("jpeg", "raw", "none", "backgrounds")
ALL_KINDS = (*KINDS, "moving")
OPTIONAL = {  # keys that not all records have
    "row": {"mask_model"},
    "shot": {"background_frames", "canvas", "masks", "shadows", "masks_from"},
}
ABSENT = {  # optional columns that the index of a store does not have
    "moving": {"shot_masks_from"},
    "raw": {"background_frame_offsets", "background_frame"},
}
LONG = "run/long ü.mp4"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store of each kind: a video in several shards, two short ones, one that breaks off, one that is none."""
    out = tmp_path_factory.mktemp("format")
    videos = out / "videos"
    for name in ("run", "walk"):
        (videos / name).mkdir(parents=True)
    write_video(videos / LONG, np.concatenate([moving_square(seed, n)[0] for seed, n in ((1, 90), (2, 60), (3, 150))]))
    for name, seed in (("run/a.mp4", 4), ("walk/z.mp4", 5)):
        write_video(videos / name, moving_square(seed, 30)[0])
    noise = np.random.default_rng(0).integers(0, 40, (60, 48, 64, 3), dtype=np.uint8)
    cut = videos / "walk" / "cut.avi"
    options = {"g": "10", "b": "2M"}
    write_video(
        cut, np.minimum(moving_square(0, 60)[0], 210) + noise, codec="mpeg4", pixel_format="yuv420p", options=options
    )
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 6 // 10])
    (videos / "walk" / "zz.mp4").write_bytes(b"nothing at all")
    labels = videos / "labels.csv"
    labels.write_text(f"file,class,group,split\n{LONG},run,g2,train\nrun/a.mp4,run,g1,test\nwalk/z.mp4,walk,,train\n")
    watched = VideoOptions(method="median", on_error="salvage")
    for kind, scale in (("jpeg", 1), ("raw", 12), ("none", 1), ("backgrounds", 1)):
        setup = ShardOptions(inputs=[videos], out=out / kind, labels=labels, in_process=True)
        with pytest.MonkeyPatch.context() as patched:  # shards of few bytes, or of two videos
            patched.setattr("bgaug.store.format.plan._MAX_SHARD_BYTES", 120_000 * scale)
            patched.setattr("bgaug.store.format.plan._LONG_SHARD_BYTES", 60_000 * scale)
            patched.setattr("bgaug.store.format.plan._SHARDS_FOR_FEW", 3)
            if kind == "backgrounds":
                extract_backgrounds(replace(setup, video=watched, size=SIZE), Silent())
            else:
                build_shards(replace(setup, video=watched, size=SIZE, frames=cast(FrameKind, kind)), Silent())
    header = read_header(out / "raw")
    for shard in range(header.plan["shards"]):
        replace_masks(out / "raw", header, shard, lambda row, masks: masks[::-1] if row.id.endswith("z.mp4") else None)
    finish_store(out / "raw")
    write_bank(out / "jpeg", "places", [(f"ü {seed}.png", scene(seed, *SIZE)) for seed in (1, 2)])
    make_moving_store(out / "moving", size=SIZE)
    return {kind: out / kind for kind in ALL_KINDS}


# --- a second implementation: the page, and nothing of bgaug or Zarr --------------------------------------------------

Array = NDArray[Any]
STRINGS = {
    "status": ("ok", "partial", "no_static_background"),
    "camera": ("unknown", "static", "jitter", "moving"),
    "grade": (None, "A", "B", "C", "D", "E", "F"),
    "masks_from": ("missing", "background", "motion", "segmenter", "imported"),
}


class Damage(Exception): ...


def check(good: bool, what: object) -> None:
    if not good:
        raise Damage(str(what))


def crc32c(data: bytes | Array) -> int:
    return int(google_crc32c.value(bytes(data)))


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def unsealed(record: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in record.items() if key != "crc32c"}
    check(record["crc32c"] == crc32c(canonical(rest)), "crc32c of a record")
    return rest


def sealed_file(file: Path) -> dict[str, Any]:
    text = file.read_bytes()
    record = json.loads(text)
    check(canonical(record) == text, f"{file} is not canonical")
    return unsealed(record)


def by_hand(folder: Path) -> Array:
    """A whole array from its files."""
    meta = json.loads((folder / "zarr.json").read_bytes())
    shape, codecs = meta["shape"], meta["codecs"]
    dtype = np.dtype(meta["data_type"]).newbyteorder("<")
    if not shape[0]:
        return np.empty(shape, dtype)
    data = (folder / "c").joinpath(*["0"] * len(shape)).read_bytes()
    chunks = [data]
    if codecs[0]["name"] == "sharding_indexed":
        rows, codecs = codecs[0]["configuration"]["chunk_shape"][0], codecs[0]["configuration"]["codecs"]
        table = data[-16 * -(-shape[0] // rows) - 4 : -4]
        check(struct.pack("<I", crc32c(table)) == data[-4:], f"index of {folder}")
        places = list(struct.iter_unpack("<QQ", table))
        ends = [offset + length for offset, length in places]
        check([offset for offset, _ in places] == [0, *ends[:-1]] and ends[-1] == len(data) - len(table) - 4, folder)
        chunks = [data[offset : offset + length] for offset, length in places]
    if codecs[-1]["name"] == "zstd":
        chunks = [Zstd().decode(chunk) for chunk in chunks]
    whole = np.frombuffer(b"".join(chunks), dtype).reshape(-1, *shape[1:])
    check(not whole[shape[0] :].any(), f"padding of {folder}")
    return whole[: shape[0]]


class PlainStore:
    """A store, all of whose files are checked when it is opened."""

    def __init__(self, root: Path, read: Callable[[Path], Array] = by_hand) -> None:
        self.root, self.read = root, cache(read)
        text = (root / "zarr.json").read_bytes()
        node = json.loads(text)
        self.header = unsealed(node["attributes"]["bgaug"])
        check((node["zarr_format"], node["node_type"]) == (3, "group"), "not a Zarr group")
        check(self.header["format"] == "bgaug-store" and self.header["version"][0] == 1, "format")
        check(text == json.dumps(node, sort_keys=True, indent=1, ensure_ascii=False).encode(), "zarr.json")
        self.size: tuple[int, int] = tuple(self.header["size"])
        plan = (root / "plan.json").read_bytes()
        check(hashlib.sha256(plan).hexdigest() == self.header["plan"]["sha256"], "plan")
        self.folders = [root / "shards" / f"{shard:05d}" for shard in range(self.header["plan"]["shards"])]
        self.commits = [self.commit(folder) for folder in self.folders]
        for shard, (planned, commit) in enumerate(zip(json.loads(plan), self.commits, strict=True)):
            check(commit["shard"] == shard and self.accounts_for(planned, commit), f"shard {shard}")
        rows = [
            (row, folder) for commit, folder in zip(self.commits, self.folders, strict=True) for row in commit["videos"]
        ]
        rows.sort(key=lambda pair: (pair[0]["id"], pair[0]["first"]))
        self.videos = {name: list(parts) for name, parts in groupby(rows, lambda pair: pair[0]["id"])}
        for name, parts in self.videos.items():
            ends = np.cumsum([0, *(row["num_frames"] for row, _ in parts)]).tolist()
            check([row["first"] for row, _ in parts] == ends[:-1], name)
        self.check_derived()

    def commit(self, folder: Path) -> dict[str, Any]:
        """A folder's commit, after a look at all its files."""
        record = sealed_file(folder / "COMMIT.json")
        found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        check(found.keys() - {"COMMIT.json"} == record["files"].keys(), f"files of {folder}")
        for name, (size, crc) in record["files"].items():
            data = found[name].read_bytes()
            check((len(data), crc32c(data)) == (size, crc), found[name])
        return record

    def accounts_for(self, planned: list[list[Any]], commit: dict[str, Any]) -> bool:
        """Whether a shard has what was planned for it; later parts of a video may be missing, if it was shorter."""
        due = {name for name, _, _, *part in planned if not part or part[0] == 0}
        found = [line["id"] for line in (*commit["videos"], *commit["failures"])]
        return due <= set(found) <= {name for name, *_ in planned} and len(found) == len(set(found))

    def check_derived(self) -> None:
        failures = sorted((line for commit in self.commits for line in commit["failures"]), key=lambda line: line["id"])
        lines = b"".join(canonical(line) + b"\n" for line in failures)
        check((self.root / "failures.jsonl").read_bytes() == lines, "failures.jsonl")
        index = self.commit(self.root / "index")
        check(unsealed(index["header"]) == self.header, "copy of the header")
        stamps = {folder.name: crc32c((folder / "COMMIT.json").read_bytes()) for folder in self.folders}
        check(index["shards"] == stamps, "index")
        for bank in sorted((self.root / "banks").glob("[!.]*")):
            names, pictures = self.commit(bank)["names"], self.read(bank / "pictures")
            check(pictures.shape == (len(names), *self.size, 3), bank)

    def places(self, name: str, frames: list[int]) -> Iterator[tuple[Path, int]]:
        """Shard and row of each frame of a video."""
        for frame in frames:
            row, folder = next(pair for pair in reversed(self.videos[name]) if pair[0]["first"] <= frame)
            check(0 <= frame - row["first"] < row["num_frames"], f"no frame {frame}")
            yield folder, row["start"] + frame - row["first"]

    def clip(self, name: str, frames: list[int]) -> Array:
        return np.stack([self.picture(*place) for place in self.places(name, frames)])

    def picture(self, folder: Path, row: int) -> Array:
        stored = self.read(folder / "frames")
        if self.header["frames"] == "jpeg":
            offsets = self.read(folder / "frame_offsets")
            stored = stored[offsets[row] : offsets[row + 1]]
        else:
            stored = stored[row]
        check(crc32c(stored.tobytes()) == self.read(folder / "frame_crc")[row], f"frame {row} of {folder}")
        if self.header["frames"] == "raw":
            return stored
        return np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB))

    def masks(self, name: str, frames: list[int]) -> Array:
        packed = np.stack([self.read(folder / "masks")[row] for folder, row in self.places(name, frames)])
        return self.unpacked(packed)

    def unpacked(self, packed: Array) -> Array:
        bits = packed[..., None] >> np.arange(7, -1, -1, dtype=np.uint8) & 1
        flat = bits.reshape(*packed.shape[:-1], -1)[..., : self.size[0] * self.size[1]]
        return flat.reshape(*packed.shape[:-1], *self.size).astype(bool)

    def pts_seconds(self, name: str, frames: list[int]) -> Array:
        return np.array([self.read(folder / "pts_seconds")[row] for folder, row in self.places(name, frames)])

    def shots(self, name: str) -> list[tuple[dict[str, Any], Path]]:
        return [(shot, folder) for row, folder in self.videos[name] for shot in row["shots"]]

    def background(self, name: str, number: int, frame: int = 0) -> tuple[Array, Array, Array]:
        """Image, noise in grey levels, validity; of several that nearest to the frame."""
        shot, folder = self.shots(name)[number]
        distances = [abs(other - frame) for other in shot.get("background_frames", [0])]
        row = shot["background"] + distances.index(min(distances))
        image, noise, valid = (self.read(folder / key)[row] for key in ("backgrounds", "noise", "valid"))
        return image, noise / 8, self.unpacked(valid)

    def canvas(self, name: str, number: int) -> tuple[Array, Array, Array, Array] | None:
        """Image, noise in grey levels, validity, places."""
        shot, folder = self.shots(name)[number]
        where = shot.get("canvas")
        if where is None:
            return None
        height, width = where["size"]
        image, noise, valid = (
            self.read(folder / f"canvas_{key}")[where["pixel"] :][: height * width].reshape(height, width, -1).squeeze()
            for key in ("image", "noise", "valid")
        )
        places = self.read(folder / "canvas_places")[where["place"] :][: where["num_places"]]
        return image, noise / 8, valid.astype(bool), places

    def small_masks(self, name: str, number: int) -> Array | None:
        shot, folder = self.shots(name)[number]
        where = shot.get("masks")
        if where is None:
            return None
        count, (height, width) = shot["stop"] - shot["start"], where["size"]
        size = -(-height * width // 8)
        packed = self.read(folder / "small_masks")[where["byte"] :][: count * size].reshape(count, size)
        return np.unpackbits(packed, axis=1, count=height * width).reshape(count, height, width).astype(bool)

    def content(self, row: dict[str, Any], folder: Path) -> str:
        span = slice(row["start"], row["start"] + row["num_frames"])
        digest = hashlib.sha256(self.read(folder / "pts_seconds")[span].astype("<f8").tobytes())
        for name, dtype in (("frame_crc", "<u4"), ("masks", "u1")):
            if (folder / name).exists():
                digest.update(self.read(folder / name)[span].astype(dtype).tobytes())
        for shot in row["shots"]:
            for number in range(len(shot.get("background_frames", [0])) if shot["background"] >= 0 else 0):
                for name in ("backgrounds", "noise", "valid"):
                    digest.update(self.read(folder / name)[shot["background"] + number].tobytes())
        for shot in row["shots"]:
            if where := shot.get("canvas"):
                pixels = slice(where["pixel"], where["pixel"] + where["size"][0] * where["size"][1])
                for name in ("canvas_image", "canvas_noise", "canvas_valid"):
                    digest.update(self.read(folder / name)[pixels].tobytes())
                places = slice(where["place"], where["place"] + where["num_places"])
                digest.update(self.read(folder / "canvas_places")[places].astype("<f8").tobytes())
        for shot in row["shots"]:
            if where := shot.get("masks"):
                size = (shot["stop"] - shot["start"]) * -(-where["size"][0] * where["size"][1] // 8)
                digest.update(self.read(folder / "small_masks")[where["byte"] :][:size].tobytes())
        return digest.hexdigest()

    def content_hash(self) -> str:
        rows = sorted((row for commit in self.commits for row in commit["videos"]), key=lambda row: str(row["id"]))
        videos = [
            {**row, "start": 0, "identity": None, "shots": [self.shot_content(shot) for shot in row["shots"]]}
            for row in rows
        ]
        record = {key: self.header[key] for key in ("size", "fit", "frames", "classes", "options")}
        text = json.dumps({**record, "videos": videos})
        return hashlib.sha256(canonical(json.loads(text, parse_float=lambda x: round(float(x), 6)))).hexdigest()

    def shot_content(self, shot: dict[str, Any]) -> list[Any]:
        more = {key: shot[key] for key in OPTIONAL["shot"] - {"masks_from"} if key in shot}
        if more.get("canvas"):
            more["canvas"] = {key: value for key, value in more["canvas"].items() if key not in ("pixel", "place")}
        if "masks" in more:
            more["masks"] = more["masks"]["size"]
        return [shot["start"], shot["stop"], *([more] if more else [])]

    def masks_from(self, row: dict[str, Any], shot: dict[str, Any]) -> int:
        if row["imported_masks"]:
            return STRINGS["masks_from"].index("segmenter" if "mask_model" in row else "imported")
        implied = "motion" if shot.get("background_frames") or shot.get("masks") else "background"
        return STRINGS["masks_from"].index(
            shot.get("masks_from", implied if implied == "motion" or shot["background"] >= 0 else "missing")
        )

    def columns(self) -> dict[str, list[Any]]:
        """What the index must hold, from the commits."""
        parts = list(self.videos.values())
        leads = [rows[0][0] for rows in parts]
        shots = [self.shots(name) for name in self.videos]
        ids = [name.encode() for name in self.videos]
        found: dict[str, list[Any]] = {key: [row[key] for row in leads] for key in ("fps", "height", "width")}
        found["num_frames"] = [sum(row["num_frames"] for row, _ in rows) for rows in parts]
        for key, names in (("label", self.header["classes"]), ("group", None), ("split", None)):
            names = names or sorted({row[key] for row in leads} - {None})
            found[key] = [-1 if row[key] is None else names.index(row[key]) for row in leads]
        found["status"] = [STRINGS["status"].index(row["status"]) for row in leads]
        for key, runs in (("part_offsets", parts), ("shot_offsets", shots), ("id_offsets", ids)):
            found[key] = np.cumsum([0, *map(len, runs)]).tolist()
        found["id_bytes"] = list(b"".join(ids))
        found["part_shard"] = [self.folders.index(folder) for rows in parts for _, folder in rows]
        for key in ("start", "first"):
            found[f"part_{key}"] = [row[key] for rows in parts for row, _ in rows]
        for key in ("start", "stop", "background"):
            found[f"shot_{key}"] = [shot[key] for rows in shots for shot, _ in rows]
        for key in ("camera", "grade"):
            found[f"shot_{key}"] = [STRINGS[key].index(shot[key]) for rows in shots for shot, _ in rows]
        origins = [self.masks_from(row, shot) for rows in parts for row, _ in rows for shot in row["shots"]]
        implied = [
            2 if shot.get("background_frames") else 1 if shot["background"] >= 0 else 0
            for rows in shots
            for shot, _ in rows
        ]
        if origins != implied:
            found["shot_masks_from"] = origins
        frames = [shot.get("background_frames", []) for rows in shots for shot, _ in rows]
        if any(frames):
            found["background_frame_offsets"] = np.cumsum([0, *map(len, frames)]).tolist()
            found["background_frame"] = [frame for some in frames for frame in some]
        return found


# --- all readers, side by side ----------------------------------------------------------------------------------------


def by_zarr(folder: Path) -> Array:
    return np.asarray(zarr.open_array(folder, mode="r")[...])


def by_tensorstore(folder: Path) -> Array:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}
    return np.asarray(tensorstore.open(spec, read=True, open=True).result().read().result())


READERS: tuple[Callable[[Path], Array], ...] = (by_hand, by_zarr, by_tensorstore)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_array_reads_alike(stores: dict[str, Path], kind: str, read: Callable[[Path], Array]) -> None:
    folders = sorted(path.parent for path in stores[kind].rglob("zarr.json") if b'"array"' in path.read_bytes())
    names = {folder.name for folder in folders}
    assert {"pts_seconds", "backgrounds", "valid", "noise", "num_frames", "id_bytes"} <= names
    assert ("frames" in names) is ("frame_crc" in names) is (kind in ("jpeg", "raw"))
    assert ("masks" in names) is (kind != "backgrounds") and ("frame_offsets" in names) is (kind == "jpeg")
    for folder in folders:
        ours = ArrayFile(Folder(folder.parent), folder.name)
        found = read(folder)
        assert found.dtype == ours.dtype and np.array_equal(found, ours.read(0, ours.shape[0])), folder


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_implementation_reads_the_same(
    stores: dict[str, Path], kind: str, read: Callable[[Path], Array]
) -> None:
    plain, store = PlainStore(stores[kind], read), open_store(stores[kind], check_frames=True)
    assert list(plain.videos) == list(store.videos) == ["run/a.mp4", LONG, "walk/cut.avi", "walk/z.mp4"]
    assert (len(plain.videos[LONG]) > 3) is (kind != "backgrounds" and kind != "none")
    for video, name in enumerate(plain.videos):
        for frames in (np.arange(store.num_frames(video)), np.array([20, 3, 3])):
            target = frames.tolist()
            if store.header.frames != "none":
                assert np.array_equal(plain.clip(name, target), store.frames_at(video, frames))
            if kind != "backgrounds":
                packed = store.packed_masks_at(video, frames)
                assert np.array_equal(plain.masks(name, target), unpack_mask(packed, *SIZE))
            assert np.array_equal(plain.pts_seconds(name, target), store.pts_at(video, frames))
        assert [[s["start"], s["stop"], s["background"]] for s, _ in plain.shots(name)] == store.shots(video).tolist()
        for number, (shot, _) in enumerate(plain.shots(name)):
            if shot["background"] < 0:
                continue
            background = store.background(video, number)
            image, noise, valid = plain.background(name, number)
            assert np.array_equal(image, background.image) and np.array_equal(noise, background.noise)
            assert np.array_equal(valid, background.valid) and shot["grade"] == background.grade


@pytest.mark.parametrize("read", READERS)
def test_what_moving_cameras_have_reads_the_same(stores: dict[str, Path], read: Callable[[Path], Array]) -> None:
    plain, store = PlainStore(stores["moving"], read), open_store(stores["moving"])
    assert list(plain.videos) == list(store.videos) == list(MOVING_IDS)
    seen = set()
    for video, name in enumerate(plain.videos):
        for number, (shot, _) in enumerate(plain.shots(name)):
            for frame in range(shot["start"], shot["stop"]):
                background = store.background(video, number, frame)
                image, noise, valid = plain.background(name, number, frame)
                assert np.array_equal(image, background.image) and np.array_equal(noise, background.noise)
                assert np.array_equal(valid, background.valid)
            canvas, expected = store.canvas(video, number), plain.canvas(name, number)
            masks, small = store.shot_masks(video, number), plain.small_masks(name, number)
            assert (canvas is None, masks is None) == (expected is None, small is None)
            if canvas is not None and expected is not None:
                assert np.array_equal(canvas.image, expected[0]) and np.array_equal(canvas.noise, expected[1])
                assert np.array_equal(canvas.valid, expected[2])
                assert np.array_equal(canvas.indices + shot["start"], expected[3][:, 0])
                assert np.array_equal(canvas.confidence, expected[3][:, 1])
                assert np.array_equal(canvas.transforms.reshape(-1, 6), expected[3][:, 2:])
            if masks is not None and small is not None:
                assert np.array_equal(np.stack([masks.at(frame) for frame in range(len(masks))]), small)
            seen.add((len(shot.get("background_frames", [])), canvas is None, masks is None))
    assert len(seen) > 4


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_digests_are_computed_as_the_page_describes(stores: dict[str, Path], kind: str) -> None:
    plain = PlainStore(stores[kind])
    for parts in plain.videos.values():
        for row, folder in parts:
            assert plain.content(row, folder) == row["content"]
    assert plain.content_hash() == verify_store(stores[kind]).content_hash
    if kind == "moving":
        return
    source = stores[kind].parent / "videos" / "run" / "a.mp4"
    identity = {"bytes": source.stat().st_size, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    assert plain.videos["run/a.mp4"][0][0]["identity"] == identity


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_index_is_what_the_page_describes(stores: dict[str, Path], kind: str) -> None:
    plain, store = PlainStore(stores[kind]), open_store(stores[kind])
    expected = plain.columns()
    assert vars(store.columns).keys() - expected.keys() == ABSENT.get(kind, set(OPTIONAL_COLUMNS))
    for name, values in expected.items():
        found = plain.read(stores[kind] / "index" / name)
        assert np.array_equal(found, np.array(values, found.dtype)), name
        assert np.array_equal(found, getattr(store.columns, name)), name


def test_a_bank_reads_alike(stores: dict[str, Path]) -> None:
    bank = open_store(stores["jpeg"]).bank("places")
    for read in READERS:
        assert np.array_equal(read(stores["jpeg"] / "banks" / "places" / "pictures"), bank.images)


def test_every_flipped_bit_is_found_from_what_the_page_describes(stores: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(stores["jpeg"], tmp_path / "s")
    PlainStore(root)
    rng = np.random.default_rng(0)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        place, bit = int(rng.integers(len(whole))), int(rng.integers(8))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        with pytest.raises((Damage, ValueError, KeyError, TypeError)):
            PlainStore(root)
        path.write_bytes(whole)


# --- the schema -------------------------------------------------------------------------------------------------------


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{name}"})


def documents(root: Path) -> Iterator[tuple[str, Any]]:
    """All JSON of a store, each with the name of its definition."""
    node = json.loads((root / "zarr.json").read_bytes())
    yield "root", node
    yield "header", node["attributes"]["bgaug"]
    yield "plan", json.loads((root / "plan.json").read_bytes())
    yield "index", json.loads((root / "index" / "COMMIT.json").read_bytes())
    yield from (("failure", json.loads(line)) for line in (root / "failures.jsonl").read_bytes().splitlines())
    yield from (("bank", json.loads(path.read_bytes())) for path in root.glob("banks/*/COMMIT.json"))
    for path in sorted(root.glob("shards/*/COMMIT.json")):
        commit = json.loads(path.read_bytes())
        yield "commit", commit
        for row in commit["videos"]:
            yield "row", row
            yield "identity", row["identity"]
            yield from (("shot", shot) for shot in row["shots"])
            yield from (("canvas", shot["canvas"]) for shot in row["shots"] if shot.get("canvas"))
            yield from (("small_masks", shot["masks"]) for shot in row["shots"] if shot.get("masks"))


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_stores_follow_the_schema(stores: dict[str, Path], kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    seen = set()
    for name, document in documents(stores[kind]):
        seen.add(name)
        validator(name).validate(document)
    rare = {"bank"} if kind == "moving" else {"bank", "canvas", "small_masks"}
    assert SCHEMA["$defs"].keys() - seen <= {"crc32c", "sha256", "files", "planned", "size", "mask_model", *rare}


def test_the_stores_hold_what_is_rare(stores: dict[str, Path]) -> None:
    found = {kind: [row for name, row in documents(stores[kind]) if name == "row"] for kind in KINDS}
    for kind, rows in found.items():
        assert {row["status"] for row in rows} >= {"ok", "partial"} and any(
            row["expected_frames"] == 60 for row in rows
        )
        assert {row["group"] for row in rows} == {None, "g1", "g2"} and any(row["start"] for row in rows)
        assert any(row["first"] for row in rows) is (kind in ("jpeg", "raw"))
        commits = [commit for name, commit in documents(stores[kind]) if name == "commit"]
        assert any(commit["F"] == 0 and commit["failures"] for commit in commits)
        assert any(row["imported_masks"] for row in rows) is (kind == "raw")


def test_what_is_no_store_fails_the_schema(stores: dict[str, Path]) -> None:
    """Of every object: without any of its keys, with one more, and with a value of another kind."""
    examples = {name: document for root in stores.values() for name, document in documents(root)}
    for name, document in examples.items():
        if name == "plan":
            continue
        wrong = [{**document, "surplus": 1}]
        for key in document:
            if key not in OPTIONAL.get(name, ()):
                wrong.append({other: value for other, value in document.items() if other != key})
            wrong.append({**document, key: True if key == "fps" else -7.5})
            wrong.append({**document, key: [-7.5]})
        for one in wrong:
            assert not validator(name).is_valid(one), (name, one)
    strange: list[Any] = [[], ["a", 1], ["a", 1, 1, 0], ["a", 1, 1, 0, 2, 3], ["a", 1, 1, 0, 1], ["a", "1", 1], {}]
    for planned in strange:
        assert not validator("plan").is_valid([[planned]]), planned
    for path in ("../zarr.json", "/etc/passwd", "a/../b", "a//b", ".lock", ""):
        assert not validator("files").is_valid({path: [1, 1]}), path
    assert not validator("header").is_valid({**examples["header"], "version": [2, 0]})


def kinds(schema: dict[str, Any], definitions: dict[str, Any]) -> set[str]:
    """JSON types that a schema lets pass."""
    if "$ref" in schema:
        return kinds(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    if "anyOf" in schema and "type" not in schema:
        return set().union(*(kinds(one, definitions) for one in schema["anyOf"]))
    if "type" not in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        assert all(isinstance(value, str) for value in values)
        return {"string"}
    return {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("row", VideoRow),
        ("shot", Shot),
        ("canvas", CanvasRow),
        ("small_masks", SmallMasksRow),
        ("identity", Identity),
        ("failure", Failure),
        ("mask_model", MaskModel),
    ],
)
def test_schema_and_models_name_the_same(name: str, model: type[BaseModel]) -> None:
    theirs, ours = SCHEMA["$defs"][name], model.model_json_schema()
    assert theirs["properties"].keys() == ours["properties"].keys()
    assert theirs["properties"].keys() == {*theirs["required"], *OPTIONAL.get(name, ())}
    for key, schema in theirs["properties"].items():
        absent = {"null"} if key in ("mask_model", "masks_from") else set()  # they are left out, and never null
        assert kinds(schema, SCHEMA["$defs"]) | absent == kinds(ours["properties"][key], ours.get("$defs", {})), key


def test_schema_and_code_name_the_same_words() -> None:
    header, row, shot = (SCHEMA["$defs"][name]["properties"] for name in ("header", "row", "shot"))
    assert tuple(header["fit"]["enum"]) == FITS and tuple(header["frames"]["enum"]) == get_args(FrameKind)
    assert tuple(row["status"]["enum"]) == STATUSES == STRINGS["status"]
    assert tuple(shot["camera"]["enum"]) == CAMERAS == STRINGS["camera"]
    assert tuple(shot["grade"]["enum"]) == (*GRADES[1:], None)
    assert MASKS_FROM == STRINGS["masks_from"] and set(shot["masks_from"]["enum"]) < set(MASKS_FROM)


# --- the page ---------------------------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def tables(first: str) -> list[dict[str, list[str]]]:
    """The page's tables whose first column has this title: name of each row to its other cells."""
    found = re.findall(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()] for table in found]
    return [{cells[0].strip("`"): cells[1:] for cells in table} for table in rows]


def dimensions(text: str, letters: dict[str, int]) -> list[int]:
    """A shape as the page writes it: "[F + 1]"."""
    return [
        sum(letters[term] if term in letters else int(term) for term in size.split(" + "))
        for size in text.strip("[]").split(", ")
    ]


def test_the_page_names_every_key() -> None:
    names = ["header", "commit", "row", "shot", "canvas", "small_masks", "identity", "failure", "index", "bank"]
    for name, table in zip(names, tables("key"), strict=True):
        properties = SCHEMA["$defs"][name]["properties"]
        assert list(table) == list(properties), name
        for key, (type_, _) in table.items():
            words = set(type_.split(" or ")) if not type_.startswith("[") else {"array"}
            assert words == kinds(properties[key], SCHEMA["$defs"]), (name, key)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_page_describes_every_array(stores: dict[str, Path], kind: str) -> None:
    (arrays,), (columns,) = tables("array"), tables("column")
    plain = PlainStore(stores[kind])
    plain_codecs, sharded_codecs = (json.loads(block) for block in blocks("json")[1:])
    letters = {"H": SIZE[0], "W": SIZE[1], "P": -(-SIZE[0] * SIZE[1] // 8)}
    expected = plain.columns()
    letters |= {"N": len(plain.videos), "M": len(expected["part_shard"]), "S": len(expected["shot_start"])}
    letters["G"] = len(expected.get("background_frame", ()))
    places = [(path, arrays, commit) for path, commit in zip(plain.folders, plain.commits, strict=True)]
    for folder, table, commit in [*places, (stores[kind] / "index", columns, {"F": 0, "K": 0})]:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        if table is arrays:
            assert json.loads((folder / "zarr.json").read_bytes())["attributes"]["bgaug"]["arrays"] == names
            due = {"pts_seconds", "backgrounds", "valid", "noise"}
            due |= {"frames", "frame_crc", "background_crc"} if kind in ("jpeg", "raw") else set()
            due |= {"frame_offsets"} if kind == "jpeg" else set()
            due |= {"masks"} if commit["F"] and kind not in ("backgrounds", "moving") else set()
            shots = [shot for row in commit["videos"] for shot in row["shots"]]
            if any(shot.get("canvas") for shot in shots):
                due |= {"canvas_image", "canvas_noise", "canvas_valid", "canvas_places"}
            due |= {"small_masks"} if any(shot.get("masks") for shot in shots) else set()
            assert set(names) == due
        else:
            assert set(names) == table.keys() - ABSENT.get(kind, set(OPTIONAL_COLUMNS))
        for name in names:
            meta = json.loads((folder / name / "zarr.json").read_bytes())
            dtype, shape, *more = table[name]
            rows, zstd = more[:2] if table is arrays else ("", "yes")
            if name == "backgrounds":
                zstd = "no" if kind in ("jpeg", "raw") else "yes"
            if name == "frames":
                shape, rows = (text.split(" or ")[kind == "raw"] for text in (shape, rows))
            known = {
                **letters,
                "F": commit["F"],
                "K": commit["K"],
                **dict.fromkeys(("bytes", *"CLB"), meta["shape"][0]),
            }
            assert meta["data_type"] == dtype and meta["shape"] == dimensions(shape, known), name
            assert meta["fill_value"] == 0 and meta["chunk_key_encoding"]["configuration"] == {"separator": "/"}
            count, rest = meta["shape"][0], meta["shape"][1:]
            if rows:
                target = json.loads(json.dumps(sharded_codecs))
                inner = target[0]["configuration"]
                inner["chunk_shape"] = [int(rows), *rest]
                inner["codecs"] = inner["codecs"] if zstd == "yes" else inner["codecs"][:1]
                chunk = max(1, -(-count // int(rows))) * int(rows)
            else:
                target, chunk = json.loads(json.dumps(plain_codecs)), max(1, count)
                if dtype == "uint8":
                    del target[0]["configuration"]
            assert meta["codecs"] == target, name
            assert meta["chunk_grid"]["configuration"]["chunk_shape"] == [chunk, *rest], name
            files = [path.relative_to(folder / name).as_posix() for path in (folder / name / "c").rglob("*")]
            assert [file for file in files if (folder / name / file).is_file()] == (
                ["/".join(["c", *"0" * len(meta["shape"])])] if count else []
            )


def test_the_sealed_record_on_the_page_is_sealed() -> None:
    text = blocks("json")[0].rstrip("\n").encode()
    assert canonical(json.loads(text)) == text
    assert unsealed(json.loads(text)).keys() == SCHEMA["$defs"]["failure"]["properties"].keys()
    assert crc32c(b"123456789") == 0xE3069283
    numbers = [25.0, 30000 / 1001, 1e-7, 1e16]
    assert canonical(numbers).decode().strip("[]").split(",") == re.findall(r"`([\d.e+-]+)`", PAGE)[: len(numbers)]


def test_pictures_are_as_the_page_describes(stores: dict[str, Path]) -> None:
    """Baseline JPEG, 4:2:0, quality 90; end to end, and in the file where they are in the array."""
    plain = PlainStore(stores["jpeg"])
    for row, folder in plain.videos[LONG]:
        offsets = plain.read(folder / "frame_offsets").tolist()
        data = (folder / "frames" / "c" / "0").read_bytes()
        assert offsets[0] == 0 and offsets[-1] == len(plain.read(folder / "frames"))
        assert len(data) == 65536 * (count := -(-offsets[-1] // 65536)) + 16 * count + 4
        picture = data[offsets[row["start"]] : offsets[row["start"] + 1]]
        assert picture[:4] == b"\xff\xd8\xff\xe0" and picture[6:11] == b"JFIF\0" and picture[-2:] == b"\xff\xd9"
        frame = picture[picture.index(b"\xff\xc0") :]
        assert struct.unpack(">BHHB", frame[4:10]) == (8, *SIZE, 3)
        assert [frame[11 + 3 * i] for i in range(3)] == [0x22, 0x11, 0x11]
        # libjpeg's first luminance entries, 16, 11, 12, 14, at quality 90: a fifth of each.
        assert list(picture[picture.index(b"\xff\xdb") + 5 :][:4]) == [3, 2, 2, 3]


def test_snippets_on_the_page_run(stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "STORE").symlink_to(stores["jpeg"])
    monkeypatch.chdir(tmp_path)
    store = open_store(stores["jpeg"])
    names: dict[str, Any] = {}
    snippets = blocks("python")
    assert len(snippets) == 2
    for number, code in enumerate(snippets):
        script = tmp_path / f"snippet{number}.py"
        script.write_text(code)
        # Each finds what the ones before it made, but for the results.
        kept = {name: value for name, value in names.items() if name not in ("clip", "masks", "background")}
        names = runpy.run_path(str(script), kept)
        assert np.array_equal(names["clip"], store.clip(0, 0, 8))
        assert np.array_equal(names["masks"].reshape(8, *SIZE), store.masks(0, 0, 8))
        assert np.array_equal(names["background"], store.background(0).image)
