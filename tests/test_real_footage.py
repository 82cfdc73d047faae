"""Backgrounds and masks of real sequences with truth, by the defaults."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
accuracy: Any = importlib.import_module("accuracy")

SHORT = {"gt": ["board", "cavignal", "peds"], "ut": ["15_3_3", "22_4_3", "3_1_3"]}


def scores(truth: str, data: Path, expected: list[str], refine: bool = False) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores of the median and of auto, by sequence."""
    found = {}
    for item in accuracy.find_sequences(truth, data, expected):
        sequence = accuracy.LOADERS[truth](item, None if truth == "ut" else 7)
        methods = ("auto",) if refine else ("auto", "median")
        rows = {method: accuracy.score_method(sequence, method, refine) for method in methods}
        found[accuracy.short_name(sequence.name)] = rows
    return found


def mean_of(found: dict[str, dict[str, dict[str, Any]]], names: list[str], key: str) -> float:
    return float(np.mean([found[name]["auto"][key] for name in names]))


def report_scores(found: dict[str, dict[str, dict[str, Any]]], report: list[str]) -> None:
    for name, rows in found.items():
        shown = {m: {k: round(r[k], 3) for k in ("age_rgb", "peps", "f1") if k in r} for m, r in rows.items()}
        report.append(f"{name}: {shown}")


def test_some_sequences(real_data: Path, report: list[str]) -> None:
    found = scores("gt", real_data, SHORT["gt"])
    report_scores(found, report)
    assert found["board"]["auto"]["f1"] > 0.93 and found["cavignal"]["auto"]["f1"] > 0.93
    for rows in found.values():
        assert rows["auto"]["age"] <= rows["median"]["age"] + 0.3


def test_some_people_who_never_leave(real_data: Path, report: list[str]) -> None:
    found = scores("ut", real_data, SHORT["ut"])
    report_scores(found, report)
    assert mean_of(found, list(found), "f1") > 0.95 and mean_of(found, list(found), "age") < 3.5


@pytest.mark.full
def test_static_sequences(real_data: Path, report: list[str]) -> None:
    found = scores("gt", real_data, [*accuracy.STATIC, "foliage", "traffic", "peds"])
    report_scores(found, report)
    assert mean_of(found, list(accuracy.STATIC), "f1") >= 0.88
    assert mean_of(found, list(accuracy.STATIC), "age_rgb") <= 3.0
    assert found["foliage"]["auto"]["age_rgb"] <= 4.0
    assert found["traffic"]["auto"]["f1"] >= 0.70
    for rows in found.values():
        assert rows["auto"]["age_rgb"] <= rows["median"]["age_rgb"] + 0.5
    refined = scores("gt", real_data, list(accuracy.STATIC), refine=True)
    assert mean_of(refined, list(accuracy.STATIC), "f1") >= 0.91


@pytest.mark.full
def test_people_who_never_leave(real_data: Path, report: list[str]) -> None:
    found = scores("ut", real_data, [])
    report_scores(found, report)
    assert len(found) == 24
    assert mean_of(found, list(found), "f1") >= 0.90
    assert mean_of(found, list(found), "age_rgb") <= 3.0
    assert mean_of(found, list(found), "ghost") <= 0.2
