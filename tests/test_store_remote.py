"""Stores that are read through zarr's store interface: object stores, memory."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from bgaug.data.batch import FIELDS
from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.data.loader import ClipLoader
from bgaug.errors import StoreDamageError, StoreError, StoreFormatError, UsageError
from bgaug.names import FrameKind
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.store import Store, open_store


class Counted(WrapperStore[LocalStore]):
    """Notes every request."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self.requests: list[str] = []

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        self.requests.append(key)
        assert prototype is not None
        return await super().get(key, prototype, byte_range)

    async def getsize(self, key: str) -> int:
        self.requests.append(key)
        return await super().getsize(key)


@pytest.fixture(params=["jpeg", "raw"])
def root(video_folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    kind: FrameKind = request.param
    build_shards(
        ShardOptions(inputs=[video_folder], out=tmp_path / "s", in_process=True, size=None, frames=kind), Silent()
    )
    return tmp_path / "s"


def same(far: Store, near: Store) -> None:
    assert list(far.videos) == list(near.videos)
    for video in range(len(near)):
        assert np.array_equal(far.clip(video, 1, 8, 2), near.clip(video, 1, 8, 2))
        assert np.array_equal(far.packed_masks(video, 1, 8, 2), near.packed_masks(video, 1, 8, 2))
        assert np.array_equal(far.background(video).image, near.background(video).image)
        assert np.array_equal(far.pts_seconds(video, 0, 20), near.pts_seconds(video, 0, 20))
    assert far.row(1) == near.row(1) and far.failures == near.failures


def test_a_clip_costs_two_requests_once_its_shard_is_known(root: Path) -> None:
    counted = Counted(LocalStore(root, read_only=True))
    store = open_store(counted)
    same(store, open_store(root))
    rng = np.random.default_rng(0)
    for video in rng.integers(len(store), size=40).tolist():
        counted.requests.clear()
        store.clip(video, int(rng.integers(8)), 8, int(rng.integers(1, 3)))
        store.packed_masks(video, int(rng.integers(8)), 8)
        assert len(counted.requests) == 2, counted.requests


def test_a_sample_costs_two_requests_a_clip(root: Path) -> None:
    counted = Counted(LocalStore(root, read_only=True))
    near = ClipDataset(root, ClipOptions(num_frames=8, stride=1, views=2), seed=3)
    far = ClipDataset(open_store(counted), near.options, seed=3)
    for index in range(6):
        for name in FIELDS:
            assert torch.equal(far[index][name], near[index][name])
    for index in range(6):
        counted.requests.clear()
        _ = far[index]
        assert len(counted.requests) == 4, counted.requests


def test_loaders_read_by_threads(root: Path) -> None:
    near = ClipLoader(ClipDataset(root, ClipOptions(num_frames=8, stride=1)), 2, threads=0)
    far = ClipLoader(ClipDataset(open_store(LocalStore(root, read_only=True)), near.dataset.options), 2, threads=4)
    for one, other in zip(near, far, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in FIELDS)


def test_urls_by_fsspec(root: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(root), "/bucket/shards", recursive=True)
    try:
        same(open_store("memory://bucket/shards"), open_store(root))
        with pytest.raises(StoreFormatError, match="memory://bucket/none: is not a bgaug store"):
            open_store("memory://bucket/none")
    finally:
        memory.rm("/bucket", recursive=True)


def test_urls_by_obstore(root: Path) -> None:
    pytest.importorskip("obstore")
    same(open_store(f"file://{root}"), open_store(root))


def test_unknown_urls_are_reported() -> None:
    with pytest.raises(UsageError, match=r"nothing://x cannot be opened: .*pip install 'bgaug\[cloud\]'"):
        open_store("nothing://x")


def clip_of(store: Store) -> Any:
    return store.clip(0, 0, 8)


def test_it_travels_to_other_processes(root: Path) -> None:
    store = open_store(LocalStore(root, read_only=True))
    expected = store.clip(0, 0, 8)
    assert np.array_equal(pickle.loads(pickle.dumps(store)).clip(0, 0, 8), expected)
    with multiprocessing.get_context("forkserver").Pool(1) as workers:
        assert np.array_equal(workers.apply(clip_of, (store,)), expected)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: store.clip(0, 0, 8), range(40)):
            assert np.array_equal(got, expected)


def test_what_is_missing_is_no_zeros(root: Path) -> None:
    shutil.rmtree(root / "shards" / "00000" / "frames" / "c")
    store = open_store(LocalStore(root, read_only=True))
    with pytest.raises(StoreDamageError, match="is missing"):
        store.clip(0, 0, 8)
    shutil.rmtree(root / "index")
    assert len(open_store(LocalStore(root, read_only=True))) == 6  # by the commits
    shutil.rmtree(root / "shards" / "00003")
    with pytest.raises(StoreError, match="1 of 6 shards are missing"):
        open_store(LocalStore(root, read_only=True))
