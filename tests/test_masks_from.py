"""Where the masks of shots come from: in rows, in the index, in counts, in what commands show."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stores import SIZE, header_of, make_row, plan_of
from typer.testing import CliRunner

from bgaug.background import Background
from bgaug.cli.main import app
from bgaug.masks import SmallMasks
from bgaug.names import MasksFrom
from bgaug.pipelines.build.process_video import put_shot
from bgaug.shots.boundaries import REASONS
from bgaug.shots.shot import Shot as EstimatedShot
from bgaug.store import (
    Header,
    MaskModel,
    ShardWriter,
    Shot,
    VideoPayload,
    create_store,
    finish_store,
    open_store,
    replace_masks,
    summarise_store,
    verify_store,
)

GREY = Background(np.full((*SIZE, 3), 9, np.uint8), np.ones(SIZE, np.float32), np.ones(SIZE, np.bool_), shadows=False)
STILL = EstimatedShot(0, 5, "static", GREY, grade="A")
DISSOLVE = EstimatedShot(0, 5, reasons=(REASONS["dissolve"],))
MADE: dict[str, list[tuple[EstimatedShot, MasksFrom | None]]] = {
    "0.mp4": [(STILL, None), (DISSOLVE, None), (replace(STILL, grade="D"), "motion")],
    "1.mp4": [(STILL, "segmenter"), (EstimatedShot(0, 5), None)],
    "2.mp4": [(STILL, None)],
}
MODEL = MaskModel(name="sam", kind="sam2", sha256="0" * 64, window=8, objects=1, points=1, negative_points=0)


def make(root: Path, *, origins: bool = True) -> Header:
    header = create_store(root, header_of(), plan_of(3))
    with ShardWriter(root, header, 0) as writer:
        for name, made in MADE.items():
            payload, rows = VideoPayload(header), []
            for number, (shot, origin) in enumerate(made):
                shot = replace(shot, start=5 * number, stop=5 * number + 5)
                rows.append(put_shot(payload, shot, masks_from=origin if origins else None))
                for frame in range(shot.start, shot.stop):
                    payload.add_frame(frame / 25, np.full((*SIZE, 3), frame, np.uint8))
                    payload.add_masks(np.ones((1, *SIZE), np.bool_))
            writer.add(make_row(name, 5 * len(made), rows), payload)
        writer.commit()
    finish_store(root)
    return header


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path / "s")
    return tmp_path / "s"


def origins(root: Path) -> dict[str, list[str]]:
    store = open_store(root)
    return {
        store.video_id(video): [store.masks_from(video, shot) for shot in range(len(store.shots(video)))]
        for video in range(len(store))
    }


BUILT = {"0.mp4": ["background", "missing", "motion"], "1.mp4": ["segmenter", "missing"], "2.mp4": ["background"]}


def test_the_index_and_the_commits_agree(root: Path) -> None:
    assert origins(root) == BUILT and not verify_store(root, deep=True).problems
    rows = [open_store(root).row(video) for video in range(3)]
    assert {row.id: [row.masks_from(shot) for shot in row.shots] for row in rows} == BUILT
    shutil.rmtree(root / "index")
    assert origins(root) == BUILT
    with pytest.raises(IndexError, match="no shot 1"):
        open_store(root).masks_from(2, 1)


def test_masks_that_replace_others_count_for_the_whole_video(root: Path) -> None:
    header = open_store(root).header
    replace_masks(root, header, 0, lambda row, masks: ~masks if row.id == "0.mp4" else None)
    replace_masks(root, header, 0, lambda row, masks: ~masks if row.id == "2.mp4" else None, model=MODEL)
    finish_store(root)
    expected = {**BUILT, "0.mp4": ["imported"] * 3, "2.mp4": ["segmenter"]}
    assert origins(root) == expected and not verify_store(root).problems


def test_a_store_in_which_nothing_else_is_known_has_no_column(tmp_path: Path) -> None:
    """Its index is as it was before there was such a column, and so is its content hash."""
    make(tmp_path / "plain", origins=False)
    make(tmp_path / "s")
    assert not (tmp_path / "plain/index/shot_masks_from").exists()
    assert (tmp_path / "s/index/shot_masks_from").exists()
    assert origins(tmp_path / "plain")["0.mp4"] == ["background", "missing", "background"]
    hashes = {verify_store(tmp_path / name).content_hash for name in ("plain", "s")}
    assert len(hashes) == 1
    row = json.loads((tmp_path / "plain/shards/00000/COMMIT.json").read_bytes())["videos"][0]
    assert all("masks_from" not in shot for shot in row["shots"])


def test_small_masks_imply_motion(tmp_path: Path) -> None:
    header = header_of("none")
    small = SmallMasks.of(np.zeros((5, 4, 4), np.bool_))
    row = put_shot(VideoPayload(header), replace(STILL, masks=small), for_builds=True)
    assert row.own_masks_from == "motion" and row.masks_from is None


def test_a_background_has_its_shadows(root: Path) -> None:
    assert not open_store(root).background(0, 0).shadows
    other = replace(GREY, shadows=True)
    assert put_shot(VideoPayload(header_of()), replace(STILL, background=other)).shadows


def test_transitions_are_told_from_fragments(root: Path) -> None:
    assert [shot.is_transition for shot in open_store(root).row(0).shots] == [False, True, False]
    assert not Shot(start=0, stop=3, background=-1).is_transition
    assert not Shot(start=0, stop=3, background=-1, grade="F", reasons=["the camera moves"]).is_transition


def test_a_store_is_counted_and_shown(root: Path) -> None:
    counts = summarise_store(root)
    assert counts.masks_from == {"background": 2, "missing": 2, "motion": 1, "segmenter": 1}
    assert (counts.transitions, counts.short_shots, counts.shots, counts.grades) == (1, 1, 6, {"A": 3, "D": 1})
    done = CliRunner().invoke(app, ["inspect", str(root), "--json"])
    (found,) = json.loads(done.stdout.splitlines()[-1])["stores"]
    assert done.exit_code == 0 and found["masks_from"] == dict(counts.masks_from) and found["shards_missing"] == 0
    assert (found["videos"], found["ok"], found["frames"], found["size"]) == (3, 3, 30, list(SIZE))
    shown = CliRunner().invoke(app, ["inspect", str(root), str(root)], env={"COLUMNS": "240"}).stdout
    assert shown.count("background 2, missing 2, motion 1, segmenter 1") == 2


def test_stores_and_videos_are_not_inspected_together(root: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["inspect", str(root), str(tmp_path)])
    assert done.exit_code == 2 and "either stores or videos" in done.stderr
    done = CliRunner().invoke(app, ["inspect", str(root), "--deep"])
    assert done.exit_code == 2 and "--deep" in done.stderr
