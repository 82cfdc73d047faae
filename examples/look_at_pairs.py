"""Look at the pairs that training sees: anchors above, below them the second view by each policy, a column a clip.

python examples/look_at_pairs.py STORE [--policies background,fame,be] [--plain] [--out pairs.png]

STORE is what `bgaug build-shards` made.
"""

import argparse
from pathlib import Path

import torch

from bgaug import ClipDataset, ClipLoader, SemiNegativePairs
from bgaug.data.dataset import ClipOptions
from bgaug.pairs import POLICIES, Augmentation
from bgaug.visualize import write_image

parser = argparse.ArgumentParser()
parser.add_argument("store", type=Path)
parser.add_argument("--out", type=Path, default=Path("pairs.png"))
parser.add_argument("--clips", type=int, default=6)
parser.add_argument("--policies", default="background", help=f"with commas, of {', '.join(POLICIES)}")
parser.add_argument("--plain", action="store_true", help="leave colours, flips and crops out")


def main() -> None:
    options = parser.parse_args()
    dataset = ClipDataset(options.store, ClipOptions(num_frames=8, stride=1))
    size = min(112, *dataset.store.size)
    config = Augmentation.standard(size)
    if options.plain:
        config = Augmentation(size=size, scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grey=0, blur=0)
    batch = next(iter(ClipLoader(dataset, options.clips)))
    middle = dataset.options.num_frames // 2
    images = []
    for policy in options.policies.split(","):
        pairs = SemiNegativePairs(config, policy)(batch)  # anchor, semi: f4 (B, 3, T, h, w) in [0, 1]
        images += [] if images else [pairs.anchor[:, :, middle]]
        images.append(pairs.semi[:, :, middle])
        for place, donor in enumerate(pairs.donor.tolist()):
            name = dataset.store.video_id(int(pairs.video[place]))
            print(
                f"{policy}: column {place}, {name}" + (f", over the background of column {donor}" if donor >= 0 else "")
            )
    rows = [torch.cat(list(row), dim=2) for row in images]
    sheet = (torch.cat(rows, dim=1).permute(1, 2, 0) * 255).round().to(torch.uint8)
    print(write_image(options.out, sheet.numpy()))


if __name__ == "__main__":
    main()
