"""The learner: reductions between methods, gradients between streams, the momentum form step by step."""

import copy
import logging
import pickle
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bgaug.model import METHODS, ContrastiveLearner, Encoder, Method
from bgaug.model.backbones import Backbone, Tiny, build_backbone
from bgaug.model.decomposition import CODES, MotionAwareDecomposition
from bgaug.model.losses import info_nce, queue_nce
from bgaug.model.modes import _input_modes
from bgaug.pairs import Pairs

B = 6


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    # One thread: on small tensors and busy cores, two spend their time waiting for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def make_pairs(seed: int = 0, donor: list[int] | None = None, weight: list[float] | None = None) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    anchor, semi = torch.rand(2, B, 3, 4, 16, 16, generator=generator)
    return Pairs(
        anchor=anchor,
        semi=semi,
        donor=torch.tensor(donor) if donor else torch.arange(B).roll(1),
        weight=torch.tensor(weight) if weight else torch.ones(B),
        mask=torch.ones(()).expand(B, 1, 4, 16, 16),
        video=torch.arange(B) + B * seed,
        provenance={"key": torch.randint(-(2**62), 2**62, (B,), generator=generator)},
        label=torch.arange(B) % 3,
    )


def learner(method: str | Method, width: int = 4) -> ContrastiveLearner:
    torch.manual_seed(1)
    return ContrastiveLearner(Tiny(width=width), method, embedding_dim=8, classes=3)


def momentum_method(name: str = "dual", queue: int = 3 * B, **options: float | bool) -> Method:
    method = Method.resolve(name, momentum=True, queue=queue, momentum_coefficient=0.9)
    return replace(method, **options)  # type: ignore[arg-type]


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def test_in_batch_forms_are_info_nce_of_the_embeddings() -> None:
    pairs = make_pairs(weight=[1, 1, 0, 1, 1, 1])
    for name in ("simclr", "semi"):
        model = learner(name).eval()
        out = model(pairs)
        a, s = model.encoder(pairs.anchor)["global"], model.encoder(pairs.semi)["global"]
        assert set(out) == {"loss", "global"}
        torch.testing.assert_close(out["loss"], info_nce(a, s, 0.1, pairs.video, pairs.weight))


def test_without_donors_and_second_stream_dual_semi_and_simclr_are_one() -> None:
    plain = replace(make_pairs(), donor=torch.full((B,), -1))
    expected = learner("simclr")(plain)["loss"]
    assert torch.equal(learner("semi")(plain)["loss"], expected)
    reduced = Method("dual", w_dynamic=0, w_static=0)
    assert torch.equal(learner(reduced)(plain)["loss"], expected)
    assert METHODS["bgaug"] == replace(METHODS["dual"], name="bgaug", w_static=0.0)


def test_the_feature_of_a_method_is_the_code_that_it_trains_on_motion() -> None:
    assert {name: method.feature for name, method in METHODS.items() if method.feature != "global"} == {
        "bgaug": "dynamic",
        "dual": "dynamic",
    }
    assert replace(METHODS["bgaug"], pool="mean").feature == "global"


def test_dual_has_all_terms_and_trains_every_parameter() -> None:
    model = learner("dual")
    out = model(make_pairs())
    torch.testing.assert_close(out["loss"], out["global"] + 0.5 * out["dynamic"] + 0.5 * out["static"])
    out["loss"].backward()
    unused = [name for name, value in model.named_parameters() if value.grad is None]
    assert unused == []
    assert not any(out[name].requires_grad for name in ("global", "dynamic", "static"))


def test_loss_does_not_depend_on_the_order_of_the_batch() -> None:
    pairs, order = make_pairs(donor=[2, 0, 1, 5, 3, 4]), torch.tensor([4, 1, 0, 5, 2, 3])
    place = torch.argsort(order)
    moved = replace(
        pairs,
        anchor=pairs.anchor[order],
        semi=pairs.semi[order],
        donor=place[pairs.donor[order]],
        video=pairs.video[order],
    )
    torch.testing.assert_close(learner("dual")(moved)["loss"], learner("dual")(pairs)["loss"])


def trunk_gradients(gamma: float) -> dict[str, Tensor]:
    method = Method("static", w_global=0, w_static=1, gamma=gamma)
    model = learner(method)
    model(make_pairs())["loss"].backward()
    backbone = model.encoder.backbone
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in backbone.named_parameters()}


def test_static_stream_reaches_the_trunk_with_gamma_of_its_gradient() -> None:
    full, tenth, none = trunk_gradients(1.0), trunk_gradients(0.1), trunk_gradients(0.0)
    for name, gradient in full.items():
        # The last stage of the dynamic stream only lends its saliency, which carries no gradient.
        assert (gradient.abs().max() > 0) == (not name.startswith("stage4"))
        torch.testing.assert_close(tenth[name], 0.1 * gradient, atol=1e-6, rtol=1e-3)
        assert none[name].abs().max() == 0


def test_gamma_changes_no_value() -> None:
    pairs = make_pairs()
    losses = [learner(replace(METHODS["dual"], gamma=gamma))(pairs)["loss"] for gamma in (0.0, 0.1, 1.0)]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[1], losses[2])


def test_the_second_stream_is_built_only_for_the_static_term(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bgaug.model"):
        assert learner("semi", width=16).encoder.static_stage is None
        assert caplog.records == []
        assert learner("dual", width=16).encoder.static_stage is not None
    assert "static stream adds 83328 parameters, 67 % of the backbone" in caplog.text


def test_heads_suit_the_backbone() -> None:
    tiny = ContrastiveLearner("tiny", "dual")
    assert tiny.encoder.embedding_dim == 64 and set(tiny.encoder.heads) == {"global", "dynamic", "static"}
    kinds = [type(layer) for layer in tiny.encoder.heads["global"].children()]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    with torch.device("meta"):
        large = Encoder(build_backbone("r3d18"), METHODS["semi"])
    shapes = [tuple(p.shape) for p in large.heads.parameters()]
    assert shapes == [(512, 512), (512,), (128, 512), (128,)]


def test_features_are_the_codes() -> None:
    model, clips = learner("dual").eval(), torch.rand(2, 3, 4, 16, 16)
    codes = model.encode(clips)
    assert torch.equal(model.features(clips, "global"), codes.global_code)
    assert torch.equal(model.features(clips), model.features(clips, model.method.feature))
    assert torch.equal(model.features(clips, "dynamic"), codes.dynamic)
    assert torch.equal(model.features(clips, "dynamic+static"), torch.cat([codes.dynamic, codes.static], dim=1))
    with pytest.raises(ValueError, match="features are global, dynamic, static, dynamic.static, got 'x'"):
        model.features(clips, "x")


def test_an_own_backbone_and_decomposition() -> None:
    class Own(Backbone):
        def __init__(self) -> None:
            super().__init__()
            self.dims = {"only": 5}
            self.convolution = nn.Conv3d(3, 5, 3)

        def forward(self, clips: Tensor) -> dict[str, Tensor]:
            return {"only": self.convolution(clips)}

    decomposition = MotionAwareDecomposition(["only"], trim_ends=False)
    model = ContrastiveLearner(Own(), "semi", decomposition=decomposition)
    assert model(make_pairs())["loss"].isfinite()
    assert model.encoder.embedding_dim == 128


def test_bf16_autocast_gives_nearly_the_same_loss() -> None:
    pairs, full = make_pairs(), learner("dual")(make_pairs())["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = learner("dual")(pairs)["loss"]
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, full, atol=0.1 * full.item(), rtol=0)


@pytest.mark.parametrize("method", [METHODS["dual"], momentum_method()])
def test_a_few_steps_lower_the_loss(method: Method) -> None:
    model, pairs = learner(method), make_pairs()
    optimiser = torch.optim.AdamW(model.encoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(24):
        out = model(pairs)
        optimiser.zero_grad()
        out["loss"].backward()
        optimiser.step()
        losses.append(out["loss"].item())
    assert losses[-1] < 0.7 * losses[0]


# The momentum form


def filled(model: ContrastiveLearner) -> ContrastiveLearner:
    for seed in (1, 2, 3):
        assert not model.queue_full
        model.fill_queue(make_pairs(seed))
    assert model.queue_full
    return model


def test_queues_fill_before_the_first_step_and_wrap_around() -> None:
    model = filled(learner(momentum_method()))
    assert torch.equal(model.queue_video, torch.arange(B, 4 * B))
    for code in CODES:
        queue = model.get_buffer(f"queue_{code}")
        torch.testing.assert_close(queue.norm(dim=1), torch.ones(3 * B))
    model(make_pairs(9))
    assert torch.equal(model.queue_video[:B], torch.arange(B) + 9 * B)
    assert torch.equal(model.queue_video[B:], torch.arange(2 * B, 4 * B))
    assert model.queue_next.item() == B


def test_keys_are_the_anchors_in_the_batchs_order() -> None:
    model = learner(momentum_method(bn_groups=1))
    pairs = make_pairs()
    assert model.key_encoder is not None
    expected = F.normalize(copy.deepcopy(model.key_encoder)(pairs.anchor)["global"], dim=1)
    model(pairs)
    torch.testing.assert_close(model.get_buffer("queue_global")[:B], expected, atol=1e-5, rtol=0)


def test_keys_and_queries_are_normalised_in_different_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = learner(momentum_method(bn_groups=3)), make_pairs()
    pairs.semi = pairs.anchor.clone()
    seen: list[list[int]] = []
    forward = Encoder.forward

    def spy(self: Encoder, clips: Tensor) -> dict[str, Tensor]:
        seen.append([int((pairs.anchor == clip).flatten(1).all(1).nonzero()) for clip in clips])
        return forward(self, clips)

    monkeypatch.setattr(Encoder, "forward", spy)
    model(pairs)
    keys, queries = seen[:3], seen[3:]
    assert queries == [[0, 1], [2, 3], [4, 5]]
    assert sorted(clip for group in keys for clip in group) == list(range(B))
    assert [sorted(group) for group in keys] != queries


def test_momentum_terms_are_those_of_the_definition() -> None:
    model = filled(learner(momentum_method(bn_groups=1))).eval()
    pairs = make_pairs(donor=[1, 2, 0, 4, 5, 5], weight=[1, 1, 1, 1, 1, 0])
    pairs.video[0] = B  # one of the queue's
    out = model(pairs)
    assert model.key_encoder is not None
    query, key = model.encoder(pairs.semi), model.key_encoder(pairs.anchor)
    valid = torch.arange(B) != pairs.donor
    for code in ("global", "dynamic"):
        expected = queue_nce(
            query[code],
            key[code],
            key[code][pairs.donor],
            model.get_buffer(f"queue_{code}"),
            video=pairs.video,
            queue_video=model.queue_video,
            hard_valid=valid,
            weight=pairs.weight,
        )
        torch.testing.assert_close(out[code], expected)
    static = queue_nce(
        query["static"],
        key["static"][pairs.donor],
        key["static"],
        model.get_buffer("queue_static"),
        video=pairs.video[pairs.donor],
        queue_video=model.queue_video,
        weight=pairs.weight,
    )
    torch.testing.assert_close(out["static"], static)


def test_symmetric_form_also_asks_with_the_anchors() -> None:
    one_way, both_ways = momentum_method("semi"), momentum_method("semi", symmetric=True)
    pairs = make_pairs(donor=[2, 0, 1, 5, 3, 4])
    model = filled(learner(both_ways)).eval()
    forth = filled(learner(one_way)).eval()(pairs)["loss"]
    assert model.key_encoder is not None
    taker = torch.tensor([1, 2, 0, 4, 5, 3])
    keys = model.key_encoder(pairs.semi)["global"]
    back = queue_nce(model.encoder(pairs.anchor)["global"], keys, keys[taker], model.get_buffer("queue_global"))
    torch.testing.assert_close(model(pairs)["loss"], (forth + back) / 2)


def test_symmetric_static_term_finds_who_took_the_background() -> None:
    model = filled(learner(momentum_method(w_global=0, w_dynamic=0, w_static=1, symmetric=True))).eval()
    pairs = make_pairs(donor=[1, 2, 0, 4, 4, 5], weight=[1, 1, 1, 1, 0, 0])
    assert model.key_encoder is not None
    key, composites = model.key_encoder(pairs.anchor)["static"], model.key_encoder(pairs.semi)["static"]
    queue, queue_video = model.get_buffer("queue_static"), model.queue_video
    forth = queue_nce(
        model.encoder(pairs.semi)["static"],
        key[pairs.donor],
        key,
        queue,
        queue_video=queue_video,
        weight=pairs.weight,
    )
    # 0 gave to 2, 1 to 0, 2 to 1, 4 to 3; the backgrounds of 3 and 5 were not used.
    taker, taken = torch.tensor([2, 0, 1, 3, 3, 5]), torch.tensor([1.0, 1, 1, 0, 1, 0])
    back = queue_nce(
        model.encoder(pairs.anchor)["static"],
        composites[taker],
        composites,
        queue,
        queue_video=queue_video,
        weight=taken,
    )
    torch.testing.assert_close(model(pairs)["loss"], (forth + back) / 2)


def test_moco_is_the_semi_momentum_form_on_plain_views() -> None:
    plain = replace(make_pairs(), donor=torch.full((B,), -1))
    moco = filled(learner(momentum_method("moco")))(plain)["loss"]
    assert torch.equal(filled(learner(momentum_method("semi")))(plain)["loss"], moco)


def test_an_unfilled_queue_adds_no_negatives() -> None:
    model, pairs = learner(momentum_method("moco")), make_pairs()
    assert model(replace(pairs, donor=torch.full((B,), -1)))["loss"].item() == pytest.approx(0, abs=1e-6)


def test_key_encoder_follows_without_gradient() -> None:
    model = filled(learner(momentum_method()))
    assert model.key_encoder is not None
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    before, towards = parameters(model.key_encoder), parameters(model.encoder)
    model(make_pairs())["loss"].backward()
    for name, parameter in model.key_encoder.named_parameters():
        torch.testing.assert_close(parameter, 0.9 * before[name] + 0.1 * towards[name])
        assert parameter.grad is None and not parameter.requires_grad


def test_evaluation_moves_neither_keys_nor_queues() -> None:
    model = filled(learner(momentum_method())).eval()
    with torch.no_grad():
        for parameter in model.encoder.heads.parameters():
            parameter.add_(1.0)
    before = copy.deepcopy(model.state_dict())
    model(make_pairs())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def train(model: ContrastiveLearner, optimiser: torch.optim.Optimizer, seeds: range) -> list[float]:
    losses = []
    for seed in seeds:
        out = model(make_pairs(seed))
        optimiser.zero_grad()
        out["loss"].backward()
        optimiser.step()
        losses.append(out["loss"].item())
    return losses


def test_state_dict_resumes_a_run_to_the_bit() -> None:
    model = filled(learner(momentum_method()))
    optimiser = torch.optim.SGD(model.encoder.parameters(), lr=0.05, momentum=0.9)
    train(model, optimiser, range(4, 6))
    saved = copy.deepcopy((model.state_dict(), optimiser.state_dict()))
    expected = train(model, optimiser, range(6, 9))
    torch.manual_seed(99)
    other = ContrastiveLearner(Tiny(width=4), momentum_method(), embedding_dim=8)
    resumed = torch.optim.SGD(other.encoder.parameters(), lr=0.05, momentum=0.9)
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    assert train(other, resumed, range(6, 9)) == expected


def test_learner_pickles() -> None:
    model = filled(learner(momentum_method())).eval()
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(make_pairs())["loss"], model(make_pairs())["loss"])


@pytest.mark.parametrize("method", [METHODS["dual"], momentum_method(symmetric=True)])
def test_nothing_waits_for_the_device(method: Method) -> None:
    # A fake tensor has no values: whatever would have to read one on the host raises.
    model, pairs = learner(method), make_pairs()
    with FakeTensorMode(allow_non_fake_inputs=True):
        out = model(pairs)
        out["loss"].backward()
    assert out["loss"].shape == ()


def test_queue_length_is_a_multiple_of_the_batch_not_above_half_of_the_videos() -> None:
    assert Method.resolve("moco", None, 64).queue == 16384
    assert Method.resolve("moco", None, 100).queue == 16300
    assert Method.resolve("moco", 3000, 64).queue == 1472
    with pytest.raises(ValueError, match="too short for one batch of 64"):
        Method.resolve("moco", 100, 64)


def test_resolve_fits_a_preset_to_the_data() -> None:
    assert Method.resolve("semi") == METHODS["semi"]
    assert not Method.resolve("dual", num_videos=2000, batch_size=64).momentum
    large = Method.resolve("dual", num_videos=9537, batch_size=64, num_steps=30_000)
    assert (large.momentum, large.queue, large.momentum_coefficient) == (True, 4736, 0.999)
    short = Method.resolve("moco", num_videos=2048, batch_size=64, num_steps=400)
    assert (short.momentum, short.queue, short.momentum_coefficient) == (True, 1024, 0.99)
    assert not Method.resolve("dual", num_videos=9537, momentum=False).momentum
    assert not Method.resolve("simclr", num_videos=9537).momentum
    assert Method.resolve("dual", gamma=0.5, w_dynamic=1.0).gamma == 0.5


def test_wrong_methods_are_refused() -> None:
    with pytest.raises(ValueError, match="no method 'bert'; there are bgaug, semi, dual, simclr, moco"):
        Method.resolve("bert")
    with pytest.raises(ValueError, match="use 'moco' instead"):
        Method.resolve("simclr", momentum=True)
    with pytest.raises(ValueError, match="use 'simclr' instead"):
        Method.resolve("moco", momentum=False)
    with pytest.raises(ValueError, match="needs momentum=True"):
        Method("semi", symmetric=True)
    with pytest.raises(ValueError, match="needs composites with donors"):
        Method("simclr", policy="none", w_static=0.5)
    with pytest.raises(ValueError, match="gamma"):
        Method("dual", gamma=2)
    with pytest.raises(ValueError, match="at least 1"):
        Method("moco", momentum=True, queue=0)
    with pytest.raises(TypeError):
        Method.resolve("semi", alpha=1.0)
    with pytest.raises(ValueError, match="has no queue to fill"):
        learner("semi").fill_queue(make_pairs())
    with pytest.raises(ValueError, match="does not fit a queue of 3"):
        learner(momentum_method(queue=3))(make_pairs())


# Rivals


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_preset_trains_every_parameter(name: str) -> None:
    method = replace(METHODS[name], queue=B)
    model = learner(method)
    if method.has_queue:
        model.fill_queue(make_pairs(1))
    plain = not method.composite
    pairs = replace(make_pairs(), donor=torch.full((B,), -1)) if plain else make_pairs()
    pairs.provenance["key"] = torch.arange(B)
    model(pairs)["loss"].backward()
    trained = [*model.encoder.named_parameters(), *model.predictors.named_parameters()]
    assert [name for name, value in trained if value.grad is None] == []


def byol() -> ContrastiveLearner:
    return learner(replace(METHODS["byol"], momentum_coefficient=0.9))


def test_byol_predicts_the_keys_of_the_following_encoder() -> None:
    model, pairs = byol().eval(), replace(make_pairs(), donor=torch.full((B,), -1))
    assert model.key_encoder is not None and model.queue_full
    predicted = model.predictors["global"](model.encoder(pairs.semi)["global"])
    key = model.key_encoder(pairs.anchor)["global"]
    expected = (2 - 2 * F.cosine_similarity(predicted, key)).mean()
    out = model(pairs)
    torch.testing.assert_close(out["loss"], expected)
    out["loss"].backward()
    assert all(value.grad is None for value in model.key_encoder.parameters())
    with pytest.raises(ValueError, match="has no queue to fill"):
        model.fill_queue(pairs)


def test_byol_asked_both_ways_is_the_mean_of_both() -> None:
    model, pairs = byol().eval(), replace(make_pairs(), donor=torch.full((B,), -1))
    both = learner(replace(METHODS["byol"], symmetric=True)).eval()
    both.load_state_dict(model.state_dict())
    forth, back = model(pairs)["loss"], model(replace(pairs, anchor=pairs.semi, semi=pairs.anchor))["loss"]
    torch.testing.assert_close(both(pairs)["loss"], (forth + back) / 2)


def test_modes_are_only_appearance_and_only_motion() -> None:
    clips, key = make_pairs().anchor, torch.arange(B)
    still, moving = _input_modes(clips, key)
    assert torch.equal(still, still[:, :, :1].expand_as(still))
    assert all(any(torch.equal(s[:, 0], c[:, t]) for t in range(4)) for s, c in zip(still, clips, strict=True))
    torch.testing.assert_close(moving[:, :, 1:], clips[:, :, 1:] - clips[:, :, :-1])
    motionless = _input_modes(still, key)[1]
    assert motionless.abs().max() == 0


def test_dclr_is_five_terms_of_six_views() -> None:
    model, pairs = learner("dclr").eval(), replace(make_pairs(), donor=torch.full((B,), -1))
    out = model(pairs)
    expected = out["global"] + out["static"] + out["dynamic"] + 0.1 * out["align"]
    torch.testing.assert_close(out["loss"], expected)
    a, b = (model.encoder.heads["vv"](model.features(clips)) for clips in (pairs.anchor, pairs.semi))
    torch.testing.assert_close(out["global"], info_nce(a, b))


def test_methods_change_their_pairs_and_their_saliency() -> None:
    method = Method.resolve("semi", composition={"donor": "frame", "grow": 1.0}, stages=["stage3"], pool="mean")
    assert method.compose.donor == "frame" and method.compose.mask == "stored" and method.stages == ("stage3",)
    model = learner(method)
    assert model.encoder.decomposition.stages == ("stage3",) and model.encoder.decomposition.pool == "mean"
    one_stream = learner(replace(METHODS["dual"], two_streams=False))
    assert one_stream.encoder.static_stage is None and "static" in one_stream(make_pairs())
    for wrong, message in (
        ({"objective": "guess"}, "objective must be one of infonce"),
        ({"pool": "wide"}, "pool must be one of deviation"),
        ({"objective": "byol"}, "needs momentum=True"),
        ({"objective": "byol", "momentum": True, "w_static": 1.0}, "needs negatives"),
        ({"objective": "dclr"}, "compares plain views"),
        ({"policy": "nothing"}, "no composition policy"),
    ):
        with pytest.raises(ValueError, match=message):
            Method("wrong", **wrong)
    with pytest.raises(ValueError, match="'byol' has only the form momentum=True"):
        Method.resolve("byol", momentum=False)


def test_fame_in_the_momentum_form_asks_with_composites_for_plain_keys() -> None:
    model = filled(learner(momentum_method("fame", bn_groups=1))).eval()
    pairs = make_pairs(donor=[1, 2, 0, 4, 5, 3])
    assert model.key_encoder is not None
    query, key = model.encoder(pairs.semi)["global"], model.key_encoder(pairs.anchor)["global"]
    queue = model.get_buffer("queue_global")
    torch.testing.assert_close(model(pairs)["loss"], queue_nce(query, key, key[pairs.donor], queue))
    assert set(model.encoder.heads) == {"global"} and Method.resolve("fame", momentum=True).compose.mask == "fame"
