"""One conversion to RGB: against a reference in closed form, and against FFmpeg's own where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from odd_videos import encode

from bgaug.video import open_video, read_video
from bgaug.video.convert import RgbConverter

WEIGHTS = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Share of red and blue in luma, by FFmpeg's number of the matrix: BT.709, unnamed, BT.601 twice, BT.2020."""

TOLERANCE, MEAN_TOLERANCE = 5, 2
"""Grey levels: FFmpeg's tables round each of three terms down by up to one or two."""

SUBSAMPLED = {"yuv420p": (2, 2), "yuv422p": (1, 2), "yuv444p": (1, 1), "yuv411p": (1, 4), "yuv440p": (2, 1)}


def reference(planes: list[np.ndarray], bits: int, matrix: int, full: bool) -> np.ndarray:
    """RGB by the definition of the matrix; chroma repeated over the pixels that it belongs to."""
    height, width = planes[0].shape
    scale = 2.0 ** (bits - 8)
    black, luma, chroma = (0, 2**bits - 1, 2**bits - 1) if full else (16 * scale, 219 * scale, 224 * scale)
    wide = [
        plane.repeat(-(-height // len(plane)), 0).repeat(-(-width // plane.shape[1]), 1)[:height, :width]
        for plane in planes
    ]
    y = (wide[0] - black) / luma
    u, v = ((plane - 128 * scale) / chroma for plane in wide[1:])
    red, blue = WEIGHTS[matrix]
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.clip(np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1), 0, 1) * 255


def frame_of(planes: list[np.ndarray], pixel_format: str, matrix: int, full: bool) -> Any:
    height, width = planes[0].shape
    frame: Any = av.VideoFrame(width, height, pixel_format)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((values.shape[0], plane.line_size // values.itemsize), values.dtype)
        rows[:, : values.shape[1]] = values
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame


def planes_of(pixel_format: str, bits: int, height: int, width: int, full: bool, seed: int) -> list[np.ndarray]:
    """Any luma; chroma is constant where it is interpolated: down each column, and in odd widths along rows."""
    rng = np.random.default_rng(seed)
    down, across = SUBSAMPLED[pixel_format.removesuffix("10le")]
    low, high = (0, 2**bits - 1) if full else (16 << bits - 8, 235 << bits - 8)
    dtype = np.uint8 if bits == 8 else np.uint16
    luma = rng.integers(low, high, (height, width)).astype(dtype)
    size = -(-height // down), -(-width // across)
    # Within what RGB can show, else clipping is all that is tested.
    near = 128 << bits - 8
    spread = 60 << bits - 8
    values = rng.integers(near - spread, near + spread, (2, size[1])).astype(dtype)
    if width % across:
        values[:] = values[:, :1]
    return [luma, *(np.tile(row, (size[0], 1)) for row in values)]


@pytest.mark.parametrize("size", [(48, 64), (49, 64), (48, 63), (121, 161)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("full", [False, True])
def test_the_conversion_is_its_definition(pixel_format: str, matrix: int, full: bool, size: tuple[int, int]) -> None:
    bits = 10 if pixel_format.endswith("10le") else 8
    planes = planes_of(pixel_format, bits, *size, full, seed=matrix)
    found = RgbConverter()(frame_of(planes, pixel_format, matrix, full), *size)
    expected = reference(planes, bits, matrix, full)
    assert found.shape == (*size, 3)
    difference = np.abs(found - expected)
    assert difference.max() <= TOLERANCE and difference.mean() < MEAN_TOLERANCE


def test_grey_is_grey() -> None:
    ramp = np.arange(16, 236, dtype=np.uint8)[None].repeat(4, 0)
    frame = frame_of([ramp, np.full((2, 110), 128, np.uint8), np.full((2, 110), 128, np.uint8)], "yuv420p", 2, False)
    found = RgbConverter()(frame, 4, 220)
    assert (found == found[..., :1]).all()
    assert np.abs(found[0, :, 0] - (np.arange(220) * 255 / 219)).max() <= 1
    assert found[0, 0, 0] == 0 and found[0, -1, 0] == 255


def by_ffmpeg(path: Path, height: int, width: int) -> np.ndarray:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "2", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

CODED = [
    ("yuv420p", "libx264", ".mp4", (48, 64)),
    ("yuv420p10le", "libx264", ".mp4", (48, 64)),
    ("yuv420p10le", "ffv1", ".mkv", (49, 65)),
    ("yuv444p10le", "libx264", ".mp4", (49, 65)),
    ("yuv420p", "libvpx-vp9", ".webm", (241, 321)),
    ("yuv411p", "ffv1", ".mkv", (48, 64)),
    ("yuv410p", "ffv1", ".mkv", (48, 64)),
    ("yuv440p", "ffv1", ".mkv", (48, 64)),
    ("yuva420p", "ffv1", ".mkv", (48, 64)),
    ("gray", "ffv1", ".mkv", (48, 64)),
    ("gray10le", "ffv1", ".mkv", (48, 64)),
    ("gbrp10le", "ffv1", ".mkv", (48, 64)),
]


@needs_ffmpeg
@pytest.mark.parametrize(("pixel_format", "codec", "suffix", "size"), CODED)
def test_it_is_the_default_of_ffmpeg(
    tmp_path: Path, pixel_format: str, codec: str, suffix: str, size: tuple[int, int]
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    options = {"cpu-used": "8"} if codec == "libvpx-vp9" else {}
    path = encode(tmp_path / f"x{suffix}", frames, codec, options, pixel_format=pixel_format)
    assert np.array_equal(read_video(path).frames, by_ffmpeg(path, *size))


TAGGED = ["hevc10_pq.mp4", "tc_bt2020_10bit.mp4", "tc_h264_10bits.mp4", "tc_testsrc2_odd_height_and_width_vp9.mp4"]


@needs_ffmpeg
@pytest.mark.parametrize("name", [*TAGGED, "tc_bt601_full_range.mp4", "tc_nasa_13013.mp4"])
def test_it_is_the_default_of_ffmpeg_on_real_files(real_data: Path, name: str) -> None:
    path = real_data / "torture" / name
    with open_video(path) as reader:
        ours = reader.get([0, 1])
    assert np.array_equal(ours, by_ffmpeg(path, *ours.shape[1:3]))
