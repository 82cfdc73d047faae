from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from worlds import Recorder

from bgaug.pipelines.demo import DemoOptions, demo, write_world
from bgaug.pipelines.progress import Silent
from bgaug.synthetic import ACTIONS, make_split
from bgaug.video import read_video


def test_the_world_is_written_as_it_was_generated(tmp_path: Path) -> None:
    folder = write_world(tmp_path / "videos", 16, Silent(), jobs=1)
    split = make_split("pretrain", stop=16)
    for number in range(16):
        (path,) = folder.rglob(f"{number:05d}.mp4")
        assert path.parent.name == ACTIONS[split.labels[number]]
        frames = read_video(path).frames
        assert frames.shape == (12, 40, 40, 3)
        assert np.abs(frames.astype(int) - split.frames[number]).mean() < 4  # stripes and hues survive the codec
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
    write_world(tmp_path / "videos", 16, Silent(), jobs=1)
    assert written == {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
    write_world(tmp_path / "videos", 8, Silent(), jobs=1)
    assert len(list(folder.rglob("*.mp4"))) == 8


def test_a_second_run_goes_on_and_another_size_begins_anew(tmp_path: Path) -> None:
    small = DemoOptions(videos=16, probe=16, tests=8, steps=1)
    first = demo(tmp_path, Silent(), options=small, jobs=1)
    assert first.backgrounds.built == first.shards.built == 16
    second = demo(tmp_path, Silent(), options=small, jobs=1)
    assert second.backgrounds.built == second.shards.built == 0 and second.accuracies == first.accuracies
    third = demo(tmp_path, Recorder(), options=DemoOptions(videos=24, probe=16, tests=8, steps=1), jobs=1)
    assert third.shards.to_json()["videos"] == 24
    again = demo(tmp_path, Silent(), options=DemoOptions(videos=24, probe=16, tests=8, steps=2), jobs=1, overwrite=True)
    assert again.steps == 2 and again.shards.built == 12


@pytest.mark.full
def test_the_demo_shows_what_it_claims(tmp_path: Path) -> None:
    """Minutes. Differences with a margin, never exact accuracies: the spread over seeds is about 7 points."""
    begun = time.monotonic()
    found = demo(tmp_path, Silent()).accuracies
    assert found["bgaug"]["swap"] >= found["simclr"]["swap"] + 15
    assert found["bgaug"]["bgonly"] <= 35 < found["untrained"]["bgonly"]
    assert found["bgaug"]["iid"] >= found["simclr"]["iid"] - 15
    assert time.monotonic() - begun < 480
