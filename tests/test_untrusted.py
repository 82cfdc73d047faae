"""Files that carry code: through every door, nothing in them is imported, called or built larger than they are."""

from __future__ import annotations

import importlib.abc
import io
import os
import pickle
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from bgaug.cli.main import app
from bgaug.errors import BgaugError, CheckpointError, MasksError, UsageError
from bgaug.files import MalformedFile, open_regular
from bgaug.files.archives import read_npz
from bgaug.files.pickles import load_plain
from bgaug.masks.external.pixels import ArrayMasks
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import load_run
from bgaug.model.pretrained import EncoderInfo, backbone_options, read_weights
from bgaug.model.pretrained.load import export_encoder, load_encoder

CANARY = """
from pathlib import Path
from bgaug.model.backbones import build_backbone
Path(__file__).with_name("woken").touch()
CALLS = []
def build(width: int = 16, cmd: str = ""):
    CALLS.append((width, cmd))
    return build_backbone("tiny", width=width)
"""
NAMES = [
    *(
        "canary:build",
        "subprocess:getoutput",
        "os:system",
        "builtins:eval",
        "bgaug.model.backbones.tiny:Tiny",
        "canary",
    ),
    *("canary:", ":build", "tiny:build", "tiny ", "", "../canary:build", "canary:build\nforged line", "x" * 10_000),
]


def call(*arguments: object) -> Any:
    """A command's result."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class Watch(importlib.abc.MetaPathFinder):
    """Notes every module that is looked for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Finds nothing."""
        self.names.append(fullname)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """A module `canary` that can be imported; whether it was imported, or looked for."""
    (tmp_path / "canary.py").write_text(CANARY)
    monkeypatch.syspath_prepend(tmp_path)
    watch = Watch()
    monkeypatch.setattr(sys, "meta_path", [watch, *sys.meta_path])
    yield lambda: "canary" in sys.modules or "canary" in watch.names or (tmp_path / "woken").exists()
    sys.modules.pop("canary", None)


@pytest.fixture(scope="module")
def learner() -> ContrastiveLearner:
    torch.manual_seed(3)
    return ContrastiveLearner("tiny", "bgaug").eval()


def save_run(folder: Path, learner: ContrastiveLearner, **config: Any) -> Path:
    """A run's folder, as `bgaug train` leaves it but for its configuration."""
    known = {"backbone": "tiny", "crop": 32, "num_frames": 8, "stride": 2, "weights": None, "method": "bgaug"}
    state = {
        "format": "bgaug-checkpoint",
        "version": 1,
        "config": known | {"resolved_method": asdict(learner.method)} | config,
        "learner": learner.state_dict(),
    }
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "checkpoints" / "step-00000007.pt")
    return folder


def save_encoder(path: Path, learner: ContrastiveLearner, **said: str) -> Path:
    """A .safetensors file with this description."""
    info = EncoderInfo("tiny", {}, 32, 8, 2, "none", "replicate", 96, "bgaug", "")
    save_file(learner.encoder.backbone.state_dict(), path, metadata=info.metadata() | said)
    return path


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_name_in_a_file_is_imported(
    name: str, learner: ContrastiveLearner, tmp_path: Path, canary: Callable[[], bool]
) -> None:
    run = save_run(tmp_path / "run", learner, backbone=name, backbone_options={"cmd": "touch woken"})
    file = save_encoder(tmp_path / "e.safetensors", learner, backbone=name, options='{"cmd": "touch woken"}')
    before = set(sys.modules)
    for path in (run, run / "checkpoints" / "step-00000007.pt", file):
        with pytest.raises(CheckpointError) as caught:
            load_encoder(path)
        assert len(str(caught.value)) < 2000
    with pytest.raises(CheckpointError):
        load_run(run)
    assert not canary() and not {module for module in set(sys.modules) - before if not module.startswith("bgaug")}


DOORS: dict[str, list[str]] = {
    "embed": ["embed", "RUN", "STORE", "--out", "OUT.npz"],
    "retrieval": ["evaluate", "RUN", "STORE"],
    "from scratch": ["evaluate", "RUN", "STORE", "--protocol", "finetune", "--from-scratch", "--epochs", "1"],
    "bias": ["evaluate", "RUN", "STORE", "--protocol", "bias"],
    "heatmap": ["heatmap", "RUN", "STORE", "--out", "OUT"],
    "export": ["export-weights", "RUN", "--out", "OUT.safetensors"],
    "heatmap against": ["heatmap", "GOOD", "STORE", "--against", "RUN", "--out", "OUT"],
}


@pytest.mark.parametrize("door", DOORS)
def test_every_command_asks_for_the_users_own_word(
    door: str, learner: ContrastiveLearner, small_store: Path, tmp_path: Path, canary: Callable[[], bool]
) -> None:
    save_run(tmp_path / "good", learner)
    save_run(tmp_path / "run", learner, backbone="canary:build", backbone_options={"cmd": "x"})
    names = {"RUN": tmp_path / "run", "GOOD": tmp_path / "good", "STORE": small_store}
    arguments = [str(names.get(word, word)).replace("OUT", str(tmp_path / "out")) for word in DOORS[door]]
    result = call(*arguments, "--device", "cpu") if door != "export" else call(*arguments)
    assert result.exit_code == 1 and "never imported" in " ".join(result.stderr.split()), result.output
    assert not canary() and not list(tmp_path.glob("out*"))


def test_a_file_of_options_has_no_word(
    learner: ContrastiveLearner, small_store: Path, tmp_path: Path, canary: Callable[[], bool]
) -> None:
    save_run(tmp_path / "run", learner, backbone="canary:build")
    config = tmp_path / "config.toml"
    train = ["train", small_store, "--out", tmp_path / "new", "--config", config, "--device", "cpu"]
    for command in (train, ["evaluate", tmp_path / "run", small_store, "--config", config]):
        config.write_text('backbone = "canary:build"\n')
        result = call(*command)
        assert result.exit_code == 2 and "never imported" in " ".join(result.stderr.split()), result.output
        config.write_text("trust = true\n")
        assert call(*command).exit_code == 2
    assert not canary() and not (tmp_path / "new").exists()


def test_a_checkpoint_does_not_decide_what_resuming_builds(
    learner: ContrastiveLearner, small_store: Path, tmp_path: Path, canary: Callable[[], bool]
) -> None:
    save_run(tmp_path / "run", learner, backbone="canary:build", backbone_options={"cmd": "x"})
    options = ["--backbone", "tiny", "--frames", "8", "--crop", "32", "--device", "cpu", "--resume"]
    result = call("train", small_store, "--out", tmp_path / "run", *options)
    assert result.exit_code == 1 and "another configuration" in " ".join(result.stderr.split())
    assert not canary()


def test_the_users_own_word_counts(
    learner: ContrastiveLearner, small_store: Path, tmp_path: Path, canary: Callable[[], bool]
) -> None:
    clips = torch.rand(1, 3, 8, 32, 32)
    expected = learner.features(clips)
    run = save_run(tmp_path / "run", learner, backbone="elsewhere:gone", backbone_options={"cmd": "x"})
    assert torch.equal(load_encoder(run, backbone="canary:build")(clips), expected)
    assert canary()
    import canary as module  # type: ignore[import-not-found]

    assert {cmd for _, cmd in module.CALLS} == {"x"}
    encoder = load_encoder(run, backbone=module.build)
    assert torch.equal(encoder(clips), expected)
    save_run(tmp_path / "run", learner, backbone="canary:build")
    file = export_encoder(load_encoder(run, trust=True), tmp_path / "e.safetensors")
    with pytest.raises(CheckpointError, match="never imported"):
        load_encoder(file)
    assert torch.equal(load_encoder(file, trust=True)(clips), expected)
    for word in (["--trust"], ["--backbone", "canary:build"]):
        assert call("embed", run, small_store, "--out", tmp_path / f"{word[0]}.npz", *word).exit_code == 0
    with pytest.raises(CheckpointError, match="no stage|fit"):
        load_encoder(run, backbone="r3d18")
    with pytest.raises(UsageError, match="no module"):
        load_encoder(run, backbone="not_a_module:build")


# --- options, method and sizes ----------------------------------------------------------------------------------------


BAD_OPTIONS: list[dict[str, Any]] = [
    *({"width": value} for value in ("16", 16.0, True, None, [16], {"a": 1}, -1, 0, 10**9, 2**70, float("nan"))),
    *({"temporal_padding": value} for value in (1, "sideways", None, ["zeros"])),
    *({name: 1} for name in ("cmd", "self", "__class__", "", "name", "device")),
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_options_are_those_of_the_builder(options: dict[str, Any], learner: ContrastiveLearner, tmp_path: Path) -> None:
    begun = time.process_time()
    with pytest.raises(CheckpointError):
        load_encoder(save_run(tmp_path / "run", learner, backbone_options=options))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"resolved_method": {"name": "x", "momentum": True, "queue": 10**15}}, "fit"),
        ({"resolved_method": {"name": "x", "momentum": True, "queue": "16"}}, "queue"),
        ({"resolved_method": {"name": "x", "stages": ["stage9"]}}, "stage9"),
        ({"resolved_method": {"name": "x", "pool": 3}}, "pool"),
        ({"resolved_method": {"name": "x", "w_dynamic": float("inf")}}, "finite"),
        ({"resolved_method": {"name": "x", "composition": {"cmd": "x"}}}, "cmd"),
        ({"resolved_method": {"name": "x", "__class__": "x"}}, "__class__"),
        ({"resolved_method": []}, "resolved_method"),
        ({"crop": 10**6}, "crop"),
        ({"crop": "32"}, "crop"),
        ({"crop": 4096, "num_frames": 4096}, "pixels"),
        ({"stride": 0}, "stride"),
        ({"flip": 7.0}, "flip"),
        ({"backbone": 3}, "backbone"),
        ({"backbone": "vit", "backbone_options": {"depth": 10**6}}, "depth"),
        ({"backbone": "vit", "backbone_options": {"dim": 2048, "depth": 64, "num_heads": 64}}, "fit"),
    ],
)
def test_a_configuration_is_checked(
    config: dict[str, Any], message: str, learner: ContrastiveLearner, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_encoder(save_run(tmp_path / "run", learner, **config))


def test_clips_that_an_encoder_does_not_take_are_named(
    learner: ContrastiveLearner, small_store: Path, tmp_path: Path
) -> None:
    run = save_run(tmp_path / "run", learner, num_frames=2)
    for command in (["evaluate"], ["embed", "--out", tmp_path / "o.npz"], ["heatmap", "--out", tmp_path / "o"]):
        result = call(command[0], run, small_store, *command[1:], "--device", "cpu")
        assert result.exit_code == 1 and "own clips of 2 frames" in " ".join(result.stderr.split()), result.output


@pytest.mark.parametrize(
    "said",
    [
        {"options": "[" * 100_000},
        {"options": '{"width": 1000000000}'},
        {"options": '{"width": NaN}'},
        {"size": "9" * 5000},
        {"size": "-3"},
        {"num_frames": "1e99"},
        {"feature": "x"},
        {"decomposition": '{"w_dynamic": 1.0}'},
        {"decomposition": '{"stages": ["x"]}'},
        {"decomposition": '{"pool": 1}'},
        {"static_stage": "true"},
        {"static_stage": '"yes"'},
    ],
    ids=str,
)
def test_a_description_is_checked(said: dict[str, str], learner: ContrastiveLearner, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        file = save_encoder(tmp_path / "e.safetensors", learner, **{"feature": "dynamic"} | said)
        load_encoder(file)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(3)
    learner = ContrastiveLearner("tiny", "bgaug")
    with torch.no_grad():
        learner.encoder.backbone.get_parameter("stage2.spatial.weight")[0, 0, 0, 0] = float("nan")
    for path in (save_run(tmp_path / "run", learner), save_encoder(tmp_path / "e.safetensors", learner)):
        with pytest.raises(CheckpointError, match=r"stage2\.spatial\.weight has numbers that are not finite"):
            load_encoder(path)


# --- pickles ----------------------------------------------------------------------------------------------------------


class Payload:
    """Runs a command where a pickle is executed."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self._recorded = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._recorded


def payloads(path: Path) -> dict[str, Any]:
    return {
        "system": Payload(os.system, f"touch {path}"),
        "touch": Payload(Path.touch, path),
        "eval": Payload(eval, f"open({str(path)!r}, 'w')"),
        "memory": Payload(bytearray, 1 << 40),
        "tensor": Payload(torch.FloatTensor, 1 << 20, 1 << 20),
        "codec": Payload(codecs_encode(), "x", "canary"),
    }


def codecs_encode() -> Callable[..., Any]:
    import _codecs

    return _codecs.encode


@pytest.mark.parametrize("kind", payloads(Path()))
@pytest.mark.parametrize("zipped", [True, False])
def test_no_pickle_is_executed(
    kind: str, zipped: bool, small_store: Path, tmp_path: Path, canary: Callable[[], bool]
) -> None:
    woken = tmp_path / "woken"
    for name in ("evil.pth", "run/checkpoints/step-00000001.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        state = {"format": "bgaug-checkpoint", "version": 1, "learner": {"a": payloads(woken)[kind]}}
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
    for door in (read_weights, load_encoder, load_run):
        with pytest.raises(BgaugError, match="names in a file are never imported|encodes bytes"):
            door(tmp_path / "evil.pth")
    options = ["--out", tmp_path / "new", "--backbone", "r3d18", "--device", "cpu"]
    assert call("train", small_store, "--from", tmp_path / "evil.pth", *options).exit_code == 2
    options = ["--out", tmp_path / "run", "--backbone", "tiny", "--device", "cpu", "--resume"]
    assert call("train", small_store, *options).exit_code == 1
    assert not woken.exists() and not canary()


def test_no_array_holds_objects(tmp_path: Path, canary: Callable[[], bool]) -> None:
    evil = np.array([payloads(tmp_path / "woken")["system"]], object)
    np.save(tmp_path / "a.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "b.npz", masks=evil)
    for path in (tmp_path / "a.npy", tmp_path / "b.npz"):
        with pytest.raises(MasksError, match="Python objects"):
            ArrayMasks(path, "nonzero").frame(0)
    with pytest.raises(MalformedFile, match="Python objects"):
        read_npz(tmp_path / "b.npz")
    assert not canary()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_read_as_python_reads_them(protocol: int) -> None:
    value: dict[Any, Any] = {
        "a": [1, -2.5, None, True, "ü", 2**40, -(2**63)],
        3: {"t": (1, (2, 3, 4, 5), ())},
        (1, "x"): [],
    }
    value["shared"] = [value["a"]] * 3
    assert load_plain(pickle.dumps(value, protocol)) == value
    if protocol >= 4:
        value["more"] = [b"bytes", {1, 2, (3, "x")}, frozenset([1])]
        assert load_plain(pickle.dumps(value, protocol)) == value


def nested(depth: int, width: int) -> list[Any]:
    value: list[Any] = [1]
    for _ in range(depth):
        value = [value] * width
    return value


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(nested(50, 2)),
        b"\x80\x04" + b"]" * 500 + b"a" * 499 + b".",
        pickle.dumps(itself()),
        pickle.dumps(2**100),
        b"\x80\x04" + b"]" * 600_000,
        b"\x80\x04" + b"\x8f" * 200_000,
        b"\x80\x02Nr\xff\xff\xff\xff.",  # a memo of 4 * 10^9 places
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
        b"\x80\x04)\x94h\x00\x86\x94h\x01h\x01\x86\x94}h\x02Ns.",  # a nested tuple as a key
        b"c__main__\nx\n.",
        b"\x80\x02\x82\x01.",
        b"Pid\n.",
        b"",
        b".",
        b"(.",
        b"\x80\x04K\x01K\x02.",
    ],
)
def test_a_pickle_costs_no_more_than_itself(data: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(MalformedFile):
        load_plain(data)
    assert time.process_time() - begun < 5


# --- files that are larger than they are ------------------------------------------------------------------------------


def test_bombs_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(5_000_000))
    with pytest.raises(UsageError, match="compressed"):
        read_weights(tmp_path / "a.pth")
    np.savez_compressed(tmp_path / "b.npz", masks=np.zeros((50, 512, 512), bool))
    with pytest.raises(MalformedFile, match="declares"):
        read_npz(tmp_path / "b.npz", compressed=10_000_000)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 50,)})
    (tmp_path / "c.npy").write_bytes(header.getvalue())
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("masks.npy", header.getvalue())
    for name in ("c.npy", "c.npz"):
        with pytest.raises(MasksError, match="declares an array"):
            ArrayMasks(tmp_path / name, "nonzero").frame(0)


def test_tensors_are_no_larger_than_what_they_lie_in(tmp_path: Path) -> None:
    one = torch.ones(1000)
    wide = one[:1].expand(10**12)
    torch.save({"a": wide}, tmp_path / "wide.pth")
    with pytest.raises(UsageError, match="over 1"):
        read_weights(tmp_path / "wide.pth")
    torch.save({f"{n}": one.view(10, 100) for n in range(100)}, tmp_path / "shared.pth")
    with pytest.raises(UsageError, match="share"):
        read_weights(tmp_path / "shared.pth")
    data = bytearray()
    torch.save({"a": torch.ones(1000)}, tmp_path / "a.pth")
    data += (tmp_path / "a.pth").read_bytes()
    place = data.index(b"M\xe8\x03")  # 1000, as pickle writes it
    data[place : place + 3] = b"M\xff\xff"
    (tmp_path / "b.pth").write_bytes(data)
    with pytest.raises(UsageError):
        read_weights(tmp_path / "b.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_wrote_is_read_as_torch_reads_it(zipped: bool, tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).view(2, 3, 4)
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
    state: dict[str, Any] = {
        "plain": base,
        "part": base[1:, ::2],
        "turned": base.permute(2, 0, 1),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.5),
        "truth": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "more": {"list": [1, (2, "x"), None], **{str(kind): base.to(kind) for kind in kinds}},
        "module": torch.nn.BatchNorm2d(2).state_dict(),
    }
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    from bgaug.model.pretrained.torch_files import read_torch_file

    found, expected = read_torch_file(tmp_path / "a.pt"), torch.load(tmp_path / "a.pt", weights_only=True)

    def same(one: Any, other: Any) -> bool:
        if isinstance(other, Tensor):
            return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)
        if isinstance(other, dict):
            return list(one) == list(other) and all(same(one[name], other[name]) for name in other)
        return bool(one == other)

    assert same(found, expected)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "run"])
def test_only_regular_files_are_opened(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    kinds: dict[str, Callable[[], None]] = {
        "a fifo": lambda: os.mkfifo(path),
        "a device": lambda: path.symlink_to("/dev/zero"),
        "circle": lambda: path.symlink_to(path),
        "zero byte": lambda: None,
    }
    for message, make in kinds.items():
        make()
        target = tmp_path / f"{name}\0" if message == "zero byte" else path
        with pytest.raises(CheckpointError, match=message):
            load_encoder(target)
        with pytest.raises(UsageError, match=message):
            read_weights(target)
        path.unlink(missing_ok=True)
    with pytest.raises(OSError, match="is a folder"):
        open_regular(tmp_path)


# --- the published feature --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dual", "simclr"])
def test_a_loaded_encoder_gives_what_is_evaluated(method: str, small_store: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    learner = ContrastiveLearner("tiny", method).eval()
    run = save_run(tmp_path / "run", learner, method=method)
    file = export_encoder(load_encoder(run), tmp_path / "e.safetensors")
    out = tmp_path / "out.npz"
    assert call("embed", run, small_store, "--out", out, "--clips", "1", "--device", "cpu").exit_code == 0
    clips = torch.rand(2, 3, 8, 32, 32)
    for path in (run, file):
        encoder = load_encoder(path)
        assert torch.equal(encoder(clips), learner.features(clips))
        for which in ("global", "dynamic", "static", "dynamic+static"):
            expected = learner.features(clips, which)
            assert torch.equal(encoder(clips, feature=which), expected)
            assert torch.equal(load_encoder(path, feature=which)(clips), expected)
    with np.load(out) as found:
        expected = stored_features(load_encoder(file), small_store, found["starts"][:, 0].tolist())
        assert np.allclose(found["features"], expected, rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match="features are global, dynamic, static, dynamic.static"):
        load_encoder(run, feature="x")


def stored_features(encoder: Any, path: Path, begins: list[int]) -> Any:
    """Features of one clip of each video of a store, from its frames only."""
    from bgaug.pairs import centre_crop
    from bgaug.store import open_store

    store, found = open_store(path), []
    for video, begin in enumerate(begins):
        frames = torch.from_numpy(store.frames_at(video, begin + 2 * np.arange(8)))[None]
        clip = centre_crop(frames, torch.tensor([store.content_box(video)]), 32)
        with torch.no_grad():
            found.append(encoder(clip)[0].numpy())
    return np.stack(found)


def test_weights_of_the_small_encoder_train_on(learner: ContrastiveLearner, small_store: Path, tmp_path: Path) -> None:
    torch.save(learner.encoder.backbone.state_dict(), tmp_path / "plain.pth")
    export_encoder(load_encoder(save_run(tmp_path / "run", learner)), tmp_path / "own.safetensors")
    for name in ("plain.pth", "own.safetensors"):
        assert backbone_options(tmp_path / name, "tiny") == {}
        options = ["--backbone", "tiny", "--frames", "8", "--crop", "32", "--stop-after", "1", "--device", "cpu"]
        done = call("train", small_store, "--out", tmp_path / name[:3], "--from", tmp_path / name, *options)
        assert done.exit_code == 0, done.output
    foreign = tmp_path / "foreign.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, foreign)
    done = call("train", small_store, "--out", tmp_path / "x", "--from", foreign, "--backbone", "tiny")
    said = " ".join(done.stderr.split())
    assert done.exit_code == 2 and "no weights are published for tiny" in said
    done = call("train", small_store, "--out", tmp_path / "x", "--from", tmp_path / "own.safetensors")
    assert done.exit_code == 2 and "give --backbone tiny" in " ".join(done.stderr.split())


def test_unknown_escapes_in_a_text_are_no_warning() -> None:
    assert load_plain(b"S'a\\h'\n.") == "a\\h"
