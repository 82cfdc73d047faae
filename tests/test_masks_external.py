from __future__ import annotations

import json
import os
import pickle
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgaug.errors import MasksError, UsageError
from bgaug.masks import pack_mask
from bgaug.masks.external import ExternalMasks, decode_run_lengths, find_masks
from bgaug.names import MaskValues

CORNER = np.array([[0, 1, 0], [1, 1, 0]], np.bool_)
"""Down its columns: 0 1, 1 1, 0 0."""
CORNER_RUN = {"size": [2, 3], "counts": [1, 3, 2]}


# --- slow writers of our own ------------------------------------------------------------------------------------------


def run_lengths(mask: np.ndarray) -> list[int]:
    """Runs down the columns, zeros first, one pixel after the other."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def run_string(counts: Sequence[int]) -> str:
    """COCO's string, one character after the other."""
    text = ""
    for place, count in enumerate(counts):
        number = count - counts[place - 2] if place > 2 else count
        while True:
            bits, number = number & 31, number >> 5
            last = number == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if last else 32))
            if last:
                break
    return text


def png(rows: Sequence[bytes], width: int, depth: int = 8, colour: int = 0, palette: bytes = b"") -> bytes:
    """A PNG of given bit depth and colour type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    colours = chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + colours + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def grey_png(values: Any) -> bytes:
    pixels = np.asarray(values, np.uint8)
    return png([row.tobytes() for row in pixels], pixels.shape[1])


CORNER_PNG = grey_png(CORNER * 255)


def put(root: Path, name: str, data: bytes | str | Any) -> Path:
    """A file with all its folders: bytes as they are, anything else as JSON."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


def put_npz(root: Path, name: str, **arrays: Any) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def masks_of(root: Path, **options: Any) -> ExternalMasks:
    """Masks of a.mp4, the one video."""
    found = find_masks(root, ["a.mp4"], **options)
    assert found.without == ()
    return found.of["a.mp4"]


def get(masks: ExternalMasks, index: int) -> np.ndarray:
    mask = masks.frame(index)
    assert mask is not None and mask.dtype == np.bool_ and mask.flags.writeable
    return mask


# --- run lengths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "counts", "text"),
    [
        (CORNER, [1, 3, 2], "132"),
        (np.zeros((2, 2)), [4], "4"),
        (np.ones((2, 2)), [0, 4], "04"),
        (np.zeros((1, 1)), [1], "1"),
        (np.ones((1, 1)), [0, 1], "01"),
        (np.zeros((5, 3)), [15], "?"),
        (np.zeros((4, 4)), [16], "`0"),  # 16 has the bit of the sign, so a character more
        (np.zeros((25, 40)), [1000], "Xo0"),  # 01000, 11111, 00000
        ([[0, 0, 0], [1, 1, 1]], [1, 1, 1, 1, 1, 1], "111000"),  # from the fourth on, differences to the last but one
        ([[0], [0], [1], [1], [1], [0], [1]], [2, 3, 1, 1], "231N"),  # 1 after 3: -2, 11110
    ],
)
def test_run_lengths_by_hand(mask: Any, counts: list[int], text: str) -> None:
    expected = np.asarray(mask, np.bool_)
    size = list(expected.shape)
    assert run_lengths(expected) == counts and run_string(counts) == text
    for form in (counts, text):
        decoded = decode_run_lengths({"size": size, "counts": form})
        assert np.array_equal(decoded, expected) and decoded.dtype == np.bool_


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 10**6))
def test_run_lengths_come_back(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    counts = run_lengths(mask)
    for form in (counts, run_string(counts)):
        assert np.array_equal(decode_run_lengths({"size": [height, width], "counts": form}), mask)


def test_long_runs_come_back() -> None:
    mask = np.zeros((1080, 1920), np.bool_)
    mask[100:900, 3:1900] = True
    counts = run_lengths(mask)
    assert np.array_equal(decode_run_lengths({"size": [1080, 1920], "counts": run_string(counts)}), mask)


def test_runs_of_no_length_are_no_error() -> None:
    assert np.array_equal(decode_run_lengths({"size": [2, 3], "counts": [1, 1, 0, 2, 2, 0]}), CORNER)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 3], "must add up to 6, got 4"),
        ([1, 3, 2, 1], "must add up to 6, got 7"),
        ([1, -1, 6], "out of range"),
        ([2**62, 2**62, 2**62, 2**62, 6], "out of range"),  # wraps to 6 in 64 bits
        ([2**64 + 6], "list of integers"),
        ([1.0, 3.0, 2.0], "list of integers"),
        ([1, "3", 2], "list of integers"),
        ([[1, 3], [2]], "list of integers"),
        ([], "list of integers"),
        (None, "list of integers"),
        ({"1": 3}, "list of integers"),
        ("", "empty"),
        ("13", "must add up to 6, got 4"),
        ("13`", "break off"),
        ("13 2", "hold ' ' at 2"),
        ("13é", "hold 'é' at 2"),
        ("1p2", "hold 'p' at 1"),
        ("oooooooo0", "number of 9 characters"),
        ("O7", "out of range"),  # -1
    ],
)
def test_malformed_counts_are_named(tmp_path: Path, counts: Any, message: str) -> None:
    run = {"size": [2, 3], "counts": counts}
    with pytest.raises(ValueError, match=message):
        decode_run_lengths(run)
    put(tmp_path, "a.json", [CORNER_RUN, run])
    masks = masks_of(tmp_path)
    assert np.array_equal(get(masks, 0), CORNER)
    with pytest.raises(MasksError, match=rf"a\.json: video a\.mp4, frame 1: .*{message}"):
        masks.frame(1)


@pytest.mark.parametrize("size", [[2], [2, 0], [2, -3], [2.0, 3], "2x3", None, [2**20, 2**20], [True, 6]])
def test_malformed_sizes_are_named(tmp_path: Path, size: Any) -> None:
    put(tmp_path, "a.json", [{"size": size, "counts": [6]}])
    with pytest.raises(MasksError, match=r"frame 0: a size is \[height, width\]"):
        masks_of(tmp_path).frame(0)


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("grey", CORNER_PNG),
        ("labels", grey_png(CORNER * np.array([[0, 7, 0], [1, 2, 0]]))),
        ("1 bit", png([b"\x40", b"\xc0"], 3, 1)),
        ("2 bit", png([b"\x10", b"\x90"], 3, 2)),
        ("16 bit", png([b"\0\0\0\1\0\0", b"\1\0\0\1\0\0"], 3, 16)),  # values that 8 bits would lose
        ("colour", png([bytes([0, 0, 0, 0, 0, 9, 0, 0, 0]), bytes([9, 0, 0, 0, 9, 0, 0, 0, 0])], 3, 8, 2)),
        ("palette", png([b"\0\1\0", b"\2\1\0"], 3, 8, 3, b"\0\0\0\x80\0\0\0\x80\0")),
        ("1 bit palette", png([b"\x40", b"\xc0"], 3, 1, 3, b"\0\0\0\0\0\x80")),
        ("reversed palette", png([b"\xbf", b"\x3f"], 3, 1, 3, b"\xff\xff\xff\0\0\0")),  # as optimisers write it
        ("grey and alpha", png([b"\0\xff\1\0\0\xff", b"\1\xff\1\xff\0\0"], 3, 8, 4)),
        (
            "colour and alpha",
            png([b"\0\0\0\xff\0\1\0\0\0\0\0\xff", b"\1\0\0\xff\0\0\1\xff\0\0\0\0"], 3, 8, 6),
        ),
    ],
)
def test_any_kind_of_png(tmp_path: Path, name: str, data: bytes) -> None:
    put(tmp_path, "a/000000.png", data)
    assert np.array_equal(get(masks_of(tmp_path), 0), CORNER), name


def test_pictures_are_found_by_the_last_number_of_their_names(tmp_path: Path) -> None:
    for index in (0, 5, 12):
        column = np.arange(20) == index
        put(tmp_path, f"a/take2_{index:06d}_mask.PNG", grey_png(np.tile(column, (4, 1))))
    put(tmp_path, "a/.000003.png", b"hidden")
    masks = masks_of(tmp_path)
    assert masks.indices() == [0, 5, 12] and masks.num_frames is None
    assert masks.frame(3) is None and masks.frame(-1) is None and masks.frame(99) is None
    for index, mask in masks:
        assert mask[:, index].all() and mask.sum() == 4


def test_the_first_number_is_an_option_and_never_guessed(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        put(tmp_path, f"a/{number}.png", CORNER_PNG)
    assert masks_of(tmp_path).indices() == [1, 2, 3]
    assert masks_of(tmp_path, first=1).indices() == [0, 1, 2]
    with pytest.raises(MasksError, match=r"'1.png' lies before the first frame, which has the number 2"):
        masks_of(tmp_path, first=2).indices()


GREYS = np.array([[0, 50, 85], [170, 255, 255]])


@pytest.mark.parametrize(("values", "share"), [("nonzero", 5), ("cdnet", 2)])
def test_meaning_of_values_is_an_option(tmp_path: Path, values: MaskValues, share: int) -> None:
    put(tmp_path, "a/0.png", grey_png(GREYS))
    put(tmp_path, "a/1.png", png([np.repeat(row, 3).astype(np.uint8).tobytes() for row in GREYS], 3, 8, 2))
    put_npz(tmp_path, "b.npz", masks=GREYS[None].astype(np.int16))
    found = find_masks(tmp_path, ["a.avi", "b.avi"], values=values)
    for mask in (get(found.of["a.avi"], 0), get(found.of["a.avi"], 1), get(found.of["b.avi"], 0)):
        assert mask.sum() == share and mask[1, 1:].all()


def test_cdnet_has_five_values(tmp_path: Path) -> None:
    put(tmp_path, "a/0.png", grey_png([[0, 1, 255, 128]]))
    put(tmp_path, "a/1.png", png([b"\xff\0\0"], 1, 8, 2))
    masks = masks_of(tmp_path, values="cdnet")
    with pytest.raises(MasksError, match=r"0\.png: .*these hold 1, 128; read them with values='nonzero'"):
        masks.frame(0)
    with pytest.raises(MasksError, match=r"1\.png: .*have colours"):
        masks.frame(1)
    np.save(tmp_path / "b.npy", np.array([[[0, 1]]]))
    with pytest.raises(MasksError, match="frame 0: .*hold 1;"):
        find_masks(tmp_path, ["b.mp4"], values="cdnet").of["b.mp4"].frame(0)


def test_bool_arrays_have_no_values_to_mistake(tmp_path: Path) -> None:
    put_npz(tmp_path, "a.npz", masks=CORNER[None])
    assert np.array_equal(get(masks_of(tmp_path, values="cdnet"), 0), CORNER)


def test_every_part_of_a_png_is_watched(tmp_path: Path) -> None:
    """Whatever byte is missing or changed, there is an error and never a mask."""
    path = put(tmp_path, "a/000000.png", CORNER_PNG)
    masks = masks_of(tmp_path)
    for length in range(len(CORNER_PNG)):
        path.write_bytes(CORNER_PNG[:length])
        with pytest.raises(MasksError, match="breaks off|begin like one"):
            masks.frame(0)
    for place in range(len(CORNER_PNG)):
        changed = bytearray(CORNER_PNG)
        changed[place] ^= 0x24
        path.write_bytes(changed)
        with pytest.raises(MasksError, match=r"a/000000\.png: .*(breaks off|begin like one|damaged)"):
            masks.frame(0)


def test_pngs_whole_outside_and_wrong_inside(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "a/0.png", png([b"\0"] * 4, 8))  # fewer pixels than the header declares
    put(tmp_path, "a/1.png", png([b"\0"], 2**31 - 1))
    masks = masks_of(tmp_path)
    for index in (0, 1):
        with pytest.raises(MasksError, match=rf"{index}\.png: a PNG that cannot be decoded"):
            masks.frame(index)
    capfd.readouterr()  # output of the decoder


def test_pictures_of_one_video_have_one_size(tmp_path: Path) -> None:
    put(tmp_path, "a/0.png", CORNER_PNG)
    put(tmp_path, "a/1.png", grey_png(CORNER.T))
    masks = masks_of(tmp_path)
    with pytest.raises(MasksError, match=r"a/1\.png: is 3x2, but 0\.png is 2x3; a video's masks have one size"):
        list(masks)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["000000.jpg"], r"000000\.jpg: masks are read only from PNGs"),
        (["000000.png", "000001.JPEG"], r"000001\.JPEG: masks are read only from PNGs"),
        (["1.png", "001.png"], r"001\.png and 1\.png are the same frame 1"),
        (["1.png", "plate.png"], r"end in the frame number, like 000012\.png, got 'plate\.png'"),
        ([f"{10**19}.png"], "end in the frame number"),
    ],
)
def test_names_of_pictures_that_are_wrong(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        put(tmp_path, f"a/{name}", CORNER_PNG)
    with pytest.raises(MasksError, match=message):
        masks_of(tmp_path).indices()


# --- arrays -----------------------------------------------------------------------------------------------------------

STACK = np.random.default_rng(0).random((3, 5, 7)) < 0.5


@pytest.mark.parametrize(
    "arrays",
    [
        {"masks": STACK},
        {"masks": STACK.astype(np.uint8) * 255, "notes": np.zeros(3)},
        {"whatever": STACK.astype(np.int64) * -3},
        {"masks": np.asfortranarray(STACK)},
        {"packed": pack_mask(STACK), "size": [5, 7]},
        {"packed": pack_mask(STACK), "size": np.array([5, 7], np.uint16), "notes": np.zeros(3)},
    ],
)
def test_arrays(tmp_path: Path, arrays: dict[str, Any]) -> None:
    put_npz(tmp_path, "a.npz", **arrays)
    masks = masks_of(tmp_path)
    assert masks.num_frames == 3 and list(masks.indices()) == [0, 1, 2]
    assert masks.frame(-1) is None and masks.frame(3) is None
    assert all(np.array_equal(mask, STACK[index]) for index, mask in masks)


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path: Path, order: Any) -> None:
    np.save(tmp_path / "a.mp4.npy", np.asarray(STACK * np.uint8(2), order=order))
    masks = masks_of(tmp_path)
    assert masks.num_frames == 3
    assert all(np.array_equal(get(masks, index), STACK[index]) for index in range(3))


def test_arrays_under_the_other_suffix(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    put_npz(tmp_path, "b.npz", masks=STACK)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    for masks in find_masks(tmp_path, ["a.mp4", "b.mp4"]).of.values():
        assert np.array_equal(get(masks, 2), STACK[2])


def test_no_frames_at_all(tmp_path: Path) -> None:
    put_npz(tmp_path, "a.npz", masks=STACK[:0])
    np.save(tmp_path / "b.npy", STACK[:0])
    for masks in find_masks(tmp_path, ["a.mp4", "b.mp4"]).of.values():
        assert masks.num_frames == 0 and masks.frame(0) is None and list(masks) == []


def test_masks_are_the_callers_own(tmp_path: Path) -> None:
    put_npz(tmp_path, "a.npz", masks=STACK)
    masks = masks_of(tmp_path)
    get(masks, 0)[:] = True
    assert np.array_equal(get(masks, 0), STACK[0])


def test_arrays_are_read_once_and_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_npz(tmp_path, "a.npz", masks=STACK)
    loads = []
    load = np.load

    def counted(*args: Any, **options: Any) -> Any:
        loads.append(args)
        return load(*args, **options)

    monkeypatch.setattr(np, "load", counted)
    masks = masks_of(tmp_path)
    assert len(loads) == 0
    for index in (2, 0, 1, 1):
        masks.frame(index)
    assert len(loads) == 1
    list(masks)
    assert len(loads) == 1
    with masks:
        masks.frame(0)
        masks.frame(1)
    assert len(loads) == 2
    for _ in masks:
        break
    masks.frame(0)
    assert len(loads) == 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"masks": STACK[0]}, r"must be \(T, H, W\), got masks.shape = \(5, 7\); a single mask is masks\[None\]"),
        ({"masks": STACK[..., None]}, r"must be \(T, H, W\)"),
        ({"masks": STACK[:, :0]}, r"must be \(T, H, W\)"),
        ({"masks": STACK * 0.5}, r"bool or integers, got masks.dtype = dtype\('float64'\); save scores by a threshold"),
        ({"masks": np.array([[["a"]]])}, "bool or integers"),
        ({"masks": np.array([[[None]]], object)}, "holds Python objects"),
        ({"one": STACK, "two": STACK}, "an array `masks`, or `packed` and `size`, it has: one, two"),
        ({}, "it has: nothing"),
        ({"packed": pack_mask(STACK), "size": [7, 7]}, r"uint8 \(T, 7\) for masks of 7x7, got packed.shape = \(3, 5\)"),
        ({"packed": pack_mask(STACK).astype(int), "size": [5, 7]}, "packed must be uint8"),
        ({"packed": np.uint8(3), "size": [5, 7]}, "packed must be uint8"),
        ({"packed": pack_mask(STACK), "size": [5, 7, 1]}, r"size must be \[H, W\]"),
        ({"packed": pack_mask(STACK), "size": [5.0, 7.0]}, r"size must be \[H, W\]"),
        ({"packed": pack_mask(STACK), "size": [0, 7]}, r"size must be \[H, W\]"),
    ],
)
def test_arrays_that_are_wrong(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    put_npz(tmp_path, "a.npz", **arrays)
    with pytest.raises(MasksError, match=rf"a\.npz: .*{message}"):
        masks_of(tmp_path).frame(0)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_arrays_that_break_off(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        put_npz(tmp_path, path.name, masks=STACK)
    else:
        np.save(path, STACK)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(MasksError, match="is no complete .npz or .npy"):
            masks_of(tmp_path).frame(0)


def test_damaged_npz(tmp_path: Path) -> None:
    path = put_npz(tmp_path, "a.npz", masks=STACK)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x24
        path.write_bytes(changed)
        try:
            assert np.array_equal(get(masks_of(tmp_path), 0), STACK[0])  # for example a date
        except MasksError:
            refused += 1
    assert refused > len(whole) / 2


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    put(tmp_path, "a.npy", pickle.dumps([STACK]))
    with pytest.raises(MasksError, match="is no complete .npz or .npy, or holds Python objects"):
        masks_of(tmp_path).frame(0)


# --- JSON -------------------------------------------------------------------------------------------------------------


def run_of(mask: np.ndarray, text: bool = True) -> dict[str, Any]:
    counts = run_lengths(mask)
    return {"size": list(mask.shape), "counts": run_string(counts) if text else counts}


LEFT, RIGHT = (np.arange(35).reshape(5, 7) % 7 < 2, np.arange(35).reshape(5, 7) % 7 > 4)


def test_a_list_with_an_entry_a_frame(tmp_path: Path) -> None:
    put(tmp_path, "a.json", [run_of(LEFT), None, [run_of(LEFT), run_of(RIGHT, text=False)], []])
    masks = masks_of(tmp_path)
    assert masks.num_frames == 4 and masks.indices() == [0, 2, 3]
    assert np.array_equal(get(masks, 0), LEFT) and masks.frame(1) is None
    assert np.array_equal(get(masks, 2), LEFT | RIGHT)
    assert get(masks, 3).shape == (5, 7) and not get(masks, 3).any()  # no person there
    assert masks.frame(4) is None and masks.frame(-1) is None


def test_a_list_without_any_size_has_no_masks(tmp_path: Path) -> None:
    put(tmp_path, "a.json", [None, [], []])
    masks = masks_of(tmp_path)
    assert masks.num_frames == 3 and masks.indices() == [] and masks.frame(1) is None


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    put(tmp_path, "a.json", b"\xef\xbb\xbf" + json.dumps([CORNER_RUN]).encode())
    assert np.array_equal(get(masks_of(tmp_path), 0), CORNER)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([None, [[1, 1, 5, 1, 5, 5]]], r"video a\.mp4, frame 1: expected run lengths .* a polygon"),
        ([[1, 1, 5, 1, 5, 5]], r"frame 0: expected run lengths"),
        ([CORNER_RUN, {"size": [3, 2], "counts": [6]}], r"frame 1: 3x2 after 2x3; a video's masks have one size"),
        ([{"counts": [6]}], r"frame 0: expected run lengths .* got {'counts': \[6\]}"),
        ([3], "frame 0: expected null, run lengths or a list of them, got 3"),
        (["132"], "frame 0: expected null, run lengths or a list of them, got '132'"),
        ({"size": [2, 3], "counts": [6]}, "expected a list with one entry per frame"),
        ("text", "expected a list with one entry per frame, .* got 'text'"),
        (b"", "is no JSON in UTF-8"),
        (b'[{"size": [2, 3], "cou', "is no JSON in UTF-8, or incomplete"),
        (b'{"annotations": [', "is no JSON in UTF-8, or incomplete"),
        ('["é"]'.encode("latin-1"), "is no JSON in UTF-8"),
        (b"[" * 200_000, "is no JSON"),
    ],
)
def test_lists_that_are_wrong(tmp_path: Path, data: Any, message: str) -> None:
    put(tmp_path, "a.json", data)
    with pytest.raises(MasksError, match=rf"a\.json: .*{message}"):
        masks_of(tmp_path).frame(0)


def youtube_vis(**changes: Any) -> dict[str, Any]:
    """Two people in three of the frames of a clip, and a clip without people."""
    data = {
        "videos": [
            {
                "id": 7,
                "file_names": [f"walk/clip é 1/{n:05d}.jpg" for n in (0, 5, 10)],
                "height": 5,
                "width": 7,
                "length": 3,
            },
            {"id": 8, "file_names": ["run/nobody/00000.jpg"], "height": 5, "width": 7, "length": 1},
        ],
        "annotations": [
            {"id": 1, "video_id": 7, "category_id": 1, "segmentations": [run_of(LEFT), None, run_of(LEFT, False)]},
            {"id": 2, "video_id": 7, "category_id": 2, "segmentations": [run_of(RIGHT), None, None]},
        ],
    }
    return data | changes


def test_youtube_vis(tmp_path: Path) -> None:
    path = put(tmp_path, "instances.json", youtube_vis())
    ids = ["walk/clip é 1.mp4", "run/nobody.avi", "other.mp4"]
    for place in (path, tmp_path):
        found = find_masks(place, ids)
        assert list(found.of) == ["run/nobody.avi", "walk/clip é 1.mp4"] and found.without == ("other.mp4",)
        assert found.unused == ()
        masks = found.of["walk/clip é 1.mp4"]
        assert masks.num_frames is None and masks.indices() == [0, 5, 10] and masks.path == path
        assert np.array_equal(get(masks, 0), LEFT | RIGHT) and np.array_equal(get(masks, 10), LEFT)
        assert get(masks, 5).shape == (5, 7) and not get(masks, 5).any()
        assert not get(found.of["run/nobody.avi"], 0).any()
        masks.close()
        assert np.array_equal(get(masks, 10), LEFT)
    assert find_masks(path, ids[1:]).unused == ("instances.json: walk/clip é 1",)


@pytest.mark.parametrize("key", ["name", "file_name"])
@pytest.mark.parametrize("name", ["a", "a.mp4"])
def test_youtube_vis_without_pictures(tmp_path: Path, key: str, name: str) -> None:
    """Frames by their place, whatever `first` is; the size may be known from the run lengths only."""
    runs = [None, run_of(LEFT), None]
    path = put(
        tmp_path,
        "all.json",
        {"videos": [{"id": "v", key: name, "length": 3}], "annotations": [{"video_id": "v", "segmentations": runs}]},
    )
    masks = masks_of(path, first=1)
    assert masks.num_frames == 3 and masks.indices() == [0, 1, 2]
    assert np.array_equal(get(masks, 1), LEFT) and not get(masks, 0).any()


def coco(**changes: Any) -> dict[str, Any]:
    data = {
        "images": [
            {"id": 11, "file_name": "a/000001.jpg", "height": 5, "width": 7},
            {"id": 12, "file_name": "a/000003.jpg", "height": 5, "width": 7},
            {"id": 13, "file_name": "b/000001.jpg", "height": 5, "width": 7},
            {"id": 14, "file_name": "b/000002.jpg", "height": 9, "width": 9},
            {"id": 15, "file_name": "alone.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 11, "segmentation": run_of(LEFT)},
            {"id": 2, "image_id": 11, "segmentation": run_of(RIGHT, text=False)},
            {"id": 3, "image_id": 15, "segmentation": [[1, 2, 3, 4, 5, 6]]},
        ],
        "categories": [],
    }
    return data | changes


def test_coco(tmp_path: Path) -> None:
    path = put(tmp_path, "annotations/all.json", coco())
    for place in (path, tmp_path):
        found = find_masks(place, ["a.mp4"], first=1)
        masks = found.of["a.mp4"]
        assert masks.num_frames is None and masks.indices() == [0, 2]
        assert np.array_equal(get(masks, 0), LEFT | RIGHT)
        assert get(masks, 2).shape == (5, 7) and not get(masks, 2).any()
        label = path.name if place == path else "annotations/all.json"
        assert found.unused == (label, f"{label}: b")  # what is wrong with others is no matter
    other = find_masks(path, ["b.mp4"], first=1).of["b.mp4"]
    with pytest.raises(MasksError, match=r"video b\.mp4, frame 1: 9x9 after 5x7"):
        other.indices()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (coco(images=[{"id": 1}]), "must have a `file_name`"),
        (coco(images=[{"file_name": "a/1.png"}]), "expected `id`"),
        (coco(images=[{"id": 1, "file_name": "a/1.png"}] * 2), "2 images have 1 different ids"),
        (coco(images=[3]), "`images` must be a list of objects"),
        (coco(annotations=None), "`annotations` must be a list of objects, got None"),
        (coco(annotations=[{"image_id": 1}]), "image_id 1, which is not in the file"),
        (coco(annotations=[{"image_id": 11}]), r"video a\.mp4, frame 1: expected run lengths .* got None"),
        (coco(annotations=[{"image_id": 11, "segmentation": []}]), "frame 1: expected run lengths"),
        (coco(annotations=[{"image_id": 11, "segmentation": [[1, 2, 3]]}]), "frame 1: .* a polygon: convert it"),
        (coco(annotations=[{"image_id": 11, "segmentation": CORNER_RUN}]), "frame 1: 2x3 after 5x7"),
        (
            coco(images=[{"id": 1, "file_name": "a/1.png"}, {"id": 2, "file_name": "a/01.png"}], annotations=[]),
            "frame 1: 'a/01.png' is the second image",
        ),
        (coco(images=[{"id": 1, "file_name": "a/x.png"}], annotations=[]), "names that end in the frame number"),
        (youtube_vis(videos=[{"id": 7, "name": "a"}]), "`file_names` or a `length`"),
        (youtube_vis(videos=[{"id": 7, "name": "a", "length": -1}]), "`file_names` or a `length`"),
        (youtube_vis(videos=[{"id": 7, "name": "a", "length": 10**9}]), "`length` of at most 1000000"),
        (youtube_vis(videos=[{"id": 7, "name": "a", "length": 2}]), "video a: expected `segmentations` for 2 .* got 3"),
        (youtube_vis(videos=[{"id": 7, "name": "a", "length": 3}] * 2), "two videos have the id 7"),
        (youtube_vis(videos=[{"id": 7, "file_names": ["a/1.png", "b/2.png"]}]), "in several folders: a, b"),
        (youtube_vis(videos=[{"id": 7, "file_names": "a/1.png"}]), "`file_names` must be a list of names"),
        (youtube_vis(videos=[{"id": 9, "name": "a", "length": 3}]), "video_id 7, which is not in the file"),
        (youtube_vis(videos=[{"id": 7, "name": "a", "length": 3, "height": "5", "width": 7}]), r"a size is \[height"),
        ({"videos": [{"id": 7, "name": "a", "length": 1}]}, "expected `annotations` and `videos` or `images`"),
        ([CORNER_RUN], "give the folder that holds it"),
    ],
)
def test_files_for_many_that_are_wrong(tmp_path: Path, data: Any, message: str) -> None:
    path = put(tmp_path, "all.json", data)
    with pytest.raises(MasksError, match=rf"all\.json: .*{message}"):
        find_masks(path, ["a.mp4"]).of["a.mp4"].indices()


# --- which masks are whose --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".mp4"])
def test_every_form_with_and_without_the_suffix(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, f"walk/clip 1 é{suffix}/000000.png", CORNER_PNG)
    put_npz(tmp_path, f"walk/v1.2{suffix}.npz", masks=CORNER[None])
    np.save(tmp_path / f"three{suffix}.npy", CORNER[None])
    put(tmp_path, f"x/y/four{suffix}.json", [CORNER_RUN])
    put(tmp_path, "all.json", coco(images=[{"id": 11, "file_name": f"z/five{suffix}/0.png"}], annotations=[]))
    ids = ["walk/clip 1 é.mp4", "walk/v1.2.mp4", "three.mp4", "x/y/four.mp4", "z/five.mp4"]
    found = find_masks(tmp_path, ids)
    assert sorted(found.of) == sorted(ids) and found.without == found.unused == ()
    for video_id in ids[:4]:
        assert np.array_equal(get(found.of[video_id], 0), CORNER), video_id


def test_accents_match_however_they_are_composed(tmp_path: Path) -> None:
    put(tmp_path, unicodedata.normalize("NFD", "clip é") + "/0.png", CORNER_PNG)
    name = unicodedata.normalize("NFC", "clip é.mp4")
    assert list(find_masks(tmp_path, [name]).of) == [name]


def test_what_is_left_over_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", b"the video itself")
    put(tmp_path, "a/0.png", CORNER_PNG)
    put(tmp_path, "a/notes.txt", b"")
    put(tmp_path, "b/deep/0.png", CORNER_PNG)
    put(tmp_path, "frames/0.jpg", b"")
    put(tmp_path, "c.npz", b"never opened")
    put(tmp_path, "d.json", [])
    put(tmp_path, "meta.json", {"fps": 25})
    put(tmp_path, "masks.zip", b"")
    put(tmp_path, "0.png", CORNER_PNG)
    put(tmp_path, ".hidden/0.png", CORNER_PNG)
    found = find_masks(tmp_path, ["a.mp4", "b.mp4"])
    assert list(found.of) == ["a.mp4"] and found.without == ("b.mp4",)
    expected = ["./", "a/notes.txt", "b/deep/", "c.npz", "d.json", "frames/", "masks.zip", "meta.json"]
    assert list(found.unused) == expected


@pytest.mark.parametrize(
    ("first", "second", "labels"),
    [
        ("a/0.png", "a.mp4/0.png", "a.mp4/ and a/|a/ and a.mp4/"),
        ("a/0.png", "a.npz", "a.npz and a/|a/ and a.npz"),
        ("a.npy", "a.mp4.json", "a.mp4.json and a.npy"),
    ],
)
def test_two_candidates(tmp_path: Path, first: str, second: str, labels: str) -> None:
    for name in (first, second):
        put(tmp_path, name, CORNER_PNG)
    with pytest.raises(MasksError, match=f"two candidates for the masks of a.mp4: ({labels}); keep one"):
        find_masks(tmp_path, ["a.mp4"])
    find_masks(tmp_path, ["b.mp4"])


def test_two_candidates_one_of_them_in_a_file_for_many(tmp_path: Path) -> None:
    put(tmp_path, "all.json", coco(annotations=[]))
    put(tmp_path, "a/0.png", CORNER_PNG)
    with pytest.raises(MasksError, match="two candidates for the masks of a.mp4: a/ and all.json: a; keep"):
        find_masks(tmp_path, ["a.mp4"])
    two = [{"id": n, "name": "a", "length": 0} for n in (1, 2)]
    path = put(tmp_path, "vis.json", {"videos": two, "annotations": []})
    with pytest.raises(MasksError, match="two candidates for the masks of a.mp4: vis.json: a and vis.json: a"):
        find_masks(path, ["a.mp4"])


def test_one_candidate_for_two_videos(tmp_path: Path) -> None:
    put(tmp_path, "a/0.png", CORNER_PNG)
    with pytest.raises(MasksError, match=r"a matches 2 videos \(a.avi, a.mp4\); name their masks with the suffix"):
        find_masks(tmp_path, ["a.mp4", "a.avi"])
    (tmp_path / "a").rename(tmp_path / "a.avi")
    found = find_masks(tmp_path, ["a.mp4", "a.avi"])
    assert list(found.of) == ["a.avi"] and found.without == ("a.mp4",)


def test_nothing_escapes_the_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "masks", tmp_path / "elsewhere"
    put(outside, "0.png", CORNER_PNG)
    put_npz(outside, "c.npz", masks=CORNER[None])
    images = [
        {"id": n, "file_name": name} for n, name in enumerate(["../a/0.png", "x/../a/0.png", "/a/0.png", "a/../0.png"])
    ]
    path = put(inside, "all.json", {"images": images, "annotations": []})
    (inside / "b").symlink_to(outside)
    (inside / "c.npz").symlink_to(outside / "c.npz")
    ids = ["a.mp4", "b.mp4", "c.mp4"]
    found = find_masks(inside, ids)
    assert found.of == {} and found.without == tuple(ids)
    assert {"b", "c.npz", "all.json: ../a", "all.json: x/../a", "all.json: /a"} <= set(found.unused)
    assert find_masks(path, ids).of == {}
    (inside / "a").mkdir()
    (inside / "a" / "0.png").symlink_to(outside / "0.png")
    with pytest.raises(MasksError, match=r"a/0\.png: is a link that leads out"):
        find_masks(inside, ids).of["a.mp4"].indices()


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    put(tmp_path, "a/0.png", CORNER_PNG)
    (tmp_path / "a" / "1.png").symlink_to(tmp_path / "a" / "0.png")
    put_npz(tmp_path, "b.npz", masks=CORNER[None])
    (tmp_path / "c.npz").symlink_to(tmp_path / "b.npz")
    found = find_masks(tmp_path, ["a.mp4", "b.mp4", "c.mp4"])
    assert [mask.sum() for masks in found.of.values() for _, mask in masks] == [3] * 4


@pytest.mark.parametrize("name", ["none", "masks.zip"])
def test_paths_that_are_wrong(tmp_path: Path, name: str) -> None:
    put(tmp_path, "masks.zip", b"")
    with pytest.raises(MasksError, match="no such file or folder|expected a folder or a .json file") as caught:
        find_masks(tmp_path / name, ["a.mp4"])
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.path == tmp_path / name and str(again) == str(caught.value) and isinstance(again, ValueError)


def test_options_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="first = -1"):
        find_masks(tmp_path, [], first=-1)
    values: Any = "any"
    with pytest.raises(UsageError, match="values = 'any'"):
        find_masks(tmp_path, [], values=values)


def test_files_that_vanish(tmp_path: Path) -> None:
    """Masks that were deleted after the search: the error names the file."""
    picture = put(tmp_path, "a/0.png", CORNER_PNG)
    array = put_npz(tmp_path, "b.npz", masks=CORNER[None])
    runs = put(tmp_path, "c.json", [CORNER_RUN])
    found = find_masks(tmp_path, ["a.mp4", "b.mp4", "c.mp4"])
    assert found.of["a.mp4"].indices() == [0]
    for path, masks in zip((picture, array, runs), found.of.values(), strict=True):
        os.unlink(path)
        with pytest.raises(MasksError, match="cannot be read: No such file") as caught:
            masks.frame(0)
        assert caught.value.path == path
    os.rmdir(tmp_path / "a")
    with pytest.raises(MasksError, match="a: cannot be read"):
        masks = found.of["a.mp4"]
        masks.close()
        masks.indices()


def test_masks_cross_processes(tmp_path: Path) -> None:
    put(tmp_path, "a/0.png", CORNER_PNG)
    put_npz(tmp_path, "b.npz", masks=CORNER[None])
    put(tmp_path, "c.json", [CORNER_RUN])
    put(tmp_path, "all.json", {"videos": [{"id": 1, "name": "d", "length": 1}], "annotations": []})
    for masks in find_masks(tmp_path, ["a.mp4", "b.mp4", "c.mp4"]).of.values():
        assert np.array_equal(get(pickle.loads(pickle.dumps(masks)), 0), CORNER)
    there = pickle.loads(pickle.dumps(find_masks(tmp_path, ["d.mp4"]).of["d.mp4"]))
    assert there.num_frames == 1


# --- real ones --------------------------------------------------------------------------------------------------------


def test_real_masks(real_data: Path, tmp_path: Path) -> None:
    """Masks of people, by both conventions; the stricter one is what they are scored by."""
    name = "11_2_3"
    with zipfile.ZipFile(real_data / "actions" / "ut_truth" / name / "masks.zip") as archive:
        archive.extractall(tmp_path / name)
    ids = [path.name for path in (real_data / "actions" / "ut_interaction_set1").glob("*.avi")]
    loose = find_masks(tmp_path, ids).of[f"{name}.avi"]
    strict = find_masks(tmp_path, ids, values="cdnet").of[f"{name}.avi"]
    assert list(loose.indices()) == list(range(0, 135, 5))
    assert loose.frame(1) is None and strict.num_frames is None
    areas = []
    for (index, wide), (same, narrow) in zip(loose, strict, strict=True):
        assert index == same and wide.shape == narrow.shape == (272, 184)
        assert not (narrow & ~wide).any()
        areas.append((narrow.mean(), wide.mean()))
    people, marked = np.mean(areas, 0)
    assert 0.03 < people < 0.5 and people < marked


def test_real_masks_in_every_form(real_data: Path, tmp_path: Path) -> None:
    """The same masks as images, bits and run lengths."""
    with zipfile.ZipFile(real_data / "backgrounds" / "sbi_cavignal" / "gt.zip") as archive:
        archive.extractall(tmp_path / "pictures" / "video", archive.namelist()[:20])
    masks = np.stack(
        [mask for _, mask in find_masks(tmp_path / "pictures", ["video.mp4"], values="cdnet").of["video.mp4"]]
    )
    assert masks.shape == (20, 136, 200) and masks.any()
    put_npz(tmp_path, "bits/video.npz", packed=pack_mask(masks), size=masks.shape[1:])
    put(tmp_path, "runs/video.json", [run_of(mask) for mask in masks])
    for folder in ("bits", "runs"):
        for index, mask in find_masks(tmp_path / folder, ["video.mp4"]).of["video.mp4"]:
            assert np.array_equal(mask, masks[index])
