from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bgaug.cli.main import app

COMMANDS = ("extract-backgrounds", "build-shards", "verify", "preview", "probe", "train", "evaluate", "demo")


def call(*arguments: object, code: int = 0) -> str:
    """stdout of a command that leaves with `code`."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result.stdout


def last_json(output: str) -> dict[str, object]:
    value = json.loads(output.splitlines()[-1])
    assert isinstance(value, dict)
    return value


def test_the_whole_way_from_videos_to_numbers(video_folder: Path, tmp_path: Path) -> None:
    bg, shards, run, sheet = (tmp_path / name for name in ("bg", "shards", "run", "sheet.png"))
    extracted = last_json(call("extract-backgrounds", video_folder, "--out", bg, "--json"))
    assert {"videos", "ok", "partial", "no_static_background", "failed", "frames", "seconds"} <= extracted.keys()
    assert extracted["videos"] == extracted["ok"] == 6
    built = last_json(call("build-shards", video_folder, "--out", shards, "--backgrounds", bg, "--json"))
    assert {"shards", "bytes"} <= built.keys() and built["videos"] == 6
    checked = last_json(call("verify", shards, "--deep", "--json"))
    assert checked["ok"] and isinstance(checked["content_hash"], str)
    assert last_json(call("preview", shards, "--out", sheet, "--json"))["sheet"] == str(sheet)
    assert sheet.stat().st_size > 1000
    trained = last_json(
        call("train", shards, "--out", run, "--backbone", "tiny", "--epochs", 1, "--crop", 32, "--frames", 8, "--json")
    )
    assert {"steps", "loss", "clips_per_second", "checkpoint"} <= trained.keys()
    assert Path(str(trained["checkpoint"])).is_file()
    measured = last_json(call("evaluate", run, shards, "--protocol", "retrieval", "--clips", 2, "--json"))
    assert "retrieval_r1" in measured
    # A rerun finds everything there.
    again = last_json(call("build-shards", video_folder, "--out", shards, "--backgrounds", bg, "--json"))
    assert again["built"] == 0


def test_tables_for_people(video_folder: Path, tmp_path: Path) -> None:
    assert "no static background" in call("extract-backgrounds", video_folder, "--out", tmp_path / "bg")
    assert "whole" in call("verify", tmp_path / "bg")


def test_a_bad_video_is_named_and_leaves_with_1(video_folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    result = CliRunner().invoke(
        app, ["extract-backgrounds", str(video_folder), str(bad), "--out", str(tmp_path / "bg"), "--json"]
    )
    assert result.exit_code == 1
    assert last_json(result.stdout)["failed"] == 1 and "bad.mp4" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["verify", "nowhere"], 1, "not a bgaug store"),
        (["extract-backgrounds", "nowhere", "--out", "x"], 2, "no such file or folder"),
        (["extract-backgrounds", ".", "--out", "x", "--size", "big"], 2, "HEIGHTxWIDTH"),
        (["extract-backgrounds", ".", "--out", "x", "--fit", "squeeze"], 2, "squeeze"),
        (["train", "nowhere", "--out", "x"], 1, "not a bgaug store"),
        (["evaluate", "nowhere", "nowhere"], 1, "holds no checkpoint"),
        (["preview", "nowhere"], 1, "not a bgaug store"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code and said in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(tmp_path), "--debug"])
    assert result.exception is not None and type(result.exception).__name__ == "StoreFormatError"


def test_damage_leaves_with_1(video_folder: Path, tmp_path: Path) -> None:
    call("build-shards", video_folder, "--out", tmp_path / "s")
    chunk = next((tmp_path / "s" / "shards" / "00000" / "frames" / "c").rglob("*"))
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(bytes(data))
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "s"), "--json"])
    assert result.exit_code == 1 and not last_json(result.stdout)["ok"] and "checksum differs" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_gives_examples(command: str) -> None:
    said = call(command, "--help")
    assert "Examples:" in said and f"bgaug {command}" in said and "--json" in said


def test_help_and_version() -> None:
    said = call("--help")
    assert all(command in said for command in COMMANDS)
    assert call("--version").startswith("bgaug 0.")


def test_the_installed_command_runs() -> None:
    command = Path(sys.executable).parent / "bgaug"
    if not command.exists():
        pytest.skip("bgaug is not installed beside this Python")
    assert b"extract-backgrounds" in subprocess.run([command, "--help"], capture_output=True, check=True).stdout


def test_demo_runs_through(tmp_path: Path) -> None:
    result = last_json(call("demo", "--quick", "--out", tmp_path / "demo", "--steps", 2, "--json"))
    accuracies = result["accuracies"]
    assert isinstance(accuracies, dict) and set(accuracies) == {"untrained", "simclr", "bgaug"}
    assert all(0 <= value <= 100 for row in accuracies.values() for value in row.values())
    assert result["failed"] == 0 and Path(str(result["sheet"])).is_file()
