"""Labels from folders: layouts as data sets and people lay out their videos, each with the right classes and splits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner
from worlds import moving_square

from bgaug.cli.main import app
from bgaug.errors import LabelsError
from bgaug.labels import Label, labels_from_folders
from bgaug.store import open_store
from bgaug.video import write_video


def read(text: str, layout: str = "auto") -> dict[str, str]:
    """Labels of `path=class@split` words, in the same form."""
    ids = [word.partition("=")[0] for word in text.split()]
    labels = labels_from_folders(ids, layout)
    return {video: f"{labels.of(video).name or ''}@{labels.of(video).split or ''}" for video in ids}


def expected(text: str) -> dict[str, str]:
    return dict(word.split("=") for word in text.split())


@pytest.mark.parametrize(
    "text",
    [
        "train/walk/1.mp4=walk@train train/run/2.mp4=run@train val/walk/3.mp4=walk@val",
        "Train/walk/1.mp4=walk@train TEST/run/2.mp4=run@test",
        "training/walk/1.mp4=walk@train dev/run/2.mp4=run@val testing/run/3.mp4=run@test",
        "train/walk/1.mp4=walk@train validation/walk/2.mp4=walk@val",  # one class, and yet a class
        "train/1.mp4=@train val/2.mp4=@val",  # no classes at all
        "train/walk/1.mp4=walk@train train/run/2.mp4=run@train test/3.mp4=@test test/4.mp4=@test test/5.mp4=@test",
        "videos/train/walk/1.mp4=walk@train videos/val/run/2.mp4=run@val",
        "UCF-101/train/walk/1.mp4=walk@train UCF-101/test/run/2.mp4=run@test",
        "train/videos/walk/1.mp4=walk@train val/videos/run/2.mp4=run@val",
        "train_256/walk/1.mp4=walk@train val_256/run/2.mp4=run@val",
        "k400_train/walk/1.mp4=walk@train k400_val/run/2.mp4=run@val",
        "TrainVideos/walk/1.mp4=walk@train TestVideos/run/2.mp4=run@test",
        "walk/train/1.mp4=walk@train walk/test/2.mp4=walk@test run/train/3.mp4=run@train run/test/4.mp4=run@test",
        "ucf/train/walk/1.mp4=walk@train hmdb/test/run/2.mp4=run@test hmdb/train/run/3.mp4=run@train",
        "split1/walk/1.mp4=walk@split1 split1/run/2.mp4=run@split1 split2/walk/3.mp4=walk@split2",
        "split1/train/walk/1.mp4=walk@train split1/test/run/2.mp4=run@test",
        "split1/train/walk/1.mp4=walk@split1/train split2/train/walk/1.mp4=walk@split2/train",
        "train/walk/1.mp4=walk@train train/run/2.mp4=run@train val/walk/3.mp4=walk@val stray.mp4=@",
        "train/walk/1.mp4=walk@train train/run/2.mp4=run@train val/run/3.mp4=run@val extra/walk/4.mp4=@",
        "train/walk/s1/1.mp4=walk@train val/run/s2/2.mp4=run@val",
        "train/train/1.mp4=train@train train/bus/2.mp4=bus@train test/bus/3.mp4=bus@test",  # a class called train
        "train/1.mp4=train@ bus/2.mp4=bus@ car/3.mp4=car@",  # vehicles
        "training_dog/1.mp4=training_dog@ testing_car/2.mp4=testing_car@",
        "walk/1.mp4=walk@ run/deep/2.mp4=run@",
        "walk/1.mp4=walk@ run/2.mp4=run@ stray.mp4=@",
        "videos/walk/1.mp4=walk@ videos/run/2.mp4=run@",
        f"snapshots/{'0a' * 20}/walk/1.mp4=walk@ snapshots/{'0a' * 20}/run/2.mp4=run@",
        f"snapshots/{'0a' * 20}/walk/1.mp4=walk@ snapshots/{'1b' * 20}/run/2.mp4=run@",
        f"datasets--a--b/snapshots/{'0a' * 20}/walk/1.mp4=walk@ datasets--a--b/snapshots/{'0a' * 20}/run/2.mp4=run@",
        "UCF-101/walk/1.mp4=@ UCF-101/run/2.mp4=@",  # may be subjects of one class
        "one/1.mp4=@ one/2.mp4=@",
        "1.mp4=@ 2.mp4=@ 3.mp4=@ a/4.mp4=@ b/5.mp4=@",
    ],
)
def test_layouts(text: str) -> None:
    assert read(text) == expected(text)


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("class", "train/walk/1.mp4=train@ val/run/2.mp4=val@"),
        ("split/class", "a/walk/1.mp4=walk@a b/run/2.mp4=run@b"),
        ("*/class", "UCF-101/walk/1.mp4=walk@ UCF-101/run/2.mp4=run@"),
        ("*/*/split", "a/b/train/1.mp4=@train a/c/2.mp4=@"),
        ("none", "walk/1.mp4=@ run/2.mp4=@"),
    ],
)
def test_a_layout_that_is_given_goes_before_what_is_guessed(layout: str, text: str) -> None:
    assert read(text, layout) == expected(text)
    assert labels_from_folders(["a/1.mp4"], layout).notes == ()


@pytest.mark.parametrize("layout", ["classes", "class/class", "*", "", "split/klass"])
def test_layouts_that_do_not_exist(layout: str) -> None:
    with pytest.raises(LabelsError, match="a layout is auto, none, or levels of folders"):
        labels_from_folders(["a/1.mp4"], layout)


@pytest.mark.parametrize(
    ("ids", "note"),
    [
        (["train/walk/1.mp4", "val/walk/2.mp4"], "read as split/class; change it with --layout"),
        (["train/1.mp4", "bus/2.mp4", "car/3.mp4"], "'train' is used as a class"),
        (["a/1.mp4", "b/2.mp4", "3.mp4"], "1 videos are not in a class folder and get no class: 3.mp4"),
        (["UCF-101/walk/1.mp4", "UCF-101/run/2.mp4"], r"all videos are in the folder 'UCF-101'.*--layout '\*/class'"),
        (["a/b/walk/1.mp4", "a/b/run/2.mp4"], r"all videos are in the folder 'a/b'.*--layout '\*/\*/class'"),
        (["tr/walk/1.mp4", "te/walk/2.mp4"], r"several of them have a folder 'walk'; --layout split/class"),
        (["1.mp4", "2.mp4", "a/3.mp4", "b/4.mp4"], "only 2 of 4 videos are in one"),
    ],
)
def test_what_was_guessed_is_reported(ids: list[str], note: str) -> None:
    labels = labels_from_folders(ids)
    assert labels.summary(ids)["notes"] == list(labels.notes)

    assert re.search(note, " ".join(labels.notes))


def test_class_folders_need_no_message() -> None:
    labels = labels_from_folders(["walk/1.mp4", "run/2.mp4"])
    assert labels.notes == () and labels.origin == "folders (class)"


def test_a_class_has_one_name_in_both_forms_of_its_characters() -> None:
    """macOS writes ü as two characters, and so do archives that come from there."""
    composed, apart = "F\u00fc\u00dfe", "Fu\u0308\u00dfe"
    labels = labels_from_folders([f"{composed}/1.mp4", f"{apart}/2.mp4", "run/3.mp4"])
    assert labels.classes == (composed, "run")
    assert labels.of(f"{apart}/2.mp4") == Label(composed)


def test_a_summary_counts_videos_of_classes_and_splits() -> None:
    ids = ["train/walk/1.mp4", "train/walk/2.mp4", "test/run/3.mp4", "4.mp4"]
    summary = labels_from_folders(ids).summary(ids)
    assert {name: summary[name] for name in ("origin", "videos", "labelled", "num_classes", "classes", "splits")} == {
        "origin": "folders (split/class)",
        "videos": 4,
        "labelled": 3,
        "num_classes": 2,
        "classes": {"run": 1, "walk": 2},
        "splits": {"test": 1, "train": 2},
    }


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Videos by split and class, one class folder a link to another disk, a stray one, and notes."""
    for number, name in enumerate(("v/train/run/1.mp4", "v/val/run/2.mp4", "v/stray.mp4", "disk/3.mp4")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / name, moving_square(number, 12)[0])
    (tmp_path / "v/train/walk").symlink_to(tmp_path / "disk")
    (tmp_path / "v/notes.md").touch()
    return tmp_path / "v"


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def test_a_store_by_folders_reports_its_source_of_labels(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "bg"
    build = ("extract-backgrounds", videos, "--out", out, "--size", "native", "--jobs", 1)
    code, output, errors = call(*build, "--follow-links", "--json")
    assert code == 0
    assert "labels are taken from the folders, read as split/class; change it with --layout" in errors
    assert "1 videos are not in a class folder and get no class: stray.mp4" in errors
    found = json.loads(output.splitlines()[-1])
    assert found["left_out"] == {"others": {".md": 1}}
    assert found["labels"]["classes"] == {"run": 2, "walk": 1} and found["labels"]["splits"] == {"train": 2, "val": 1}
    assert found["labels"]["origin"] == "folders (split/class)" and len(found["labels"]["notes"]) == 2
    store = open_store(out)
    rows = [store.row(video) for video in range(len(store))]
    assert {row.id: (row.label, row.split) for row in rows} == {
        "stray.mp4": (None, None),
        "train/run/1.mp4": ("run", "train"),
        "train/walk/3.mp4": ("walk", "train"),
        "val/run/2.mp4": ("run", "val"),
    }
    assert store.header.classes == ("run", "walk")


def test_inspect_reports_which_links_it_left_out(videos: Path) -> None:
    code, output, errors = call("inspect", videos, "--json")
    found = json.loads(output.splitlines()[-1])
    assert code == 0 and len(found["videos"]) == 3
    assert found["left_out"] == {"links_out": 1, "others": {".md": 1}}
    assert "1 links that lead out of the named folders; --follow-links follows them: train/walk" in errors
    assert len(json.loads(call("inspect", videos, "--follow-links", "--json")[1].splitlines()[-1])["videos"]) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layout", "klass"), "a layout is auto, none, or levels"),
        (("--layout", "split", "--labels", "labels.csv"), "a layout is about folders"),
        (("--columns", "path,label"), "give its path too"),
        (("--columns", "label", "--labels", "labels.csv"), "columns are path,label or"),
        (("--first-class", "2", "--labels", "labels.csv"), "less than or equal to 1"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    code, _, errors = call("build-shards", tmp_path, "--out", tmp_path / "s", *options)
    assert code == 2 and message in errors.replace("│ ", "")
