"""Hostile names through every command: nothing of them acts on the terminal, and `--json` gives them back."""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result
from worlds import moving_square

from bgaug.cli.main import app
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.video import write_video

HOSTILE = (
    "\x1b[2J\x1b[31m",  # clears the screen, turns red
    "\x1b]52;c;aGk=\x07",  # writes to the clipboard
    "\x1b]8;;http:evil\x1b\\",  # a link
    "\x9b31m",  # the same in one byte
    "a\nerror: forged",
    "a\r\x08\x08",
    "gpj.\u202egnp",  # right to left
    "a\u2066\u200b\u2028",
    "[bold]x[-bold]",  # a slash, and it is markup that does not close
    "[red]:boom:[link=x]",
    os.fsdecode(b"\xff\xfe"),  # no UTF-8
)
TOGETHER = tuple("".join(HOSTILE[start::3]) for start in range(3))
"""The same in three names, for the short form."""


def dangers(text: str) -> set[str]:
    """Characters that act on a terminal, or that are no text."""
    bad = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}
    return {f"U+{ord(c):04X}" for c in bad}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [os.fspath(part) if isinstance(part, Path) else str(part) for part in arguments])


def check_shown(result: Result, codes: tuple[int, ...]) -> None:
    shown = result.stdout + result.stderr
    assert result.exit_code in codes, (result.exit_code, shown, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert not dangers(shown), (dangers(shown), shown)
    assert not any(line.startswith("error: forged") for line in shown.splitlines()), shown
    assert "\U0001f4a5" not in shown  # :boom:
    assert "Traceback" not in shown


@dataclass(frozen=True)
class World:
    """Videos, a store and a run, all below a folder with a hostile name."""

    folder: Path
    names: tuple[str, ...]

    @property
    def videos(self) -> Path:
        return self.folder / f"v{HOSTILE[0]}"

    @property
    def store(self) -> Path:
        return self.folder / f"s{HOSTILE[4]}{HOSTILE[8]}"

    @property
    def run(self) -> Path:
        return self.folder / f"r{HOSTILE[6]}{HOSTILE[10]}"


@pytest.fixture(scope="module", params=["together", pytest.param("each", marks=pytest.mark.full)])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    names = TOGETHER if request.param == "together" else HOSTILE
    made = World(tmp_path_factory.mktemp("names") / f"w{HOSTILE[1]}{HOSTILE[9]}", names)
    for number, name in enumerate(names):
        path = (
            made.videos
            / f"{HOSTILE[2 + 2 * (number % 2)]}class".replace("/", "")
            / f"{name.replace('/', '')}{number}.mp4"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_square(number, 10, 32, 32, 8)[0])
    return made


@pytest.fixture(scope="module")
def built(world: World) -> World:
    build_shards(ShardOptions(inputs=[world.videos], out=world.store, in_process=True, size=None), Silent())
    train = ("--backbone", "tiny", "--steps", 2, "--crop", 32, "--frames", 4, "--batch-size", 2, "--threads", 0)
    check_shown(invoke("train", world.store, "--out", world.run, *train), (0,))
    return world


def test_videos(world: World, tmp_path: Path) -> None:
    """Commands that read videos: a good file and a bad one of each name."""
    bad = world.folder / "bad"
    bad.mkdir()
    for number, name in enumerate(world.names):
        (bad / f"{number}{name.replace('/', '')}.mp4").write_text("no video")
    check_shown(invoke("inspect", world.videos, bad), (1,))
    probed = invoke("inspect", world.videos, "--json")
    check_shown(probed, (0,))
    out = tmp_path / HOSTILE[5]
    for _ in range(2):  # a rerun reports what failed before
        result = invoke("extract-backgrounds", world.videos, bad, "--out", out, "--jobs", 2, "--json")
        check_shown(result, (1,))
    reported = json.loads(result.stdout)
    assert reported["ok"] == reported["failed"] == len(world.names)
    lines = (out / "failures.jsonl").read_bytes()
    assert not dangers(lines.decode("utf-8"))
    ids = {json.loads(line)["id"] for line in lines.splitlines()}
    told_as = [name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in world.names]
    assert ids == {f"{number}{name.replace('/', '')}.mp4" for number, name in enumerate(told_as)}


def test_stores(built: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, out = built.store, tmp_path / HOSTILE[3]
    drawn: list[str] = []
    put: Any = cv2.putText

    def seen(image: np.ndarray, text: str, *more: object) -> object:
        drawn.append(text)
        return put(image, text, *more)

    monkeypatch.setattr(cv2, "putText", seen)
    for arguments, codes in (
        (("verify", store), (0,)),
        (("verify", store, "--json"), (0,)),
        (("preview", store, "--out", out / f"{HOSTILE[4]}.png"), (0,)),
        (("export", store, "--all", "--out", out / "export", "--json"), (0, 1)),
        (("import", store, "--backgrounds", out / "export" / "backgrounds"), (0,)),
        (("merge", store, store, "--out", out / "merged"), (1, 2)),
        (("merge", store, "--out", out / "merged"), (0, 1, 2)),
    ):
        check_shown(invoke(*arguments), codes)
    assert any("\\x1b]" in text for text in drawn) and all(text.isascii() and text.isprintable() for text in drawn)
    chunk = next(path for path in (store / "shards" / "00000" / "frames" / "c").rglob("*") if path.is_file())
    whole = chunk.read_bytes()
    chunk.write_bytes(bytes(len(whole)))
    check_shown(invoke("verify", store), (1,))
    damaged = invoke("verify", store, "--json")
    chunk.write_bytes(whole)
    check_shown(damaged, (1,))
    named = {name for problem in json.loads(damaged.stdout)["problems"] for name in problem["videos"]}
    assert named and all(any(name.replace("/", "")[:4] in one for name in built.names) for one in named)


def test_encoders(built: World, tmp_path: Path) -> None:
    run, store, out = built.run, built.store, tmp_path / HOSTILE[7]
    for arguments in (
        ("evaluate", run, store, "--protocol", "retrieval,knn", "--clips", 1, "--threads", 0),
        ("embed", run, store, "--clips", 1, "--out", out / "f.npz"),
        ("heatmap", run, store, "--out", out / "maps", "--map", "activation", "--videos", 2),
        ("export-weights", run, "--out", out / "e.safetensors"),
    ):
        check_shown(invoke(*arguments), (0,))
    result = invoke("embed", run, store, "--clips", 1, "--out", out / "g.npz", "--json")
    check_shown(result, (0,))
    assert json.loads(result.stdout)["settings"]["run"] == str(run)


ARGUMENTS = [
    ("{}",),
    ("{}", "--help"),
    ("verify", "{}"),
    ("verify", "x", "--{}"),
    ("preview", "x", "--rows", "{}"),
    ("train", "x", "--out", "y", "--set", "{}"),
    ("train", "x", "--out", "y", "--optimiser", "{}"),
    ("train", "x", "--out", "y", "--config", "{}"),
    ("evaluate", "{}", "{}", "--protocol", "{}"),
    ("evaluate", "x", "y", "--l2", "{}"),
    ("embed", "{}", "{}", "--out", "{}"),
    ("heatmap", "{}", "{}", "--out", "{}", "--map", "{}"),
    ("export-weights", "{}"),
    ("inspect", "{}"),
    ("extract-backgrounds", "{}", "--out", "{}"),
    ("build-shards", ".", "--out", "{}", "--labels", "{}"),
    ("merge", "{}", "{}", "--out", "{}"),
    ("import", "{}", "--masks", "{}"),
    ("export", "{}", "{}", "--out", "{}"),
    ("demo", "--steps", "{}"),
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_arguments_that_are_repeated(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_shown(invoke(*(part.replace("{}", "".join(HOSTILE)) for part in arguments)), (0, 1, 2))


@pytest.mark.full
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_each_name_in_each_argument(
    arguments: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_shown(invoke(*(part.replace("{}", name) for part in arguments)), (0, 1, 2))


def test_tracebacks_on_request(tmp_path: Path) -> None:
    result = invoke("verify", tmp_path / HOSTILE[4], "--debug")
    assert result.exit_code == 1 and type(result.exception).__name__ == "StoreFormatError"  # shown by `bgaug.cli.start`
