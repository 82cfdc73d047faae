"""Whole builds of shots of a virtual camera whose every move is known, and of people who never leave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_models import ints, node, tensor, write_model
from onnx_models import model as onnx_model
from test_process_video import setup
from worlds import shot_of, textured

from bgaug.masks.motion.masks import OVERLAP, WINDOW
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.options import BackgroundOptions, VideoOptions
from bgaug.pipelines.build.process_video import process_video
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.shots.by_motion import FlowFrames, by_motion
from bgaug.shots.estimate import estimate_shot
from bgaug.shots.shot import Shot
from bgaug.store import Store, open_store
from bgaug.video import open_video, write_video

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]
H, W = 120, 160
FROM_MOTION = "the masks come from motion"


@dataclass(frozen=True, eq=False)
class Made:
    """Frames (T, H, W, 3), the scene without the body as each frame sees it, and true masks (T, H, W)."""

    frames: Images
    plates: Images
    masks: Masks


def shot(camera: str, num_frames: int = 60, seed: int = 3, body: bool = True) -> Made:
    """A camera over a textured scene in which a disc with clothes of its own walks to and fro."""
    wide, rng = textured(seed, 2 * H, 5 * W), np.random.default_rng(seed)
    clothes = textured(seed + 5, 60, 60)[:, :, ::-1] // 2 + np.array([110, 20, 10], np.uint8)
    shakes = rng.normal(0, 1.5, (num_frames, 2)) if "shake" in camera else np.zeros((num_frames, 2))
    frames, plates, masks = [], [], []
    for t in range(num_frames):
        zoom = 1 + (0.004 * t if "zoom" in camera else 0)
        left = 20 + (1.5 * t if "pan" in camera else 0)
        x, y = left + shakes[t, 0], 40 + shakes[t, 1]
        plate = cv2.warpAffine(wide, np.array([[zoom, 0, -zoom * x], [0, zoom, -zoom * y]]), (W, H))
        mask = np.zeros((H, W), np.uint8)
        at = round(80 + 45 * np.sin(2 * np.pi * t / 70)), 62
        if body:
            cv2.circle(mask, at, 18, 255, -1)
        patch = cv2.warpAffine(clothes, np.array([[1.0, 0, at[0] - 30], [0, 1, at[1] - 30]]), (W, H))
        frames.append(np.where(mask[..., None] > 0, patch, plate).astype(np.uint8))
        plates.append(np.asarray(plate, np.uint8))
        masks.append(mask > 0)
    return Made(np.stack(frames), np.stack(plates), np.stack(masks))


def sways(num_frames: int) -> Made:
    """A camera that stands still, and a body that never leaves its place."""
    made, plate = shot("", num_frames), textured(3, H, W)
    frames, masks = [], []
    for t in range(num_frames):
        moved = np.array([[1.0, 0, 25 - 45 * np.sin(2 * np.pi * t / 70) + 4 * np.sin(t / 3)], [0, 1, 0]])
        mask = cv2.warpAffine(made.masks[t].astype(np.uint8), moved, (W, H)) > 0
        body = cv2.warpAffine(made.frames[t], moved, (W, H))
        frames.append(np.where(mask[..., None], body, plate).astype(np.uint8))
        masks.append(mask)
    return Made(np.stack(frames), np.repeat(plate[None], num_frames, 0), np.stack(masks))


def walks_by(num_frames: int) -> Images:
    """A camera that stands still, and a square that crosses the image."""
    frames = np.repeat(textured(4, H, W)[None], num_frames, 0)
    for t in range(num_frames):
        left = round((W - 24) * t / num_frames)
        frames[t, 50:90, left : left + 24] = (250, 240, 30)
    return frames


def written(folder: Path, frames: Images, name: str = "video.mp4") -> Path:
    folder.mkdir(exist_ok=True)
    write_video(folder / name, frames, fps=30)
    return folder


def built(folder: Path, out: Path, backgrounds: Path | None = None, network: Path | None = None) -> Store:
    options = setup(folder, out, size=None, backgrounds=backgrounds, video=VideoOptions(segmenter=network))
    build_shards(options, Silent())
    return open_store(out)


def extracted(folder: Path, out: Path, network: Path | None = None) -> Store:
    video = VideoOptions(segmenter=network)
    extract_backgrounds(BackgroundOptions(inputs=[folder], out=out, in_process=True, size=None, video=video), Silent())
    return open_store(out)


def masks_of(store: Store) -> Masks:
    return np.asarray(store.masks(0, 0, store.num_frames(0)), np.bool_)


def ious(masks: Masks, true: Masks) -> NDArray[np.float64]:
    common, either = (masks & true).sum((1, 2)), (masks | true).sum((1, 2))
    return np.asarray(common / np.maximum(1, either))


def apart(image: Images, plate: Images, where: Masks) -> float:
    return float(cv2.absdiff(image, plate).max(2)[where].mean())


def flow_frames(frames: Images, memory: int = 2**28) -> FlowFrames:
    collected = FlowFrames((H, W), 30, memory=memory)
    for index, frame in enumerate(frames):
        if collected.wants(index):
            collected.add(frame)
    return collected


def shots_of(path: Path, memory: int = 2**28) -> list[Shot]:
    with open_video(path) as reader:
        return process_video(reader, VideoOptions(memory=memory)).shots


@pytest.mark.parametrize("camera", ["pan", "pan, zoom", "pan, shake"])
def test_masks_and_backgrounds_of_a_camera_that_moves(camera: str, tmp_path: Path) -> None:
    made = shot(camera)
    folder = written(tmp_path / "videos", made.frames)
    backgrounds = extracted(folder, tmp_path / "bg")
    alone, known = built(folder, tmp_path / "a"), built(folder, tmp_path / "b", tmp_path / "bg")
    found = masks_of(alone)
    assert np.array_equal(found, masks_of(known))
    scores = ious(found, made.masks)
    assert scores.mean() > 0.7 and scores.min() > 0.4, scores
    for store in (alone, known, backgrounds):
        row = store.row(0).shots[0]
        assert row.camera == "moving" and FROM_MOTION in row.reasons[0] and row.grade in ("A", "B", "C", "D")
        assert len(row.background_frames) == 2  # one for about a second
        assert store.masks_from(0, 0) == "motion"
        for frame in row.background_frames:
            seen = store.background(0, 0, frame)
            plate, body = made.plates[frame], made.masks[frame]
            assert apart(seen.image, plate, ~body) < 6
            assert apart(seen.image, plate, body & seen.valid) < 20
            assert apart(made.frames[frame], plate, body) > 50


def disc_network(path: Path) -> Path:
    """A network that paints a disc into the middle of every image."""
    y, x = np.mgrid[:H, :W]
    disc = (np.hypot(x - W / 2 + 0.5, y - H / 2 + 0.5) < 20).astype(np.float32)
    nodes = [node("Conv", ["image", "weights"], "nothing", ints("kernel_shape", (1, 1)))]
    nodes += [node("Add", ["nothing", "disc"], "share")]
    constants = [tensor("weights", np.zeros((1, 3, 1, 1))), tensor("disc", disc[None, None])]
    data = onnx_model(nodes, constants, {"image": (1, 3, H, W)}, {"share": (1, 1, H, W)})
    return write_model(path, data, f'size = [{H}, {W}]\nscale = {1 / 255}\nactivation = "none"\n')


def test_a_network_is_a_cue_all_the_way(tmp_path: Path) -> None:
    """Nothing moves against the camera: what is masked is what the network painted."""
    made = shot("pan", 45, body=False)
    folder, network = written(tmp_path / "videos", made.frames), disc_network(tmp_path / "disc.onnx")
    extracted(folder, tmp_path / "bg", network)
    alone, known = (
        built(folder, tmp_path / name, given, network) for name, given in (("a", None), ("b", tmp_path / "bg"))
    )
    found = masks_of(alone)
    assert np.array_equal(found, masks_of(known))
    y, x = np.mgrid[:H, :W]
    disc = np.hypot(x - W / 2 + 0.5, y - H / 2 + 0.5) < 20
    assert found[:, disc].sum() > 0.9 * found.sum()
    assert found[10:-10][:, disc].mean() > 0.2  # the scene passes under it, which speaks against a body
    assert masks_of(built(folder, tmp_path / "c")).mean() < 0.02


def test_people_who_never_leave(tmp_path: Path) -> None:
    made = sways(40)
    folder = written(tmp_path / "videos", made.frames)
    extracted(folder, tmp_path / "bg")
    alone, known = built(folder, tmp_path / "a"), built(folder, tmp_path / "b", tmp_path / "bg")
    row = alone.row(0).shots[0]
    assert row.camera == "static" and FROM_MOTION in row.reasons[0] and not row.background_frames
    assert {store.masks_from(0, 0) for store in (alone, known, open_store(tmp_path / "bg"))} == {"motion"}
    assert np.array_equal(masks_of(alone), masks_of(known))
    assert ious(masks_of(alone), made.masks).mean() > 0.6


@pytest.mark.parametrize("num_frames", [40, 120])
def test_who_walks_by_is_masked_against_the_background_as_before(num_frames: int) -> None:
    """A right background, in a short shot too: to the bit what it is without frames for flow."""
    frames = walks_by(num_frames)
    samples = shot_of(frames)
    before, now = estimate_shot(samples), estimate_shot(samples, frames=flow_frames(frames))
    assert now.masks is None and not now.views
    assert before.background is not None and now.background is not None
    for name in ("image", "noise", "valid"):
        assert np.array_equal(getattr(before.background, name), getattr(now.background, name))
    assert (before.camera, before.grade, before.reasons) == (now.camera, now.grade, now.reasons)


def test_a_shot_that_memory_does_not_hold_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "videos", shot("pan").frames) / "video.mp4"
    (held,), (again,) = shots_of(path), shots_of(path, memory=20 * H * W * 3)
    assert held.masks is not None and again.masks is not None
    assert [held.masks.at(t).tobytes() for t in range(60)] == [again.masks.at(t).tobytes() for t in range(60)]
    assert held.grade == again.grade
    for one, other in zip(held.views, again.views, strict=True):
        assert one.frame == other.frame and np.array_equal(one.background.image, other.background.image)


def test_frames_that_cannot_be_had_again_are_not_enough() -> None:
    frames = shot("pan", 30).frames
    assert flow_frames(frames).are_enough
    assert not flow_frames(frames, memory=5 * H * W * 3).are_enough


def test_a_long_shot_is_masked_window_by_window() -> None:
    """The windows of a shot share frames: masks are as right at their seams as elsewhere."""
    made = shot("pan", 170)
    found = by_motion(flow_frames(made.frames))
    assert found is not None
    size = (W, H)
    masks = np.stack(
        [
            cv2.resize(found.masks.masks.at(t).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            for t in range(170)
        ]
    )
    scores = ious(masks > 0, made.masks)
    assert len(flow_frames(made.frames)) > 2 * WINDOW
    seams = [2 * (WINDOW - OVERLAP // 2 + number * (WINDOW - OVERLAP)) for number in range(2)]
    assert scores.mean() > 0.7, scores
    for seam in seams:
        assert scores[seam - 4 : seam + 5 : 2].min() > 0.5  # of frames that flow was measured between
    assert [frame for frame, _ in found.backgrounds] == sorted({frame for frame, _ in found.backgrounds})
    assert len(found.backgrounds) == 5


def test_a_cut_ends_what_flow_is_measured_in(tmp_path: Path) -> None:
    one, other = shot("pan", 45), shot("pan, zoom", 45, seed=11)
    path = written(tmp_path / "videos", np.concatenate([one.frames, other.frames])) / "video.mp4"
    shots = shots_of(path)
    assert [(found.start, found.stop) for found in shots] == [(0, 45), (45, 90)]
    store = built(path.parent, tmp_path / "s")
    masks = masks_of(store)
    assert ious(masks[:45], one.masks).mean() > 0.7
    assert ious(masks[45:], other.masks).mean() > 0.7


def test_frames_behind_the_end_of_a_shot_are_forgotten() -> None:
    frames = np.concatenate([shot("pan", 40).frames, shot("pan", 12, seed=11).frames])
    ended, alone = flow_frames(frames), flow_frames(frames[:40])
    ended.end_at(40)
    assert len(ended) == len(alone) == 20
    found, expected = by_motion(ended), by_motion(alone)
    assert found is not None and expected is not None
    assert [found.masks.masks.at(t).tobytes() for t in range(40)] == [
        expected.masks.masks.at(t).tobytes() for t in range(40)
    ]
