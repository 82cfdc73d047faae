"""Which files of a folder are taken for videos: links, loops, images, pipes and other entries."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from worlds import Recorder

from bgaug.errors import UsageError
from bgaug.pipelines.build.find_videos import FoundVideos, find_videos
from bgaug.video import read_video
from bgaug.visualize import write_image


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def ids(found: FoundVideos) -> list[str]:
    return [source.id for source in found]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A data set as the cache of Hugging Face keeps it: names are links, contents have none and lie elsewhere."""
    root = tmp_path / "datasets--me--clips"
    snapshot = root / "snapshots" / "abc"
    for number, name in enumerate(("train/walk/a.mp4", "train/run/b.mp4", "metadata.csv")):
        blob = root / "blobs" / f"{number:064x}"
        touch(blob)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return root


def test_links_of_a_cache(cache: Path) -> None:
    snapshot = cache / "snapshots" / "abc"
    assert ids(find_videos([cache])) == ["snapshots/abc/train/run/b.mp4", "snapshots/abc/train/walk/a.mp4"]
    followed = find_videos([snapshot], follow_links=True)
    assert ids(followed) == ["train/run/b.mp4", "train/walk/a.mp4"]
    touch(snapshot / "train/walk/c.mp4")
    seen = Recorder()
    assert ids(find_videos([snapshot], seen)) == ["train/walk/c.mp4"]
    links = "train/run/b.mp4, train/walk/a.mp4"
    assert seen.warnings == [
        f"left out: 2 links that lead out of the named folders; --follow-links follows them: {links}"
    ]
    # If nothing is left, the error names the reason.
    (snapshot / "train/walk/c.mp4").unlink()
    with pytest.raises(UsageError, match=r"no video in .*left out: 2 links that lead out .* --follow-links"):
        find_videos([snapshot])
    # Both folders named: the links lead inside.
    touch(cache / "blobs" / "x.mp4")
    assert ids(find_videos([snapshot, cache / "blobs"])) == ["train/run/b.mp4", "train/walk/a.mp4", "x.mp4"]


def test_class_folders_that_are_links(tmp_path: Path) -> None:
    touch(tmp_path / "data/walk/1.mp4", tmp_path / "v/run/2.mp4", tmp_path / "v/.pool/3.mp4")
    (tmp_path / "v/walk").symlink_to(tmp_path / "data/walk")
    (tmp_path / "v/hop").symlink_to(".pool")
    found = find_videos([tmp_path / "v"])
    assert ids(found) == ["hop/3.mp4", "run/2.mp4"] and found.left_out.links_out == ["walk"]
    assert ids(find_videos([tmp_path / "v"], follow_links=True)) == ["hop/3.mp4", "run/2.mp4", "walk/1.mp4"]
    assert find_videos([tmp_path / "v"]).left_out.to_json() == {"links_out": 1, "hidden": 1}


def test_loops_end_and_every_folder_is_walked_once(tmp_path: Path) -> None:
    """Ten folders, each with links to all ten: walked by every path there would be ten factorial."""
    for one in range(10):
        touch(tmp_path / f"v/{one}/{one}.mp4")
        for other in range(10):
            (tmp_path / f"v/{one}/to{other}").symlink_to(f"../{other}")
    (tmp_path / "v/up").symlink_to("..")
    (tmp_path / "v/self").symlink_to("self")
    for follow in (False, True):
        found = find_videos([tmp_path / "v"], follow_links=follow)
        assert ids(found) == [f"{one}/{one}.mp4" for one in range(10)]
        assert len(found.left_out.same_folder) >= 100 and found.left_out.broken_links == ["self"]


def test_one_file_by_two_names_is_reported(tmp_path: Path) -> None:
    touch(tmp_path / "v/a.mp4")
    (tmp_path / "v/b.mp4").symlink_to("a.mp4")
    seen = Recorder()
    assert ids(find_videos([tmp_path / "v"], seen)) == ["a.mp4", "b.mp4"]
    assert seen.warnings == ["1 videos occur twice, by links to one file: b.mp4 is also a.mp4"]


def test_what_else_lies_there_is_counted(tmp_path: Path) -> None:
    touch(
        *(
            tmp_path / "v" / name
            for name in ("a.mp4", "notes.txt", "b.txt", "noending", "._a.mp4", ".git/x", "more.zip")
        )
    )
    os.mkfifo(tmp_path / "v/pipe.mp4")
    (tmp_path / "v/gone.mp4").symlink_to("nowhere")
    seen = Recorder()
    found = find_videos([tmp_path / "v"], seen)
    assert ids(found) == ["a.mp4"]
    assert found.left_out.to_json() == {
        "broken_links": 1,
        "special": 1,
        "archives": 1,
        "hidden": 2,
        "others": {".txt": 2, "": 1},
    }
    assert [warning.partition(":")[2].strip() for warning in seen.warnings] == [
        "1 links without a target: gone.mp4",
        "1 named pipes, sockets or devices: pipe.mp4",
        "1 archives; unpack them to use their content: more.zip",
    ]


def test_a_pipe_that_is_named_is_called_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UsageError, match="pipe.mp4: is no file or folder but a pipe"):
        find_videos([tmp_path / "pipe.mp4"])


def test_folders_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "v/a.mp4", tmp_path / "v/closed/b.mp4")
    scandir = os.scandir

    def refusing(path: str | Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = find_videos([tmp_path / "v"])
    assert ids(found) == ["a.mp4"] and found.left_out.unreadable == ["closed"]


@pytest.mark.parametrize("name", ["img_{:05d}.jpg", "{}.png", "50%_{:03d}.png"])
def test_a_folder_of_pictures_comes_with_the_command_that_makes_a_video(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "raw frames" / "it's 10:30"
    folder.mkdir(parents=True)
    levels = [40, 90, 140, 190]
    for number, level in enumerate(levels, start=9):
        write_image(folder / name.format(number), np.full((46, 62, 3), level, np.uint8))
    with pytest.raises(UsageError, match="1 folders of numbered images; a folder of images is no video") as caught:
        find_videos([tmp_path])
    command = str(caught.value).partition("makes one of the first: ")[2].rpartition(": raw frames")[0]
    assert command.startswith("ffmpeg ")
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not here: the command was not tried")
    subprocess.run([*shlex.split(command), "-loglevel", "error"], check=True, stdin=subprocess.DEVNULL)
    (video,) = find_videos([tmp_path])
    assert video.id == "raw frames/it's 10:30.mkv"
    assert np.allclose(read_video(video.path).frames.mean(axis=(1, 2, 3)), levels, atol=4)
