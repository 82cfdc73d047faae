"""Class maps in a world whose evidence is known: each code of an encoder has its own, and each map has to find it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from bgaug.errors import UsageError
from bgaug.metrics import LinearProbe
from bgaug.metrics.heatmap import hires_cam
from bgaug.model import ContrastiveLearner
from bgaug.model.backbones import Backbone
from bgaug.model.checkpoint import Run
from bgaug.pairs import centre_crop
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.demo.world_score import class_maps
from bgaug.pipelines.evaluate.embed import store_clips
from bgaug.pipelines.heatmap.clips import Clip, ClipMasks
from bgaug.pipelines.heatmap.compute import class_code, encoder_maps, fit_probes
from bgaug.pipelines.heatmap.options import HeatmapOptions
from bgaug.progress import Silent
from bgaug.store import open_store
from bgaug.video import write_video

CONFIG = {"num_frames": 8, "stride": 1, "crop": 32, "backbone": "averages", "method": "bgaug"}
FLICKER, BRIGHT, GREEN = (0, 0), (1, 1), (1, 0)
"""Quarters of the image, (row, column)."""


class Averages(Backbone):
    """Means of the colours: stage2 over 4x4 pixels, stage3 over 8x8; every channel is one colour at its place."""

    def __init__(self) -> None:
        super().__init__()
        self.dims = {"stage1": 3, "stage2": 3, "stage3": 3}
        self.anything = torch.nn.Parameter(torch.zeros(1))

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        fine = avg_pool3d(clips, (1, 4, 4))
        return {"stage1": clips, "stage2": fine, "stage3": avg_pool3d(fine, (1, 2, 2))}


def video(wild: bool, number: int) -> np.ndarray:
    """uint8 (16, 32, 32, 3), of class "wild" or "calm".

    In the upper left red flickers about one brightness, in wild videos more: only deviations over time are evidence.
    In the lower left is a green, in wild videos a brighter one: only means are evidence. In the lower right is a red
    that is brighter than all, in every video.
    """
    rng = np.random.default_rng(number)
    frames = np.zeros((16, 32, 32, 3))
    swing = (80 if wild else 20) + rng.uniform(-5, 5)
    frames[:, 4:12, 4:12, 0] = 115 + swing * (-1) ** np.arange(16)[:, None, None]
    frames[:, 20:28, 4:12, 1] = (150 if wild else 60) + rng.uniform(-10, 10)
    frames[:, 18:30, 18:30, 0] = 165 + 18 * (number // 2)  # of either class as bright as of the other
    return frames.round().astype(np.uint8)


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evidence")
    for number in range(12):
        path = folder / "videos" / ("calm", "wild")[number % 2] / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, video(bool(number % 2), number))
    build_shards(
        ShardOptions(inputs=[folder / "videos"], out=folder / "shards", in_process=True, size=None, frames="raw"),
        Silent(),
    )
    return folder / "shards"


def run_of(method: str) -> Run:
    torch.manual_seed(0)
    learner = ContrastiveLearner(Averages(), method).eval().requires_grad_(False)
    return Run(Path(method), Path(method), Path(method), "", learner, CONFIG)


def clip_of(path: Path, name: str) -> Clip:
    store = open_store(path)
    place = next(number for number, video_id in enumerate(store.videos) if name in video_id)
    indices = np.arange(4, 12)
    frames = torch.from_numpy(store.frames_at(place, indices))[None]
    return Clip(
        place, store.videos[place], indices, frames, torch.tensor([[0, 0, 32, 32]]), ClipMasks.none(8, (32, 32))
    )


def quarter_of_peak(heat: Tensor) -> tuple[int, int]:
    """The quarter (row, column) of the maximum of (1, T', H', W')."""
    summed = heat[0].sum(dim=0)
    row, column = divmod(int(summed.argmax()), summed.shape[1])
    return 2 * row // summed.shape[0], 2 * column // summed.shape[1]


@pytest.mark.parametrize("stage", ["stage2", "stage3"])
@pytest.mark.parametrize(("method", "feature"), [("bgaug", "dynamic"), ("semi", "global"), ("simclr", "global")])
def test_a_class_map_peaks_where_the_evidence_of_the_runs_own_feature_is(
    store_path: Path, method: str, feature: str, stage: str
) -> None:
    run = run_of(method)
    probe = fit_probes(run, open_store(store_path), Silent(), hold_out=True)
    maps, label = encoder_maps(run, clip_of(store_path, "wild"), ("cam",), stage, probe, None)
    assert label is not None and probe.classes[label] == "wild"
    assert quarter_of_peak(maps["cam"]) == {"dynamic": FLICKER, "global": GREEN}[feature]
    # Little is elsewhere (the codec's doing): the bright red that does not move is no evidence for either code.
    half = maps["cam"].shape[2] // 2
    quarter = maps["cam"][:, :, :half] if feature == "dynamic" else maps["cam"][:, :, half:]
    assert float(quarter[..., :half].sum() / maps["cam"].sum()) > 0.65


@pytest.mark.parametrize("feature", [None, "global", "dynamic"])
@pytest.mark.parametrize("method", ["bgaug", "simclr"])
def test_a_probe_reads_the_code_that_its_map_explains(store_path: Path, method: str, feature: str | None) -> None:
    run, store = run_of(method), open_store(store_path)
    probe = fit_probes(run, store, Silent(), hold_out=True, feature=feature)
    assert probe.feature == (feature or run.learner.method.feature)
    frames = np.stack([store.frames_at(0, indices) for indices in store_clips(store, 0, CONFIG, 5)])
    crops = centre_crop(torch.from_numpy(frames), torch.tensor([[0, 0, 32, 32]]).expand(5, -1), 32)
    code = class_code(run.learner, run.learner.encoder.backbone(crops), probe.feature)
    np.testing.assert_allclose(probe.values[0], code.mean(dim=0).numpy(), rtol=1e-5, atol=1e-6)
    others = {"global", "dynamic"} - {probe.feature}
    assert not np.allclose(
        probe.values[0], class_code(run.learner, run.learner.encoder.backbone(crops), *others).mean(0)
    )


def test_the_other_code_can_be_requested(store_path: Path) -> None:
    run, clip = run_of("bgaug"), clip_of(store_path, "wild")
    for feature, quarter in (("global", GREEN), ("dynamic", FLICKER)):
        probe = fit_probes(run, open_store(store_path), Silent(), hold_out=True, feature=feature)
        assert quarter_of_peak(encoder_maps(run, clip, ("cam",), None, probe, "wild")[0]["cam"]) == quarter
    with pytest.raises(UsageError, match="there is no 'static'; there are global, dynamic"):
        HeatmapOptions(feature="static")


def test_a_class_that_varies_less_has_no_evidence_in_a_clip_that_varies_more(store_path: Path) -> None:
    run = run_of("bgaug")
    probe = fit_probes(run, open_store(store_path), Silent(), hold_out=True)
    clip = clip_of(store_path, "wild")
    evidence = {
        name: encoder_maps(run, clip, ("cam",), "stage3", probe, name)[0]["cam"].max() for name in ("calm", "wild")
    }
    assert evidence["calm"] < 1e-3 * evidence["wild"]


@pytest.mark.parametrize(("which", "quarter"), [("dynamic", FLICKER), ("global", GREEN)])
def test_maps_of_the_world_are_of_the_code_that_is_named(which: str, quarter: tuple[int, int]) -> None:
    learner = run_of("bgaug").learner
    frames = np.stack([video(bool(number % 2), number) for number in range(12)])[:, :8]
    clips = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 255
    labels = np.arange(12) % 2
    probe = LinearProbe().fit(learner.features(clips, which).numpy(), labels)
    for heat in class_maps(learner, probe, clips[1:2], which).values():
        assert quarter_of_peak(heat) == quarter


def test_the_map_of_the_last_stage_adds_up_to_the_score() -> None:
    """Over cells and time. The score is one channel's deviation, without evidence against it: nothing is cut."""
    learner = run_of("bgaug").learner
    clips = torch.rand(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    stages = learner.encoder.backbone(clips.requires_grad_())
    code = learner.encoder.decomposition(stages).dynamic
    heat = hires_cam(stages["stage3"], code[:, 1])
    torch.testing.assert_close(heat.sum(dim=(1, 2, 3)), code[:, 1].detach(), rtol=1e-3, atol=1e-5)
