"""One door to FFmpeg: a file is opened by its own name and leads nowhere else."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
from odd_videos import encode, numbered, numbers
from typer.testing import CliRunner

from bgaug.cli.main import app
from bgaug.errors import VideoError
from bgaug.pipelines.build.find_videos import find_videos
from bgaug.pipelines.build.probe import probe_sources
from bgaug.progress import Silent
from bgaug.video import Decoder, declared_length, open_video, probe_video, read_video

needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")
both = pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])
COUNT = 12

NAMES = [
    "10:30:00.mp4",
    "file:other.mp4",
    "concat:other.mp4|other.mp4",
    "subfile,,start,0,end,0,,:other.mp4",
    "async:other.mp4",
    "cache:other.mp4",
    "crypto:other.mp4",
    "data:,AAAA.mp4",
    "pipe:0",
    "tee:other.mp4",
    "http:other.mp4",
    "frame%03d.mp4",
    "%d.mp4",
    "*.mp4",
    "[1]{a,b}?.mp4",
    "-i.mp4",
    "a\nb.mp4",
    "caf\udce9.mp4",  # bytes that are no UTF-8
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one video, `other.mp4`, that no other name may lead to."""
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "other.mp4", numbered(5))
    return tmp_path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("open") / "v.mp4", numbered(COUNT))


@both
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name(folder: Path, video: Path, name: str, decoder: Decoder) -> None:
    shutil.copy(video, folder / name)
    assert numbers(read_video(Path(name), decoder).frames) == list(range(COUNT))
    assert declared_length(name) == COUNT and probe_video(name).packet_frames == COUNT


@both
def test_a_folder_named_like_a_protocol_makes_no_request(folder: Path, video: Path, decoder: Decoder) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        inside = Path("http:") / f"127.0.0.1:{server.getsockname()[1]}"
        inside.mkdir(parents=True)
        shutil.copy(video, inside / "v.mp4")
        assert len(read_video(inside / "v.mp4", decoder).frames) == COUNT
        with pytest.raises(TimeoutError):
            server.accept()


def test_the_current_folder(folder: Path, video: Path) -> None:
    shutil.copy(video, folder / "10:30:00.mp4")
    found = {probe.path.name: probe for probe in probe_sources(find_videos([Path(".")]), Silent())}
    assert {name: probe.error for name, probe in found.items()} == {"10:30:00.mp4": None, "other.mp4": None}


MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4"><Representation '
    'id="1" bandwidth="1"><BaseURL>other.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n"


@both
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.mp4", "ffconcat version 1.0\nfile 'other.mp4'\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile 'other.mp4'\n"),
        ("live.m3u8", HLS),
        ("live.mp4", HLS),
        ("live.m3u8", HLS.replace("other.mp4", "http://127.0.0.1:9/other.mp4")),
        ("dash.mpd", MPD),
        ("dash.mp4", MPD),
        ("call.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5000 RTP/AVP 96\n"),
    ],
)
def test_lists_of_other_files_are_refused(folder: Path, name: str, content: str, decoder: Decoder) -> None:
    (folder / name).write_text(content)
    with pytest.raises(VideoError) as caught:
        open_video(Path(name), decoder)
    assert caught.value.reason in ("unsupported_container", "not_a_video")
    assert declared_length(name) == 0


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_picture_is_no_video(tmp_path: Path, suffix: str) -> None:
    cv2.imwrite(str(tmp_path / f"p{suffix}"), np.zeros((32, 32, 3), np.uint8))
    os.replace(tmp_path / f"p{suffix}", tmp_path / "p.mp4")
    with pytest.raises(VideoError) as caught:
        open_video(tmp_path / "p.mp4")
    assert caught.value.reason == "unsupported_container"


def test_what_is_no_file_is_named(folder: Path) -> None:
    os.mkfifo("pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.mp4")
        os.symlink("/dev/zero", "device.mp4")
        os.symlink("loop.mp4", "loop.mp4")
        os.mkdir("folder.mp4")
        for name, what in (
            ("pipe.mp4", "fifo"),
            ("socket.mp4", "socket"),
            ("device.mp4", "device"),
            ("folder.mp4", "folder"),
        ):
            with pytest.raises(VideoError, match=what) as caught:
                open_video(name)
            assert caught.value.reason == "not_a_file" and declared_length(name) == 0
        for name in ("loop.mp4", "nul\0.mp4", "x" * 300 + ".mp4", "other.mp4/below.mp4"):
            with pytest.raises(VideoError) as caught:
                open_video(name)
            assert caught.value.reason == "missing"


@needs_decord
def test_decord_is_not_handed_what_it_does_not_survive(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.avi", numbered(COUNT), "mpeg4", {"bf": "0"})
    data = bytearray(path.read_bytes())
    place = data.index(b"strh") + 40
    data[place : place + 4] = (2**30).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(VideoError, match="use --decoder pyav"):
        open_video(path, "decord")  # it would ask for memory for 2^30 frames, and end the process


# --- one bad file affects no other ------------------------------------------------------------------------------------


def test_probe_goes_on_after_a_file_that_breaks_it(folder: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(video, folder / "a.mp4")
    whole = probe_video

    def breaks(path: str | Path, **options: object) -> object:
        if Path(path).name == "a.mp4":
            raise UnboundLocalError("cannot access local variable")
        return whole(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("bgaug.pipelines.build.probe.probe_video", breaks)
    result = CliRunner().invoke(app, ["inspect", ".", "--deep", "--json"])
    assert result.exit_code == 1 and '"bad": 1' in result.stdout and "UnboundLocalError" in result.stdout
    assert '"real_frames": 5' in result.stdout
