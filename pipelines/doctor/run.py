"""`bgaug doctor`: whether this machine can do the work, and how to get what is missing.

Every part is tried, not only looked up: a package is imported, a decoder reads a small video, a device computes.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

import bgaug

State = Literal["ok", "optional", "missing"]

_MODULES = {"google-crc32c": "google_crc32c", "opencv-python": "cv2", "scikit-image": "skimage"}
"""Names of modules that differ from the name of their package."""

_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "prores")
_LITTLE_MEMORY, _LITTLE_DISK = 4e9, 5e9


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        part: what was looked at.
        state: "ok"; "optional" if something that is not needed is missing; "missing" if something does not work.
        found: what is there.
        fix: how to get what is missing; empty if nothing is.
    """

    part: str
    state: State
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings.

    Attributes:
        findings: one for each part, in a fixed order.
    """

    findings: tuple[Finding, ...]

    @property
    def missing(self) -> int:
        """Number of parts that do not work."""
        return sum(finding.state == "missing" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"missing": self.missing, "findings": [asdict(finding) for finding in self.findings]}


def diagnose(folder: Path | None = None) -> Diagnosis:
    """Look at this machine.

    Args:
        folder: where stores and runs will be; by default the current folder.
    """
    found = [Finding("bgaug", "ok", f"{bgaug.__version__} in {Path(bgaug.__file__).parent}")]
    found.append(Finding("python", "ok", f"{platform.python_version()}, {platform.system()}, {platform.machine()}"))
    found += _packages()
    found += [_decoder("pyav"), _decoder("decord"), _codecs(), _device(), _processors(), _memory()]
    found.append(_disk(folder or Path.cwd()))
    return Diagnosis(tuple(found))


def _packages() -> Iterator[Finding]:
    """One finding for what is needed, and one for each extra."""
    for extra, names in _required().items():
        # Where an extra is missing, the command that installs all of it is the fix.
        broken = {name: error for name in names if (error := _import_error(name))}
        part = f"extra {extra}" if extra else "packages"
        there = ", ".join(f"{name} {_version(name)}" for name in names if name not in broken)
        if not broken:
            yield Finding(part, "ok", there)
            continue
        reasons = "; ".join(f"{name}: {error}" for name, error in broken.items())
        fix = f'pip install "bgaug[{extra}]"' if extra else f"pip install {' '.join(broken)}"
        yield Finding(part, "optional" if extra else "missing", reasons, fix)
    several = [name for name in _OPENCV if _version(name) != "?"]
    if len(several) > 1:
        fix = f"pip uninstall {' '.join(several)}; pip install opencv-python"
        yield Finding("opencv", "optional", f"{' and '.join(several)} overwrite each other's files", fix)


def _required() -> dict[str, list[str]]:
    """Names of packages by extra, for this platform; "" for those that are always needed."""
    found: dict[str, list[str]] = {"": []}
    for line in metadata.requires("bgaug") or ():
        name = re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
        if name == "decord" or (extra and extra[1] == "dev"):
            continue  # decord is tried below, where it exists at all
        found.setdefault(extra[1] if extra else "", []).append(name)
    return found


def _import_error(package: str) -> str:
    """Why a package cannot be imported; empty if it can be."""
    try:
        import_module(_MODULES.get(package, package.replace("-", "_")))
    except ModuleNotFoundError:
        return "not installed"
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises
        return f"{type(error).__name__}: {error}"
    return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "?"


def _tried(part: str, attempt: Callable[[], str], state: State, fix: str) -> Finding:
    """What an attempt reports, or its error in a finding of this state."""
    try:
        return Finding(part, "ok", attempt())
    except ModuleNotFoundError as error:
        return Finding(part, state, f"{error.name} is not installed", fix)
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises
        return Finding(part, state, f"{type(error).__name__}: {error}", fix)


def _decoder(name: Literal["pyav", "decord"]) -> Finding:
    def attempt() -> str:
        import numpy as np

        from bgaug.video import open_video
        from bgaug.video.writing import write_video

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "video.mp4"
            write_video(path, np.full((8, 48, 64, 3), 128, np.uint8), pixel_format="yuv420p")
            with open_video(path, name) as video:
                count = sum(1 for _ in video.iter())
        if count != 8:
            raise ValueError(f"{count} of 8 frames of a generated H.264 video were read")
        return f"{_version('av' if name == 'pyav' else name)} reads a generated H.264 video"

    if name == "pyav":
        return _tried("decoder pyav", attempt, "missing", "pip install --force-reinstall av")
    return _tried("decoder decord", attempt, "optional", "none needed: the decoder pyav is the default")


def _codecs() -> Finding:
    def attempt() -> str:
        from bgaug.video.container import readable_codecs

        lacking = [name for name in _CODECS if name not in readable_codecs()]
        if lacking:
            raise ValueError(f"this FFmpeg cannot read {', '.join(lacking)}")
        return ", ".join(_CODECS)

    return _tried("codecs", attempt, "optional", "pip install --force-reinstall --only-binary av av")


def _device() -> Finding:
    def attempt() -> str:
        import torch

        cuda = torch.cuda.is_available()
        device = torch.device("cuda" if cuda else "cpu")
        if float(torch.ones(4, device=device).sum()) != 4:
            raise ValueError(f"{device} adds four ones to another number than 4")
        if cuda:
            names = [torch.cuda.get_device_properties(place) for place in range(torch.cuda.device_count())]
            return ", ".join(f"{one.name}, {one.total_memory / 1e9:.0f} GB" for one in names)
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return f"cpu; torch {torch.__version__} is {built} and sees no GPU: use --backbone tiny, or a small store"

    return _tried("device", attempt, "missing", "pip install --force-reinstall torch")


def _processors() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("processors", "ok", f"{usable} usable")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return Finding("memory", "optional", "unknown on this system")
    if total < _LITTLE_MEMORY:
        return Finding("memory", "optional", f"{total / 1e9:.1f} GB", "use --jobs 1 and a small --batch-size")
    return Finding("memory", "ok", f"{total / 1e9:.1f} GB")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.0f} GB free in {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "missing", f"{folder} cannot be written", "run it where stores and runs will be")
    if free < _LITTLE_DISK:
        return Finding("disk", "optional", found, "bgaug build-shards --estimate reports a store's size beforehand")
    return Finding("disk", "ok", found)
