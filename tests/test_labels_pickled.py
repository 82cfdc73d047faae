"""Lists that ship as pickles: rows and mappings are read, anything else is refused, nothing is executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bgaug.errors import LabelsError
from bgaug.labels import labels_for, read_list

IDS = ["a/one.mp4", "a/two.mp4", "b/three.mp4"]


def write(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        {"one": 2, "two": 0, "three": 1},
        {"one": ["x/other", 300, 2], "two": ["x/other", 10, 0], "three": ["a/one", 5, 1]},  # as HAT pairs them
        [("a/one.mp4", 2), ("a/two.mp4", 0), ("b/three.mp4", 1)],
        [["one", 300, 2], ["two", 300, 0], ["three", 299, 1]],
        [{"path": "one", "label": 2}, {"path": "two", "label": 0}, {"path": "three", "label": 1}],
    ],
)
def test_rows_and_mappings(value: Any, protocol: int, tmp_path: Path) -> None:
    path = write(tmp_path / "actionswap.pickle", value, protocol)
    assert read_list(path).format == "pickle"
    labels = labels_for(path, IDS)
    assert [labels.of(name).name for name in IDS] == ["2", "0", "1"]
    assert labels.classes == ("0", "1", "2")


def test_classes_by_name_and_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "val.pkl", [("one", "run"), ("two", -1), ("three", "walk")])
    assert [entry.class_name for entry in read_list(path).entries] == ["run", None, "walk"]
    assert {entry.split for entry in read_list(path).entries} == {"val"}
    (tmp_path / "names.txt").write_text("walk\nrun\n")
    path = write(tmp_path / "val.pkl", {"one": 1, "two": 0})
    found = read_list(path, class_names=tmp_path / "names.txt")
    assert [entry.class_name for entry in found.entries] == ["run", "walk"] and found.classes == ("walk", "run")


def test_names_are_text_in_one_form_of_its_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "val.pkl", [("one", "cafe\u0301"), ("two", "caf\u00e9")])
    assert {entry.class_name for entry in read_list(path).entries} == {"caf\u00e9"}
    path.write_bytes(b"\x80\x04]\x94\x8c\x03one\x8c\x03\xed\xb3\xbf\x86a.")  # half a character
    with pytest.raises(LabelsError, match="row 1: the class .* is not valid text"):
        read_list(path)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_executed(protocol: int, tmp_path: Path) -> None:
    woken = tmp_path / "woken"
    path = write(tmp_path / "a.pickle", {"one": Payload(woken)}, protocol)
    with pytest.raises(LabelsError, match=r"a\.pickle: .* never imported or called.*CSV with the columns"):
        labels_for(path, IDS)
    assert not woken.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "expected rows"),
        ([], "no rows"),
        ([1, 2], "row 1"),
        ([("one", 1, 2, 3)], "row 1"),
        ([("one", 300, 2), ("two", 0, 2)], "row 2: 0 before the label .* may be another label"),
        ([("one", "run", "walk")], "row 1: 'run' before the label"),
        ({"one": (0, 3, 5)}, "other, frames, label"),
        ([("one", "run|walk")], "row 1: the row has several labels, 'run|walk'".replace("|", r"\|")),
        ([("one", "x" * 401)], "row 1: has 401 characters"),
        ({"one": [1, 2]}, "other, frames, label"),
        ({3: 1}, "path of a video"),
        ({"one": 1.5}, "number or name"),
        ({"one": True}, "number or name"),
        ({"one": [["x"], 3, [1, 2]]}, "number or name"),
        ({"one": 10**9}, "number or name"),
        ({"one": np.int64(3)}, "never imported"),
        ([{"path": "one"}], "number or name"),
    ],
)
def test_other_content_is_named(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=message):
        labels_for(write(tmp_path / "a.pickle", value), IDS)


def test_only_whole_regular_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pickle", {"one": 1})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(LabelsError, match="not a complete pickle"):
        read_list(path, "pickle")
    with pytest.raises(LabelsError, match="no split 2"):
        read_list(write(path, {"one": 1}), split=2)
