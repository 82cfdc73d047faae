"""The command `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bgaug.cli.console import TerminalProgress, reported, rows_table, say, show, stdout
from bgaug.cli.options import (
    ClassNames,
    Columns,
    ConfigFile,
    Debug,
    Device,
    FirstClass,
    Json,
    LabelsFormat,
    OwnBackbone,
    StoreArgument,
    Trust,
    user_word,
)

if TYPE_CHECKING:
    from bgaug.metrics import Paired
    from bgaug.pipelines.evaluate.run import EvaluateOptions, Evaluation

MOST_CLASSES = 24  # a table of more than these shows the worst
OWN_SETTINGS = ("ks_left_out", "l2", "neighbours", "shots", "shots_left_out", "draws", "fewshot_classifier", "seed")


def evaluate_command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run that train made, or one checkpoint of it.", show_default=False)],
    store: StoreArgument,
    protocol: Annotated[
        str, typer.Option(help="retrieval, linear, knn, finetune, fewshot, bias; several with commas.")
    ] = "retrieval",
    feature: Annotated[
        Literal["global", "dynamic", "static", "dynamic+static"] | None,
        typer.Option(help="Code of a clip; by default what suits the method: dynamic for bgaug and dual, else global."),
    ] = None,
    clips: Annotated[int, typer.Option(help="Evenly spaced clips of each video, averaged.", min=1)] = 10,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another run to compare with, on the same videos; may be repeated.", show_default=False),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="List of labels, or the folder that a data set ships, in place of all labels, groups and splits of the store; "
            "see build-shards --labels.",
            rich_help_panel="Labels",
        ),
    ] = None,
    labels_format: LabelsFormat = "auto",
    class_names: ClassNames = None,
    first_class: FirstClass = None,
    columns: Columns = None,
    splits: Annotated[
        str | None,
        typer.Option(
            help="Splits of the list, such as 1,2,3, or all: their mean and spread.", rich_help_panel="Labels"
        ),
    ] = None,
    centre: Annotated[
        bool,
        typer.Option(
            "--centre",
            help="Also retrieval of features less their mean over the tested and over the gallery, as some publish it.",
        ),
    ] = False,
    l2: Annotated[
        str, typer.Option(help="Penalty of the linear probe, or cv: chosen inside the training videos.")
    ] = "0.003",
    neighbours: Annotated[
        int | None, typer.Option(help="That vote, for knn; by default 10, or as many as there are.", min=1)
    ] = None,
    shots: Annotated[
        str, typer.Option(help="Labelled videos a class, for fewshot.", rich_help_panel="Few labels")
    ] = "1,5,10",
    draws: Annotated[
        int, typer.Option(help="Of the labelled videos, for fewshot.", min=1, rich_help_panel="Few labels")
    ] = 10,
    fewshot_classifier: Annotated[
        Literal["linear", "centroid"],
        typer.Option(help="Linear probe, or nearest class mean.", rich_help_panel="Few labels"),
    ] = "linear",
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch",
            help="With finetune: the same from fresh weights, for comparison.",
            rich_help_panel="Fine-tuning",
        ),
    ] = False,
    epochs: Annotated[int, typer.Option(help="Of finetune.", min=1, rich_help_panel="Fine-tuning")] = 60,
    finetune_batch_size: Annotated[
        int, typer.Option(help="Clips a step of finetune.", min=2, rich_help_panel="Fine-tuning")
    ] = 32,
    optimiser: Annotated[
        Literal["sgd", "adamw"] | None,
        typer.Option(help="Of finetune; by default sgd, for tiny adamw.", rich_help_panel="Fine-tuning"),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Highest learning rate of finetune; by default what suits the backbone.", rich_help_panel="Fine-tuning"
        ),
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Of finetune.", min=0, rich_help_panel="Fine-tuning")] = 5e-4,
    dropout: Annotated[
        float, typer.Option(help="Before the head, in finetune.", min=0, max=0.99, rich_help_panel="Fine-tuning")
    ] = 0.5,
    flip: Annotated[
        float | None,
        typer.Option(
            help="Probability of a flip in finetune; by default as in the run.",
            min=0,
            max=1,
            rich_help_panel="Fine-tuning",
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            help="Trainings of finetune where no split says who is tested.", min=2, rich_help_panel="Fine-tuning"
        ),
    ] = 5,
    bias_composites: Annotated[
        int, typer.Option(help="Of each test video, for bias.", min=1, rich_help_panel="Bias")
    ] = 3,
    bias_donors: Annotated[
        Literal["backgrounds", "stripes", "bank", "folder"],
        typer.Option(help="Pictures behind them, for bias.", rich_help_panel="Bias"),
    ] = "backgrounds",
    bias_bank: Annotated[
        str | None, typer.Option(help="Name of the bank, for --bias-donors bank.", rich_help_panel="Bias")
    ] = None,
    bias_folder: Annotated[
        Path | None, typer.Option(help="Of pictures, for --bias-donors folder.", rich_help_panel="Bias")
    ] = None,
    bias_videos: Annotated[
        int | None, typer.Option(help="Test videos of bias at most; all by default.", min=1, rich_help_panel="Bias")
    ] = None,
    bias_manifest: Annotated[
        Path | None, typer.Option(help="Composites of an earlier bias evaluation.", rich_help_panel="Bias")
    ] = None,
    bias_out: Annotated[
        Path | None, typer.Option(help="Folder for manifest, report and sheet of bias.", rich_help_panel="Bias")
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace files in --bias-out that are of other kinds.", rich_help_panel="Bias"
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of fewshot's draws, finetune and bias.", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Videos encoded at once.", min=1)] = 8,
    threads: Annotated[int, typer.Option(help="That read clips.", min=0)] = 2,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep features in RUN/features.")] = True,
    best: Annotated[bool, typer.Option("--best", help="The best checkpoint instead of the last.")] = False,
    backbone: OwnBackbone = None,
    trust: Trust = False,
    device: Device = None,
    config: ConfigFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what the encoder of a run is worth on the labelled videos of a store.

    Of frozen features: retrieval, R@k, the share of videos whose k nearest neighbours include one of their class;
    linear, a linear probe; knn, labels by the votes of the nearest; fewshot, a probe that saw a few labelled videos a
    class. finetune trains encoder and head. bias puts foregrounds over foreign pictures.

    The test split is held against the train split where there are both, else each group against the others, else each
    video. Intervals are of 95 %, by drawing whole groups again. Results are kept in RUN/evaluations.

    Examples:

        bgaug evaluate run shards --protocol retrieval

        bgaug evaluate run shards --protocol retrieval,linear,knn,fewshot --feature dynamic --json

        bgaug evaluate run ucf --protocol retrieval,linear --labels ucfTrainTestlist/ --splits 1,2,3

        bgaug evaluate run shards --protocol finetune --from-scratch --epochs 30

        bgaug evaluate run shards --protocol linear,bias --against simclr-run
    """
    with reported(debug):
        from bgaug.model.checkpoint import find_checkpoint
        from bgaug.pipelines.evaluate.bias.run import BiasOptions
        from bgaug.pipelines.evaluate.fine_tuning import FinetuneOptions
        from bgaug.pipelines.evaluate.run import EvaluateOptions, compare, evaluate

        options = EvaluateOptions(
            feature=feature,
            clips=clips,
            batch_size=batch_size,
            threads=threads,
            cache=cache,
            best=best,
            centre=centre,
            l2=_penalty(l2),
            neighbours=neighbours,
            shots=_numbers(shots, "--shots"),
            draws=draws,
            classifier=fewshot_classifier,
            seed=seed,
            labels=labels,
            labels_format=labels_format,
            class_names=class_names,
            first_class=first_class,
            columns=columns,
            splits=None if splits is None else () if splits.strip() == "all" else _numbers(splits, "--splits"),
            finetune=FinetuneOptions(
                epochs=epochs,
                batch_size=finetune_batch_size,
                optimiser=optimiser,
                lr=lr,
                weight_decay=weight_decay,
                dropout=dropout,
                flip=flip,
                seed=seed,
                folds=folds,
            ),
            from_scratch=from_scratch,
            bias=BiasOptions(
                composites=bias_composites,
                donors=bias_donors,
                bank=bias_bank,
                folder=bias_folder,
                videos=bias_videos,
                manifest=bias_manifest,
                out=bias_out,
                overwrite=overwrite,
                seed=seed,
            ),
        )
        word = user_word(context, backbone, trust)
        protocols = [name.strip() for name in protocol.split(",") if name.strip()]
        for other in against or ():
            find_checkpoint(other, best=best)  # told now, not after the first run's hours
        with TerminalProgress() as progress:
            found = evaluate(run, store, progress, protocols=protocols, options=options, device=device, word=word)
            others = {
                str(other): evaluate(
                    other, store, progress, protocols=protocols, options=_beside(options), device=device, word=word
                )
                for other in against or ()
            }
        compared = {name: compare(other, found) for name, other in others.items()}
        result = found.to_json() | {"against": [_told(name, others[name], compared[name]) for name in others]}
        show(result, as_json, lambda: _metric_table(found))
        if not as_json:
            _show_more(found, others, compared)


def _beside(options: EvaluateOptions) -> EvaluateOptions:
    """The same for a run to compare with, which leaves the first one's bias report alone."""
    from dataclasses import replace

    return replace(options, bias=None if options.bias is None else replace(options.bias, out=None))


def _penalty(text: str) -> float | None:
    from bgaug.errors import UsageError

    if text.strip() == "cv":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--l2 takes a number or cv, got {text!r}") from error


def _numbers(text: str, option: str) -> tuple[int, ...]:
    from bgaug.errors import UsageError

    try:
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found or min(found) < 1 or len(set(found)) < len(found):
        raise UsageError(f"{option} takes different numbers of 1 or more with commas, such as 1,2,3, got {text!r}")
    return found


def _told(name: str, other: Evaluation, compared: Mapping[str, Paired]) -> dict[str, Any]:
    """A comparison for `--json`, differences in percent."""
    rows = {
        measure: {
            "difference": round(100 * pair.difference, 2),
            "low": round(100 * pair.low, 2),
            "high": round(100 * pair.high, 2),
            "p": round(pair.p, 6),
            "groups": pair.num_groups,
            "better": pair.num_better,
            "worse": pair.num_worse,
        }
        for measure, pair in compared.items()
    }
    return {"run": name, "differences": rows, **other.to_json()}


def _metric_table(found: Evaluation) -> Any:
    """A row a metric: its value, interval and spreads."""
    metrics, rows = found.metrics, []
    for name, value in metrics.items():
        if name.endswith(("_low", "_high", "_std")):
            continue
        ends = [metrics.get(f"{name}{suffix}") for suffix in ("_low", "_high")]
        spread = [
            f"{metrics[key]:.1f} over {of}" for of in ("draws", "splits") if (key := f"{name}_{of}_std") in metrics
        ]
        interval = "" if None in ends else f"{ends[0]:.1f} to {ends[1]:.1f}"
        rows.append((name, f"{value:.1f}", interval, ", ".join(spread)))
    width = 4 if any(row[3] for row in rows) else 3
    header = ("metric", "%", "95 % interval", "deviation")[:width]
    s = found.settings
    return rows_table(f"{s['run']} on {s['store']}", header, [row[:width] for row in rows])


def _show_more(
    found: Evaluation, others: Mapping[str, Evaluation], compared: Mapping[str, Mapping[str, Paired]]
) -> None:
    """Classes, comparisons, and how it was come by."""
    if found.classes:
        stdout().print(_class_table(found.classes))
    for name, pairs in compared.items():
        rows = [
            (
                measure,
                f"{100 * pair.difference:+.1f}",
                f"{100 * pair.low:+.1f} to {100 * pair.high:+.1f}",
                f"{pair.p:.3g}",
                f"{pair.num_better} / {pair.num_worse} of {pair.num_groups}",
            )
            for measure, pair in pairs.items()
        ]
        header = ("difference", "%", "95 % interval", "p", "groups better / worse")
        stdout().print(rows_table(f"{found.settings['run']} less {name}", header, rows))
        missing = [measure for measure in found.outcomes if measure not in pairs]
        theirs = others[name].settings
        other_clips = [
            f"{key} {theirs[key]}" for key in ("frames", "stride", "crop") if theirs[key] != found.settings[key]
        ]
        if other_clips:
            say(f"{name} was trained on, and sees, other clips: {', '.join(other_clips)}")
        if missing:
            say(f"not compared, because tested on other items: {', '.join(missing)}")
    say(*_setting_lines(found))


def _setting_lines(found: Evaluation) -> list[str]:
    """How the numbers were come by, a line a topic."""
    s = found.settings
    height, width = s["size"]
    lines = [
        f"run: {s['method']} on {s['backbone']}, {s['checkpoint']}, sha256 {s['checkpoint_sha256'][:12]}...",
        f"store: content {(s['content_hash'] or 'unknown')[:12]}..., frames {height}x{width}",
    ]
    lines.append(
        f"clips: {s['clips']} a video, {s['frames']} frames at stride {s['stride']}, {s['crop_kind']} crop {s['crop']}; "
        f"feature {s['feature']}, centring: {s['centring']}"
    )
    if "held_out" in s:
        split = "" if s["split"] is None else f", split {_text(s['split'])}"
        lines.append(
            f"held out: {s['held_out']}; tested {s['tested']}, classes {s['classes']} (chance {s['chance']:.1f} %), groups "
            f"{s['groups']}; labels: {s['labels']}{split}; left out: {s['unlabelled']} without a label, "
            f"{s['left_out_by_split']} by split; class unseen: {s['class_unseen']}"
        )
    own = {name: s[name] for name in OWN_SETTINGS if name in s}
    if own:
        lines.append(
            "settings: " + "; ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in own.items())
        )
    for name, values in (("fine-tuning", s.get("finetune")), ("bias", found.bias and found.bias["settings"])):
        if values:
            told = {key.replace("_", " "): _text(value) for key, value in values.items() if value is not None}
            lines.append(f"{name}: " + "; ".join(f"{key} {value}" for key, value in told.items()))
    return lines if found.file is None else [*lines, f"kept in {found.file}"]


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    return str(value)


def _class_table(classes: Sequence[Mapping[str, Any]]) -> Any:
    """A row a class; of very many those on which the first measure is worst."""
    measures = [name for name in classes[0] if name not in ("class", "videos")]
    first = measures[0]
    rows, title = list(classes), "by class, %"
    if len(rows) > MOST_CLASSES:
        rows = sorted(rows, key=lambda row: (row[first] is not None, row[first]))[:MOST_CLASSES]
        title = f"the {MOST_CLASSES} of {len(classes)} classes with the lowest {first}, %; all stand in the JSON"
    shown = [m for m in measures if not m.startswith("retrieval") or m in ("retrieval_r1", "retrieval_centred_r1")]
    cells = [
        (str(row["class"]), str(row["videos"]), *("-" if row[m] is None else f"{row[m]:.0f}" for m in shown))
        for row in rows
    ]
    return rows_table(title, ("class", "videos", *shown), cells)
