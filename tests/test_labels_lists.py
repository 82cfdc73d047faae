"""Lists of every format made here: what is found, what is read, and the message for a wrong line."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from bgaug.errors import LabelsError
from bgaug.labels import Label, labels_for, read_list, split_numbers

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes a file and gives its path."""

    def write(name: str, content: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_bytes(text.encode() if not name.startswith("latin") else text.encode("latin-1"))
        return path

    return write


UCF = "Run/v_Run_g01_c01.avi"
DIVE = {"vid_name": "abc_00001", "label": 3, "start_frame": 0, "end_frame": 60}
SSV2_LABELS = {"Holding something": "1", "Dropping something": "0"}
VOCABULARY = [["Back", f"{n}som", "NoTwis", "PIKE"] for n in range(48)]


# --- what lies there --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "format"),
    [
        ({"labels.csv": "file,class\na.mp4,x\n", "a.mp4": ""}, "csv"),
        ({"trainlist01.txt": f"{UCF} 1\r\n", "classInd.txt": "1 Run\r\n"}, "ucf101"),
        ({"ucfTrainTestlist/testlist01.txt": f"{UCF}\r\n"}, "ucf101"),
        ({"run_fast_test_split1.txt": "a_run_fast_f_cm_np1_ba_goo_0.avi 1 \n"}, "hmdb51"),
        ({"testTrainMulti_7030_splits/run_test_split1.txt": "a.avi 1 \n"}, "hmdb51"),
        ({"train.csv": "label,youtube_id,time_start,time_end,split\nrun,abc,1,11,train\n"}, "kinetics"),
        ({"train.csv": "a.mp4 0\n", "val.csv": "b.mp4 1\n"}, "filelist"),
        ({"ucf101_test_split1.txt": "Run/a.avi 0\n"}, "filelist"),
        ({"labels.json": SSV2_LABELS, "test.json": [{"id": "1"}]}, "ssv2"),
        ({"Diving48_V2_train.json": [DIVE], "Diving48_train.json": [DIVE]}, "diving48"),
    ],
)
def test_formats_are_found(put: Put, tmp_path: Path, files: dict[str, object], format: str) -> None:
    for name, content in files.items():
        put(name, content)
    assert read_list(tmp_path).format == format
    assert read_list(tmp_path).entries == read_list(tmp_path, format).entries
    assert len(read_list(tmp_path).entries) >= 1


def test_what_is_in_a_folder_is_named(put: Put, tmp_path: Path) -> None:
    put("notes.txt", "nothing\n")
    with pytest.raises(
        LabelsError, match=r"^\S+notes\.txt: its first line is 'nothing'; expected a table .* `file,label`"
    ):
        read_list(tmp_path / "notes.txt")
    with pytest.raises(LabelsError, match=r"The folder has notes\.txt\. Name the file .*trainlist01\.txt"):
        read_list(tmp_path)
    with pytest.raises(LabelsError, match=r"is not of the format hmdb51\. Looked for: HMDB51's"):
        read_list(tmp_path, "hmdb51")
    with pytest.raises(LabelsError, match="formats of lists are auto, csv, ucf101, .*; got 'coco'"):
        read_list(tmp_path, "coco")
    for format in ("auto", "ucf101", "csv"):
        with pytest.raises(LabelsError, match=r"none: cannot be read: No such file"):
            read_list(tmp_path / "none", format)


def test_what_may_not_be_read_is_named(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put("train.csv", "a.mp4 0\n")

    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(LabelsError, match="cannot be read: Permission denied"):
        read_list(file)


def test_two_data_sets_in_one_folder(put: Put, tmp_path: Path) -> None:
    put("trainlist01.txt", f"{UCF} 1\n")
    put("run_test_split1.txt", "a.avi 1\n")
    with pytest.raises(LabelsError, match="may be of the formats ucf101, hmdb51"):
        read_list(tmp_path)
    assert read_list(tmp_path, "hmdb51").sizes == {"train": 1}


# --- splits -----------------------------------------------------------------------------------------------------------


def test_numbers_of_splits(put: Put, tmp_path: Path) -> None:
    put("trainlist01.txt", f"{UCF} 1\n")
    put("testlist03.txt", "Run/v_Run_g02_c01.avi\n")
    assert split_numbers(tmp_path) == (1, 3)
    assert read_list(tmp_path).sizes == {"train": 1} and read_list(tmp_path, split=3).sizes == {"test": 1}
    assert read_list(tmp_path / "testlist03.txt").split == 3
    with pytest.raises(LabelsError, match="has no split 2, only 1, 3$"):
        read_list(tmp_path, split=2)
    with pytest.raises(LabelsError, match=r"testlist03\.txt: has no split 1, only 3; name its folder"):
        read_list(tmp_path / "testlist03.txt", split=1)


@pytest.mark.parametrize("format", ["csv", "kinetics", "ssv2", "diving48", "filelist"])
def test_formats_of_one_split_have_no_second(put: Put, tmp_path: Path, format: str) -> None:
    file = {
        "csv": ("a.csv", "file,class\na.mp4,x\n"),
        "kinetics": ("a.csv", "label,youtube_id,time_start,time_end,split\nrun,abc,1,11,train\n"),
        "ssv2": ("test.json", [{"id": "1"}]),
        "diving48": ("Diving48_V2_train.json", [DIVE]),
        "filelist": ("a.txt", "a.mp4 1\n"),
    }[format]
    path = put(*file)
    assert split_numbers(path) == (1,) and read_list(path).format == format
    with pytest.raises(LabelsError, match="has no split 2, only 1"):
        read_list(path, split=2)


def test_numbered_lists_of_paths(put: Put, tmp_path: Path) -> None:
    for number in (1, 2):
        put(f"ucf_train_split_{number}_videos.txt", f"a{number}.avi 0\n")
        put(f"ucf_val_split_{number}_videos.txt", f"b{number}.avi 1\n")
    assert split_numbers(tmp_path) == (1, 2)
    second = read_list(tmp_path, split=2)
    assert [(entry.names[0], entry.split) for entry in second.entries] == [("a2.avi", "train"), ("b2.avi", "val")]
    put("ucf_val_split_2_rawframes.txt", "b2 30 1\n")
    assert read_list(tmp_path).sizes == {"train": 1, "val": 1}
    with pytest.raises(
        LabelsError, match=r"ucf_val_split_2_rawframes\.txt and ucf_val_split_2_videos\.txt are both for val"
    ):
        read_list(tmp_path, split=2)


def test_a_copy_of_the_list_for_validation_is_the_test(put: Put, tmp_path: Path) -> None:
    put("train.csv", "a.mp4 0\n")
    put("val.csv", "b.mp4 1\n")
    put("test.csv", "b.mp4 1\n")
    assert read_list(tmp_path).sizes == {"train": 1, "test": 1}
    put("test.csv", "c.mp4 1\n")
    assert read_list(tmp_path).sizes == {"train": 1, "val": 1, "test": 1}


# --- each format ------------------------------------------------------------------------------------------------------


def test_diving48(put: Put, tmp_path: Path) -> None:
    """Every number but 30, as in the lists that are published: 47 classes, which keep their numbers."""
    numbers = [number for number in range(48) if number != 30]
    train = [{**DIVE, "vid_name": f"_8Vy3dlHg2w_{n:05d}", "label": n} for n in numbers]
    put("Diving48_V2_train.json", train)
    put("Diving48_V2_test.json", [{**DIVE, "vid_name": "-x_y_00007", "label": 47}])
    plain = read_list(tmp_path)
    assert plain.sizes == {"train": 47, "test": 1}
    assert plain.classes == tuple(map(str, range(48)))
    assert {entry.class_name for entry in plain.entries} == set(map(str, numbers))
    assert [(entry.group, entry.split) for entry in plain.entries[-2:]] == [("_8Vy3dlHg2w", "train"), ("-x_y", "test")]
    put("Diving48_vocab.json", VOCABULARY)
    named = read_list(tmp_path)
    assert named.entries[31].class_name == "Back_32som_NoTwis_PIKE" == named.classes[32]
    used = {entry.class_name for entry in named.entries}
    assert len(used) == 47 and named.classes[30] not in used
    assert labels_for(tmp_path, ["rgb/-x_y_00007.mp4"]).of("rgb/-x_y_00007.mp4") == Label(
        named.classes[47], "-x_y", "test"
    )


def test_the_first_diving48_is_not_taken(put: Put, tmp_path: Path) -> None:
    put("Diving48_train.json", [DIVE])
    with pytest.raises(LabelsError, match=r"Diving48_V2_train\.json"):
        read_list(tmp_path)


def test_kinetics_without_labels_and_with_other_words(put: Put) -> None:
    file = put("k_test.csv", "youtube_id,time_start,time_end,split\nabc,0.0,10.0,test\n")
    assert [(e.names, e.class_name, e.split) for e in read_list(file).entries] == [
        (("abc_000000_000010", "abc"), None, "test")
    ]
    file = put("a.csv", '"label","youtube_id","time_start","time_end","split","is_cc"\n"a, b","-x",9,19,"validate",0\n')
    entry = read_list(file).entries[0]
    assert (entry.names[0], entry.class_name, entry.split) == ("a, b/-x_000009_000019", "a, b", "val")


def test_one_recording_in_two_classes(put: Put) -> None:
    """Two clips of one YouTube video: the id does not identify a video, and class folders distinguish equal names."""
    rows = "run,abc,0,10,train\nwalk,abc,5,15,train\nhop,twin,0,10,train\nskip,twin,0,10,train\n"
    file = put("train.csv", f"label,youtube_id,time_start,time_end,split\n{rows}")
    ids = ["abc_000005_000015.mp4", "hop/twin_000000_000010.mp4", "skip/twin_000000_000010.mp4"]
    assert [labels_for(file, ids).of(video).name for video in ids] == ["walk", "hop", "skip"]
    with pytest.raises(LabelsError, match=r"line 3: walk/abc_000005_000015 has contradicting rows"):
        labels_for(file, ["abc.mp4"])


@pytest.mark.parametrize(
    ("text", "name", "label"),
    [
        ("air drumming/a b.mp4 3\n", "air drumming/a b.mp4", "3"),
        ("a,b.mp4 3\n", "a,b.mp4", "3"),
        ("x/a.mp4,3\n", "x/a.mp4", "3"),
        ("x/a b.mp4\t3\n", "x/a b.mp4", "3"),
        ("x/a 300 3\n", "x/a", "3"),
        ("air drumming/a,300,3\r\n", "air drumming/a", "3"),
        ("\n/data/a.mp4   3  \n\n", "/data/a.mp4", "3"),
        ("a.mp4 -1\n", "a.mp4", None),
        ("\ufeffa.mp4 0\n", "a.mp4", "0"),
    ],
)
def test_lists_of_paths_and_numbers(put: Put, text: str, name: str, label: str | None) -> None:
    entry = read_list(put("list.txt", text)).entries[0]
    assert (entry.names, entry.class_name, entry.split) == ((name,), label, None)


def test_lengths_are_reported_over_all_lines(put: Put) -> None:
    file = put("list.txt", "clip 1 3\nother.mp4 4\n")
    assert [entry.names[0] for entry in read_list(file).entries] == ["clip 1", "other.mp4"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "run\nwalk slowly\n"),
        ("names.txt", "0 run\n1 walk slowly\n"),
        ("names.txt", "run,0\nwalk slowly,1\n"),
        ("names.csv", "id,name\n0,run\n1,walk slowly\n"),
        ("names.json", {"walk slowly": 1, '"run"': "0"}),
        ("names.json", {"0": "run", "1": "walk slowly"}),
        ("names.json", ["run", "walk slowly"]),
    ],
)
def test_names_of_classes(put: Put, name: str, content: object) -> None:
    file, names = put("list.txt", "a.mp4 1\n"), put(name, content)
    found = read_list(file, class_names=names)
    assert found.classes == ("run", "walk slowly") and found.entries[0].class_name == "walk slowly"


def test_names_next_to_the_list_are_read_if_there_is_one_file_of_them(put: Put) -> None:
    file, one = put("list.txt", "a.mp4 1\n"), put("label_map_a.txt", "run\nwalk\n")
    assert read_list(file).entries[0].class_name == "walk" and one in read_list(file).files
    put("label_map_b.txt", "hop\nskip\n")
    assert read_list(file).entries[0].class_name == "1"
    assert read_list(file, class_names=one).entries[0].class_name == "walk"


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "trainlist01.txt",
            f"{UCF} 1\nRun/v_Run_g01_c02.avi\n",
            r"trainlist01\.txt, line 2: expected a path and the number",
        ),
        ("trainlist01.txt", "Run/v_Walk_g01_c01.avi 1\n", r"line 1: expected Class/v_Class_gNN_cNN\.avi, got 'Run/v_W"),
        ("testlist01.txt", "v_Run_g01_c01.avi\n", "line 1: expected Class/v_Class"),
        (
            "run_test_split1.txt",
            "a.avi 1\n\nb.avi 3\n",
            r"run_test_split1\.txt, line 3: expected .* 0, 1 or 2, got 'b\.avi 3'",
        ),
        ("run_test_split1.txt", "a.avi\n", "line 1: expected a file's name and 0, 1 or 2"),
        (
            "k.csv",
            "youtube_id,label\nabc,run\n",
            "the header must name youtube_id, time_start, time_end, it has: youtube",
        ),
        (
            "k.csv",
            "label,youtube_id,time_start,time_end\nrun,a,0,10\nrun,b,x,10\n",
            "line 3: `time_start` must be whole .* 'x'",
        ),
        (
            "k.csv",
            "label,youtube_id,time_start,time_end\nrun,a,0,10.5\n",
            r"line 2: `time_end` must be whole seconds, got '10\.5'",
        ),
        ("k.csv", "label,youtube_id,time_start,time_end\nrun,,0,10\n", "line 2: the column `youtube_id` is empty"),
        ("k_val.csv", "label,youtube_id,time_start,time_end\n,a,0,10\n", "line 2: the column `label` is empty"),
        (
            "k.csv",
            "label,youtube_id,time_start,time_end\nrun,a\n",
            "line 2: `time_start` must be whole seconds, got ''",
        ),
        (
            "l.txt",
            "a.mp4 0\nb.mp4\n",
            r"l\.txt, line 2: expected a path, a blank and the number of a class, got 'b\.mp4'",
        ),
        ("l.txt", "a.mp4,0\nb.mp4,run\n", "line 2: expected a path, a comma and the number"),
        ("latin.txt", "a.mp4 0\né.mp4 0\n", r"latin\.txt, line 2: is not UTF-8"),
        ("test.json", '[{"id": "1"},\n{"id": }]', r"test\.json, line 2: is not JSON, or not complete"),
        (
            "k.csv",
            "label,youtube_id,time_start,time_end\nrun,a,nan,10\n",
            "line 2: `time_start` must be whole seconds, got 'nan'",
        ),
        ("l.txt", "a.mp4 0\nb.mp4 1000000000000\n", "line 2: expected a path, a blank and the number of a class"),
        ("test.json", "[" + "1" * 5000 + "]", r"test\.json: is not JSON in UTF-8"),
        ("test.json", "[" * 200_000, r"test\.json: is not JSON in UTF-8"),
        ("test.json", {"id": "1"}, "expected a list of videos, got dict"),
        ("test.json", [{"id": "1"}, {"template": "x"}], "entry 2: expected an object with an `id`"),
        ("validation.json", [{"id": "1"}], r"expected something-something-v2-labels\.json in the same folder"),
        ("labels.json", SSV2_LABELS, "lists classes, but no videos"),
        ("Diving48_V2_test.json", [DIVE, {**DIVE, "label": 48}], r"entry 2: the label 48 is not in 0 to 47"),
        ("Diving48_V2_test.json", [{"vid_name": "a"}], "entry 1: expected an object with a `vid_name` and the number"),
        ("Diving48_V2_test.json", {"a": 1}, "expected a list of videos, got dict"),
        ("t.csv", "file,class\n ,x\n", "line 2: the column `file` is empty"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(put: Put, name: str, content: object, message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        read_list(put(name, content))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"trainlist01.txt": f"{UCF} 1\n", "classInd.txt": "1 Walk\n"}, "line 1: the class 'Run' is not in classInd"),
        ({"trainlist01.txt": f"{UCF} 2\n", "classInd.txt": "1 Run\n2 Walk\n"}, "line 1: 2 is not the number of 'Run'"),
        (
            {"trainlist01.txt": f"{UCF} 1\n", "classInd.txt": "1 Run\n1 Walk\n"},
            r"classInd\.txt, line 2: expected a new number",
        ),
        (
            {"trainlist01.txt": f"{UCF} 1\n", "classInd.txt": "1 Run\n2 Run\n"},
            r"classInd\.txt, line 2: expected .* a new class name",
        ),
        ({"trainlist01.txt": f"{UCF} x\n", "classInd.txt": "1 Run\n"}, "line 1: x is not the number of 'Run'"),
        (
            {"a_test_split1.txt": "x.avi 1\n", "a_test_split2.txt": "x.avi 2\n", "b_test_split2.txt": "y.avi 1\n"},
            "lacks b_test_split1",
        ),
        (
            {"labels.json": SSV2_LABELS, "train.json": [{"id": 1, "template": "Eating [something]"}]},
            "entry 1: the class 'Eating something' is not in",
        ),
        (
            {"labels.json": SSV2_LABELS, "train.json": [{"id": 1, "label": "holding a cup"}]},
            "entry 1: has no `template`",
        ),
        ({"labels.json": {"a": "0", "b": "2"}, "test.json": []}, "the numbers of 2 classes must be 0 to 1, each once"),
        ({"labels.json": ["a"], "test.json": []}, "expected an object that has a number for each class"),
        (
            {"labels.json": SSV2_LABELS, "test.json": [], "test.part.json": []},
            r"test\.json and test\.part\.json are both for test",
        ),
        (
            {"Diving48_V2_train.json": [DIVE], "Diving48_vocab.json": VOCABULARY[:47]},
            "expected a list of 48 lists of words",
        ),
        ({"Diving48_V2_train.json": [DIVE], "Diving48_vocab.json": [["a"]] * 48}, "the class 'a' occurs twice"),
        (
            {"train.txt": "a 0\nb 2\n", "label_map.txt": "x\ny\n"},
            r"line 2: the label 2 is not in 0 to 1, the numbers of .*label_map\.txt",
        ),
        ({"train.txt": "a 0\n", "label_map.txt": "x\nx\n"}, "the class name 'x' occurs twice"),
        ({"train.txt": "a 0\n", "label_map.txt": "\n"}, "holds no class names"),
    ],
)
def test_files_that_contradict_each_other(put: Put, tmp_path: Path, files: dict[str, object], message: str) -> None:
    for name, content in files.items():
        put(name, content)
    with pytest.raises(LabelsError, match=message):
        read_list(tmp_path)


@pytest.mark.parametrize("name", ["labels.csv", "trainlist01.txt", "run_test_split1.txt", "Diving48_V2_train.json"])
def test_names_of_classes_that_nothing_needs_are_refused(put: Put, name: str) -> None:
    content = {"labels.csv": "file,class\na,b\n", "trainlist01.txt": f"{UCF} 1\n", "run_test_split1.txt": "a.avi 1\n"}
    with pytest.raises(LabelsError, match=r"contains? .*class names; leave out .*names\.txt"):
        read_list(put(name, content.get(name, [DIVE])), class_names=put("names.txt", "x\n"))


def test_damaged_lists_are_read_or_refused(put: Put) -> None:
    """Bytes changed, put in and taken out at random: no error but ours, whatever the format."""
    whole = {
        "trainlist01.txt": f"{UCF} 1\r\nRun/v_Run_g02_c01.avi 1\r\n",
        "run_test_split1.txt": "a_run_f_cm_np1_ba_goo_0.avi 1 \nb.avi 0 \n",
        "k.csv": 'label,youtube_id,time_start,time_end,split\n"run, x",a,1,11,train\nwalk,b,1,11,val\n',
        "labels.csv": 'file,class,group\na.mp4,x,1\n"b,c.mp4",y,2\n',
        "list.txt": "a.mp4 1\nb c.mp4 20 3\n",
        "test.json": '[{"id": "1"}, {"id": 2}]',
        "Diving48_V2_train.json": '[{"vid_name": "a_1", "label": 3}, {"vid_name": "b_1", "label": 4}]',
    }
    random_state = random.Random(0)
    read = 0
    for name in sorted(whole) * 60:
        path = put(name, whole[name])
        data = bytearray(path.read_bytes())
        for _ in range(random_state.randint(1, 3)):
            place, length = random_state.randrange(len(data)), random_state.choice((0, 1, 1, 5))
            data[place : place + length] = random_state.choices(
                b'\x00"[]{},: \n\r\t\xff09-e./', k=random_state.randint(0, 2)
            )
        path.write_bytes(data)
        try:
            read += len(read_list(path).entries) > 0
        except LabelsError as error:
            assert str(path) in str(error)
    assert 60 < read < 400  # some are still whole, some are not
