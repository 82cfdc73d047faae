"""Headers that lie, and many shards: a build costs what its files hold, whatever they claim."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import pytest
from worlds import moving_square

from bgaug.errors import StoreError
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards, forecast_shards
from bgaug.progress import Silent
from bgaug.store import Plan, PlannedVideo, create_store, open_store
from bgaug.store.format.layout import Header
from bgaug.video import write_video

OPTIONS = VideoOptions(method="median", shots=False)
SIZE = (24, 32)
CLAIMS = (2**30, 2**31 - 1, 2**32 - 1)


def write_avi(path: Path, num_frames: int = 40) -> None:
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in moving_square(3, num_frames)[0]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def with_claim(data: bytes, claim: int) -> bytes:
    """An AVI file whose two headers declare so many frames: `dwTotalFrames` and `dwLength` in the specification."""
    changed = bytearray(data)
    for place in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        changed[place : place + 4] = struct.pack("<I", claim)
    return bytes(changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good AVI, three that claim up to 2^32 - 1 frames, and two good videos."""
    videos = tmp_path_factory.mktemp("lies")
    write_avi(videos / "honest.avi")
    for claim in CLAIMS:
        (videos / f"{claim}.avi").write_bytes(with_claim((videos / "honest.avi").read_bytes(), claim))
    for number in range(2):
        write_video(videos / f"good {number}.mp4", moving_square(number, 24)[0])
    return videos


@pytest.mark.parametrize("frames", ["jpeg", "raw"])
def test_a_header_that_claims_too_much_costs_nothing(folder: Path, tmp_path: Path, frames: str) -> None:
    setup = ShardOptions(inputs=[folder], out=tmp_path / "s", in_process=True)
    outcome = build_shards(replace(setup, video=OPTIONS, size=SIZE, frames=frames), Silent())  # type: ignore[arg-type]
    assert outcome.to_json()["ok"] == 6 and outcome.shards == 6
    plan = json.loads((tmp_path / "s" / "plan.json").read_text())
    estimates = {video[0]: video[2] for shard in plan for video in shard}
    assert all(0.5 < estimates[f"{claim}.avi"] / estimates["honest.avi"] < 2 for claim in CLAIMS)
    store = open_store(tmp_path / "s")
    honest = store.row(store.find("honest.avi"))
    for claim in CLAIMS:
        row = store.row(store.find(f"{claim}.avi"))
        assert (row.num_frames, row.content) == (honest.num_frames, honest.content)


def test_an_estimate_with_such_files_is_that_of_honest_ones(folder: Path, tmp_path: Path) -> None:
    honest = shutil.copytree(folder, tmp_path / "honest")
    for claim in CLAIMS:
        shutil.copy(folder / "honest.avi", honest / f"{claim}.avi")
    sizes = []
    for videos in (folder, honest):
        found = forecast_shards(
            ShardOptions(inputs=[videos], out=tmp_path / "s", in_process=True, video=OPTIONS, size=SIZE), Silent()
        )
        sizes.append(sum(found.bytes_by_array.values()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.3)


def test_a_whole_file_whose_header_holds_placeholders(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    shutil.copy(real_data / "odd" / "piped_75_frames.avi", tmp_path / "v")
    setup = ShardOptions(inputs=[tmp_path / "v"], out=tmp_path / "s", in_process=True)
    outcome = build_shards(replace(setup, video=OPTIONS, size=SIZE), Silent())
    assert (outcome.to_json()["ok"], outcome.frames, outcome.shards) == (1, 75, 1)


def test_what_does_not_fit_on_the_disk_is_named(tmp_path: Path) -> None:
    plan = Plan(((PlannedVideo("a.mp4", 1, 10**5), PlannedVideo("huge.mp4", 1, 10**18)),))
    with pytest.raises(StoreError, match=r"needs about .* for huge\.mp4"):
        create_store(tmp_path / "s", Header(SIZE, "stretch", "jpeg", (), {}), plan)


# --- open files -------------------------------------------------------------------------------------------------------

SCRIPT = """
import os, resource, sys
sys.path[:0] = {paths!r}
from pathlib import Path
import bgaug.store.format.plan as plan, bgaug.store.commit as commit
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
plan._MAX_SHARD_BYTES = plan._LONG_SHARD_BYTES = {shard_bytes}
real, most = commit.commit_shard, [0]
def count(root, record):
    most[0] = max(most[0], len(os.listdir("/proc/self/fd")))
    real(root, record)
import bgaug.store.write
bgaug.store.write.commit_shard = count
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
video = VideoOptions(method="median", shots=False)
options = ShardOptions(inputs=[{videos!r}], out={out!r}, in_process=True, video=video, size=(24, 32), frames="raw")
done = build_shards(options, Silent())
print(done.shards, done.to_json()["ok"], most[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
def test_a_video_in_very_many_shards_needs_few_open_files(tmp_path: Path, report: list[str]) -> None:
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v" / "long.mp4", moving_square(0, 640)[0])
    for number in range(3):
        write_video(tmp_path / "v" / f"{number}.mp4", moving_square(number, 20)[0])
    script = SCRIPT.format(
        paths=[str(Path(__file__).parents[1])],
        shard_bytes=24 * 32 * 3 * 16,
        limit=32,
        videos=str(tmp_path / "v"),
        out=str(tmp_path / "s"),
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shards, ok, most = map(int, done.stdout.split())
    assert shards >= 43 and ok == 4 and most < 24
    report.append(f"{shards} shards, most of them of one video: at most {most} open files")
    assert open_store(tmp_path / "s").num_frames(3) == 640
