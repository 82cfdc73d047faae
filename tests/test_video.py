from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from worlds import moving_square

from bgaug.errors import UsageError, VideoDecodeError, VideoError
from bgaug.video import DECODERS, Decoder, declared_length, open_video, read_video, write_video

needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")
both = pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("clip") / "square.mp4"
    frames = moving_square(num_frames=30)[0]
    write_video(path, frames, fps=25, options={"crf": "0"})
    return path, frames


@both
def test_written_frames_are_read(clip: tuple[Path, np.ndarray], decoder: Decoder) -> None:
    path, frames = clip
    video = read_video(path, decoder)
    assert video.frames.shape == frames.shape
    assert np.abs(video.frames.astype(int) - frames).max() <= 3  # the colour conversion rounds
    assert np.allclose(video.pts_seconds, np.arange(30) / 25) and video.fps == 25


@both
def test_frames_by_index_are_those_of_a_pass(clip: tuple[Path, np.ndarray], decoder: Decoder) -> None:
    path, _ = clip
    whole = read_video(path, decoder).frames
    indices = [29, 0, 7, 7, 13]
    with open_video(path, decoder) as reader:
        assert np.array_equal(reader.get(indices), whole[indices])
        assert reader.get([]).shape == (0, 48, 64, 3)
        assert np.array_equal(reader.get([3]), whole[3:4])  # a second pass over the same reader
        for wrong in ([30], [-1]):
            with pytest.raises(IndexError):
                reader.get(wrong)


@both
@pytest.mark.parametrize(
    ("start", "num_frames", "stride", "expected"),
    [
        (0.0, 3, 1, [0, 1, 2]),
        (0.04, 3, 2, [1, 3, 5]),
        (0.05, 2, 1, [1, 2]),
        (1.16, 1, 1, [29]),
        (0.4, 4, 5, [10, 15, 20, 25]),
    ],
)
def test_clips_by_time(
    clip: tuple[Path, np.ndarray], decoder: Decoder, start: float, num_frames: int, stride: int, expected: list[int]
) -> None:
    path, _ = clip
    whole = read_video(path, decoder).frames
    with open_video(path, decoder) as reader:
        assert np.array_equal(reader.clip(start, num_frames, stride), whole[expected])


def test_a_clip_past_the_end_is_refused(clip: tuple[Path, np.ndarray]) -> None:
    with open_video(clip[0]) as reader, pytest.raises(IndexError, match="holds 2 of the 4 frames"):
        reader.clip(1.12, 4)


def test_stride_and_size(clip: tuple[Path, np.ndarray]) -> None:
    with open_video(clip[0]) as reader:
        got = list(reader.iter(stride=7, size=(24, 32)))
        assert [index for index, _, _ in got] == [0, 7, 14, 21, 28]
        assert all(image.shape == (24, 32, 3) for _, _, image in got)
        with pytest.raises(ValueError, match="stride"):
            next(iter(reader.iter(stride=0)))


def test_info(clip: tuple[Path, np.ndarray]) -> None:
    with open_video(clip[0]) as reader:
        info = reader.info
    assert (info.height, info.width, info.declared_frames, info.codec) == (48, 64, 30, "h264")
    assert declared_length(clip[0]) == 30


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "missing"), (b"", "empty"), (b"this is text, not a video" * 20, "not_a_video")]
)
def test_files_that_are_no_videos(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "x.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError) as caught:
        open_video(path)
    assert caught.value.reason == reason and str(path) in str(caught.value)
    assert declared_length(path) == 0


def test_a_truncated_file_says_how_much_was_good(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    write_video(whole, frames, options={"movflags": "+faststart", "g": "1"})
    data = whole.read_bytes()
    moov_first = data.find(b"moov") < data.find(b"mdat")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(VideoError) as caught:
        read_video(broken)
    assert caught.value.reason in ("corrupt", "not_a_video")
    if moov_first:
        assert isinstance(caught.value, VideoDecodeError) and 0 < caught.value.num_good_frames < 40


def test_unknown_decoder_is_refused(clip: tuple[Path, np.ndarray]) -> None:
    with pytest.raises(UsageError, match="auto, pyav, decord"):
        open_video(clip[0], "ffmpeg")  # type: ignore[arg-type]
    assert DECODERS == ("auto", "pyav", "decord")


def test_write_video_checks_its_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frames.shape = "):
        write_video(tmp_path / "x.mp4", np.zeros((3, 4, 4), np.uint8))


# --- real files -----------------------------------------------------------------------------------------------------

EXPECTED_REASON = {
    "audio_only.mp4": "no_video_stream",
    "decord_corrupted.mp4": "corrupt",
    "text_not_video.mp4": "not_a_video",
    "truncated_faststart.mp4": "corrupt",
    "truncated_no_moov.mp4": "not_a_video",
    "zero_bytes.mp4": "empty",
}


def test_odd_files_are_read_or_refused_clearly(real_data: Path) -> None:
    seen = set()
    for path in sorted((real_data / "torture").iterdir()):
        try:
            with open_video(path) as reader:
                count = sum(1 for _ in reader.scan())
        except VideoError as error:
            assert error.reason == EXPECTED_REASON.get(path.name), f"{path.name}: {error}"
            seen.add(path.name)
        else:
            assert count > 0 and path.name not in EXPECTED_REASON, path.name
    assert seen == set(EXPECTED_REASON)


def test_rotation_is_applied(real_data: Path) -> None:
    folder = real_data / "torture"
    upright = read_video(folder / "rot_0.mov").frames
    turned = read_video(folder / "rot_90.mov").frames
    assert upright.shape[1:3] == turned.shape[1:3][::-1]


@needs_decord
@pytest.mark.parametrize("name", ["v_SoccerJuggling_g23_c01.avi", "kth_person04_boxing_d1.mp4", "bikes.mp4"])
def test_decoders_agree_on_real_files(real_data: Path, name: str) -> None:
    path = real_data / "clips" / name
    mine, other = read_video(path, "pyav"), read_video(path, "decord")
    assert np.allclose(mine.pts_seconds, other.pts_seconds)
    # The two bring scalers of different age along: single pixels round otherwise.
    assert np.abs(mine.frames.astype(np.int16) - other.frames).max() <= 2


@needs_decord
def test_decord_is_not_trusted_with_program_streams(real_data: Path) -> None:
    with pytest.raises(VideoError) as caught:
        open_video(real_data / "clips" / "v_biking_01_01.mpg", "decord")
    assert caught.value.reason == "unsupported_container"


@needs_decord
def test_decord_never_pads_a_wrong_length(real_data: Path) -> None:
    path = real_data / "torture" / "tc_discard_first_keyframe.mp4"
    assert len(read_video(path, "pyav").frames) == 25
    with pytest.raises(VideoDecodeError) as caught:
        read_video(path, "decord")
    assert caught.value.reason == "length_mismatch"
