"""A trained encoder outside of bgaug: features of a video, and where in it the encoder is active.

python examples/use_encoder.py RUN|encoder.safetensors VIDEO
"""

import argparse

import torch

from bgaug import load_encoder, read_video

parser = argparse.ArgumentParser()
parser.add_argument("encoder", help="a run that `bgaug train` made, or a file of `bgaug export-weights`")
parser.add_argument("video")


def main() -> None:
    options = parser.parse_args()
    encoder = load_encoder(options.encoder)
    size, stride = encoder.info.size, encoder.info.stride

    width = size * 4 // 3  # training stores have frames of 128x171; crops are squares, here the middle one
    frames = read_video(options.video, size=(size, width)).frames[::stride][: encoder.info.num_frames]
    frames = frames[:, :, (width - size) // 2 :][:, :, :size]
    clips = torch.from_numpy(frames)[None].permute(0, 4, 1, 2, 3).float() / 255  # (1, 3, T, size, size) in [0, 1]
    with torch.no_grad():
        features = encoder(clips)  # (1, D)
        stages = encoder.stages(clips)  # by name, (1, C, T', H', W')
    print(f"{encoder.info.backbone}: {len(frames)} frames to features {tuple(features.shape)}")
    for name, maps in stages.items():
        row, column = divmod(int(maps.relu().sum(dim=(0, 1, 2)).argmax()), maps.shape[4])
        print(f"{name} {tuple(maps.shape)}: most active in row {row}, column {column} of its grid")


if __name__ == "__main__":
    main()
