"""Lists as they occur: read correctly, or refused in one message with the row and the fix. Never a wrong label."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bgaug.errors import LabelsError
from bgaug.labels import Labels, read_labels, read_list

VIDEOS = ("walk/walk_0.mp4", "walk/a, b.mp4", "run/run_0.mp4", "run/run_1.mp4")

Read = Callable[..., Labels]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Labels of four videos by a list of this content; `names` is the content of a file of class names."""

    def labels(content: str | bytes, name: str = "list.csv", names: str | None = None, **more: object) -> Labels:
        for video in VIDEOS:
            (tmp_path / video).parent.mkdir(exist_ok=True)
            (tmp_path / video).touch()
        file, names_file = tmp_path / name, tmp_path / "names of classes.txt"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        if names is not None:
            names_file.write_text(names)
        return read_labels(
            file,
            {video: tmp_path / video for video in VIDEOS},
            "auto",
            class_names=names_file if names is not None else None,
            **more,  # type: ignore[arg-type]
        )

    return labels


def found(labels: Labels) -> dict[str, str | None]:
    return {video: label.name for video, label in labels.by_id.items()}


BOTH = {"walk/walk_0.mp4": "w", "run/run_0.mp4": "r"}
PLAIN = "file,label\nwalk/walk_0.mp4,w\nrun/run_0.mp4,r\n"


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        *(
            "file,label",
            "file_name,label",
            "filename,class",
            "path,label",
            "File,Label",
            " Video Path , Class-Name ",
            "name,label",
        ),
        *(
            "video,action",
            "video_name,tag",
            "clip_path,category",
            "VIDEO_PATH,LABEL",
            '"file","label"',
            "videoPath,className",
        ),
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_headers_by_other_names(read: Read, header: str, separator: str) -> None:
    assert found(read(f"{header},size\nwalk/walk_0.mp4,w,1\nrun/run_0.mp4,r,2\n".replace(",", separator))) == BOTH


def test_a_header_with_blanks_between(read: Read) -> None:
    assert found(read("video  label\nwalk/walk_0.mp4   w\nrun/run_0.mp4 r\n")) == BOTH


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(read: Read, encoding: str, end: str) -> None:
    for text, expected in (
        (PLAIN, BOTH),
        ("walk/walk_0.mp4 1\nrun/run_0.mp4 0\n", {"walk/walk_0.mp4": "1", "run/run_0.mp4": "0"}),
    ):
        text = text.replace("\n", end)
        data = b"\xfe\xff" + text.encode("utf-16-be") if encoding == "utf-16-be-bom" else text.encode(encoding)
        assert found(read(data)) == expected


@pytest.mark.parametrize(
    "text",
    [
        f"# made by me\n\n#really\n{PLAIN}",
        PLAIN.replace("\nrun", "\n# half of it, x, y\n\n,\nrun"),
        PLAIN.replace("\n", ",\n"),
        PLAIN.replace("walk/walk_0.mp4", " walk/walk_0.mp4 "),
        PLAIN.replace(".mp4", ""),
        PLAIN.replace("walk/walk_0", "./walk/walk_0").replace("run/", "/run/"),
        PLAIN.replace("walk/walk_0.mp4,w", '"walk/walk_0.mp4", "w"'),
        PLAIN + PLAIN.partition("\n")[2],
    ],
)
def test_what_costs_nothing(read: Read, text: str) -> None:
    labels = read(text)
    assert found(labels) == BOTH and not labels.dropped


def test_json_of_other_tools(read: Read) -> None:
    rows = [{"file_name": "walk/walk_0.mp4", "label": "w"}, {"file_name": "run/run_0.mp4", "label": ["r"]}]
    assert found(read("\n".join(map(json.dumps, rows)), "metadata.jsonl")) == BOTH
    assert found(read(json.dumps(rows), "clips.json")) == BOTH
    assert found(read(json.dumps(BOTH), "clips.json")) == BOTH


def test_words_of_splits_become_those_of_evaluation(read: Read) -> None:
    labels = read("file,label,Split\nwalk/walk_0.mp4,w,Training\nrun/run_0.mp4,r,VALIDATION\nrun/run_1.mp4,r,fold 3\n")
    assert [labels.of(video).split for video in ("walk/walk_0.mp4", "run/run_0.mp4", "run/run_1.mp4")] == [
        *("train", "val", "fold 3")
    ]


def test_forms_of_characters(tmp_path: Path) -> None:
    """A list in one form, folders in the other, both ways."""
    apart, composed = "Fu\u0308\u00dfe/cafe\u0301", "F\u00fc\u00dfe/caf\u00e9"
    for name, other in ((apart, composed), (composed, apart)):
        folder = tmp_path / str(len(name))
        (folder / name).parent.mkdir(parents=True)
        (folder / f"{name}.mp4").touch()
        (folder / "labels.csv").write_text(f"file,label\n{other}.mp4,{other.partition('/')[0]}\n")
        labels = read_labels(folder / "labels.csv", {f"{name}.mp4": folder / f"{name}.mp4"}, "auto")
        assert found(labels) == {f"{name}.mp4": "F\u00fc\u00dfe"} and labels.classes == ("F\u00fc\u00dfe",)


def test_paths_from_the_top_by_another_name_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.mp4").touch()
    (tmp_path / "data").symlink_to("disk")
    (tmp_path / "labels.csv").write_text(f"file,label\n{tmp_path}/data/a.mp4,x\n")
    assert found(read_labels(tmp_path / "labels.csv", {"a.mp4": tmp_path / "disk" / "a.mp4"})) == {"a.mp4": "x"}


def test_lines_made_to_cost_time(tmp_path: Path) -> None:
    """Lines of the largest length that make careless patterns backtrack: a second each would be hours per file."""
    tails = (" " * 8000, " 1" * 4000, ".mp4 " * 1600, ",;" * 4000, '"' * 8000, "\t" * 8000, "#" * 8000)
    begun = time.process_time()
    for name in ("l.txt", "l.csv", "names.txt"):
        for head in ("", "a.mp4 0\n", "file,label\n", "1 a\n"):
            for tail in tails:
                (tmp_path / name).write_text(f"{head}x{tail}x\n{head}x{tail}1\n")
                (tmp_path / "list.txt").write_text("a.mp4 0\n")
                for file, names in ((tmp_path / name, None), (tmp_path / "list.txt", tmp_path / name)):
                    with contextlib.suppress(LabelsError):
                        read_list(file, class_names=names)
    assert time.process_time() - begun < 10  # 168 lists: under a second here


def test_two_links_to_one_file_keep_their_own_labels(tmp_path: Path) -> None:
    for name in ("blob", "a.mp4", "b.mp4"):
        (tmp_path / name).touch() if name == "blob" else (tmp_path / name).symlink_to("blob")
    (tmp_path / "labels.csv").write_text("file,label\na.mp4,x\nb.mp4,y\n")
    labels = read_labels(tmp_path / "labels.csv", {name: tmp_path / name for name in ("a.mp4", "b.mp4")})
    assert found(labels) == {"a.mp4": "x", "b.mp4": "y"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\nwalk/a, b.mp4,w\n", r"line 2: has 3 cells, the header has 2; quote cells"),
        ('file,label\n"walk/a, b.mp4,w\nrun/run_0.mp4,r\n', "is a quote not closed"),
        ("file,label,label\nwalk/walk_0.mp4,a,b\n", "has the column 'label' twice"),
        ('file,label\nrun/run_0.mp4,1\nwalk/walk_0.mp4,"0, 3"\n', "line 3: `label` has several labels, '0, 3'"),
        ("file;label\nwalk/walk_0.mp4;[0, 3]\n", "line 2: `label` has several labels"),
        ("file,label\nwalk/walk_0.mp4,walk|run\n", "line 2: `label` has several labels"),
        ("name,klass\nwalk/walk_0.mp4,w\n", r"names the columns name, klass; call .* the class of each video `label`$"),
        ("clip_no,label\nwalk/walk_0.mp4,w\n", "call the one with the path of each video `file`$"),
        ("a,b,c\n1,2,3\n", r"its first line is 'a,b,c'; expected a table .* or lines of a path and the number"),
        ("walk/walk_0.mp4,walk\n", "the class at its end is a name, not a number; put a line `file,label` before it"),
        ("", "is empty; expected a table"),
        ("\n# nothing\n", "has only blank lines and comments"),
        ("file,label\nwalk/walk_0.mp4,é\n".encode("latin-1"), "line 2: is not UTF-8: .*iconv -f LATIN1"),
        (b"file,label\nwalk/walk_0.mp4\0,r\n", "line 2: holds a NUL character"),
        (PLAIN.encode("utf-16-le"), r"is no text|holds a NUL|without a byte order mark"),
        (b"\xff\xfe" + PLAIN.encode("utf-16-le") + b"\n", "line 4: is not UTF-16: truncated data"),
        (b"PK\x03\x04....", "a zip archive or a spreadsheet"),
        (b"\x80\x04\x95.....", "a pickle of Python"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (f"file,label\nwalk/walk_0.mp4,{'1' * 5000}\n", "line 2: `label` has 5000 characters"),
        (f"file,label\n{'x' * 10_000_000},1\n", "line 2: has 10000003 characters, expected at most"),
        ("x" * 10_000_000, "begins with a line of over 8192 characters"),
        ('file,label\n"' + "x\n" * 100_000, "is not a CSV: field larger than field limit"),
        (f"walk/walk_0.mp4 {'1' * 400}\n", "ends with a number too large for a class"),
        (
            f"walk/walk_0.mp4 0\nrun/run_0.mp4 {'1' * 5000}\n",
            "line 2: expected a path, a blank and the number of a class",
        ),
    ],
)
def test_what_cannot_be_read_is_one_short_message(read: Read, content: str | bytes, message: str) -> None:
    begun = time.process_time()
    with pytest.raises(LabelsError, match=message) as caught:
        read(content)
    assert len(str(caught.value)) < 900 and "\n" not in str(caught.value)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", '{"file": "a.mp4", "label": "w"}\n{"file":\n', r"m\.jsonl, line 2: is not JSON"),
        ("m.json", '[{"file": "a.mp4", "label": ["w", "x"]}]', "entry 1: `label` must be one text or whole number"),
        ("m.json", '[{"file": "a.mp4", "label": true}]', "entry 1: `label` must be one text or whole number"),
        ("m.json", '{"a": {"b": 1}}', "is JSON: an object that begins with 'a'; expected a list of objects"),
        (
            "m.json",
            '[{"file": "a\\u0000.mp4", "label": 1}]',
            "entry 1: `file` cannot be the name of a file or class",
        ),
        (
            "m.json",
            '[{"file": "a\\ud800.mp4", "label": 1}]',
            "entry 1: `file` cannot be the name of a file or class",
        ),
        (
            "m.json",
            '[{"file": "' + "a/" * 10**6 + '", "label": 1}]',
            "entry 1: `file` cannot be the name of a file or class",
        ),
        ("m.json", "[1, 2", "line 1: is not JSON"),
    ],
)
def test_json_that_cannot_be_read(read: Read, name: str, content: str, message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        read(content, name)


def test_lists_that_are_no_files(tmp_path: Path) -> None:
    for name in ("labels.csv", "train.txt", "classInd.txt"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "a.txt").write_text("a.mp4 0\n")
    for path in (tmp_path / "labels.csv", tmp_path / "train.txt"):
        for format in ("auto", "csv"):
            with pytest.raises(LabelsError, match="is a fifo, not a regular file"):
                read_list(path, format)
    with pytest.raises(LabelsError, match="is a device"):
        read_list("/dev/zero")
    with pytest.raises(LabelsError, match="classInd.txt: cannot be read: is a fifo"):
        read_list(tmp_path / "a.txt", class_names=tmp_path / "classInd.txt")
    with pytest.raises(LabelsError, match="is a folder, not a regular file"):
        read_list(tmp_path / "a.txt", class_names=tmp_path)
    with pytest.raises(LabelsError, match="no list of labels is recognised by its name"):
        read_list(tmp_path)


def test_a_list_of_any_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.write(b"a.mp4 0\n")
        file.truncate(10**11)
    with pytest.raises(LabelsError, match="is larger than 64 MiB"):
        read_list(tmp_path / "huge.txt")


# --- lines of a path and a number -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '"walk/a, b.mp4",1\n"run/run_0.mp4",0\n',
        "walk\\a, b.mp4\t1\nC:\\data\\run\\run_0.mp4\t0\n",
        "'walk/a, b.mp4' 1\n'run/run_0.mp4' 0\n",
        '"walk/a, b.mp4";"1"\n"run/run_0.mp4";"0"\n',
        "walk/a, b.mp4\t1\nrun/run_0.mp4\t0\n",
        "walk/a, b.mp4 1\nrun/run_0.mp4 0\n",
        "#my list\n# of two\nwalk/a, b.mp4 1\n\nrun/run_0.mp4 0 \n",
        "walk/a, b;1;\nrun/run_0;0;\n",
        "walk/a, b 30 1\nrun/run_0 45 0\n",
    ],
)
def test_paths_with_quotes_and_blanks(read: Read, text: str) -> None:
    assert found(read(text)) == {"walk/a, b.mp4": "1", "run/run_0.mp4": "0"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("run/run_0.mp4 0 3\nrun/run_1.mp4 0 1\nwalk/walk_0.mp4 1 2\n", 1),
        ("run/run_0.mp4 1\nwalk/walk_0.mp4 1 2\n", 2),
        ("run/run_0.mp4 300 22\n", 1),  # may be a length; nothing is reported
        ("run/run_0,0,3\nrun/run_1,0,1\n", 1),
        ("run/run_0 30 3\nrun/run_1 0 1\n", 2),
        ("run/run_0 30 3\nrun/run_1 40 1 2\n", 2),
        ("run/run_0 0 30 3\nrun/run_1 0 40 1\n", 1),
        (f"run/run_0.mp4 {' '.join('01' * 20)}\n", 1),
        ("walk/walk_0.mp4 1\nrun/run_0.mp4 0|3 1\n", 2),
    ],
)
def test_several_numbers_are_never_read_as_a_length_without_being_sure(read: Read, text: str, line: int) -> None:
    with pytest.raises(
        LabelsError, match=rf"list\.txt, line {line}: has \d+ numbers after the path: .*--columns path,frames"
    ):
        read(text, "list.txt")


@pytest.mark.parametrize(
    "text", ["run/run_0.mp4 0,3", '"run/run_0.mp4" 0,3', "run/run_0.mp4,0 3", "run/run_0.MP4\t0 3"]
)
def test_several_numbers_by_any_separator(read: Read, text: str) -> None:
    with pytest.raises(LabelsError, match="line 1: has . numbers after the path"):
        read(f"{text}\n", "list.txt")


def test_columns_that_are_named(read: Read) -> None:
    lengths = read("run/run_0.mp4 3 1\nwalk/walk_0.mp4 4 0\n", columns="path,frames,label")
    assert found(lengths) == {"run/run_0.mp4": "1", "walk/walk_0.mp4": "0"}
    whole = read("run/run_0 0 30 1\nwalk/walk_0 0 40 0\n", columns="path offset frames label")
    assert found(whole) == found(lengths)
    with pytest.raises(LabelsError, match="line 2: begins at frame 9 of its video"):
        read("run/run_0 0 30 1\nwalk/walk_0 9 40 0\n", columns="path,offset,frames,label")
    with pytest.raises(LabelsError, match="columns are path,label or"):
        read("run/run_0 1\n", columns="label,path")
    with pytest.raises(LabelsError, match="line 1: expected path frames label, got 'run/run_0 1'"):
        read("run/run_0 1\n", columns="path,frames,label")


# --- from where a list counts -----------------------------------------------------------------------------------------

ONE = "run/run_0.mp4 1\nrun/run_1.mp4 1\nwalk/walk_0.mp4 2\n"
ZERO = "run/run_0.mp4 0\nrun/run_1.mp4 0\nwalk/walk_0.mp4 1\n"


@pytest.mark.parametrize("rows", [ONE, ZERO])
@pytest.mark.parametrize(
    "names", ["1 run\n2 walk\n3 swim\n", "0 run\n1 walk\n2 swim\n", "run\nwalk\nswim\n", "run,1\nwalk,2\n"]
)
@pytest.mark.parametrize("header", ["", "file label\n"])
def test_lists_and_names_that_count_differently(read: Read, header: str, rows: str, names: str) -> None:
    """The folders decide from which number classes count, and a shift is reported."""
    labels = read(header + rows, names=names)
    assert found(labels) == {"run/run_0.mp4": "run", "run/run_1.mp4": "run", "walk/walk_0.mp4": "walk"}
    assert labels.classes[:2] == ("run", "walk")
    shifted = (rows is ONE) != (names[0] == "1" or ",1" in names)
    assert any(f"count classes from {rows[14]}" in note for note in labels.notes) == shifted


@pytest.mark.parametrize(
    ("numbers", "names", "classes", "note"),
    [
        ("1 2 3", "1 a\n2 b\n3 c\n", "a b c", ""),
        ("0 1 2", "1 a\n2 b\n3 c\n", "a b c", "count classes from 0"),  # lists of mmaction next to classInd.txt
        ("1 2", "1 a\n2 b\n3 c\n", "a b", "count classes from 1"),  # as in the file, and reported
        ("0 2", "a\nb\nc\n", "a c", ""),
        ("1 2", "a\nb\nc\n", "b c", "count classes from 0"),
        ("5 9", "5 a\n9 b\n", "a b", ""),
    ],
)
def test_numbers_decide_where_folders_do_not(read: Read, numbers: str, names: str, classes: str, note: str) -> None:
    rows = [f"{video} {number}" for video, number in zip(VIDEOS[:1] + VIDEOS[2:], numbers.split(), strict=False)]
    labels = read("\n".join(rows), names=names)
    assert list(found(labels).values()) == classes.split()
    assert bool(labels.notes) == bool(note) and note in "".join(labels.notes)


@pytest.mark.parametrize(
    ("numbers", "names", "message"),
    [
        ("0 3", "1 a\n2 b\n3 c\n", "line 1: the label 0 is not in 1 to 3, the numbers of .*names"),
        ("0 3", "a\nb\nc\n", "line 2: the label 3 is not in 0 to 2, the numbers of .*names"),
        ("1 3", "a\nb\nc\n", "line 2: the label 3 is not in 0 to 2, .*--first-class 1"),
        ("1 2", "1 a\n3 c\n", "line 2: the label 2 is not in 1 to 3, with gaps"),
    ],
)
def test_numbers_without_a_name_are_named_with_their_row(read: Read, numbers: str, names: str, message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        read(
            "\n".join(f"{video} {number}" for video, number in zip(VIDEOS[2:], numbers.split(), strict=True)),
            names=names,
        )


def test_the_first_class_that_is_given_goes_before_what_is_guessed(read: Read) -> None:
    assert found(read("run/run_0.mp4 1\n", names="a\nb\n", first_class=1)) == {"run/run_0.mp4": "a"}
    assert found(read("run/run_0.mp4 1\n", names="a\nb\n", first_class=0)) == {"run/run_0.mp4": "b"}
    assert found(read("run/run_0.mp4 1\n", names="1 a\n2 b\n", first_class=0)) == {"run/run_0.mp4": "b"}
    with pytest.raises(LabelsError, match="line 1: the label 2 is not in 0 to 1"):
        read("run/run_0.mp4 2\n", names="a\nb\n", first_class=0)
    assert read("run/run_0.mp4 1\n", "l.txt", first_class=1).classes == ("1",)
    with pytest.raises(LabelsError, match="line 1: the label 0 is less than that of the first class, 1"):
        read("run/run_0.mp4 0\n", "l.txt", first_class=1)


def test_names_that_contradict_the_folders_are_reported(read: Read) -> None:
    labels = read(ZERO, names="walk\nrun\n")
    assert "3 rows are in a folder named after another class" in labels.notes[0]


# --- rows that cost themselves ----------------------------------------------------------------------------------------


def test_rows_that_contradict_each_other_affects_no_other_video(read: Read) -> None:
    labels = read("file,label\nrun/run_0.mp4,r\nrun/run_0.mp4,r\nrun/run_1.mp4,w\nrun/run_1.mp4,x\nwalk/walk_0.mp4,w\n")
    assert found(labels) == {"run/run_0.mp4": "r", "walk/walk_0.mp4": "w"}
    (dropped,) = labels.dropped
    assert "line 5: run/run_1.mp4 has contradicting rows: 'x', and 'w' in" in dropped and "line 4" in dropped
    assert labels.summary(VIDEOS)["rows_dropped"] == 1


def test_rows_without_a_class_are_counted(read: Read) -> None:
    labels = read("file,label\nrun/run_0.mp4\nwalk/walk_0.mp4,w\n")
    assert found(labels) == {"run/run_0.mp4": None, "walk/walk_0.mp4": "w"}
    assert labels.notes == ("list.csv: 1 of 2 rows have no class",)


def test_a_row_that_may_mean_two_videos_costs_itself(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("1.mp4 0\nb/2.mp4 1\n")
    videos = {name: tmp_path / name for name in ("a/1.mp4", "b/1.mp4", "b/2.mp4")}
    labels = read_labels(tmp_path / "l.txt", videos, "auto")
    assert found(labels) == {"b/2.mp4": "1"} and "line 1: 1.mp4 matches 2 videos" in labels.dropped[0]


@pytest.mark.parametrize(
    ("video", "label"),
    [
        ("abcdefghij0.mp4", None),
        ("weaving fabric/abcdefghij0.mp4", "weaving fabric"),
        ("abcdefghij0_000001_000011.mp4", "weaving fabric"),
        ("yarn spinning/abcdefghij0_000000_000010.mp4", "yarn spinning"),
    ],
)
def test_one_youtube_id_in_two_classes(real_data: Path, video: str, label: str | None) -> None:
    """Kinetics-600 has such ids: only the video with the ambiguous name loses its label."""
    file = real_data / "odd" / "lists" / "k600_val.csv"
    labels = read_labels(file, {name: Path(name) for name in (video, "abcdefghij1.mp4", "abcdefghij2.mp4")}, "auto")
    assert labels.of(video).name == label
    assert (labels.of("abcdefghij1.mp4").name, labels.of("abcdefghij2.mp4").name) == ("running", "swim")
    assert bool(labels.dropped) == (label is None or "_" not in video)


# --- the lists of public reports --------------------------------------------------------------------------------------


def test_lists_of_public_reports(real_data: Path, tmp_path: Path) -> None:
    lists = real_data / "odd" / "lists"
    one = read_list(lists / "one_based.txt", class_names=lists / "classInd.txt")
    assert [entry.class_name for entry in one.entries] == ["run", "run", "walk", "walk"]
    assert one.classes == ("run", "walk", "swim")
    assert [entry.class_name for entry in read_list(lists / "one_based.txt").entries] == ["1", "1", "2", "2"]
    with pytest.raises(LabelsError, match=r"multi_label\.txt, line 1: has 2 numbers after the path"):
        read_list(lists / "multi_label.txt")
    quoted = read_list(lists / "quoted.csv")
    assert [(entry.names, entry.class_name) for entry in quoted.entries] == [
        (("walk/a, b.mp4",), "0"),
        (("run/c d.mp4",), "1"),
    ]
    named = read_list(lists / "metadata.csv")
    assert [(entry.names, entry.class_name) for entry in named.entries] == [
        (("walk/walk_0.mp4",), "w"),
        (("run/run_0.mp4",), "r"),
    ]


@pytest.mark.parametrize(
    "several",
    [
        "(0, 3)",
        "{0, 3}",
        "[0 3]",
        "['run' 'walk']",
        "(run, walk)",
        "0/3",
        "0+3",
        "0 & 3",
        "walk;run",
        "walk, run",
        "run/walk",
    ],
)
def test_a_class_that_is_several_is_refused_however_it_is_written(read: Read, several: str) -> None:
    content = f"file|label\nwalk/walk_0.mp4|walk\nrun/run_0.mp4|run\nrun/run_1.mp4|{several}\n"
    with pytest.raises(LabelsError, match="line 4: `label` has several labels"):
        read(content)


@pytest.mark.parametrize(
    "one", ["[/]", "push, pull", "(no) push, pull", "[something] on [something]", "a/b", "24h", "r&b"]
)
def test_a_class_with_such_characters_in_its_name_is_one(read: Read, one: str) -> None:
    labels = read(f"file|label\nwalk/walk_0.mp4|push\nrun/run_0.mp4|{one}\n")
    assert found(labels) == {"walk/walk_0.mp4": "push", "run/run_0.mp4": one}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,label,label2", "several columns of labels, one of them 'label2'"),
        ("file,Label,label", "the column 'Label' twice"),
    ],
)
def test_two_columns_of_labels_are_refused(read: Read, header: str, message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        read(f"{header}\nwalk/walk_0.mp4,1,0\n")


def test_numbers_that_a_table_wrote_with_a_point(read: Read) -> None:
    labels = read("file,label\nwalk/walk_0.mp4,2.0\nrun/run_0.mp4,10.0\nrun/run_1.mp4,\n")
    assert found(labels) == {"walk/walk_0.mp4": "2", "run/run_0.mp4": "10", "run/run_1.mp4": None}
    assert labels.classes == ("2", "10")


def test_groups_and_splits_in_both_forms_of_their_characters_are_one(read: Read) -> None:
    labels = read(
        "file,label,group,split\nwalk/walk_0.mp4,w,cafe\u0301,e\u0301\nrun/run_0.mp4,r,caf\u00e9,\u00e9\n".encode()
    )
    assert {(label.group, label.split) for label in labels.by_id.values()} == {("caf\u00e9", "\u00e9")}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_text_without_its_byte_order_mark_is_named(read: Read, encoding: str) -> None:
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    with pytest.raises(
        LabelsError, match=f"is {name} without a byte order mark; save it as UTF-8, such as by `iconv -f {name}"
    ):
        read("File;Label\nwalk/walk_0.mp4;w\n".encode(encoding))
