"""Options are declared once: the command line, files of options, help, completion and documentation agree with them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from bgaug.background import NUM_SAMPLES, SAMPLE_MEMORY
from bgaug.cli.commands import parameters_of_command
from bgaug.cli.main import COMMANDS, app
from bgaug.cli.reference import page
from bgaug.errors import UsageError
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.evaluate.options import EvaluateOptions
from bgaug.pipelines.options import Option, Options, record, to_toml
from bgaug.pipelines.train.options import TrainOptions

ROOT = Path(__file__).parents[1]


def invoke(*words: object, width: int = 80) -> Any:
    environment = {"COLUMNS": str(width), "TERMINAL_WIDTH": str(width)}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


# --- records ----------------------------------------------------------------------------------------------------------


@record
class Toy(Options):
    """A record of this test."""

    count: Annotated[int, Option("A number.", ge=1)] = 3
    names: Annotated[tuple[str, ...], Option("Names.", flag="name", names=("a", "b"), commas=True)] = ("a",)
    own: Annotated[str, Option("A name.", names=("a",), own=True)] = "a"


def test_a_record_lists_everything_that_is_not_valid() -> None:
    with pytest.raises(UsageError) as caught:
        Toy(count=0, names=("c",), other=1)  # type: ignore[call-arg]
    assert str(caught.value).startswith("invalid options: ")
    for part in ("--count: ", "got 0", "--name: there is no 'c'; there are a, b", "other: "):
        assert part in str(caught.value)
    assert Toy(own="my.module:function").own == "my.module:function"
    with pytest.raises(TypeError):
        Toy(5)  # type: ignore[call-arg]


def test_options_are_written_as_the_command_line_has_them() -> None:
    assert to_toml(Toy(count=4)) == 'count = 4\nname = ["a"]\nown = "a"\n'
    options = TrainOptions(change={"donor": "far", "w_static": 0.5}, num_frames=8, splits=("x",), device="cpu")
    text = options.toml()
    assert 'set = ["donor=\\"far\\"", "w_static=0.5"]' in text and "frames = 8" in text and 'split = ["x"]' in text
    assert "device" not in text and "resume" not in text


def test_what_decides_a_run_keeps_its_names() -> None:
    deciding = TrainOptions().deciding()
    assert list(deciding)[:4] == ["method", "backbone", "weights", "epochs"] and len(deciding) == 29
    assert deciding["drop_at"] == [0.6, 0.8] and deciding["masks"] is None and deciding["num_frames"] == 16
    same = {"device": "cpu", "threads": 0, "resume": True, "overwrite": True, "trust": True, "best": "loss"}
    assert TrainOptions(**same).deciding() == deciding  # type: ignore[arg-type]


def test_defaults_are_those_of_the_library() -> None:
    assert (VideoOptions().num_samples, VideoOptions().memory) == (NUM_SAMPLES, SAMPLE_MEMORY)


def test_inner_records_share_the_seed() -> None:
    found: list[EvaluateOptions] = []

    def keep(options: EvaluateOptions, as_json: bool) -> None:
        found.append(options)

    from bgaug.cli.commands import Command, command

    application = typer.Typer()
    application.command(cls=Command)(command(keep))
    words = ["--seed", "7", "--epochs", "2", "--bias-composites", "4", "--labels-split", "1,2", "--l2", "cv"]
    assert CliRunner().invoke(application, words).exit_code == 0
    (options,) = found
    assert (options.seed, options.finetune.seed, options.bias.seed) == (7, 7, 7)
    assert (options.finetune.epochs, options.bias.composites, options.splits, options.l2) == (2, 4, (1, 2), None)


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_narrow_terminal(name: str) -> None:
    whole, short = (invoke(name, option).stdout for option in ("--help-all", "--help"))
    parameters = parameters_of_command(COMMANDS[name])
    for one in parameters:
        for flag in (one.flag, one.off):
            assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", whole), f"{flag} is cut or missing"
            assert one.option.rare or flag in short
        assert one.option.help[0].isupper() and one.option.help.endswith(".")
    assert all(len(line) <= 80 or "bgaug" in line or "python -c" in line for line in whole.splitlines())
    assert "…" not in whole and "Examples:\n     bgaug" in short
    if any(one.option.rare for one in parameters):
        assert f"{name} --help-all" in short


def test_help_of_train_fits_a_page() -> None:
    lines = invoke("train", "--help", width=100).stdout.splitlines()
    assert len(lines) <= 90
    panels = [line.split("─ ")[1].split(" ─")[0] for line in lines if line.startswith("╭")]
    assert panels[:2] == ["Arguments", "Options"] and panels[-1] == "Running"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_heavy(name: str) -> None:
    code = f"import sys; sys.argv = ['bgaug', {name!r}, '--help']; import bgaug.cli.main as m\n"
    code += "try: m.app()\nexcept SystemExit: pass\n"
    code += "import sys; sys.stderr.write(' '.join({'torch', 'cv2', 'zarr', 'av'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "" and "--help-all" in done.stdout


def test_help_is_quick() -> None:
    best = 10.0
    for _ in range(4):
        begun = os.times()
        subprocess.run([sys.executable, "-m", "bgaug.cli.main", "train", "--help"], capture_output=True, check=True)
        ended = os.times()  # of children: time on a processor, whatever else runs
        best = min(best, ended.children_user - begun.children_user + ended.children_system - begun.children_system)
    assert best < 0.5, f"bgaug train --help took {best:.2f} s of a processor"


def test_the_page_of_commands_is_up_to_date() -> None:
    written = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert written == page(), "run: python -m bgaug.cli.reference > docs/commands.md"


# --- files of options and former names --------------------------------------------------------------------------------


def required(name: str, folder: Path) -> list[str]:
    """Words for everything that a command requires."""
    words: list[str] = []
    for one in parameters_of_command(COMMANDS[name]):
        if one.required:
            words += ["x"] if one.option.argument else [one.flag, str(folder / "out")]
    return words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_reads_a_file_of_options(name: str, tmp_path: Path) -> None:
    (tmp_path / "options.toml").write_text("nothing = 1\n")
    result = invoke(name, *required(name, tmp_path), "--config", tmp_path / "options.toml")
    shown = " ".join(result.stderr.replace("│", " ").split())
    assert result.exit_code == 2 and "no option nothing here" in shown


def old_and_new() -> Iterator[tuple[str, str, str]]:
    for name, function in COMMANDS.items():
        for one in parameters_of_command(function):
            for old in one.option.old:
                yield name, old, one.flag


@pytest.mark.parametrize(("name", "old", "new"), list(old_and_new()))
def test_a_former_name_is_answered_with_the_new_one(name: str, old: str, new: str, tmp_path: Path) -> None:
    result = invoke(name, *required(name, tmp_path), f"--{old}", "x")
    assert result.exit_code == 2 and f"--{old} is now {new}" in " ".join(result.stderr.replace("│", " ").split())
    (tmp_path / "old.toml").write_text(f'{old} = "x"\n')
    result = invoke(name, *required(name, tmp_path), "--config", tmp_path / "old.toml")
    shown = " ".join(result.stderr.replace("│", " ").split())
    assert result.exit_code == 2 and f"{old} is now {new[2:]}" in shown


def test_a_former_command_is_answered_with_the_new_one() -> None:
    result = invoke("probe", "x.mp4")
    assert result.exit_code == 2 and "probe is now inspect" in result.stderr


def test_a_file_gives_every_kind_of_value(small_store: Path, tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text(
        'store-frames = "raw"\nsize = "24x32"\ndetect-shots = false\nmemory = 64\nbackground_method = "median"\n'
        f'jobs = 1\nout = "{tmp_path / "s"}"\n'
    )
    found: list[ShardOptions] = []

    def keep(options: ShardOptions, as_json: bool) -> None:
        found.append(options)

    from bgaug.cli.commands import Command, command

    application = typer.Typer()
    application.command(cls=Command)(command(keep))
    result = CliRunner().invoke(application, ["videos", "--config", str(tmp_path / "o.toml"), "--jobs", "2"])
    assert result.exit_code == 0, result.output
    (options,) = found
    assert (options.frames, options.size, options.jobs) == ("raw", (24, 32), 2)
    assert (options.video.method, options.video.shots, options.video.memory) == ("median", False, 64 * 2**20)


# --- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train store --method fam", {"fame", "fame-published"}),
        ("train store --backbone r2", {"r2plus1d18", "r2plus1d18-14m"}),
        ("train store --set policy=be", {"policy=be", "policy=be-inter"}),
        ("build-shards videos --background-method p", {"patches", "plate"}),
        ("build-shards videos --labels-format k", {"kinetics"}),
        ("evaluate run store --protocol f", {"finetune", "fewshot"}),
        ("export-w", {"export-weights"}),
    ],
)
def test_the_shell_completes_names(words: str, expected: set[str]) -> None:
    environment = {"_BGAUG_COMPLETE": "complete_bash", "COMP_WORDS": f"bgaug {words}"}
    environment["COMP_CWORD"] = str(len(words.split()))
    result = CliRunner().invoke(app, [], env=environment, prog_name="bgaug")
    assert set(result.stdout.split()) == expected


# --- the code ---------------------------------------------------------------------------------------------------------


def test_functions_of_the_command_line_are_small() -> None:
    for path in (ROOT / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                count = len(node.args.args) + len(node.args.kwonlyargs)
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name} is long"
                assert count <= 10, f"{path.name}: {node.name} has {count} parameters"
