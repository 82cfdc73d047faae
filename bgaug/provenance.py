"""The provenance of a result: versions, state of the code, content of the store."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bgaug
from bgaug.errors import StoreError
from bgaug.store import Store
from bgaug.store.index import content_hash

_PACKAGES = ("torch", "numpy", "zarr", "opencv-python")


def versions() -> dict[str, str]:
    """Versions of bgaug, Python and numerical packages."""
    found = {"bgaug": bgaug.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # opencv has several distributions
    return found


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Commit and uncommitted changes of the checkout of a folder (by default bgaug's own); None if there is none."""
    folder = folder or Path(bgaug.__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        # A package installed inside another project's checkout is not part of its commit.
        if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None or commit is None:
            return None
        return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no", "."))}
    except (OSError, subprocess.TimeoutExpired):
        return None


def _git(folder: Path, *words: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *words], check=False, capture_output=True, text=True, timeout=10)
    return done.stdout.strip() if done.returncode == 0 else None


def store_content(store: Store) -> str | None:
    """Content hash of a store on this machine; None for other stores."""
    path = Path(store.path)
    if not path.is_dir():
        return None
    try:
        return content_hash(path)
    except StoreError:
        return None  # damage is reported by the code that reads it
