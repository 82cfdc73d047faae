"""`bgaug heatmap`: runs side by side, their masks, held-out probes, drawings and reports."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_cli import call, last_json
from test_pretrained import write_run

from bgaug.errors import MasksError, UsageError
from bgaug.masks.external import find_masks
from bgaug.metrics import LinearProbe
from bgaug.metrics.heatmap import activation_map, centre_crop_masks, localisation
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import Run
from bgaug.pairs import centre_crop
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.heatmap.clips import Clip, ClipMasks, ExternalTruth, StoreTruth
from bgaug.pipelines.heatmap.compute import averaged, encoder_maps, fit_probes, pixel_map, score_map
from bgaug.pipelines.heatmap.options import HeatmapOptions
from bgaug.pipelines.heatmap.run import heatmap
from bgaug.progress import Silent
from bgaug.store import open_store
from bgaug.video import read_video
from bgaug.visualize import HeatmapRow, heatmap_film, heatmap_sheet, write_film

FEW = HeatmapOptions(videos=2, films=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two untrained runs that differ by their seed."""
    folders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        folder = tmp_path_factory.mktemp("runs") / f"seed{seed}"
        write_run(folder, ContrastiveLearner("tiny", "dual"), config={"stride": 2})
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def run() -> Run:
    torch.manual_seed(0)
    learner = ContrastiveLearner("tiny", "dual").eval().requires_grad_(False)
    config = {"num_frames": 8, "stride": 2, "crop": 32, "backbone": "tiny", "method": "dual"}
    return Run(Path("run"), Path("run"), Path("run"), "", learner, config)


@pytest.fixture(scope="module")
def clip(small_store: Path) -> Clip:
    store = open_store(small_store)
    indices = np.arange(2, 18, 2)
    frames = torch.from_numpy(store.frames_at(0, indices))[None]
    masks = StoreTruth(store).masks(0, indices)
    return Clip(0, store.video_id(0), indices, frames, torch.tensor([store.content_box(0)]), masks)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_pixels_without_truth_do_not_count() -> None:
    """Numbers with an unknown right half are those of the left half by itself."""
    random = torch.Generator().manual_seed(0)
    heat = torch.rand(3, 2, 16, 24, generator=random)
    mask = torch.zeros(3, 2, 16, 24, dtype=torch.bool)
    mask[..., 4:9, 3:8] = True
    known = torch.zeros_like(mask)
    known[..., :12] = True
    found = localisation(heat, mask, 2, known=known)
    half = localisation(heat[..., :12], mask[..., :12], 2)
    for name, values in half.items():
        torch.testing.assert_close(found[name], values)
    torch.testing.assert_close(localisation(heat, mask, 2, known=torch.ones_like(mask)), localisation(heat, mask, 2))
    with pytest.raises(ValueError, match="known must be bool"):
        localisation(heat, mask, 2, known=known.float())


def test_masks_of_padded_frames_are_cropped_as_the_content() -> None:
    masks = torch.zeros(1, 2, 40, 60, dtype=torch.bool)
    masks[..., 10:30, 0:20] = True
    inner = centre_crop_masks(masks, 10, torch.tensor([[10, 0, 20, 60]]))
    assert torch.equal(inner, centre_crop_masks(masks[:, :, 10:30], 10))
    frames = masks[..., None].expand(-1, -1, -1, -1, 3).to(torch.uint8) * 255
    seen = centre_crop(frames.contiguous(), torch.tensor([[10, 0, 20, 60]]), 10)
    assert torch.equal(inner, seen[:, 0] >= 0.5)


@pytest.mark.parametrize("name", ["cam", "activation"])
def test_a_map_that_is_the_mask_scores_best_on_the_frames_that_have_one(name: str) -> None:
    foreground = np.zeros((8, 32, 32), np.bool_)
    for t in range(8):
        foreground[t, 8:16, 2 * t : 2 * t + 8] = True
    heat = torch.from_numpy(foreground).float()[None]
    heat[:, 3] = 1  # of a frame without a mask: counts nowhere
    there = np.arange(8) != 3
    masks = ClipMasks(foreground & there[:, None, None], np.zeros_like(foreground), there)
    found = score_map(name, heat, masks, torch.tensor([[0, 0, 32, 32]]), 32)
    assert found["energy"] == found["pointing"] == found["iou"] == 1 and found["ring"] == found["far"] == 0
    assert found["energy_ratio"] == pytest.approx(32 * 32 / 64)


def test_a_map_without_time_is_held_against_all_that_was_covered() -> None:
    foreground = np.zeros((2, 32, 32), np.bool_)
    foreground[0, :16], foreground[1, 16:24] = True, True
    masks = ClipMasks(foreground, np.zeros_like(foreground), np.ones(2, np.bool_))
    found = score_map("saliency", torch.ones(1, 4, 4), masks, torch.tensor([[0, 0, 32, 32]]), 32)
    assert found["energy"] == pytest.approx(0.75) and found["energy_ratio"] == pytest.approx(1)


def test_without_a_mask_or_a_map_there_is_no_answer() -> None:
    box = torch.tensor([[0, 0, 32, 32]])
    nothing = score_map("activation", torch.ones(1, 2, 4, 4), ClipMasks.none(2, (32, 32)), box, 32)
    assert all(np.isnan(value) for value in nothing.values())
    full = np.ones((2, 32, 32), np.bool_)
    masks = ClipMasks(full, ~full, np.ones(2, np.bool_))
    assert np.isnan(score_map("cam", torch.zeros(1, 2, 4, 4), masks, box, 32)["energy"])
    assert pixel_map("cam", torch.zeros(1, 2, 4, 4), (2, 8, 8)).max() == 0
    assert averaged(np.array([np.nan, np.nan]), np.array([0, 1])) == dict.fromkeys(("mean", "low", "high")) | {
        "clips": 0
    }


def test_means_and_intervals_go_by_group() -> None:
    values, groups = np.array([0.0, 0.0, 1.0, 1.0, np.nan]), np.array([0, 0, 1, 1, 2])
    found = averaged(values, groups)
    assert found == {"mean": 0.5, "low": 0.0, "high": 1.0, "clips": 4}  # two groups: half of the draws are all of one
    assert averaged(np.array([0.2, 0.4]), np.array([7, 7])) == {
        "mean": pytest.approx(0.3),
        "low": None,
        "high": None,
        "clips": 2,
    }


# --- maps -------------------------------------------------------------------------------------------------------------


def test_maps_are_those_of_their_definitions(run: Run, clip: Clip, small_store: Path) -> None:
    probe = fit_probes(run, open_store(small_store), Silent(), hold_out=True, feature="global")
    maps, label = encoder_maps(run, clip, ("cam", "activation", "saliency"), "stage4", probe, "walk")
    with torch.no_grad():
        stages = run.learner.encoder.backbone(centre_crop(clip.frames, clip.box, 32))
        codes = run.learner.encode(centre_crop(clip.frames, clip.box, 32))
    last = stages["stage4"]
    torch.testing.assert_close(maps["activation"], activation_map(last))
    torch.testing.assert_close(maps["saliency"], codes.saliency)
    # Of the stage that the probe reads, Grad-CAM is the class activation map over the number of its cells.
    assert label is not None and probe.classes[label] == "walk"
    weight, _ = probe.weight(clip.id, codes.global_code.numpy(), "walk")
    expected = torch.einsum("bcthw,c->bthw", last, torch.from_numpy(weight).float()).relu() / last[0, 0].numel()
    torch.testing.assert_close(maps["cam"], expected, rtol=1e-4, atol=1e-7)
    finer, _ = encoder_maps(run, clip, ("cam",), None, probe, None)
    assert finer["cam"].shape == (1, 8, 8, 8)  # the second stage, where none is named
    with pytest.raises(UsageError, match="no stage 'stage9'; it has stage1, stage2, stage3, stage4"):
        encoder_maps(run, clip, ("activation",), "stage9", None, None)


def test_the_map_of_the_dynamic_code_is_its_deviation_cell_by_cell(run: Run, clip: Clip, small_store: Path) -> None:
    probe = fit_probes(run, open_store(small_store), Silent(), hold_out=True)
    assert probe.feature == "dynamic"  # the run's own
    maps, _ = encoder_maps(run, clip, ("cam", "saliency"), "stage4", probe, "walk")
    crop = centre_crop(clip.frames, clip.box, 32)
    with torch.no_grad():
        last = run.learner.encoder.backbone(crop)["stage4"].double()
        weight, _ = probe.weight(clip.id, run.learner.features(crop, "dynamic").numpy(), "walk")
    away = last - last.mean(dim=2, keepdim=True)
    variance = (away**2).mean(dim=2, keepdim=True)
    shares = away**2 / (len(clip.indices) * (variance + 1e-6).sqrt())  # over time they add up to the deviation
    expected = (torch.from_numpy(weight).view(1, -1, 1, 1, 1) * shares).sum(dim=1)
    expected = (expected * maps["saliency"] / maps["saliency"].sum()).relu()
    torch.testing.assert_close(maps["cam"].double(), expected, rtol=1e-3, atol=1e-6)


def test_a_probe_is_fitted_without_the_fold_of_its_video(run: Run, small_store: Path) -> None:
    found = fit_probes(run, open_store(small_store), Silent(), hold_out=True)
    assert np.array_equal(found.fold, np.arange(6) % 10)
    code = found.values[:1]
    others = np.arange(6) != 0
    expected = LinearProbe().fit(found.values[others], found.labels[others])
    weight, label = found.weight(found.ids[0], code, 0)
    np.testing.assert_allclose(weight, expected.weight[:, 0])
    assert label == 0
    predicted = found.weight(found.ids[0], code, None)[1]
    assert predicted == int(expected.predict(code)[0])
    stranger = found.weight("elsewhere.mp4", code, 0)[0]  # of no fold: all may be seen
    every = LinearProbe().fit(found.values, found.labels)
    np.testing.assert_allclose(stranger, every.weight[:, 0])
    with pytest.raises(UsageError, match="no class 'fly'; there are run, walk"):
        found.weight("elsewhere.mp4", code, "fly")
    lonely = replace(found, train=found.labels == 0, _fitted={})
    with pytest.raises(UsageError, match="needs training videos of two classes"):
        lonely.weight("elsewhere.mp4", code, None)


# --- masks from elsewhere ---------------------------------------------------------------------------------------------


def write_masks(folder: Path, store_path: Path, every: int, unknown: int | None = None) -> None:
    """The store's own masks of every so many frames as PNGs; on request a band of rows is 170."""
    store = open_store(store_path)
    for video, name in enumerate(store.videos):
        target = folder / name.removesuffix(".mp4")
        target.mkdir(parents=True)
        for index in range(0, store.num_frames(video), every):
            image = store.masks(video, index, 1)[0].astype(np.uint8) * 255
            if unknown is not None:
                image[unknown : unknown + 6] = 170
            (target / f"{index:06d}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())


def test_masks_of_some_frames_are_used_on_these_frames_only(small_store: Path, tmp_path: Path) -> None:
    write_masks(tmp_path, small_store, every=5, unknown=40)
    store = open_store(small_store)
    truth, own = ExternalTruth(store, tmp_path, values="cdnet"), StoreTruth(store)
    indices = np.arange(3, 17, 2)
    found, full = truth.masks(0, indices), own.masks(0, indices)
    assert indices[found.there].tolist() == [5, 15] and found.middle == 1
    expected = full.foreground[found.there]
    expected[:, 40:46] = False
    assert np.array_equal(found.foreground[found.there], expected)
    assert not found.foreground[~found.there].any()
    assert found.unknown[found.there][:, 40:46].all() and not found.unknown[:, :40].any()
    assert full.there.all() and full.middle == len(indices) // 2


def test_a_clip_moves_to_where_a_mask_is(small_store: Path, tmp_path: Path) -> None:
    write_masks(tmp_path, small_store, every=20)
    truth = ExternalTruth(open_store(small_store), tmp_path)
    indices = np.arange(1, 9, 2)
    moved = truth.moved(0, indices, (0, 24))
    assert moved.tolist() == [0, 2, 4, 6]  # one frame earlier sees frame 0
    assert np.array_equal(truth.moved(0, moved, (0, 24)), moved)
    assert np.array_equal(truth.moved(0, indices, (1, 12)), indices)  # a shot without any


def test_unusable_masks_are_reported(runs: list[Path], small_store: Path, tmp_path: Path) -> None:
    write_masks(tmp_path / "masks", small_store, every=10)
    store = open_store(small_store)
    name = store.video_id(0).removesuffix(".mp4")
    (tmp_path / "masks" / name / "000900.png").write_bytes((tmp_path / "masks" / name / "000000.png").read_bytes())
    truth = ExternalTruth(store, tmp_path / "masks")
    with pytest.raises(MasksError, match=r"has a mask of frame 900, the video has \d+, counted from 0"):
        truth.masks(0, np.arange(8))
    options = HeatmapOptions(videos=0, films=False, maps=("activation",), masks=tmp_path / "masks")
    looked = heatmap(runs[0], [str(small_store)], tmp_path / "out", Silent(), options=options)
    assert looked.failures.keys() == {store.video_id(0)} and looked.clips == 6
    assert looked.numbers["activation"]["seed0"]["energy"]["clips"] == 5
    with pytest.raises(MasksError, match="holds no masks of the 6 videos"):
        (tmp_path / "empty").mkdir()
        ExternalTruth(store, tmp_path / "empty")
    wide = tmp_path / "wide" / name
    wide.mkdir(parents=True)
    (wide / "000000.png").write_bytes(cv2.imencode(".png", np.zeros((10, 100), np.uint8))[1].tobytes())
    with pytest.raises(MasksError, match="is 10x100, the video 48x64"):
        ExternalTruth(store, tmp_path / "wide").masks(0, np.arange(8))


def test_true_masks_of_every_fifth_frame(real_data: Path, runs: list[Path], tmp_path: Path) -> None:
    name = "0_1_4"
    source = real_data / "actions" / "ut_interaction_set1" / f"{name}.avi"
    with zipfile.ZipFile(real_data / "actions" / "ut_truth" / name / "masks.zip") as archive:
        archive.extractall(tmp_path / "truth" / name)
    build_shards(ShardOptions(inputs=[source], out=tmp_path / "shards", in_process=True), Silent())
    options = HeatmapOptions(videos=0, clips=2, films=False, masks=tmp_path / "truth", values="cdnet")
    looked = heatmap(runs[0], [str(tmp_path / "shards")], tmp_path / "out", Silent(), options=options)
    written = json.loads((tmp_path / "out" / "heatmaps.json").read_text("utf-8"))
    for clip in written["clips"]:
        assert clip["masked_frames"] == [index for index in clip["frames"] if index % 5 == 0] != []
    assert looked.numbers.keys() == {"activation", "saliency"}  # nothing is labelled
    assert looked.numbers["saliency"]["seed0"]["energy"]["clips"] == 2
    # A uniform map scores chance, whatever share of the image is known.
    truth = ExternalTruth(open_store(tmp_path / "shards"), tmp_path / "truth", values="cdnet")
    known = truth.masks(0, np.arange(50, 58))
    assert known.there.tolist() == [True, *[False] * 4, True, False, False] and known.unknown.any()
    uniform = score_map("activation", torch.ones(1, 8, 4, 4), known, torch.tensor([[0, 0, 128, 171]]), 112)
    assert uniform["energy_ratio"] == uniform["ring_ratio"] == uniform["far_ratio"] == pytest.approx(1)
    # Unknown pixels are those of the images, and no foreground.
    masks = find_masks(tmp_path / "truth", [f"{name}.avi"], values="cdnet").of[f"{name}.avi"]
    image = cv2.imread(str(tmp_path / "truth" / name / "000050.png"), cv2.IMREAD_UNCHANGED)
    mask, unknown = masks.frame(50), masks.unknown(50)
    assert image is not None and mask is not None and unknown is not None
    assert np.array_equal(unknown, image == 170) and unknown.any() and not (mask & unknown).any()


# --- the command ------------------------------------------------------------------------------------------------------


def test_two_runs_side_by_side(runs: list[Path], small_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    printed = last_json(
        call("heatmap", runs[0], small_store, "--against", runs[1], "--videos", 2, "--clips", 2, "--out", out, "--json")
    )
    assert printed["clips"] == 4 and printed["videos"] == 2 and "the store's own" in str(printed["masks"])
    written = json.loads((out / "heatmaps.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert written["numbers"] == printed["numbers"] and list(written["numbers"]) == ["cam", "activation", "saliency"]
    for name, by_run in written["numbers"].items():
        assert list(by_run) == ["seed0", "seed1"]
        for number, found in by_run["seed0"].items():
            less = written["differences"][name]["seed1"][number]
            assert less["clips"] == found["clips"] == by_run["seed1"][number]["clips"]
            if found["clips"]:
                assert less["mean"] == pytest.approx(by_run["seed1"][number]["mean"] - found["mean"], abs=1e-6)
    for clip in written["clips"]:
        film = read_video(out / clip["film"])
        assert len(film.frames) == len(clip["frames"]) == 8
        assert film.fps == pytest.approx(12.5)
        assert film.frames.shape[2] >= 7 * 224  # a frame and three maps of two runs
    assert len({clip["film"] for clip in written["clips"]}) == 4
    sheet = cv2.imread(str(out / "sheet.png"))
    assert sheet is not None and sheet.shape[1] == 8 * 164 and sheet.shape[0] > 4 * 100
    assert set(written["settings"]["runs"]) == {"seed0", "seed1"} and written["settings"]["intervals_over"] == "videos"


def test_a_run_does_not_differ_from_its_copy(runs: list[Path], small_store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "checkpoints").mkdir(parents=True)
    (copy / "checkpoints" / "step-00000001.pt").write_bytes((runs[0] / "checkpoints/step-00000007.pt").read_bytes())
    looked = heatmap(runs[0], [str(small_store)], tmp_path / "out", Silent(), replace(FEW, against=(copy,)))
    for by_run in looked.differences.values():
        for found in by_run["copy"].values():
            assert found["clips"] == 0 or (found["mean"], found["low"], found["high"]) == (0, 0, 0)


def test_numbers_are_those_of_the_maps(runs: list[Path], small_store: Path, tmp_path: Path) -> None:
    """One clip, by hand from checkpoint and store."""
    options = HeatmapOptions(videos=1, films=False, maps=("activation",), stage="stage2")
    looked = heatmap(runs[0], [str(small_store)], tmp_path / "out", Silent(), options=options)
    written = json.loads((tmp_path / "out" / "heatmaps.json").read_text("utf-8"))["clips"][0]
    store = open_store(small_store)
    learner = ContrastiveLearner("tiny", "dual").eval()
    learner.load_state_dict(torch.load(runs[0] / "checkpoints/step-00000007.pt", weights_only=True)["learner"])
    video, frames = store.find(written["video"]), np.array(written["frames"])
    crop = centre_crop(torch.from_numpy(store.frames_at(video, frames))[None], torch.tensor([[0, 0, 48, 64]]), 32)
    with torch.no_grad():
        heat = activation_map(learner.encoder.backbone(crop)["stage2"])
    heat = torch.nn.functional.interpolate(heat[None], size=(8, 32, 32), mode="trilinear")[0]
    heat = (heat - heat.min()) / (heat.max() - heat.min())
    mask = centre_crop_masks(torch.from_numpy(store.masks(video, frames[0], 8, 2))[None], 32)
    expected = float((heat * mask).sum() / heat.sum())
    assert written["numbers"]["activation"]["seed0"]["energy"] == pytest.approx(expected, rel=1e-4)
    mean = looked.numbers["activation"]["seed0"]["energy"]["mean"]
    assert mean == pytest.approx(expected, rel=1e-4)


def test_films_of_an_earlier_call_do_not_stay(runs: list[Path], small_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = HeatmapOptions(videos=3, maps=("saliency",))
    heatmap(runs[0], [str(small_store)], out, Silent(), options=options)
    (out / "mine.mp4").touch()
    with pytest.raises(UsageError, match="holds heat maps already; --overwrite"):
        heatmap(runs[0], [str(small_store)], out, Silent(), options=options)
    heatmap(runs[0], [str(small_store)], out, Silent(), HeatmapOptions(videos=1, overwrite=True))
    names = sorted(path.name for path in out.iterdir())
    assert len(names) == 4 and {"heatmaps.json", "mine.mp4", "sheet.png"} < set(names)


def test_video_files_without_a_store(runs: list[Path], video_folder: Path, small_store: Path, tmp_path: Path) -> None:
    good, bad = next(video_folder.rglob("clip 1*")), tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all")
    inputs, options = [str(good), str(bad)], HeatmapOptions(probe=str(small_store), target="walk", in_process=True)
    looked = heatmap(runs[0], inputs, tmp_path / "out", Silent(), options=options)
    assert looked.clips == 1 and looked.failures.keys() == {"bad.mp4"}
    written = json.loads((tmp_path / "out" / "heatmaps.json").read_text("utf-8"))["clips"][0]
    assert written["class_of_map"] == {"seed0": "walk"} and written["class"] is None
    with pytest.raises(UsageError, match="class maps need a labelled store, --probe STORE"):
        heatmap(runs[0], inputs, tmp_path / "no", Silent(), options=HeatmapOptions(maps=("cam",), in_process=True))


def test_wrong_usage_is_an_error(runs: list[Path], small_store: Path, video_folder: Path, tmp_path: Path) -> None:
    for words in (["--map", "heat"], ["--target", "fly"], ["--stage", "stage9"], ["--against", str(runs[0])]):
        call("heatmap", runs[0], small_store, "--out", tmp_path / "out", "--no-films", *words, code=2)
    assert not (tmp_path / "out" / "heatmaps.json").exists()
    bare = tmp_path / "bare"
    single = next(video_folder.rglob("clip 0*"))
    build_shards(ShardOptions(inputs=[single], out=bare, in_process=True, size=None), Silent())
    with pytest.raises(UsageError, match="has no labelled videos: class maps need a labelled store"):
        heatmap(runs[0], [str(bare)], tmp_path / "no", Silent(), options=HeatmapOptions(maps=("cam",)))
    with pytest.raises(UsageError, match="has no labelled videos to fit a probe on"):
        heatmap(runs[0], [str(small_store)], tmp_path / "no", Silent(), options=HeatmapOptions(probe=str(bare)))


# --- images -----------------------------------------------------------------------------------------------------------


def test_a_film_shows_frame_outline_and_maps(tmp_path: Path) -> None:
    frames = np.full((3, 20, 20, 3), 90, np.uint8)
    heat = np.zeros((3, 20, 20), np.float32)
    heat[:, :, 10:] = 1
    mask = np.zeros((20, 20), np.bool_)
    mask[5:15, 5:15] = True
    film = heatmap_film(frames, [heat], [mask, None, mask], ["activation"], caption="a", width=100)
    assert film.shape[0] == 3 and film.shape[1] % 2 == film.shape[2] % 2 == 0
    top, left = 22 + 4, 4  # under the header, right of the margin
    first = film[:, top : top + 100, left : left + 100]
    assert (first[0, 24, 30:70] == 255).all() and (first[1] == 90).all()  # the rim; no mask, no rim
    second = film[1, top : top + 100, left + 104 : left + 204].astype(int)
    assert (second[:, 90, 0] > second[:, 90, 2]).all() and (second[:, 10, 2] > second[:, 10, 0]).all()  # red is hot
    written = write_film(tmp_path / "film.mp4", film, 12.5)
    back = read_video(written)
    assert back.frames.shape == film.shape and back.fps == 12.5
    assert np.abs(back.frames.astype(int) - film).mean() < 6
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    with pytest.raises(ValueError, match="2 titles and 3 frames"):
        heatmap_film(frames, [heat], [mask, None, mask], ["a", "b"])


def test_a_sheet_names_its_masks() -> None:
    row = HeatmapRow(np.zeros((8, 8, 3), np.uint8), [np.zeros((2, 2))], np.zeros((8, 8), np.bool_))
    one, other = (heatmap_sheet([row], ["a"], mask_title=title) for title in ("true mask", "store's mask"))
    assert one.shape == other.shape and np.array_equal(one[22:], other[22:]) and not np.array_equal(one, other)
    assert np.array_equal(one, heatmap_sheet([row], ["a"]))
