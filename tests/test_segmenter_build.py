"""Builds with a segmentation network: masks of every frame, what a store keeps of the network, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_models import ints, mixed, node, red_network, tensor, write_model
from onnx_models import model as onnx_model
from test_long_video import make_shards_small
from typer.testing import CliRunner
from worlds import moving_square

from bgaug.cli.main import app
from bgaug.errors import SegmenterError, StoreOptionsError, UsageError
from bgaug.masks.segmenter import Segmenter
from bgaug.pipelines.build.backgrounds import extract_backgrounds
from bgaug.pipelines.build.options import BackgroundOptions, ShardOptions, VideoOptions
from bgaug.pipelines.build.segmenters import mask_network, segmenter_of
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.sizing import Fit, fit_frame
from bgaug.store import Store, open_store, verify_store
from bgaug.video import read_video, write_video


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A network whose share is the red channel: the moving square, at the size of the videos."""
    return red_network(tmp_path / "red.onnx", (48, 64))


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A static video, and one whose camera moves."""
    folder = tmp_path / "videos"
    folder.mkdir()
    frames = dimmed(moving_square(0, 40)[0])
    write_video(folder / "static.mp4", frames)
    write_video(folder / "moving.mp4", np.stack([np.roll(frame, 3 * t, 1) for t, frame in enumerate(frames)]))
    return folder


def dimmed(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The ground is too dark for the network, the square is not."""
    return np.where(frames >= 200, frames, frames // 2)


def options(videos: Path, out: Path, network: Path | None, role: Literal["cue", "mask"] = "mask") -> ShardOptions:
    return ShardOptions(
        inputs=[videos],
        out=out,
        in_process=True,
        size=None,
        video=VideoOptions(segmenter=network, segmenter_as=role),
    )


def expected(path: Path, network: Path) -> NDArray[np.bool_]:
    segmenter = Segmenter.load(network)
    return np.stack([segmenter.share(frame) > 0.5 for frame in read_video(path).frames])


def check_masks(store: Store, videos: Path, network: Path) -> None:
    for video in range(2):
        path = videos / f"{Path(store.video_id(video)).stem}.mp4"
        found, shares = store.masks(video, 0, store.num_frames(video)), expected(path, network)
        assert shares.any((1, 2)).all() and shares.mean() < 0.2
        assert np.array_equal(found, shares)


# --- masks -----------------------------------------------------------------------------------------------------------


def test_every_mask_is_the_network_s(videos: Path, network: Path, tmp_path: Path) -> None:
    outcome = build_shards(options(videos, tmp_path / "s", network), Silent())
    check_masks(open_store(tmp_path / "s"), videos, network)
    assert set(outcome.to_json()["masks_from"]) == {"segmenter"}


def test_masks_do_not_depend_on_processes_or_memory(videos: Path, network: Path, tmp_path: Path) -> None:
    build_shards(options(videos, tmp_path / "a", network), Silent())
    in_processes = replace(options(videos, tmp_path / "b", network), in_process=False, jobs=2)
    build_shards(replace(in_processes, video=replace(in_processes.video, memory=1 << 16)), Silent())
    stores = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    for video in range(2):
        a, b = (store.masks(video, 0, store.num_frames(video)) for store in stores)
        assert np.array_equal(a, b)
    assert [store.header.options["segmenter_sha256"] for store in stores] == [Segmenter.load(network).sha256] * 2


def test_masks_of_known_backgrounds(videos: Path, network: Path, tmp_path: Path) -> None:
    extract_backgrounds(BackgroundOptions(inputs=[videos], out=tmp_path / "bg", in_process=True, size=None), Silent())
    build_shards(replace(options(videos, tmp_path / "s", network), backgrounds=tmp_path / "bg"), Silent())
    check_masks(open_store(tmp_path / "s"), videos, network)


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_masks_are_fitted_as_frames_are(videos: Path, network: Path, tmp_path: Path, fit: Fit) -> None:
    given = replace(options(videos, tmp_path / "s", network), size=(40, 40))
    build_shards(replace(given, fit=fit), Silent())
    store = open_store(tmp_path / "s")
    video = store.find("static.mp4")
    whole = expected(videos / "static.mp4", network).astype(np.uint8) * 255
    fitted = np.stack([fit_frame(mask, (40, 40), store.header.fit) > 127 for mask in whole])
    assert np.array_equal(store.masks(video, 0, 40), fitted)


def test_masks_of_a_long_video(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_shards_small(monkeypatch)
    folder = tmp_path / "long"
    folder.mkdir()
    write_video(folder / "a.mp4", dimmed(moving_square(0, 150)[0]))
    given = options(folder, tmp_path / "s", network)
    assert build_shards(replace(given, frames="raw"), Silent()).shards > 1
    store = open_store(tmp_path / "s")
    assert np.array_equal(store.masks(0, 0, 150), expected(folder / "a.mp4", network))


def test_a_cue_does_not_make_the_masks_of_a_static_video(videos: Path, network: Path, tmp_path: Path) -> None:
    (videos / "moving.mp4").unlink()
    build_shards(options(videos, tmp_path / "a", None, "cue"), Silent())
    build_shards(options(videos, tmp_path / "b", network, "cue"), Silent())
    masks = [open_store(tmp_path / name).masks(0, 0, 40) for name in "ab"]
    assert np.array_equal(masks[0], masks[1])


# --- what a store keeps ----------------------------------------------------------------------------------------------


def test_the_header_keeps_the_network_and_no_path(videos: Path, network: Path, tmp_path: Path) -> None:
    build_shards(options(videos, tmp_path / "s", network), Silent())
    kept = open_store(tmp_path / "s").header.options
    assert (kept["segmenter"], kept["segmenter_as"]) == ("red.onnx", "mask")
    assert kept["segmenter_sha256"] == Segmenter.load(network).sha256
    assert kept["segmenter_settings"]["size"] == [48, 64]
    assert str(tmp_path) not in json.dumps(kept) and "segmenter_digest" not in kept


def test_the_header_keeps_nothing_without_a_network(videos: Path, tmp_path: Path) -> None:
    build_shards(options(videos, tmp_path / "s", None, "cue"), Silent())
    assert not [name for name in open_store(tmp_path / "s").header.options if "segmenter" in name]


@pytest.mark.parametrize("kind", ["shards", "backgrounds"])
def test_another_network_or_role_is_refused(videos: Path, network: Path, tmp_path: Path, kind: str) -> None:
    def build(role: Literal["cue", "mask"] = "cue", path: Path | None = network) -> None:
        given = options(videos, tmp_path / "s", path, role)
        if kind == "shards":
            build_shards(given, Silent())
        else:
            extract_backgrounds(
                BackgroundOptions(inputs=given.inputs, out=given.out, in_process=True, size=None, video=given.video),
                Silent(),
            )

    build()
    before = verify_store(tmp_path / "s").content_hash
    build()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("red.onnx", "red.toml"):
        (moved / name).write_bytes((tmp_path / name).read_bytes())
    build(path=moved / "red.onnx")
    assert verify_store(tmp_path / "s").content_hash == before
    with pytest.raises(StoreOptionsError, match="segmenter_as: cue there, mask now"):
        build("mask")
    with pytest.raises(StoreOptionsError, match="segmenter: red.onnx there, None now"):
        build(path=None)
    network.with_suffix(".toml").write_text(network.with_suffix(".toml").read_text() + 'channels = "bgr"')
    with pytest.raises(StoreOptionsError, match="segmenter_settings: .* there, .* now"):
        build()
    write_model(network, mixed([[0, 1, 0]], [0], (48, 64)), (moved / "red.toml").read_text())
    with pytest.raises(StoreOptionsError, match="segmenter_sha256: .* there, .* now"):
        build()


def test_a_network_is_loaded_once_and_again_after_a_change(network: Path) -> None:
    given = VideoOptions(segmenter=network)
    first = segmenter_of(given)
    assert first is not None and segmenter_of(given) is first and mask_network(given) is None
    red_network(network, (48, 64), 'channels = "bgr"')
    second = segmenter_of(given)
    assert second is not None and second.settings.channels == "bgr"
    with pytest.raises(SegmenterError, match="changed during the build"):
        segmenter_of(replace(given, segmenter_digest=first.digest))
    assert segmenter_of(VideoOptions()) is None


# --- networks that cannot be used ------------------------------------------------------------------------------------


def test_a_role_without_a_network() -> None:
    with pytest.raises(UsageError, match="give its path as --segmenter MODEL"):
        VideoOptions(segmenter_as="mask")


@pytest.mark.parametrize("in_process", [True, False])
def test_a_bad_network_ends_a_build_before_it_begins(
    videos: Path, network: Path, tmp_path: Path, in_process: bool
) -> None:
    network.write_bytes(network.read_bytes()[:100])
    with pytest.raises(SegmenterError, match=r"red\.onnx: OpenCV .* cannot read this model"):
        build_shards(replace(options(videos, tmp_path / "s", network), in_process=in_process), Silent())
    assert not (tmp_path / "s").exists()


def test_a_network_that_crashes_opencv_is_named(
    videos: Path, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: object, begins: object) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGSEGV)

    # Sent by value, since a fresh interpreter would import the original.
    monkeypatch.setattr(
        "bgaug.pipelines.build.segmenters._Trial", type("Crash", (), {"__init__": lambda *_: None, "__call__": crash})
    )
    with pytest.raises(SegmenterError, match=r"red\.onnx: OpenCV cannot run this model: .* SIGSEGV.* Check the file"):
        build_shards(replace(options(videos, tmp_path / "s", network), in_process=False), Silent())
    assert not (tmp_path / "s").exists()


def test_a_frame_without_an_answer_fails_its_video_only(videos: Path, tmp_path: Path) -> None:
    """The logarithm of .9 - red is no number where a frame is bright."""
    shape = (1, 3, 48, 64)
    nodes = [
        node("Conv", ["image", "weights", "bias"], "left", ints("kernel_shape", (1, 1))),
        node("Log", ["left"], "share"),
    ]
    constants = [tensor("weights", [[[[-1]], [[0]], [[0]]]]), tensor("bias", [0.9])]
    data = onnx_model(nodes, constants, {"image": shape}, {"share": (1, 1, 48, 64)})
    settings = f'size = [48, 64]\nscale = {1 / 255}\nactivation = "sigmoid"'
    network = write_model(tmp_path / "log.onnx", data, settings)
    (videos / "moving.mp4").unlink()
    write_video(videos / "dark.mp4", np.full((30, 48, 64, 3), 60, np.uint8))
    outcome = build_shards(options(videos, tmp_path / "s", network), Silent())
    assert [failure.id for failure in outcome.failures] == ["static.mp4"]
    assert "its masks could not be made" in outcome.failures[0].message
    assert "not finite numbers" in outcome.failures[0].message


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(videos: Path, network: Path, tmp_path: Path) -> None:
    words = ["build-shards", videos, "--out", tmp_path / "s", "--size", "native", "--jobs", "1", "--json"]
    words += ["--segmenter", network, "--segmenter-as", "mask"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    check_masks(open_store(tmp_path / "s"), videos, network)
    network.with_suffix(".toml").unlink()
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 1 and "red.toml" in result.output and "activation = " in result.output
