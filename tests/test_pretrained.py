"""Exported encoders: a file holds what was trained, for every reader."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from test_backbone_published import residual_table
from torch import Tensor

import bgaug
from bgaug.errors import CheckpointError, UsageError
from bgaug.model import METHODS, ContrastiveLearner, Method
from bgaug.model.backbones import build_backbone
from bgaug.model.checkpoint import _file_sha256, load_run
from bgaug.model.pretrained import PUBLISHED, EncoderInfo, backbone_options, read_weights
from bgaug.model.pretrained.load import VideoEncoder, export_encoder, load_encoder


def write_run(folder: Path, learner: ContrastiveLearner, *, backbone: str = "tiny", **more: Any) -> Path:
    """A run's folder with one checkpoint, as `bgaug train` leaves it."""
    config: dict[str, Any] = {"backbone": backbone, "crop": 32, "num_frames": 8, "stride": 3, "weights": None}
    config |= {"method": learner.method.name, "resolved_method": asdict(learner.method)}
    state = {"format": "bgaug-checkpoint", "version": 1, "learner": learner.state_dict(), **more}
    state["config"] = config | more.get("config", {})
    path = folder / "checkpoints" / "step-00000007.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def learner() -> ContrastiveLearner:
    torch.manual_seed(3)
    return ContrastiveLearner("tiny", "dual").eval()


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return torch.rand(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_encoder_of_a_run_gives_its_learners_features(
    learner: ContrastiveLearner, clips: Tensor, tmp_path: Path
) -> None:
    checkpoint = write_run(tmp_path, learner)
    expected = learner.features(clips)
    for path in (tmp_path, checkpoint):
        encoder = load_encoder(path)
        assert not encoder.training
        assert torch.equal(encoder(clips), expected)
    assert encoder.info.checkpoint_sha256 == _file_sha256(checkpoint)
    assert (encoder.info.size, encoder.info.num_frames, encoder.info.stride, encoder.info.dim) == (32, 8, 3, 96)
    assert (encoder.info.normalisation, encoder.info.temporal_padding) == ("none", "replicate")
    assert list(encoder.stages(clips)) == ["stage1", "stage2", "stage3", "stage4"]


def test_all_codes_of_an_encoder_are_those_of_the_learner(clips: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(4)
    learner = ContrastiveLearner("tiny", "bgaug").eval()
    write_run(tmp_path, learner)
    codes, expected = load_encoder(tmp_path).codes(clips), learner.encode(clips)
    for name in ("global_code", "dynamic", "static", "saliency"):
        assert torch.equal(getattr(codes, name), getattr(expected, name)), name
    assert torch.equal(codes.dynamic, learner.features(clips, learner.method.feature))


def test_runs_with_the_earlier_fields_of_a_method_are_read(tmp_path: Path) -> None:
    path = write_run(tmp_path, ContrastiveLearner("tiny", "dual").eval())
    state = torch.load(path, weights_only=True)
    fields = state["config"]["resolved_method"]
    fields |= {"stretch": "minmax", "per_channel": False, "normalise": False, "compensate": False}
    fields["w_motion"] = fields.pop("w_dynamic")
    torch.save(state, path)
    assert load_run(tmp_path, device="cpu").learner.method == METHODS["dual"]
    fields["stretch"] = "softmax"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="stretch = 'softmax' is supported by bgaug 0.1.0 only"):
        load_run(tmp_path, device="cpu")


def test_runs_and_files_with_the_earlier_names_of_codes_are_read(clips: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(4)
    learner = ContrastiveLearner("tiny", Method.resolve("dual", momentum=True, queue=8)).eval()
    old = {"global": "g", "dynamic": "d", "static": "r"}

    def earlier(name: str) -> str:
        return re.sub(r"(heads\.|predictors\.|queue_)(global|dynamic|static)", lambda m: m[1] + old[m[2]], name)

    path = write_run(tmp_path, learner)
    state = torch.load(path, weights_only=True)
    state["learner"] = {earlier(name): value for name, value in state["learner"].items()}
    assert {"encoder.heads.r.0.weight", "queue_g"} <= state["learner"].keys()
    torch.save(state, path)
    loaded = load_run(tmp_path, device="cpu").learner.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in learner.state_dict().items())
    info = load_encoder(tmp_path).info
    assert info.feature == "dynamic" and EncoderInfo.parse(info.metadata() | {"feature": "d"}) == info


def test_a_file_gives_the_same_encoder(learner: ContrastiveLearner, clips: Tensor, tmp_path: Path) -> None:
    write_run(tmp_path, learner)
    first = load_encoder(tmp_path)
    path = export_encoder(first, tmp_path / "out" / "encoder.safetensors")
    again = load_encoder(path)
    assert again.info == first.info
    assert torch.equal(again(clips), first(clips))
    assert [file.name for file in path.parent.iterdir()] == ["encoder.safetensors"]  # nothing half written stays
    with pytest.raises(UsageError, match="already exists"):
        export_encoder(first, path)
    export_encoder(first, path, overwrite=True)
    with pytest.raises(UsageError, match=r"name the file encoder\.safetensors"):
        export_encoder(first, tmp_path / "encoder.pt")


def test_the_average_is_taken_where_the_run_kept_one(
    learner: ContrastiveLearner, clips: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    other = ContrastiveLearner("tiny", "dual").eval()
    average = {f"module.{name}": value for name, value in other.encoder.state_dict().items()}
    write_run(tmp_path, learner, averaged={"n_averaged": torch.tensor(3), **average})
    assert torch.equal(load_encoder(tmp_path)(clips), other.features(clips))
    assert torch.equal(load_encoder(tmp_path, averaged=False)(clips), learner.features(clips))


def test_the_best_checkpoint_on_request(learner: ContrastiveLearner, tmp_path: Path) -> None:
    last = write_run(tmp_path, learner)
    with pytest.raises(CheckpointError, match="no best checkpoint; train with --best-by"):
        load_encoder(tmp_path, best=True)
    best = last.with_name("best.pt")
    best.write_bytes(write_run(tmp_path / "other", learner, config={"stride": 5}).read_bytes())
    assert load_encoder(tmp_path, best=True).info.stride == 5
    assert load_encoder(tmp_path).info.stride == 3


def test_a_file_is_plain_safetensors_with_a_full_description(learner: ContrastiveLearner, tmp_path: Path) -> None:
    """Read by hand: a length, a JSON header, bytes."""
    write_run(tmp_path, learner)
    path = export_encoder(load_encoder(tmp_path), tmp_path / "encoder.safetensors")
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert (
        metadata["backbone"] == "tiny"
        and metadata["size"] == "32"
        and metadata["stride"] == "3"
        and metadata["num_frames"] == "8"
    )
    assert (
        metadata["normalisation"] == "none" and metadata["temporal_padding"] == "replicate" and metadata["dim"] == "96"
    )
    weight = learner.encoder.backbone.state_dict()["stage1.spatial.weight"]
    place = header["stage1.spatial.weight"]
    begin, end = (8 + length + offset for offset in place["data_offsets"])
    assert place["dtype"] == "F32" and place["shape"] == list(weight.shape)
    assert data[begin:end] == weight.numpy().tobytes()


@pytest.mark.parametrize(("name", "split"), [("r3d18", False), ("r2plus1d18", True)])
def test_names_and_shapes_are_torchvisions(name: str, split: bool, tmp_path: Path) -> None:
    backbone = build_backbone(name)
    info = EncoderInfo(name, {}, 112, 16, 2, "none", "replicate", 512, "bgaug", "")
    path = export_encoder(VideoEncoder(backbone, info), tmp_path / "encoder.safetensors")
    expected = {key: shape for key, shape in residual_table(split).items() if not key.startswith("fc.")}
    assert {key: tuple(value.shape) for key, value in read_weights(path).items()} == expected


def test_published_weights_keep_their_form(tmp_path: Path) -> None:
    """A run that began with published weights normalises its input and pads with zeros; so does what is loaded."""
    torch.manual_seed(0)
    trunk = build_backbone("slow_r18", temporal_padding="zeros", normalise=True)
    learner = ContrastiveLearner(trunk, "simclr").eval()
    config = {"weights": "somewhere.pth", "backbone_options": PUBLISHED}
    write_run(tmp_path, learner, backbone="slow_r18", config=config)
    clips = torch.rand(1, 3, 8, 32, 32)
    encoder = load_encoder(export_encoder(load_encoder(tmp_path), tmp_path / "encoder.safetensors"))
    assert torch.equal(encoder(clips), learner.features(clips))
    assert (encoder.info.normalisation, encoder.info.temporal_padding) == ("kinetics", "zeros")


def test_weights_are_read_from_both_forms(learner: ContrastiveLearner, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = learner.encoder.backbone.state_dict()
    save_file(state, tmp_path / "plain.safetensors")
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "nested.pth")
    for name in ("plain.safetensors", "plain.pt", "nested.pth"):
        read = read_weights(tmp_path / name)
        assert read.keys() == state.keys() and all(torch.equal(read[key], state[key]) for key in state)
        assert backbone_options(tmp_path / name) == PUBLISHED
    write_run(tmp_path, learner)
    own = export_encoder(load_encoder(tmp_path), tmp_path / "own.safetensors")
    assert backbone_options(own) == {}


def test_what_cannot_be_read_is_reported(learner: ContrastiveLearner, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    checkpoint = write_run(tmp_path, learner)
    with pytest.raises(UsageError, match="no such file of weights"):
        read_weights(tmp_path / "nowhere.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x10")
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    for name in ("broken.safetensors", "broken.pt"):
        with pytest.raises(UsageError, match="cannot be read as weights"):
            read_weights(tmp_path / name)
    with pytest.raises(UsageError, match="bgaug export-weights"):
        read_weights(checkpoint)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UsageError, match="must hold a state dict, .* got list"):
        read_weights(tmp_path / "list.pt")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="has no description of its encoder"):
        load_encoder(tmp_path / "foreign.safetensors")
    metadata = load_encoder(tmp_path).info.metadata()
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match="does not fit its own description"):
        load_encoder(tmp_path / "other.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "newer.safetensors", metadata=metadata | {"bgaug_encoder": "2"})
    with pytest.raises(CheckpointError, match="update bgaug"):
        load_encoder(tmp_path / "newer.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "half.safetensors", metadata=metadata | {"size": "wide"})
    with pytest.raises(CheckpointError, match="description is invalid"):
        load_encoder(tmp_path / "half.safetensors")
    with pytest.raises(UsageError, match="description is invalid"):
        backbone_options(tmp_path / "half.safetensors")
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        backbone_options(tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match="no such run or file"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        (tmp_path / "empty").mkdir()
        load_encoder(tmp_path / "empty")


@pytest.mark.parametrize(
    "clips", [torch.zeros(1, 8, 32, 32, 3, dtype=torch.uint8), torch.zeros(3, 8, 32, 32), torch.zeros(1, 8, 3, 32, 32)]
)
def test_clips_of_another_layout_are_refused(clips: Tensor, learner: ContrastiveLearner, tmp_path: Path) -> None:
    write_run(tmp_path, learner)
    with pytest.raises(ValueError, match=r"clips must be float in \[0, 1\], \(B, 3, T, h, w\)"):
        load_encoder(tmp_path)(clips)


def test_loading_needs_no_trainer(learner: ContrastiveLearner, tmp_path: Path) -> None:
    write_run(tmp_path, learner)
    code = (
        f"import sys, bgaug; bgaug.load_encoder({str(tmp_path)!r}); "
        "print(*(name for name in sys.modules if name.startswith(('bgaug.pipelines', 'bgaug.store'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert bgaug.load_encoder is load_encoder
