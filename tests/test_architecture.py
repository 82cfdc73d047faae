"""Imports go one way, and what must answer at once loads nothing heavy."""

from __future__ import annotations

import ast
import importlib
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bgaug

ROOT = Path(__file__).parents[1]
NUMPY_ROOMS = {
    "errors",
    "names",
    "files",
    "text",
    "progress",
    "provenance",
    "sizing",
    "video",
    "shots",
    "background",
    "masks",
    "labels",
    "visualize",
    "testing",
    "store",
}
DEVICE_ROOMS = {"pairs", "model", "metrics"}
FOR_FILES = {
    "errors",
    "names",
    "files",
    "text",
}  # numpy rooms that checkpoints and pretrained weights are read with
ONLY_IN = {"av": {"video"}, "decord": {"video"}, "zarr": {"store"}, "typer": {"cli"}, "rich": {"cli"}}


def modules() -> dict[str, Path]:
    """Every module of the package by its installed name."""
    found = {}
    for folder, prefix in (
        (ROOT / "bgaug", "bgaug"),
        (ROOT / "cli", "bgaug.cli"),
        (ROOT / "pipelines", "bgaug.pipelines"),
    ):
        for path in folder.rglob("*.py"):
            inside = path.relative_to(folder)
            if folder.name == "bgaug" and inside.parts[0] in ("cli", "pipelines"):
                continue  # links to the two folders next to it
            parts = [part for part in inside.with_suffix("").parts if part != "__init__"]
            found[".".join([prefix, *parts])] = path
    return found


def imports(path: Path, module: str) -> set[str]:
    """All that a module imports, whether at its top or in a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; write the installed name"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(module: str) -> str:
    """The room that a module of the package belongs to."""
    parts = module.split(".")
    if parts[1:] == ["__main__"]:
        return "cli"
    return parts[1] if len(parts) > 1 else ""


IMPORTS = {name: imports(path, name) for name, path in modules().items()}


def test_there_is_something_to_look_at() -> None:
    assert {"bgaug.store.write", "bgaug.cli.main", "bgaug.pipelines.train.run", "bgaug.pairs"} <= IMPORTS.keys()


def on_device(module: str) -> bool:
    """Whether a module needs torch and numpy only."""
    return room(module) in DEVICE_ROOMS


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_imports_go_one_way(module: str) -> None:
    here = room(module)
    for name in IMPORTS[module]:
        top = name.split(".")[0]
        if top in ONLY_IN:
            assert here in ONLY_IN[top], f"{module} imports {name}, which only {', '.join(ONLY_IN[top])} may import"
        if top == "torch":
            assert here not in NUMPY_ROOMS, f"{module} is numpy code and imports {name}"
        if top != "bgaug" or name in ("bgaug", "bgaug.__version__") or here == "":
            continue
        there = room(name)
        if there == "cli":
            assert here == "cli", f"{module} imports {name}"
        if there == "pipelines":
            assert here in ("cli", "pipelines"), f"{module} imports {name}"
        if there == "testing":
            assert here in ("testing", "pipelines"), f"{module} imports {name}"
        if here in NUMPY_ROOMS:
            assert there in NUMPY_ROOMS, f"{module} is numpy code and imports {name}"
        if on_device(module):
            allowed = on_device(name) or there in FOR_FILES
            assert allowed, f"{module} is device code and imports {name}"


def test_device_code_needs_torch_and_numpy_only() -> None:
    for module, names in IMPORTS.items():
        if on_device(module) and not module.startswith(
            "bgaug.model.pretrained"
        ):  # descriptions are checked by pydantic
            foreign = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"bgaug", "torch", "numpy"}
            assert not foreign, f"{module} imports {foreign}"


def loaded_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys; {code}; print(' '.join(sys.modules))"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import bgaug",
        "import bgaug.cli.main",
        "import bgaug.pipelines.build.backgrounds, bgaug.pipelines.build.shards",
        "from bgaug import read_video, estimate_background, foreground_mask, open_store",
    ],
)
def test_offline_work_loads_no_torch(code: str) -> None:
    assert "torch" not in loaded_after(code)


def test_importing_bgaug_is_quick() -> None:
    assert not loaded_after("import bgaug") & {"numpy", "zarr", "av", "cv2", "torch", "decord"}
    # A shared processor is slower, so each run is compared with one right after it.
    ratios = [cpu_seconds("-m", "bgaug.cli.main", "--help") / cpu_seconds("-c", "import numpy") for _ in range(4)]
    assert min(ratios) < 5, f"bgaug --help took {min(ratios):.1f} times as long on a processor as `import numpy`"


def cpu_seconds(*words: str) -> float:
    """Time that Python with these arguments takes on a processor."""
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime - begun.ru_utime + ended.ru_stime - begun.ru_stime


def test_public_names_import() -> None:
    expected = {
        "read_video",
        "open_video",
        "estimate_background",
        "foreground_mask",
        "open_store",
        "ClipDataset",
        "ClipLoader",
        "SemiNegativeDataset",
        "SemiNegativePairs",
        "MotionAwareDecomposition",
        "SemiNegativeLoss",
        "DualLoss",
        "load_encoder",
    }
    assert expected == set(bgaug.__all__) - {"__version__"}
    for name in expected:
        assert getattr(bgaug, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bgaug.nothing


def test_every_room_stands_on_the_map() -> None:
    rooms = {room(name) for name in IMPORTS} - {"", "errors"}
    assert bgaug.__doc__ is not None
    missing = [name for name in rooms if f"    {name} " not in bgaug.__doc__]
    assert not missing


def test_installed_names_are_these_files() -> None:
    for name in ("bgaug.cli.main", "bgaug.pipelines.train.run", "bgaug.store.read"):
        path = Path(str(importlib.import_module(name).__file__)).resolve()
        assert path == modules()[name].resolve() or "site-packages" in path.parts


def test_a_wheel_holds_every_room() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    assert set(listed) == {name for name, path in modules().items() if path.name == "__init__.py"}
