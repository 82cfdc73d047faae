"""The synthetic world keeps what it promises: who moves how, what agrees with what, and where everything is."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bgaug.testing.synthetic import (
    ACTIONS,
    FIRST_PHOTO,
    SPLITS,
    SyntheticSplit,
    SyntheticVideo,
    make_split,
    make_video,
)
from bgaug.testing.synthetic.video import _NOISE

AGREEMENT = 0.95 + 0.05 / 8  # a biased factor also hits the class by luck


@cache
def factors(name: str, draw: int = 0) -> SyntheticSplit:
    """A whole split with videos as small and short as possible: only the factors matter."""
    return make_split(name, size=16, num_frames=2, draw=draw)


@cache
def videos(action: str) -> tuple[SyntheticVideo, ...]:
    rngs = (np.random.default_rng(seed) for seed in range(12))
    return tuple(make_video(rng, ACTIONS.index(action), 0, 0) for rng in rngs)


def centroids(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of (T, S, S): x and y of the mask's centre in pixels, (T, 2)."""
    return np.array([np.argwhere(mask).mean(axis=0)[::-1] for mask in masks])


def share(hits: NDArray[Any]) -> float:
    return float(hits.mean())


def test_splits_have_their_published_sizes_and_seeds() -> None:
    assert {name: (split.seed, split.count) for name, split in SPLITS.items()} == {
        "pretrain": (1, 2048),
        "probe_train": (11, 1024),
        "iid": (12, 400),
        "wide": (13, 400),
        "micro": (14, 400),
        "swap": (15, 400),
        "photo": (16, 400),
        "conflict": (17, 400),
        "bgonly": (18, 400),
        "unbiased_train": (19, 1024),
        "unbiased_test": (20, 400),
    }


@pytest.mark.parametrize("name", ["iid", "swap", "unbiased_train"])
def test_every_eight_videos_hold_every_class_once(name: str) -> None:
    labels = factors(name).labels
    assert len(labels) == SPLITS[name].count
    assert (np.sort(labels.reshape(-1, 8), axis=1) == np.arange(8)).all()
    assert (labels.reshape(-1, 8) != np.arange(8)).any(axis=1).mean() > 0.9


def test_scene_and_prop_agree_with_the_class_independently() -> None:
    split = factors("probe_train")
    scene, prop = split.scene == split.labels, split.prop == split.labels
    assert share(scene) == pytest.approx(AGREEMENT, abs=0.025)
    assert share(prop) == pytest.approx(AGREEMENT, abs=0.025)
    assert share(scene & prop) == pytest.approx(AGREEMENT**2, abs=0.035)
    assert split.scene.max() < 8


def test_what_each_test_split_changes() -> None:
    agrees = pytest.approx(AGREEMENT, abs=0.04)
    luck = pytest.approx(1 / 8, abs=0.07)
    wide, micro, swap, conflict, free = map(factors, ("wide", "micro", "swap", "conflict", "unbiased_test"))

    assert set(wide.scene) == set(range(8, 16))
    assert share(wide.scene - 8 == wide.labels) == luck
    assert share(wide.prop == wide.labels) == agrees

    assert share(micro.scene == micro.labels) == agrees
    assert not (micro.prop == micro.labels).any()
    assert set(micro.prop) == set(range(8))

    assert set(swap.scene) == set(range(8, 16))
    assert share(swap.prop == swap.labels) == luck

    assert (conflict.scene == conflict.prop).all()
    assert not (conflict.scene == conflict.labels).any()

    assert share(free.scene == free.labels) == luck
    assert share(free.prop == free.labels) == luck
    assert share(free.prop == free.scene) == luck


def test_bgonly_shows_only_the_plates_and_noise() -> None:
    split = make_split("bgonly", count=16, truth=True)
    assert split.masks is not None and split.plates is not None
    assert not split.masks.any()
    clear = (split.plates > 25) & (split.plates < 230)  # elsewhere the range cuts the noise off
    noise = (split.frames.astype(float) - split.plates)[clear]
    assert noise.mean() == pytest.approx(0, abs=0.05)
    assert noise.std() == pytest.approx(np.hypot(255 * _NOISE, np.sqrt(2 / 12)), rel=0.02)  # both sides were rounded


def test_away_from_the_sprite_frames_are_plates() -> None:
    split = make_split("swap", count=24, truth=True)
    assert split.masks is not None and split.plates is not None
    difference = abs(split.frames.astype(int) - split.plates).max(axis=-1)
    near = split.masks.copy()
    for axis in (2, 3):
        for _ in range(3):
            near = near | np.roll(near, 1, axis) | np.roll(near, -1, axis)
    assert np.quantile(difference[~near], 0.999) < 6 * 255 * _NOISE
    assert difference[split.masks].mean() > 40


def test_the_sprite_covers_seven_percent_of_the_frame() -> None:
    masks = make_split("iid", count=160, truth=True).masks
    assert masks is not None
    assert masks.mean() == pytest.approx(0.07, abs=0.01)


@pytest.mark.parametrize(("action", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_straight_movers(action: str, axis: int, sign: int) -> None:
    slopes = np.array([np.polyfit(np.arange(8), centroids(video.masks[2:10]), 1)[0] for video in videos(action)])
    along, across = sign * slopes[:, axis], slopes[:, 1 - axis]
    # The camera's walk adds about a quarter of a pixel a frame either way.
    assert along.min() > 0.6 and along.max() < 2.5
    assert along.mean() == pytest.approx(1.55, abs=0.35)
    assert abs(across).max() < 0.6


def test_rotation_turns_on_the_spot() -> None:
    steps = []
    for video in videos("rotate"):
        assert centroids(video.masks).std(axis=0).max() < 2
        for before, after in zip(video.masks, video.masks[1:], strict=False):
            turn = (_double_angle(after) - _double_angle(before) + np.pi) % (2 * np.pi) - np.pi
            steps.append(abs(turn) / 2)
    assert np.median(steps) == pytest.approx(0.475, abs=0.12)


def _double_angle(mask: NDArray[np.bool_]) -> float:
    x, y = (np.argwhere(mask)[:, ::-1] - centroids(mask[None])[0]).T
    return float(np.arctan2(2 * (x * y).mean(), (x * x).mean() - (y * y).mean()))


def test_zoom_changes_only_size() -> None:
    for video in videos("zoom"):
        area = video.masks.sum(axis=(1, 2))
        assert area.max() / area.min() > 2.5
        assert centroids(video.masks).std(axis=0).max() < 2
    for video in videos("rotate"):
        area = video.masks.sum(axis=(1, 2))
        assert area.max() / area.min() < 1.5


def test_circle_and_shake() -> None:
    for video in videos("circle"):
        path = centroids(video.masks)
        assert path.std(axis=0).min() > 2.5
        radius = np.hypot(*(path - (path.max(axis=0) + path.min(axis=0)) / 2).T)
        assert 3.5 < radius.min() and radius.max() < 9
    for video in videos("shake"):
        x, y = centroids(video.masks).T
        assert x.std() > 2.5
        assert y.std() < 1.7
        assert (np.diff(np.sign(np.diff(x))) != 0).sum() >= 2  # back and forth, unlike a straight mover


@pytest.mark.parametrize("action", ["left", "zoom", "circle"])
def test_prop_lies_still_under_the_mover(action: str) -> None:
    for seed in range(6):
        one, other = (make_video(np.random.default_rng(seed), ACTIONS.index(action), 3, prop) for prop in (0, 5))
        assert (one.masks == other.masks).all()
        changed = (one.background != other.background).any(axis=-1)
        (top, left), (bottom, right) = np.argwhere(changed).min(axis=0), np.argwhere(changed).max(axis=0)
        assert 9 <= bottom - top <= 16 and 9 <= right - left <= 16
        mat = changed[top : bottom + 1, left : right + 1]
        assert mat.mean() > 0.6
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        assert middle == pytest.approx(centroids(one.masks).mean(axis=0), abs=3)
        assert (one.masks & changed).any(axis=(1, 2)).all()  # it touches the mover all the time


def test_only_the_camera_moves_the_background() -> None:
    aligned, at_rest = [], []
    for video in videos("right")[:6]:
        still = video.background[3:-3, 3:-3].astype(float)
        for plate in video.plates.astype(float):
            errors = {
                (x, y): abs(plate[3 + y : 37 + y, 3 + x : 37 + x] - still).mean()
                for y in range(-2, 3)
                for x in range(-2, 3)
            }
            aligned.append(min(errors.values()))
            at_rest.append(errors[0, 0])
    assert max(aligned) < 8  # what half a pixel of bilinear shift leaves
    assert np.mean(at_rest) > 1.7 * np.mean(aligned)


def test_scene_families_differ_more_than_their_instances() -> None:
    colours = np.array(
        [
            [make_video(np.random.default_rng(seed), 0, scene, 0, num_frames=2).background for seed in range(6)]
            for scene in range(16)
        ]
    ).mean(axis=(2, 3))
    within = colours.std(axis=1).mean()
    between = colours.mean(axis=1).std(axis=0).mean()
    assert between > 4 * within > 0


def test_photographs_come_from_scikit_image() -> None:
    split = make_split("photo", count=16, num_frames=2, truth=True)
    assert set(split.scene) <= set(range(FIRST_PHOTO, FIRST_PHOTO + 8))
    grey = make_video(np.random.default_rng(0), 0, FIRST_PHOTO + 2, 0)
    spread = np.ptp(grey.background.astype(int), axis=-1)
    assert np.median(spread) <= 1
    assert spread.max() > 60  # the prop is in colour
    make_video(np.random.default_rng(0), 0, FIRST_PHOTO + 3, 0, size=250, num_frames=2)
    with pytest.raises(ValueError, match="chelsea is too small"):
        make_video(np.random.default_rng(0), 0, FIRST_PHOTO + 3, 0, size=251, num_frames=2)


def test_a_video_does_not_depend_on_the_range_it_was_made_in() -> None:
    whole = make_split("iid", count=12, truth=True)
    parts = [
        make_split("iid", count=12, stop=5, truth=True),
        make_split("iid", start=5, stop=9, truth=True),
        make_split("iid", count=64, start=9, stop=12, truth=True),
    ]
    assert [part.start for part in parts] == [0, 5, 9]
    assert [len(part) for part in parts] == [5, 4, 3]
    for field in ("frames", "labels", "scene", "prop", "masks", "plates", "backgrounds"):
        joined = np.concatenate([getattr(part, field) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, field))
    assert make_split("iid", count=2).masks is None
    np.testing.assert_array_equal(make_split("iid", count=2).frames, whole.frames[:2])


def test_draws_splits_and_videos_differ() -> None:
    seen = [make_split(name, count=4, num_frames=2, draw=draw) for name in ("iid", "wide") for draw in (0, 1)]
    frames = np.concatenate([split.frames for split in seen])
    assert len(np.unique(frames.reshape(len(frames), -1), axis=0)) == 16
    assert (factors("iid").labels != factors("iid", draw=1).labels).any()


# Recorded; a change of these is a change of every number measured in this world.
LABELS = [3, 1, 2, 4, 6, 0, 7, 5, 4, 0, 2, 5, 1, 7, 6, 3]
SCENES = [3, 1, 2, 4, 6, 0, 7, 5, 4, 0, 2, 5, 1, 7, 6, 3]
PROPS = [3, 1, 2, 4, 6, 0, 7, 5, 4, 0, 2, 5, 1, 7, 6, 4]
COLOUR = (76.9, 76.08, 84.96)
AREA = 0.06365


def test_this_is_still_the_same_world() -> None:
    split = make_split("iid", count=16, truth=True)
    assert split.masks is not None
    assert split.labels.tolist() == LABELS
    assert split.scene.tolist() == SCENES
    assert split.prop.tolist() == PROPS
    np.testing.assert_allclose(split.frames.mean(axis=(0, 1, 2, 3)), COLOUR, atol=0.3)
    assert split.masks.mean() == pytest.approx(AREA, abs=2e-4)


# By split: a digest of the factors of 64 videos, all of them whole numbers; and the first video's middle frame as 4x4
# blocks of 10 pixels, RGB, in which a grey level here and there, as another CPU may give it, leaves no trace.
CONTENTS = {
    "pretrain": (
        "225b1dfdbd51b856",
        "712b4a582730602b36662b3c622e324c3952502641652d35472223463f62523246713e224d2b155830174e212d552432",
    ),
    "probe_train": (
        "65cdd2962325428c",
        "60427c6345816245815c3d72593d746334805a3e765a3f7778488f7441965646695b427d804e9277518a5e4173684a8b",
    ),
    "iid": (
        "fcd76e3611301a24",
        "823085732c7b702a77742b78722a765d2c685f34686928735c266c4f36586b5e6952246c501e54501d52491c4e461a4b",
    ),
    "wide": (
        "a84ff25dd6f1a18b",
        "3c50674c638352698c516c8b425a6d6a6b6d4f617d50678a4962776d707d6588a37395c44d67854f6b875e7aa0779dca",
    ),
    "micro": (
        "13176f50222cafd3",
        "4d1e59481d53441d53431d5460246b57265654284f4f1f5b5e26706b3964825c7e5b2570672a7c81318f75359c7b3294",
    ),
    "swap": (
        "d0bc2a47bb922e30",
        "55589353619b5d417d50649d55386f6241717f596a5040753c5a84424f795a4a734d32643d365f3c39633b3e66412f5a",
    ),
    "photo": (
        "0c5f1c17b239e947",
        "9560488e331cb82e10b85a2c704d37747a3fa54015a049266144337251209736118c421f751c0b731d0b54210f9c572f",
    ),
    "conflict": (
        "95a586679884a18b",
        "59585d56504e5a5c615c60695c5651816a4a66645f5e66746a70827f7560666d7b5f6c886c7894697388626676606a84",
    ),
    "bgonly": (
        "4cf07017ec31e4b6",
        "12313f142f45183950206468112c3b16374a1a8b921d5d661445431f5a64268a851a4157133a3d1d5b6123696f17334e",
    ),
    "unbiased_train": (
        "ce18d6fd2046d795",
        "49232451242b531d3c652c38451f24523126502c335d28383c142c5b5930667b5a5d3b3b3b172a592d266b372b6d3c27",
    ),
    "unbiased_test": (
        "619eb36aa8cf3a62",
        "2457492861432962422c6b3d2f713524554a40527a3b655a30772d2b762f405e6621504923553a255c361b43432a6430",
    ),
}
# By action: first and last frame of the first eight videos of "iid", the mean of the colours in 4x4 blocks.
MOTIONS = (
    "30353c433b445f4f4a505561545a64682f353d423e5a4c4d4a5b5659545b6367",
    "6267675d5e72635e687b7c6169645d636267685d5e686e5e6864757f6a626063",
    "3e3b3e383f46484e3b565e3c3f4353393b3a3d3a3e4b54493e4f6441403f3c38",
    "675b5b585d4e6a5d50445545403c3a3968605b615c51565451455b5041495139",
    "3f3b3e4f245a514c2a5d4d38234142403e3f3a4b284b574526555d3320414441",
    "4f5f4944374e3e4a32434752323a514a435d543e344841462f42484d31314e4c",
    "6659545f5c60766b514f54594c434645665755605b695e6a515b53564b424645",
    "3a37404635453f3e3c7361433a3f474a3837424637423e413d755d3d3a444c4b",
)


def blocks(image: NDArray[Any]) -> NDArray[np.float64]:
    """Means of 10x10 pixels: (..., 40, 40, 3) -> (..., 4, 4, 3)."""
    means: NDArray[np.float64] = image.reshape(*image.shape[:-3], 4, 10, 4, 10, 3).mean(axis=(-4, -2))
    return means


def recorded(text: str, *shape: int) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(text), np.uint8).reshape(shape)


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_is_still_what_it_was(name: str) -> None:
    digest, picture = CONTENTS[name]
    split = make_split(name, size=16, num_frames=2, count=64)
    drawn = np.stack([split.labels, split.scene, split.prop]).astype("<i8")
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == digest
    frame = make_split(name, count=1).frames[0, 6]
    np.testing.assert_allclose(blocks(frame), recorded(picture, 4, 4, 3), atol=1.5)


def test_every_motion_is_still_what_it_was() -> None:
    split = make_split("iid", count=8)
    shown = blocks(split.frames[split.labels.argsort()][:, [0, 11]]).mean(axis=-1)
    np.testing.assert_allclose(shown, recorded("".join(MOTIONS), 8, 2, 4, 4), atol=1.5)


@pytest.mark.parametrize(("size", "num_frames"), [(16, 2), (33, 5), (64, 20)])
def test_shapes_and_types(size: int, num_frames: int) -> None:
    split = make_split("swap", size=size, num_frames=num_frames, count=2, truth=True)
    assert split.masks is not None and split.plates is not None and split.backgrounds is not None
    assert split.frames.shape == split.plates.shape == (2, num_frames, size, size, 3)
    assert split.masks.shape == split.frames.shape[:-1]
    assert split.backgrounds.shape == (2, size, size, 3)
    assert split.frames.dtype == split.plates.dtype == split.backgrounds.dtype == np.uint8
    assert split.masks.dtype == np.bool_
    assert split.labels.dtype == split.scene.dtype == split.prop.dtype == np.int64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "train"}, "unknown split 'train'; there are pretrain"),
        ({"count": 0}, "0 <= start < stop <= count"),
        ({"count": 8, "stop": 9}, "stop = 9, count = 8"),
        ({"start": -1, "stop": 1}, "start = -1"),
        ({"draw": -1}, "draw must be 0 or more, got -1"),
        ({"size": 15, "count": 1}, r"size must be 16..4096, got 15"),
        ({"num_frames": 1, "count": 1}, r"num_frames must be 2..1000, got 1"),
    ],
)
def test_impossible_splits(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_split(**({"name": "iid"} | arguments))


@pytest.mark.parametrize(
    ("action", "scene", "prop", "what"), [(8, 0, 0, "action"), (0, 24, 0, "scene"), (0, 0, -1, "prop")]
)
def test_impossible_factors(action: int, scene: int, prop: int, what: str) -> None:
    with pytest.raises(ValueError, match=rf"{what} must be 0\.\."):
        make_video(np.random.default_rng(0), action, scene, prop)
