"""Features for others: what is in the file, and that it depends on nothing but run and videos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_cli import call, last_json
from test_pretrained import write_run
from worlds import Recorder, moving_square

from bgaug.data.clips import longest_shot, uniform_clips
from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.errors import BgaugError, UsageError, VideoError
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import _file_sha256
from bgaug.pairs import centre_crop
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.build.workers import WorkerLost
from bgaug.pipelines.evaluate.embed import embed, is_store
from bgaug.pipelines.evaluate.file_clips import FileClips, ReadClips, evaluation_size
from bgaug.pipelines.evaluate.options import EmbedOptions
from bgaug.progress import Silent
from bgaug.sizing import STORE_SIZE
from bgaug.store import open_store
from bgaug.video import write_video


@pytest.fixture(scope="module")
def learner() -> ContrastiveLearner:
    torch.manual_seed(0)
    return ContrastiveLearner("tiny", "dual").eval()


@pytest.fixture(scope="module")
def run(learner: ContrastiveLearner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, learner, config={"stride": 2})
    return folder


@pytest.fixture(scope="module")
def raw_store(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("raw") / "shards"
    build_shards(ShardOptions(inputs=[video_folder], out=out, in_process=True, size=None, frames="raw"), Silent())
    return out


def read(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize(("num_frames", "stride", "views"), [(8, 1, 3), (4, 3, 1), (8, 4, 10), (16, 2, 2), (2, 30, 2)])
def test_clips_are_those_of_the_dataset(small_store: Path, num_frames: int, stride: int, views: int) -> None:
    store = open_store(small_store)
    options = ClipOptions(num_frames, stride, views=views, sampling="uniform")
    dataset = ClipDataset(store, options, backgrounds=False)
    batch = ClipDataset.collate(dataset.__getitems__(range(len(dataset))))
    for place, video in enumerate(dataset.videos.tolist()):
        shots = store.shots(video)
        start, stop = shots[longest_shot(shots), :2].tolist()
        frames = uniform_clips(start, stop, num_frames, stride, views)
        assert np.array_equal(frames[:, 0], batch.start[place].numpy())
        expected = np.stack([store.pts_at(video, clip) for clip in frames])
        assert np.array_equal(expected, batch.pts_seconds[place].numpy())


def test_the_longest_shot_is_the_first_of_equals() -> None:
    assert longest_shot([(0, 3), (3, 9), (9, 15)]) == 1


def test_files_are_brought_to_the_size_of_stores_or_more() -> None:
    assert evaluation_size(112) == STORE_SIZE == (128, 171)
    height, width = evaluation_size(224)
    assert height == 224 and width == 299  # the same aspect


def test_features_are_what_a_plain_loop_finds(
    run: Path, learner: ContrastiveLearner, raw_store: Path, tmp_path: Path
) -> None:
    options = EmbedOptions(feature="dynamic+static", clips=3, per_clip=True)
    embed(run, [str(raw_store)], tmp_path / "f.npz", Silent(), options=options)
    found, store = read(tmp_path / "f.npz"), open_store(raw_store)
    assert found["features"].shape == (6, 3, 192) and found["features"].dtype == np.float32
    for place, name in enumerate(found["ids"]):
        video = store.find(str(name))
        for view, start in enumerate(found["starts"][place]):
            frames = torch.from_numpy(store.clip(video, int(start), 8, 2))[None]
            clip = centre_crop(frames, torch.tensor([[0, 0, 48, 64]]), 32)
            with torch.no_grad():
                expected = learner.features(clip, "dynamic+static")[0].numpy()
            np.testing.assert_allclose(found["features"][place, view], expected, rtol=1e-5, atol=1e-6)


def test_files_give_what_their_store_gives(run: Path, video_folder: Path, raw_store: Path, tmp_path: Path) -> None:
    options = EmbedOptions(clips=2, size=(48, 64), in_process=True)
    embed(run, [str(raw_store)], tmp_path / "store.npz", Silent(), options=options)
    embed(run, [str(video_folder)], tmp_path / "files.npz", Silent(), options=options)
    stored, filed = read(tmp_path / "store.npz"), read(tmp_path / "files.npz")
    assert stored.keys() == filed.keys()
    for name in ("ids", "starts", "labels", "class_names", "groups", "splits"):
        assert np.array_equal(stored[name], filed[name]), name
    np.testing.assert_allclose(stored["features"], filed["features"], rtol=1e-5, atol=1e-6)


def test_neither_batch_size_nor_company_changes_a_feature(run: Path, small_store: Path, tmp_path: Path) -> None:
    found = []
    for batch_size in (1, 4, 64):
        options = EmbedOptions(clips=2, batch_size=batch_size)
        embed(run, [str(small_store)], tmp_path / f"{batch_size}.npz", Silent(), options=options)
        found.append(read(tmp_path / f"{batch_size}.npz")["features"])
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, rtol=1e-5, atol=1e-6)
    assert np.abs(found[0][0] - found[0][1]).max() > 1e-3  # and they do differ by video


def test_without_a_choice_the_feature_is_the_methods_own(run: Path, small_store: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = tmp_path / "plain"
    write_run(plain, ContrastiveLearner("tiny", "simclr"), config={"stride": 2})
    for of, own in ((run, "dynamic"), (plain, "global")):
        found = []
        for which in (None, own):
            out = tmp_path / f"{of.name}-{which}.npz"
            chosen = EmbedOptions(feature=which, clips=2)
            assert embed(of, [str(small_store)], out, Silent(), options=chosen).settings["feature"] == own
            found.append(read(out)["features"])
        assert np.array_equal(found[0], found[1])


def test_the_mean_of_the_clips(run: Path, small_store: Path, tmp_path: Path) -> None:
    for name, per_clip in (("mean", False), ("clips", True)):
        options = EmbedOptions(clips=3, per_clip=per_clip)
        embed(run, [str(small_store)], tmp_path / f"{name}.npz", Silent(), options=options)
    mean, clips = (read(tmp_path / f"{name}.npz")["features"] for name in ("mean", "clips"))
    np.testing.assert_allclose(mean, clips.mean(axis=1), rtol=1e-5, atol=1e-6)


def test_further_content_of_the_file(run: Path, small_store: Path, tmp_path: Path) -> None:
    reported = embed(run, [str(small_store)], tmp_path / "f.npz", Silent(), options=EmbedOptions(clips=1))
    found, store = read(tmp_path / "f.npz"), open_store(small_store)
    assert found["ids"].tolist() == list(store.videos)
    assert [found["class_names"][label] for label in found["labels"]] == [name.split("/")[0] for name in store.videos]
    assert (found["groups"] == -1).all() and (found["splits"] == -1).all()
    checkpoint = run / "checkpoints" / "step-00000007.pt"
    assert str(found["checkpoint_sha256"]) == _file_sha256(checkpoint)
    settings = json.loads(str(found["settings"]))
    assert settings["frames"] == 8 and settings["stride"] == 2 and settings["crop"] == 32
    assert reported.to_json()["shape"] == [6, 96] and reported.to_json()["settings"] == settings


def test_a_bad_file_does_not_affect_others(run: Path, video_folder: Path, tmp_path: Path) -> None:
    """By the command, with a worker process."""
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(next(video_folder.rglob("clip 0*")), videos / "good.mp4")
    (videos / "bad.mp4").write_bytes(b"no video at all")
    (videos / "empty.mp4").touch()
    labels = tmp_path / "labels.csv"
    labels.write_text("file,class_name,group,split\nvideos/good.mp4,walk,monday,test\n", "utf-8")
    out = tmp_path / "f.npz"
    printed = last_json(
        call("embed", run, videos, "--labels", labels, "--clips", 2, "--out", out, "--json", "--timeout", 60, code=1)
    )
    assert printed["videos"] == 1 and printed["failed"] == 2
    found = read(out)
    assert found["ids"].tolist() == ["good.mp4"] and found["failed_ids"].tolist() == ["bad.mp4", "empty.mp4"]
    assert "[not_a_video]" in found["failed_reasons"][0] and "[empty]" in found["failed_reasons"][1]
    assert found["class_names"].tolist() == ["walk"] and found["labels"].tolist() == [0]
    assert found["group_names"].tolist() == ["monday"] and found["split_names"].tolist() == ["test"]
    assert [path.name for path in tmp_path.glob(".*")] == []  # nothing half written


def test_nothing_usable_writes_nothing(run: Path, tmp_path: Path) -> None:
    bad, progress = tmp_path / "bad.mp4", Recorder()
    bad.write_bytes(b"no video at all")
    with pytest.raises(BgaugError, match="none of 1 videos can be used"):
        embed(run, [str(bad)], tmp_path / "f.npz", progress, options=EmbedOptions(in_process=True))
    assert not (tmp_path / "f.npz").exists()
    assert len(progress.warnings) == 1 and progress.warnings[0].startswith("bad.mp4: ")


def test_a_file_is_read_to_its_longest_shot(tmp_path: Path) -> None:
    first, second = moving_square(1, 20)[0], 255 - moving_square(2, 40)[0]
    write_video(tmp_path / "cut.mp4", np.concatenate([first, second]))
    task = ReadClips(tmp_path / "cut.mp4", 8, 2, 3, (48, 64))
    clips = task(lambda place: None)
    assert isinstance(clips, FileClips)
    assert np.array_equal(clips.indices, uniform_clips(20, 60, 8, 2, 3))
    both = np.concatenate([first, second])
    assert np.abs(clips.clips.astype(int) - both[clips.indices]).mean() < 3
    whole = ReadClips(tmp_path / "cut.mp4", 8, 2, 3, (48, 64), shots=False)(lambda place: None)
    assert isinstance(whole, FileClips) and np.array_equal(whole.indices, uniform_clips(0, 60, 8, 2, 3))


def test_a_lost_worker_is_an_error_of_its_file(tmp_path: Path) -> None:
    lost = ReadClips(tmp_path / "x.mp4", 8, 2, 3).without(WorkerLost(0, "timeout", "was not done within 3 seconds"))
    error = lost(lambda place: None)
    assert isinstance(error, VideoError) and error.reason == "timeout" and error.path == tmp_path / "x.mp4"


def test_a_file_that_breaks_off_is_salvaged_on_request(tmp_path: Path) -> None:
    path = tmp_path / "cut off.avi"
    write_video(path, np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    error = ReadClips(path, 4, 1, 2, (48, 64))(lambda place: None)
    assert isinstance(error, VideoError) and error.reason == "truncated"
    clips = ReadClips(path, 4, 1, 2, (48, 64), salvage=True)(lambda place: None)
    assert isinstance(clips, FileClips) and 4 <= clips.indices.max() < 30


def test_wrong_usage_is_an_error(run: Path, small_store: Path, video_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.npz"
    out.write_bytes(b"precious")
    with pytest.raises(UsageError, match="--overwrite replaces it"):
        embed(run, [str(small_store)], out, Silent())
    assert out.read_bytes() == b"precious"
    embed(run, [str(small_store)], out, Silent(), options=EmbedOptions(clips=1, overwrite=True))
    assert read(out)["features"].shape == (6, 96)
    with pytest.raises(UsageError, match="is a store: name it alone"):
        is_store([str(video_folder), str(small_store)])
    with pytest.raises(UsageError, match="there is no 'x'; there are global, dynamic, static, dynamic.static"):
        EmbedOptions(feature="x")
    with pytest.raises(UsageError, match="--clips: Input should be greater"):
        EmbedOptions(clips=0)
    call("embed", run, small_store, "--out", tmp_path / "n.npz", "--size", "native", code=2)


def test_weights_are_exported_by_the_command(run: Path, learner: ContrastiveLearner, tmp_path: Path) -> None:
    from bgaug import load_encoder

    out = tmp_path / "encoder.safetensors"
    printed = last_json(call("export-weights", run, "--out", out, "--json"))
    assert printed["backbone"] == "tiny" and printed["stride"] == 2 and printed["dim"] == 96
    call("export-weights", run, "--out", out, code=2)
    clips = torch.rand(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_encoder(out)(clips), learner.features(clips))
