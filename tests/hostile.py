"""Stores with hostile content: ways to change every field and file of a small store, and everything that reads it.

A change is sealed: checksums of what was changed, and of all that names it, are made right again, as its author would.
Nothing of the library is used for that.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import cv2
import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from stores import FULL_SIZE, make_full_store

from bgaug.data.dataset import ClipDataset, ClipOptions
from bgaug.errors import BgaugError
from bgaug.pipelines.build.export import export_videos
from bgaug.progress import Silent
from bgaug.store import (
    FrameKind,
    Header,
    Plan,
    Store,
    create_store,
    finish_store,
    merge_stores,
    open_store,
    repair_store,
    replace_masks,
    restore_header,
    verify_store,
    write_bank,
)
from bgaug.store.format.layout import read_header
from bgaug.visualize import contact_sheet

FREE_BYTES = 200 * 2**20
LIMIT_SECONDS = 5.0
"""Of a processor; what waits for something uses none, and is ended after `HUNG_SECONDS` by the clock."""
HUNG_SECONDS = 30.0
KINDS: tuple[FrameKind, ...] = ("jpeg", "raw", "none")


class Make(Protocol):
    def __call__(self, root: Path, kind: FrameKind, prefix: str = "") -> Path: ...


# --- seals ------------------------------------------------------------------------------------------------------------


def crc32c(data: bytes) -> int:
    return int(google_crc32c.value(data))


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in record.items() if key != "crc32c"}
    return {**rest, "crc32c": crc32c(canonical(rest))}


def load(file: Path) -> Any:
    return json.loads(file.read_bytes())


def save_header(root: Path, header: dict[str, Any]) -> None:
    node = {"zarr_format": 3, "node_type": "group", "attributes": {"bgaug": sealed(header)}}
    (root / "zarr.json").write_bytes(json.dumps(node, sort_keys=True, indent=1, ensure_ascii=False).encode())


def reseal(root: Path, name: str) -> None:
    """Update everything that describes this file: its record, the record's copy in the index, the header."""
    file = root / name
    top, *rest = name.split("/")
    if name == "zarr.json":
        save_header(root, load(file)["attributes"]["bgaug"])
        seal_index(root, header=load(file)["attributes"]["bgaug"])
    elif name == "plan.json":
        header = load(root / "zarr.json")["attributes"]["bgaug"]
        header["plan"]["sha256"] = sha256(file.read_bytes()).hexdigest()
        save_header(root, header)
        seal_index(root, header=load(root / "zarr.json")["attributes"]["bgaug"])
    elif name == "failures.jsonl":
        seal_index(root, failures=[len(file.read_bytes()), crc32c(file.read_bytes())])
    elif rest:
        folder = root / top if top == "index" else root / top / rest[0]
        record = folder / "COMMIT.json"
        found = load(record)
        if file != record:
            data = file.read_bytes()
            found["files"][file.relative_to(folder).as_posix()] = [len(data), crc32c(data)]
        record.write_bytes(canonical(sealed(found)))
        if top == "shards":
            stamps = load(root / "index" / "COMMIT.json")["shards"]
            seal_index(root, shards={**stamps, folder.name: crc32c(record.read_bytes())})


def seal_index(root: Path, **changes: Any) -> None:
    file = root / "index" / "COMMIT.json"
    file.write_bytes(canonical(sealed({**load(file), **changes})))


# --- changes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A change to a store.

    Attributes:
        name: what is changed, and how.
        change: does it, given the store and a folder outside.
        kind: of documents or files, so that a few of each can be had.
    """

    name: str
    change: Callable[[Path, Path], None] = field(compare=False)
    kind: str = ""


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        7,
        2**31 - 1,
        2**31,
        10**7,
        10**12,
        2**62,
        2**63,
        2**64,
        10**30,
        1.5,
        -0.5,
        1e308,
    ),
    *("", "x", "../../x", "/etc/passwd", "a\0b", "\x1b[31mred\n", "A" * 300_000, "ok", "jpeg", "raw", "none"),
    *([], {}, [1], [-1, -1], [0, 0], [2**62, 1], {"x": 1}, nest(400)),
)
BYTES: tuple[bytes, ...] = (b"NaN", b"Infinity", b"1e999", b"9" * 5000, b'"\\ud800"', b"[" * 100_000, b'{"a":1,"a":2}')
MISSING, DOUBLED = object(), object()
SHOWN_VALUES = [*((value, repr(value)[:24]) for value in VALUES), (MISSING, "missing"), (DOUBLED, "doubled")]


def paths_in(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field of a document."""
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from paths_in(value[key], (*at, key))
    elif isinstance(value, list):
        for place in range(len(value)):
            yield from paths_in(value[place], (*at, place))


def change_field(path: tuple[Any, ...], value: Any, document: Any) -> Any:
    document = json.loads(json.dumps(document))
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[path[-1]]
    elif value is DOUBLED and isinstance(inner, list):
        inner.append(inner[path[-1]])
    elif value is DOUBLED:
        inner[f"{path[-1]} "] = inner[path[-1]]
    else:
        inner[path[-1]] = value
    return document


def changed_document(name: str, path: tuple[Any, ...], value: Any, seal: bool, root: Path, outside: Path) -> None:
    file = root / name
    if name == "failures.jsonl":
        file.write_bytes(canonical(change_field(path, value, json.loads(file.read_bytes().splitlines()[0]))) + b"\n")
    else:
        file.write_bytes(canonical(change_field(path, value, load(file))))
    if seal:
        try:
            reseal(root, name)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, RecursionError):
            pass  # what names it is itself no more what it was


def changed_text(name: str, path: tuple[Any, ...], text: bytes, root: Path, outside: Path) -> None:
    """A value that Python's own writer does not write."""
    marked = change_field(path, "@here@", load(root / name))
    (root / name).write_bytes(canonical(marked).replace(b'"@here@"', text, 1))


def replaced(name: str, make: Callable[[Path, Path, bytes], None], seal: bool, root: Path, outside: Path) -> None:
    file = root / name
    data = file.read_bytes() if file.is_file() else b""
    if file.is_dir():
        shutil.copytree(file, outside / "copy", dirs_exist_ok=True)
        shutil.rmtree(file)
    elif file.exists():
        file.unlink()
    make(file, outside, data)
    if seal:
        reseal(root, name)


def bomb(size: int) -> bytes:
    return bytes(Zstd(1, checksum=True).encode(np.zeros(size, np.uint8)))


def large_jpeg(data: bytes) -> bytes:
    """An image of the same number of bytes that declares another size."""
    encoded = cv2.imencode(".jpg", np.zeros((6000, 6000, 3), np.uint8))[1].tobytes()
    place = data.index(b"\xff\xc0") + 5
    at = encoded.index(b"\xff\xc0") + 5
    return data[:place] + encoded[at : at + 4] + data[place + 4 :] if place < len(data) else data


BOMB = bomb(2**28)
FILES: dict[str, tuple[Callable[[Path, Path, bytes], None], bool]] = {
    "gone": (lambda file, outside, data: None, False),
    "empty": (lambda file, outside, data: void(file.write_bytes(b"")), True),
    "half": (lambda file, outside, data: void(file.write_bytes(data[: len(data) // 2])), True),
    "twice": (lambda file, outside, data: void(file.write_bytes(data * 2)), True),
    "zeros": (lambda file, outside, data: void(file.write_bytes(bytes(len(data)))), True),
    "noise": (lambda file, outside, data: void(file.write_bytes(np.random.default_rng(1).bytes(len(data)))), True),
    "bomb": (lambda file, outside, data: void(file.write_bytes(BOMB)), True),
    "bomb with tail": (lambda file, outside, data: void(file.write_bytes(BOMB + data)), True),
    "fifo": (lambda file, outside, data: os.mkfifo(file), False),
    "folder": (lambda file, outside, data: file.mkdir(), False),
    "socket": (lambda file, outside, data: bind(file), False),
    "sparse": (lambda file, outside, data: sparse(file), False),
    "link to a copy": (lambda file, outside, data: link_to_copy(file, outside, data), False),
    "link to a device": (lambda file, outside, data: file.symlink_to("/dev/zero"), False),
    "link to itself": (lambda file, outside, data: file.symlink_to(file.name), False),
    "link to nothing": (lambda file, outside, data: file.symlink_to(outside / "nothing"), False),
}
FOLDERS: dict[str, Callable[[Path, Path, bytes], None]] = {
    "gone": lambda file, outside, data: None,
    "file": lambda file, outside, data: void(file.write_bytes(b"x")),
    "fifo": lambda file, outside, data: os.mkfifo(file),
    "link to a copy": lambda file, outside, data: file.symlink_to(outside / "copy"),
    "link above": lambda file, outside, data: file.symlink_to(".."),
    "link to itself": lambda file, outside, data: file.symlink_to(file.name),
}


def void(value: object) -> None:
    """The value of a function that gives none."""


def bind(file: Path) -> None:
    here = os.getcwd()
    os.chdir(file.parent)  # a socket's name has 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(file.name)
    finally:
        os.chdir(here)


def sparse(file: Path) -> None:
    with open(file, "wb") as opened:
        opened.truncate(2**36)


def link_to_copy(file: Path, outside: Path, data: bytes) -> None:
    (outside / "copied").write_bytes(data)
    file.symlink_to(outside / "copied")


def planted(name: str, make: Callable[[Path, Path], None], root: Path, outside: Path) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    make(path, outside)


PLANTED = (
    *("shards/.tmp-00000", "shards/.old-00000", "shards/.lock-00000", "shards/.lock-00000.lease", "shards/00009"),
    *("shards/.tmp-00009", ".tmp-index", ".lock-index", ".lock-store", ".build-0", ".old-store", "banks/.tmp-new"),
    *("banks/.old-new", "banks/new", f".zarr.json.{os.getpid()}", f".plan.json.{os.getpid()}", "shards/.lock-²"),
    *("shards/00000/masks/more", "shards/00000/\x1b[31m", "shards/99999999999999999999", "shards/00001.link"),
)
PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "link to a folder": lambda path, outside: path.symlink_to(outside),
    "link to a file": lambda path, outside: path.symlink_to(outside / "precious.txt"),
    "fifo": lambda path, outside: os.mkfifo(path),
    "folder": lambda path, outside: path.mkdir(),
}


def cases(root: Path) -> list[Case]:
    """All changes to a store of this shape."""
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    folders = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir())
    shown = [name for name in files if not name.startswith(("shards/00001", "shards/00003"))]
    found = []
    for name in shown:
        if not name.endswith((".json", ".jsonl")):
            continue
        document = json.loads((root / name).read_bytes().splitlines()[0]) if "jsonl" in name else load(root / name)
        kind = "array" if name.count("/") > 2 or name.startswith("index/") and name.count("/") > 1 else name
        for path in paths_in(document):
            for value, shown_value in SHOWN_VALUES:
                for seal in (True, False):
                    change = partial(changed_document, name, path, value, seal)
                    found.append(Case(f"{name} {path} = {shown_value}{'' if seal else ' unsealed'}", change, kind))
            if name != "failures.jsonl":
                for text in BYTES:
                    change = partial(changed_text, name, path, text)
                    found.append(Case(f"{name} {path} = {text[:12]!r}", change, f"{kind} text"))
    for name in shown:
        for what, (make, seal) in FILES.items():
            if seal:
                change = partial(replaced, name, make, not name.endswith((".json", ".jsonl")))
                found.append(Case(f"{name} {what}", change, f"file {what}"))
            found.append(Case(f"{name} {what} unsealed", partial(replaced, name, make, False), f"file {what}"))
    for name in folders:
        found += [Case(f"{name} {what}", partial(replaced, name, make, False), what) for what, make in FOLDERS.items()]
    for name in PLANTED:
        found += [Case(f"{name}: {what}", partial(planted, name, make), "planted") for what, make in PLANTS.items()]
    return found


# --- all that reads ---------------------------------------------------------------------------------------------------


class Hung(BaseException):
    """An action took too long."""


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read(root: Path) -> None:
    store = open_store(root, allow_incomplete=True, check_frames=True)
    for video in range(min(len(store), 8)):
        quietly(partial(read_video, store, video))
        quietly(partial(store.row, video))
        for shot in range(min(3, len(store.shots(video)))):
            quietly(partial(store.background, video, shot))
            quietly(partial(store.canvas, video, shot))
            quietly(partial(read_small_masks, store, video, shot))
    quietly(lambda: store.failures)
    quietly(lambda: store.bank("places"))


def read_video(store: Store, video: int) -> None:
    count = store.num_frames(video)
    if store.header.frames != "none":
        quietly(lambda: store.clip(video, 0, count))
    quietly(lambda: store.masks(video, 0, count))
    quietly(lambda: store.pts_seconds(video, 0, count))


def read_small_masks(store: Store, video: int, shot: int) -> None:
    masks = store.shot_masks(video, shot)
    if masks is not None:
        for frame in range(min(len(masks), 40)):
            masks.at(frame)


def quietly(act: Callable[[], object]) -> None:
    """Errors of this library name the problem and the place."""
    try:
        act()
    except BgaugError as error:
        assert str(error).strip()


def draw(root: Path) -> None:
    for options in (
        ClipOptions(num_frames=3, stride=1),
        ClipOptions(num_frames=2, stride_seconds=0.04, short="skip", views=1, sampling="uniform"),
    ):
        quietly(partial(draw_clips, root, options))


def draw_clips(root: Path, options: ClipOptions) -> None:
    dataset = ClipDataset(root, options, backgrounds=options.short != "skip")
    for index in range(min(len(dataset), 4)):
        quietly(partial(dataset.__getitem__, index))


def merge(root: Path) -> None:
    merge_stores([root, root.parent / "other"], root.parent / "merged", prefix=True)


def take_in(root: Path) -> None:
    header = read_header(root)
    quietly(lambda: replace_masks(root, header, 0, lambda row, masks: ~masks))
    quietly(lambda: write_bank(root, "new", [("z.png", np.zeros((*FULL_SIZE, 3), np.uint8))]))
    finish_store(root)


def give_out(root: Path) -> None:
    ids = list(open_store(root).videos)[:2]
    export_videos(root, ids, root.parent / "export", Silent(), frames=True)


def repair(root: Path) -> None:
    quietly(lambda: restore_header(root))
    repair_store(root, verify_store(root, deep=True))


def build_again(root: Path) -> None:
    create_store(root, Header(FULL_SIZE, "pad", "jpeg", ("run", "walk"), {}), Plan(()), overwrite=True)
    finish_store(root)


ALWAYS: dict[str, Callable[[Path], object]] = {
    "read": read,
    "dataset": draw,
    "verify --deep": partial(verify_store, deep=True),
    "merge": merge,
}
IN_TURN: dict[str, Callable[[Path], object]] = {
    "verify": verify_store,
    "preview": lambda root: contact_sheet(open_store(root), rows=2, width=48),
    "export": give_out,
}
CHANGING: dict[str, Callable[[Path], object]] = {"repair": repair}
CHANGING_IN_TURN: dict[str, Callable[[Path], object]] = {"import": take_in, "build --overwrite": build_again}


def actions(number: int) -> dict[str, Callable[[Path], object]]:
    """What is done to a store: what matters most to each, the rest in turn; what writes to it comes last."""
    some = dict([list(IN_TURN.items())[number % len(IN_TURN)]])
    last = dict([list(CHANGING_IN_TURN.items())[number % len(CHANGING_IN_TURN)]])
    return {**ALWAYS, **some, **({**CHANGING, **last} if number % 2 else {**last, **CHANGING})}


@dataclass
class Verdict:
    """What came of the cases: how many were tried, and what went wrong."""

    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")


def attack(work: Path, kind: FrameKind, chosen: list[Case], verdict: Verdict, make: Make = make_full_store) -> None:
    """Each case to a copy of a store in its own right: all that reads it, with limits on time and memory."""
    pristine, other = make(work / "pristine", kind), make(work / "other", kind, "other ")
    for case in chosen:
        place = work / "case"
        shutil.rmtree(place, ignore_errors=True)
        root, outside = Path(shutil.copytree(pristine, place / "store")), place / "outside"
        (place / "other").symlink_to(other)  # named by the user: may be a link
        outside.mkdir()
        (outside / "precious.txt").write_text("mine")
        case.change(root, outside)
        held = contents(outside)
        size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and path.lstat().st_size < 2**32)
        for name, act in actions(verdict.tried).items():
            problems = limited(partial(act, root), size, verdict, f"{kind} {case.name}: {name}")
            if contents(outside) != held:
                problems.append("changed what is outside")
                held = contents(outside)
            verdict.wrong += [f"{kind} {case.name}: {name}: {one}" for one in problems]
        verdict.tried += 1
    shutil.rmtree(work / "case", ignore_errors=True)


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def limited(act: Callable[[], object], size: int, verdict: Verdict, name: str) -> list[str]:
    """What was wrong with an action: another error than ours, too long, too much memory."""
    wrong: list[str] = []
    before, begun = reset_peak(), time.process_time()
    try:
        with warnings.catch_warnings(), no_longer_than(HUNG_SECONDS):
            warnings.simplefilter("error")
            act()
    except BgaugError as error:
        if not str(error).strip():
            wrong.append("an error that says nothing")
    except Hung:
        wrong.append("hangs")
    except Exception as error:  # noqa: BLE001
        wrong.append(f"{type(error).__name__}: {str(error)[:200]}")
    seconds, taken = time.process_time() - begun, peak() - before
    verdict.slowest = max(verdict.slowest, (seconds, name))
    verdict.largest = max(verdict.largest, (taken, name))
    if seconds > LIMIT_SECONDS:
        wrong.append(f"took {seconds:.1f} s")
    if taken > 4 * size + FREE_BYTES:
        wrong.append(f"took {taken >> 20} MiB for a store of {size} bytes")
    return wrong


def reset_peak() -> int:
    """Bytes in use now; the peak is counted from here on, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ENOENT):
            raise
    return peak()


def peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
