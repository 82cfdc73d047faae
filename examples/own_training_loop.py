"""bgaug's pairs in a training loop of one's own: the dataset, a plain DataLoader, one module on the batch.

python examples/own_training_loop.py STORE [--steps N]
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from bgaug import ClipDataset, SemiNegativePairs
from bgaug.data.dataset import ClipOptions
from bgaug.model.losses import info_nce
from bgaug.pairs import Augmentation

parser = argparse.ArgumentParser()
parser.add_argument("store", type=Path)
parser.add_argument("--steps", type=int, default=4)


def main() -> None:
    options = parser.parse_args()
    torch.manual_seed(0)
    # Your own encoder: anything from (B, 3, T, h, w) to (B, D).
    encoder = nn.Sequential(
        nn.Conv3d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 32)
    )
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=1e-3)

    # The three lines that bgaug adds: dataset, pairs, and the call on the batch.
    dataset = ClipDataset(options.store, ClipOptions(num_frames=8, stride=1))
    make_pairs = SemiNegativePairs(Augmentation.standard(32))
    loader = DataLoader(dataset, batch_size=3, shuffle=True, drop_last=True, collate_fn=ClipDataset.collate)

    step = 0
    while step < options.steps:
        dataset.set_epoch(step)
        for batch in loader:
            pairs = make_pairs(batch)
            loss = info_nce(encoder(pairs.anchor), encoder(pairs.semi), video=pairs.video, weight=pairs.weight)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            print(f"step {step}  loss {loss.item():.3f}")
            if step == options.steps:
                break


if __name__ == "__main__":
    main()
