from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bgaug.cli.main import app

COMMANDS = (
    "extract-backgrounds",
    "build-shards",
    "verify",
    "preview",
    "merge",
    "import",
    "export",
    "inspect",
    "train",
    "evaluate",
    "heatmap",
    "embed",
    "export-weights",
    "demo",
)


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
    extracted = last_json(call("extract-backgrounds", video_folder, "--out", bg, "--jobs", 1, "--json"))
    assert {"videos", "ok", "partial", "no_static_background", "failed", "frames", "seconds"} <= extracted.keys()
    assert extracted["videos"] == extracted["ok"] == 6
    words = ("build-shards", video_folder, "--out", shards, "--backgrounds", bg, "--jobs", 1, "--json")
    built = last_json(call(*words))
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
    assert last_json(call(*words))["built"] == 0


def test_tables_for_people(video_folder: Path, tmp_path: Path) -> None:
    video = next(video_folder.rglob("*.mp4"))
    assert "no static background" in call("extract-backgrounds", video, "--out", tmp_path / "bg", "--jobs", 1)
    assert "whole" in call("verify", tmp_path / "bg")


def test_a_bad_video_is_named_and_leaves_with_1(video_folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    words = ("extract-backgrounds", next(video_folder.rglob("*.mp4")), bad, "--out", tmp_path / "bg", "--jobs", 1)
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == 1
    assert last_json(result.stdout)["failed"] == 1 and "bad.mp4" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["verify", "nowhere"], 1, "not a bgaug store"),
        (["extract-backgrounds", "nowhere", "--out", "x"], 2, "no such file or folder"),
        (["extract-backgrounds", ".", "--out", "x", "--size", "big"], 2, "HEIGHTxWIDTH"),
        (["extract-backgrounds", ".", "--out", "x", "--fit", "squeeze"], 2, "squeeze"),
        (["train", "nowhere", "--out", "x"], 1, "not a bgaug store"),
        (["evaluate", "nowhere", "nowhere"], 1, "no such run or file"),
        (["preview", "nowhere"], 1, "not a bgaug store"),
        (["verify", "nowhere", "--repair"], 1, "not a bgaug store"),
        (["merge", "nowhere", "neither", "--out", "x"], 1, "not a bgaug store"),
        (["import", "nowhere"], 2, "either --masks or --backgrounds, got neither"),
        (["import", "nowhere", "--masks", "a", "--backgrounds", "b"], 2, "either --masks or --backgrounds, got both"),
        (["import", "nowhere", "--masks", "a", "--name", "b"], 2, "--name and --overwrite go with --backgrounds"),
        (["import", "nowhere", "--backgrounds", "a", "--first", "1"], 2, "--missing with --masks"),
        (["import", "nowhere", "--masks", "a", "--values", "any"], 2, "any"),
        (["import", "nowhere", "--masks", "a"], 1, "not a bgaug store"),
        (["import", "nowhere", "--backgrounds", "a"], 1, "not a bgaug store"),
        (["export", "nowhere", "--out", "x"], 2, "either ids of videos or --all, got neither"),
        (["export", "nowhere", "a", "--all", "--out", "x"], 2, "either ids of videos or --all, got both"),
        (["export", "nowhere", "a", "--out", "x"], 1, "not a bgaug store"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code and message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(tmp_path), "--debug"])
    assert result.exception is not None and type(result.exception).__name__ == "StoreFormatError"


def test_damage_leaves_with_1(video_folder: Path, small_store: Path, tmp_path: Path) -> None:
    shutil.copytree(small_store, tmp_path / "s")
    chunk = next((tmp_path / "s" / "shards" / "00000" / "frames" / "c").rglob("*"))
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(bytes(data))
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "s"), "--json"])
    assert result.exit_code == 1 and not last_json(result.stdout)["ok"] and "checksum differs" in result.stderr
    assert "--repair drops what is damaged" in result.stderr.splitlines()[-1]
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "s"), "--repair", "--json"])
    reported = last_json(result.stdout)
    assert result.exit_code == 1 and reported["repaired"] is True and reported["ok"] is False and reported["left"] == []
    assert reported["banks"] == [] and reported["header_restored"] is False
    lost = reported["rebuild"]
    assert isinstance(lost, list) and len(lost) == 1
    assert f"1 videos are to be built again: {lost[0]}" in result.stderr
    assert "run the command that built the store again" in result.stderr.splitlines()[-1]
    words = ("build-shards", video_folder, "--out", tmp_path / "s", "--size", "48x64", "--jobs", 1, "--json")
    assert last_json(call(*words))["built"] == 1
    reported = last_json(call("verify", tmp_path / "s", "--deep", "--repair", "--json"))
    assert reported["ok"] is True and reported["repaired"] is False and reported["rebuild"] == []


def test_a_damaged_header_is_restored_on_request(small_store: Path, tmp_path: Path) -> None:
    root = shutil.copytree(small_store, tmp_path / "s")
    whole = (root / "zarr.json").read_bytes()
    (root / "zarr.json").write_bytes(whole.replace(b"jpeg", b"jqeg"))
    result = CliRunner().invoke(app, ["verify", str(root)])
    assert result.exit_code == 1 and "--repair restores it from its copy" in result.stderr
    result = CliRunner().invoke(app, ["verify", str(root), "--repair"])
    assert result.exit_code == 1 and "the header was restored" in result.stderr and "1 problems" in result.stdout
    assert (root / "zarr.json").read_bytes() == whole and "whole" in call("verify", root, "--repair")


def test_a_damaged_plan_is_left_to_the_build(small_store: Path, tmp_path: Path) -> None:
    root = shutil.copytree(small_store, tmp_path / "s")
    (root / "plan.json").write_bytes(b"[]")
    result = CliRunner().invoke(app, ["verify", str(root), "--repair", "--json"])
    left = last_json(result.stdout)["left"]
    assert result.exit_code == 1 and isinstance(left, list) and left[0]["path"] == str(root / "plan.json")
    assert f"left: {root / 'plan.json'}" in result.stderr.replace("\n", "")


def test_out_in_and_together(small_store: Path, tmp_path: Path) -> None:
    """Export and import the masks of a video, import images as donors, and merge two stores."""
    a, b = (shutil.copytree(small_store, tmp_path / name) for name in "ab")
    before = last_json(call("verify", a, "--json"))["content_hash"]
    name = "run/clip 1 é.mp4"
    out = last_json(call("export", a, name, "--out", tmp_path / "out", "--with-frames", "--json"))
    assert out == {"videos": 1, "frames": 26, "files": 55, "failed": 0, "failures": {}}
    assert (tmp_path / "out" / "frames" / "run" / "clip 1 é" / "000025.png").is_file()
    call("export", a, name, "--out", tmp_path / "out", code=2)
    assert "videos" in call("export", a, "--all", "--out", tmp_path / "out", "--overwrite")
    taken = last_json(call("import", a, "--masks", tmp_path / "out" / "masks", "--json"))
    assert (taken["videos"], taken["without_masks"], taken["failed"]) == (6, 0, 0)
    again = last_json(call("import", a, "--masks", tmp_path / "out" / "masks", "--missing", "empty", "--json"))
    assert again == taken and last_json(call("verify", a, "--deep", "--json"))["content_hash"] != before
    (tmp_path / "out" / "masks" / "run" / "clip 1 é" / "000003.png").write_bytes(b"")
    result = CliRunner().invoke(app, ["import", str(a), "--masks", str(tmp_path / "out" / "masks"), "--json"])
    assert result.exit_code == 1 and last_json(result.stdout)["failed"] == 1
    assert f"{name} keeps its masks" in result.stderr
    pictures = tmp_path / "out" / "backgrounds"
    assert last_json(call("import", a, "--backgrounds", pictures, "--json"))["bank"] == "backgrounds"
    assert "images" in call("import", a, "--backgrounds", pictures, "--name", "places")
    call("import", a, "--backgrounds", pictures, "--name", "places", code=2)
    call("import", a, "--backgrounds", pictures, "--name", "places", "--overwrite")
    call("merge", a, b, "--out", tmp_path / "c", code=2)
    merged = last_json(call("merge", a, b, "--out", tmp_path / "c", "--prefix", "--json"))
    assert (merged["videos"], merged["failed"]) == (12, 0) and merged["bytes"]
    reported = last_json(call("verify", tmp_path / "c", "--deep", "--json"))
    assert reported["ok"] and (reported["videos"], reported["shards"]) == (12, merged["shards"])
    assert "shards" in call("merge", a, b, "--out", tmp_path / "c", "--prefix", "--copy", "--overwrite")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_gives_examples(command: str) -> None:
    output = call(command, "--help")
    assert "Examples:" in output and f"bgaug {command}" in output and "--json" in output


def test_help_and_version() -> None:
    output = call("--help")
    assert all(command in output for command in COMMANDS)
    assert call("--version").startswith("bgaug 0.")


def test_the_installed_command_runs() -> None:
    command = Path(sys.executable).parent / "bgaug"
    if not command.exists():
        pytest.skip("bgaug is not installed beside this Python")
    assert b"extract-backgrounds" in subprocess.run([command, "--help"], capture_output=True, check=True).stdout


@pytest.mark.full
def test_quick_demo_runs_through(tmp_path: Path) -> None:
    result = last_json(call("demo", "--quick", "--out", tmp_path / "demo", "--steps", 2, "--jobs", 1, "--json"))
    accuracies = result["accuracies"]
    assert isinstance(accuracies, dict) and set(accuracies) == {"untrained", "simclr", "bgaug"}
    assert all(0 <= value <= 100 for row in accuracies.values() for value in row.values())
    assert result["failed"] == 0 and Path(str(result["sheet"])).is_file()


def test_an_unexpected_error_of_the_system_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, message in (
        (PermissionError(13, "Permission denied", "/a/b"), "error: /a/b: Permission denied (--debug shows where)"),
        (MemoryError(), "error: out of memory; use fewer jobs"),
    ):

        def fails(path: Path, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("bgaug.cli.stores._header", fails)
        result = CliRunner().invoke(app, ["verify", str(tmp_path)])
        assert result.exit_code == 1 and result.stderr.startswith(message) and len(result.stderr.splitlines()) == 1
        assert CliRunner().invoke(app, ["verify", str(tmp_path), "--debug"]).exception is error
