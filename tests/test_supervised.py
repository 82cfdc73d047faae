"""Supervised training: losses in closed form, composites that keep their label, exact resuming, and what it learns."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_trainer import lines, weights
from torch import Tensor, nn
from worlds import Recorder, moving_square

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.errors import CheckpointError, UsageError
from bgaug.model import METHODS, ContrastiveLearner, Method
from bgaug.model.checkpoint import find_checkpoint, load_checkpoint, load_run
from bgaug.model.supervised import cross_entropy, gradient_penalty, prediction_entropy
from bgaug.pairs import Augmentation, Pairs, SemiNegativePairs
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.train.run import RunResult, TrainOptions, train
from bgaug.progress import Progress, Silent
from bgaug.store import open_store
from bgaug.video import write_video

SMALL: dict[str, Any] = {
    "backbone": "tiny",
    "batch_size": 4,
    "num_frames": 8,
    "stride": 1,
    "crop": 32,
    "steps": 6,
    "flip": 0.0,
    "device": "cpu",
    "threads": 0,
}
CLASSES = ("across", "down")


def build(folder: Path, rows: list[tuple[str, str]]) -> Path:
    """A store of videos in which a square moves across or down, with a class and a split for each; "" for none."""
    (folder / "videos").mkdir()
    table = ["file,class,split"]
    for number, (name, split) in enumerate(rows):
        frames = moving_square(number, 24, 48, 48)[0]
        down = name == "down" or (not name and number % 2)
        write_video(
            folder / "videos" / f"{number}.mp4", np.ascontiguousarray(frames.transpose(0, 2, 1, 3)) if down else frames
        )
        if name:
            table.append(f"{number}.mp4,{name},{split}")
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    labels = folder / "labels.csv" if len(table) > 1 else None
    options = ShardOptions(inputs=[folder / "videos"], out=folder / "shards", in_process=True, size=None, labels=labels)
    build_shards(options, Silent())
    return folder / "shards"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos to learn from, four that are held out, one without a label."""
    splits = ["train"] * 12 + ["val"] * 4
    rows = [(CLASSES[number % 2], split) for number, split in enumerate(splits)]
    return build(tmp_path_factory.mktemp("world"), [*rows, ("", "")])


def run(store: Path, out: Path, progress: Progress | None = None, **options: Any) -> RunResult:
    return train(store, out, progress or Silent(), TrainOptions(**{"method": "supervised", **SMALL, **options}))


# --- losses -----------------------------------------------------------------------------------------------------------


def slow_softmax(row: Tensor) -> list[float]:
    shares = [math.exp(value) for value in row.tolist()]
    return [share / sum(shares) for share in shares]


def test_losses_against_a_plain_loop() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    label, weight = torch.tensor([0, 2, 1, -1, 2]), torch.tensor([1.0, 0.5, 0.0, 1.0, 2.0])
    shares = [slow_softmax(row) for row in logits]
    known = [row for row in range(5) if label[row] >= 0]
    right = sum(-float(weight[row]) * math.log(shares[row][label[row]]) for row in known)
    assert cross_entropy(logits, label, weight).item() == pytest.approx(
        right / sum(float(weight[row]) for row in known), rel=1e-5
    )
    spread = [-sum(share * math.log(share) for share in row) for row in shares]
    mean = sum(float(w) * value for w, value in zip(weight, spread, strict=True)) / float(weight.sum())
    assert prediction_entropy(logits, weight).item() == pytest.approx(mean, rel=1e-5)


def test_equal_logits_give_the_logarithm_of_the_classes() -> None:
    logits, ones = torch.zeros(4, 7), torch.ones(4)
    assert cross_entropy(logits, torch.arange(4), ones).item() == pytest.approx(math.log(7))
    assert prediction_entropy(logits, ones).item() == pytest.approx(math.log(7))
    certain = torch.tensor([[0.0, 500.0]])
    assert prediction_entropy(certain, ones[:1]).item() == 0
    assert cross_entropy(logits, torch.full((4,), -1), ones).item() == 0  # nothing is labelled


def test_the_penalty_of_a_linear_classifier_is_known() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3 * 2 * 4 * 5, 6)
    clips = torch.rand(2, 3, 2, 4, 5, requires_grad=True)
    found = gradient_penalty(layer(clips.flatten(1)), clips)
    slope = layer.weight.detach().sum(dim=0).view(3, 2, 4, 5)  # of the sum of the logits, the same for all clips
    columns = [math.sqrt(float(slope[..., x].square().sum())) for x in range(5)]
    torch.testing.assert_close(found, torch.full((2,), 0.226 * sum(columns) / 5))
    torch.autograd.backward(found.sum())
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


def labelled_pairs(count: int = 6, seed: int = 0) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    clips = torch.rand(count, 3, 8, 16, 16, generator=generator)
    places = torch.arange(count)
    return Pairs(
        anchor=clips,
        semi=clips,
        donor=torch.full((count,), -1),
        weight=torch.ones(count),
        mask=torch.ones(count, 1, 8, 16, 16),
        video=places,
        provenance={"key": places + 7},
        label=places % 3,
    )


def learner(method: Method, backbone: str = "tiny") -> ContrastiveLearner:
    torch.manual_seed(0)
    return ContrastiveLearner(backbone, replace(method, dropout=0.0), classes=3)


def static(clips: Tensor, frames: list[int]) -> Tensor:
    """Each clip's frame, repeated, one clip at a time."""
    return torch.stack([clip[:, [frame] * clip.shape[1]] for clip, frame in zip(clips, frames, strict=True)])


def test_terms_of_a_batch_against_their_definition() -> None:
    from bgaug.pairs import uniform

    model = learner(METHODS["supervised-albar"]).eval()  # without batch statistics clips are independent
    pairs = labelled_pairs()
    terms = model(pairs)
    frames = [int(8 * value) for value in uniform(pairs.provenance["key"], "model/static", 1)[:, 0].tolist()]
    still, label, ones = static(pairs.semi, frames).requires_grad_(), pairs.label, torch.ones(6)
    assert label is not None
    moving = model.logits(pairs.semi)
    logits = model.logits(still)
    expected = {
        "global": cross_entropy(moving, label, ones),
        "adversarial": cross_entropy(logits, label, ones),
        "entropy": prediction_entropy(logits, ones),
        "penalty": gradient_penalty(logits, still).mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value.detach(), rtol=1e-4, atol=1e-6)
    whole = expected["global"] - expected["adversarial"] - 4.25 * expected["entropy"] + 10 * expected["penalty"]
    torch.testing.assert_close(terms["loss"], whole, rtol=1e-4, atol=1e-6)
    assert terms["accuracy"] == pytest.approx(100 * float((moving.argmax(1) == label).float().mean()))


def slope_of(model: ContrastiveLearner, value: Tensor) -> Tensor:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, weights, retain_graph=True)])


@pytest.mark.parametrize(("name", "sign"), [("w_adversarial", -1), ("w_entropy", -1), ("w_penalty", 1)])
def test_a_step_raises_the_static_loss_and_entropy_and_lowers_the_penalty(name: str, sign: int) -> None:
    pairs, term = labelled_pairs(2), name.removeprefix("w_")
    # A transformer has no batch statistics, and no corners at which a gradient jumps.
    without, with_term = (learner(replace(METHODS["supervised"], **more), backbone="vit") for more in ({}, {name: 2.0}))
    base, more = without(pairs), with_term(pairs)
    assert term not in base and not without.method.has_static_clips
    assert more["loss"].item() == pytest.approx((base["loss"] + sign * 2 * more[term]).item(), rel=1e-4)
    step = slope_of(with_term, more["loss"]) - slope_of(without, base["loss"])  # the gradient of the term alone
    place = 0
    with torch.no_grad():
        for weight in with_term.parameters():
            weight.sub_(0.02 * step[place : place + weight.numel()].view_as(weight) / step.norm())
            place += weight.numel()
    assert sign * float(with_term(pairs)[term] - more[term]) < 0


def test_dynamic_code_and_impossible_methods() -> None:
    dynamic = learner(replace(METHODS["supervised"], w_global=0.0, w_dynamic=1.0))
    assert set(dynamic(labelled_pairs())) == {"loss", "dynamic", "accuracy"} and dynamic.method.feature == "dynamic"
    for wrong, message in (
        ({"w_dynamic": 1.0}, "classifies one code"),
        ({"momentum": True}, "momentum=False"),
        ({"w_static": 1.0, "policy": "background"}, "classifies one code"),
        ({"dropout": 1.0}, r"dropout lies in \[0, 1\)"),
        ({"w_entropy": -1.0}, "at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(METHODS["supervised"], **wrong)
    with pytest.raises(ValueError, match="are of the objective 'supervised', not 'infonce'"):
        replace(METHODS["semi"], w_entropy=1.0)
    with pytest.raises(ValueError, match="needs two classes or more, got classes = None"):
        ContrastiveLearner("tiny", "supervised")
    with pytest.raises(ValueError, match="needs pairs with labels"):
        dynamic(replace(labelled_pairs(), label=None))
    with pytest.raises(ValueError, match="'semi' has no classifier"):
        ContrastiveLearner("tiny", "semi").logits(torch.rand(1, 3, 4, 16, 16))


def test_attention_has_a_second_derivative() -> None:
    model = learner(METHODS["supervised-albar"], "vit")
    model(labelled_pairs(2))["loss"].backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


# --- clips ------------------------------------------------------------------------------------------------------------


def batch_of(store: Path, views: int) -> Any:
    dataset = ClipDataset(store, ClipOptions(8, 1, views=views), labelled=True)
    return dataset, ClipDataset.collate(dataset.__getitems__(range(len(dataset))))


@pytest.mark.parametrize("policy", ["background", "stillmix", "clip", "actorcutmix", "fame", "bank"])
def test_composites_keep_the_label_of_their_foreground(store: Path, policy: str) -> None:
    dataset, batch = batch_of(store, 1)
    bank = torch.zeros(2, 48, 48, 3, dtype=torch.uint8) if policy == "bank" else None
    still = Augmentation(size=32, scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grey=0, blur=0, channel_gain=0, hue=0)
    pairs = SemiNegativePairs(still, policy, views=1, bank=bank, probability=1.0)(batch)
    plain = SemiNegativePairs(still, "none", views=1)(batch)
    assert pairs.label is not None and torch.equal(pairs.label, batch.label)
    assert torch.equal(pairs.label, torch.from_numpy(open_store(store).columns.label[dataset.videos]).long())
    assert not torch.equal(pairs.semi, plain.semi) and torch.equal(pairs.anchor, pairs.semi)
    # Where the mask is 1 the composite is the clip itself.
    own = (pairs.mask == 1).expand_as(pairs.semi)
    assert torch.equal(pairs.semi[own], plain.semi[own])


def test_one_view_is_the_second_of_two(store: Path) -> None:
    _, two = batch_of(store, 2)
    one = replace(two, frames=two.frames[:, 1:], masks=two.masks[:, 1:])
    make = SemiNegativePairs(Augmentation.tiny(32), "background")
    both, single = make(two), SemiNegativePairs(Augmentation.tiny(32), "background", views=1)(one)
    assert torch.equal(both.semi, single.semi) and torch.equal(both.donor, single.donor)
    assert torch.equal(both.provenance["semi_crop"], single.provenance["semi_crop"])
    with pytest.raises(ValueError, match="expected 2 views .* got V = 1"):
        make(one)  # a contrastive method would compare each clip with itself
    with pytest.raises(ValueError, match="views must be 1 or 2, got 3"):
        SemiNegativePairs(Augmentation.tiny(32), views=3)


def test_a_clip_without_a_donor_counts_as_plain() -> None:
    model = learner(METHODS["supervised"]).eval()
    pairs = labelled_pairs()
    alone = replace(pairs, donor=torch.arange(6), weight=torch.zeros(6))
    assert torch.equal(model(alone)["loss"], model(pairs)["loss"])
    half = replace(pairs, donor=torch.arange(6).roll(1), weight=torch.tensor([1.0, 1, 1, 0, 0, 0]))
    assert pairs.label is not None
    first = replace(pairs, semi=pairs.semi[:3], donor=pairs.donor[:3], weight=pairs.weight[:3], label=pairs.label[:3])
    torch.testing.assert_close(model(half)["loss"], model(first)["loss"])


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"method": "supervised-albar", "change": {"policy": "background", "probability": 0.5}, "ema": 0.9},
        pytest.param({"method": "supervised"}, marks=pytest.mark.full),
        pytest.param({"method": "supervised-albar", "amp": "bf16"}, marks=pytest.mark.full),
    ],
)
def test_stopping_and_resuming_changes_nothing(store: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    assert run(store, tmp_path / "whole", **options).trained.finished
    assert run(store, tmp_path / "parts", stop_after=2, **options).trained.steps == 2  # in the middle of an epoch
    run(store, tmp_path / "parts", resume=True, **options)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.usefixtures("one_thread")
def test_it_learns_the_synthetic_world(store: Path, tmp_path: Path) -> None:
    result = run(store, tmp_path / "r", steps=90, best="held_out_accuracy")
    log = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    steps, epochs = ([line for line in log if ("loss" in line) == kind] for kind in (True, False))
    assert np.mean([line["accuracy"] for line in steps[-9:]]) >= 80 > np.mean([line["accuracy"] for line in steps[:9]])
    assert epochs[-1]["meters"]["held_out_accuracy"] == 100 and result.trained.loss < steps[0]["loss"]
    loaded = load_run(tmp_path / "r", best=True, device="cpu")
    assert loaded.config["classes"] == list(CLASSES) and loaded.learner.method.supervised
    assert loaded.learner.logits(torch.rand(2, 3, 8, 32, 32)).shape == (2, 2)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.full
def test_albar_learns_the_synthetic_world_and_reads_nothing_off_static_clips(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "r", method="supervised-albar", steps=120, change={"dropout": 0.0})
    log = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["meters"]["held_out_accuracy"] == 100
    last = [line["adversarial"] for line in log if "adversarial" in line][-9:]
    assert np.mean(last) >= math.log(2)  # of static clips the classifier knows no more than chance


def test_unlabelled_videos_are_counted(store: Path, tmp_path: Path) -> None:
    progress = Recorder()
    run(store, tmp_path / "all", progress, stop_after=1, splits=("train", "val"))
    assert not progress.warnings
    rows = [(name, "") for name in (*CLASSES, *CLASSES, "", "", "")]
    (tmp_path / "some").mkdir()
    some = build(tmp_path / "some", rows)
    run(some, tmp_path / "r", progress, stop_after=1)
    assert progress.warnings == ["3 of 7 videos are left out: they have no label"]


def test_a_store_without_two_classes_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    none = build(tmp_path / "none", [("", "")] * 3)
    with pytest.raises(UsageError, match=r"learns labels: 0 of 3 videos in .* have one, of 0 classes.*--labels LIST"):
        run(none, tmp_path / "x")
    (tmp_path / "one").mkdir()
    one = build(tmp_path / "one", [("down", "train")] * 3 + [("across", "val")] * 2)
    with pytest.raises(UsageError, match="3 of 3 videos of the split train in .* of 1 classes, and two"):
        run(one, tmp_path / "x")
    with pytest.raises(UsageError, match="no split 'spring'"):
        run(store, tmp_path / "x", splits=("train", "spring"))
    with pytest.raises(UsageError, match="there is no number 'held_out_accuracy'; there are loss; with"):
        run(store, tmp_path / "x", splits=("train", "val"), best="held_out_accuracy")
    assert not (tmp_path / "x").exists()


def test_a_run_of_other_classes_is_not_resumed(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "r", stop_after=1)
    checkpoint = find_checkpoint(tmp_path / "r")
    state = load_checkpoint(checkpoint)
    state["config"]["classes"] = ["across", "up"]
    torch.save(state, checkpoint)
    with pytest.raises(CheckpointError, match=r"another configuration: classes: \['across', 'up'\] there"):
        run(store, tmp_path / "r", resume=True)
    state["config"]["classes"] = ["across"]
    torch.save(state, checkpoint)
    with pytest.raises(CheckpointError, match="does not fit its own configuration.*two classes or more"):
        load_run(checkpoint, device="cpu")


def test_an_older_run_is_resumed(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "r", method="semi", stop_after=1)
    checkpoint = find_checkpoint(tmp_path / "r")
    state = load_checkpoint(checkpoint)
    for name in ("w_adversarial", "w_entropy", "w_penalty", "dropout"):
        del state["config"]["resolved_method"][name]
    torch.save(state, checkpoint)
    assert run(store, tmp_path / "r", method="semi", resume=True).trained.finished


def test_training_begins_with_a_run(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "first", method="bgaug", ema=0.5, steps=3)
    averaged = load_run(tmp_path / "first", device="cpu").learner.encoder.backbone.state_dict()
    for number, start in enumerate((tmp_path / "first", find_checkpoint(tmp_path / "first"))):
        out = tmp_path / f"second{number}"
        run(store, out, weights=str(start), lr=1e-12, weight_decay=0.0, stop_after=1)
        ours = load_run(out, device="cpu").learner.encoder.backbone.state_dict()
        kept = {name: value for name, value in averaged.items() if "running" not in name and "tracked" not in name}
        for name, value in kept.items():
            torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match="is a run of the encoder 'tiny', not 'r3d18'; give --backbone tiny"):
        run(store, tmp_path / "x", weights=str(tmp_path / "first"), backbone="r3d18")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        run(store, tmp_path / "x", weights=str(tmp_path))
    with pytest.raises(UsageError, match="no second derivative"):
        run(store, tmp_path / "x", method="supervised-albar", compile=True)
    assert not (tmp_path / "x").exists()
