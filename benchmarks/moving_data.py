"""Videos whose cameras move or whose people never leave, with their truth: for `moving.py` and `fit_motion.py`.

JHMDB: puppet masks of clips of one or two seconds, by fold. DAVIS: ten sequences, of which six are for fitting and four
for reporting. Virtual cameras: crops of a static scene whose empty plate is known, along a path that is known.

Letters: T frames, H, W pixels.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from accuracy import read_grey, read_picture
from numpy.typing import NDArray

from bgaug.video import read_video

Frames = NDArray[np.uint8]
Bools = NDArray[np.bool_]

FITTED = ("blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow")
REPORTED = ("cows", "dance-twirl", "dog", "drift-chicane")
SCENES = ("0_1_4", "13_3_2", "humanbody2", "highwayi", "office")
CAMERAS = ("pan", "pan, zoom", "pan, shake")
_SIZE, _NUM_FRAMES, _FIRST = (240, 320), 80, 20  # of a virtual camera; the first frame of the scene that it shows
_MARGIN = 1.25  # size of the scene relative to that of the image, at least
_BODY = 40  # grey levels between frame and plate


@dataclass(frozen=True)
class Clip:
    """A video with true masks.

    Attributes:
        name: of the file, or of the sequence.
        video: its path.
        truth: path of the masks.
        fold: of JHMDB; -1 for DAVIS.
    """

    name: str
    video: Path
    truth: Path
    fold: int

    @property
    def data(self) -> str:
        """Name of its data set."""
        return "DAVIS" if self.fold < 0 else "JHMDB"

    def masks(self) -> Bools:
        """True masks, bool (T, H, W); T may be less than the frames of the video."""
        if self.fold < 0:
            with zipfile.ZipFile(self.truth) as archive:
                coded = [np.frombuffer(archive.read(name), np.uint8) for name in sorted(archive.namelist())]
            return np.stack([np.asarray(cv2.imdecode(own, cv2.IMREAD_GRAYSCALE)) > 127 for own in coded])
        bits = np.load(self.truth)["bits"]
        return np.unpackbits(bits, axis=1, count=240 * 320).reshape(-1, 240, 320).astype(np.bool_)


def jhmdb(data: Path, folds: Sequence[int], every: int = 1) -> list[Clip]:
    """Every so manieth clip of some folds of JHMDB."""
    folder = data / "actions" / "jhmdb"
    with (folder / "labels.csv").open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if int(row["fold"]) in folds]
    return [
        Clip(
            row["file"],
            folder / row["file"],
            folder / row["file"].replace("videos/", "masks/").replace(".mp4", ".npz"),
            int(row["fold"]),
        )
        for row in rows[::every]
    ]


def davis(data: Path, names: Sequence[str]) -> list[Clip]:
    """Sequences of DAVIS."""
    folder = data / "moving" / "davis"
    return [Clip(name, folder / name / "video.mp4", folder / name / "gt.zip", -1) for name in names]


def overlap(mask: Bools, true: Bools, scored: Bools | None = None) -> tuple[float, float]:
    """IoU and F1 of a mask; 1 where both are empty."""
    if scored is not None:
        mask, true = mask & scored, true & scored
    common, total = int((mask & true).sum()), int(mask.sum()) + int(true.sum())
    return (common / (total - common), 2 * common / total) if total else (1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Virtual:
    """What a virtual camera shows.

    Attributes:
        frames: uint8 (T, H, W, 3).
        plates: the scene without bodies, as each frame sees it.
        known: bool (T, H, W), where the plate is known.
        bodies: bool (T, H, W), where a body hides it.
    """

    frames: Frames
    plates: Frames
    known: Bools
    bodies: Bools


def virtual(data: Path, scene: str, camera: str, seed: int) -> Virtual:
    """A camera over a static scene: it pans there or back, and perhaps zooms in by 12 % or shakes by some pixels."""
    images, plate, known = _scene(data, scene)
    height, width = _SIZE
    scale = max(height * _MARGIN / plate.shape[0], width * _MARGIN / plate.shape[1])
    x, y, zoom = _path(camera, seed, round(plate.shape[0] * scale), round(plate.shape[1] * scale))
    layers: list[tuple[Frames, Frames, Frames]] = []
    for t in range(_NUM_FRAMES):
        corner = width / 2 - (x[t] + width / 2) * zoom[t], height / 2 - (y[t] + height / 2) * zoom[t]
        view = np.array([[scale * zoom[t], 0, corner[0]], [0, scale * zoom[t], corner[1]]])
        shown = images[min(_FIRST + t, len(images) - 1)]
        frame, empty, where = (
            np.asarray(cv2.warpAffine(layer, view, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)
            for layer in (shown, plate, known)
        )
        layers.append((frame, empty, where))
    frames, plates, wheres = (np.stack(own) for own in zip(*layers, strict=True))
    knowns = wheres > 200
    bodies = [_body(frame, empty) & where for frame, empty, where in zip(frames, plates, knowns, strict=True)]
    return Virtual(frames, plates, knowns, np.stack(bodies))


def _scene(data: Path, name: str) -> tuple[Frames, Frames, Frames]:
    """Frames, plate, and where it is known (255)."""
    if name[0].isdigit():
        folder = data / "actions" / "ut_truth" / name
        video = data / "actions" / "ut_interaction_set1" / f"{name}.avi"
        plate, known = read_picture(folder / "plate.png"), read_grey(folder / "valid.png")
    else:
        folder = next(path for path in (data / "backgrounds").iterdir() if path.name.endswith(f"_{name}"))
        video = next(folder.glob("video.*"))
        plate, known = read_picture(folder / "bg_ref.png"), read_grey(folder / "bg_valid.png")
    return read_video(video).frames[: _FIRST + _NUM_FRAMES], plate, np.where(known > 0, 255, 0).astype(np.uint8)


def _path(
    camera: str, seed: int, height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Upper left corner and zoom of every frame in a scene of that size."""
    rng, t = np.random.default_rng(seed), np.arange(_NUM_FRAMES) / _NUM_FRAMES
    free_y, free_x = (height - _SIZE[0]) / 2, (width - _SIZE[1]) / 2
    x = free_x + (free_x - 6) * np.cos(np.pi * t) * (1 if seed % 2 else -1)
    y = np.full(_NUM_FRAMES, free_y)
    if "shake" in camera:
        kernel = np.ones(5) / 5
        x, y = (own + np.convolve(rng.normal(0, 4, _NUM_FRAMES + 4), kernel, "valid") for own in (x, y))
    return x, y, 1 + (0.12 * t if "zoom" in camera else 0 * t)


def _body(frame: Frames, plate: Frames) -> Bools:
    differs = (cv2.absdiff(frame, plate).max(2) > _BODY).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0)
