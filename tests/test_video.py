from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from worlds import moving_square

import bgaug.video.timeline as timeline_module
from bgaug.errors import UsageError, VideoDecodeError, VideoError
from bgaug.video import DECODERS, Decoder, declared_length, open_video, read_video, timeline_of, write_video
from bgaug.video.container import is_cut_short

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


@pytest.mark.parametrize("size", [(240, 320), (120, 160), (164, 200), (48, 64), (720, 1280)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "gray"])
def test_thumbnails_are_the_frame_made_small(tmp_path: Path, size: tuple[int, int], pixel_format: str) -> None:
    coarse = np.random.default_rng(0).integers(60, 200, (6, 8, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR)
    codec = "ffv1" if pixel_format == "gray" else "libx264"
    encoded(tmp_path / "x.mkv", picture[None].repeat(3, 0), codec, {"pix_fmt": pixel_format})
    with open_video(tmp_path / "x.mkv") as reader:
        frame = next(iter(reader.scan()))
        found, image = frame.thumbnail().astype(float), frame.rgb()
    expected = cv2.cvtColor(cv2.resize(image, (80, 60), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2YUV).astype(float)
    assert found.shape == (60, 80, 3)
    for channel in range(3 if pixel_format != "gray" else 1):  # the same up to a scale: planes of a video span less
        assert np.corrcoef(found[..., channel].ravel(), expected[..., channel].ravel())[0, 1] > 0.99
    if pixel_format == "gray":
        assert (found[..., 1:] == 128).all()


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


def test_unknown_decoder_is_refused(clip: tuple[Path, np.ndarray]) -> None:
    with pytest.raises(UsageError, match="auto, pyav, decord"):
        open_video(clip[0], "ffmpeg")  # type: ignore[arg-type]
    assert DECODERS == ("auto", "pyav", "decord")


def test_write_video_checks_its_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frames.shape = "):
        write_video(tmp_path / "x.mp4", np.zeros((3, 4, 4), np.uint8))


# --- frames by index are those of a pass, whatever the file -----------------------------------------------------------


def encoded(path: Path, frames: np.ndarray, codec: str, options: dict[str, str], pts: list[int] | None = None) -> Path:
    """Frames through an encoder, with times of one's own (milliseconds) if given."""
    # The index in front, so that a file that is cut short can be opened.
    front = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=front) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = options.pop("pix_fmt", "yuv420p")
        stream.options = options
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, image in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            if pts is not None:
                picture.pts, picture.time_base = pts[index], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def remuxed_from(path: Path, source: Path, first_packet: int) -> Path:
    """The packets of a file from one in the middle on, as a cut without re-encoding leaves them."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(old.streams.video[0])):
            if number >= first_packet and packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return path


X264 = "keyint=12:min-keyint=12:scenecut=0:bframes=3"
FILES: dict[str, tuple[str, dict[str, str]]] = {
    "closed.mp4": ("libx264", {"x264-params": X264}),
    "opengop.mp4": ("libx264", {"x264-params": X264 + ":open-gop=1"}),
    "opengop.mkv": ("libx264", {"x264-params": X264 + ":open-gop=1"}),
    "intra_refresh.mp4": ("libx264", {"x264-params": "keyint=12:intra-refresh=1:bframes=0"}),
    "full_chroma.mp4": ("libx264", {"x264-params": X264, "pix_fmt": "yuv444p"}),
    "ten_bit.mp4": ("libx264", {"x264-params": X264, "pix_fmt": "yuv420p10le"}),
    "hevc_opengop.mp4": ("libx265", {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:log-level=none"}),
    "hevc.mkv": ("libx265", {"x265-params": "keyint=12:open-gop=0:log-level=none"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "8", "cpu-used": "8"}),
    "vp8.webm": ("libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "8", "cpu-used": "8"}),
    "av1.mkv": ("libsvtav1", {"g": "12", "preset": "12"}),
    "bframes.avi": ("mpeg4", {"bf": "2", "g": "12"}),
    "h264.avi": ("libx264", {"x264-params": X264}),
    "simple.avi": ("mpeg4", {"bf": "0", "g": "12"}),
    "mpeg4.mp4": ("mpeg4", {"bf": "2", "g": "12"}),
    "stream.ts": ("libx264", {"x264-params": X264}),
    "program.mpg": ("mpeg2video", {"bf": "2", "g": "12"}),
    "motion.mkv": ("mjpeg", {"pix_fmt": "yuvj420p"}),
}


def textured(num_frames: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Frames that all differ, and that prediction cannot guess."""
    frames = moving_square(3, num_frames, height, width)[0].copy()
    noise = np.random.default_rng(0).integers(0, 60, (num_frames, height // 8, width // 8, 1), dtype=np.uint8)
    frames[:] = np.minimum(frames, 190) + noise.repeat(8, 1).repeat(8, 2)
    return frames


OTHER_COLOURS = {
    "hevc10_pq.mp4",
    "tc_bt2020_10bit.mp4",
    "tc_h264_10bits.mp4",
    "tc_testsrc2_odd_height_and_width_vp9.mp4",
}
"""10 bits, and an odd size."""


def check_access(path: Path, decoder: Decoder, seed: int = 0) -> str:
    """16 random indices and 4 random clips equal a sequential pass, to the bit; returns how they were read."""
    whole = read_video(path, "pyav")
    count = len(whole.frames)
    rng = np.random.default_rng(seed)
    with open_video(path, decoder) as reader:
        if decoder == "decord":
            sequential = read_video(path, decoder).frames
            assert len(sequential) == count
            # Scalers of different age round some pixels otherwise; another frame differs by far more.
            difference = np.abs(sequential.astype(np.int16) - whole.frames)
            # Of some files decord gets the colours wrong, but not the frames.
            assert difference.max() <= 3 or path.name in OTHER_COLOURS, path.name
            assert difference.mean((1, 2, 3)).max() <= 4
        else:
            sequential = whole.frames
        assert (np.diff(whole.pts_seconds) > 0).all()
        for indices in (rng.integers(0, count, 16), np.array([count - 1])):
            assert np.array_equal(reader.get(indices.tolist()), sequential[indices]), path.name
        for _ in range(4):
            start, stride = int(rng.integers(count)), int(rng.integers(1, 4))
            length = min(6, (count - 1 - start) // stride + 1)
            expected = sequential[start : start + length * stride : stride][:length]
            assert np.array_equal(reader.clip(float(whole.pts_seconds[start]), length, stride), expected), path.name
        with pytest.raises(IndexError):
            reader.get([count])
    timeline = timeline_of(path)
    if timeline.trusted:
        assert np.allclose(timeline.times, whole.pts_seconds)
    return timeline.why_not or "seeks"


@pytest.fixture(scope="module")
def made_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each kind that this build of FFmpeg can write, and some cut out of others."""
    folder = tmp_path_factory.mktemp("kinds")
    frames = textured(60)
    found = {}
    for name, (codec, options) in FILES.items():
        try:
            found[name] = encoded(folder / name, frames, codec, dict(options))
        except (av.FFmpegError, av.codec.codec.UnknownCodecError):
            continue
    found["one_frame.mp4"] = encoded(folder / "one_frame.mp4", frames[:1], "libx264", {})
    found["two_frames.mp4"] = encoded(folder / "two_frames.mp4", frames[:2], "libx264", {})
    found["odd.mp4"] = encoded(
        folder / "odd.mp4", textured(30, 72, 96)[:, :71, :95], "libx264", {"x264-params": X264, "pix_fmt": "yuv444p"}
    )
    gaps = np.cumsum(np.random.default_rng(1).integers(20, 90, 60)).tolist()
    for name in ("vfr.mp4", "vfr.mkv"):
        found[name] = encoded(folder / name, frames, "libx264", {"x264-params": X264}, gaps)
    for name, source, first in (
        ("cut.mp4", "closed.mp4", 12),
        ("cut_in_group.mkv", "closed.mp4", 15),
        ("cut_in_group.mp4", "opengop.mp4", 20),
        ("cut_opengop.mp4", "opengop.mp4", 12),
    ):
        found[name] = remuxed_from(folder / name, found[source], first)
    return found


def test_the_kinds_are_there(made_files: dict[str, Path]) -> None:
    assert {"closed.mp4", "opengop.mp4", "bframes.avi", "h264.avi", "full_chroma.mp4", "vfr.mp4"} <= made_files.keys()


@pytest.mark.parametrize(
    "name", [*FILES, "one_frame.mp4", "two_frames.mp4", "odd.mp4", "vfr.mp4", "vfr.mkv", "cut.mp4"]
)
def test_random_access_is_that_of_a_pass(made_files: dict[str, Path], name: str) -> None:
    if name not in made_files:
        pytest.skip(f"this build of FFmpeg cannot write {name}")
    how = check_access(made_files[name], "pyav")
    if name in ("closed.mp4", "opengop.mp4", "full_chroma.mp4", "hevc_opengop.mp4", "vp9.webm", "vp8.webm", "vfr.mp4"):
        assert how == "seeks"
    if name.endswith((".avi", ".ts", ".mpg")):
        assert how != "seeks"


@pytest.mark.parametrize("name", ["cut_in_group.mkv", "cut_in_group.mp4", "cut_opengop.mp4"])
def test_files_cut_in_the_middle_of_a_group(made_files: dict[str, Path], name: str) -> None:
    """The reference frames of the first frames are missing: the frames of a sequential pass or an error, no others."""
    try:
        whole = read_video(made_files[name])
    except VideoDecodeError:
        return
    with open_video(made_files[name]) as reader:
        indices = list(range(0, len(whole.frames), 3))
        assert np.array_equal(reader.get(indices), whole.frames[indices])


@needs_decord
@pytest.mark.parametrize(
    "name", ["closed.mp4", "opengop.mp4", "bframes.avi", "simple.avi", "vfr.mp4", "odd.mp4", "hevc.mkv"]
)
def test_decord_gives_the_same_through_the_same_door(made_files: dict[str, Path], name: str) -> None:
    if name not in made_files:
        pytest.skip(f"this build of FFmpeg cannot write {name}")
    try:
        check_access(made_files[name], "decord")
    except VideoDecodeError as error:
        assert error.reason == "length_mismatch"  # refused with this reason


def test_a_timeline_is_kept_until_the_file_changes(made_files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    shutil.copy(made_files["closed.mp4"], path)
    assert timeline_of(path) is timeline_of(path)
    assert len(timeline_of(path).stamps) == 60
    shutil.copy(made_files["two_frames.mp4"], path)
    assert len(timeline_of(path).stamps) == 2


def test_a_timeline_that_promises_wrong_times_is_not_followed(made_files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    shutil.copy(made_files["closed.mp4"], path)
    whole, true = read_video(path).frames, timeline_of(path)
    timeline_module._remember(
        timeline_module._key(path), replace(true, stamps=true.stamps + 1, entries=true.entries + 1)
    )
    with open_video(path) as reader:
        assert np.array_equal(reader.get([5, 40]), whole[[5, 40]])
    assert not timeline_of(path).trusted  # and not tried again


# --- files that are not whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["closed.mp4", "simple.avi", "opengop.mkv", "vp9.webm"])
def test_files_cut_short_are_reported_and_their_beginning_is_kept(
    made_files: dict[str, Path], tmp_path: Path, name: str
) -> None:
    if name not in made_files:
        pytest.skip(f"this build of FFmpeg cannot write {name}")
    source = made_files[name]
    data, broken = source.read_bytes(), tmp_path / f"broken{source.suffix}"
    broken.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(VideoError) as caught:
        read_video(broken)
    assert caught.value.reason == "truncated"
    assert isinstance(caught.value, VideoDecodeError) and 0 < caught.value.num_good_frames < 60
    kept = read_video(broken, on_error="salvage")
    assert len(kept.frames) == caught.value.num_good_frames
    whole = read_video(source).frames
    sure = len(kept.frames) - 4  # the last frames may have lost their reference frames
    assert np.array_equal(kept.frames[:sure], whole[:sure])
    with pytest.raises(VideoError):
        open_video(tmp_path / "nothing.mp4")


def test_what_was_appended_to_a_whole_file_does_no_harm(made_files: dict[str, Path], tmp_path: Path) -> None:
    data = made_files["closed.mp4"].read_bytes()
    (tmp_path / "x.mp4").write_bytes(data + b"\x7f\x00\x00\x00junk" * 5)
    assert len(read_video(tmp_path / "x.mp4").frames) == 60


def test_an_mp4_without_its_index_was_cut_short(made_files: dict[str, Path], tmp_path: Path) -> None:
    write_video(tmp_path / "whole.mp4", textured(30))  # with its index behind, as it is written
    data = (tmp_path / "whole.mp4").read_bytes()
    assert data.find(b"mdat") < data.find(b"moov")
    (tmp_path / "x.mp4").write_bytes(data[: data.find(b"mdat") + 200])
    with pytest.raises(VideoError) as caught:
        open_video(tmp_path / "x.mp4")
    assert caught.value.reason == "truncated"
    assert not is_cut_short(made_files["closed.mp4"])


def test_metadata_in_another_encoding_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "latin.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "caf\u00e9 au lait"
        stream: Any = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for image in textured(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert "caf\u00e9".encode() in data
    path.write_bytes(data.replace("caf\u00e9".encode(), b"caf\xe9\xe9"))
    with pytest.raises(UnicodeDecodeError), av.open(str(path)) as container:
        print(container.metadata)
    assert len(read_video(path).frames) == 8


# --- real files -------------------------------------------------------------------------------------------------------

EXPECTED_REASON = {
    "audio_only.mp4": "no_video_stream",
    "audio_with_cover.mp4": "no_video_stream",
    "decord_corrupted.mp4": "corrupt",
    "text_not_video.mp4": "not_a_video",
    "truncated.avi": "truncated",
    "truncated_faststart.mp4": "truncated",
    "truncated_no_moov.mp4": "truncated",
    "zero_bytes.mp4": "empty",
}


def test_odd_files_are_read_or_refused_clearly(real_data: Path) -> None:
    seen = set()
    for path in [*sorted((real_data / "torture").iterdir()), real_data / "odd" / "audio_with_cover.mp4"]:
        try:
            with open_video(path) as reader:
                count = sum(1 for _ in reader.scan())
        except VideoError as error:
            assert error.reason == EXPECTED_REASON.get(path.name), f"{path.name}: {error}"
            seen.add(path.name)
        else:
            assert count > 0 and path.name not in EXPECTED_REASON, path.name
    assert seen == set(EXPECTED_REASON)


SLOW = {"cockatoo.mp4", "no_duration.webm", "scene_cuts.mp4", "tc_nasa_13013.mp4"}
VIDEOS = (
    "clips/*",
    "torture/*",
    "odd/*.*",
    "moving/davis/*/video.mp4",
    "backgrounds/*/video.*",
    "actions/ut_interaction_set1/*.avi",
)


def real_files(folder: Path, every: int) -> list[Path]:
    """Readable files of each folder; of the large folders every so-manyth."""
    found = []
    for pattern in VIDEOS:
        files = sorted(folder.glob(pattern))
        few = every > 1 and (len(files) > 50 or pattern.startswith(("backgrounds", "clips", "moving")))
        chosen = files[every // 2 :: every] if few else files
        found += [path for path in chosen if path.name not in EXPECTED_REASON]
    return [path for path in found if every == 1 or path.name not in SLOW]


def check_real_files(folder: Path, report: list[str], every: int) -> None:
    rows = {"seeks": 0}
    files = real_files(folder, every)
    for path in files:
        how = check_access(path, "pyav", seed=1)
        rows[how] = rows.get(how, 0) + 1
    report.append(f"random access on {len(files)} real files: all frames and clips equal a sequential pass")
    report.extend(f"  {count:3d} {how if how == 'seeks' else 'sequential: ' + how}" for how, count in rows.items())


def test_random_access_on_real_files(real_data: Path, report: list[str]) -> None:
    check_real_files(real_data, report, every=10)


@pytest.mark.full
def test_random_access_on_every_real_file(real_data: Path, report: list[str]) -> None:
    check_real_files(real_data, report, every=1)


@needs_decord
@pytest.mark.full
def test_decord_on_every_real_file(real_data: Path, report: list[str]) -> None:
    """The frames of a pass by PyAV, or a clear refusal; never others, never a repeated one at the end."""
    rows: dict[str, int] = {}
    for path in real_files(real_data, 1):
        try:
            check_access(path, "decord", seed=1)
            how = "the same frames"
        except VideoError as error:
            how = f"refused: {error.reason}"
        rows[how] = rows.get(how, 0) + 1
    report.append("decord on real files: " + ", ".join(f"{count} {how}" for how, count in sorted(rows.items())))
    assert rows["the same frames"] > 100


def test_rotation_is_applied(real_data: Path) -> None:
    folder = real_data / "torture"
    upright = read_video(folder / "rot_0.mov").frames
    turned = read_video(folder / "rot_90.mov").frames
    assert upright.shape[1:3] == turned.shape[1:3][::-1]


@needs_decord
@pytest.mark.parametrize(
    "name",
    ["v_SoccerJuggling_g23_c01.avi", "kth_person04_boxing_d1.mp4", pytest.param("bikes.mp4", marks=pytest.mark.full)],
)
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


def test_the_same_frames_are_the_same_bytes_whatever_memory_held_before(tmp_path: Path) -> None:
    frames = np.stack([np.roll(moving_square(0, 12)[0][t], 3 * t, 1)[:40, :40] for t in range(12)])
    np.save(tmp_path / "frames.npy", frames)
    code = "import sys, numpy; from bgaug.video import write_video; write_video(sys.argv[1], numpy.load(sys.argv[2]))"
    for fill in ("1", "255"):  # glibc fills new memory with this byte's complement, which x264 must not read
        environment = {**os.environ, "MALLOC_PERTURB_": fill, "MALLOC_MMAP_THRESHOLD_": "2000000000"}
        arguments = [sys.executable, "-c", code, str(tmp_path / f"{fill}.mp4"), str(tmp_path / "frames.npy")]
        subprocess.run(arguments, check=True, env=environment)
    assert (tmp_path / "1.mp4").read_bytes() == (tmp_path / "255.mp4").read_bytes()
