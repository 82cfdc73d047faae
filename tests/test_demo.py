from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import Recorder

from bgaug.pipelines.demo.run import DemoOptions, demo
from bgaug.progress import Silent


def test_a_second_run_goes_on_and_another_size_begins_anew(tmp_path: Path) -> None:
    small = DemoOptions(videos=16, probe=16, tests=8, steps=1)
    first = demo(tmp_path, Silent(), options=small, jobs=1)
    assert first.backgrounds.built == first.shards.built == 16
    second = demo(tmp_path, Silent(), options=small, jobs=1)
    assert second.backgrounds.built == second.shards.built == 0 and second.accuracies == first.accuracies
    third = demo(tmp_path, Recorder(), options=DemoOptions(videos=24, probe=16, tests=8, steps=1), jobs=1)
    assert third.shards.to_json()["videos"] == 24


@pytest.mark.full
def test_an_overwritten_demo_begins_anew(tmp_path: Path) -> None:
    options = DemoOptions(videos=24, probe=16, tests=8, steps=1)
    assert demo(tmp_path, Silent(), options=options, jobs=1).steps == 1
    again = demo(tmp_path, Silent(), options=replace(options, steps=2), jobs=1, overwrite=True)
    assert again.steps == 2 and again.shards.built == 12


@pytest.mark.full
def test_the_demo_shows_what_it_claims(tmp_path: Path) -> None:
    """Minutes. Differences with a margin, never exact accuracies: the spread over seeds is about 7 points."""
    begun = os.times()
    found = demo(tmp_path, Silent()).accuracies
    assert found["bgaug"]["swap"] >= found["simclr"]["swap"] + 15
    assert found["bgaug"]["bgonly"] <= 35 < found["untrained"]["bgonly"]
    assert found["bgaug"]["iid"] >= found["simclr"]["iid"] - 15
    ended = os.times()
    spent = ended.user - begun.user + ended.children_user - begun.children_user
    assert spent < 2 * 480  # of two processors
