from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner
from worlds import moving_square, scene

from bgaug.cli.main import app
from bgaug.pipelines.build.probe import probe_with_cuts
from bgaug.video import open_video, probe_video, read_video, write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probe") / "clip.mp4"
    options = {"x264-params": "keyint=12:min-keyint=12:scenecut=0"}
    write_video(path, moving_square(0, 60)[0], options=options)
    return path


def test_what_the_packets_tell(clip: Path) -> None:
    found = probe_video(clip)
    assert found.info is not None and found.error is None and found.deep is None
    assert (found.info.declared_frames, found.packet_frames, found.keyframes, found.longest_group) == (60, 60, 5, 12)
    assert found.seeks == "" and not found.variable_rate and not found.cut_short
    assert found.duration_seconds == pytest.approx(2.4)
    assert found.streams == ("video h264 64x48 (read)",)
    assert json.loads(json.dumps(found.to_json()))["info"]["codec"] == "h264"


def test_what_decoding_finds(tmp_path: Path) -> None:
    path = tmp_path / "cuts.mp4"
    write_video(path, np.concatenate([np.repeat(scene(seed, 96, 128)[None], 30, 0) for seed in (1, 5)]))
    found = probe_with_cuts(path)
    assert found.deep is not None and found.cuts == (30,)
    assert (found.deep.real_frames, found.deep.breaks_off) == (60, None)
    tried = found.deep.seeks.split(" of ")
    assert tried[0] == tried[1].split()[0] and int(tried[0]) > 8
    assert found.deep.decord in ("the same frames", "not installed")


def test_bad_files_are_reported_and_leave_with_1(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video" * 50)
    result = CliRunner().invoke(app, ["inspect", str(clip), str(tmp_path / "text.mp4"), "--deep", "--json"])
    assert result.exit_code == 1
    record = json.loads(result.stdout.splitlines()[-1])
    assert record["bad"] == 1
    assert [video["error"] is None for video in record["videos"]] == [True, False]
    result = CliRunner().invoke(app, ["inspect", str(clip)])
    assert result.exit_code == 0 and "h264" in result.stdout


def test_real_lengths_are_reported(real_data: Path) -> None:
    tree = probe_video(real_data / "clips" / "tree.avi", deep=True)
    assert tree.info is not None and tree.deep is not None
    assert (tree.info.declared_frames, tree.deep.real_frames) == (444, 68)
    cut = probe_video(real_data / "torture" / "truncated.avi", deep=True)
    assert cut.cut_short and cut.deep is not None and cut.deep.real_frames == 49
    assert cut.deep.breaks_off is not None and "truncated" in cut.deep.breaks_off


# --- nothing leaks ----------------------------------------------------------------------------------------------------


def resident_kilobytes() -> int:
    """Memory of this process now, from the kernel."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def check_leaks(path: Path, opens: int) -> None:
    for _ in range(20):
        read_video(path)
    before = resident_kilobytes(), len(os.listdir("/proc/self/fd")), threading.active_count()
    for number in range(opens):
        with open_video(path) as reader:
            next(iter(reader.scan()))  # left in the middle
            reader.get([number % 60])
    after = resident_kilobytes(), len(os.listdir("/proc/self/fd")), threading.active_count()
    assert after[0] - before[0] < 8_000, f"{opens} opens took {after[0] - before[0]} kB"
    assert after[1:] == before[1:]


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")


@needs_proc
def test_opening_leaks_nothing(clip: Path) -> None:
    check_leaks(clip, 150)


@needs_proc
@pytest.mark.full
def test_a_thousand_opens_leak_nothing(clip: Path) -> None:
    check_leaks(clip, 1000)


# --- memory does not grow with the length -----------------------------------------------------------------------------

EXTRACT = """
import re, sys
from pathlib import Path
from bgaug.pipelines.build.options import VideoOptions
from bgaug.pipelines.build.process_video import process_video
from bgaug.video import open_video
with open_video(sys.argv[1]) as reader:
    seen = process_video(reader, VideoOptions())
# Not getrusage: its peak is handed down from the process that forked this one.
print(len(seen.pts_seconds), re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def write_long(path: Path, num_frames: int, height: int, width: int) -> None:
    picture = scene(1, height, width)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "30"}
        for number in range(num_frames):
            image = picture.copy()
            left = number * 5 % (width - 40)
            image[height // 3 : height // 3 + 60, left : left + 40] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def peak_megabytes(path: Path, num_frames: int) -> float:
    done = subprocess.run([sys.executable, "-c", EXTRACT, str(path)], capture_output=True, text=True, check=True)
    frames, kilobytes = map(int, done.stdout.split())
    assert frames == num_frames
    return kilobytes / 1024


@needs_proc
def test_memory_is_bounded_by_the_option_not_the_length(tmp_path: Path, report: list[str]) -> None:
    peaks = []
    for name, count in (("short", 300), ("long", 1200)):
        write_long(tmp_path / f"{name}.mp4", count, 360, 640)
        peaks.append(peak_megabytes(tmp_path / f"{name}.mp4", count))
    report.append(f"peak memory of extraction, 640x360: {peaks[0]:.0f} MB for 10 s, {peaks[1]:.0f} MB for 40 s")
    assert peaks[1] < peaks[0] + 40 < 450


@needs_proc
@pytest.mark.full
def test_ten_minutes_of_1080p_stay_below_450_megabytes(tmp_path: Path, report: list[str]) -> None:
    write_long(tmp_path / "hd.mp4", 18_000, 1080, 1920)
    peak = peak_megabytes(tmp_path / "hd.mp4", 18_000)
    report.append(f"peak memory of extraction, ten minutes of 1080p: {peak:.0f} MB")
    assert peak < 450
