"""Odd files: the right frames, at ascending times, upright. The frames encode their own numbers."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from odd_videos import SHAPE, encode, numbered, numbers, piped, remux, with_cover, with_decoding_times, with_matrix

from bgaug.errors import VideoDecodeError, VideoError
from bgaug.video import declared_length, most_frames, open_video, probe_video, read_video, timeline_of
from bgaug.video.container import is_cut_short
from bgaug.video.timeline import Clock

COUNT = 30


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plain files to make odd ones of: 30 frames at 25 fps."""
    folder = tmp_path_factory.mktemp("odd")
    frames = numbered(COUNT)
    encode(folder / "plain.mp4", frames)
    encode(folder / "plain.ts", frames)
    encode(folder / "bframes.avi", frames, "mpeg4", {"bf": "2", "g": "12"})
    encode(folder / "plain.mpg", frames, "mpeg2video", {"bf": "2", "g": "12"})
    return folder


def check(path: Path, expected: list[int], seconds: list[float] | None = None) -> None:
    """Numbers of the frames, times that ascend, frames by index and clips by time that are those of the pass."""
    whole = read_video(path)
    assert numbers(whole.frames) == expected
    assert (np.diff(whole.pts_seconds) > 0).all()
    if seconds is not None:
        assert np.allclose(whole.pts_seconds - whole.pts_seconds[0], seconds, atol=1e-3)
    assert np.allclose(timeline_of(path).times, whole.pts_seconds)
    with open_video(path) as reader:
        for index in (0, 1, 3, len(expected) // 2, len(expected) - 1):
            assert np.array_equal(reader.get([index])[0], whole.frames[index])
        place = len(expected) // 2
        clip = reader.clip(float(whole.pts_seconds[place]), 4, 2)
        assert np.array_equal(clip, whole.frames[place : place + 8 : 2])
        with pytest.raises(IndexError):
            reader.get([len(expected)])


def evenly(count: int) -> list[float]:
    return [index / 25 for index in range(count)]


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["bframes.avi", "plain.mp4"])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_times_of_decoding_are_put_in_order(made: Path, tmp_path: Path, source: str, container: str) -> None:
    path = remux(tmp_path / f"x.{container}", made / source, with_decoding_times)
    check(path, list(range(COUNT)), evenly(COUNT))


@pytest.mark.parametrize("source", ["plain.ts", "plain.mpg"])
def test_joined_segments_go_on_where_their_times_begin_again(made: Path, tmp_path: Path, source: str) -> None:
    path = tmp_path / source
    path.write_bytes((made / source).read_bytes() * 3)
    check(path, list(range(COUNT)) * 3, evenly(3 * COUNT))
    found = probe_video(path)
    assert found.seams == (COUNT, 2 * COUNT) and found.duration_seconds == pytest.approx(3 * COUNT / 25)
    assert found.info is not None and found.info.fps == 25


@pytest.mark.parametrize("order", [("first", "late"), ("late", "first")])
def test_a_clock_that_jumps_by_hours_is_a_seam(made: Path, tmp_path: Path, order: tuple[str, str]) -> None:
    hours = 95_000 * 90_000  # 26.4 h: near where 33 bits of 90 kHz end

    def later(number: int, packet: Any) -> bool:
        assert packet.time_base == Fraction(1, 90_000)
        packet.pts, packet.dts = packet.pts + hours, packet.dts + hours
        return True

    parts = {"first": made / "plain.ts", "late": remux(tmp_path / "late.ts", made / "plain.ts", later)}
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts[name].read_bytes() for name in order))
    check(path, list(range(COUNT)) * 2, evenly(2 * COUNT))
    assert probe_video(path).seams == (COUNT,)


def test_a_rate_comes_from_the_times_and_not_from_the_header(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).integers(25, 46, COUNT)).tolist()
    options = {"cpu-used": "8", "g": "12"}
    path = encode(
        tmp_path / "x.webm", numbered(COUNT), "libvpx", options, times=times, unit=Fraction(1, 1000), rate=1000
    )
    with av.open(str(path)) as container:
        assert container.streams.video[0].guessed_rate == 1000  # as in the header
    found = probe_video(path)
    seconds = (times[-1] - times[0]) / 1000
    assert found.info is not None and found.info.fps == pytest.approx((COUNT - 1) / seconds, rel=0.02)
    assert found.duration_seconds == pytest.approx(seconds * COUNT / (COUNT - 1), rel=0.02)
    check(path, list(range(COUNT)), [(time - times[0]) / 1000 for time in times])


def test_frames_of_one_time_are_distinguished(tmp_path: Path) -> None:
    times = [40 * (index - (index % 5 == 1)) for index in range(COUNT)]
    assert len(set(times)) < COUNT
    path = encode(tmp_path / "x.mkv", numbered(COUNT), "ffv1", {}, times=times, unit=Fraction(1, 1000))
    check(path, list(range(COUNT)))


def test_a_header_that_is_a_little_off_is_off(tmp_path: Path) -> None:
    """Thirty frames, a twenty-fifth of a second apart, in a file that claims 26 a second."""
    times = [40 * k for k in range(30)]
    path = encode(tmp_path / "x.mkv", numbered(30), "ffv1", {}, times=times, unit=Fraction(1, 1000), rate=26)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 26
    assert read_video(path).fps == pytest.approx(25, abs=0.1)


def test_a_stream_without_times_is_paced_by_its_rate(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.h264"
    annex_b = av.BitStreamFilterContext("h264_mp4toannexb", av.open(str(made / "plain.mp4")).streams.video[0])
    with av.open(str(made / "plain.mp4")) as container:
        packets = [
            out for packet in container.demux(video=0) for out in annex_b.filter(packet if packet.size else None)
        ]
    path.write_bytes(b"".join(bytes(packet) for packet in packets))
    check(path, list(range(COUNT)), evenly(COUNT))


def test_times_are_corrected_whatever_comes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        clock = Clock(
            Fraction(1, 1000), Fraction(1, 25), seams=int(rng.integers(0, 3)), closes_gaps=bool(rng.integers(2))
        )
        stamps = [None if rng.random() < 0.2 else int(rng.integers(-(2**40), 2**40)) for _ in range(30)]
        times = [clock.time(stamp) for stamp in stamps]
        assert all(old < new for old, new in pairwise(times))
    plain = Clock(Fraction(1, 25), Fraction(1, 25), seams=2)
    assert [plain.time(stamp) for stamp in (3, 4, 7)] == [0.12, 0.16, 0.28]  # what ascends is left as it is


# --- frames that are shown, and others --------------------------------------------------------------------------------


def test_pictures_that_lean_on_what_was_cut_away_are_not_counted(tmp_path: Path) -> None:
    options = {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:b-adapt=0:scenecut=0:log-level=none"}
    try:
        source = encode(tmp_path / "whole.mkv", numbered(COUNT, 64, 64), "libx265", options)
    except (av.FFmpegError, av.codec.codec.UnknownCodecError):
        pytest.skip("this build of FFmpeg cannot write HEVC")
    check(source, list(range(COUNT)), evenly(COUNT))
    with av.open(str(source)) as container:
        keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    path = remux(tmp_path / "cut.mkv", source, lambda number, packet: number >= keys[1])
    shown = numbers(read_video(path).frames)
    assert shown == list(range(shown[0], COUNT)) and shown[0] in (11, 12)
    check(path, shown, evenly(len(shown)))
    found = probe_video(path, deep=True)
    assert found.packet_frames == len(shown) and found.deep is not None and found.deep.real_frames == len(shown)


def test_mpeg2_cut_in_an_open_group(made: Path, tmp_path: Path) -> None:
    with av.open(str(made / "plain.mpg")) as container:
        keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    path = remux(tmp_path / "cut.mkv", made / "plain.mpg", lambda number, packet: number >= keys[1])
    shown = numbers(read_video(path).frames)
    check(path, shown, evenly(len(shown)))


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="attached image") as caught:
        open_video(with_cover(tmp_path / "song.mp4", None))
    assert caught.value.reason == "no_video_stream"
    path = with_cover(tmp_path / "clip.mp4", numbered(COUNT))
    check(path, list(range(COUNT)), evenly(COUNT))


def test_a_size_that_changes_keeps_every_frame(made: Path, tmp_path: Path) -> None:
    other = encode(tmp_path / "other.ts", numbered(COUNT, 96, 128), "libx264", {"crf": "10"}, pixel_format="yuv444p")
    path = tmp_path / "joined.ts"
    path.write_bytes((made / "plain.ts").read_bytes() + other.read_bytes())
    check(path, list(range(COUNT)) * 2, evenly(2 * COUNT))


# --- the way it is meant to be seen -----------------------------------------------------------------------------------

TURNS: dict[tuple[float, float, float, float], Callable[[np.ndarray], np.ndarray]] = {
    (1, 0, 0, 1): lambda image: image,
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (-1, 0, 0, -1): lambda image: image[::-1, ::-1],
    (0, 1, -1, 0): lambda image: np.rot90(image, 3),  # clockwise, as a telephone held upright has it
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (0, 1, 1, 0): lambda image: image.swapaxes(0, 1),
    (0, -1, -1, 0): lambda image: image[::-1, ::-1].swapaxes(0, 1),
    (0, 2, -2, 0): lambda image: np.rot90(image, 3),
    (0.7, 0.7, -0.7, 0.7): lambda image: image,  # no quarter turn: as it is stored
    (0, 0, 0, 0): lambda image: image,
}


@pytest.mark.parametrize("matrix", TURNS)
def test_display_matrices(made: Path, tmp_path: Path, matrix: tuple[float, float, float, float]) -> None:
    stored = read_video(made / "plain.mp4").frames
    path = with_matrix(tmp_path / "x.mp4", made / "plain.mp4", *matrix)
    expected = np.stack([TURNS[matrix](image) for image in stored[:3]])
    with open_video(path) as reader:
        assert np.array_equal(reader.get([0, 1, 2]), expected)
        info = reader.info
        first = next(iter(reader.scan()))
        assert np.array_equal(first.rgb(), expected[0])
        plain = np.rot90(stored[0][:, ::-1] if info.mirrored else stored[0], info.rotation_degrees // 90)
        assert np.array_equal(plain, expected[0])  # what the two facts promise
    if shutil.which("ffmpeg") and matrix[0] != 0.7:
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-i",
            str(path),
            "-frames:v",
            "3",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-",
        ]
        theirs = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
        assert np.array_equal(theirs.reshape(expected.shape), expected)


@pytest.mark.parametrize("turn", [(1, 0, 0, 1), (0, 1, -1, 0)])
def test_pixels_that_are_not_square(tmp_path: Path, turn: tuple[int, int, int, int]) -> None:
    wide = encode(tmp_path / "wide.mp4", numbered(3), sample_aspect=Fraction(3, 2))
    path = with_matrix(tmp_path / "x.mp4", wide, *turn)
    with open_video(path) as reader:
        height, width = reader.info.display_size
        assert (reader.info.height, reader.info.width) == (SHAPE if turn[0] else SHAPE[::-1])
        assert height * width and width / height == pytest.approx(2.0 if turn[0] else 0.5)
        assert next(iter(reader.scan())).display_size == (height, width)
    assert probe_video(path).to_json()["info"]["display_size"] == (height, width)


# --- lengths that lie -------------------------------------------------------------------------------------------------


def with_avi_length(path: Path, source: Path, length: int) -> Path:
    data = bytearray(source.read_bytes())
    place = data.index(b"strh") + 8 + 32
    data[place : place + 4] = struct.pack("<I", length)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("length", [2**31 - 1, 2**30, 2**32 - 1])
def test_a_length_that_cannot_be_is_no_length(made: Path, tmp_path: Path, length: int) -> None:
    path = with_avi_length(tmp_path / "x.avi", made / "bframes.avi", length)
    assert declared_length(path) == COUNT
    check_whole(path)
    with open_video(path) as reader:
        assert reader.info.declared_frames is None
    found = probe_video(path, deep=True)
    assert not found.cut_short and found.deep is not None and found.deep.breaks_off is None
    assert found.duration_seconds == pytest.approx(COUNT / 25)


def check_whole(path: Path) -> None:
    assert numbers(read_video(path).frames) == list(range(COUNT)) and not is_cut_short(path)


@pytest.mark.parametrize("container", ["avi", "matroska", "flv", "mpegts"])
def test_what_came_out_of_a_pipe_is_whole(made: Path, tmp_path: Path, container: str) -> None:
    source = "bframes.avi" if container == "avi" else "plain.mp4"
    path = piped(tmp_path / f"x.{container[:3]}", made / source, container)
    check_whole(path)
    assert abs(declared_length(path) - COUNT) <= 2


@pytest.mark.parametrize("container", ["avi", "matroska"])
def test_what_came_out_of_a_pipe_and_was_cut_is_reported(made: Path, tmp_path: Path, container: str) -> None:
    source = "bframes.avi" if container == "avi" else "plain.mp4"
    data = piped(tmp_path / "whole", made / source, container).read_bytes()
    path = tmp_path / "x"
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(VideoDecodeError) as caught:
        read_video(path)
    assert caught.value.reason == "truncated" and 0 < caught.value.num_good_frames < COUNT


def test_no_file_holds_more_frames_than_its_size_allows(made: Path) -> None:
    for path in made.iterdir():
        size = path.stat().st_size
        assert COUNT <= most_frames(size) < size


# --- the files of public reports --------------------------------------------------------------------------------------

REPORTED: dict[str, tuple[int, float, float, tuple[int, int]]] = {
    "hevc_opengop_cut.mkv": (25, 25.0, 1.0, (120, 160)),
    "joined_segments_120_frames.ts": (120, 25.0, 4.8, (120, 160)),
    "matrix_hflip.mp4": (50, 25.0, 2.0, (120, 160)),
    "matrix_vflip.mp4": (50, 25.0, 2.0, (120, 160)),
    "mpeg4_bframes_remuxed_120_frames.mp4": (120, 25.0, 4.8, (120, 160)),
    "piped_75_frames.avi": (75, 25.0, 3.0, (120, 160)),
    "recorder_300_1010.webm": (1310, 28.8, 45.5, (48, 64)),
    "sar_64_45.mp4": (25, 25.0, 1.0, (144, 256)),
}
"""Frames, rate, seconds and display size, by ffmpeg, ffprobe and the times of a plain pass."""


@pytest.mark.parametrize("name", REPORTED)
def test_files_of_public_reports(real_data: Path, name: str) -> None:
    path = real_data / "odd" / name
    count, rate, seconds, size = REPORTED[name]
    whole = read_video(path)
    assert len(whole.frames) == count and (np.diff(whole.pts_seconds) > 0).all()
    if name != "recorder_300_1010.webm":
        assert np.allclose(np.diff(whole.pts_seconds), 1 / rate)
    assert whole.fps == pytest.approx(rate, abs=0.05)
    found = probe_video(path)
    assert found.duration_seconds == pytest.approx(seconds, abs=0.05) and found.packet_frames == count
    indices = [*np.random.default_rng(0).integers(0, count, 8).tolist(), 0, 1, 2, 3, count - 1]
    with open_video(path) as reader:
        assert reader.info.display_size == size
        for index in indices:
            assert np.array_equal(reader.get([index])[0], whole.frames[index])


def test_a_song_with_a_cover_is_no_video(real_data: Path) -> None:
    with pytest.raises(VideoError) as caught:
        open_video(real_data / "odd" / "audio_with_cover.mp4")
    assert caught.value.reason == "no_video_stream"
