"""Masks by a segmentation model: its loading, windows with carried memory, and `bgaug segment`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
import torch
from mask_models import has_kind, transformers, write_mask_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner
from worlds import Recorder, moving_square

from bgaug.cli.main import app
from bgaug.errors import SegmenterError, UsageError, VideoDecodeError, VideoError
from bgaug.masks import pack_mask, unpack_mask
from bgaug.model.pretrained.mask_model import VideoMaskModel, load_mask_model
from bgaug.model.pretrained.tracking import ShotTracker
from bgaug.pipelines.build.importing import import_masks
from bgaug.pipelines.build.options import ShardOptions, VideoOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.segment.options import SegmentOptions
from bgaug.pipelines.segment.run import segment
from bgaug.pipelines.segment.video import FrameSource, segment_video
from bgaug.progress import Silent
from bgaug.sizing import FITS, Fit, fit_frame
from bgaug.store import Header, Shot, open_store, verify_store
from bgaug.video import open_video, write_video

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "store.schema.json").read_bytes())
KINDS = ("sam2_video", "sam3_tracker_video", "sam3_video")


@pytest.fixture(autouse=True)
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk is most of what a small store costs."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each kind that the library has, with random weights."""
    kinds = filter(has_kind, KINDS)
    return {kind: write_mask_model(tmp_path_factory.mktemp("models") / kind, kind) for kind in kinds}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, VideoMaskModel]:
    return {kind: load_mask_model(folder) for kind, folder in folders.items()}


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """One of `KINDS`; skipped where the library does not have it."""
    name: str = request.param
    if not has_kind(name):
        pytest.skip(f"this version of transformers has no {name}")
    return name


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a model, to damage."""
    return Path(shutil.copytree(folders["sam2_video"], tmp_path / "model"))


# --- loading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_a_folder_of_the_library_is_loaded(folders: dict[str, Path], kind: str) -> None:
    model = load_mask_model(folders[kind])
    written = {value.numpy().tobytes() for value in load_file(folders[kind] / "model.safetensors").values()}
    state = model.network.state_dict()
    # By value: the library writes the names of some kinds otherwise than it has them.
    assert len(state) > 200 and all(value.numpy().tobytes() in written for value in state.values())
    assert (model.info.name, model.info.kind) == (kind, kind) and len(model.info.sha256) == 64
    assert not model.network.training and not any(weight.requires_grad for weight in model.network.parameters())
    assert str(model.device) == "cpu" and model.side in (56, 64)


def test_images_are_prepared_by_the_values_of_the_processor(folder: Path) -> None:
    """As the library does with torchvision: bilinear to the square, 0 to 1, minus the mean, over the deviation."""
    frame = np.full((20, 40, 3), (255, 51, 0), np.uint8)
    given = {"image_mean": [0.5, 0.1, 0], "image_std": [0.25, 0.5, 1.0], "size": {"height": 64, "width": 64}}
    for name, content in (("preprocessor_config.json", given), ("processor_config.json", {"video_processor": given})):
        (folder / name).write_text(json.dumps(content))
        model = load_mask_model(folder)
        square = model.square(torch.from_numpy(frame))
        assert square.dtype == torch.uint8 and square.shape == (3, 64, 64)
        expected = torch.tensor([2.0, 0.2, 0.0]).view(3, 1, 1).expand(3, 64, 64)
        assert torch.allclose(model.normalised(square), expected, atol=1e-6)
        (folder / name).unlink()
    model = load_mask_model(folder)
    red = model.normalised(model.square(torch.from_numpy(frame)))[0]
    assert torch.allclose(red, torch.full((64, 64), (1 - 0.485) / 0.229), atol=1e-6)


def test_weights_in_several_files(folders: dict[str, Path], tmp_path: Path) -> None:
    whole, parts = load_mask_model(folders["sam2_video"]), tmp_path / "parts"
    network: Any = whole.network
    network.save_pretrained(parts, max_shard_size="1MB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    again = load_mask_model(parts)
    other = again.network.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in whole.network.state_dict().items())
    assert again.info.sha256 != whole.info.sha256 and again.info == load_mask_model(parts).info
    index = json.loads((parts / "model.safetensors.index.json").read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = "../other.safetensors"
    (parts / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SegmenterError, match="no map from weights"):
        load_mask_model(parts)


def test_a_weight_that_is_written_once_is_read_twice(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop("prompt_encoder.shared_embedding.positional_embedding", None))
    network: Any = load_mask_model(folder).network
    shared = network.prompt_encoder.shared_embedding.positional_embedding
    assert torch.equal(shared, network.shared_image_embedding.positional_embedding)


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in values.items():
        part = config
        *outer, last = key.split("__")
        for name in outer:
            part = part[name]
        part[last] = value
    (folder / "config.json").write_text(json.dumps(config))


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def only_a_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_a_weight(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop("memory_encoder.projection.weight"))


def other_shape(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update({"no_memory_embedding": torch.zeros(1, 1, 5)}))


def not_a_number(folder: Path) -> None:
    change_weights(folder, lambda weights: weights["no_memory_embedding"].fill_(float("nan")))


def colours(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "preprocessor_config.json").write_text(text)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (cut_short, r"model\.safetensors: is cut short.*Copy or download it again"),
    "a pickle": (only_a_pickle, r"model\.safetensors: is missing: expected the weights of the model as safetensors"),
    "a weight is missing": (without_a_weight, "does not fit its own config.json: 1 missing keys; .*memory_encoder"),
    "another shape": (other_shape, "model"),
    "not finite": (not_a_number, "weights that are not finite"),
    "no configuration": (
        lambda folder: (folder / "config.json").unlink(),
        r"config\.json: is missing: expected the fol",
    ),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: is no JSON"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json: is no JSON object"),
    "another model": (
        lambda folder: change_config(folder, model_type="bert"),
        "declares a model of the type 'bert'; this bgaug uses sam2_video, sam3_tracker_video, sam3_video",
    ),
    "no part": (lambda folder: change_config(folder, model_type="sam3_video"), "has no tracker_config"),
    "no type": (lambda folder: change_config(folder, model_type=[1]), "declares a model of the type"),
    "a huge image": (lambda folder: change_config(folder, image_size=10**6), "declares image_size = 1000000"),
    "a huge table": (
        lambda folder: change_config(folder, memory_attention_rope_feat_sizes=[50_000, 50_000]),
        "declares memory_attention_rope_feat_sizes = 50000",
    ),
    "many layers": (
        lambda folder: change_config(folder, memory_attention_num_layers=100_000),
        "declares 1000.. layers, and at most 2000",
    ),
    "wide layers": (
        lambda folder: change_config(folder, memory_attention_feed_forward_hidden_size=100_000),
        "declares [0-9]+ weights, and its files of weights have only [0-9]+ bytes",
    ),
    "nonsense": (lambda folder: change_config(folder, vision_config=7), "cannot be loaded as Sam2Video"),
    "no number": (lambda folder: change_config(folder, num_maskmem=float("nan")), "declares num_maskmem = nan"),
    "other images": (
        colours('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size": {"height": 32, "width": 32}}'),
        "declares images of .*32.*, its network takes 64x64",
    ),
    "no colours": (colours('{"image_mean": [0, 0], "image_std": [1, 1, 1]}'), "expected image_mean of three numbers"),
    "no deviation": (
        colours('{"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}'),
        "expected image_std of three numbers",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_or_hostile_model_is_refused(folder: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(SegmenterError, match=message):
        load_mask_model(folder)


def test_nothing_in_a_configuration_names_code(folder: Path) -> None:
    named = {"auto_map": {"AutoModel": "evil--evil.Evil"}, "_attn_implementation_internal": "evil/kernel"}
    change_config(folder, **named, vision_config__attn_implementation="evil/kernel", quantization_config={"a": 1})
    network: Any = load_mask_model(folder).network
    assert "evil" not in json.dumps(network.config.to_dict(), default=str)


def test_no_such_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers()
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(SegmenterError, match="no such folder; a model on the hub is named like facebook/"):
        load_mask_model(tmp_path / "nothing" / "here" / "at" / "all")
    with pytest.raises(
        SegmenterError, match="unknown/model: no such folder, and no such model from the hub: it was not"
    ):
        load_mask_model("unknown/model", local_files_only=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(SegmenterError, match="is a file; give the folder"):
        load_mask_model(tmp_path / "file")


def test_only_configurations_and_safetensors_are_downloaded(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(folders["sam2_video"])

    hub: Any = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert load_mask_model("facebook/sam2.1-hiera-tiny").info.name == "facebook/sam2.1-hiera-tiny"
    assert asked["allow_patterns"] == ["*.json", "*.safetensors"] and asked["local_files_only"] is False

    def refuse(name: str, **options: Any) -> str:
        raise OSError("403 Forbidden: ask its owner\nand more")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(SegmenterError, match=r"the hub refuses it \(403 Forbidden: ask its owner\)$"):
        load_mask_model("facebook/sam2.1-hiera-tiny")


def test_without_the_library_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r'pip install "bgaug\[segment\]"'):
        load_mask_model(tmp_path)


# --- windows ----------------------------------------------------------------------------------------------------------

BOX = np.array([[0.2, 0.2], [0.5, 0.6], [0.35, 0.4]], np.float32)
OTHER = np.array([[0.5, 0.1], [0.9, 0.9], [0.7, 0.5]], np.float32)
LABELS = np.array([2, 3, 1], np.int32)


def noise_frames(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 32, 48, 3), dtype=np.uint8))


def followed(
    model: VideoMaskModel,
    frames: Sequence[np.ndarray],
    window: int,
    at: int,
    *prompts: np.ndarray,
    restart: bool = False,
) -> Tensor:
    """Scores of all frames, of objects that are prompted in the first window."""
    tracker = ShotTracker(model, max(1, len(prompts)))
    found: list[Tensor] = []
    for start in range(0, len(frames), window):
        if restart:
            tracker = ShotTracker(model, len(prompts))
        for frame in frames[start : start + window]:
            tracker.add(frame)
        tracker.follow()
        if tracker.num_objects == 0:
            tracker.prompt(at, prompts, [LABELS] * len(prompts))
        scores = tracker.scores()
        assert scores is not None
        found.append(scores.clone())
        tracker.close_window()
    return torch.cat(found)


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_windows_hand_over_their_memory(models: dict[str, VideoMaskModel], kind: str) -> None:
    """Windows of 7 frames give the very scores of one window over all; without the memory they would not."""
    frames = noise_frames(40)
    whole = followed(models[kind], frames, 40, 3, BOX, OTHER)
    assert whole.shape == (40, 16, 16) and torch.isfinite(whole).all()
    assert torch.equal(followed(models[kind], frames, 7, 3, BOX, OTHER), whole)
    forgetful = followed(models[kind], frames, 7, 3, BOX, OTHER, restart=True)
    assert torch.equal(forgetful[:7], whole[:7]) and not torch.allclose(forgetful[7:], whole[7:], atol=1e-3)


def test_pruning_leaves_out_only_what_is_never_read(models: dict[str, VideoMaskModel]) -> None:
    """The library's own session, which keeps everything, gives the same scores."""
    model, frames = models["sam2_video"], noise_frames(40)
    session: Any = model.new_session()
    coordinates = torch.from_numpy(BOX)[None, None] * model.side - 0.5
    prompt = {"point_coords": coordinates, "point_labels": torch.from_numpy(LABELS)[None, None]}
    session.add_point_inputs(session.obj_id_to_idx(0), 0, prompt)
    session.obj_with_new_inputs = [0]
    expected = [
        model.network(session, frame=model.normalised(model.square(torch.from_numpy(frame))), frame_idx=index)
        for index, frame in enumerate(frames)
    ]
    assert len(session.processed_frames) == 40
    scores = torch.stack([found.pred_masks[0, 0] for found in expected])
    assert torch.equal(followed(model, frames, 9, 0, BOX), scores)


def test_both_directions_begin_at_the_prompt(models: dict[str, VideoMaskModel]) -> None:
    """After the prompt, scores are those of a shot that begins there; before it, those of the reversed shot."""
    model, frames = models["sam2_video"], noise_frames(24)
    whole = followed(model, frames, 24, 10, BOX)
    assert torch.equal(whole[10:], followed(model, frames[10:], 24, 0, BOX))
    assert torch.allclose(whole[:11].flip(0), followed(model, frames[10::-1], 24, 0, BOX), atol=1e-4)


def test_objects_are_united_and_do_not_influence_each_other(models: dict[str, VideoMaskModel]) -> None:
    model, frames = models["sam2_video"], noise_frames(12)
    single = [followed(model, frames, 5, 2, prompt) for prompt in (BOX, OTHER)]
    assert torch.equal(followed(model, frames, 5, 2, BOX, OTHER), torch.maximum(*single))
    assert not torch.equal(*single)


def test_memory_is_bounded_however_long_the_video_is(models: dict[str, VideoMaskModel]) -> None:
    model = models["sam2_video"]
    tracker = ShotTracker(model, 2)
    held: list[int] = []
    for number in range(12):
        for frame in noise_frames(8, number):
            tracker.add(frame)
        tracker.follow()
        if number == 0:
            tracker.prompt(3, [BOX, OTHER], [LABELS, LABELS])
        held.append(tracker.held_frames)
        tracker.close_window()
        assert tracker.scores() is None
    # The window, and for each object its prompt, the last frame and those that the network looks back at.
    assert max(held) == 8 + 2 * (2 + model.memory_frames) and len(set(held[4:])) == 1


def test_a_prompt_has_free_objects_and_a_frame(models: dict[str, VideoMaskModel]) -> None:
    tracker = ShotTracker(models["sam2_video"], 1)
    assert tracker.free == 1 and not tracker.mask(0, (4, 6)).any()
    tracker.add(noise_frames(1)[0])
    for frame, prompts in ((1, [BOX]), (-1, [BOX]), (0, []), (0, [BOX, OTHER])):
        with pytest.raises(ValueError, match="expected 1 to 1 objects of a frame below 1"):
            tracker.prompt(frame, prompts, [LABELS] * len(prompts))


# --- a model whose answer is known ------------------------------------------------------------------------------------


class Bright(nn.Module):
    """Stands for a network: an object is what is bright in the red channel, and lies in its prompt's box or near it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = type("Config", (), {"image_size": 64, "num_maskmem": 2, "max_object_pointers_in_encoder": 2})
        self.sessions: list[BrightSession] = []

    def forward(self, session: BrightSession, frame_idx: int, frame: Tensor, reverse: bool) -> Any:
        session.frames.append(frame_idx)
        red = frame[0] * 0.229 + 0.485
        scores = torch.where(red > 200 / 255, 5.0, -5.0)
        return type("Output", (), {"pred_masks": scores[None, None]})


class BrightSession:
    """What `bgaug.model.pretrained.tracking` uses of a session."""

    def __init__(self) -> None:
        self.processed_frames: dict[int, Tensor] = {}
        self.output_dict_per_obj: dict[int, Any] = {0: {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}}
        self.frames_tracked_per_obj: dict[int, Any] = {0: {}}
        self.cache = object()
        self.frames: list[int] = []
        self.prompts: list[tuple[int, Tensor, Tensor]] = []

    def obj_id_to_idx(self, number: int) -> int:
        return number

    def add_point_inputs(self, index: int, frame: int, prompt: dict[str, Tensor]) -> None:
        self.prompts.append((frame, prompt["point_coords"], prompt["point_labels"]))


class BrightModel(VideoMaskModel):
    """A model that finds bright objects, and keeps its sessions."""

    def __init__(self, like: VideoMaskModel) -> None:
        super().__init__(Bright(), replace(like.info, name="bright"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.sessions: list[BrightSession] = []

    def new_session(self) -> Any:
        self.sessions.append(BrightSession())
        return self.sessions[-1]


@pytest.fixture
def bright(models: dict[str, VideoMaskModel], monkeypatch: pytest.MonkeyPatch) -> BrightModel:
    """The model that `segment` loads, whatever its name."""
    model = BrightModel(models["sam2_video"])
    monkeypatch.setattr("bgaug.pipelines.segment.run.load_mask_model", lambda *words, **options: model)
    return model


LENGTHS = {"a.mp4": 20, "b/c.mp4": 26, "d.mp4": 23}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    (folder / "b").mkdir()
    for number, (name, length) in enumerate(LENGTHS.items()):
        write_video(folder / name, moving_square(number, length, 48, 64, side=16)[0])
    return folder


def build(videos: Path, out: Path, size: tuple[int, int] = (24, 32), fit: Fit = "stretch") -> Path:
    options = ShardOptions(
        inputs=[videos], out=out, in_process=True, video=VideoOptions(method="median", shots=False), size=size, fit=fit
    )
    build_shards(options, Silent())
    return out


@pytest.fixture(scope="module")
def built(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(videos, tmp_path_factory.mktemp("built") / "s")


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "s"))


def options_for(store: Path, videos: Path, model: str | Path = "model", **more: Any) -> SegmentOptions:
    return SegmentOptions(store=store, inputs=[videos], model=str(model), device="cpu", **more)


def masks_of(root: Path) -> dict[str, np.ndarray]:
    store = open_store(root)
    return {name: store.masks(video, 0, store.num_frames(video)) for video, name in enumerate(store.videos)}


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


@pytest.mark.parametrize("fit", FITS)
def test_masks_are_fitted_as_frames_are(videos: Path, bright: BrightModel, tmp_path: Path, fit: Fit) -> None:
    size = (32, 32)
    root = build(videos, tmp_path / "s", size, fit)
    found = segment(options_for(root, videos, window=7), Silent())
    assert (found.videos, found.frames, found.empty, found.kept, found.failures) == (3, 69, 0, 0, {})
    assert found.without == found.missing == () and found.objects == 3
    for number, (name, length) in enumerate(LENGTHS.items()):
        true = moving_square(number, length, 48, 64, side=16)[1]
        expected = np.stack([fit_frame(mask.astype(np.uint8) * 255, size, fit) > 127 for mask in true])
        assert overlap(masks_of(root)[name], expected) > 0.85, name  # H.264 and the square of 64 pixels blur the rim
    assert verify_store(root, deep=True).problems == ()


def test_the_prompt_lies_on_the_object_in_the_image_of_the_network(
    store: Path, videos: Path, bright: BrightModel
) -> None:
    segment(options_for(store, videos, window=100), Silent())
    for session, (number, length) in zip(bright.sessions, enumerate(LENGTHS.values()), strict=True):
        ((frame, coordinates, labels),) = session.prompts
        true = moving_square(number, length, 48, 64, side=16)[1][frame]
        rows, columns = np.flatnonzero(true.any(1)) / 48 * 64, np.flatnonzero(true.any(0))
        assert labels[0, 0].tolist()[:3] == [2, 3, 1]
        corners, point = coordinates[0, 0, :2], coordinates[0, 0, 2] + 0.5
        expected = torch.tensor([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]) - 0.5
        assert (corners - expected).abs().max() <= 6  # of 64; the mask of the motion has a soft rim
        assert columns[0] < point[0] < columns[-1] and rows[0] < point[1] < rows[-1]


def test_the_model_begins_again_at_each_shot(
    store: Path, videos: Path, bright: BrightModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(row: Any, *more: Any) -> Any:
        shots = [Shot(start=a, stop=b, background=-1) for a, b in ((0, 9), (9, row.num_frames))]
        return segment_video(row.model_copy(update={"shots": shots}), *more)

    monkeypatch.setattr("bgaug.pipelines.segment.run.segment_video", cut)
    segment(options_for(store, videos, window=4), Silent())
    assert len(bright.sessions) == 6
    for session, length in zip(bright.sessions, [n for all_ in LENGTHS.values() for n in (9, all_ - 9)], strict=True):
        assert sorted(session.frames) == list(range(length))


def test_an_object_that_appears_later_gets_its_own_prompt(tmp_path: Path, models: dict[str, VideoMaskModel]) -> None:
    """Frames before the first object keep their masks; each window prompts what no object covers."""
    size, model = (48, 64), BrightModel(models["sam2_video"])
    header = Header(size, "stretch", "jpeg", (), {})
    known = np.zeros((24, *size), np.bool_)
    known[10:, 8:24, 8:24] = True
    known[17:, 26:42, 40:56] = True
    images = np.where(known[..., None], (250, 240, 30), (90, 80, 100)).astype(np.uint8)

    class Frame:
        display_size = size

        def __init__(self, image: np.ndarray) -> None:
            self.image = image

        def rgb(self) -> np.ndarray:
            return self.image

    row: Any = type("Row", (), {"first": 0, "shots": [Shot(start=0, stop=24, background=-1)]})
    options = options_for(tmp_path, tmp_path, window=8)
    frames: Any = iter(map(Frame, images))
    video = segment_video(row, pack_mask(known), frames, model, header, options)
    assert dict(video.counts) == {"kept": 8, "frames": 16, "empty": 0, "objects": 1, "without": 0}
    assert overlap(unpack_mask(video.packed, *size), known) > 0.95
    assert sorted(model.sessions[0].frames) == list(range(8, 24))


# --- the command ------------------------------------------------------------------------------------------------------


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def rows_of(root: Path) -> list[dict[str, Any]]:
    commits = [json.loads(path.read_bytes()) for path in sorted(root.glob("shards/*/COMMIT.json"))]
    return [row for commit in commits for row in commit["videos"]]


def test_the_whole_command(store: Path, videos: Path, folders: dict[str, Path]) -> None:
    before = masks_of(store)
    words = ("segment", store, videos, "--model", folders["sam2_video"], "--window", 9, "--device", "cpu", "--json")
    first = invoke(*words)
    assert first.exit_code == 0, first.output
    result = json.loads(first.stdout.splitlines()[-1])
    info = load_mask_model(folders["sam2_video"]).info
    settings = {"window": 9, "objects": 4, "points": 3, "negative_points": 0}
    made_by = {"name": "sam2_video", "kind": "sam2_video", "sha256": info.sha256, **settings}
    assert (result["videos"], result["frames"], result["failed"], result["model"]) == (3, 69, 0, made_by)
    assert any(not np.array_equal(masks_of(store)[name], before[name]) for name in before)
    assert verify_store(store, deep=True).problems == ()
    rows = rows_of(store)
    assert all(row["mask_model"] == made_by and row["imported_masks"] is True for row in rows)
    schema = jsonschema.Draft202012Validator({**SCHEMA, "$ref": "#/$defs/row"})
    for row in rows:
        schema.validate(row)
    inodes = [path.stat().st_ino for path in store.glob("shards/*/COMMIT.json")]
    again = json.loads(invoke(*words).stdout.splitlines()[-1])
    assert (again["videos"], again["done_before"], again["frames"]) == (0, 3, 0)
    assert [path.stat().st_ino for path in store.glob("shards/*/COMMIT.json")] == inodes
    table = invoke(*words[:-1])
    assert table.exit_code == 0 and "masks by sam2_video in" in table.stdout and "done before" in table.stdout


def test_masks_from_elsewhere_have_no_model(store: Path, videos: Path, bright: BrightModel, tmp_path: Path) -> None:
    segment(options_for(store, videos), Silent())
    (tmp_path / "m" / "a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "m" / "a" / "000003.png"), np.full((24, 32), 255, np.uint8))
    import_masks(store, tmp_path / "m", Silent())
    named = {row["id"]: row.get("mask_model", {}).get("name") for row in rows_of(store)}
    assert named == {"a.mp4": None, "b/c.mp4": "bright", "d.mp4": "bright"}


def test_other_settings_make_the_masks_again(store: Path, videos: Path, bright: BrightModel) -> None:
    for points in (3, 1):
        assert segment(options_for(store, videos, points=points), Silent()).videos == 3
        assert {row["mask_model"]["points"] for row in rows_of(store)} == {points}
    assert segment(options_for(store, videos, points=1), Silent()).done == 3


def test_a_store_without_model_masks_has_no_new_key(store: Path) -> None:
    assert all("mask_model" not in row for row in rows_of(store))


def test_one_bad_video_stops_no_other(store: Path, videos: Path, bright: BrightModel, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(videos, tmp_path / "videos"))
    write_video(changed / "a.mp4", moving_square(7, 20, 48, 64)[0])
    (changed / "d.mp4").unlink()
    before, seen = masks_of(store), Recorder()
    found = segment(options_for(store, changed), seen)
    assert (found.videos, found.missing) == (1, ("d.mp4",)) and list(found.failures) == ["a.mp4"]
    assert "has changed since the store was built" in found.failures["a.mp4"]
    assert any("not among the files: 1 (d.mp4)" in text for text in seen.warnings)
    assert any(text.startswith("a.mp4 keeps its masks: ") for text in seen.warnings)
    after = masks_of(store)
    assert all(np.array_equal(after[name], before[name]) for name in ("a.mp4", "d.mp4"))
    assert [row["imported_masks"] for row in rows_of(store)] == [row["id"] == "b/c.mp4" for row in rows_of(store)]
    # The command reports it by its exit code, and the rest is done later.
    command = invoke("segment", store, changed, "--model", "model", "--device", "cpu")
    assert command.exit_code == 1
    later = segment(options_for(store, videos), Silent())
    assert (later.videos, later.done, later.failures) == (2, 1, {})


def test_a_model_that_fails_on_one_video(
    store: Path, videos: Path, bright: BrightModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, message in (
        (RuntimeError("CUDA out of memory"), "out of memory; a smaller"),
        (ValueError("x"), "ValueE"),
    ):
        plain, fails = Bright.forward, [True]

        def forward(
            self: Bright, *more: Any, plain: Any = plain, fails: Any = fails, error: Any = error, **n: Any
        ) -> Any:
            if fails:
                fails.pop()
                raise error
            return plain(self, *more, **n)

        monkeypatch.setattr(Bright, "forward", forward)
        found = segment(options_for(store, videos, points=len(message)), Silent())
        monkeypatch.undo()
        monkeypatch.setattr("bgaug.pipelines.segment.run.load_mask_model", lambda *words, **options: bright)
        assert found.videos == 2 and list(found.failures) == ["a.mp4"] and message in found.failures["a.mp4"]


def test_a_video_without_objects_keeps_its_masks(tmp_path: Path, bright: BrightModel) -> None:
    folder = tmp_path / "still"
    folder.mkdir()
    write_video(folder / "still.mp4", np.repeat(moving_square(3, 1)[2][None], 20, 0))
    write_video(folder / "walk.mp4", moving_square(4, 20, side=16)[0])
    root = build(folder, tmp_path / "s")
    before = masks_of(root)["still.mp4"]
    found = segment(options_for(root, folder), Silent())
    assert (found.videos, found.without, found.failures) == (1, ("still.mp4",), {})
    assert np.array_equal(masks_of(root)["still.mp4"], before)
    assert found.to_json()["without_objects"] == 1


def test_what_cannot_be_segmented(store: Path, videos: Path, tmp_path: Path, folders: dict[str, Path]) -> None:
    (tmp_path / "other").mkdir()
    write_video(tmp_path / "other" / "z.mp4", moving_square(1, 8)[0])
    with pytest.raises(UsageError, match=r"none of the 3 videos of .* is in .*other: name the folders .* a\.mp4"):
        segment(options_for(store, tmp_path / "other"), Silent())
    with pytest.raises(UsageError, match="no such file or folder"):
        segment(options_for(store, tmp_path / "nothing"), Silent())
    with pytest.raises(SegmenterError, match="is missing: expected the folder of a model"):
        segment(options_for(store, videos, tmp_path), Silent())
    with pytest.raises(UsageError, match="--window"):
        options_for(store, videos, window=0)
    wrong = invoke("segment", store, videos, "--model", tmp_path / "nothing" / "x" / "y", "--device", "cpu")
    assert wrong.exit_code == 1 and "no such folder" in wrong.stderr
    assert all(row["imported_masks"] is False for row in rows_of(store))


class Stop(BaseException):
    """Ends a run as Ctrl-C does."""


def test_an_interrupted_run_goes_on_where_it_was(
    store: Path, videos: Path, bright: BrightModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(store, tmp_path / "other"))
    whole = segment(options_for(other, videos), Silent())

    class Stops(Silent):
        def advance(self, count: int = 1, note: str = "") -> None:
            if note == "d.mp4":
                raise Stop

    with pytest.raises(Stop):
        segment(options_for(store, videos, commit_seconds=0), Stops())
    assert sorted(row["id"] for row in rows_of(store) if "mask_model" in row) == ["a.mp4", "b/c.mp4"]
    rest = segment(options_for(store, videos, commit_seconds=0), Silent())
    assert (rest.videos, rest.done, whole.videos) == (1, 2, 3)
    assert verify_store(store, deep=True).content_hash == verify_store(other, deep=True).content_hash


def test_masks_are_written_when_the_time_is_up(store: Path, videos: Path, bright: BrightModel) -> None:
    """Each look at the clock is a second later; every second video, the shard is written."""
    ticks: Iterator[int] = iter(range(1000))
    found = segment(options_for(store, videos, commit_seconds=1.5), Silent(), clock=lambda: float(next(ticks)))
    assert found.videos == 3 and all("mask_model" in row for row in rows_of(store))


def test_a_long_video_in_several_shards(
    tmp_path: Path, models: dict[str, VideoMaskModel], bright: BrightModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    frames, true, _ = moving_square(2, 120, 48, 64, side=16)
    write_video(folder / "long.mp4", frames)
    monkeypatch.setattr("bgaug.store.format.plan._LONG_SHARD_BYTES", 20_000)
    monkeypatch.setattr("bgaug.store.format.plan._MAX_SHARD_BYTES", 40_000)
    root = build(folder, tmp_path / "s", (48, 64))
    assert len(rows_of(root)) > 1
    found = segment(options_for(root, folder, window=30), Silent())
    assert (found.videos, found.frames, found.kept, found.failures) == (1, 120, 0, {})
    assert overlap(masks_of(root)["long.mp4"], true) > 0.8
    assert all("mask_model" in row for row in rows_of(root)) and verify_store(root, deep=True).problems == ()


# --- frames -----------------------------------------------------------------------------------------------------------


def test_parts_of_a_file_are_read_on(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def opening(path: Path, decoder: Any) -> Any:
        opened.append(path)
        return open_video(path, decoder)

    monkeypatch.setattr("bgaug.pipelines.segment.video.open_video", opening)
    source, path = FrameSource("auto"), videos / "d.mp4"
    assert [frame.index for frame in source.read(path, 0, 5)] == [0, 1, 2, 3, 4]
    assert [frame.index for frame in source.read(path, 5, 3)] == [5, 6, 7] and len(opened) == 1
    assert [frame.index for frame in source.read(path, 12, 2)] == [12, 13] and len(opened) == 1
    assert [frame.index for frame in source.read(path, 2, 2)] == [2, 3] and len(opened) == 2
    assert [frame.index for frame in source.read(videos / "a.mp4", 19, 1)] == [19] and len(opened) == 3
    with pytest.raises(VideoDecodeError, match="has 23 frames, its store has 30 or more"):
        list(source.read(path, 20, 10))
    source.close()
    with pytest.raises(VideoError, match="missing|no such file"):
        list(source.read(videos / "none.mp4", 0, 1))
