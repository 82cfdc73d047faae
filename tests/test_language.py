"""The code and the documentation are in plain English: no house words, no long lines.

`python benchmarks/structure.py --where WORD` lists all places of a word, `--where long` the long lines.
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
SHOWN = 20


@pytest.fixture(scope="module")
def rates() -> dict[str, float]:
    return dict(structure.rates(ROOT))


@pytest.mark.parametrize("word", structure.HOUSE_WORDS)
def test_house_words_are_rare(word: str, rates: dict[str, float]) -> None:
    if rates[word] > LIMIT:
        places = "\n".join(f"{place}: {line.strip()}" for place, line in list(structure.uses(ROOT, word))[:SHOWN])
        pytest.fail(
            f"expected at most {LIMIT} uses of {word!r} per 10,000 words, got {rates[word]:.2f}; write plain English "
            f"instead (all places: python benchmarks/structure.py --where {word!r}):\n{places}",
            pytrace=False,
        )


@pytest.mark.parametrize("kind", ["code", "Markdown"])
def test_lines_are_short(kind: str) -> None:
    paths = structure.modules(ROOT).values() if kind == "code" else structure.documents(ROOT)
    found = [place for place, _ in structure.long_lines(ROOT, paths)]
    assert not found, f"expected no line over {structure.WIDTH} columns, got {len(found)}: {', '.join(found[:SHOWN])}"
