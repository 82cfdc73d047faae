"""Mutated checkpoints and weights: refused with a BgaugError, in time and memory of the file's size, without imports.

pytest tests/test_fuzz_checkpoints.py                 # the short form
pytest tests/test_fuzz_checkpoints.py -m full         # 2,000 files
"""

from __future__ import annotations

import codecs
import copy
import io
import json
import pickle
import random
import resource
import signal
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from test_untrusted import CANARY, Payload, Watch, save_encoder, save_run

from bgaug.errors import BgaugError
from bgaug.model import ContrastiveLearner
from bgaug.model.checkpoint import load_run
from bgaug.model.pretrained import read_weights
from bgaug.model.pretrained.load import load_encoder

SECONDS = 5
MEGABYTES = 200
NASTY: list[Any] = [
    *(None, True, -1, 0, 1, 2**31, 2**62, 2**63 - 1, 1.5, float("nan"), float("inf"), "", "x" * 5000, "canary:build"),
    *(
        "subprocess:getoutput",
        "\x1b[31m\n",
        [],
        [[]] * 3,
        {},
        {"canary:build": 1},
        (1, 2),
        "tiny",
        "r3d18",
        "vit",
        b"x",
    ),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Whole files of each kind by suffix."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("good")
    learner = ContrastiveLearner("tiny", "bgaug").eval()
    checkpoint = save_run(folder / "run", learner) / "checkpoints" / "step-00000007.pt"
    weights = learner.encoder.backbone.state_dict()
    torch.save({"state_dict": weights, "epoch": 3}, folder / "new.pth")
    torch.save(torch.load(checkpoint, weights_only=True), folder / "old.pt", _use_new_zipfile_serialization=False)
    save_encoder(folder / "e.safetensors", learner, feature="dynamic")
    files = [checkpoint, folder / "new.pth", folder / "old.pt", folder / "e.safetensors"]
    return {f"{number}{path.suffix}": path.read_bytes() for number, path in enumerate(files)}


# --- mutations --------------------------------------------------------------------------------------------------------


def flipped(data: bytes, draw: random.Random) -> bytes:
    """A few bytes of the beginning or the end, where the structure is, or of anywhere."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.choice((draw.randrange(min(4096, len(out))), -1 - draw.randrange(min(4096, len(out)))))
        out[draw.choice((place, draw.randrange(len(out))))] = draw.choice((0, 1, 0x7F, 0xFF, draw.randrange(256)))
    return bytes(out)


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice((0, 1, 7, 8, 9, draw.randrange(4096), draw.randrange(len(data)), len(data) - 1))]


def spliced(data: bytes, draw: random.Random) -> bytes:
    begin, length = draw.randrange(len(data)), draw.randrange(1, 5000)
    part = draw.choice((b"", b"\0" * length, b"\xff" * length, data[:length], draw.randbytes(length)))
    return data[:begin] + part + data[begin + draw.choice((0, length)) :]


def other_number(data: bytes, draw: random.Random) -> bytes:
    """A small number of a pickle or a header made large, where it lies."""
    places = [place for place in range(min(len(data), 60_000)) if data[place] in b"KMJ"]
    if not places:
        return flipped(data, draw)
    out, place = bytearray(data), draw.choice(places)
    length = {ord("K"): 1, ord("M"): 2, ord("J"): 4}[out[place]]
    out[place + 1 : place + 1 + length] = draw.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
    return bytes(out)


def other_pickle(data: bytes, draw: random.Random) -> bytes:
    """An archive whose pickle is a payload, or has a name, an opcode or a number changed; sizes and checksums right."""
    if not data.startswith(b"PK"):
        return flipped(data, draw)
    source, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    method = draw.choice((zipfile.ZIP_STORED,) * 5 + (zipfile.ZIP_DEFLATED,))
    with zipfile.ZipFile(out, "w", method) as archive:
        for member in source.infolist():
            content = source.read(member)
            if member.filename.endswith("data.pkl"):
                content = draw.choice((_named, _renumbered, _opcodes, _payload))(content, draw)
            elif draw.random() < 0.02:
                content = draw.choice((content[:-4], content * 2, bytes(1_000_000), b""))
            if draw.random() > 0.005:
                archive.writestr(member.filename, content)
    return out.getvalue()


def _named(content: bytes, draw: random.Random) -> bytes:
    old = draw.choice(
        (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n")
    )
    new = (
        b"ccanary\nbuild\n",
        b"cos\nsystem\n",
        b"c_codecs\nencode\n",
        b"ctorch\nFloatTensor\n",
        b"cbuiltins\nbytearray\n",
    )
    return content.replace(old, draw.choice(new), draw.choice((1, -1)))


def _renumbered(content: bytes, draw: random.Random) -> bytes:
    return other_number(content, draw)


def _opcodes(content: bytes, draw: random.Random) -> bytes:
    out = bytearray(content)
    for _ in range(draw.choice((1, 3))):
        out[draw.randrange(len(out))] = draw.choice(
            b"(.012FGIJKMNPQRSTUVX]abcdeghijlmnopqrstuy})\x80\x81\x85\x86\x87\x8a\x8b\x93\x94"
        )
    return bytes(out)


def _payload(content: bytes, draw: random.Random) -> bytes:
    import os

    evil = draw.choice((Payload(os.system, "touch woken"), Payload(bytearray, 1 << 40), Payload(__import__, "canary")))
    return pickle.dumps({"format": "bgaug-checkpoint", "version": 1, "learner": {"a": evil}}, draw.choice((2, 4)))


def other_value(data: bytes, draw: random.Random) -> bytes:
    """A checkpoint with one value of its tree, or one tensor, replaced; or a header with one of its values replaced."""
    if not data.startswith(b"PK"):
        return other_header(data, draw)
    state = copy.deepcopy(torch.load(io.BytesIO(data), weights_only=True))
    target = state
    while True:
        name = draw.choice(list(target))
        if isinstance(target[name], dict) and target[name] and draw.random() < 0.9:
            target = target[name]
            continue
        break
    if isinstance(target[name], torch.Tensor) and draw.random() < 0.7:
        value = target[name] if target[name].ndim else target[name].reshape(1)
        target[name] = draw.choice(
            (
                value[:0],
                value.flatten()[:1].expand(10**12),
                value.double(),
                value * float("nan"),
                torch.cat([value, value]),
            )
        )
    elif draw.random() < 0.2:
        del target[name]
    else:
        target[name] = draw.choice(NASTY)
    out = io.BytesIO()
    torch.save(state, out, _use_new_zipfile_serialization=draw.random() < 0.7)
    return out.getvalue()


def other_header(data: bytes, draw: random.Random) -> bytes:
    """One value in the header of a .safetensors file is replaced, with a correct length; elsewhere a few bytes."""
    length = int.from_bytes(data[:8], "little")
    if not 0 < length < len(data):
        return flipped(data, draw)
    header = json.loads(data[8 : 8 + length])
    about = header[draw.choice(list(header))]
    name = draw.choice(list(about))
    values = [*NASTY[:-1], "F64", "U8", "F4", [2**40, 2**40], [0, 2**50], [-1, 4], '{"width": 100000000}', "[" * 9999]
    value = draw.choice([value for value in values if not isinstance(value, bytes)])
    about[name] = str(value) if "bgaug_encoder" in about and draw.random() < 0.8 else value
    if draw.random() < 0.1:
        header["__metadata__"] = draw.choice(([], 3, {"a": 1}, None))
    text = json.dumps(header).encode()
    if draw.random() < 0.1:
        text = draw.choice((b'{"a":' * 50_000, b"[" * 200_000, text.replace(b"{", b"{ ", 1), text + text))
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    *(flipped, cut, spliced, other_number, other_pickle, other_pickle, other_value, other_value, other_header)
]


# --- what every file is held to ---------------------------------------------------------------------------------------


def memory(field: str) -> int:
    """Of this process, bytes: "VmRSS" now, "VmHWM" at most since it was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


@contextmanager
def bounded(size: int) -> Iterator[None]:
    """Fails where more processor time or memory is taken than a file of this size is worth."""

    def late(*_: object) -> None:
        raise AssertionError(f"took more than {SECONDS} s of a processor")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    linux = sys.platform == "linux"
    if linux:
        Path("/proc/self/clear_refs").write_text("5")
    begun = memory("VmRSS") if linux else 0
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    if linux:
        taken = memory("VmHWM") - begun
        assert taken <= 4 * size + MEGABYTES * 1_000_000, f"took {taken / 1e6:.0f} MB for a file of {size} bytes"


def doors(path: Path) -> list[Callable[[Path], object]]:
    return [load_encoder, read_weights] if path.suffix == ".safetensors" else [load_encoder, load_run, read_weights]


def hold(good: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, seed: int) -> Counter[str]:
    """Try so many mutated files through every door; what became of them."""
    (folder / "canary.py").write_text(CANARY)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    for name, data in good.items():  # whatever is imported for good files
        (folder / name).write_bytes(data)
        for door in doors(folder / name):
            try:
                door(folder / name)
            except BgaugError:
                pass
    for codec in ("cp437", "raw_unicode_escape", "latin1", "ascii"):
        codecs.lookup(codec)  # what Python itself takes for old archives and pickles, whatever they hold
    draw, found = random.Random(seed), Counter[str]()
    watch = Watch()
    monkeypatch.setattr(sys, "meta_path", [watch, *sys.meta_path])
    modules = set(sys.modules)
    limit = resource.getrlimit(resource.RLIMIT_AS)
    for number in range(count):
        name = draw.choice(list(good))
        mutation = draw.choice(MUTATIONS)
        data = mutation(good[name], draw)
        path = folder / f"mutated{Path(name).suffix}"
        path.write_bytes(data)
        for door in doors(path):
            message = f"{mutation.__name__} number {number} of {name} (seed {seed}) through {door.__name__}"
            try:
                with bounded(len(data)):
                    door(path)
                found["accepted"] += 1
            except BgaugError as error:
                found["refused"] += 1
                assert len(str(error)) < 3000, message
            except BaseException as error:
                raise AssertionError(f"{message}: {type(error).__name__}: {error}") from error
            assert not (new := set(sys.modules) - modules | set(watch.names)), f"{message}: {new}"
            assert not (folder / "woken").exists(), message
    assert resource.getrlimit(resource.RLIMIT_AS) == limit
    return found


def test_mutated_files_cost_no_more_than_themselves(
    good: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: list[str]
) -> None:
    found = hold(good, tmp_path, monkeypatch, 60, 1)
    assert found["refused"] > 60
    report.append(f"mutated checkpoints and weights: 60 files, {found['refused']} refusals, {found['accepted']} loads")


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_mutated_files(
    seed: int, good: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: list[str]
) -> None:
    found = hold(good, tmp_path, monkeypatch, 500, seed)
    assert found["refused"] > 500
    report.append(f"mutated checkpoints and weights: 500 files, {found['refused']} refusals, {found['accepted']} loads")
