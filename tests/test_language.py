"""The code and the documentation are in plain English: no house words, no long lines.

To lower a limit: rewrite some of the places that `python benchmarks/structure.py --where WORD` lists (`--where long`
for long lines), then set the number in CEILING or LONG_LINES to the new value of `python benchmarks/structure.py`.
Delete a word from CEILING once its rate is under LIMIT. The work is done when CEILING is empty and LONG_LINES are 0.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
structure: Any = importlib.import_module("structure")
sys.path.remove(str(ROOT / "benchmarks"))

LIMIT = 1.0  # uses of a house word per 10,000 words
# Words that are still more frequent than LIMIT, with their rate rounded up to the next half.
CEILING = {
    "says": 2.0,
    "beside": 1.5,
    "stands": 1.5,
}
LONG_LINES = {"code": 0, "Markdown": 0}
SHOWN = 20


@pytest.fixture(scope="module")
def rates() -> dict[str, float]:
    return dict(structure.rates(ROOT))


@pytest.mark.parametrize("word", structure.HOUSE_WORDS)
def test_house_words_are_rare(word: str, rates: dict[str, float]) -> None:
    limit = CEILING.get(word, LIMIT)
    if rates[word] > limit:
        places = "\n".join(f"{place}: {line.strip()}" for place, line in list(structure.uses(ROOT, word))[:SHOWN])
        pytest.fail(
            f"expected at most {limit} uses of {word!r} per 10,000 words, got {rates[word]:.2f}; write plain English "
            f"instead (all places: python benchmarks/structure.py --where {word!r}):\n{places}",
            pytrace=False,
        )


@pytest.mark.parametrize("kind", LONG_LINES)
def test_lines_are_short(kind: str) -> None:
    paths = structure.modules(ROOT).values() if kind == "code" else structure.documents(ROOT)
    found = [place for place, _ in structure.long_lines(ROOT, paths)]
    if len(found) > LONG_LINES[kind]:
        pytest.fail(
            f"expected at most {LONG_LINES[kind]} lines over {structure.WIDTH} columns in {kind}, got {len(found)}; "
            f"wrap them (all places: python benchmarks/structure.py --where long):\n" + "\n".join(found[:SHOWN]),
            pytrace=False,
        )


def test_limits_name_words_that_are_counted() -> None:
    assert set(CEILING) <= set(structure.HOUSE_WORDS)
