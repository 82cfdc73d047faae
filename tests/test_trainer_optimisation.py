"""How weights are moved: schedules, accumulation, clipping, LARS, the moving average, precision."""

from __future__ import annotations

import itertools
import math
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bgaug.errors import UsageError
from bgaug.model.checkpoint import find_checkpoint as last_checkpoint
from bgaug.model.checkpoint import load_checkpoint, load_run
from bgaug.pipelines.train.optimisation import _LARS, Optimisation, make_optimiser
from bgaug.pipelines.train.run import RunResult, TrainOptions, train
from bgaug.progress import Silent


def run(store: Path, out: Path, *, resume: bool = False, stop_after: int | None = None, **options: Any) -> RunResult:
    small: dict[str, Any] = {"backbone": "tiny", "batch_size": 3, "num_frames": 4, "stride": 1, "crop": 16, "steps": 4}
    chosen = TrainOptions(**{**small, **options})
    return train(
        store, out, Silent(), options=replace(chosen, resume=resume, stop_after=stop_after, device="cpu", threads=0)
    )


def state(out: Path) -> dict[str, Any]:
    return load_checkpoint(last_checkpoint(out))


def test_steps_of_the_rate() -> None:
    plan = Optimisation(100, lr=1.0, schedule="step", drop_at=(0.5, 0.75), drop=0.1, warmup_steps=10)
    rates = [plan.lr_at(step) for step in range(100)]
    assert rates[4] == pytest.approx(0.5)
    assert set(rates[10:50]) == {1.0} and rates[50] == pytest.approx(0.1) and rates[99] == pytest.approx(0.01)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimiser": "adam"}, "optimiser must be one of"),
        ({"schedule": "flat"}, "schedule must be one of"),
        ({"accumulate": 0}, "at least 1"),
        ({"lr": 0.0}, "rates must be positive"),
        ({"ema": 1.0}, "ema must be"),
        ({"drop_at": (0.8, 0.2)}, "ascending"),
    ],
)
def test_optimisations_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Optimisation(10, **wrong)


def test_lars_against_its_formula() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    optimiser = make_optimiser(model, Optimisation(10, optimiser="lars", lr=0.5, weight_decay=0.01))
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    for step in range(3):
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        model(x).square().mean().backward()
        assert model.weight.grad is not None and model.bias.grad is not None
        slope = model.weight.grad + 0.01 * weight
        ratio = 1e-3 * weight.square().sum().sqrt() / slope.square().sum().sqrt()
        speed = 0.9 * speed + ratio * slope
        bias_speed = 0.9 * bias_speed + model.bias.grad
        weight, bias = weight - 0.5 * speed, bias - 0.5 * bias_speed
        optimiser.step()
        torch.testing.assert_close(model.weight.detach(), weight)
        torch.testing.assert_close(model.bias.detach(), bias)


def test_lars_does_not_divide_by_nothing() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    _LARS([{"params": [weight], "weight_decay": 0.1}], lr=1.0).step()
    assert torch.equal(weight.detach(), -torch.ones(2, 2))


def test_accumulated_gradients_are_the_mean_of_their_batches(small_store: Path, tmp_path: Path) -> None:
    # Two batches with a rate so small that the weights stay put: their gradients are those of two runs' first steps.
    frozen: dict[str, Any] = {"method": "simclr", "optimiser": "sgd", "lr": 1e-12, "weight_decay": 0, "warmup": 0}
    run(small_store, tmp_path / "one", steps=1, **frozen)
    run(small_store, tmp_path / "two", steps=2, **frozen)
    run(small_store, tmp_path / "both", steps=1, accumulate=2, **frozen)
    first, second, both = (momenta(tmp_path / name) for name in ("one", "two", "both"))
    for a, b, c in zip(first, second, both, strict=True):
        later = b - 0.9 * a  # the gradient of the second step, out of the momentum
        torch.testing.assert_close(c, (a + later) / 2, rtol=1e-3, atol=1e-5)
    assert state(tmp_path / "both")["loader"]["step"] == 2


def momenta(out: Path) -> list[torch.Tensor]:
    found = state(out)["optimiser"]["state"]
    return [found[key]["momentum_buffer"] for key in sorted(found)]


def test_accumulation_moves_the_key_encoder_once_a_step(small_store: Path, tmp_path: Path) -> None:
    still: dict[str, Any] = {"method": "moco", "optimiser": "sgd", "lr": 1e-12, "change": {"momentum_coefficient": 0.0}}
    run(small_store, tmp_path / "r", steps=1, accumulate=2, **still)
    learner = load_run(tmp_path / "r", device="cpu").learner
    assert learner.key_encoder is not None
    # At a coefficient of 0 the key encoder is the encoder before the step; both batches fill the queue.
    for ours, theirs in zip(learner.encoder.parameters(), learner.key_encoder.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("stop", [1, 2])
def test_accumulation_resumes_exactly(small_store: Path, tmp_path: Path, stop: int) -> None:
    options: dict[str, Any] = {"accumulate": 3, "clip_norm": 0.5, "ema": 0.9, "momentum": True}  # an epoch is 2 batches
    run(small_store, tmp_path / "whole", **options)
    run(small_store, tmp_path / "parts", stop_after=stop, **options)
    run(small_store, tmp_path / "parts", resume=True, **options)
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    for part in ("learner", "averaged"):
        assert all(torch.equal(value, parts[part][name]) for name, value in whole[part].items())


def test_the_gradient_is_brought_down(small_store: Path, tmp_path: Path) -> None:
    plain: dict[str, Any] = {"optimiser": "sgd", "lr": 1e-12, "weight_decay": 0, "steps": 1, "method": "simclr"}
    run(small_store, tmp_path / "free", **plain)
    run(small_store, tmp_path / "held", clip_norm=0.01, **plain)
    free, held = (torch.cat([v.flatten() for v in momenta(tmp_path / name)]) for name in ("free", "held"))
    assert free.norm() > 0.01
    torch.testing.assert_close(held.norm(), torch.tensor(0.01), rtol=1e-3, atol=0)
    torch.testing.assert_close(held / held.norm(), free / free.norm(), rtol=1e-3, atol=1e-5)


def test_the_moving_average_is_what_is_evaluated(small_store: Path, tmp_path: Path) -> None:
    run(small_store, tmp_path / "r", ema=0.5, steps=3, checkpoint_every=1, keep=9, lr=0.01)
    each = [load_checkpoint(path)["learner"] for path in sorted((tmp_path / "r" / "checkpoints").glob("*.pt"))]
    name = "encoder.heads.global.0.weight"
    # The first step sets it; from then on half of it stays.
    expected = (each[0][name] + each[1][name]) / 4 + each[2][name] / 2
    averaged = load_run(tmp_path / "r", device="cpu").learner
    torch.testing.assert_close(averaged.state_dict()[name], expected)
    last = load_run(tmp_path / "r", averaged=False, device="cpu").learner
    torch.testing.assert_close(last.state_dict()[name], each[2][name])


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_is_near_the_whole(small_store: Path, tmp_path: Path, amp: str) -> None:
    whole = run(small_store, tmp_path / "whole", steps=1)
    mixed = run(small_store, tmp_path / "mixed", steps=1, amp=amp)
    assert math.isfinite(mixed.trained.loss)
    assert mixed.trained.loss == pytest.approx(whole.trained.loss, rel=0.05)


def test_channels_last_computes_the_same(small_store: Path, tmp_path: Path) -> None:
    whole = run(small_store, tmp_path / "whole", steps=2)
    other = run(small_store, tmp_path / "other", steps=2, channels_last=True)
    assert other.trained.loss == pytest.approx(whole.trained.loss, rel=1e-3)
    learner = load_run(tmp_path / "other", device="cpu").learner
    assert not learner.training


@pytest.mark.full  # a minute of compilation
def test_a_compiled_encoder_learns_the_same(small_store: Path, tmp_path: Path) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("compiling for a CPU needs a C++ compiler")
    whole = run(small_store, tmp_path / "whole", steps=2, momentum=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own compilation
        other = run(small_store, tmp_path / "other", steps=2, momentum=True, compile=True)
    assert other.trained.loss == pytest.approx(whole.trained.loss, rel=1e-2)
    assert run(small_store, tmp_path / "other", steps=2, momentum=True, resume=True).trained.finished
    learner = load_run(tmp_path / "other", device="cpu").learner
    assert learner.features(torch.rand(1, 3, 4, 16, 16)).shape == (1, 96)


def test_a_device_that_is_not_here(small_store: Path, tmp_path: Path) -> None:
    options = TrainOptions(backbone="tiny", steps=1)
    with pytest.raises(UsageError, match="no device 'tpu9'"):
        train(small_store, tmp_path / "r", Silent(), options=replace(options, device="tpu9"))
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="CUDA is not available here"):
            train(small_store, tmp_path / "r", Silent(), options=replace(options, device="cuda"))
