"""Rows and videos that belong together, and a store built from a data set's own lists."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner
from worlds import moving_square

from bgaug.cli.main import app
from bgaug.errors import LabelsError, UsageError
from bgaug.labels import Entry, Label, Labels, SplitList, labels_for, match_entries
from bgaug.labels.label import Folders
from bgaug.pipelines.build.find_videos import find_videos
from bgaug.pipelines.build.options import LabelOptions, ShardOptions
from bgaug.pipelines.build.plan import find_labels
from bgaug.progress import Silent
from bgaug.store import open_store
from bgaug.video import write_video


def rows(folders: Folders, *names: str) -> SplitList:
    """A list whose rows are of one class each: their own name."""
    entries = tuple(Entry((name,), name, None, None, f"list, line {n}") for n, name in enumerate(names, start=1))
    return SplitList("made", 1, entries, (), (Path("list"),), folders)


def matched(labels: Labels) -> dict[str, str | None]:
    return {video: label.name for video, label in labels.by_id.items()}


@pytest.mark.parametrize(
    ("row", "video", "together"),
    [
        ("a/1.mp4", "a/1.mp4", ("tail", "any")),
        ("a/1.avi", "a/1.mp4", ("tail", "any")),
        ("a/1", "a/1.webm", ("tail", "any")),
        ("1", "x/a/1.mp4", ("tail", "any")),
        ("/data/x/a/1.mp4", "a/1.mp4", ("tail", "any")),
        ("../a/1.mp4", "a/1.mp4", ("tail", "any")),
        ("./1.mp4", "a/1.MP4", ("tail", "any")),
        ("a/1.mp4", "b/1.mp4", ("any",)),
        ("x/a/1.mp4", "x/1.mp4", ("any",)),
        ("a/1.mp4", "a/11.mp4", ()),
        ("Mr. Bean", "Mr.mp4", ()),
        ("Mr. Bean", "Mr. Bean.mp4", ("tail", "any")),
        ("caf\u00e9.mp4", "cafe\u0301.mp4", ("tail", "any")),  # as macOS writes it
        ("a", "A.mp4", ()),  # ids of YouTube differ by case
    ],
)
def test_names_that_belong_together(row: str, video: str, together: tuple[str, ...]) -> None:
    for folders in ("tail", "any"):
        labels = match_entries(rows(folders, row, "other"), [video, "other"])
        expected = {video: row} if folders in together else {}
        assert matched(labels) == {"other": "other", **expected}
        assert labels.rows_without_file == (() if expected else (row,))
        assert labels.files_without_row == (() if expected else (video,))


@pytest.mark.parametrize(
    ("row", "videos", "best"),
    [
        ("a/1.avi", ["a/1.avi", "a/1.mp4"], "a/1.avi"),
        ("1.avi", ["1.avi", "a/1.avi"], "1.avi"),
        ("x/a/1.avi", ["1.avi", "a/1.avi"], "a/1.avi"),
        ("a/1", ["a/1.avi", "1.avi"], "a/1.avi"),
        ("1.avi", ["1.mp4", "a/1.avi"], "a/1.avi"),
    ],
)
def test_the_nearest_of_several_is_taken(row: str, videos: list[str], best: str) -> None:
    assert matched(match_entries(rows("tail", row), videos)) == {best: row}
    assert matched(match_entries(rows("any", row), videos[::-1])) == {best: row}


def test_what_is_not_unique_is_an_error() -> None:
    for row, videos in (
        ("1.avi", ["a/1.avi", "b/1.avi"]),
        ("1", ["1.avi", "1.mp4"]),
        ("c/1", ["a/c/1.avi", "b/c/1.avi"]),
    ):
        with pytest.raises(LabelsError, match=rf"^list, line 1: {row} matches 2 videos \({videos[0]}, {videos[1]}"):
            match_entries(rows("any", row), videos)
    with pytest.raises(
        LabelsError,
        match="^list, line 2: 1.mp4 has contradicting rows: '1.mp4', and '1.avi' in list, line 1$",
    ):
        match_entries(rows("tail", "1.avi", "1.mp4"), ["1.avi"])


def test_a_list_of_other_videos_is_an_error() -> None:
    with pytest.raises(LabelsError, match="none of 2 rows matches any of 1 videos: rows are like 'a', videos like 'c'"):
        match_entries(rows("any", "a", "b"), ["c"])
    assert match_entries(rows("any", "a", "b"), []).rows_without_file == ("a", "b")
    assert match_entries(rows("any"), ["c"]).files_without_row == ("c",)


def test_random_names_against_every_pair_compared() -> None:
    """Slow and plain: a row and a video belong together where one path, without extension, ends with the other.

    A row that may mean several videos, and rows of one video, cost themselves.
    """
    random_state = random.Random(0)
    pairs = 0
    for _ in range(300):
        made = {"/".join(random_state.choices("abc", k=random_state.randint(1, 3))) for _ in range(8)}
        names, ids = sorted(made)[::2], [f"{name}.mp4" for name in sorted(made)[1::2]]
        meant: dict[str, list[str]] = {}
        dropped = 0
        for name in names:
            own = [i for i in ids if f"/{i[:-4]}".endswith(f"/{name}") or f"/{name}".endswith(f"/{i[:-4]}")]
            length = {i: min(i.count("/"), name.count("/")) for i in own}
            nearest = [i for i in own if length[i] == max(length.values())]
            same = [i for i in nearest if i.count("/") == name.count("/")]
            nearest = same or nearest
            dropped += len(nearest) > 1
            if len(nearest) == 1:
                meant.setdefault(nearest[0], []).append(name)
        expected = {video: rows[0] for video, rows in meant.items() if len(rows) == 1}
        dropped += sum(len(rows) - 1 for rows in meant.values())
        random_state.shuffle(ids)
        if expected:
            labels = match_entries(rows("tail", *names), ids)
            assert matched(labels) == expected and len(labels.dropped) == dropped
            pairs += len(expected)
        elif dropped:
            with pytest.raises(LabelsError, match="matches|contradicting rows"):
                match_entries(rows("tail", *names), ids)
    assert pairs > 50


def test_rows_of_a_csv_are_paths_where_files_are_at_hand(tmp_path: Path) -> None:
    """A row of another folder is another video of the same name; without files they cannot be distinguished."""
    (tmp_path / "labels.csv").write_text("file,class\none/1.mp4,x\ntwo/1.mp4,y\n")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.mp4").touch()
        labels = find_labels(LabelOptions(labels=tmp_path / "labels.csv"), find_videos([tmp_path / name]), Silent())
        assert matched(labels) == {"1.mp4": {"one": "x", "two": "y"}[name]}
    with pytest.raises(LabelsError, match="line 3: two/1.mp4 has contradicting rows"):
        labels_for(tmp_path / "labels.csv", ["1.mp4"])
    assert matched(labels_for(tmp_path / "labels.csv", ["v/two/1.mp4"])) == {"v/two/1.mp4": "y"}


# --- a store from a data set's lists ----------------------------------------------------------------------------------

HANDS = "HandstandPushups/v_HandStandPushups_g01_c01.avi"
YOYO = "YoYo/v_YoYo_g25_c01.avi"
EXTRA = "YoYo/mine.avi"


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    """Three tiny videos that lie as UCF101's do, and two splits of two of them."""
    for number, name in enumerate((HANDS, YOYO, EXTRA)):
        path = tmp_path / "UCF-101" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_square(number, 12)[0])
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 HandstandPushups\r\n2 TaiChi\r\n3 YoYo\r\n")
    (lists / "trainlist01.txt").write_bytes(f"{YOYO} 3\r\nYoYo/v_YoYo_g24_c01.avi 3\r\n".encode())
    (lists / "testlist01.txt").write_bytes(f"{HANDS}\r\n".encode())
    (lists / "trainlist02.txt").write_bytes(f"{HANDS} 1\r\n".encode())
    (lists / "testlist02.txt").write_bytes(f"{YOYO}\r\n".encode())
    return tmp_path


def test_a_store_with_the_labels_of_ucf101(ucf: Path) -> None:
    lists, out = ucf / "ucfTrainTestlist", ucf / "bg"

    def extract(*more: object) -> tuple[int, str, str]:
        command = [
            "extract-backgrounds",
            ucf / "UCF-101",
            "--out",
            out,
            "--size",
            "native",
            "--jobs",
            1,
            *more,
            "--json",
        ]
        result = CliRunner().invoke(app, [str(argument) for argument in command])
        return result.exit_code, result.stdout, result.stderr

    code, output, errors = extract("--labels", lists, "--labels-format", "ucf101", "--labels-split", 2)
    assert code == 0 and json.loads(output.splitlines()[-1])["ok"] == 3
    assert "1 videos have no row: YoYo/mine.avi" in " ".join(errors.split())
    store = open_store(out)
    found = {store.row(video).id: store.row(video) for video in range(len(store))}
    assert {name: (row.label, row.group, row.split) for name, row in found.items()} == {
        HANDS: ("HandstandPushups", "HandstandPushups_g01", "train"),
        YOYO: ("YoYo", "YoYo_g25", "test"),
        EXTRA: (None, None, None),
    }
    assert store.header.classes == ("HandstandPushups", "TaiChi", "YoYo")
    by_id = dict(zip((store.row(video).id for video in range(len(store))), store.columns.label.tolist(), strict=True))
    assert by_id == {HANDS: 0, YOYO: 2, EXTRA: -1}  # the numbers of classInd.txt, from 0 on
    # The same call goes on; another split is another store.
    assert extract("--labels", lists, "--labels-split", 2)[0] == 0
    code, _, errors = extract("--labels", lists)
    assert code == 2 and "labels" in errors
    code, _, errors = extract("--labels", lists, "--labels-split", 3)
    assert code == 1 and "has no split 3, only 1, 2" in " ".join(errors.split())
    # What evaluation asks: the store's ids, each split in turn.
    first = labels_for(lists, [store.row(video).id for video in range(len(store))])
    assert first.of(HANDS) == Label("HandstandPushups", "HandstandPushups_g01", "test")
    assert first.of(YOYO).split == "train" and first.files_without_row == (EXTRA,)


def test_how_a_list_is_read_needs_a_list(tmp_path: Path) -> None:
    for more in ({"labels_format": "ucf101"}, {"labels_split": 1}, {"class_names": tmp_path}):
        with pytest.raises(UsageError, match="say how a list of labels is read: give its path too"):
            ShardOptions(inputs=[tmp_path], out=tmp_path / "s", **more)
