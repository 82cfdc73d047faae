"""Fine-tuning learns, is deterministic to the bit, and does not change the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_pretrained import write_run

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.errors import BgaugError, UsageError
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import Run, load_run
from bgaug.pairs import Augmentation, centre_crop
from bgaug.pipelines.evaluate import fine_tuning as room
from bgaug.pipelines.evaluate.fine_tuning import (
    Finetuned,
    augmentation,
    finetune,
    finetune_settings,
)
from bgaug.pipelines.evaluate.options import FinetuneOptions
from bgaug.progress import Silent
from bgaug.store import Store, open_store

EVERYBODY, LABELS = np.arange(6), np.array([3, 5, 3, 5, 9, 9])  # numbers with gaps


@pytest.fixture(scope="module")
def store(small_store: Path) -> Store:
    return open_store(small_store)


def made_run(folder: Path, seed: int = 0, **config: Any) -> Run:
    torch.manual_seed(seed)
    write_run(folder, ContrastiveLearner("tiny", "dual"), config={"num_frames": 4, "stride": 2, **config})
    return load_run(folder, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made_run(tmp_path_factory.mktemp("run"))


def tuned(run: Run, store: Store, epochs: int = 2, threads: int = 0, scratch: bool = False, **more: Any) -> Finetuned:
    options = FinetuneOptions(epochs=epochs, batch_size=4, **more)
    return finetune(run, store, EVERYBODY, LABELS, Silent(), options=options, from_scratch=scratch, threads=threads)


def weights(found: Finetuned) -> list[torch.Tensor]:
    return list(found.model.state_dict().values())


def same(one: Finetuned, other: Finetuned) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_it_learns_what_it_is_shown(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without augmentation the six scenes are distinguishable, whatever their labels.
    still = Augmentation(size=32, scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grey=0, blur=0)
    monkeypatch.setattr(room, "augmentation", lambda *_: still)
    options = FinetuneOptions(epochs=30, batch_size=3, dropout=0.0)
    found = finetune(run, store, EVERYBODY, LABELS, Silent(), options=options)
    assert found.classes.tolist() == [3, 5, 9] and not found.model.training
    assert found.predict(store, EVERYBODY, Silent(), clips=2).tolist() == LABELS.tolist()
    # In another order, and only some.
    assert found.predict(store, np.array([1, 4]), Silent(), clips=2).tolist() == [5, 9]


def test_it_repeats_itself_to_the_bit(run: Run, store: Store) -> None:
    first = tuned(run, store)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert same(first, tuned(run, store, threads=3))
    assert torch.equal(before, torch.get_rng_state())
    assert not same(first, tuned(run, store, seed=1))


def test_it_begins_with_the_run_and_does_not_change_it(run: Run, store: Store) -> None:
    before = {name: value.clone() for name, value in run.learner.state_dict().items()}
    slow = tuned(run, store, epochs=1, lr=1e-12, weight_decay=0.0)
    assert all(torch.equal(value, before[name]) for name, value in run.learner.state_dict().items())
    assert not run.learner.training
    for name, value in slow.model.encoder.backbone.named_parameters():
        torch.testing.assert_close(value, before[f"encoder.backbone.{name}"], atol=1e-6, rtol=0)
    moved = tuned(run, store, lr=1e-2)
    changed = [
        not torch.equal(v, before[f"encoder.backbone.{n}"]) for n, v in moved.model.encoder.backbone.named_parameters()
    ]
    assert all(changed)  # encoder and head


def test_from_scratch_does_not_use_the_weights_of_the_run(run: Run, store: Store, tmp_path: Path) -> None:
    other = made_run(tmp_path, seed=5)
    assert same(tuned(run, store, scratch=True), tuned(other, store, scratch=True))
    assert not same(tuned(run, store), tuned(other, store))


def test_logits_are_means_over_centre_crops(run: Run, store: Store) -> None:
    found = tuned(run, store)
    logits = found.logits(store, EVERYBODY, Silent(), clips=3, batch_size=4)
    dataset = ClipDataset(store, ClipOptions(4, 2, views=3, sampling="uniform"), backgrounds=False)
    batch = ClipDataset.collate(dataset.__getitems__(range(6)))
    with torch.no_grad():
        for place in range(6):
            crops = centre_crop(batch.frames[place], batch.box[place].expand(3, 4), 32)
            each = torch.cat([found.model.logits(crop[None]) for crop in crops])
            np.testing.assert_allclose(logits[place], each.mean(0).numpy(), atol=1e-5)
    np.testing.assert_allclose(found.logits(store, EVERYBODY, Silent(), clips=3, batch_size=1), logits, atol=1e-5)


def test_the_head_reads_the_mean_of_the_last_stage(run: Run) -> None:
    torch.manual_seed(0)
    model = ContrastiveLearner(run.learner.encoder.backbone, "supervised", classes=3).eval()
    clips, head = torch.rand(2, 3, 4, 32, 32), model.encoder.heads["global"][1]  # type: ignore[index]
    with torch.no_grad():
        expected = run.learner.features(clips, "global") @ head.weight.T + head.bias
        torch.testing.assert_close(model.logits(clips), expected, atol=1e-5, rtol=0)


def test_the_augmentation_is_that_of_the_run(run: Run) -> None:
    assert augmentation(run.config) == Augmentation.tiny(32)
    assert augmentation({**run.config, "flip": 0.25}).flip == 0.25
    assert augmentation({**run.config, "backbone": "r3d18"}) == Augmentation.standard(32)
    assert augmentation({**run.config, "flip": 0.25}, 1.0).flip == 1.0


def test_nothing_is_left_to_default_in_the_settings(run: Run) -> None:
    settings = finetune_settings(FinetuneOptions(), run.config)
    assert (settings["optimiser"], settings["lr"], settings["flip"]) == ("adamw", 2e-3, 0.0)
    large = finetune_settings(FinetuneOptions(batch_size=64), {"backbone": "r3d18", "crop": 112})
    assert (large["optimiser"], large["lr"], large["flip"]) == ("sgd", 0.02, 0.5)
    assert finetune_settings(FinetuneOptions(lr=0.3, optimiser="sgd"), run.config)["lr"] == 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "--epochs: Input should be greater"),
        ({"batch_size": 1}, "--finetune-batch-size: Input should be greater"),
        ({"folds": 1}, "--folds: Input should be greater"),
        ({"optimiser": "lars"}, "--optimiser: Input should be 'sgd' or 'adamw', got 'lars'"),
        ({"lr": 0.0}, "--lr: Input should be greater than 0"),
        ({"dropout": 1.0}, "--dropout: Input should be less than 1, got 1.0"),
        ({"flip": 2.0}, "--flip: Input should be less than or equal to 1"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FinetuneOptions(**options)


def test_too_few_classes_are_an_error(run: Run, store: Store) -> None:
    with pytest.raises(UsageError, match="training videos of two classes or more, got 1"):
        finetune(run, store, EVERYBODY, np.zeros(6, np.int64), Silent())
    with pytest.raises(BgaugError, match=r"fine-tuning diverged at step \d+ of 6: the loss is (nan|inf); use a lower"):
        tuned(run, store, epochs=6, lr=1e30, optimiser="sgd", warmup=0.0)
