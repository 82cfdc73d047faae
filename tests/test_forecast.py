from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import Recorder, moving_square

from bgaug.errors import UsageError
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards, forecast_shards
from bgaug.progress import Silent
from bgaug.video import write_video

OPTIONS = VideoOptions(method="median", shots=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Videos of quite different lengths."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(12):
        write_video(videos / f"{number}.mp4", moving_square(number, 10 + 12 * number)[0])
    return videos


def test_a_pilot_predicts_what_the_build_will_take(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", time.process_time)  # whatever else the processors do
    setup = ShardOptions(inputs=[folder], out=tmp_path / "s", in_process=True)
    expected = forecast_shards(replace(setup, video=OPTIONS, size=None), Silent())
    assert not (tmp_path / "s").exists()
    assert (expected.videos, expected.pilot, expected.failed) == (12, 4, 0)
    outcome = build_shards(replace(setup, video=OPTIONS, size=None), Silent())
    assert set(expected.bytes_by_array) == set(outcome.bytes_by_array)
    for name in ("frames", "masks", "backgrounds"):
        assert expected.bytes_by_array[name] == pytest.approx(outcome.bytes_by_array[name], rel=0.35), name
    assert expected.to_json()["bytes"] == pytest.approx(outcome.bytes, rel=0.25)
    assert expected.spread is not None and 0 <= expected.spread < 0.5
    assert 0.2 < expected.seconds / outcome.seconds < 5  # seconds are noisy


def test_what_an_outcome_reports_of_space(folder: Path, tmp_path: Path) -> None:
    outcome = build_shards(
        ShardOptions(inputs=[folder], out=tmp_path / "s", in_process=True, video=OPTIONS, size=None), Silent()
    )
    record = outcome.to_json()
    files = [path for path in (tmp_path / "s" / "shards").rglob("*") if path.is_file() and path.name != "COMMIT.json"]
    assert record["bytes"] == sum(path.stat().st_size for path in files)
    frames = sum(path.stat().st_size for path in files if "frames" in path.parts)
    assert record["bytes_per_video"]["frames"] == round(frames / 12)
    assert {"frames", "masks", "backgrounds", "noise", "valid", "pts_seconds", "metadata"} <= record[
        "bytes_per_video"
    ].keys()


def test_a_pilot_of_bad_videos_is_reported(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(3):
        (tmp_path / "videos" / f"{number}.mp4").write_text("no video")
    progress = Recorder()
    with pytest.raises(UsageError, match="none of the 3 videos of the pilot could be used"):
        forecast_shards(
            ShardOptions(inputs=[tmp_path / "videos"], out=tmp_path / "s", in_process=True, size=(32, 32)), progress
        )
    assert len(progress.warnings) == 3
