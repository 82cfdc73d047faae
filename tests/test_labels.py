from __future__ import annotations

from pathlib import Path

import pytest

from bgaug.errors import LabelsError
from bgaug.labels import Label, labels_from_folders, read_labels


@pytest.fixture
def videos(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / name for name in ("a/1.mp4", "a/2.mp4", "b/2.mp4", "b/3.mp4")}
    for path in found.values():
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return found


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_paths_bare_names_groups_and_splits(tmp_path: Path, videos: dict[str, Path]) -> None:
    file = write(
        tmp_path,
        "file,class_id,class_name,group,split\r\na/1.mp4,1,kick,g1,train\r\n3.mp4,0,hug,,test\r\nlost.mp4,0,hug,g1,\r\n",
        "utf-8-sig",
    )
    labels = read_labels(file, videos)
    assert labels.of("a/1.mp4") == Label("kick", "g1", "train")
    assert labels.of("b/3.mp4") == Label("hug", None, "test")
    assert labels.of("a/2.mp4") == Label()
    assert labels.classes == ("hug", "kick")
    assert labels.rows_without_file == ("lost.mp4",)
    assert labels.files_without_row == ("a/2.mp4", "b/2.mp4")


@pytest.mark.parametrize("column", ["class_name", "class", "label", "class_id"])
def test_any_class_column(tmp_path: Path, videos: dict[str, Path], column: str) -> None:
    labels = read_labels(write(tmp_path, f"file,{column}\na/1.mp4,10\nb/3.mp4,9\n"), videos)
    assert labels.classes == ("9", "10")  # numbers in the order of numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size,class\nx,y\n", "column `file`"),
        ("file,size\nx,y\n", "class_name, class, label, class_id"),
        ("file,class\n2.mp4,x\n", r"line 2: 2.mp4 matches 2 videos \(a/2.mp4, b/2.mp4"),
        ("file,class\na/1.mp4,x\n1.mp4,y\n", "line 3: 1.mp4 has contradicting rows"),
        ("", "column `file`"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, videos: dict[str, Path], text: str, message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        read_labels(write(tmp_path, text), videos)


def test_files_that_cannot_be_read(tmp_path: Path, videos: dict[str, Path]) -> None:
    with pytest.raises(LabelsError, match="cannot be read"):
        read_labels(tmp_path / "none.csv", videos)
    with pytest.raises(LabelsError, match="UTF-8"):
        read_labels(write(tmp_path, "file,class\né,x\n", "latin-1"), videos)


def test_the_same_row_twice_is_no_error(tmp_path: Path, videos: dict[str, Path]) -> None:
    labels = read_labels(write(tmp_path, "file,class\na/1.mp4,x\na/1.mp4,x\n"), videos)
    assert len(labels.by_id) == 1


def test_class_folders() -> None:
    labels = labels_from_folders(["walk/1.mp4", "run/deep/2.mp4"])
    assert labels.classes == ("run", "walk") and labels.of("run/deep/2.mp4").name == "run"
    assert labels_from_folders(["one/1.mp4", "one/2.mp4"]).classes == ()
    one_outside = labels_from_folders(["a/1.mp4", "b/2.mp4", "3.mp4"])
    assert one_outside.classes == ("a", "b") and one_outside.of("3.mp4") == Label()
    assert one_outside.notes == ("1 videos are not in a class folder and get no class: 3.mp4",)


def test_digest_follows_the_labels(tmp_path: Path, videos: dict[str, Path]) -> None:
    one = read_labels(write(tmp_path, "file,class\na/1.mp4,x\n"), videos)
    two = read_labels(write(tmp_path, "file,class\na/1.mp4,y\n"), videos)
    again = read_labels(write(tmp_path, "file,class\n1.mp4,x\n"), videos)
    assert one.digest() != two.digest() and one.digest() == again.digest()


def test_real_labels(real_data: Path) -> None:
    folder = real_data / "actions" / "ut_interaction_set1"
    videos = {path.name: path for path in folder.glob("*.avi")}
    labels = read_labels(folder / "labels.csv", videos)
    assert len(labels.by_id) == 60 and len(labels.classes) == 6
    assert not labels.rows_without_file and not labels.files_without_row
