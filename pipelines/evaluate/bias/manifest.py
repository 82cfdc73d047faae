"""Which composites a bias evaluation is made of, as a small JSON file: the same test for everybody who has the store.

The file's sha256 names the test.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, ValidationError

from bgaug.errors import UsageError
from bgaug.files import write_bytes
from bgaug.metrics.bias import Stripes
from bgaug.store import Store

FORMAT = "bgaug-bias"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Donor(_Record):
    """What stands behind a foreground.

    Attributes:
        kind: "video" (its background), "bank" (a picture of a bank of the store), "file" or "stripes".
        id: of the video; name of the picture; of stripes, a number.
        shot: of the video.
        label: class of the video.
        sha256: of the picture, so that another one of that name is noticed.
        stripes: their parameters.
    """

    kind: Literal["video", "bank", "file", "stripes"]
    id: str
    shot: int | None = None
    label: str | None = None
    sha256: str | None = None
    stripes: Stripes | None = None


class Inserted(_Record):
    """The still foreground that stands beside a moving one: a frame of another video, and how far to the right it goes."""

    id: str
    shot: int
    frame: int
    label: str
    shift: int


class Row(_Record):
    """One composite.

    Attributes:
        id: of the video whose foreground it shows.
        k: number among that video's composites.
        label: class of the video.
        group: of the video; its id where unknown.
        shot: that the clips come from.
        starts: first frame of each clip.
        still: which of a clip's frames the static counterpart repeats, from 0.
        donor: what stands behind.
        inserted: for the conflict.
    """

    id: str
    k: int
    label: str
    group: str
    shot: int
    starts: tuple[int, ...]
    still: int
    donor: Donor
    inserted: Inserted

    @property
    def name(self) -> str:
        """`id__k`."""
        return f"{self.id}__{self.k}"


class SceneTest(_Record):
    """Foregrounds, each over all of a few pictures: which picture is it? Half 0 trains for half 1, and the reverse."""

    donors: tuple[Donor, ...]
    halves: dict[str, int]


class Manifest(_Record):
    """A bias test.

    Attributes:
        format: `FORMAT`.
        version: of the format.
        content_hash: of the store it was made for.
        seed: of all draws.
        num_frames: of a clip.
        stride: distance of the frames.
        crop: side of the centre crop; lengths below are pixels of it.
        grow: dilation of the masks.
        feather: of their seams.
        ring: width of the ring.
        rows: the composites; those of one video together.
        scene: the scene probe's part; None where there were too few videos.
    """

    format: Literal["bgaug-bias"] = "bgaug-bias"
    version: Literal[1] = 1
    content_hash: str
    seed: int
    num_frames: PositiveInt
    stride: PositiveInt
    crop: PositiveInt
    grow: NonNegativeFloat
    feather: NonNegativeFloat
    ring: NonNegativeFloat
    rows: tuple[Row, ...]
    scene: SceneTest | None = None

    def to_bytes(self) -> bytes:
        """The file, the same bytes for the same test."""
        return self.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def write_manifest(manifest: Manifest, path: Path) -> Path:
    """Write a manifest as JSON; returns its path.

    Raises:
        WriteError: the system refuses; the earlier file is as it was.
    """
    write_bytes(path, manifest.to_bytes())
    return path


def read_manifest(path: Path) -> Manifest:
    """A manifest from its file.

    Raises:
        UsageError: it cannot be read, or is no manifest of a version that this bgaug knows.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"{path} is no manifest of {FORMAT} version 1: {where}: {first['msg']}") from error


def check_manifest(manifest: Manifest, store: Store, content_hash: str, name: str) -> None:
    """See that a manifest was made for this store.

    Raises:
        UsageError: the content hash differs, or a video is not there.
    """
    if manifest.content_hash != content_hash:
        raise UsageError(
            f"{name} was made for a store with content hash {manifest.content_hash[:12]}..., {store.path} has "
            f"{content_hash[:12]}...: build the store with the same videos and options, or leave the manifest out"
        )
    if not manifest.rows:
        raise UsageError(f"{name} has no rows: nothing to evaluate")
    known = set(store.videos)
    donors = [row.donor for row in manifest.rows] + list(manifest.scene.donors if manifest.scene else ())
    videos = {row.id for row in manifest.rows} | {row.inserted.id for row in manifest.rows}
    videos |= {donor.id for donor in donors if donor.kind == "video"}
    missing = sorted(videos - known)
    if missing:
        raise UsageError(
            f"{name} names {len(missing)} videos that {store.path} does not hold; the first is {missing[0]}"
        )
    strange = sorted({row.label for row in manifest.rows} - set(store.header.classes))
    if strange:
        raise UsageError(f"{name} names classes that {store.path} does not have, such as {strange[0]}")
    if manifest.scene and not manifest.scene.halves.keys() <= {row.id for row in manifest.rows}:
        raise UsageError(f"{name} has foregrounds in its scene part that no row names")
