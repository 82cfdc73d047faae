from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner
from worlds import Recorder

from bgaug.cli.main import app
from bgaug.pipelines.demo.run import DemoOptions, demo
from bgaug.progress import Silent


def test_a_second_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = DemoOptions(videos=16, probe=16, tests=8, steps=1)
    monkeypatch.setattr(DemoOptions, "quick", classmethod(lambda cls: small))
    done = CliRunner().invoke(app, ["demo", "--quick", "--out", str(tmp_path), "--jobs", "1", "--json"])
    assert done.exit_code == 0, done.output
    first = json.loads(done.stdout.splitlines()[-1])
    assert (first["videos"], first["failed"]) == (16, 0) and Path(first["sheet"]).is_file()
    assert set(first["accuracies"]) == {"untrained", "simclr", "bgaug"}
    assert all(0 <= value <= 100 for row in first["accuracies"].values() for value in row.values())
    second = demo(tmp_path, Silent(), options=small, jobs=1)
    assert second.backgrounds.built == second.shards.built == 0 and second.accuracies == first["accuracies"]


@pytest.mark.full
def test_another_size_and_an_overwritten_demo_start_again(tmp_path: Path) -> None:
    options = DemoOptions(videos=24, probe=16, tests=8, steps=1)
    demo(tmp_path, Silent(), options=replace(options, videos=16), jobs=1)
    other = demo(tmp_path, Recorder(), options=options, jobs=1)
    assert other.shards.to_json()["videos"] == 24 and other.steps == 1
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
