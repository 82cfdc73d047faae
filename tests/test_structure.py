"""The script that measures a checkout, on small inputs whose answers are plain."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = str(Path(__file__).parents[1] / "benchmarks")
sys.path.insert(0, FOLDER)
structure: Any = importlib.import_module("structure")
unchanged: Any = importlib.import_module("unchanged")
sys.path.remove(FOLDER)


def checkout(root: Path, **files: str) -> Path:
    """A checkout with these modules of bgaug; `__` in a name is a folder."""
    for folder in ("bgaug", "cli", "pipelines"):
        (root / folder).mkdir()
        (root / folder / "__init__.py").write_text("")
    for name, text in files.items():
        path = root / "bgaug" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return root


def test_imports_and_chains(tmp_path: Path) -> None:
    root = checkout(
        tmp_path,
        store__read="from bgaug.store import write\nfrom bgaug.errors import Fault\n",
        store__write="import bgaug.files\n",
        files="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bgaug.errors import Fault\n",
        errors="def late():\n    from bgaug.store import read\n",
    )
    at_top = structure.import_graph(root, inner=False)
    assert at_top["bgaug.store.read"] == {"bgaug.store.write", "bgaug.errors"}
    assert at_top["bgaug.files"] == at_top["bgaug.errors"] == set()
    assert structure.circles(at_top) == "0"
    chain = structure.longest_chain(at_top)
    assert chain[:3] == ["bgaug.store.read", "bgaug.store.write", "bgaug.files"]
    everywhere = structure.import_graph(root, inner=True)
    assert everywhere["bgaug.files"] == {"bgaug.errors"}
    assert structure.circles(everywhere) == "1 (errors, files, store.read, store.write)"


def test_public_names_are_definitions() -> None:
    module = ast.parse("import os\nfrom a import b\nX = 1\nY: int = 2\n_z = 3\ndef f(): w = 1\nclass C: v = 1\n")
    assert structure.public_names(module) == {"X", "Y", "f", "C"}


def test_docstrings_are_no_code_and_comments_count_wherever_they_are() -> None:
    text = '"""Doc.\n\nMore."""\n\n# why\nx = """a\nb"""\n\ndef f():\n    "doc"\n    return x  # because\n'
    assert structure.code_and_comment_lines(text) == (4, 2)


@pytest.mark.parametrize(
    ("word", "text", "uses"),
    [
        ("picture", "pictures, num_pictures = picture_of(Picture)", 4),
        ("alone", "alone, loan, alonesome", 1),
        ("cannot be.", "these options cannot be; the file cannot be read", 1),
        ("beside", "besides, it stands beside", 1),
        ("of no account", "It is of no account", 1),
    ],
)
def test_house_words_are_whole_words(tmp_path: Path, word: str, text: str, uses: int) -> None:
    root = checkout(tmp_path, text=f"# first line\n# {text}\n")
    assert [place for place, _ in structure.uses(root, word)] == ["bgaug/text.py:2"] * uses


def test_a_result_is_compared_entry_by_entry(capsys: pytest.CaptureFixture[str]) -> None:
    before = {"store: content_hash": "a", "r1": 50.0, "weights: with names": "b", "weights: values": "c", "old": 1}
    after = {"store: content_hash": "a", "r1": 49.0, "weights: with names": "d", "weights: values": "c"}
    assert unchanged.report(before, after) == 2
    shown = capsys.readouterr().out
    assert "different  r1: 50.0 before, 49.0 after" in shown
    assert "different  old: 1 before, missing after" in shown
    assert "renamed    weights: with names" in shown
    assert unchanged.report(before, dict(before)) == 0


def test_numbers_of_a_result_are_named_by_their_place() -> None:
    result = {"r1": 1.5, "settings": {"clips": 2}, "run": "x", "classes": [{"class": "hug", "videos": 3}], "same": True}
    assert dict(unchanged.numbers(result)) == {"r1": 1.5, "classes.hug.videos": 3}
