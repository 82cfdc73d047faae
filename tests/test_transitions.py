"""Dissolves and fades through the commands: shots, stores, long videos, training, evaluation, inspection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import header_of, make_row, payload_of, plan_of
from test_dataset import drawn
from test_gradual import dissolved, faded
from test_long_video import make_shards_small
from test_process_video import mover_over, setup, textured
from typer.testing import CliRunner

from bgaug.background import ShotSampler
from bgaug.cli.main import app
from bgaug.data.clips import evaluated_shot
from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.pipelines.build.options import VideoOptions
from bgaug.pipelines.build.process_video import process_video
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.evaluate.file_clips import FileClips, ReadClips
from bgaug.progress import Silent
from bgaug.shots.boundaries import MAX_HELD, REASONS
from bgaug.shots.shot import Shot
from bgaug.store import ShardWriter, create_store, finish_store, open_store, verify_store
from bgaug.store import Shot as ShotRow
from bgaug.video import DecodedFrame, open_video, write_video

DISSOLVE, FADE = REASONS["dissolve"], REASONS["fade"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "videos"
    found.mkdir()
    return found


def two_shots(length: int) -> np.ndarray:
    """Fifty frames of either shot around a dissolve of `length`."""
    return dissolved(mover_over(textured(1), 50 + length), mover_over(textured(2), 50 + length), length)


@pytest.mark.parametrize("length", [12, 40])
def test_a_transition_is_a_shot_of_its_own(folder: Path, tmp_path: Path, length: int) -> None:
    """Shorter and longer than a second."""
    write_video(folder / "x.mp4", two_shots(length))
    outcome = build_shards(replace(setup(folder, tmp_path / "s"), size=None), Silent()).to_json()
    store = open_store(tmp_path / "s")
    first, between, last = store.row(0).shots
    assert (first.start, last.stop) == (0, 100 + length) and (first.stop, between.stop) == (between.start, last.start)
    assert abs(between.start - 50) <= 4 and abs(between.stop - 50 - length) <= 4
    assert (between.background, between.camera, between.grade, between.reasons) == (-1, "unknown", None, [DISSOLVE])
    assert first.grade and last.grade and DISSOLVE not in first.reasons + last.reasons
    assert (outcome["ok"], outcome["transitions"], outcome["short_shots"]) == (1, 1, 0)
    for shot, seed in ((0, 1), (2, 2)):  # the other shot has left nothing in the backgrounds
        assert np.abs(store.background(0, shot).image.astype(int) - textured(seed)).mean() < 3
    assert not verify_store(tmp_path / "s", deep=True).problems


def test_frames_of_transitions_are_not_trained_on(folder: Path, tmp_path: Path) -> None:
    frames = two_shots(40)
    write_video(folder / "x.mp4", frames)
    build_shards(replace(setup(folder, tmp_path / "s"), size=None), Silent())
    store = open_store(tmp_path / "s")
    _, between, _ = store.shots(0).tolist()
    dataset = ClipDataset(store, ClipOptions(4, 1))
    assert {shot for shot, _ in drawn(dataset, 0, 100)} == {0, 2}
    assert between[1] - between[0] > 25
    assert len(ClipDataset(store, ClipOptions(4, 1), min_grade="F")) == 1  # a transition has no grade to be worse
    assert dataset.left_out.shots == {"fragments": 1} and not dataset.left_out.videos


def test_a_transition_is_never_the_shot_that_is_evaluated(tmp_path: Path) -> None:
    """However long it is; where there is nothing else, it is."""
    fade, short = {"background": -1, "reasons": [FADE]}, {"background": -1}
    videos: list[list[tuple[int, dict[str, Any]]]] = [
        [(26, {"background": 0, "grade": "A"}), (40, fade), (30, {"background": 1, "grade": "B"})],
        [(3, short), (12, fade), (4, short), (2, fade)],
        [(12, {"background": -1, "reasons": ["the camera moves"], "grade": "F"}), (4, {"background": 0})],
        [(2, fade), (3, fade)],
    ]
    header = create_store(tmp_path / "s", header_of(), plan_of(len(videos)))
    with ShardWriter(tmp_path / "s", header, 0) as writer:
        for number, made in enumerate(videos):
            ends = np.cumsum([0, *(length for length, _ in made)]).tolist()
            shots = [
                ShotRow(start=a, stop=b, **fields) for (a, b), (_, fields) in zip(pairwise(ends), made, strict=True)
            ]
            backgrounds = sum(shot.background >= 0 for shot in shots)
            writer.add(make_row(f"{number}.mp4", ends[-1], shots), payload_of(header, number, ends[-1], backgrounds))
        writer.commit()
    finish_store(tmp_path / "s")
    store = open_store(tmp_path / "s")
    assert [evaluated_shot(store, video) for video in range(4)] == [2, 2, 0, 1]
    assert [evaluated_shot(store, video, store.shots(video)[:, 2] >= 0) for video in range(4)] == [2, None, 1, None]
    every = ClipDataset(store, ClipOptions(2, 1, sampling="uniform"), backgrounds=False)
    assert [int(every[video].shot) for video in range(4)] == [2, 2, 0, 1]


def test_a_video_that_fades_in_and_out(folder: Path, tmp_path: Path) -> None:
    black = np.zeros((1, 120, 160, 3), np.uint8).repeat(16, 0)
    whole = faded(faded(black, mover_over(textured(3), 70), 12, 0), black, 12, 0)
    write_video(folder / "x.mp4", whole)
    outcome = build_shards(replace(setup(folder, tmp_path / "s"), size=None), Silent()).to_json()
    shots = open_store(tmp_path / "s").row(0).shots
    assert [shot.reasons == [FADE] for shot in shots] == [True, False, True]
    assert (shots[0].start, shots[2].stop) == (0, len(whole)) and outcome["transitions"] == 2
    assert shots[1].grade is not None


def test_a_video_cut_off_within_a_fade_is_salvaged(folder: Path, tmp_path: Path) -> None:
    flat = np.zeros((40, 120, 160, 3), np.uint8)
    frames = faded(mover_over(textured(4), 60), flat, 12, 0)
    options = {"g": "1", "b": "4M"}
    write_video(folder / "x.avi", frames, codec="mpeg4", pixel_format="yuv420p", options=options)
    data = (folder / "x.avi").read_bytes()
    (folder / "x.avi").write_bytes(data[: data.rindex(b"idx1") - 2000])
    salvage = VideoOptions(on_error="salvage")
    build_shards(replace(setup(folder, tmp_path / "s"), size=None, video=salvage), Silent())
    row = open_store(tmp_path / "s").row(0)
    assert row.status == "partial" and row.shots[-1].reasons == [FADE] and row.shots[-1].stop == row.num_frames


def test_a_long_video_of_several_shards(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts, the shots are those of the same video in one piece."""
    first = dissolved(mover_over(textured(5), 110), mover_over(textured(6), 120), 20)
    write_video(folder / "x.mp4", dissolved(first, mover_over(textured(7), 110), 20))
    build_shards(replace(setup(folder, tmp_path / "one"), size=None), Silent())
    make_shards_small(monkeypatch)
    outcome = build_shards(replace(setup(folder, tmp_path / "parts"), size=None), Silent())
    one, parts = open_store(tmp_path / "one"), open_store(tmp_path / "parts")
    assert outcome.shards > 1 and not verify_store(tmp_path / "parts", deep=True).problems
    edges = {int(edge) for edge in one.shots(0)[:, :2].ravel()}
    assert len(one.shots(0)) == 5 and edges <= {int(edge) for edge in parts.shots(0)[:, :2].ravel()}
    assert np.array_equal(one.masks(0, 0, 80), parts.masks(0, 0, 80))


def test_few_frames_are_held_back(folder: Path) -> None:
    """A frame is passed on at most `MAX_HELD` frames after it was decoded, in dissolves and in fades too."""
    frames = faded(two_shots(30), mover_over(textured(3), 60), 15)
    write_video(folder / "x.mp4", frames)
    delays: list[int] = []
    with open_video(folder / "x.mp4") as reader:
        scan = reader.scan
        decoded = [0]

        def counted() -> Iterator[DecodedFrame]:
            for frame in scan():
                decoded[0] += 1
                yield frame

        reader.scan = counted  # type: ignore[method-assign]

        def on_frame(frame: DecodedFrame) -> None:
            delays.append(decoded[0] - frame.index)

        shots = process_video(reader, VideoOptions(method="median"), on_frame).shots
    assert [shot.reasons for shot in shots][1::2] == [(DISSOLVE,), (FADE,)]
    assert len(delays) == len(frames) and max(delays) <= MAX_HELD + 1


def test_shots_are_evaluated_without_transitions(folder: Path) -> None:
    write_video(folder / "x.mp4", dissolved(mover_over(textured(1), 45), mover_over(textured(2), 90), 30))
    clips = ReadClips(folder / "x.mp4", 4, 2, 3)(lambda place: None)
    assert isinstance(clips, FileClips)
    assert clips.indices.min() >= 42 and clips.indices.max() < 105


def test_inspection_lists_transitions(folder: Path) -> None:
    write_video(folder / "x.mp4", np.concatenate([two_shots(12), mover_over(textured(8), 20)]))
    result = CliRunner().invoke(app, ["inspect", str(folder), "--deep", "--json"])
    (video,) = json.loads(result.stdout.splitlines()[-1])["videos"]
    ((start, stop, kind),) = video["transitions"]
    assert video["cuts"] == [112] and kind == "dissolve" and abs(start - 50) <= 2 and abs(stop - 62) <= 2
    shown = CliRunner().invoke(app, ["inspect", str(folder), "--deep"], env={"COLUMNS": "240"}).stdout
    assert f"dissolve {start}-{stop - 1}, 112" in shown


def test_a_sampler_forgets_the_frames_after_the_end() -> None:
    """As if they had never come, except that samples may be farther apart."""
    frames = np.random.default_rng(0).integers(0, 255, (90, 12, 16, 3), dtype=np.uint8)

    def sampled(count: int, expected: int) -> ShotSampler:
        sampler = ShotSampler((12, 16), num_samples=20, expected_frames=expected)
        for index in range(count):
            if sampler.wants(index):
                sampler.add(index, partial(frames.__getitem__, index))
        return sampler

    for stop, expected in ((1, 0), (2, 0), (33, 0), (34, 1000), (35, 0)):
        ended, short = sampled(stop + 4, expected), sampled(stop, expected)
        ended.end_at(stop)
        mine, other = ended.shot(), short.shot()
        assert mine.num_frames == stop and np.array_equal(mine.indices, other.indices)
        assert np.array_equal(mine.stack, other.stack) and np.array_equal(mine.noise, other.noise)
        assert np.array_equal(mine.change_stack, other.change_stack)
    late = sampled(90, 0)
    late.end_at(30)  # every fourth frame is left
    indices = late.shot().indices.tolist()
    assert set(indices) <= set(range(0, 30, 4)) and len(indices) >= 7 and late.num_frames == 30


def test_a_shot_has_no_reason_of_its_own() -> None:
    assert Shot(0, 10).reasons == ()
