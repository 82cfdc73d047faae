"""The documentation is true: code blocks run, commands and options exist, links lead to something."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from test_pretrained import write_run

from bgaug.cli.main import app
from bgaug.model import ContrastiveLearner, Method
from bgaug.pairs import Composition

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
NOW = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which also names options that no longer exist
OTHERS = {"--extra-index-url", "--check", "--strict"}  # options of pip, ruff and mypy

SETTABLE = {field.name for record in (Method, Composition) for field in fields(record)}

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def parts(page: Path) -> Iterator[tuple[str | None, str]]:
    """The page in pieces: (language, code) of a block, or (None, text) between blocks."""
    pieces = re.split(r"^```(.*)\n", page.read_text("utf-8"), flags=re.MULTILINE)
    yield None, pieces[0]
    for place in range(1, len(pieces), 4):
        language, code, _, text = pieces[place : place + 4]
        yield language, code
        yield None, text


def blocks(page: Path, language: str | None) -> list[str]:
    """The code blocks of a page in one language; "" is a block of commands, None the text between blocks."""
    return [code for found, code in parts(page) if found == language]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every `bgaug COMMAND ...` in the blocks of a page."""
    for line in "\n".join(blocks(page, "")).splitlines():
        if line.startswith("bgaug "):
            yield shlex.split(line, comments=True)


def options_in_text(page: Path) -> set[str]:
    """Every `--option` between backquotes in the text of a page."""
    spans = re.findall(r"`([^`\n]+)`", "\n".join(blocks(page, None)))
    return {option for span in spans for option in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", span)}


def options_of(command: str) -> set[str]:
    parameters = COMMANDS[command].params
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", "\n".join(blocks(page, None)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def run(code: str, file: Path, **names: Any) -> dict[str, Any]:
    """Run code as a script; its global names."""
    file.write_text(code, "utf-8")
    return runpy.run_path(str(file), names)


@pytest.fixture
def reader(tmp_path: Path, video_folder: Path, small_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a reader, with the files that the README names."""
    shutil.copy(next(video_folder.rglob("clip 0*")), tmp_path / "video.mp4")
    (tmp_path / "shards").symlink_to(small_store)
    torch.manual_seed(0)
    write_run(tmp_path / "run", ContrastiveLearner("tiny", "bgaug"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_code_of_the_readme_runs(reader: Path) -> None:
    names = run("\n".join(blocks(README, "python")), reader / "readme.py", clips=torch.rand(2, 3, 8, 32, 32))
    assert {"background.png", "mask.png"} <= {path.name for path in reader.iterdir()}
    assert names["pairs"].semi.shape[3:] == (112, 112) and names["features"].shape == (2, 96)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_imports_what_exists_and_calls_it_with_arguments_that_exist(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "python"):
        tree = ast.parse(block)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        own = [node for node in imports if "torchvision" not in ast.unparse(node)]  # no dependency of bgaug
        names = run("\n".join(map(ast.unparse, own)), tmp_path / "imports.py")
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            function = names.get(call.func.id) if isinstance(call.func, ast.Name) else None
            if function is not None and str(function.__module__).startswith("bgaug"):
                keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
                inspect.signature(function).bind(*call.args, **keywords)


@pytest.mark.parametrize("page", NOW, ids=name_of)
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        line = " ".join(words)
        if words[1] not in COMMANDS:
            pytest.fail(f"{name_of(page)}: `{line}`: expected one of {', '.join(COMMANDS)}", pytrace=False)
        missing = {word.partition("=")[0] for word in words if word.startswith("--")} - options_of(words[1])
        changed = {words[place + 1].partition("=")[0] for place, word in enumerate(words) if word == "--set"}
        missing |= changed - SETTABLE
        assert not missing, f"{name_of(page)}: `{line}`: no such options: {', '.join(sorted(missing))}"
    scripts = [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")]
    known = {option for script in scripts for option in re.findall(r'"(--[a-z-]+)"', script.read_text("utf-8"))}
    known |= {"--help", "--version"}.union(OTHERS, *map(options_of, COMMANDS))
    missing = options_in_text(page) - known
    assert not missing, f"{name_of(page)}: no command has the options {', '.join(sorted(missing))}"


@pytest.mark.parametrize("page", NOW, ids=name_of)
def test_names_in_the_text_exist(page: Path) -> None:
    for name in sorted(set(re.findall(r"`(bgaug(?:\.\w+)+)", "\n".join(blocks(page, None))))):
        pkgutil.resolve_name(name)


def test_the_readme_lists_every_command() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \|", README.read_text("utf-8"), re.MULTILINE)
    assert listed[: len(COMMANDS)] == list(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_something(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(blocks(page, None))):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name_of(page)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(there), f"{name_of(page)} links to {target}: no such heading"


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    missing = [
        path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md" and path.name not in index
    ]
    assert not missing, f"docs/README.md does not name {', '.join(missing)}"
