"""The command `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bgaug.cli.console import TerminalProgress, note, pairs_table, reported, show
from bgaug.cli.options import ConfigFile, Debug, Device, Json, Overwrite, StoreArgument, Trust, user_word

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


def train_command(
    context: typer.Context,
    store: StoreArgument,
    out: Annotated[Path, typer.Option(help="Folder of the run.", show_default=False)],
    method: Annotated[
        str,
        typer.Option(
            help="bgaug, semi, dual; plain: simclr, moco, byol; published: fame, fame-published, be, be-inter, stillmix, "
            "actorcutmix, actorcutmix-published, mixup, cutmix, dclr."
        ),
    ] = "bgaug",
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a field of the method or of its pairs, such as donor=frame, gamma=0 or stages=stage2,stage3; "
            "may be repeated.",
        ),
    ] = None,
    bank: Annotated[str | None, typer.Option(help="The store's bank of pictures, for donor=bank.")] = None,
    backbone: Annotated[
        str,
        typer.Option(
            help="tiny, r3d18, r2plus1d18, r2plus1d18-14m, s3d, slow_r18, c3d, vit, or one's own as module:function."
        ),
    ] = "r3d18",
    trust: Trust = False,
    weights: Annotated[
        str | None, typer.Option(help="Published weights to begin with, a file by torchvision's names.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the videos.", min=1)] = 200,
    steps: Annotated[int | None, typer.Option(help="Steps of the whole run, instead of epochs.", min=1)] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Clips a step, of all processes together; by default 64, or half of the videos if fewer.", min=2
        ),
    ] = None,
    accumulate: Annotated[
        int, typer.Option(help="Batches whose gradients make one step; each is contrasted within itself.", min=1)
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of weights, order, clips and augmentation.")] = 0,
    optimiser: Annotated[
        Literal["sgd", "adamw", "lars"] | None, typer.Option(help="By default sgd, for tiny adamw.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; by default what suits the backbone.")] = None,
    weight_decay: Annotated[float, typer.Option(help="On all weights but biases and normalisations.", min=0)] = 1e-4,
    warmup: Annotated[float, typer.Option(help="Share of the run in which the rate rises.", min=0, max=0.99)] = 0.05,
    schedule: Annotated[Literal["cosine", "step"], typer.Option(help="How the learning rate falls.")] = "cosine",
    drop_at: Annotated[
        list[float] | None, typer.Option(help="With step: a share of the run where it drops; by default .6 and .8.")
    ] = None,
    drop: Annotated[float, typer.Option(help="With step: by what factor.", min=0.001, max=0.999)] = 0.1,
    clip_norm: Annotated[float | None, typer.Option(help="Bring the gradient's norm down to this.")] = None,
    ema: Annotated[
        float | None,
        typer.Option(help="Keep a moving average of the encoder, of which this share stays each step, such as .999."),
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of a clip.", min=2)] = 16,
    stride: Annotated[int, typer.Option(help="Distance of the frames.", min=1)] = 2,
    crop: Annotated[int | None, typer.Option(help="Side of the crops; by default 112 or less.", min=8)] = None,
    flip: Annotated[
        float | None, typer.Option(help="Probability of a flip; 0 where left and right mean something.")
    ] = None,
    masks: Annotated[
        Literal["stored", "motion"] | None,
        typer.Option(help="Stored masks, or computed on the device; by default what the method says."),
    ] = None,
    momentum: Annotated[
        bool | None, typer.Option(help="Momentum encoder and queue; by default above 2,000 videos.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Videos of this split alone; may be repeated.")] = None,
    min_grade: Annotated[str | None, typer.Option(help="Leave out shots graded worse, A to F.")] = None,
    sync_norm: Annotated[
        bool, typer.Option(help="Synchronise batch normalisation of several GPUs, in the form in the batch.")
    ] = True,
    amp: Annotated[
        Literal["off", "bf16", "fp16"] | None, typer.Option(help="Mixed precision; by default bf16 on CUDA.")
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the encoder: a slow start, faster steps.")
    ] = False,
    channels_last: Annotated[
        bool | None, typer.Option(help="Memory format; by default on CUDA with mixed precision.")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints, beside the ends of epochs.", min=1)
    ] = None,
    keep: Annotated[int, typer.Option(help="Checkpoints that stay, the newest.", min=1)] = 2,
    best: Annotated[
        str | None,
        typer.Option(help="Also keep the best by a number of the epochs, such as motion_r1; -NAME for the lowest."),
    ] = None,
    log_every: Annotated[
        int | None, typer.Option(help="Steps whose numbers are fetched together; by default 1, on a GPU 20.", min=1)
    ] = None,
    meters: Annotated[
        int, typer.Option(help="Videos on which the bias is measured after each epoch; 0 for none.", min=0)
    ] = 0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write what TensorBoard shows.")] = False,
    threads: Annotated[int, typer.Option(help="That read clips.", min=0)] = 2,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    stop_after: Annotated[
        int | None, typer.Option(help="Stop after so many steps, as an interruption would.", min=1)
    ] = None,
    overwrite: Overwrite = False,
    config: ConfigFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train an encoder on a store, by contrast.

    A checkpoint is written after each epoch, and when the run is stopped by Ctrl-C or SIGTERM; `--resume` goes on with
    exactly the next batch. Every step is a line in RUN/log.jsonl; RUN/config.toml holds the options, for `--config`.
    Several processes: torchrun --nproc-per-node 4 -m bgaug.cli.main train ...

    Examples:

        bgaug train shards --out run --backbone tiny --epochs 2

        bgaug train shards --out run --method simclr --batch-size 32 --device cuda

        bgaug train shards --out run --set donor=far --set w_static=0.25

        bgaug train shards --out run --resume

        bgaug train shards --out run --meters 64 --best motion_r1 --tensorboard

        bgaug train shards --out again --config run/config.toml --seed 1
    """
    with reported(debug):
        from bgaug.pipelines.train.run import TrainOptions, parse_changes, train

        user_word(context, backbone, trust)
        options = TrainOptions.checked(
            method=method,
            backbone=backbone,
            weights=weights,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            accumulate=accumulate,
            seed=seed,
            optimiser=optimiser,
            lr=lr,
            weight_decay=weight_decay,
            warmup=warmup,
            schedule=schedule,
            drop=drop,
            **({"drop_at": tuple(drop_at)} if drop_at else {}),
            clip_norm=clip_norm,
            ema=ema,
            num_frames=frames,
            stride=stride,
            crop=crop,
            flip=flip,
            masks=masks,
            change=parse_changes(change or []),
            bank=bank,
            momentum=momentum,
            splits=tuple(split) if split else None,
            min_grade=min_grade,
            sync_norm=sync_norm,
            amp=amp,
            compile=compile_,
            channels_last=channels_last,
            checkpoint_every=checkpoint_every,
            keep=keep,
            best=best,
            log_every=log_every,
            meters=meters,
            tensorboard=tensorboard,
        )
        with TerminalProgress() as progress:
            result = train(
                store,
                out,
                progress,
                options=options,
                resume=resume,
                overwrite=overwrite,
                stop_after=stop_after,
                device=device,
                threads=threads,
            )
        if not result.here_tells:
            return
        show(result.to_json(), as_json, lambda: pairs_table(f"run in {out}", result.to_json()))
        if result.trained.stopped:
            note(f"stopped by {result.trained.stopped} after step {result.trained.steps}; --resume goes on from there")
            raise typer.Exit(EXIT_CODES[result.trained.stopped])
