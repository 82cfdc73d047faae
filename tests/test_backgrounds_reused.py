"""`build-shards --backgrounds`: nothing that extract-backgrounds knew is estimated again, for any camera."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hostile import canonical, load, reseal
from stores import noise_background
from worlds import moving_square

from bgaug.background import BackgroundView
from bgaug.masks import SmallMasks
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.clips import ShotMasks, fitted_mask
from bgaug.pipelines.build.options import BackgroundOptions, ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.shots.cuts import CutFinder
from bgaug.shots.estimate import estimate_shot
from bgaug.shots.shot import Shot
from bgaug.sizing import FITS, Fit, Size, fit_frame
from bgaug.store import Header, Store, open_store, verify_store
from bgaug.testing.scenarios import make_scenario
from bgaug.video import write_video

SIZE = (120, 160)
ESTIMATORS: dict[str, Callable[..., Any]] = {
    "bgaug.pipelines.build.process_video.estimate_shot": estimate_shot,
    "bgaug.shots.cuts.CutFinder.feed": CutFinder.feed,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera that shakes; one that shakes and then stands still, after a cut; one that stands still."""
    folder = tmp_path_factory.mktemp("videos")
    shaking = make_scenario("jitter3", seed=1, size=(240, 320), num_frames=60).frames
    still = np.stack([cv2.resize(frame, (320, 240)) for frame in moving_square(3, 40)[0]])
    write_video(folder / "shaking.mp4", shaking)
    write_video(folder / "cut.mp4", np.concatenate([shaking, still]))
    write_video(folder / "still.mp4", still)
    return folder


@pytest.fixture(scope="module")
def extracted(videos: Path) -> Path:
    root = videos.parent / "backgrounds"
    if not root.exists():
        extract_backgrounds(BackgroundOptions(inputs=[videos], out=root, in_process=True, size=SIZE), Silent())
    return root


def build(videos: Path, out: Path, backgrounds: Path | None, size: Size = SIZE, fit: Fit = "stretch") -> Store:
    options = ShardOptions(inputs=[videos], out=out, in_process=True, size=size, fit=fit, backgrounds=backgrounds)
    build_shards(options, Silent())
    return open_store(out)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often anything was estimated."""
    found: Counter[str] = Counter()

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            found[name.rsplit(".", 1)[1]] += 1
            return real(*args, **options)

        return call

    for name, real in ESTIMATORS.items():
        monkeypatch.setattr(name, counted(name, real))
    return found


def masks_of(store: Store) -> list[bytes]:
    return [store.packed_masks(video, 0, store.num_frames(video)).tobytes() for video in range(len(store))]


def test_a_shaking_camera_gets_the_same_masks_and_nothing_is_estimated_again(
    videos: Path, extracted: Path, tmp_path: Path, calls: Counter[str], report: list[str]
) -> None:
    before = time.process_time()
    computed = build(videos, tmp_path / "computed", None)
    between = time.process_time()
    assert calls["estimate_shot"] == 4 and calls["feed"] > 0
    calls.clear()
    given = build(videos, tmp_path / "given", extracted)
    seconds = between - before, time.process_time() - between
    assert not calls
    cameras = [[shot.camera for shot in given.row(video).shots] for video in range(3)]
    assert cameras == [["jitter", "static"], ["jitter"], ["static"]]
    assert masks_of(given) == masks_of(computed)
    for video in range(3):  # the stored backgrounds have the size of the store, so they are the same, too
        assert given.row(video) == computed.row(video)
    report.append(f"built in {seconds[0]:.2f} s of a processor, with stored backgrounds in {seconds[1]:.2f} s")
    assert seconds[1] < 0.7 * seconds[0]
    assert not {path.name for path in (tmp_path / "given").rglob("canvas_*")}


@pytest.mark.parametrize("fit", FITS)
def test_masks_are_the_same_at_another_size(videos: Path, extracted: Path, tmp_path: Path, fit: Fit) -> None:
    """The canvas keeps the size at which it was estimated; only the background image is resized once more."""
    only = tmp_path / "videos"
    only.mkdir()
    shutil.copy(videos / "shaking.mp4", only)
    given = build(only, tmp_path / "given", extracted, (64, 96), fit)
    computed = build(only, tmp_path / "computed", None, (64, 96), fit)
    assert masks_of(given) == masks_of(computed)
    apart = given.background(0).image.astype(int) - computed.background(0).image
    assert np.abs(apart).mean() < 2


def test_a_store_of_an_earlier_version_is_estimated_again(
    videos: Path, extracted: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    """Without the canvas of a camera that shakes, nothing of its video is known well enough."""
    old = Path(shutil.copytree(extracted, tmp_path / "old"))
    for file in sorted(old.glob("shards/*/COMMIT.json")):
        record = load(file)
        for row in record["videos"]:
            row["shots"] = [{key: value for key, value in shot.items() if key != "canvas"} for shot in row["shots"]]
        for name in [path.name for path in file.parent.glob("canvas_*")]:
            shutil.rmtree(file.parent / name)
            record["files"] = {key: value for key, value in record["files"].items() if not key.startswith(f"{name}/")}
        file.write_bytes(canonical(record))
        node = load(file.parent / "zarr.json")
        names = node["attributes"]["bgaug"]["arrays"]
        node["attributes"]["bgaug"]["arrays"] = [name for name in names if "canvas" not in name]
        (file.parent / "zarr.json").write_bytes(canonical(node))
        reseal(old, file.relative_to(old).as_posix())
        reseal(old, (file.parent / "zarr.json").relative_to(old).as_posix())
    store = open_store(old)
    assert store.canvas(store.find("shaking.mp4")) is None
    given = build(videos, tmp_path / "given", old)
    assert calls["estimate_shot"] == 3  # of the two videos whose camera shakes
    assert masks_of(given) == masks_of(build(videos, tmp_path / "computed", None))


def test_a_camera_that_could_not_be_stabilised_is_not_tried_again(
    videos: Path, tmp_path: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgaug.shots.estimate.stabilise_samples", lambda samples, shifts: None)
    extract_backgrounds(
        BackgroundOptions(inputs=[videos / "shaking.mp4"], out=tmp_path / "b", in_process=True, size=SIZE), Silent()
    )
    (shot,) = open_store(tmp_path / "b").row(0).shots
    assert shot.camera == "jitter" and shot.canvas is None and shot.has_canvas_result
    calls.clear()
    given = build(videos / "shaking.mp4", tmp_path / "given", tmp_path / "b")
    assert not calls
    assert masks_of(given) == masks_of(build(videos / "shaking.mp4", tmp_path / "computed", None))


# --- moving cameras ---------------------------------------------------------------------------------------------------


def moving_shot(count: int) -> Shot:
    """As a path for moving cameras estimates it: views of some frames, small masks of all."""
    rng = np.random.default_rng(count)
    views = tuple(BackgroundView(frame, noise_background(rng, (240, 320))) for frame in (5, 20, 50))
    y, x = np.mgrid[:30, :40]
    masks = np.stack([np.hypot(y - 15, x - 5 - 0.5 * frame) < 6 for frame in range(count)])
    return Shot(0, count, "moving", views=views, masks=SmallMasks.of(masks), grade="C")


@pytest.mark.parametrize("parts", [False, True])
def test_views_and_small_masks_are_kept_and_used(
    videos: Path, tmp_path: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch, parts: bool
) -> None:
    """Built at once, or from a store of backgrounds: the same store; also where a video has several shards."""
    if parts:
        monkeypatch.setattr("bgaug.store.format.plan._MAX_SHARD_BYTES", 250_000)
        monkeypatch.setattr("bgaug.store.format.plan._LONG_SHARD_BYTES", 150_000)
    only, shot = videos / "shaking.mp4", moving_shot(60)
    estimator = "bgaug.pipelines.build.process_video.estimate_shot"
    monkeypatch.setattr(estimator, lambda *arguments, **options: shot)
    extract_backgrounds(
        BackgroundOptions(inputs=[only], out=tmp_path / "b", in_process=True, size=(240, 320)), Silent()
    )
    stored = open_store(tmp_path / "b")
    assert stored.row(0).status == "ok" and stored.background_frames(0).tolist() == [5, 20, 50]
    computed = build(only, tmp_path / "computed", None)
    calls.clear()
    monkeypatch.setattr(estimator, None)
    given = build(only, tmp_path / "given", tmp_path / "b")
    assert not calls and (len(given.row(0).shots) > 1) is parts
    assert given.row(0) == computed.row(0) and masks_of(given) == masks_of(computed)
    assert verify_store(tmp_path / "given", deep=True).problems == ()
    assert not {path.name for path in (tmp_path / "given").rglob("small_masks")}
    assert shot.masks is not None
    for frame in (0, 31, 59):
        assert np.array_equal(given.masks(0, frame, 1)[0], fitted_mask(shot.masks.at(frame), SIZE, "stretch"))
        number = int(np.searchsorted(given.shots(0)[:, 0], frame, side="right")) - 1
        nearest = min(shot.views, key=lambda view: abs(view.frame - frame)).background
        background = given.background(0, number, frame)
        expected = cv2.resize(nearest.image, SIZE[::-1], interpolation=cv2.INTER_AREA)
        assert np.array_equal(background.image, expected) and background.valid.any() and not background.valid.all()


@pytest.mark.parametrize(("fit", "size"), [("stretch", (128, 171)), ("pad", (112, 112)), ("crop", (112, 112))])
def test_small_masks_lie_where_the_frames_show_them(fit: Fit, size: Size) -> None:
    """A disc on the frame, and the same disc at a quarter of the size: within a pixel after fitting."""
    y, x = np.mgrid[:480, :640]
    large = (np.hypot(y - 200, x - 300) < 90).astype(np.uint8) * 255
    small = cv2.resize(large, (160, 120), interpolation=cv2.INTER_AREA) > 127
    expected, found = fit_frame(large, size, fit) > 127, fitted_mask(small, size, fit)
    assert found.shape == size and found.dtype == np.bool_
    assert (found != expected).sum() < 0.04 * expected.sum()
    assert np.array_equal(fitted_mask(np.zeros((30, 40), np.bool_), size, fit), np.zeros(size, np.bool_))


def test_masks_change_with_the_shot() -> None:
    header, rng = Header((30, 40), "stretch", "jpeg", (), {}), np.random.default_rng(0)
    first, still = rng.random((2, 30, 40)) < 0.5, noise_background(rng, (30, 40))
    shots = [
        Shot(0, 2, "moving", masks=SmallMasks.of(first)),
        Shot(2, 4, "static", still),
        Shot(4, 6, "moving"),
        Shot(6, 8, "moving", masks=SmallMasks.of(~first)),
    ]
    masks, image = ShotMasks(header, shots), rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    found = [masks.mask(index, image) for index in range(8)]
    assert np.array_equal(found[:2], first) and np.array_equal(found[6:], ~first)
    plain = ShotMasks(header, [replace(shots[1], start=0)])
    assert np.array_equal(found[2], plain.mask(0, image)) and not found[4].any() and not found[5].any()
