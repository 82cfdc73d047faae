"""What is aimed at micro bias: rims, colours and strength of the mover in pairs; negatives and pooling in the loss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from test_compose import make_batch, without_colour
from test_model import B, learner, make_pairs
from torch import Tensor

from bgaug.compose import Composition, SemiNegativePairs
from bgaug.compose.masks import shrink, soften
from bgaug.losses import info_nce, squared_correlation
from bgaug.model import METHODS, Method
from bgaug.motion import MotionAwareDecomposition

SIZE = 16


def composer(**options: object) -> SemiNegativePairs:
    return SemiNegativePairs(without_colour(SIZE), "background", **options)  # type: ignore[arg-type]


def square(first: int, last: int) -> Tensor:
    mask = torch.zeros(1, 1, 1, 12, 12)
    mask[..., first:last, first:last] = 1
    return mask


def test_shrinking_takes_the_rim_off_but_not_at_the_border() -> None:
    assert torch.equal(shrink(square(3, 9), 1), square(4, 8))
    assert torch.equal(shrink(square(3, 9), 3), torch.zeros(1, 1, 1, 12, 12))
    assert torch.equal(shrink(square(0, 9), 2), square(0, 7))
    assert torch.equal(shrink(soften(square(3, 9), 2, 0), 2), square(3, 9))


def test_the_donors_rim_leaves_less_of_the_clip_and_either_is_one_of_the_two() -> None:
    batch = make_batch(16)
    masks = {rim: composer(rim=rim, grow=7, sigma=0)(batch).mask for rim in ("own", "donor", "either")}
    assert (masks["donor"] <= masks["own"] + 1e-5).all()
    assert masks["donor"].mean() < masks["own"].mean()
    chose_donor = [torch.equal(masks["either"][n], masks["donor"][n]) for n in range(16)]
    chose_own = [torch.equal(masks["either"][n], masks["own"][n]) for n in range(16)]
    assert all(a or b for a, b in zip(chose_donor, chose_own, strict=True))
    assert 3 <= sum(chose_donor) <= 13


def test_only_the_mover_is_recoloured_and_its_motion_stays() -> None:
    batch = dict(make_batch(8))
    batch["masks"] = torch.full_like(batch["masks"], 255)
    plain, recoloured = (composer(recolour=value)(batch).semi for value in (0.0, 1.0))
    assert ((plain - recoloured).abs().mean(dim=(1, 2, 3, 4)) > 0.01).all()
    batch["masks"] = torch.zeros_like(batch["masks"])
    plain, recoloured = (composer(recolour=value)(batch).semi for value in (0.0, 1.0))
    assert torch.equal(plain, recoloured)


def test_recolouring_some_leaves_the_others_as_they_are() -> None:
    batch = dict(make_batch(32))
    batch["masks"] = torch.full_like(batch["masks"], 255)
    plain, some = (composer(recolour=value)(batch).semi for value in (0.0, 0.5))
    changed = (plain - some).abs().amax(dim=(1, 2, 3, 4)) > 1e-3
    assert 6 <= int(changed.sum()) <= 26


def test_a_plain_positive_keeps_its_colours() -> None:
    batch = make_batch(8)
    pairs = composer(recolour=1.0, plain_positive=True)(batch)
    assert pairs.positive is not None
    torch.testing.assert_close(pairs.positive, SemiNegativePairs(without_colour(SIZE), "none")(batch).semi)


def test_what_is_not_composed_stays_plain() -> None:
    batch = make_batch(32)
    pairs = composer(recolour=1.0, fade=1.0, rim="either", probability=0.5)(batch)
    plain = SemiNegativePairs(without_colour(SIZE), "none")(batch).semi
    same = (pairs.semi - plain).abs().amax(dim=(1, 2, 3, 4)) < 1e-6
    assert torch.equal(same, pairs.donor < 0)
    assert 6 <= int(same.sum()) <= 26


def test_fading_weakens_each_mask_by_a_share_of_its_own() -> None:
    batch = dict(make_batch(64))
    batch["masks"] = torch.full_like(batch["masks"], 255)
    mask = composer(fade=0.6)(batch).mask
    strength = mask.amax(dim=(1, 2, 3, 4))
    torch.testing.assert_close(mask.amin(dim=(1, 2, 3, 4)), strength)
    assert 0.4 <= strength.min() < 0.5 and 0.9 < strength.max() <= 1
    assert strength.mean() == pytest.approx(0.7, abs=0.07)


@pytest.mark.parametrize("wrong", [{"rim": "none"}, {"recolour": 1.5}, {"fade": -0.1}])
def test_impossible_pairs_are_told(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}"):
        Composition(**wrong)  # type: ignore[arg-type]


def test_more_negatives_count_as_candidates() -> None:
    same = torch.ones(5, 3)
    assert info_nce(same, same, negatives=torch.ones(7, 3)).item() == pytest.approx(math.log(2 * 5 - 1 + 7), rel=1e-5)
    away = -torch.ones(7, 3)
    torch.testing.assert_close(
        info_nce(same, same, 0.01, negatives=away), info_nce(same, same, 0.01), atol=1e-5, rtol=0
    )


def test_frozen_views_are_negatives_that_stand_still() -> None:
    method = replace(METHODS["semi"], frozen=True)
    model, pairs = learner(method).eval(), make_pairs()
    still = pairs.anchor[:, :, 2:3].expand_as(pairs.anchor)
    a, b, negatives = (model.encoder(clips)["g"] for clips in (pairs.anchor, pairs.semi, still))
    expected = info_nce(a, b, 0.1, pairs.video, pairs.weight, negatives)
    torch.testing.assert_close(model(pairs)["loss"], expected)
    plain: Tensor = learner("semi").eval()(pairs)["loss"]
    assert model(pairs)["loss"] > plain


def test_pooled_change_is_nothing_where_nothing_changes() -> None:
    generator = torch.Generator().manual_seed(0)
    moving = torch.rand(2, 3, 6, 4, 4, generator=generator)
    still = moving[:, :, :1].expand_as(moving)
    pool = MotionAwareDecomposition(pool="change")
    assert not pool({"last": still}).dynamic.any()
    codes = pool({"last": moving})
    change = (moving[:, :, 1:] - moving[:, :, :-1]).abs().mean(dim=2)
    weight = codes.saliency.unsqueeze(1)
    torch.testing.assert_close(codes.dynamic, (change * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)))
    torch.testing.assert_close(codes.global_code, moving.mean(dim=(2, 3, 4)))


def test_squared_correlation_in_closed_form() -> None:
    a = torch.randn(512, 3, generator=torch.Generator().manual_seed(0))
    assert squared_correlation(a[:, :1], -2 * a[:, :1] + 5).item() == pytest.approx(1, abs=1e-3)
    assert squared_correlation(a, torch.randn(512, 4)).item() < 0.01


def test_decorrelating_adds_to_the_loss_and_trains_the_dynamic_code_alone() -> None:
    pairs, gradients = make_pairs(), []
    for method in (METHODS["dual"], replace(METHODS["dual"], decorrelate=1.0)):
        model = learner(method)
        terms = model(pairs)
        terms["loss"].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    expected = terms["global"] + 0.5 * (terms["motion"] + terms["static"]) + terms["correlation"]
    torch.testing.assert_close(terms["loss"], expected)
    assert 0 < terms["correlation"].item() <= 1
    plain, apart = gradients
    changed = {name for name in plain if not torch.allclose(plain[name], apart[name], atol=1e-7)}
    assert any(name.startswith("encoder.backbone") for name in changed)
    assert any(name.startswith("encoder.heads.d") for name in changed)
    assert not any(name.startswith(("encoder.static_stage", "encoder.heads.r")) for name in changed)


def test_impossible_methods_are_told() -> None:
    with pytest.raises(ValueError, match="momentum=False"):
        replace(METHODS["moco"], frozen=True)
    with pytest.raises(ValueError, match="w_motion and w_static above 0"):
        replace(METHODS["semi"], decorrelate=1.0)
    with pytest.raises(ValueError, match="pool must be one of mean, change"):
        Method("semi", pool="max")
    assert B > 1
