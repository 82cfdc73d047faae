"""The benchmarks' short forms: that they run, and that what they print can be relied on."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OURS = ("memmap", "raw", "jpeg", "masks", "zarr", "zarr_masks", "pyav_gop250", "pyav_gop12")

pytestmark = pytest.mark.full


def quick(script: str, *options: str) -> dict[str, Any]:
    """The last line of its output."""
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--json", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Warnings report the frames that a reader skips; missing peers are no error.
    assert "not the frames asked for" not in done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def positive(values: dict[str, float]) -> bool:
    return all(math.isfinite(value) and value > 0 for value in values.values())


def test_serving() -> None:
    result = quick("serve.py")
    cpu, speed, ratios = result["cpu_ms_per_clip"], result["clips_per_second"], result["ratios"]
    assert {f"{name}{end}" for name in OURS for end in ("", "_stride4")} <= set(cpu) == set(speed)
    assert positive(cpu) and positive(speed) and positive(ratios)
    for kind in ("raw", "jpeg"):
        assert set(result["loader"][kind]) == {"clip_loader", "dataloader"} and positive(result["loader"][kind])
        assert f"dataloader_over_clip_loader_{kind}" in ratios
    for above, below in (("raw", "memmap"), ("zarr", "raw"), ("masks", "jpeg"), ("pyav_gop250", "jpeg")):
        # The median of ratios is not the ratio of medians, but not far from it either.
        assert ratios[f"{above}_over_{below}"] == pytest.approx(cpu[above] / cpu[below], rel=0.5)
    # Masks of eight pixels a byte, compressed.
    assert result["mask_bytes"]["uint8_over_disk"] > 8 and result["mask_bytes"]["packed_on_disk_per_video"] > 0
    assert result["machine"]["cpus"] >= 1


def test_building() -> None:
    result = quick("build.py")
    for kind, other in (("raw", "write_fsync"), ("jpeg", "encoder")):
        row = result[kind]
        for name in ("build", other):
            assert row[name]["cpu_s"] > 0 and row[name]["wall_s"] > 0
        assert row["ratio_cpu"] == pytest.approx(row["build"]["cpu_s"] / row[other]["cpu_s"], rel=0.5)
        assert row["ratio_wall"] > 0
    # Two thousand frames, and little besides.
    assert 2000 * 128 * 171 * 3 < result["raw"]["shard_bytes"] < 1.05 * 2000 * 128 * 171 * 3
    assert result["jpeg"]["shard_bytes"] < result["raw"]["shard_bytes"] / 4


def test_composing() -> None:
    result = quick("compose.py")
    assert len(result["ratios"]) == 6 and positive(result["ratios"])


def test_a_step_on_a_device() -> None:
    result = quick("gpu.py", "--device", "cpu")
    eager = result["eager"]
    assert eager["step_ms"] > eager["pairs_ms"] > 0 and eager["waits"] == []
    assert eager["pairs_share"] == pytest.approx(eager["pairs_ms"] / eager["step_ms"], rel=0.01)
    assert result["parameters"] > 124_144 and result["clips"] == 8


def test_shot_boundaries(real_data: Path) -> None:
    result = quick("cuts.py", "--data", str(real_data))
    ours = result["detectors"]["bgaug"]
    assert result["films"]["films"] == 1 and sum(result["films"][kind] for kind in ("cut", "dissolve", "fade")) == 7
    assert ours["f1"] > 0.8 and 0.5 < ours["iou"] <= 1 and ours["cpu_ms_per_frame"] > 0


def test_moving_cameras(real_data: Path) -> None:
    result = quick("moving.py", str(real_data))
    masks, cameras = (result[part]["tables"] for part in ("masks", "cameras"))
    for data, clips in (("JHMDB", 2), ("DAVIS", 1)):
        ours = masks[data]["bgaug"]
        assert ours["clips"] == clips and 0 < ours["J"] <= ours["F1"] <= 1 and positive({"cpu": ours["extraction"]})
        assert masks[data]["whole image"]["J"] < ours["J"] and masks[data]["centred ellipse, 15 %"]["J"] > 0
    assert sum(row["clips"] for row in masks["JHMDB, bgaug, by grade"].values()) == 2
    row = cameras["virtual cameras, bgaug"]["all"]
    assert row["shots"] == 1 and 0 < row["floor"] < row["behind"]


def test_real_actions_over_unseen_scenes(real_data: Path, tmp_path: Path) -> None:
    result = quick("jhmdb.py", "--data", str(real_data), "--work", str(tmp_path), "--out", str(tmp_path / "kept.json"))
    cells, about = result["cells"], result["protocol"]
    assert about["videos"] > 40 and about["steps"] == 60
    for row in ("simclr", "bgaug, own masks, scenes", "untrained"):
        for reading in ("global", "dynamic", "moments"):
            values = cells[f"{row}; {reading}"]
            assert all(0 <= value <= 100 for column in values.values() for value in column)
            # What is right in scuba and wrong in scufo is right in scuba.
            assert values["contrasted"][0] <= values["scuba"][0]
    assert all(found["seeds"] == 1 and found["low"] <= found["high"] for found in result["comparisons"].values())
    assert not (tmp_path / "kept.json").exists()  # a short run is no result to keep
