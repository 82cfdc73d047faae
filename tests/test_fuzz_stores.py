"""Stores from elsewhere: whatever is in them, nothing hangs, takes memory without measure, ends in a raw traceback, or
touches what is outside.

Every field of every document, every file and folder, changed in dozens of ways: see `hostile`. Short here, whole with
`make test-full`.
"""

from __future__ import annotations

import multiprocessing
import random
import re
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import cast

import pytest
from hostile import KINDS, Case, Make, Verdict, attack, cases
from stores import make_full_store, make_moving_store

from bgaug.store import FrameKind, verify_store

MOVING = re.compile("canvas|small_masks|background_frame|shots.*masks")
SHORT = 15
WHOLE = 3000


def chosen_cases(root: Path, count: int, seed: int, *, only_moving: bool) -> list[Case]:
    """Some of each kind of change."""
    rng = random.Random(seed)
    every = sorted(cases(root), key=lambda case: case.kind)
    if only_moving:
        every = [case for case in every if MOVING.search(case.name)]
    kinds = [list(some) for _, some in groupby(every, key=lambda case: case.kind)]
    order = [case for some in kinds for case in rng.sample(some, min(len(some), 1 + count // len(kinds)))]
    return rng.sample(order, min(count, len(order)))


def run(work: str, kind: str, count: int, seed: int) -> Verdict:
    """Of the kind "moving", only what cameras that move have is changed."""
    verdict, moving = Verdict(), kind == "moving"
    frames = cast(FrameKind, "none" if moving else kind)
    make: Make = make_moving_store if moving else make_full_store
    chosen = chosen_cases(make(Path(work) / f"shape {kind} {seed}", frames), count, seed, only_moving=moving)
    attack(Path(work) / f"{kind} {seed}", frames, chosen, verdict, make)
    return verdict


def report_verdict(verdict: Verdict, report: list[str]) -> None:
    report.append(
        f"{verdict.tried} hostile stores, {len(verdict.wrong)} broke something; slowest {verdict.slowest[0]:.2f} s "
        f"({verdict.slowest[1]}), most memory {verdict.largest[0] >> 20} MiB ({verdict.largest[1]})"
    )
    assert not verdict.wrong, "\n".join(verdict.wrong[:40])


def test_the_store_that_is_changed_is_whole(tmp_path: Path) -> None:
    for kind in KINDS:
        root = make_full_store(tmp_path / kind, kind)
        assert verify_store(root, deep=True).problems == ()
    assert len(cases(root)) > 2000
    moving = make_moving_store(tmp_path / "moving")
    assert verify_store(moving, deep=True).problems == ()
    assert len(chosen_cases(moving, 10**6, 0, only_moving=True)) > 500


@pytest.mark.parametrize("kind", [*KINDS, "moving"])
def test_hostile_stores(kind: str, tmp_path: Path, report: list[str]) -> None:
    report_verdict(run(str(tmp_path), kind, SHORT // len(KINDS), 0), report)


@pytest.mark.full
def test_thousands_of_hostile_stores(tmp_path: Path, report: list[str]) -> None:
    jobs = [(kind, seed) for seed in range(1, 5) for kind in (*KINDS, "moving")]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        found = [pool.submit(run, str(tmp_path), kind, WHOLE // len(jobs), seed) for kind, seed in jobs]
        verdicts = [one.result() for one in found]
    whole = Verdict(
        sum(one.tried for one in verdicts),
        [line for one in verdicts for line in one.wrong],
        max(one.slowest for one in verdicts),
        max(one.largest for one in verdicts),
    )
    assert whole.tried >= 2000
    report_verdict(whole, report)
