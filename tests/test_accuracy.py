from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from worlds import moving_square

from bgaug.names import BACKGROUND_METHODS as METHODS
from bgaug.video import write_video

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "accuracy.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--methods", "median", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def scored(*arguments: object) -> dict[str, Any]:
    done = run("--json", *arguments)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def write_truth(folder: Path, archive: str, picture: str, valid: str, step: int) -> np.ndarray:
    """A square that crosses a scene, its masks and background; returns the frames."""
    frames, masks, background = moving_square(num_frames=60, height=96, width=128, side=24)
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / archive, "w") as file:
        for index in range(0, len(masks), step):
            coded = cv2.imencode(".png", np.where(masks[index], 255, 0).astype(np.uint8))[1]
            file.writestr(f"{index:06d}.png", coded.tobytes())
    cv2.imwrite(str(folder / picture), cv2.cvtColor(background, cv2.COLOR_RGB2BGR))
    cv2.imwrite(str(folder / valid), np.full(background.shape[:2], 255, np.uint8))
    return frames


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both kinds of truth, laid out as the real ones are."""
    root = tmp_path_factory.mktemp("data")
    frames = write_truth(root / "backgrounds" / "made_office", "gt.zip", "bg_ref.png", "bg_valid.png", 1)
    write_video(root / "backgrounds" / "made_office" / "video.mp4", frames)
    frames = write_truth(root / "actions" / "ut_truth" / "0_1_4", "masks.zip", "plate.png", "valid.png", 5)
    videos = root / "actions" / "ut_interaction_set1"
    videos.mkdir()
    write_video(videos / "0_1_4.avi", frames)
    return root


@pytest.mark.parametrize(
    ("truth", "place", "name", "group"),
    [("gt", "backgrounds", "made_office", "static"), ("ut", "actions/ut_truth", "0_1_4", "ut")],
)
def test_both_layouts_are_scored(data: Path, truth: str, place: str, name: str, group: str) -> None:
    result = scored("--truth", truth, "--data", data)
    rows = result["sequences"][name]
    assert rows["median"]["age"] < 2 and rows["median"]["peps"] == 0 and rows["median"]["ms_ssim"] > 0.98
    assert rows["median"]["f1"] > 0.95 and rows["median"]["boundary_f"] > 0.9
    assert rows["perfect background"]["f1"] > 0.95
    assert rows["frame difference"]["f1"] < rows["median"]["f1"]
    assert {"MOG2 online", "MOG2 warm", "KNN online", "KNN warm", "FAME 0.35"} < set(rows)
    assert ("ghost" in rows["median"]) == (truth == "ut")
    assert result["means"][group]["median"]["age"] == rows["median"]["age"]
    direct = scored("--truth", truth, "--data", data / place)
    assert direct["sequences"][name]["median"]["f1"] == rows["median"]["f1"]


def test_table_names_methods_and_post_processing(data: Path) -> None:
    done = run("--data", data)
    assert done.returncode == 0, done.stderr
    assert "mean of static (1)" in done.stdout and "  median  " in done.stdout and "median 5, close 3" in done.stdout


def test_a_method_that_fails_is_named(data: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})
import accuracy
def fails(frames, method): raise ValueError("too dark")
accuracy.estimate_background = fails
accuracy.score_perfect = lambda sequence, refine: {{}}
accuracy.main(["--methods", "median", "--data", {str(data)!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ValueError: too dark" in done.stdout and "(1 failed)" in done.stdout


def test_wrong_usage_is_named(tmp_path: Path, data: Path) -> None:
    for arguments, message in (
        (("--data", tmp_path), f"no sequences in {tmp_path}"),
        (("--data", data, "--sequences", "office,nowhere"), "no such sequence: nowhere"),
        (("--data", data, "--methods", "magic"), f"there are {', '.join(METHODS)}"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and message in done.stderr
