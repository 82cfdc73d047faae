"""Contact sheets to look at: what backgrounds and masks come to, next to the median and the truth.

python benchmarks/sheets.py OUT.png [--truth gt|ut|scenarios] [--data DIR] [--sequences a,b] [--method auto] [--refine]

One row a sequence: the median; the background of the method, never-seen parts hatched; two frames with their masks
drawn over them; the true mask of the second. Truths and sequences are those of `accuracy.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from accuracy import FOREGROUND, LOADERS, Sequence, data_folder, find_sequences
from numpy.typing import NDArray

from bgaug.masks import foreground_mask
from bgaug.shots.estimate import estimate_background
from bgaug.visualize import hatched, overlay, write_image

WIDTH, CAPTION = 200, 18
COLUMNS = ("median", "background", "mask", "mask", "truth")


def row(sequence: Sequence, method: str, refine: bool) -> NDArray[np.uint8]:
    """One sequence, its longest shot."""
    shot = max(sequence.shots, key=lambda shot: shot.stop - shot.start)
    frames = sequence.frames[shot.start : shot.stop]
    background = estimate_background(frames, method)  # type: ignore[arg-type]
    known = sorted(i for i in sequence.masks if shot.start <= i < shot.stop)
    chosen = (
        [known[len(known) // 4], known[3 * len(known) // 4]] if known else [shot.start, (shot.start + shot.stop) // 2]
    )
    masks = foreground_mask(frames, background, refine)
    cells = [estimate_background(frames, "median").image, hatched(background.image, background.valid)]
    cells += [overlay(sequence.frames[i], masks[i - shot.start]) for i in chosen]
    truth = sequence.masks.get(chosen[1])
    cells.append(np.zeros_like(cells[0]) if truth is None else overlay(sequence.frames[chosen[1]], truth == FOREGROUND))
    height = round(WIDTH * frames.shape[1] / frames.shape[2])
    strip = np.hstack([cv2.resize(cell, (WIDTH, height), interpolation=cv2.INTER_AREA) for cell in cells])
    text = f"{sequence.name}  grade {background.grade}: {'; '.join(background.reasons)}"
    return np.vstack([strip, captioned(text, strip.shape[1])])


def captioned(text: str, width: int) -> NDArray[np.uint8]:
    """A bar of text."""
    bar = np.full((CAPTION, width, 3), 24, np.uint8)
    cv2.putText(bar, text, (6, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (225, 225, 225), 1, cv2.LINE_AA)
    return bar


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--truth", choices=list(LOADERS), default="scenarios")
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--sequences", default="")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--refine", action="store_true")
    options = parser.parse_args()
    wanted = [name for name in options.sequences.split(",") if name]
    found = find_sequences(options.truth, options.data, wanted)
    rows = [row(LOADERS[options.truth](item, None), options.method, options.refine) for item in found]
    header = np.hstack([captioned(name, WIDTH) for name in COLUMNS])
    print(write_image(options.out, np.vstack([header, *rows])))


if __name__ == "__main__":
    main()
