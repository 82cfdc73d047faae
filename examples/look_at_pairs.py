"""Look at the pairs that training sees: anchor above, semi-negative below, a column a clip.

python examples/look_at_pairs.py STORE [--out pairs.png]

STORE is what `bgaug build-shards` made.
"""

import argparse
from pathlib import Path

import torch

from bgaug import ClipDataset, ClipLoader, SemiNegativePairs
from bgaug.augment import Augmentation
from bgaug.dataset import ClipOptions
from bgaug.visualize import write_picture

parser = argparse.ArgumentParser()
parser.add_argument("store", type=Path)
parser.add_argument("--out", type=Path, default=Path("pairs.png"))
parser.add_argument("--clips", type=int, default=6)


def main() -> None:
    options = parser.parse_args()
    dataset = ClipDataset(options.store, ClipOptions(num_frames=8, stride=1))
    size = min(112, *dataset.store.size)
    make_pairs = SemiNegativePairs(Augmentation.standard(size))

    batch = next(iter(ClipLoader(dataset, options.clips)))
    pairs = make_pairs(batch)  # anchor, semi: f4 (B, 3, T, h, w) in [0, 1]

    middle = pairs.anchor.shape[2] // 2
    rows = [torch.cat(list(clips[:, :, middle]), dim=2) for clips in (pairs.anchor, pairs.semi)]
    picture = (torch.cat(rows, dim=1).permute(1, 2, 0) * 255).round().to(torch.uint8)
    for place, donor in enumerate(pairs.donor.tolist()):
        print(
            f"column {place}: {dataset.store.video_id(int(pairs.video[place]))} over the background of column {donor}"
        )
    print(write_picture(options.out, picture.numpy()))


if __name__ == "__main__":
    main()
