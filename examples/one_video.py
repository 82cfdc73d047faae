"""One video to its static background and its foreground masks.

python examples/one_video.py [VIDEO] [--out FOLDER]

Without a video, one is generated. Writes background.png and mask.png.
"""

import argparse
from pathlib import Path

from bgaug import estimate_background, foreground_mask, read_video
from bgaug.testing.synthetic import make_split
from bgaug.video import write_video
from bgaug.visualize import overlay, write_image

parser = argparse.ArgumentParser()
parser.add_argument("video", nargs="?", type=Path)
parser.add_argument("--out", type=Path, default=Path("out"))


def main() -> None:
    options = parser.parse_args()
    path = options.video
    if path is None:
        path = options.out / "generated.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, make_split("unbiased_test", count=1, size=160).frames[0])

    video = read_video(path)  # frames u1 (T, H, W, 3), and the time of each
    background = estimate_background(video.frames)
    masks = foreground_mask(video.frames, background)  # bool (T, H, W)

    middle = len(video.frames) // 2
    print(f"{len(video.frames)} frames at {video.fps:.4g} fps, foreground {masks.mean():.1%}")
    print(write_image(options.out / "background.png", background.image))
    print(write_image(options.out / "mask.png", overlay(video.frames[middle], masks[middle])))


if __name__ == "__main__":
    main()
