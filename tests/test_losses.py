"""Losses: closed forms, identities, and slow plain references."""

import math

import pytest
import torch
from torch import Tensor

from bgaug.model.decomposition import CODES
from bgaug.model.losses import DualLoss, SemiNegativeLoss, info_nce, prediction_loss, queue_nce, static_partners


def slow_info_nce(
    a: Tensor, b: Tensor, temperature: float, video: list[int] | None = None, weight: list[float] | None = None
) -> float:
    """The definition, one embedding at a time, in Python's floats."""
    B = len(a)
    video = video or list(range(B))
    weight = weight or [1.0] * B
    sides = [[(row / row.norm()).tolist() for row in side.double()] for side in (a, b)]
    losses = [0.0] * B
    for side in (0, 1):
        for i in range(B):
            query = sides[side][i]

            def score(other: list[float], query: list[float] = query) -> float:
                return math.exp(sum(x * y for x, y in zip(query, other, strict=True)) / temperature)

            positive = score(sides[1 - side][i])
            negatives = sum(score(sides[s][j]) for s in (0, 1) for j in range(B) if video[j] != video[i])
            losses[i] += -math.log(positive / (positive + negatives)) / 2
    return sum(w * x for w, x in zip(weight, losses, strict=True)) / sum(weight)


def embeddings(count: int, dim: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator), torch.randn(count, dim, generator=generator)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_equal_similarities_give_the_log_of_the_number_of_candidates(count: int) -> None:
    same = torch.ones(count, 4)
    assert info_nce(same, same).item() == pytest.approx(math.log(2 * count - 1), abs=1e-5)
    queue = torch.ones(11, 4)
    assert queue_nce(same, same, None, queue).item() == pytest.approx(math.log(12), abs=1e-5)
    assert queue_nce(same, same, same, queue).item() == pytest.approx(math.log(13), abs=1e-5)


def test_perfect_pairs_of_orthogonal_videos() -> None:
    z = torch.eye(4)
    assert info_nce(z, z, 0.5).item() == pytest.approx(math.log(1 + 6 * math.exp(-2)), abs=1e-6)


def test_agrees_with_the_slow_reference() -> None:
    a, b = embeddings(6)
    video, weight = [1, 2, 2, 3, 1, 4], [1.0, 0.5, 0.0, 2.0, 1.0, 1.0]
    for v, w in ((None, None), (video, None), (None, weight), (video, weight)):
        tensors = (torch.tensor(v) if v else None, torch.tensor(w) if w else None)
        ours = info_nce(a, b, 0.2, *tensors).item()
        assert ours == pytest.approx(slow_info_nce(a, b, 0.2, v, w), abs=1e-5)


def test_symmetric_scale_free_and_permutable() -> None:
    a, b = embeddings(6)
    loss = info_nce(a, b)
    torch.testing.assert_close(info_nce(b, a), loss)
    torch.testing.assert_close(info_nce(3 * a, 0.1 * b), loss)
    order = torch.randperm(6)
    torch.testing.assert_close(info_nce(a[order], b[order]), loss)


def test_clips_of_the_same_video_do_not_repel() -> None:
    a, b = embeddings(3)
    a.requires_grad_()
    video, first = torch.tensor([5, 5, 6]), torch.tensor([1.0, 0.0, 0.0])
    (gradient,) = torch.autograd.grad(info_nce(a, b, video=video, weight=first), a)
    assert gradient[1].abs().max() == 0 and gradient[2].abs().max() > 0
    one_video = info_nce(a, b, video=torch.zeros(3, dtype=torch.int64))
    assert one_video.item() == pytest.approx(0, abs=1e-6)


def test_zero_weights_give_zero_with_a_gradient_of_zero() -> None:
    a, b = embeddings(3)
    a.requires_grad_()
    loss = info_nce(a, b, weight=torch.zeros(3))
    (gradient,) = torch.autograd.grad(loss, a)
    assert loss.item() == 0 and torch.equal(gradient, torch.zeros_like(a))


def test_gradient_is_the_numerical_one() -> None:
    a, b = (x.double().requires_grad_() for x in embeddings(3, 4))
    video, weight = torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0, 0.5]).double()
    assert torch.autograd.gradcheck(lambda x, y: info_nce(x, y, 0.5, video, weight), (a, b))
    queue = torch.randn(5, 4).double()
    assert torch.autograd.gradcheck(lambda x: queue_nce(x, b.detach(), a.detach(), queue, 0.5), (b,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast(dtype: torch.dtype) -> None:
    a, b = embeddings(8)
    full = info_nce(a, b)
    with torch.autocast("cpu", dtype):
        assert torch.equal(info_nce(a, b), full)
    half = info_nce(a.to(dtype), b.to(dtype))
    assert half.dtype == torch.float32
    # Eight bits of a bfloat16's mantissa are three fewer than float16's.
    torch.testing.assert_close(half, full, atol=2e-3 if dtype == torch.float16 else 0.05, rtol=0)


def slow_queue_nce(query: Tensor, key: Tensor, hard: Tensor, queue: Tensor, temperature: float) -> float:
    losses = []
    for i in range(len(query)):
        candidates = torch.cat([key[i : i + 1], hard[i : i + 1], queue])
        logits = torch.nn.functional.cosine_similarity(query[i : i + 1], candidates) / temperature
        losses.append(-torch.log_softmax(logits, 0)[0].item())
    return sum(losses) / len(losses)


def test_queue_form_agrees_with_the_slow_reference() -> None:
    query, key = embeddings(5)
    hard, queue = embeddings(5, seed=1)[0], embeddings(9, seed=2)[0]
    ours = queue_nce(query, key, hard, queue, 0.2).item()
    assert ours == pytest.approx(slow_queue_nce(query, key, hard, queue, 0.2), abs=1e-5)


def test_queue_form_masks_empty_places_the_same_video_and_absent_hard_negatives() -> None:
    same, queue = torch.ones(2, 4), torch.ones(6, 4)
    queue_video = torch.tensor([7, 7, 8, 9, -1, -1])

    def loss(weight: list[float]) -> float:
        video, hard_valid = torch.tensor([7, 8]), torch.tensor([True, False])
        return queue_nce(
            same,
            same,
            same,
            queue,
            video=video,
            queue_video=queue_video,
            hard_valid=hard_valid,
            weight=torch.tensor(weight),
        ).item()

    assert loss([1.0, 0.0]) == pytest.approx(math.log(1 + 1 + 2), abs=1e-5)
    assert loss([0.0, 1.0]) == pytest.approx(math.log(1 + 3), abs=1e-5)


def test_semi_negative_loss_is_info_nce() -> None:
    a, b = embeddings(5)
    video, weight = torch.tensor([0, 1, 2, 2, 3]), torch.rand(5)
    torch.testing.assert_close(SemiNegativeLoss(0.3)(a, b, video, weight), info_nce(a, b, 0.3, video, weight))


def codes(count: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    pairs = [embeddings(count, seed=seed + i) for i in range(3)]
    anchor, semi = ({code: pair[side] for code, pair in zip(CODES, pairs, strict=True)} for side in (0, 1))
    return anchor, semi


def test_dual_loss_without_its_second_and_third_term_is_the_semi_negative_loss() -> None:
    anchor, semi = codes(6, 0)
    video, weight, donor = torch.arange(6), torch.rand(6), torch.arange(6).roll(1)
    dual = DualLoss(w_dynamic=0, w_static=0)(anchor, semi, donor, video, weight)
    assert set(dual) == {"loss", "global"}
    assert torch.equal(dual["loss"], SemiNegativeLoss()(anchor["global"], semi["global"], video, weight))


def test_dual_loss_is_the_weighted_sum_of_its_terms() -> None:
    anchor, semi = codes(6, 0)
    video, donor = torch.arange(6), torch.tensor([1, 2, 0, 5, 3, 4])
    out = DualLoss(1.0, 0.5, 0.25, 0.2)(anchor, semi, donor, video)
    torch.testing.assert_close(out["loss"], out["global"] + 0.5 * out["dynamic"] + 0.25 * out["static"])
    torch.testing.assert_close(out["dynamic"], info_nce(anchor["dynamic"], semi["dynamic"], 0.2))
    assert out["static"].item() == pytest.approx(
        slow_info_nce(semi["static"], anchor["static"][donor], 0.2, donor.tolist()), abs=1e-5
    )


def test_static_term_wants_the_donor_and_not_the_own_anchor() -> None:
    donor, video = torch.tensor([1, 2, 3, 0]), torch.arange(4)
    backgrounds = torch.eye(4)
    loss = DualLoss(0, 0, 1, 0.1)
    swapped = loss({"static": backgrounds}, {"static": backgrounds[donor]}, donor, video)["static"]
    kept = loss({"static": backgrounds}, {"static": backgrounds}, donor, video)["static"]
    assert swapped < 0.01 and kept > 5


def test_static_term_leaves_out_pairs_without_a_donor_in_the_batch() -> None:
    anchor, semi = codes(5, 3)
    video = torch.arange(5)
    semi["static"].requires_grad_()
    donor, weight = torch.tensor([1, 0, -1, 4, 3]), torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0])
    place, counts = static_partners(donor, weight)
    assert place.tolist() == [1, 0, 2, 4, 3] and counts.tolist() == [1, 1, 0, 0, 1]
    out = DualLoss(0, 0, 1)(anchor, semi, donor, video, weight)
    (gradient,) = torch.autograd.grad(out["loss"], semi["static"])
    assert torch.isfinite(gradient).all()
    without_foreground = DualLoss(0, 0, 1)(anchor, semi, torch.full((5,), -1), video, weight)
    assert without_foreground["loss"].item() == 0


def test_static_term_lets_pairs_of_one_donor_be() -> None:
    # Clips 0 and 1 both borrowed from 2: same backgrounds, which must not push each other away.
    donor, video = torch.tensor([2, 2, 3, 0]), torch.arange(4)
    backgrounds = torch.eye(4)
    out = DualLoss(0, 0, 1)({"static": backgrounds}, {"static": backgrounds[donor]}, donor, video)
    assert out["static"] < 0.01


def test_wrong_arguments_are_reported() -> None:
    a, b = embeddings(4)
    with pytest.raises(ValueError, match=r"\(B, D\), got \(4, 8\) and \(3, 8\)"):
        info_nce(a, b[:3])
    with pytest.raises(ValueError, match="temperature must be above 0"):
        info_nce(a, b, 0)
    with pytest.raises(ValueError, match="temperature"):
        SemiNegativeLoss(-1)
    with pytest.raises(ValueError, match="queue"):
        queue_nce(a, b, None, torch.rand(3, 5))
    with pytest.raises(ValueError, match="weights must be at least 0"):
        DualLoss(0, 0, 0)
    with pytest.raises(ValueError, match="weights must be at least 0"):
        DualLoss(1, -1, 0)


def test_prediction_loss_is_zero_for_one_direction_and_four_for_the_opposite() -> None:
    a, b = embeddings(5)
    assert prediction_loss(a, 3 * a).item() == pytest.approx(0, abs=1e-6)
    assert prediction_loss(a, -a).item() == pytest.approx(4, abs=1e-6)
    weight = torch.tensor([1.0, 0, 0, 2.0, 0])
    slow = [2 - 2 * torch.nn.functional.cosine_similarity(x, y, dim=0).item() for x, y in zip(a, b, strict=True)]
    assert prediction_loss(a, b).item() == pytest.approx(sum(slow) / 5, abs=1e-5)
    assert prediction_loss(a, b, weight).item() == pytest.approx((slow[0] + 2 * slow[3]) / 3, abs=1e-5)
    with pytest.raises(ValueError, match="must be"):
        prediction_loss(a, b[:2])
