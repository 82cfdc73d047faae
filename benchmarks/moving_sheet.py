"""A contact sheet of generated videos whose camera moves: what `bgaug preview` shows of a store of them.

python benchmarks/moving_sheet.py OUT.jpg

The camera sweeps over a still scene of `bgaug.testing.scenarios` in which people walk; it also zooms in, and it is also
held by hand. The videos are compressed and built as any others.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.progress import Silent
from bgaug.store import open_store
from bgaug.testing.scenarios import make_scenario
from bgaug.video import write_video
from bgaug.visualize import contact_sheet, write_image

SIZE, SCENE = (240, 320), (480, 720)
SHOWN = 0.62  # share of the scene's height that the camera sees
NUM_FRAMES = 90

Frames = NDArray[np.uint8]


def filmed(frames: Frames, *, zoom: float = 1.0, shake: float = 0.0, back: bool = False) -> Frames:
    """The view of a camera that sweeps over a still scene, (T, H, W, 3).

    Args:
        frames: uint8 (T, h, w, 3), the whole scene.
        zoom: how much larger the scene is at the end.
        shake: standard deviation of the camera's place, pixels of the scene.
        back: from right to left.
    """
    steps = np.random.default_rng(0).normal(0, shake, (len(frames), 2))
    shown = []
    for frame, time, (dx, dy) in zip(frames, np.linspace(0, 1, len(frames)), steps, strict=True):
        height = SHOWN * frame.shape[0] * zoom ** (0.5 - time)
        width = height * SIZE[1] / SIZE[0]
        way = 1 - time if back else time
        left, top = 8 + way * (frame.shape[1] - width - 16) + dx, (frame.shape[0] - height) * 0.6 + dy
        view = np.array([[width / SIZE[1], 0, left], [0, height / SIZE[0], top]])
        seen = cv2.warpAffine(frame, view, SIZE[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        shown.append(np.asarray(seen, np.uint8))
    return np.stack(shown)


def videos() -> dict[str, Frames]:
    """Frames (T, H, W, 3) by name."""
    scenes = [
        make_scenario(name, seed, SCENE, NUM_FRAMES).frames for name, seed in (("multi", 7), ("multi", 3), ("occ20", 2))
    ]
    return {
        "pan.mp4": filmed(scenes[0]),
        "pan, zoom.mp4": filmed(scenes[1], zoom=1.3),
        "pan, shake.mp4": filmed(scenes[2], shake=1.5, back=True),
    }


def main() -> None:
    """Generate, build, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "videos")
        folder.mkdir()
        for name, frames in videos().items():
            write_video(folder / name, frames, fps=25, options={"crf": "20"}, pixel_format="yuv420p")
        build_shards(ShardOptions(inputs=[folder], out=Path(work, "shards"), size=(192, 256), jobs=1), Silent())
        print(write_image(out, contact_sheet(open_store(Path(work, "shards")), seed=1)))


if __name__ == "__main__":
    main()
