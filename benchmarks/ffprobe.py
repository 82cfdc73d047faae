"""Frames, rate, duration and display size of files compared with ffprobe's; random access with a sequential pass.

python benchmarks/ffprobe.py FILE_OR_FOLDER... [--seeks N] [--json]

Needs ffprobe. `frames` are those of a sequential pass, and ffprobe's count of decoded frames. ffprobe's rate is
`avg_frame_rate`, its duration that of the stream, else of the file; its display size is the stored size by the aspect
of its pixels, turned. A row is printed in full where anything differs, with the reason where it follows from the file;
the last line counts. Leaves with 1 if frames or display sizes differ, times do not ascend, or a frame by index is
another one.
"""

import argparse
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bgaug.errors import VideoError
from bgaug.pipelines.build.find_videos import find_videos
from bgaug.video import open_video, probe_video, read_video, timeline_of

RATE_TOLERANCE = 0.01


def ours(path: Path, seeks: int) -> dict[str, Any]:
    """Facts by bgaug; `error` for a file that is refused, `breaks` for one that ends in an error."""
    found = probe_video(path)
    if found.error or found.info is None:
        return {"error": found.error}
    breaks = ""
    try:
        whole = read_video(path)
    except VideoError as error:
        breaks, whole = error.reason, read_video(path, on_error="salvage")
    count = len(whole.frames)
    indices = np.random.default_rng(0).integers(0, count, seeks).tolist() if not breaks else []
    with open_video(path) as reader:
        wrong = sum(not np.array_equal(reader.get([index])[0], whole.frames[index]) for index in indices)
    return {
        "frames": count,
        "rate": found.info.fps,
        "seconds": found.duration_seconds,
        "display": list(found.info.display_size),
        "ascends": bool((np.diff(whole.pts_seconds) > 0).all()),
        "wrong": wrong,
        "breaks": breaks,
        "seams": len(found.seams),
        "claimed": found.info.declared_frames,
        "access": timeline_of(path).why_not or "seeks",
        "stream": next(number for number, line in enumerate(found.streams) if line.endswith("(read)")),
    }


def theirs(path: Path, stream_read: int | None) -> dict[str, Any]:
    """Facts by ffprobe of the stream that bgaug reads, else of the first video stream; empty where there is none."""
    which = "V:0" if stream_read is None else str(stream_read)
    command = ["ffprobe", "-v", "error", "-count_frames", "-select_streams", which, "-of", "json", "-show_streams"]
    done = subprocess.run([*command, "-show_format", f"file:{path}"], capture_output=True, text=True, check=False)
    document = json.loads(done.stdout or "{}")
    if not document.get("streams"):
        return {}
    stream = document["streams"][0]
    seconds = stream.get("duration") or document.get("format", {}).get("duration")
    return {
        "frames": int(stream.get("nb_read_frames") or 0),
        "rate": _ratio(stream.get("avg_frame_rate")),
        "nominal": _ratio(stream.get("r_frame_rate")),
        "seconds": float(seconds) if seconds else None,
        "display": _display(stream),
    }


def _ratio(text: str | None) -> float | None:
    over, _, under = (text or "").partition("/")
    return int(over) / int(under) if under and int(under) and int(over) else None


def _display(stream: dict[str, Any]) -> list[int]:
    height, width = int(stream["height"]), int(stream["width"])
    aspect = Fraction((stream.get("sample_aspect_ratio") or "1:1").replace(":", "/").replace("0/1", "1/1"))
    turns = [int(data["rotation"]) for data in stream.get("side_data_list", []) if "rotation" in data]
    if turns and turns[0] % 180 == 90:
        return [width, round(height / aspect)]
    return [height, round(width * aspect)]


def differences(mine: dict[str, Any], other: dict[str, Any]) -> dict[str, str]:
    """What differs, each with its reason."""
    found = {}
    if mine["frames"] != other["frames"]:
        found["frames"] = f"{mine['breaks']}: the good beginning" if mine["breaks"] else "not explained"
    if mine["display"] != other["display"]:
        found["display"] = "not explained"
    if other["rate"] is None or abs(mine["rate"] / other["rate"] - 1) > RATE_TOLERANCE:
        found["rate"] = _why_rate(mine, other)
    step = 1 / mine["rate"]
    if other["seconds"] is None or abs(mine["seconds"] - other["seconds"]) > 1.01 * step:
        found["seconds"] = _why_seconds(mine, other)
    return found


def _why_rate(mine: dict[str, Any], other: dict[str, Any]) -> str:
    if other["rate"] is None:
        return "ffprobe has none; by the times of the frames"
    if mine["frames"] < 2:
        return "one frame has no rate"
    return f"{mine['frames']} frames in {mine['seconds']:.2f} s; the header's is that of its time slots"


def _why_seconds(mine: dict[str, Any], other: dict[str, Any]) -> str:
    if mine["breaks"]:
        return f"{mine['breaks']}: of the good beginning"
    if other["seconds"] is None:
        return "ffprobe has none; by the times of the frames"
    if mine["seams"]:
        return f"times begin again {mine['seams']} time(s); ffprobe takes the last less the first"
    if mine["claimed"] is None and other["seconds"] > 10 * mine["seconds"]:
        return "the header's length is a placeholder"
    if mine["frames"] == 1:
        return "one frame"
    if mine["claimed"] and mine["claimed"] > mine["frames"]:
        return f"the header counts {mine['claimed']} time slots, {mine['frames']} have a frame"
    if other["seconds"] > mine["seconds"]:
        return "the header's, or that of the sound; the last frame shown ends earlier"
    return "the header leaves out the time of the last frames"


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("inputs", nargs="+", type=Path)
    parser.add_argument("--seeks", type=int, default=16, help="random frames a file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows, bad = {}, 0
    for source in find_videos(options.inputs):
        mine = ours(source.path, options.seeks)
        other = theirs(source.path, mine.get("stream"))
        row: dict[str, Any] = {"ours": mine, "ffprobe": other}
        if "error" not in mine and other:
            row["differs"] = differences(mine, other)
            bad += bool(mine["wrong"] or not mine["ascends"] or "display" in row["differs"])
            bad += row["differs"].get("frames") == "not explained"
        rows[source.id] = row
        if not options.json:
            _show(source.id, row)
    if options.json:
        print(json.dumps(rows))
    else:
        read = [row for row in rows.values() if "differs" in row]
        sums = {what: sum(what in row["differs"] for row in read) for what in ("frames", "display", "rate", "seconds")}
        access = sum(row["ours"]["access"] == "seeks" for row in read)
        print(f"{len(rows)} files, {len(read)} read ({access} by seeking), {bad} bad; differ from ffprobe in", sums)
    sys.exit(1 if bad else 0)


def _show(name: str, row: dict[str, Any]) -> None:
    mine, other = row["ours"], row["ffprobe"]
    if "error" in mine:
        print(f"{name}: refused: {mine['error']}; ffprobe decodes {other.get('frames', 0)} frames")
        return
    size = "x".join(map(str, mine["display"]))
    print(f"{name}: {mine['frames']} frames, {mine['rate']:.4g} fps, {mine['seconds']:.3f} s, {size}; {mine['access']}")
    if mine["wrong"] or not mine["ascends"]:
        print(f"    BAD: {mine['wrong']} frames by index are others; times ascend: {mine['ascends']}")
    for what, why in row.get("differs", {}).items():
        print(f"    {what}: ffprobe has {other[what]}: {why}")


if __name__ == "__main__":
    main()
