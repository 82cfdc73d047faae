"""The command `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bgaug.cli.console import TerminalProgress, rows_table, show, stdout, write_lines
from bgaug.pipelines.evaluate.options import EvaluateOptions
from bgaug.pipelines.options import Option, RunPath, StorePath

if TYPE_CHECKING:
    from bgaug.metrics import Paired
    from bgaug.pipelines.evaluate.report import Report

_MOST_CLASSES = 24  # a table of more than these shows the worst
_OWN_SETTINGS = ("ks_left_out", "l2", "neighbours", "shots", "shots_left_out", "draws", "fewshot_classifier", "seed")

_CONTROLS = ("self", "same_class", "hole", "hole_shape", "metadata", "chance")
_MEANINGS = {
    "plain": "clips as they are",
    "scuba": "mover over another scene",
    "scufo": "one frame of that, repeated",
    "conflict_dynamic": "SCUBA next to a still person",
    "contrasted": "SCUBA right and SCUFO wrong",
    "swap_action": "class of the mover",
    "swap_background": "class of the scene behind it",
    "self": "mover over its own still scene",
    "same_class": "over a scene of its class",
    "hole": "clip with a hole cut out",
    "hole_shape": "... class of the hole's shape",
    "metadata": "from length, size, brightness",
    "static_clip": "one frame of the clip",
    "background_only": "own scene without the mover",
    "foreground_only": "mover over grey",
    "far": "other scene beyond a ring",
    "ring": "other scene in the ring only",
    "conflict_static": "ConflFG: class of the still one",
    "conflict_ordered": "ConflFG: mover scores higher",
    "scuba_drift": "change of the feature",
    "far_drift": "change of the feature",
    "ring_drift": "change of the feature",
    "scene_probe": "which of the scenes is behind",
}


def evaluate_command(
    run: RunPath,
    store: StorePath,
    options: EvaluateOptions,
    against: Annotated[
        tuple[Path, ...], Option("Another run to compare with, on the same videos.", metavar="RUN")
    ] = (),
    *,
    as_json: bool,
) -> None:
    """Evaluate the encoder of a run on the labelled videos of a store.

    Of frozen features: retrieval, R@k, the share of videos whose k nearest neighbours include one of their class;
    linear, a linear probe; knn, labels by the votes of the nearest; fewshot, a probe fitted on a few labelled videos
    per class. finetune trains encoder and head. bias puts foregrounds over images from elsewhere: IID,
    SCUBA, SCUFO, ConflFG, contrasted accuracy, SHAcc, SBErr, with controls. It needs masks; imported ones are all used.

    The test split is tested against the train split if there are both, else each group against the others, else each
    video. Intervals cover 95 %, by resampling whole groups. Results are kept in RUN/evaluations.

    Examples:
        bgaug evaluate run shards --protocol retrieval

        bgaug evaluate run shards --protocol retrieval,linear,knn,fewshot --feature dynamic --json

        bgaug evaluate run ucf --protocol retrieval,linear --labels ucfTrainTestlist/ --labels-split 1,2,3

        bgaug evaluate run shards --protocol finetune --from-scratch --epochs 30

        bgaug evaluate run shards --protocol linear,bias --against simclr-run
    """
    from bgaug.model.checkpoint import find_checkpoint
    from bgaug.pipelines.evaluate.report import compare
    from bgaug.pipelines.evaluate.run import evaluate

    for other in against:
        find_checkpoint(other, best=options.best)  # reported now, not after the hours of the first run
    with TerminalProgress() as progress:
        found = evaluate(run, store, progress, options)
        # The bias report of the first run is left as it is.
        others_options = replace(options, bias=replace(options.bias, out=None))
        others = {str(other): evaluate(other, store, progress, others_options) for other in against}
    compared = {name: compare(other, found) for name, other in others.items()}
    result = found.to_json() | {"against": [_comparison(name, others[name], compared[name]) for name in others]}
    show(result, as_json, lambda: _bias_table(found) if found.only_bias else _metric_table(found))
    if not as_json:
        _show_more(found, others, compared)


def _comparison(name: str, other: Report, compared: Mapping[str, Paired]) -> dict[str, Any]:
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


def _metric_table(found: Report) -> Any:
    """One row per metric: its value, interval and spreads."""
    metrics, rows = found.metrics, []
    of_bias = found.bias.metrics if found.bias is not None else {}
    for name, value in metrics.items():
        if name.endswith(("_low", "_high", "_std")) or name in of_bias:
            continue
        spread = [
            f"{metrics[key]:.1f} over {of}" for of in ("draws", "splits") if (key := f"{name}_{of}_std") in metrics
        ]
        rows.append((name, f"{value:.1f}", _interval(metrics, name), ", ".join(spread)))
    width = 4 if any(row[3] for row in rows) else 3
    header = ("metric", "%", "95 % interval", "deviation")[:width]
    s = found.settings
    return rows_table(f"{s['run']} on {s['store']}", header, [row[:width] for row in rows])


def _interval(metrics: Mapping[str, float], name: str) -> str:
    low, high = (metrics.get(f"{name}{suffix}") for suffix in ("_low", "_high"))
    return "" if low is None or high is None else f"{low:.1f} to {high:.1f}"


def _bias_table(found: Report) -> Any:
    """The bias protocol: measures by their published names, controls, and all others."""
    from bgaug.metrics.bias import PUBLISHED

    assert found.bias is not None
    metrics, s = found.bias.metrics, found.bias.settings
    masks = ", ".join(f"{count} {origin}" for origin, count in s["masks_from"].items())
    titles = [
        f"bias: {found.settings['run']} on {found.settings['store']}",
        f"{s['videos']} of {s['test_videos']} test videos, {s['groups']} groups, {s['composites']} composites",
        f"masks: {masks}; behind the foregrounds: {s['donors']}",
        *(f"left out: {count} x {reason}" for reason, count in s["left_out"].items()),
    ]
    table = rows_table(titles, ("metric", "%", "95 % interval", "meaning"), ())
    table.columns[-1].justify = "left"
    ours = {own: name for name, own in PUBLISHED.items() if name in metrics}
    shown = [name for name in metrics if not name.endswith(("_low", "_high")) and ours.get(name, name) == name]
    sections = [[*ours.values()], [name for name in _CONTROLS if name in metrics]]
    sections.append([name for name in shown if name not in (*sections[0], *sections[1])])
    for names in sections:
        for name in names:
            own = PUBLISHED.get(name, name)
            table.add_row(name, f"{metrics[name]:.1f}", _interval(metrics, name), _MEANINGS.get(own, ""))
        table.add_section()
    return table


def _show_more(found: Report, others: Mapping[str, Report], compared: Mapping[str, Mapping[str, Paired]]) -> None:
    """The bias protocol next to others, classes, comparisons, and settings."""
    if found.bias is not None and not found.only_bias:
        stdout().print(_bias_table(found))
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
        missing = [measure for measure in found.judged if measure not in pairs]
        theirs = others[name].settings
        other_clips = [
            f"{key} {theirs[key]}" for key in ("frames", "stride", "crop") if theirs[key] != found.settings[key]
        ]
        if other_clips:
            write_lines(f"{name} was trained on, and sees, other clips: {', '.join(other_clips)}")
        if missing:
            write_lines(f"not compared, because tested on other items: {', '.join(missing)}")
    write_lines(*_setting_lines(found))


def _setting_lines(found: Report) -> list[str]:
    """The settings of an evaluation, one line per topic."""
    s = found.settings
    height, width = s["size"]
    lines = [
        f"run: {s['method']} on {s['backbone']}, {s['checkpoint']}, sha256 {s['checkpoint_sha256'][:12]}...",
        f"store: content {(s['content_hash'] or 'unknown')[:12]}..., frames {height}x{width}",
    ]
    lines.append(
        f"clips: {s['clips']} per video, {s['frames']} frames at stride {s['stride']}, {s['crop_kind']} crop "
        f"{s['crop']}; feature {s['feature']}, centring: {s['centring']}"
    )
    if "held_out" in s:
        split = "" if s["split"] is None else f", split {_text(s['split'])}"
        lines.append(
            f"held out: {s['held_out']}; tested {s['tested']}, classes {s['classes']} (chance {s['chance']:.1f} %), "
            f"groups {s['groups']}; labels: {s['labels']}{split}; left out: {s['unlabelled']} without a label, "
            f"{s['left_out_by_split']} by split; class unseen: {s['class_unseen']}"
        )
    own = {name: s[name] for name in _OWN_SETTINGS if name in s}
    if own:
        lines.append(
            "settings: " + "; ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in own.items())
        )
    for name, values in (("fine-tuning", s.get("finetune")), ("bias", found.bias and found.bias.settings)):
        if values:
            shown = {key.replace("_", " "): _text(value) for key, value in values.items() if value not in (None, {})}
            lines.append(f"{name}: " + "; ".join(f"{key} {value}" for key, value in shown.items()))
    return lines if found.file is None else [*lines, f"kept in {found.file}"]


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    return str(value)


def _class_table(classes: Sequence[Mapping[str, Any]]) -> Any:
    """One row per class; of many classes, those with the lowest value of the first measure."""
    measures = [name for name in classes[0] if name not in ("class", "videos")]
    first = measures[0]
    rows, title = list(classes), "by class, %"
    if len(rows) > _MOST_CLASSES:
        rows = sorted(rows, key=lambda row: (row[first] is not None, row[first]))[:_MOST_CLASSES]
        title = f"the {_MOST_CLASSES} of {len(classes)} classes with the lowest {first}, %; the JSON has all"
    shown = [m for m in measures if not m.startswith("retrieval") or m in ("retrieval_r1", "retrieval_centred_r1")]
    cells = [
        (str(row["class"]), str(row["videos"]), *("-" if row[m] is None else f"{row[m]:.0f}" for m in shown))
        for row in rows
    ]
    return rows_table(title, ("class", "videos", *shown), cells)
