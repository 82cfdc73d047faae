from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from faults import contents

from bgaug.errors import CheckpointError
from bgaug.pipelines.train.run import TrainOptions, train
from bgaug.pipelines.train.run_folder import only_run
from bgaug.progress import Silent

OPTIONS = TrainOptions(device="cpu", threads=1, backbone="tiny", steps=1, num_frames=4, stride=1, batch_size=2)


def test_a_run_that_is_under_way_is_neither_cleared_nor_resumed(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgaug.store.lock.PATIENCE_SECONDS", 0.1)
    out = tmp_path / "run"
    train(small_store, out, Silent(), options=OPTIONS)
    before = contents(out)
    assert not [name for name in before if name.startswith(".")]
    with only_run(out):
        held = contents(out)
        for how in (replace(OPTIONS, overwrite=True), replace(OPTIONS, resume=True)):
            with pytest.raises(CheckpointError, match=f"is being written by process {os.getpid()} on .* since "):
                train(small_store, out, Silent(), options=how)
        assert contents(out) == held
    assert contents(out) == before


def test_a_killed_run_holds_nothing_and_leaves_no_folder_behind(small_store: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".bgaug-run.lock").write_text("process 7 on another-host")
    train(small_store, tmp_path / "run", Silent(), options=OPTIONS)
    with only_run(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
