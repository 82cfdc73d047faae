"""Segmentation networks: made ONNX models whose answer is known, damaged ones, and a published person network."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_models import ints, mixed, model, node, red_network, tensor

from bgaug.errors import SegmenterError
from bgaug.masks.segmenter import Segmenter
from bgaug.masks.segmenter_settings import EXAMPLE, PRESETS, SegmenterSettings, settings_of
from bgaug.sizing import resize_area
from bgaug.video import read_video

EARLIER = int(cv2.__version__.split(".")[0]) < 5
PLAIN = SegmenterSettings.model_validate({"size": (24, 32), "scale": 1 / 255, "activation": "none"})


def noise(seed: int = 0, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def made(data: bytes, **settings: object) -> Segmenter:
    return Segmenter(Path("net.onnx"), data, SegmenterSettings.model_validate({**PLAIN.model_dump(), **settings}))


# --- the answer of a network -----------------------------------------------------------------------------------------


def test_the_share_is_the_channel_that_the_network_gives(tmp_path: Path) -> None:
    image = noise()
    share = Segmenter.load(red_network(tmp_path / "red.onnx")).share(image)
    assert share.dtype == np.float32 and share.shape == (24, 32)
    np.testing.assert_allclose(share, image[..., 0] / 255, atol=1e-5)


def test_a_disc_comes_back_at_the_size_of_the_image(tmp_path: Path) -> None:
    y, x = np.mgrid[:96, :160]
    disc = np.hypot(x - 90, y - 40) < 25
    image = np.where(disc[..., None], (255, 10, 10), (0, 200, 200)).astype(np.uint8)
    segmenter = Segmenter.load(red_network(tmp_path / "red.onnx", (48, 80)))
    share = segmenter.share(image)
    assert share.shape == (96, 160) and share.min() >= 0 and share.max() <= 1
    found = share > 0.5
    assert (found & disc).sum() / (found | disc).sum() > 0.95
    assert segmenter.share(image, (30, 50)).shape == (30, 50)


def test_mean_and_scale_are_those_of_each_colour() -> None:
    image = noise(1)
    mean, scale = (10.0, 20.0, 30.0), (0.0005, 0.001, 0.0015)
    share = made(mixed([[1, 1, 1]], [0.1], (24, 32)), mean=mean, scale=scale).share(image)
    expected = ((image - np.array(mean)) * scale).sum(2) + 0.1
    np.testing.assert_allclose(share, np.clip(expected, 0, 1), atol=1e-5)


def test_the_order_of_channels() -> None:
    image = noise(2)
    share = made(mixed([[1, 0, 0]], [0], (24, 32)), channels="bgr").share(image)
    np.testing.assert_allclose(share, image[..., 2] / 255, atol=1e-5)


def test_channels_last() -> None:
    data = model(
        [node("Transpose", ["image"], "turned", ints("perm", (0, 1, 3, 2)))],
        [],
        {"image": (1, 32, 24, 3)},
        {"turned": (1, 32, 3, 24)},
    )
    image = noise(3, 32, 24)
    segmenter = made(data, size=(32, 24), layout="nhwc", channel=5)
    share = segmenter.share(image, (32, 3))  # the output (1, 32, 3, 24) is h, w, channels
    np.testing.assert_allclose(share, image[:, 5] / 255, atol=1e-5)


def test_activations_in_closed_form() -> None:
    image = noise(4)
    red, green = image[..., 0] / 255, image[..., 1] / 255
    two = mixed([[4, 0, 0], [0, 4, 0]], [0, 0], (24, 32))
    sigmoid = made(two, activation="sigmoid", channel=1).share(image)
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-4 * green)), atol=1e-5)
    softmax = made(two, activation="softmax", channel=1).share(image)
    np.testing.assert_allclose(softmax, 1 / (1 + np.exp(4 * red - 4 * green)), atol=1e-5)
    minmax = made(two, activation="minmax").share(image)
    np.testing.assert_allclose(minmax, (red - red.min()) / np.ptp(red), atol=1e-5)
    level = np.full((24, 32, 3), 90, np.uint8)
    assert not made(two, activation="minmax").share(level).any()
    large = made(mixed([[9e4, 0, 0], [0, 9e4, 0]], [0, 0], (24, 32)), activation="softmax").share(image)
    assert np.isfinite(large).all()


def test_a_softmax_of_probabilities_keeps_them() -> None:
    image = noise(5)
    share = made(mixed([[-1, 0, 0], [1, 0, 0]], [1, 0], (24, 32)), activation="softmax", channel=1).share(image)
    np.testing.assert_allclose(share, image[..., 0] / 255, atol=1e-3)


def test_outputs_by_number_and_name() -> None:
    nodes = [node("Sigmoid", ["image"], "first"), node("Relu", ["image"], "second")]
    shape = (1, 3, 24, 32)
    data, image = model(nodes, [], {"image": shape}, {"first": shape, "second": shape}), noise(6)
    for output in (1, "second"):
        np.testing.assert_allclose(made(data, output=output).share(image), image[..., 0] / 255, atol=1e-5)
    for output in (2, "third"):
        with pytest.raises(SegmenterError, match=rf"no output {output!r}; there are 0 \(first\), 1 \(second\)"):
            made(data, output=output)


def test_a_copy_in_another_process_reads_the_same_bytes(tmp_path: Path) -> None:
    path = red_network(tmp_path / "red.onnx")
    segmenter = Segmenter.load(path)
    assert segmenter.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    sent = pickle.dumps(segmenter)
    copy = pickle.loads(sent)
    assert copy.digest == segmenter.digest and np.array_equal(copy.share(noise()), segmenter.share(noise()))
    path.with_suffix(".toml").unlink()  # its settings travel with it
    assert pickle.loads(sent).settings == segmenter.settings
    path.write_bytes(mixed([[0, 1, 0]], [0], (24, 32)))
    with pytest.raises(SegmenterError, match="has changed: expected sha256"):
        pickle.loads(sent)


def test_the_digest_is_of_model_and_settings() -> None:
    data = mixed([[1, 0, 0]], [0], (24, 32))
    one, other = made(data), made(data, channels="bgr")
    assert one.sha256 == other.sha256 and one.digest != other.digest


# --- models that cannot be used --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
@pytest.mark.parametrize("data", [b"", b"no model", b"\0" * 200])
def test_a_file_that_is_no_model(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(data)
    with pytest.raises(SegmenterError, match=r"net.*: OpenCV .* cannot read this model: .* export it"):
        Segmenter.load(path, PLAIN)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.99])
def test_a_truncated_model(tmp_path: Path, kept: float) -> None:
    path = red_network(tmp_path / "red.onnx")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(SegmenterError, match="cannot read this model"):
        Segmenter.load(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SegmenterError, match="expected a model in a file .onnx or .tflite"):
        Segmenter.load(tmp_path / "net.pt")
    with pytest.raises(SegmenterError, match="cannot be read: No such file"):
        Segmenter.load(tmp_path / "none.onnx", PLAIN)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(SegmenterError, match="a folder, not a regular file"):
        Segmenter.load(tmp_path / "folder.onnx", PLAIN)
    with open(tmp_path / "large.onnx", "wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(SegmenterError, match="larger than expected"):
        Segmenter.load(tmp_path / "large.onnx", PLAIN)


@pytest.mark.skipif(EARLIER, reason="earlier versions of OpenCV do not show the inputs of a network")
def test_an_input_that_the_network_does_not_take() -> None:
    plain = mixed([[1, 0, 0]], [0], (24, 32))
    with pytest.raises(SegmenterError, match=r"takes CV_32F \[1 x 3 x 24 x 32\], and its settings give .*24 x 32 x 3"):
        made(plain, layout="nhwc")
    with pytest.raises(SegmenterError, match=r"takes .*, and its settings give CV_32F \[1 x 3 x 64 x 64\]: set size"):
        made(plain, size=(64, 64))


def test_an_input_of_any_size() -> None:
    shape = ("batch", 3, "height", "width")
    data = model([node("Relu", ["image"], "share")], [], {"image": shape}, {"share": shape})
    image = noise(7)
    for size in ((24, 32), (48, 64)):
        share = made(data, size=size).share(image, size)
        np.testing.assert_allclose(share, resize_area(image, size)[..., 0] / 255, atol=1e-5)


@pytest.mark.skipif(EARLIER, reason="earlier versions of OpenCV do not show the inputs of a network")
def test_several_inputs() -> None:
    shape = (1, 3, 24, 32)
    data = model([node("Add", ["image", "state"], "share")], [], {"image": shape, "state": shape}, {"share": shape})
    with pytest.raises(SegmenterError, match="the network has 2 inputs; expected one, an image"):
        made(data)


def test_outputs_of_another_form() -> None:
    plain = mixed([[1, 0, 0]], [0], (24, 32))
    with pytest.raises(SegmenterError, match=r"got the shape \(1, 1, 24, 32\), which has no channel 1"):
        made(plain, channel=1).share(noise())
    vector = model(
        [node("Reshape", ["image", "shape"], "flat")],
        [tensor("shape", [1, 1, 1, 1, 24 * 32 * 3], whole=True)],
        {"image": (1, 3, 24, 32)},
        {"flat": (1, 1, 1, 1, 24 * 32 * 3)},
    )
    with pytest.raises(SegmenterError, match="expected numbers .1, channels, height, width.*, got the shape"):
        made(vector).share(noise())


def test_values_that_are_no_probability() -> None:
    with pytest.raises(SegmenterError, match='values from .* a probability is expected: set activation = "sigmoid"'):
        made(mixed([[20, 0, 0]], [-10], (24, 32))).share(noise())
    roots = mixed([[1, 0, 0]], [-2], (24, 32), "Sqrt")
    logarithms = mixed([[0, 0, 0]], [0], (24, 32), "Log")
    for data in (roots, logarithms, mixed([[1, 0, 0]], [np.nan], (24, 32))):
        with pytest.raises(SegmenterError, match="'share' contains values that are not finite"):
            made(data, activation="sigmoid").share(noise())


@pytest.mark.parametrize("image", [noise()[..., 0], noise().astype(np.float32), noise()[:0], noise()[..., :2]])
def test_images_of_another_form(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"an image must be uint8 \(H, W, 3\), got"):
        made(mixed([[1, 0, 0]], [0], (24, 32))).share(image)


# --- settings --------------------------------------------------------------------------------------------------------


def settings(folder: Path, text: str | bytes) -> SegmenterSettings:
    (folder / "net.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return settings_of(folder / "net.onnx")


def test_the_example_is_complete(tmp_path: Path) -> None:
    assert settings(tmp_path, EXAMPLE).size == (256, 256)
    assert {line.split(" = ")[0] for line in EXAMPLE.splitlines()} == set(SegmenterSettings.model_fields)


def test_a_preset_and_what_differs_from_it(tmp_path: Path) -> None:
    assert settings(tmp_path, 'preset = "modnet"') == PRESETS["modnet"]
    found = settings(tmp_path, 'preset = "modnet"\nsize = [288, 512]\nmean = 0')
    assert (found.size, found.mean, found.scale) == ((288, 512), (0, 0, 0), PRESETS["modnet"].scale)


def test_a_known_name_has_a_preset_unless_a_file_gives_another(tmp_path: Path) -> None:
    path = tmp_path / "selfie_segmentation_landscape.tflite"
    assert settings_of(path) == PRESETS["mediapipe-selfie-landscape"]
    path.with_suffix(".toml").write_text('preset = "u2net"')
    assert settings_of(path) == PRESETS["u2net"]
    with pytest.raises(SegmenterError) as found:
        settings_of(tmp_path / "mine.onnx")
    assert f"write {tmp_path / 'mine.toml'}" in str(found.value) and EXAMPLE in str(found.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "size is missing; scale is missing; activation is missing"),
        (EXAMPLE + "sice = 3", "there is no setting sice; there are preset, size"),
        ('preset = "selfie"', "there is no preset 'selfie'; there are mediapipe-selfie"),
        ("preset = 3", "there is no preset 3"),
        ('preset = "u2net"\nsize = 320', "size: .*, got 320"),
        ('preset = "u2net"\nsize = [320]', "size"),
        ('preset = "u2net"\nsize = [4, 320]', "size.0: .*, got 4"),
        ('preset = "u2net"\nsize = [320.0, 320]', "size.0: .*, got 320.0"),
        ('preset = "u2net"\nsize = [true, 320]', "size.0: .*, got True"),
        ('preset = "u2net"\nsize = [320, 1000000000]', "size.1: .*, got 1000000000"),
        ('preset = "u2net"\nmean = nan', "mean.0: .* finite number, got nan"),
        ('preset = "u2net"\nscale = [1, 1, inf]', "scale.2: .* finite number, got inf"),
        ('preset = "u2net"\nscale = 0', "a scale of 0 makes every image black"),
        ('preset = "u2net"\nscale = ["1", 1, 1]', "scale.0: .*, got '1'"),
        ('preset = "u2net"\nactivation = "relu"', "activation: .*'minmax', got 'relu'"),
        ('preset = "u2net"\nchannels = "gbr"', "channels: .*, got 'gbr'"),
        ('preset = "u2net"\nlayout = []', r"layout: .*, got \[\]"),
        ('preset = "u2net"\nchannel = -1', "channel: .*, got -1"),
        ('preset = "u2net"\noutput = 1.5', "output: .*, got 1.5"),
        ("size = [", "it is not TOML"),
        (b"\xff\xfe\0", "it is not TOML"),
        ("size = " + "[" * 20_000, "nested too deeply|it is not TOML"),
        ("channel = " + "9" * 5_000, "it is not TOML"),
        ("# " + "x" * (1 << 16), "larger than expected"),
    ],
)
def test_wrong_settings(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(SegmenterError, match=rf"net\.toml: .*({message})"):
        settings(tmp_path, text)


# --- a published network ---------------------------------------------------------------------------------------------


def test_a_person_network_on_web_video(real_data: Path, report: list[str]) -> None:
    path, folder = real_data / "models" / "selfie_segmentation.tflite", real_data / "actions" / "jhmdb"
    if not path.is_file() or not folder.is_dir():
        pytest.skip(f"no {path} or no {folder}")
    segmenter = Segmenter.load(path)
    assert segmenter.settings == PRESETS["mediapipe-selfie"]
    scores = []
    for video in sorted((folder / "videos").glob("*/*.mp4"))[::60]:
        frames = read_video(video).frames[::6]
        bits = np.load(folder / "masks" / video.parent.name / f"{video.stem}.npz")["bits"][::6]
        true = np.unpackbits(bits, axis=1)[:, : 240 * 320].reshape(-1, 240, 320) > 0
        found = np.stack([segmenter.share(frame) > 0.5 for frame in frames])
        scores.append(np.mean([(f & t).sum() / max(1, (f | t).sum()) for f, t in zip(found, true, strict=True)]))
    report.append(f"person network, J over {len(scores)} clips: {np.mean(scores):.3f}")
    assert 0.4 < np.mean(scores) < 0.75
