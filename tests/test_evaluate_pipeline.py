"""`bgaug evaluate` on small stores: protocols, held-out videos, messages, kept files, comparisons of runs."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import call, last_json
from test_pretrained import write_run
from typer.testing import CliRunner
from worlds import Recorder

from bgaug.cli.main import app
from bgaug.errors import LabelsError, StoreError, UsageError
from bgaug.metrics import LinearProbe, knn_predict, leave_one_out_retrieval, retrieval
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import load_run
from bgaug.pipelines.evaluate.features import frozen_features
from bgaug.pipelines.evaluate.labelled import find_labels, store_labels
from bgaug.pipelines.evaluate.options import PROTOCOLS, BiasOptions, EvaluateOptions, FinetuneOptions
from bgaug.pipelines.evaluate.report import Outcome, Report, compare, join
from bgaug.pipelines.evaluate.run import evaluate
from bgaug.progress import Silent
from bgaug.store import open_store
from bgaug.store.index import content_hash

RUN = {"num_frames": 4, "stride": 2}
QUICK = FinetuneOptions(epochs=1, batch_size=3, folds=2)


def make_run(folder: Path, seed: int = 0, method: str = "dual") -> Path:
    torch.manual_seed(seed)
    write_run(folder, ContrastiveLearner("tiny", method), config=RUN)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("other"), 1, "simclr")


def labels_file(store: Path, folder: Path, columns: str, *rows: str) -> Path:
    """A CSV for the six videos of the small store, in order of id; an empty row leaves its video out."""
    file = folder / "labels.csv"
    ids = list(open_store(store).videos)
    file.write_text("\n".join([f"file,{columns}", *(f"{n},{row}" for n, row in zip(ids, rows, strict=True) if row)]))
    return file


def ask(run: Path, store: Path, *protocols: str, seen: Silent | None = None, **options: Any) -> Report:
    few: dict[str, Any] = {
        "clips": 2,
        "finetune": QUICK,
        "draws": 3,
        "shots": (1,),
        "protocols": protocols,
        "device": "cpu",
    }
    return evaluate(run, store, seen or Silent(), EvaluateOptions(**few | options))


def values(run: Path, store: Path, which: str = "dynamic") -> Any:
    return frozen_features(load_run(run, device="cpu"), open_store(store), np.arange(6), Silent(), clips=2).of(which)


def test_every_protocol_at_once(run: Path, small_store: Path) -> None:
    bias = BiasOptions(composites=1, videos=4, scenes=2, scene_foregrounds=2, min_grade=None)
    found = ask(run, small_store, *PROTOCOLS, centre=True, from_scratch=True, bias=bias)
    metrics = found.metrics
    for name in ("retrieval_r1", "retrieval_centred_r1", "linear", "knn", "fewshot_1", "finetune", "scratch", "scuba"):
        assert 0 <= metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"] <= 100
    assert {"retrieval_chance", "fewshot_1_draws_std", "contrasted", "background_only"} <= metrics.keys()
    settings = found.settings
    assert settings["held_out"] == "each video against the others"
    expected = {
        "videos": 6,
        "tested": 6,
        "classes": 2,
        "chance": 50.0,
        "clips": 2,
        "crop": 32,
        "frames": 4,
        "stride": 2,
    }
    assert {name: settings[name] for name in expected} == expected
    assert settings["content_hash"] == content_hash(small_store) and settings["checkpoint"] == "step-00000007.pt"
    assert "centred" in settings["centring"] and settings["finetune"]["trainings"] == 2
    # Every metric is the mean of its outcome.
    for name, outcome in found.judged.items():
        assert metrics[name] == pytest.approx(100 * outcome.value, abs=0.005), name
    assert {row["class"]: row["videos"] for row in found.classes} == {"run": 3, "walk": 3}
    for name in ("linear", "knn", "finetune", "scratch"):
        table = found.confusion[name]
        right = sum(table["counts"][k][k] for k in range(len(table["classes"])))
        assert sum(map(sum, table["counts"])) == 6 and metrics[name] == pytest.approx(100 * right / 6, abs=0.005)
        mean = np.average([row[name] for row in found.classes], weights=[row["videos"] for row in found.classes])
        assert mean == pytest.approx(metrics[name], abs=0.01)
    assert found.file is not None and found.file.parent == run / "evaluations"
    kept = json.loads(found.file.read_text("utf-8"))
    assert kept.pop("time").startswith("20")
    assert kept == json.loads(json.dumps(found.to_json()))


@pytest.mark.parametrize("which", ["global", "dynamic", "dynamic+static"])
def test_numbers_are_those_of_the_pure_functions(run: Path, small_store: Path, which: str, tmp_path: Path) -> None:
    x, y = values(run, small_store, which), store_labels(open_store(small_store)).labels
    single = ask(run, small_store, "retrieval", "linear", "knn", feature=which)
    expected = leave_one_out_retrieval(x, y, ks=(1, 5))
    assert single.metrics["retrieval_r1"] == round(100 * expected.recall[1], 2)
    assert single.metrics["retrieval_r5"] == round(100 * expected.recall[5], 2)
    assert single.metrics["retrieval_chance"] == round(100 * expected.chance, 2)
    hits = []
    for place in range(6):
        rest = np.arange(6) != place
        hits.append(LinearProbe().fit(x[rest], y[rest]).predict(x[[place]])[0] == y[place])
    assert single.metrics["linear"] == round(100 * float(np.mean(hits)), 2)

    file = labels_file(
        small_store, tmp_path, "class,split", "a,train", "b,train", "a,train", "b,train", "a,test", "b,test"
    )
    split = ask(run, small_store, "retrieval", "linear", "knn", feature=which, labels=file, centre=True, neighbours=3)
    train, test, y = np.arange(4), np.array([4, 5]), np.array([0, 1] * 3)
    for centred, prefix in ((False, "retrieval"), (True, "retrieval_centred")):
        recall = retrieval(x[test], y[test], x[train], y[train], (1,), centre=centred).recall[1]
        assert split.metrics[f"{prefix}_r1"] == 100 * recall
    assert split.metrics["linear"] == 100 * LinearProbe().fit(x[train], y[train]).accuracy(x[test], y[test])
    assert split.metrics["knn"] == 100 * (knn_predict(x[train], y[train], x[test], k=3) == y[test]).mean()
    assert (split.settings["tested"], split.settings["learnt_from"], split.settings["labels"]) == (2, 4, str(file))


def test_evaluation_does_not_depend_on_batch_or_threads(run: Path, small_store: Path) -> None:
    names = ("retrieval", "linear", "knn", "fewshot", "finetune")
    first = ask(run, small_store, *names, cache=False, batch_size=1, threads=0)
    assert ask(run, small_store, *names, cache=False, batch_size=6, threads=3).metrics == first.metrics
    frozen = ask(run, small_store, *names[:4]).metrics
    assert frozen == {name: value for name, value in first.metrics.items() if not name.startswith("finetune")}


@pytest.mark.parametrize(
    ("columns", "rows", "expected"),
    [
        ("class,split", ["a,train", "b,train", "a,test", "b,test", "a,val", "b,val"], "test split against train split"),
        ("class,split", ["a,train", "b,train", "a,val", "b,val", "a,x", "b,x"], "val split against train split"),
        ("class,group", ["a,1", "b,1", "a,2", "b,2", "a,3", "b,3"], "each group against the others"),
        ("class", ["a", "b", "a", "b", "a", "b"], "each video against the others"),
    ],
)
def test_splits_and_groups_decide_what_is_held_out(
    run: Path, small_store: Path, tmp_path: Path, columns: str, rows: list[str], expected: str
) -> None:
    file = labels_file(small_store, tmp_path, columns, *rows)
    found = ask(run, small_store, "retrieval", "linear", "knn", "fewshot", "finetune", labels=file)
    assert found.settings["held_out"] == expected
    split = expected.endswith("split")
    assert found.settings["tested"] == (2 if split else 6)
    assert found.settings["left_out_by_split"] == (2 if split else 0)
    assert found.settings["finetune"]["trainings"] == (1 if split else 2)
    assert all(len(outcome.ids) == found.settings["tested"] for outcome in found.judged.values())


def test_videos_left_out_are_reported(run: Path, small_store: Path, tmp_path: Path) -> None:
    rows = ["a,train", "a,train", "b,train", "a,test", "rare,test", ""]
    seen = Recorder()
    file = labels_file(small_store, tmp_path, "class,split", *rows)
    found = ask(run, small_store, "retrieval", "linear", "fewshot", seen=seen, labels=file, shots=(1, 2))
    assert "1 of 6 videos have no label and are left out" in seen.warnings
    assert any(
        "1 of 2 tested videos always count as wrong: their class does not occur in the train split (rare)" in w
        for w in seen.warnings
    )
    assert any("R@5, R@10, R@20, R@50 left out" in warning for warning in seen.warnings)
    assert any(
        "few-shot with 2 labelled videos per class left out: the smallest class has 1" in w for w in seen.warnings
    )
    settings = found.settings
    assert (settings["unlabelled"], settings["class_unseen"], settings["ks_left_out"]) == (1, 1, [5, 10, 20, 50])
    assert (settings["shots"], settings["shots_left_out"]) == ([1], [2])
    rare = next(row for row in found.classes if row["class"] == "rare")
    assert rare["linear"] == rare["retrieval_r1"] == 0

    seen = Recorder()
    file = labels_file(small_store, tmp_path, "class", "a", "a", "a", "b", "b", "lonely")
    ask(run, small_store, "retrieval", seen=seen, labels=file)
    assert any("their class does not occur in the other videos (lonely)" in warning for warning in seen.warnings)


@pytest.fixture
def lists(small_store: Path, tmp_path: Path) -> Path:
    """Lists as HMDB51 has them, three splits: in each another pair of the six videos is tested."""
    folder = tmp_path / "testTrainMulti_7030_splits"
    folder.mkdir()
    ids = list(open_store(small_store).videos)
    for split in range(3):
        for name in ("run", "walk"):
            own = [n for n in ids if n.startswith(name)]
            rows = [f"{n.split('/')[1]} {2 if place == split else 1} \n" for place, n in enumerate(own)]
            (folder / f"{name}_test_split{split + 1}.txt").write_text("".join(rows))
    return folder


def test_several_splits_give_mean_and_spread(run: Path, small_store: Path, lists: Path) -> None:
    single = [ask(run, small_store, "retrieval", "linear", labels=lists, splits=(k,)) for k in (1, 2, 3)]
    together = ask(run, small_store, "retrieval", "linear", labels=lists, splits=())
    written = together.to_json()["splits"]
    assert [entry["split"] for entry in written] == together.settings["split"] == [1, 2, 3]
    for name in ("retrieval_r1", "linear"):
        each = [found.metrics[name] for found in single]
        assert [entry[name] for entry in written] == each
        assert together.metrics[name] == pytest.approx(np.mean(each), abs=0.01)
        assert together.metrics[f"{name}_splits_std"] == pytest.approx(np.std(each, ddof=1), abs=0.01)
        assert together.metrics[f"{name}_low"] <= together.metrics[name] <= together.metrics[f"{name}_high"]
    assert sum(row["videos"] for row in together.classes) == 6
    only = ask(run, small_store, "linear", labels=lists)
    assert not only.parts and only.metrics["linear"] == single[0].metrics["linear"]
    two = ask(run, small_store, "linear", labels=lists, splits=(3, 1))
    assert two.settings["split"] == [3, 1]
    with pytest.raises(LabelsError, match="no split 4"):
        ask(run, small_store, "linear", labels=lists, splits=(4,))
    for name in ("run", "walk"):
        file = lists / f"{name}_test_split2.txt"
        file.write_text(file.read_text().replace(" 2 \n", " 0 \n"))
    with pytest.raises(UsageError, match="no train or no test videos of split 2, but of others it does"):
        ask(run, small_store, "linear", labels=lists, splits=())


def test_splits_of_other_sizes_count_the_same() -> None:
    def outcome(correct: list[float]) -> Outcome:
        count = len(correct)
        names = np.array([str(k) for k in range(count)])
        return Outcome(np.array(correct), names, names, np.zeros(count, np.int64), None, np.ones(count))

    joined = join({1: outcome([1.0, 1.0]), 2: outcome([0.0] * 7 + [1.0])})
    assert joined.value == pytest.approx((1 + 1 / 8) / 2)
    assert len(set(joined.ids)) == 10


def test_runs_are_compared_video_by_video(run: Path, other_run: Path, small_store: Path, lists: Path) -> None:
    bias = BiasOptions(composites=1, videos=4, scenes=2, scene_foregrounds=2, min_grade=None)
    names = ("retrieval", "linear", "knn", "bias")
    first, second = (ask(path, small_store, *names, bias=bias) for path in (run, other_run))
    pairs = compare(first, second)
    assert {"retrieval_r1", "linear", "knn", "plain", "scuba", "contrasted"} <= pairs.keys()
    for name, pair in pairs.items():
        assert 100 * pair.difference == pytest.approx(second.metrics[name] - first.metrics[name], abs=0.02)
        assert pair.low <= pair.difference <= pair.high and 0 < pair.p <= 1
    same = compare(first, first)
    assert all((pair.difference, pair.low, pair.high, pair.p) == (0, 0, 0, 1) for pair in same.values())
    split = ask(other_run, small_store, "linear", labels=lists)
    with pytest.raises(UsageError, match="the two runs were tested on other videos"):
        compare(first, split)
    three = [ask(path, small_store, "linear", labels=lists, splits=()) for path in (run, other_run)]
    assert compare(*three)["linear"].difference == pytest.approx(
        (three[1].metrics["linear"] - three[0].metrics["linear"]) / 100, abs=1e-3
    )


def test_features_are_shared_by_protocols_and_splits(run: Path, small_store: Path, lists: Path, tmp_path: Path) -> None:
    own = tmp_path / "run"
    shutil.copytree(run / "checkpoints", own / "checkpoints")
    for options in (
        {},
        {"feature": "global"},
        {"labels": lists},
        {"labels": lists, "splits": ()},
        {"feature": "static", "centre": True},
    ):
        ask(own, small_store, "retrieval", "fewshot", **options)
    assert len(list((own / "features").iterdir())) == 1
    assert len(list((own / "evaluations").iterdir())) == 5


def test_a_penalty_may_be_chosen(run: Path, small_store: Path, tmp_path: Path) -> None:
    file = labels_file(small_store, tmp_path, "class,group", "a,1", "b,1", "a,2", "b,2", "a,3", "b,3")
    found = ask(run, small_store, "linear", labels=file, l2=None)
    assert set(found.settings["l2"]["cross-validated"]) <= {1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 1e-1, 1.0}
    file = labels_file(small_store, tmp_path, "class,group", "a,1", "b,1", "a,1", "b,2", "a,2", "b,2")
    with pytest.raises(UsageError, match="cannot be chosen by cross-validation.*give it as --l2"):
        ask(run, small_store, "linear", labels=file, l2=None)


def test_the_bias_protocol_runs_by_itself(run: Path, small_store: Path) -> None:
    bias = BiasOptions(composites=1, videos=4, scenes=2, scene_foregrounds=2, min_grade=None)
    found = ask(run, small_store, "bias", bias=bias)
    assert found.metrics["scuba"] >= 0 and not any(name.startswith("retrieval") for name in found.metrics)
    assert found.bias is not None and found.bias.settings["run"] == str(run) and found.classes == []


# --- what cannot be ---------------------------------------------------------------------------------------------------


def test_invalid_evaluations(run: Path, small_store: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="there is no 'magic'; there are retrieval, linear, knn, finetune, fewshot, bias"
    ):
        ask(run, small_store, "magic")
    with pytest.raises(UsageError, match="got none"):
        ask(run, small_store)
    with pytest.raises(UsageError, match="--labels-split, --class-names, --first-class and --columns are about a list"):
        ask(run, small_store, "linear", splits=(1,))
    with pytest.raises(UsageError, match="20 neighbours cannot vote: some videos are compared with 5 others only"):
        ask(run, small_store, "knn", neighbours=20)
    with pytest.raises(UsageError, match="the smallest class has 2 training videos, 4 were requested"):
        ask(run, small_store, "fewshot", shots=(4, 9))
    one = labels_file(small_store, tmp_path, "class", *["a"] * 6)
    with pytest.raises(UsageError, match="all 6 labelled videos are of one class, 'a'; an evaluation needs two"):
        ask(run, small_store, "retrieval", labels=one)
    stranger = tmp_path / "stranger.csv"
    stranger.write_text("file,class\nnobody.mp4,a\n")
    with pytest.raises(LabelsError, match="none of 1 rows matches any of 6 videos"):
        ask(run, small_store, "retrieval", labels=stranger)
    with pytest.raises(StoreError, match="is not a bgaug store"):
        ask(run, tmp_path, "retrieval")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature": "x"}, "--feature: there is no 'x'; there are global"),
        ({"clips": 0}, "--clips: Input should be greater than or equal to 1, got 0"),
        ({"neighbours": 0}, "--neighbours: Input"),
        ({"shots": ()}, "--few-shot: takes different numbers"),
        ({"l2": 0.0}, "--l2: Input should be greater than 0"),
        ({"classifier": "magic"}, "--fewshot-classifier: Input should be 'linear' or 'centroid'"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EvaluateOptions(**options)


def test_a_store_without_labels_names_the_fix(small_store: Path) -> None:
    store = open_store(small_store)
    store.columns.label[:] = -1
    with pytest.raises(UsageError, match="none of its 6 videos has a label. Name a list with --labels PATH"):
        find_labels(store)


def test_a_store_of_another_version_is_an_error(run: Path, small_store: Path, tmp_path: Path) -> None:
    shutil.copytree(small_store, tmp_path / "store")
    file = tmp_path / "store" / "zarr.json"
    header = json.loads(file.read_text("utf-8"))
    header["attributes"]["bgaug"]["version"] = [9, 0]
    file.write_text(json.dumps(header))
    with pytest.raises(StoreError, match="version"):
        ask(run, tmp_path / "store", "retrieval")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_shows_numbers_settings_and_differences(run: Path, other_run: Path, small_store: Path) -> None:
    options = [
        "--protocol",
        "retrieval,linear,fewshot",
        "--few-shot",
        "1,2",
        "--draws",
        "2",
        "--clips",
        "2",
        "--against",
        other_run,
    ]
    shown = call("evaluate", run, small_store, *options, "--device", "cpu")
    for text in ("retrieval_r1", "95 % interval", "over draws", "by class, %", "walk", "less", "groups better / worse"):
        assert text in shown, text
    for text in (
        "centre crop 32",
        "feature d",
        "each video against the others",
        "sha256",
        "content",
        "l2 0.003",
        "kept in",
    ):
        assert text in shown, text
    options[1] = "linear"
    printed: dict[str, Any] = last_json(call("evaluate", run, small_store, *options, "--device", "cpu", "--json"))
    assert printed["settings"]["feature"] == "dynamic" and Path(str(printed["file"])).is_file()
    (pair,) = printed["against"]
    assert pair["run"] == str(other_run)
    gain = printed["linear"] - pair["linear"]
    assert pair["differences"]["linear"]["difference"] == pytest.approx(gain, abs=0.02)
    assert Counter(row["class"] for row in printed["classes"]) == {"run": 1, "walk": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--l2", "some"], "--l2: Input should be a valid number"),
        (["--few-shot", "1,x"], "--few-shot: Input should be a valid integer"),
        (["--labels", "x", "--labels-split", "0"], "--labels-split: takes different numbers"),
        (["--protocol", "bias,magic"], "there is no 'magic'; there are retrieval"),
    ],
)
def test_wrong_usage_is_one_line(run: Path, small_store: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(run), str(small_store), *options])
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
