"""Bytes of a finished store that are changed, cut off, missing or too many: reported, and never read as data.

By what can be seen from outside: files, `verify_store`, `open_store`.
"""

from __future__ import annotations

import pickle
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import moving_square

from bgaug.errors import StoreError
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.store import FrameKind, Store, open_store, verify_store
from bgaug.video import write_video

KINDS: tuple[FrameKind, ...] = ("jpeg", "raw")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[FrameKind, Path]:
    """One store of each kind: two videos in a shard each, another whose only video failed."""
    folder = tmp_path_factory.mktemp("damage")
    for number, name in enumerate(("run/a é.mp4", "walk/c.mp4")):
        path = folder / "videos" / name
        path.parent.mkdir(parents=True)
        write_video(path, moving_square(number, 18 + 3 * number, 24, 32, side=6)[0])
    (folder / "videos" / "walk" / "b.mp4").write_text("no video")
    for kind in KINDS:
        build_shards(
            ShardOptions(inputs=[folder / "videos"], out=folder / kind, in_process=True, size=(24, 32), frames=kind),
            Silent(),
        )
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, stores: dict[FrameKind, Path], tmp_path: Path) -> Path:
    """A store that may be damaged."""
    return Path(shutil.copytree(stores[request.param], tmp_path / request.param))


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


@contextmanager
def changed(path: Path, data: bytes | None) -> Iterator[None]:
    """The file with other bytes, or without it where they are None; put back in the end."""
    whole = path.read_bytes()
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(whole)


def concerned(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Files of these patterns; of a raw store those of its frames, as the others are the same."""
    files = sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})
    return [path for path in files if root.name != "raw" or "frames" in path.parts]


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def has_problem(root: Path) -> bool:
    """Whether verification reports a problem; any error but a StoreError is raised."""
    try:
        return bool(verify_store(root, deep=True).problems)
    except StoreError:
        return True


# --- reading ----------------------------------------------------------------------------------------------------------


def background_of(store: Store, video: int) -> list[Any]:
    found = store.background(video)
    return [found.image.tolist(), found.noise.tolist(), found.valid.tolist(), found.grade]


OF_A_STORE: dict[str, Callable[[Store], Any]] = {
    "videos": lambda store: list(store.videos),
    "columns": lambda store: {name: values.tolist() for name, values in asdict(store.columns).items()},
    "names": lambda store: asdict(store.names),
    "failures": lambda store: [failure.to_json() for failure in store.failures],
}
OF_A_VIDEO: dict[str, Callable[[Store, int], Any]] = {
    "clip": lambda store, video: store.clip(video, 0, store.num_frames(video)).tobytes(),
    "masks": lambda store, video: store.packed_masks(video, 0, store.num_frames(video)).tobytes(),
    "background": background_of,
    "pts": lambda store, video: store.pts_seconds(video, 0, store.num_frames(video)).tolist(),
    "row": lambda store, video: store.row(video).to_json(),
}


def read_all(store: Store) -> dict[str, Any]:
    """Everything that a store holds, as far as it can be read; an error that is none of ours comes instead of it."""
    found: dict[str, Any] = {}

    def keep(name: str, read: Callable[[], Any]) -> None:
        try:
            found[name] = read()
        except StoreError:
            return
        except Exception as error:  # noqa: BLE001
            found[name] = error

    for name, of_a_store in OF_A_STORE.items():
        keep(name, partial(of_a_store, store))
    for video in range(len(store)):
        for name, of_a_video in OF_A_VIDEO.items():
            keep(f"{name} {video}", partial(of_a_video, store, video))
    return found


@dataclass(frozen=True)
class Whole:
    """A store while it is whole, and all that it holds."""

    root: Path
    opened: Store
    truth: dict[str, Any]

    @classmethod
    def read(cls, root: Path) -> Whole:
        store = open_store(root)
        truth = read_all(store)
        assert len(truth["videos"]) == 2 and len(truth["failures"]) == 1 and f"{max(OF_A_VIDEO)} 1" in truth
        return cls(root, store, truth)

    def made_up(self, path: Path) -> list[str]:
        """What is read that is not so, while this file or folder is damaged; errors that are none of ours, too."""
        try:
            # Opening does not look into shards; a copy of an open store opens its files again.
            inside = path.is_relative_to(self.root / "shards") and len(path.relative_to(self.root).parts) > 3
            store = pickle.loads(pickle.dumps(self.opened)) if inside else open_store(self.root)
        except StoreError:
            return []
        except Exception as error:  # noqa: BLE001
            return [f"on opening: {type(error).__name__}: {error}"]
        wrong = []
        for name, value in read_all(store).items():
            if isinstance(value, Exception):
                wrong.append(f"{name}: {type(value).__name__}: {value}")
            elif value != self.truth.get(name):
                wrong.append(name)
        return wrong


# --- flipped bits -----------------------------------------------------------------------------------------------------


def flips(root: Path, count: int, seed: int) -> Iterator[tuple[Path, int, int]]:
    """(file, byte, bit): each file once, then random files and places."""
    rng = random.Random(seed)
    files = [path for path in concerned(root, ("**/*",)) if path.stat().st_size]
    for number in range(max(count, len(files))):
        path = files[number] if number < len(files) else rng.choice(files)
        yield path, rng.randrange(path.stat().st_size), rng.randrange(8)


def check_flips_are_reported(root: Path, count: int, seed: int, report: list[str]) -> None:
    assert not has_problem(root)
    missed, looked = [], 0
    for path, place, bit in flips(root, count, seed):
        with changed(path, flipped(path.read_bytes(), place, bit)):
            try:
                found = has_problem(root)
            except Exception as error:  # noqa: BLE001
                missed.append(f"{path.relative_to(root)}, bit {bit} of byte {place}: {type(error).__name__}: {error}")
            else:
                if not found:
                    missed.append(f"{path.relative_to(root)}, bit {bit} of byte {place}: not reported")
        looked += 1
    report.append(f"{looked} flipped bits in {len(files_of(root))} files of a {root.name} store: {len(missed)} missed")
    assert not missed, "\n".join(missed)
    assert not has_problem(root)


def test_every_flipped_bit_is_reported(store: Path, report: list[str]) -> None:
    check_flips_are_reported(store, 0, 0, report)


@pytest.mark.full
def test_thousands_of_flipped_bits_are_reported(store: Path, report: list[str]) -> None:
    check_flips_are_reported(store, 2000, 1, report)


def check_flips_are_never_read(root: Path, patterns: tuple[str, ...], each: int, seed: int) -> None:
    """Bits flipped in the files of these patterns: what is read is correct, or a StoreError is raised."""
    whole, rng, wrong = Whole.read(root), random.Random(seed), []
    for path in concerned(root, patterns):
        data = path.read_bytes()
        name = path.relative_to(root).as_posix()
        # Checksums of raw frames are not looked at on the way.
        but_for = "clip" if root.name == "raw" and "/frames/c/" in name else None
        for _ in range(each if data else 0):
            place, bit = rng.randrange(len(data)), rng.randrange(8)
            with changed(path, flipped(data, place, bit)):
                found = [what for what in whole.made_up(path) if not (but_for and what.split(" ")[0] == but_for)]
            wrong += [f"{name}, bit {bit} of byte {place}: {what}" for what in found]
    assert not wrong, "\n".join(wrong)
    assert whole.made_up(root) == []


ARRAYS = ("shards/*/*/c/**/*",)
DESCRIPTIONS = ("*.json*", "shards/*/*.json", "shards/*/*/zarr.json")
INDEX = ("index/**/*",)


def test_flipped_bits_of_arrays_are_never_read(store: Path) -> None:
    check_flips_are_never_read(store, ARRAYS, 4, 0)


def test_flipped_bits_of_descriptions_are_never_read(store: Path) -> None:
    check_flips_are_never_read(store, DESCRIPTIONS, 2, 0)


@pytest.mark.full
def test_thousands_of_flipped_bits_are_never_read(store: Path) -> None:
    check_flips_are_never_read(store, ARRAYS, 300, 1)
    check_flips_are_never_read(store, DESCRIPTIONS, 100, 1)
    check_flips_are_never_read(store, INDEX, 10, 1)


# --- files that are gone, cut off, or too many ------------------------------------------------------------------------


def verification_problems(root: Path) -> list[str]:
    try:
        return [] if has_problem(root) else ["not reported by verification"]
    except Exception as error:  # noqa: BLE001
        return [f"on verifying: {type(error).__name__}: {error}"]


def one_of_each_kind(root: Path, files: list[Path]) -> list[Path]:
    """The first file of each name, whatever numbers are in the name."""
    kinds = {re.sub(r"\d+", "#", path.relative_to(root).as_posix()): path for path in reversed(files)}
    return sorted(kinds.values())


@pytest.mark.parametrize("of", ["each kind", pytest.param("all", marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "cut", ["half", pytest.param("gone", marks=pytest.mark.full), pytest.param("empty", marks=pytest.mark.full)]
)
def test_a_file_that_is_not_whole_is_reported_and_never_read(store: Path, cut: str, of: str) -> None:
    whole, wrong, files = Whole.read(store), [], concerned(store, ("**/*",))
    for path in files if of == "all" else one_of_each_kind(store, files):
        data = path.read_bytes()
        if not data:
            continue
        with changed(path, {"gone": None, "half": data[: len(data) // 2], "empty": b""}[cut]):
            wrong += [
                f"{path.relative_to(store)}: {what}" for what in whole.made_up(path) + verification_problems(store)
            ]
    assert not wrong, "\n".join(wrong)
    assert whole.made_up(store) == [] and not has_problem(store)


def test_folders_that_are_gone_are_reported_and_never_read(stores: dict[FrameKind, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(stores["jpeg"], tmp_path / "jpeg"))
    whole, wrong = Whole.read(root), []
    for folder in [
        root / "index",
        root / "shards",
        *sorted(path for path in root.glob("shards/**/*") if path.is_dir()),
    ]:
        folder.rename(tmp_path / "away")
        wrong += [f"{folder.relative_to(root)}: {what}" for what in whole.made_up(folder) + verification_problems(root)]
        (tmp_path / "away").rename(folder)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "place",
    ["shards/00000", "shards/00000/masks", "shards/00001/masks/c/0", "shards/00002/new", "index", "index/fps/c"],
)
@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "0.partial", "zarr.json.bak"])
def test_a_file_too_many_is_named(stores: dict[FrameKind, Path], tmp_path: Path, place: str, name: str) -> None:
    root = Path(shutil.copytree(stores["jpeg"], tmp_path / "s"))
    file = root / place / name
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text("mine")
    (problem,) = verify_store(root).problems
    assert problem.path == file and "does not belong" in problem.message


def test_a_shard_too_many_is_named_and_never_read(stores: dict[FrameKind, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(stores["jpeg"], tmp_path / "s"))
    whole = Whole.read(root)
    shutil.copytree(root / "shards" / "00000", root / "shards" / "00003")
    assert root / "shards" / "00003" in [problem.path for problem in verify_store(root).problems]
    assert whole.made_up(root) == []


def test_shards_that_changed_places_are_reported(stores: dict[FrameKind, Path], tmp_path: Path) -> None:
    """Each is whole in itself."""
    root = Path(shutil.copytree(stores["jpeg"], tmp_path / "s"))
    first, last, away = root / "shards" / "00000", root / "shards" / "00002", tmp_path / "away"
    first.rename(away)
    last.rename(first)
    away.rename(last)
    assert any(problem.path.is_relative_to(root / "shards") for problem in verify_store(root).problems)


def test_a_shard_of_another_store_is_reported(stores: dict[FrameKind, Path], tmp_path: Path) -> None:
    """Whole in itself, and made of the same video."""
    root = Path(shutil.copytree(stores["jpeg"], tmp_path / "s"))
    shutil.rmtree(root / "shards" / "00000")
    shutil.copytree(stores["raw"] / "shards" / "00000", root / "shards" / "00000")
    assert any(problem.path.is_relative_to(root / "shards") for problem in verify_store(root).problems)


def test_raw_frames_that_changed_are_reported_only_by_verification(
    stores: dict[FrameKind, Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(stores["raw"], tmp_path / "s"))
    chunk = next(path for path in (root / "shards" / "00000" / "frames" / "c").rglob("*") if path.is_file())
    with changed(chunk, flipped(chunk.read_bytes(), 100, 3)):
        (problem,) = verify_store(root).problems
        assert problem.path == chunk and problem.videos == ("run/a é.mp4",)
        difference = open_store(root).clip(0, 0, 18) != open_store(stores["raw"]).clip(0, 0, 18)
    assert np.count_nonzero(difference) == 1
