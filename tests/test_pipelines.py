from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from worlds import Recorder, moving_square

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.errors import StoreOptionsError, UsageError
from bgaug.masks import foreground_mask
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.find_videos import find_videos
from bgaug.pipelines.build.options import BackgroundOptions, ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.shots.estimate import estimate_background
from bgaug.store import open_store, verify_store
from bgaug.testing.scenarios import make_scenario
from bgaug.testing.scores import MaskScores
from bgaug.video import read_video, write_video


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two good videos of different size, one text file that claims to be a video, one empty file."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_video(folder / "a.mp4", moving_square(0, 30)[0])
    write_video(folder / "b.mp4", moving_square(1, 20, 60, 60)[0])
    (folder / "text.mp4").write_text("no video" * 100)
    (folder / "empty.avi").touch()
    (folder / "notes.txt").write_text("not looked at")
    return folder


# --- finding ----------------------------------------------------------------------------------------------------------


def test_folders_are_walked_and_named_files_taken(tmp_path: Path) -> None:
    for name in ("b/x.MP4", "a.avi", ".hidden.mp4", ".git/y.mp4", "notes.txt", "odd.bin"):
        path = tmp_path / "v" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    outside = tmp_path / "outside.mp4"
    outside.touch()
    os.symlink(outside, tmp_path / "v" / "leads_out.mp4")
    os.symlink(tmp_path / "v" / "a.avi", tmp_path / "v" / "inside.mp4")
    os.symlink(tmp_path / "gone", tmp_path / "v" / "broken.mp4")
    assert [s.id for s in find_videos([tmp_path / "v"])] == ["a.avi", "b/x.MP4", "inside.mp4"]
    assert [s.id for s in find_videos([tmp_path / "v" / "odd.bin"])] == ["odd.bin"]


def test_what_cannot_be_found_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        find_videos([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="no video in"):
        find_videos([tmp_path])
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.mp4").touch()
    with pytest.raises(UsageError, match="two videos have the id 'same.mp4'"):
        find_videos([tmp_path / "x", tmp_path / "y"])
    assert len(find_videos([tmp_path / "x", tmp_path / "x"])) == 1


# --- one bad video ----------------------------------------------------------------------------------------------------


def test_a_bad_video_affects_no_other_video(mixed: Path, tmp_path: Path) -> None:
    seen = Recorder()
    outcome = extract_backgrounds(BackgroundOptions(inputs=[mixed], out=tmp_path / "bg", jobs=2), seen)
    counts = outcome.to_json()
    assert (counts["videos"], counts["ok"], counts["failed"], counts["frames"]) == (4, 2, 2, 50)
    assert counts["videos"] == counts["ok"] + counts["partial"] + counts["no_static_background"] + counts["failed"]
    lines = [json.loads(line) for line in (tmp_path / "bg" / "failures.jsonl").read_text().splitlines()]
    assert [(line["id"], line["reason"]) for line in lines] == [("empty.avi", "empty"), ("text.mp4", "not_a_video")]
    assert any("text.mp4" in warning for warning in seen.warnings)
    assert list(open_store(tmp_path / "bg").videos) == ["a.mp4", "b.mp4"]


def test_failed_videos_are_tried_again_on_request(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "bg"
    extract_backgrounds(BackgroundOptions(inputs=[mixed], out=out, in_process=True), Silent())
    again = extract_backgrounds(BackgroundOptions(inputs=[mixed], out=out, in_process=True), Silent())
    assert again.built == 0 and len(again.failures) == 2
    retried = extract_backgrounds(
        BackgroundOptions(inputs=[mixed], out=out, in_process=True, retry_failed=True), Silent()
    )
    assert retried.built == 2 and len(retried.failures) == 2
    assert verify_store(out).problems == ()


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_a_rerun_builds_what_is_missing_to_the_same_content(video_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    first = build_shards(ShardOptions(inputs=[video_folder], out=out, in_process=True), Silent())
    whole = verify_store(out).content_hash
    assert first.built == first.shards == 6
    shutil.rmtree(out / "shards" / "00002")
    second = build_shards(ShardOptions(inputs=[video_folder], out=out, jobs=2), Silent())
    assert second.built == 1 and second.to_json()["videos"] == 6
    assert verify_store(out).content_hash == whole and not verify_store(out).problems


def test_content_does_not_depend_on_jobs_or_place(video_folder: Path, tmp_path: Path) -> None:
    hashes = set()
    for number, jobs in enumerate((1, 2)):
        copied = tmp_path / f"videos{number}"
        shutil.copytree(video_folder, copied)
        build_shards(ShardOptions(inputs=[copied], out=tmp_path / f"s{number}", jobs=jobs), Silent())
        hashes.add(verify_store(tmp_path / f"s{number}").content_hash)
    assert len(hashes) == 1


def test_other_options_are_refused(video_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    build_shards(ShardOptions(inputs=[video_folder], out=out, in_process=True), Silent())
    with pytest.raises(StoreOptionsError, match="background_side: 360 there, 20 now"):
        build_shards(
            ShardOptions(inputs=[video_folder], out=out, in_process=True, video=VideoOptions(background_side=20)),
            Silent(),
        )
    with pytest.raises(StoreOptionsError, match="size: 128x171 there, 48x64 now"):
        build_shards(ShardOptions(inputs=[video_folder], out=out, in_process=True, size=(48, 64)), Silent())
    build_shards(ShardOptions(inputs=[video_folder], out=out, in_process=True, overwrite=True, size=(48, 64)), Silent())
    assert open_store(out).size == (48, 64)


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_masks_and_backgrounds_are_those_of_the_library(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    write_video(folder / "a.mp4", moving_square(0, 40)[0])
    build_shards(ShardOptions(inputs=[folder], out=tmp_path / "s", in_process=True, size=None, frames="raw"), Silent())
    store, frames = open_store(tmp_path / "s"), read_video(folder / "a.mp4").frames
    background = estimate_background(frames)
    assert np.array_equal(store.clip(0, 0, 40), frames)
    assert np.array_equal(store.background(0).image, background.image)
    assert np.array_equal(store.masks(0, 0, 40), foreground_mask(frames, background))


def test_a_small_memory_gives_the_same_masks(video_folder: Path, tmp_path: Path) -> None:
    stores = []
    for name, memory in (("small", 48 * 64 * 4 * 120), ("large", 256 * 2**20)):
        build_shards(
            ShardOptions(
                inputs=[video_folder],
                out=tmp_path / name,
                in_process=True,
                video=VideoOptions(memory=memory),
                size=(96, 128),
            ),
            Silent(),
        )
        stores.append(open_store(tmp_path / name))
    for video in range(6):
        count = stores[0].num_frames(video)
        assert np.array_equal(stores[0].masks(video, 0, count), stores[1].masks(video, 0, count))


def test_given_backgrounds_are_used(video_folder: Path, tmp_path: Path) -> None:
    extract_backgrounds(
        BackgroundOptions(inputs=[video_folder], out=tmp_path / "bg", in_process=True, size=None), Silent()
    )
    build_shards(
        ShardOptions(
            inputs=[video_folder], out=tmp_path / "a", in_process=True, size=None, backgrounds=tmp_path / "bg"
        ),
        Silent(),
    )
    build_shards(ShardOptions(inputs=[video_folder], out=tmp_path / "b", in_process=True, size=None), Silent())
    given, computed = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    for video in range(6):
        assert np.array_equal(given.background(video).image, computed.background(video).image)
        count = given.num_frames(video)
        assert np.array_equal(given.masks(video, 0, count), computed.masks(video, 0, count))


def test_a_changed_file_gets_a_new_background(video_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "v"
    shutil.copytree(video_folder, folder)
    extract_backgrounds(BackgroundOptions(inputs=[folder], out=tmp_path / "bg", in_process=True, size=None), Silent())
    changed = next(folder.rglob("*.mp4"))
    write_video(changed, moving_square(77, 30)[0])
    build_shards(
        ShardOptions(inputs=[folder], out=tmp_path / "s", in_process=True, size=None, backgrounds=tmp_path / "bg"),
        Silent(),
    )
    store = open_store(tmp_path / "s")
    video = store.find(changed.relative_to(folder).as_posix())
    expected = estimate_background(read_video(changed).frames).image
    assert np.array_equal(store.background(video).image, expected)


def test_backgrounds_are_never_enlarged(video_folder: Path, tmp_path: Path) -> None:
    extract_backgrounds(
        BackgroundOptions(inputs=[video_folder], out=tmp_path / "bg", in_process=True, size=(40, 40)), Silent()
    )
    with pytest.raises(UsageError, match="40x40, smaller than --size 48x64"):
        build_shards(
            ShardOptions(inputs=[video_folder], out=tmp_path / "s", size=(48, 64), backgrounds=tmp_path / "bg"),
            Silent(),
        )
    extract_backgrounds(
        BackgroundOptions(inputs=[video_folder], out=tmp_path / "padded", in_process=True, size=(40, 40), fit="pad"),
        Silent(),
    )
    with pytest.raises(UsageError, match="extract them with --fit stretch"):
        build_shards(
            ShardOptions(
                inputs=[video_folder], out=tmp_path / "s", size=(20, 20), fit="crop", backgrounds=tmp_path / "padded"
            ),
            Silent(),
        )


def test_native_size_needs_one_size(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"48x64 \(1\), 60x60 \(1\)"):
        build_shards(ShardOptions(inputs=[mixed], out=tmp_path / "s", size=None), Silent())


@pytest.mark.parametrize("declared", [None, 10_000])
def test_a_wrong_declared_length_changes_nothing(
    tmp_path: Path, declared: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from bgaug.video import PyavReader

    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v" / "a.mp4", moving_square(0, 130)[0])
    extract_backgrounds(
        BackgroundOptions(inputs=[tmp_path / "v"], out=tmp_path / "right", in_process=True, size=None), Silent()
    )
    original = PyavReader.__init__

    def claims(self: PyavReader, path: Path) -> None:
        original(self, path)
        self.info = replace(self.info, declared_frames=declared)

    monkeypatch.setattr(PyavReader, "__init__", claims)
    extract_backgrounds(
        BackgroundOptions(inputs=[tmp_path / "v"], out=tmp_path / "wrong", in_process=True, size=None), Silent()
    )
    right, wrong = open_store(tmp_path / "right").background(0), open_store(tmp_path / "wrong").background(0)
    assert np.array_equal(right.image, wrong.image) and np.array_equal(right.noise, wrong.noise)


def test_labels_that_do_not_match_are_named(video_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("file,class_name\nclip 0 é.mp4,walk\nlost.mp4,run\n")
    seen = Recorder()
    build_shards(ShardOptions(inputs=[video_folder], out=tmp_path / "s", labels=file, in_process=True), seen)
    assert any("1 rows have no video: lost.mp4" in warning for warning in seen.warnings)
    assert any("5 videos have no row" in warning for warning in seen.warnings)
    assert sorted(open_store(tmp_path / "s").columns.label.tolist()) == [-1] * 5 + [0]


def test_twins_are_reported(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v" / "a.mp4", moving_square(0, 12)[0])
    shutil.copy(tmp_path / "v" / "a.mp4", tmp_path / "v" / "b.mp4")
    seen = Recorder()
    build_shards(ShardOptions(inputs=[tmp_path / "v"], out=tmp_path / "s", in_process=True), seen)
    assert seen.warnings == ["b.mp4 has the same content as a.mp4"]


def test_shots_are_graded_and_the_grades_kept(small_store: Path, tmp_path: Path) -> None:
    store = open_store(small_store)
    for video in range(len(store)):
        shot = store.row(video).shots[0]
        assert shot.grade in tuple("ABCDEF") and store.background(video).grade == shot.grade
        assert shot.grade == "A" or shot.reasons or shot.grade == "B"
    grades = {store.row(video).shots[0].grade or "" for video in range(len(store))}
    assert len(ClipDataset(small_store, ClipOptions(num_frames=8), min_grade=max(grades))) == len(store)


def test_a_shaking_camera_has_masks_of_what_moves(tmp_path: Path) -> None:
    scenario = make_scenario("jitter3", size=(120, 160), num_frames=120, compress=True)
    write_video(tmp_path / "shaking.mp4", scenario.frames, options={"crf": "12"})
    outcome = build_shards(
        ShardOptions(inputs=[tmp_path / "shaking.mp4"], out=tmp_path / "store", in_process=True, size=None), Silent()
    )
    assert outcome.grades and outcome.to_json()["grades"] == dict(outcome.grades)
    assert outcome.to_json()["masks_from"] == {"background": 1}
    store = open_store(tmp_path / "store")
    assert store.row(0).shots[0].camera == "jitter"
    scores = MaskScores()
    for mask, truth in zip(store.masks(0, 0, 120), scenario.masks, strict=True):
        scores.add(mask, np.where(truth, 255, 0).astype(np.uint8))
    assert scores.f1 > 0.7, scores.f1
    # Backgrounds made before are as good: the canvas is made again.
    bg = tmp_path / "bg"
    extract_backgrounds(
        BackgroundOptions(inputs=[tmp_path / "shaking.mp4"], out=bg, in_process=True, size=None), Silent()
    )
    again = ShardOptions(inputs=[tmp_path / "shaking.mp4"], out=tmp_path / "again", in_process=True)
    build_shards(replace(again, size=None, backgrounds=bg), Silent())
    assert np.array_equal(open_store(tmp_path / "again").masks(0, 0, 120), store.masks(0, 0, 120))
