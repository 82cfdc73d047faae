from __future__ import annotations

import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stores import header_of, payload_of, plan_of, row_of
from worlds import Recorder

from bgaug.errors import BgaugError, CheckpointError, StoreError, UsageError
from bgaug.model.backbones import build_backbone
from bgaug.model.checkpoint import find_checkpoint as last_checkpoint
from bgaug.model.checkpoint import load_checkpoint, load_run
from bgaug.pipelines.train.optimisation import Optimisation
from bgaug.pipelines.train.run import RunResult, TrainOptions, parse_changes, train
from bgaug.progress import Silent
from bgaug.store import ShardWriter, create_store, finish_store, open_store, write_bank

OPTIONS: dict[str, Any] = {
    "backbone": "tiny",
    "batch_size": 3,
    "num_frames": 8,
    "stride": 1,
    "crop": 24,
    "steps": 6,
}


def run(store: Path, out: Path, *, resume: bool = False, stop_after: int | None = None, **options: Any) -> RunResult:
    return train(
        store,
        out,
        Silent(),
        options=TrainOptions(**{**OPTIONS, **options}, resume=resume, stop_after=stop_after, device="cpu", threads=1),
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(last_checkpoint(out))["learner"]
    return state


def lines(out: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "waiting", "memory_mb")} for line in found]


def test_schedule_warms_up_and_ends_at_nothing() -> None:
    plan = Optimisation(total_steps=100, lr=1.0, warmup_steps=10)
    rates = [plan.lr_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == pytest.approx(1.0)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.5) and rates[-1] < 1e-3
    with pytest.raises(ValueError, match="total_steps"):
        Optimisation(0)


@pytest.mark.parametrize(
    ("method", "momentum"),
    [
        ("bgaug", False),
        pytest.param("simclr", False, marks=pytest.mark.full),
        pytest.param("bgaug", True, marks=pytest.mark.full),
        ("moco", True),
    ],
)
def test_stopping_and_resuming_changes_nothing(small_store: Path, tmp_path: Path, method: str, momentum: bool) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = run(small_store, whole, method=method, momentum=momentum)
    assert done.trained.finished and done.trained.steps == 6 and math.isfinite(done.trained.loss)
    first = run(small_store, parts, method=method, momentum=momentum, stop_after=3)  # in the middle of an epoch
    assert not first.trained.finished and first.trained.steps == 3
    run(small_store, parts, method=method, momentum=momentum, resume=True)
    assert lines(parts) == lines(whole)
    one, other = weights(whole), weights(parts)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_bad_shots_are_left_out_and_counted(tmp_path: Path) -> None:
    """By default those of the grade F; every run reports what it leaves out."""
    root = make_graded_store(tmp_path / "s", "AFEF--")
    seen = Recorder()
    options = TrainOptions(**{**OPTIONS, "batch_size": 2, "steps": 1, "crop": 8}, device="cpu")
    found = train(root, tmp_path / "run", seen, options).to_json()["left_out"]
    assert found["videos_by_reason"] == found["shots_by_reason"] == {"grade": 2} and found["of_videos"] == 6
    (warning,) = seen.warnings
    assert warning.startswith(
        "2 of 6 shots (2 of 6 videos) are not trained on: 2 graded worse than E (--min-grade none"
    )
    assert warning.endswith("and so 2 whole videos")
    everything = train(root, tmp_path / "all", seen, replace(options, min_grade="none"))
    assert not everything.left_out.shots and len(seen.warnings) == 1
    config = json.loads((tmp_path / "all/config.json").read_text())["config"]
    assert config["min_grade"] is None  # as before there was a default: such runs are continued with `none`
    assert 'min-grade = "none"' in (tmp_path / "all/config.toml").read_text()
    with pytest.raises(UsageError, match="min-grade.*'A', 'B', 'C', 'D', 'E', 'F' or 'none'"):
        TrainOptions(min_grade="G")  # type: ignore[arg-type]


def make_graded_store(root: Path, grades: str) -> Path:
    """A store of videos of one shot with these grades; "-" for none."""
    header = create_store(root, header_of(), plan_of(len(grades)))
    with ShardWriter(root, header, 0) as writer:
        for number, grade in enumerate(grades):
            row = row_of(number)
            shot = row.shots[0].model_copy(update={"grade": None if grade == "-" else grade})
            writer.add(row.model_copy(update={"shots": [shot]}), payload_of(header, number))
        writer.commit()
    finish_store(root)
    return root


def test_a_run_learns(small_store: Path, tmp_path: Path) -> None:
    run(small_store, tmp_path / "r", method="simclr", steps=40)
    losses = [line["loss"] for line in lines(tmp_path / "r")]
    assert sum(losses[-8:]) < sum(losses[:8])


def test_log_lines_behind_the_checkpoint_are_dropped(small_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    run(small_store, out, stop_after=4)
    (out / "checkpoints" / "step-00000004.pt").unlink()  # as if killed between epoch end and stop
    run(small_store, out, resume=True)
    assert [line["step"] for line in lines(out)] == [1, 2, 3, 4, 5, 6]


def test_only_the_last_checkpoints_are_kept_and_are_plain(small_store: Path, tmp_path: Path) -> None:
    result = run(small_store, tmp_path / "r", steps=8)
    kept = sorted(path.name for path in (tmp_path / "r" / "checkpoints").iterdir())
    assert kept == ["step-00000006.pt", "step-00000008.pt"]
    assert result.trained.checkpoint.is_absolute()
    assert torch.load(result.trained.checkpoint, weights_only=True)["step"] == 8
    assert set(result.to_json()) >= {"steps", "loss", "clips_per_second", "checkpoint"}


def test_a_run_is_not_overwritten_unasked(small_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    run(small_store, out, stop_after=1)
    with pytest.raises(CheckpointError, match="--resume to continue"):
        run(small_store, out)
    with pytest.raises(CheckpointError, match="seed: 0 there, 1 now"):
        run(small_store, out, resume=True, seed=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="is not the folder of a run"):
        run(small_store, tmp_path / "other")


def test_the_learner_of_a_run_is_loaded(small_store: Path, tmp_path: Path) -> None:
    run(small_store, tmp_path / "r", stop_after=1)
    loaded = load_run(tmp_path / "r", device="cpu")
    learner, config = loaded.learner, loaded.config
    assert config["crop"] == 24 and not learner.training
    clips = torch.rand(2, 3, 8, 24, 24)
    assert learner.features(clips).shape == (2, 96)
    assert learner.features(clips, "static").shape == (2, 96)


def test_checkpoints_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        last_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="is it whole"):
        load_checkpoint(tmp_path / "x.pt")
    torch.save({"weights": 1}, tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match="not a bgaug checkpoint"):
        load_checkpoint(tmp_path / "y.pt")
    torch.save({"format": "bgaug-checkpoint", "version": 9}, tmp_path / "z.pt")
    with pytest.raises(CheckpointError, match="version 9"):
        load_checkpoint(tmp_path / "z.pt")


def test_a_loss_that_is_not_finite_stops_the_run(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bgaug.model import ContrastiveLearner

    def diverged(self: ContrastiveLearner, pairs: object) -> dict[str, torch.Tensor]:
        return {"loss": sum(p.sum() for p in self.encoder.parameters()) * torch.tensor(math.nan)}

    monkeypatch.setattr(ContrastiveLearner, "forward", diverged)
    with pytest.raises(BgaugError, match="loss of step 1 is nan"):
        run(small_store, tmp_path / "r")


@pytest.mark.parametrize(("option", "value"), [("method", "magic"), ("backbone", "resnet5000")])
def test_unknown_names_are_refused_with_the_known_ones(
    small_store: Path, tmp_path: Path, option: str, value: str
) -> None:
    with pytest.raises(UsageError, match=f"{value}.*there are"):
        run(small_store, tmp_path / "r", resume=False, stop_after=None, **{option: value})
    assert not (tmp_path / "r").exists()


def test_a_method_is_changed_by_name(small_store: Path, tmp_path: Path) -> None:
    changes = parse_changes(["donor=frame", "w-static=0", "stages=stage3, stage4", 'blend=["uniform", 0, 0.5]'])
    assert changes == {"donor": "frame", "w_static": 0, "stages": ["stage3", "stage4"], "blend": ["uniform", 0, 0.5]}
    result = run(small_store, tmp_path / "r", change=changes, stop_after=1)
    learner = load_run(result.out, device="cpu").learner
    method = learner.method
    assert method.compose.donor == "frame" and method.w_static == 0 and method.stages == ("stage3", "stage4")
    assert set(lines(result.out)[0]) >= {"global", "dynamic"} and "static" not in lines(result.out)[0]
    assert run(small_store, tmp_path / "r", change=changes, resume=True).trained.finished
    for wrong in ("donor", "=frame", "gamma=0"):
        with pytest.raises(UsageError, match="NAME=VALUE"):
            parse_changes(["gamma=1", wrong])
    with pytest.raises(UsageError, match="no field colour; a method has .*gamma.*its pairs have .*donor"):
        run(small_store, tmp_path / "x", change={"colour": 1})
    with pytest.raises(UsageError, match="donor must be one of"):
        run(small_store, tmp_path / "x", change={"donor": "moon"})
    assert not (tmp_path / "x").exists()


def test_donors_from_a_bank_of_the_store(small_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    pictures = np.full((3, *open_store(store).size, 3), 9, np.uint8)
    write_bank(store, "places", ((f"{i}.png", picture) for i, picture in enumerate(pictures)))
    options: dict[str, Any] = {"method": "semi", "change": {"donor": "bank"}}
    assert run(store, tmp_path / "r", bank="places", stop_after=1, **options).trained.steps == 1
    with pytest.raises(UsageError, match="need --bank NAME"):
        run(store, tmp_path / "x", **options)
    with pytest.raises(StoreError, match="no bank of images 'elsewhere'"):
        run(store, tmp_path / "x", bank="elsewhere", **options)
    with pytest.raises(UsageError, match="is not used by 'semi'"):
        run(store, tmp_path / "x", bank="places", method="semi")


@pytest.mark.parametrize(
    "method",
    ["byol", "dclr", pytest.param("fame", marks=pytest.mark.full), pytest.param("be", marks=pytest.mark.full)],
)
def test_rivals_resume_exactly(small_store: Path, tmp_path: Path, method: str) -> None:
    whole = run(small_store, tmp_path / "whole", method=method, momentum=None, steps=4)
    run(small_store, tmp_path / "parts", method=method, momentum=None, steps=4, stop_after=2)
    run(small_store, tmp_path / "parts", method=method, momentum=None, steps=4, resume=True)
    assert whole.trained.finished
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_training_begins_with_published_weights(small_store: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    given = build_backbone("r3d18", temporal_padding="zeros").state_dict()
    torch.save(given | {"fc.weight": torch.zeros(400, 512), "fc.bias": torch.zeros(400)}, tmp_path / "r3d_18.pth")
    options: dict[str, Any] = {"backbone": "r3d18", "num_frames": 12, "crop": 16, "method": "simclr", "lr": 1e-12}
    path = str(tmp_path / "r3d_18.pth")
    run(small_store, tmp_path / "r", weights=path, stop_after=1, **options)
    loaded = load_run(tmp_path / "r", device="cpu")
    learner, config = loaded.learner, loaded.config
    assert config["weights"] == path and getattr(learner.encoder.backbone, "temporal_reach", None)
    ours = learner.encoder.backbone.state_dict()
    torch.testing.assert_close(ours["layer1.0.conv1.0.weight"], given["layer1.0.conv1.0.weight"])
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(UsageError, match="cannot be read as weights"):
        run(small_store, tmp_path / "x", weights=str(tmp_path / "bad.pth"), **options)
    torch.save({"conv": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="weights do not fit ResNet18"):
        run(small_store, tmp_path / "x", weights=str(tmp_path / "other.pth"), **options)
    assert not (tmp_path / "x").exists()
