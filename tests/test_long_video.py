from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import moving_square

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.names import FrameKind
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.clips import Cutter
from bgaug.pipelines.build.options import BackgroundOptions, ShardOptions, VideoOptions
from bgaug.pipelines.build.run import Outcome
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.store import open_store, repair_store, verify_store
from bgaug.store.format.layout import COMMIT
from bgaug.video import write_video


@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=20),
    parts=st.integers(1, 9),
    claim=st.floats(0.3, 3),
)
def test_pieces_cover_every_frame_once_and_in_order(lengths: list[int], parts: int, claim: float) -> None:
    total = sum(lengths)
    cutter = Cutter(max(1, int(total * claim)), parts)
    part, begun, start, pieces = 0, 0, 0, []
    for length in lengths:
        for piece in cutter.cut(part, begun, start, start + length):
            if piece[0] != part:
                part, begun = piece[0], piece[1]
            pieces.append(piece)
        start += length
    assert [piece[1] for piece in pieces] == [0, *(piece[2] for piece in pieces[:-1])]
    assert pieces[-1][2] == total and all(a < b for _, a, b in pieces)
    numbers = [piece[0] for piece in pieces]
    assert numbers == sorted(numbers) and max(numbers) < parts


def test_parts_end_between_shots_where_these_are_near_enough() -> None:
    cutter = Cutter(1000, 4)
    assert list(cutter.cut(0, 0, 0, 240)) == [(0, 0, 240)]
    assert list(cutter.cut(0, 0, 240, 500)) == [(1, 240, 500)]
    assert list(cutter.cut(1, 240, 500, 1000)) == [(2, 500, 756), (3, 756, 1000)]


def make_shards_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of so few bytes that a video of some seconds is a long one."""
    monkeypatch.setattr("bgaug.store.format.plan._MAX_SHARD_BYTES", 120_000)
    monkeypatch.setattr("bgaug.store.format.plan._LONG_SHARD_BYTES", 60_000)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    make_shards_small(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of three shots, one of them long, between two short videos."""
    videos = tmp_path_factory.mktemp("videos")
    frames = np.concatenate([moving_square(1, 90)[0], moving_square(2, 60)[0], moving_square(3, 150)[0]])
    write_video(videos / "long.mp4", frames)
    write_video(videos / "a.mp4", moving_square(4, 30)[0])
    write_video(videos / "z.mp4", moving_square(5, 30)[0])
    return videos


def build(folder: Path, out: Path, frames: FrameKind = "jpeg", backgrounds: Path | None = None) -> Outcome:
    return build_shards(
        ShardOptions(
            inputs=[folder],
            out=out,
            in_process=True,
            video=VideoOptions(method="median"),
            size=None,
            frames=frames,
            backgrounds=backgrounds,
        ),
        Silent(),
    )


@pytest.fixture(scope="module")
def built(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the videos in small shards."""
    root = tmp_path_factory.mktemp("built") / "s"
    with pytest.MonkeyPatch.context() as patched:
        make_shards_small(patched)
        build(folder, root)
    return root


@pytest.fixture
def store_path(built: Path, tmp_path: Path) -> Path:
    """A copy of that store, which a test may change."""
    return Path(shutil.copytree(built, tmp_path / "s"))


@pytest.mark.parametrize("frames", ["jpeg", "raw"])
def test_a_long_video_reads_as_if_one_shard_held_it(
    folder: Path, tmp_path: Path, frames: FrameKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(folder, tmp_path / "one", frames)
    with monkeypatch.context() as patched:
        make_shards_small(patched)
        outcome = build(folder, tmp_path / "many", frames)
    assert outcome.to_json()["videos"] == outcome.to_json()["ok"] == 3 and outcome.shards > 4
    assert verify_store(tmp_path / "many", deep=True).problems == ()
    one, many = open_store(tmp_path / "one"), open_store(tmp_path / "many")
    assert list(one.videos) == list(many.videos) == ["a.mp4", "long.mp4", "z.mp4"]
    video = one.find("long.mp4")
    count = one.num_frames(video)
    assert count == many.num_frames(video) == 300 == many.row(video).num_frames
    assert np.array_equal(one.clip(video, 0, count), many.clip(video, 0, count))
    assert np.array_equal(one.clip(video, 3, 60, 5), many.clip(video, 3, 60, 5))
    assert np.array_equal(one.masks(video, 0, count), many.masks(video, 0, count))
    assert np.array_equal(one.pts_seconds(video, 0, count), many.pts_seconds(video, 0, count))
    shots = many.shots(video)
    assert {0, 90, 150} <= set(shots[:, 0].tolist()) and shots[-1, 1] == 300
    for number, (start, _, _) in enumerate(shots.tolist()):
        whole = int(np.searchsorted(one.shots(video)[:, 0], start, side="right")) - 1
        assert np.array_equal(many.background(video, number).image, one.background(video, whole).image)
    parts = many.columns.part_shard[slice(*many.columns.part_offsets[video : video + 2].tolist())]
    assert len(set(parts.tolist())) == len(parts) > 2


def test_clips_of_a_long_video_lie_within_their_shots(built: Path) -> None:
    dataset = ClipDataset(built, ClipOptions(num_frames=8, stride=2))
    store = dataset.store
    for epoch in range(20):
        dataset.set_epoch(epoch)
        sample = dataset[1]
        shot = store.shots(1)[int(sample.shot)]
        for start in sample.start.tolist():
            assert shot[0] <= start and start + 15 <= shot[1]
        assert np.array_equal(sample.backgrounds.numpy(), store.background(1, int(sample.shot)).image)


@pytest.mark.usefixtures("small_shards")
def test_given_backgrounds_make_the_same_parts(folder: Path, built: Path, tmp_path: Path) -> None:
    extract_backgrounds(
        BackgroundOptions(
            inputs=[folder], out=tmp_path / "bg", in_process=True, video=VideoOptions(method="median"), size=None
        ),
        Silent(),
    )
    build(folder, tmp_path / "a", backgrounds=tmp_path / "bg")
    a, b = open_store(tmp_path / "a"), open_store(built)
    assert np.array_equal(a.columns.part_first, b.columns.part_first) and np.array_equal(a.shots(1), b.shots(1))
    assert np.array_equal(a.masks(1, 0, 300), b.masks(1, 0, 300))


@pytest.mark.usefixtures("small_shards")
def test_missing_parts_are_built_again_and_the_others_left(folder: Path, store_path: Path) -> None:
    root = store_path
    before = verify_store(root)
    shards = sorted((root / "shards").iterdir())
    kept = {path.name: (path / COMMIT).stat().st_mtime_ns for path in shards}
    for path in (shards[2], shards[4]):
        shutil.rmtree(path)
    build(folder, root)
    after = verify_store(root, deep=True)
    assert after.problems == () and after.content_hash == before.content_hash
    changed = [name for name, time in kept.items() if (root / "shards" / name / COMMIT).stat().st_mtime_ns != time]
    assert changed == [shards[2].name, shards[4].name]


@pytest.mark.usefixtures("small_shards")
def test_a_long_video_that_breaks_off_loses_no_other_video(folder: Path, tmp_path: Path) -> None:
    videos = Path(shutil.copytree(folder, tmp_path / "videos"))
    data = (videos / "long.mp4").read_bytes()
    middle = len(data) // 2
    (videos / "long.mp4").write_bytes(data[:middle] + bytes(4000) + data[middle + 4000 :])
    outcome = build(videos, tmp_path / "s")
    assert [failure.id for failure in outcome.failures] == ["long.mp4"] and outcome.to_json()["ok"] == 2
    assert verify_store(tmp_path / "s", deep=True).problems == ()
    assert list(open_store(tmp_path / "s").videos) == ["a.mp4", "z.mp4"]


@pytest.mark.usefixtures("small_shards")
def test_a_container_that_claims_too_much_leaves_shards_empty(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgaug.pipelines.build.plan.declared_length", lambda path: 2000)
    build(folder, tmp_path / "s")
    report = verify_store(tmp_path / "s", deep=True)
    assert report.problems == () and report.num_videos == 3
    assert open_store(tmp_path / "s").num_frames(1) == 300


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("place", [1, pytest.param(2, marks=pytest.mark.full), -1])
def test_a_video_that_lacks_a_part_is_hidden_and_can_be_repaired(folder: Path, store_path: Path, place: int) -> None:
    root = store_path
    before = verify_store(root)
    store = open_store(root)
    parts = store.columns.part_shard[slice(*store.columns.part_offsets[1:3].tolist())]
    shard = root / "shards" / f"{parts[place]:05d}"
    data = bytearray((shard / "frames" / "c" / "0").read_bytes())
    data[50] ^= 1
    (shard / "frames" / "c" / "0").write_bytes(data)
    repair = repair_store(root, verify_store(root))
    assert repair.videos == ("long.mp4",)
    assert list(open_store(root, allow_incomplete=True).videos) == ["a.mp4", "z.mp4"]
    build(folder, root)
    after = verify_store(root, deep=True)
    assert after.problems == () and after.content_hash == before.content_hash
    assert open_store(root).num_frames(1) == 300
