"""The lists that data sets publish, read whole: official counts, and what each list is known for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bgaug.errors import LabelsError
from bgaug.labels import SplitList, labels_for, read_list, split_numbers


@pytest.fixture
def splits(real_data: Path) -> Path:
    return real_data / "splits"


def groups(found: SplitList, split: str) -> set[str | None]:
    return {entry.group for entry in found.entries if entry.split == split}


@pytest.mark.parametrize(("number", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_ucf101(splits: Path, number: int, train: int, test: int) -> None:
    found = read_list(splits / "ucf101", split=number)
    assert (found.format, found.split) == ("ucf101", number)
    assert found.sizes == {"train": train, "test": test} and train + test == 13320
    assert len(found.classes) == 101 and {entry.class_name for entry in found.entries} == set(found.classes)
    assert found.classes[0] == "ApplyEyeMakeup" and found.classes[100] == "YoYo"
    assert len({entry.names[0] for entry in found.entries}) == 13320
    assert None not in groups(found, "train") and not groups(found, "train") & groups(found, "test")
    # The class is spelled as in classInd.txt, whatever the file's name is.
    odd = [entry for entry in found.entries if "v_HandStandPushups" in entry.names[0]]
    assert len(odd) == 128 and {entry.class_name for entry in odd} == {"HandstandPushups"}


def test_the_three_splits_of_ucf101_test_every_recording_at_most_once(splits: Path) -> None:
    assert split_numbers(splits / "ucf101") == (1, 2, 3)
    tested = [groups(read_list(splits / "ucf101", split=number), "test") for number in (1, 2, 3)]
    assert not tested[0] & tested[1] and not tested[0] & tested[2] and not tested[1] & tested[2]


def test_one_list_of_ucf101(splits: Path) -> None:
    file = splits / "ucf101" / "testlist02.txt"
    found = read_list(file)
    assert split_numbers(file) == (2,) and found.split == 2
    assert found.sizes == {"test": 3734} and len(found.classes) == 101
    assert found.entries[0].class_name == "ApplyEyeMakeup" and found.entries[0].group == "ApplyEyeMakeup_g08"


def test_videos_of_ucf101_however_they_lie(splits: Path, real_data: Path) -> None:
    clip = "v_ApplyEyeMakeup_g01_c01.avi"
    assert (real_data / "clips" / clip).is_file()
    for video in (clip, f"clips/{clip}", f"UCF-101/ApplyEyeMakeup/{clip}", clip.replace(".avi", ".mp4")):
        labels = labels_for(splits / "ucf101", [video])
        label = labels.of(video)
        assert (label.name, label.group, label.split) == ("ApplyEyeMakeup", "ApplyEyeMakeup_g01", "test")
        assert len(labels.rows_without_file) == 13319 and labels.files_without_row == ()
        assert labels_for(splits / "ucf101", [video], split=2).of(video).split == "train"
    renamed = "HandStandPushups/v_HandstandPushups_g01_c01.avi"
    assert labels_for(splits / "ucf101", [renamed]).of(renamed).name == "HandstandPushups"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_hmdb51(splits: Path, number: int) -> None:
    found = read_list(splits / "hmdb51_official", split=number)
    assert (found.format, found.split, len(found.files)) == ("hmdb51", number, 51)
    assert found.sizes == {"train": 3570, "test": 1530, "unused": 1666}
    assert len({entry.names[0] for entry in found.entries}) == 6766
    assert len(found.classes) == 51 and {"brush_hair", "climb", "climb_stairs", "sword_exercise"} <= set(found.classes)
    for split, count in (("train", 70), ("test", 30)):
        by_class = Counter(entry.class_name for entry in found.entries if entry.split == split)
        assert set(by_class.values()) == {count}
    # The guess at recordings fits every name, and the published splits keep to it.
    assert None not in {entry.group for entry in found.entries}
    assert not groups(found, "train") & groups(found, "test")


def test_odd_names_of_hmdb51(splits: Path) -> None:
    assert split_numbers(splits / "hmdb51_official") == (1, 2, 3)
    names = [
        "Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!_brush_hair_h_cm_np1_fr_goo_0.avi",
        "(Rad)Schlag_die_Bank!_cartwheel_f_cm_np1_le_med_0.avi",
        "cartwheel/Geena_und_die_Radschl_ge___;-)_cartwheel_f_cm_np1_fr_med_2.avi",
    ]
    labels = labels_for(splits / "hmdb51_official", names)
    assert [labels.of(name).name for name in names] == ["brush_hair", "cartwheel", "cartwheel"]
    assert labels.of(names[0]).group == "Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!_brush_hair"
    assert labels.classes.index("brush_hair") == 0 and labels.files_without_row == ()


def test_real_clips_of_hmdb51_are_found(splits: Path, real_data: Path) -> None:
    ids = sorted(path.relative_to(real_data).as_posix() for path in (real_data / "clips").iterdir())
    labels = labels_for(splits / "hmdb51_official", ids)
    assert labels.by_id and {label.name for label in labels.by_id.values()} == {"wave"}
    assert set(labels.by_id) | set(labels.files_without_row) == set(ids)


def test_kinetics(splits: Path) -> None:
    found = read_list(splits / "kinetics" / "kinetics-600_val.head2000.csv")
    assert found.format == "kinetics" and found.sizes == {"val": 1999}
    first = found.entries[0]
    assert first.names == ("abseiling/yq_M1PMw2hY_000038_000048", "abseiling/yq_M1PMw2hY")
    assert (first.class_name, first.group) == ("abseiling", "yq_M1PMw2hY")
    assert found.classes == tuple(sorted({entry.class_name for entry in found.entries if entry.class_name}))


@pytest.mark.parametrize(
    "video",
    [
        "yq_M1PMw2hY_000038_000048.mp4",
        "abseiling/yq_M1PMw2hY_000038_000048.webm",
        "val/abseiling/yq_M1PMw2hY_000038_000048.mkv",
        "k600/yq_M1PMw2hY.mp4",
    ],
)
def test_videos_of_kinetics_however_they_are_called(splits: Path, video: str) -> None:
    labels = labels_for(splits / "kinetics" / "kinetics-600_val.head2000.csv", [video, "yq_M1PMw2hY_000038_000049.mp4"])
    assert labels.of(video).name == "abseiling" and labels.files_without_row == ("yq_M1PMw2hY_000038_000049.mp4",)


def test_a_list_of_paths_and_numbers_named_by_the_map_next_to_it(splits: Path) -> None:
    found = read_list(splits / "kinetics" / "k400_val_pathlabel.head2000.csv")
    names = (splits / "kinetics" / "label_map_k400.txt").read_text().splitlines()
    assert found.format == "filelist" and found.sizes == {"val": 2000}
    assert found.classes == tuple(names) and len(names) == 400
    line = "jf7RDuUTrsQ.mp4 325"
    assert found.entries[0].names == (line.split()[0],) and found.entries[0].class_name == names[325]


@pytest.mark.parametrize(
    ("file", "size", "first", "split"),
    [
        ("hat_scuba/hat_kinetics_list.head500.csv", 500, ("00cwEcZZcu4_000003_000013", "22"), None),
        ("hat_scuba/scuba_kinetics_val.head500.csv", 500, ("val/6IbvOJxXnOo_000047_000057__0", "0"), "val"),
        ("ssv2/mini_ssv2_val_pathlabel.head1000.csv", 1000, ("66100.mp4", "15"), "val"),
    ],
)
def test_lists_of_hat_scuba_and_mini_ssv2(
    splits: Path, file: str, size: int, first: tuple[str, str], split: str | None
) -> None:
    found = read_list(splits / file)
    assert read_list(splits / file).format == "filelist" and found.sizes == {split: size}
    assert (found.entries[0].names[0], found.entries[0].class_name) == first
    numbers = [int(line.split()[-1]) for line in (splits / file).read_text().splitlines()]
    assert [entry.class_name for entry in found.entries] == list(map(str, numbers))
    assert found.classes == tuple(map(str, range(max(numbers) + 1)))  # the place of a class is its number


def test_something_something(splits: Path) -> None:
    found = read_list(splits / "ssv2")
    assert found.format == "ssv2" and found.sizes == {"val": 2000, "test": 27157}
    assert len(found.classes) == 174
    assert found.classes[0] == "Approaching something with your camera"
    validation = [entry for entry in found.entries if entry.split == "val"]
    assert validation[0].names == ("74225",)
    assert validation[0].class_name == "Spinning something that quickly stops spinning"
    assert all(entry.class_name is None for entry in found.entries if entry.split == "test")
    labels = labels_for(splits / "ssv2", ["74225.webm", "20bn/1420.mp4", "0.webm"])
    assert labels.of("74225.webm").name == validation[0].class_name
    assert (labels.of("20bn/1420.mp4").name, labels.of("20bn/1420.mp4").split) == (None, "test")
    assert labels.files_without_row == ("0.webm",)
    alone = read_list(splits / "ssv2" / "something-something-v2-validation.first2000.json")
    assert alone.sizes == {"val": 2000} and alone.classes == found.classes


def test_a_folder_of_several_formats_asks_which(splits: Path) -> None:
    with pytest.raises(LabelsError, match="may be of the formats kinetics, filelist; name one of them, or a single"):
        read_list(splits / "kinetics")
    assert read_list(splits / "kinetics", "kinetics").sizes == {"val": 1999}
