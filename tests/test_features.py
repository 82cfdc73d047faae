"""Frozen features are correct and deterministic, and are never read from damaged or stale files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_pretrained import write_run
from worlds import Recorder

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.errors import CheckpointError, UsageError
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import _file_sha256, load_run
from bgaug.model.decomposition import CODES
from bgaug.pairs import centre_crop
from bgaug.pipelines.evaluate import features as room
from bgaug.pipelines.evaluate.features import Features, clips_of, frozen_features
from bgaug.progress import Silent
from bgaug.store import Store, open_store

ROUNDING = 2e-6  # of features of size 1 or so, between batches of other sizes


@pytest.fixture(scope="module")
def learner() -> ContrastiveLearner:
    torch.manual_seed(0)
    return ContrastiveLearner("tiny", "dual").eval()


@pytest.fixture
def run(learner: ContrastiveLearner, tmp_path: Path) -> Path:
    write_run(tmp_path / "run", learner)
    return tmp_path / "run"


@pytest.fixture(scope="module")
def store(small_store: Path) -> Store:
    return open_store(small_store)


EVERYBODY = np.arange(6)


def features(run: Path, store: Store, videos: Any = EVERYBODY, seen: Silent | None = None, **options: Any) -> Features:
    return frozen_features(load_run(run, device="cpu"), store, videos, seen or Silent(), **{"clips": 2, **options})


class Counter(Silent):
    """How many videos were encoded."""

    def __init__(self) -> None:
        self.count = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        self.count += count


def test_features_are_means_over_centre_crops(learner: ContrastiveLearner, run: Path, store: Store) -> None:
    found = features(run, store, clips=3)
    dataset = ClipDataset(store, ClipOptions(8, 3, views=3, sampling="uniform"), backgrounds=False)
    batch = ClipDataset.collate(dataset.__getitems__(range(6)))
    for place in range(6):
        clips = centre_crop(batch.frames[place], batch.box[place].expand(3, 4), 32)
        with torch.no_grad():
            for which in ("global", "dynamic", "static", "dynamic+static"):
                expected = learner.features(clips, which).mean(0)
                np.testing.assert_allclose(found.of(which)[place], expected.numpy(), atol=ROUNDING)
    assert found.of("dynamic+static").shape[1] == found.of("dynamic").shape[1] + found.of("static").shape[1]
    np.testing.assert_array_equal(found.of("dynamic", np.array([4, 1])), found.of("dynamic")[[4, 1]])


def test_batches_and_threads_do_not_change_them(run: Path, store: Store) -> None:
    first = features(run, store, batch_size=4, threads=0, cache=False)
    for batch_size, threads in ((1, 0), (5, 3), (50, 1)):
        other = features(run, store, batch_size=batch_size, threads=threads, cache=False)
        for code in CODES:
            np.testing.assert_allclose(other.of(code), first.of(code), atol=ROUNDING)
    again = features(run, store, batch_size=4, threads=3, cache=False)
    assert all((again.of(code) == first.of(code)).all() for code in CODES)  # to the bit
    assert not (run / "features").exists() and first.file is None


def test_they_are_computed_once(run: Path, store: Store) -> None:
    counter = Counter()
    first = features(run, store, seen=counter)
    assert counter.count == 6 and not first.reused and first.file is not None and first.file.parent == run / "features"
    again = features(run, store, seen=counter, batch_size=1, threads=0)
    assert counter.count == 6 and again.reused
    for code in CODES:
        np.testing.assert_array_equal(again.of(code), first.of(code))
    moved = run.rename(run.with_name("elsewhere"))  # a run may move, and be named by its checkpoint
    assert features(load_run(moved).checkpoint, store, seen=counter).reused and counter.count == 6
    assert features(moved, store, seen=counter, cache=False).file is None and counter.count == 12


def test_another_question_is_another_file(run: Path, store: Store, learner: ContrastiveLearner) -> None:
    files = {
        features(run, store).file,
        features(run, store, clips=1).file,
        features(run, store, np.array([0, 1, 3])).file,
        features(run, store, np.array([0, 1, 4])).file,
    }
    write_run(run, learner, config={"stride": 1})
    files.add(features(run, store).file)
    write_run(run, learner, config={"crop": 24})
    files.add(features(run, store).file)
    torch.manual_seed(1)
    write_run(run, ContrastiveLearner("tiny", "dual"))
    files.add(features(run, store).file)
    assert len(files) == 7 and None not in files


def test_another_store_is_another_file(run: Path, store: Store, small_store: Path, tmp_path: Path) -> None:
    shutil.copytree(small_store, tmp_path / "copy")
    first = features(run, store)
    assert features(run, open_store(tmp_path / "copy")).reused  # the same content elsewhere
    first_key = np.load(str(first.file))["about"]
    assert json.loads(str(first_key))["checkpoint_sha256"] == _file_sha256(load_run(run).checkpoint)


def test_damage_is_seen_and_repaired(run: Path, store: Store) -> None:
    first = features(run, store)
    assert first.file is not None
    whole = first.file.read_bytes()
    rng = np.random.default_rng(0)
    spoilt = [b"", b"PK", whole[:-30], whole[: len(whole) // 2], rng.bytes(len(whole))]
    for place in [63, 64, 98, 115, *rng.integers(len(whole), size=21).tolist()]:  # the first few in a header
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        spoilt.append(bytes(changed))
    warnings = []
    for data in spoilt:
        first.file.write_bytes(data)
        seen = Recorder()
        found = features(run, store, seen=seen)
        for code in CODES:
            np.testing.assert_array_equal(found.of(code), first.of(code))
        warnings += seen.warnings
        assert found.reused == (not seen.warnings)
    assert len(warnings) >= 20  # some bits are of no consequence: times, permissions
    assert all(
        "is damaged or belongs to something else; its features are computed again" in warning for warning in warnings
    )


def test_a_file_of_something_else_is_not_believed(run: Path, store: Store) -> None:
    first, other = features(run, store), features(run, store, clips=1)
    assert first.file and other.file
    shutil.copy(other.file, first.file)
    seen = Recorder()
    found = features(run, store, seen=seen)
    assert not found.reused and len(seen.warnings) == 1
    np.testing.assert_array_equal(found.of("global"), first.of("global"))
    assert features(run, store).reused


def test_files_with_the_earlier_names_of_codes_are_read(run: Path, store: Store) -> None:
    first = features(run, store)
    assert first.file is not None
    with np.load(first.file) as file:
        arrays = dict(file)
    for old, name in (("g", "global"), ("d", "dynamic"), ("r", "static")):
        arrays[old] = arrays.pop(name)
    np.savez(first.file, **arrays)
    again = features(run, store)
    assert again.reused and all((again.of(code) == first.of(code)).all() for code in CODES)


def test_no_object_is_unpickled(run: Path, store: Store) -> None:
    found = features(run, store)
    assert found.file is not None
    with np.load(found.file, allow_pickle=False) as file:
        assert set(file) == {"global", "dynamic", "static", "key", "about"}
        assert all(file[name].dtype.kind != "O" for name in file)
        key = str(file["key"])
    bad = {code: np.array([{"a": 1}] * 6, dtype=object) for code in CODES}
    np.savez(found.file, key=np.array(key), **bad)  # type: ignore[arg-type]
    seen = Recorder()
    assert not features(run, store, seen=seen).reused and len(seen.warnings) == 1


def test_nothing_half_written_is_ever_there(run: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            features(run, store)
    assert list((run / "features").iterdir()) == []


def test_a_folder_that_cannot_be_written_only_costs_the_cache(
    run: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(room, "write_arrays", refuse)
    seen = Recorder()
    found = features(run, store, seen=seen)
    assert found.file is None and found.of("global").shape[0] == 6
    assert len(seen.warnings) == 1 and "features are not kept" in seen.warnings[0] and "Read-only" in seen.warnings[0]


def test_clips_are_of_the_named_videos(store: Store, run: Path) -> None:
    dataset = clips_of(store, load_run(run).config, np.array([1, 4]), views=1)
    assert dataset.video_ids(ClipDataset.collate([dataset[0], dataset[1]])) == [store.video_id(1), store.video_id(4)]
    with pytest.raises(UsageError, match="features are global, dynamic, static, dynamic.static, got 'x'"):
        features(run, store).of("x")
    with pytest.raises(KeyError, match="not encoded"):
        features(run, store, np.array([0, 2])).of("global", np.array([0, 5]))


def test_runs_that_cannot_be_read(run: Path, learner: ContrastiveLearner, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such run or file"):
        load_run(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_run(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="holds no best checkpoint; train with --best-by"):
        load_run(run, best=True)
    path = load_run(run).checkpoint
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="is it whole"):
        load_run(run)
    write_run(run, learner, backbone="r3d18")
    with pytest.raises(CheckpointError, match="does not fit its own configuration"):
        load_run(run)
    write_run(run, learner, backbone="nothing")
    with pytest.raises(CheckpointError, match="no backbone 'nothing'"):
        load_run(run)
