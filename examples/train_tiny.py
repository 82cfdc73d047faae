"""From a folder of videos to a trained encoder, from Python.

python examples/train_tiny.py VIDEOS [--out FOLDER] [--epochs N]
"""

import argparse
from pathlib import Path

from bgaug.model.checkpoint import load_run
from bgaug.pipelines.build.options import ShardOptions
from bgaug.pipelines.build.shards import build_shards
from bgaug.pipelines.train.run import TrainOptions, train
from bgaug.progress import Silent

parser = argparse.ArgumentParser()
parser.add_argument("videos", type=Path)
parser.add_argument("--out", type=Path, default=Path("out"))
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--crop", type=int, default=56)


def main() -> None:
    options = parser.parse_args()
    store, run = options.out / "shards", options.out / "run"
    built = build_shards(ShardOptions(inputs=[options.videos], out=store), Silent())
    print(f"{built.to_json()['videos']} videos, {built.bytes / 1e6:.1f} MB")

    chosen = TrainOptions(backbone="tiny", epochs=options.epochs, num_frames=8, crop=options.crop, resume=True)
    result = train(store, run, Silent(), chosen)
    print(f"{result.trained.steps} steps, loss {result.trained.loss:.2f}")

    learner = load_run(run, device="cpu").learner  # learner.features(clips) gives (B, 96)
    print(f"an encoder of {sum(weight.numel() for weight in learner.encoder.backbone.parameters())} weights")


if __name__ == "__main__":
    main()
