"""Where a result comes from: versions, the state of the code, the store."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bgaug
from bgaug.errors import StoreError
from bgaug.store import Store
from bgaug.store.verify import content_hash

PACKAGES = ("torch", "numpy", "zarr", "opencv-python")


def versions() -> dict[str, str]:
    """Of bgaug, Python and what it computes with."""
    found = {"bgaug": bgaug.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # opencv also goes by other names
    return found


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Commit and whether anything is changed, of the checkout that a folder (by default bgaug's own) lies in; or None."""
    folder = folder or Path(bgaug.__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        # A package installed below some other project's checkout is not what that commit holds.
        if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None or commit is None:
            return None
        return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no", "."))}
    except (OSError, subprocess.TimeoutExpired):
        return None


def _git(folder: Path, *words: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *words], check=False, capture_output=True, text=True, timeout=10)
    return done.stdout.strip() if done.returncode == 0 else None


def store_content(store: Store) -> str | None:
    """The content hash of a store on this machine; None of one that is read from elsewhere."""
    path = Path(store.path)
    if not path.is_dir():
        return None
    try:
        return content_hash(path)
    except StoreError:
        return None  # what is damaged is told where it is read
