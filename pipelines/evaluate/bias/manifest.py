"""The composites of a bias evaluation as a small JSON file: the same test for everyone who has the store.

The sha256 of the file identifies the test.
"""

from __future__ import annotations

import hashlib
from collections import Counter
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
    """The image behind a foreground.

    Attributes:
        kind: "video" (its background), "bank" (an image of a bank of the store), "file" or "stripes".
        id: id of the video; name of the image; for stripes, a number.
        shot: shot of the video.
        label: class of the video.
        sha256: hash of the image, which detects another image of that name.
        stripes: parameters of the stripes.
    """

    kind: Literal["video", "bank", "file", "stripes"]
    id: str
    shot: int | None = None
    label: str | None = None
    sha256: str | None = None
    stripes: Stripes | None = None


class Inserted(_Record):
    """The foreground of another video, as a still next to a moving foreground, and as the shape of a hole.

    Attributes:
        id: id of the video.
        shot: shot of the video.
        start: first frame of the clip whose masks are the hole.
        frame: the frame of the still foreground.
        label: class of the video.
        shift: shift of the still foreground to the right.
    """

    id: str
    shot: int
    start: int
    frame: int
    label: str
    shift: int


class Row(_Record):
    """One composite.

    Attributes:
        id: id of the video of the foreground.
        k: number of the composite among those of the video.
        label: class of the video.
        group: group of the video; its id if unknown.
        shot: shot of the clips.
        starts: first frame of each clip.
        still: the frame of a clip, from 0, that its frozen version repeats.
        donor: the image behind the foreground.
        inserted: the still foreground of the conflict view.
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
    """The scene probe: foregrounds over all donors; a probe fitted on one half predicts the donors of the other."""

    donors: tuple[Donor, ...]
    halves: dict[str, int]


class Manifest(_Record):
    """A bias test.

    Attributes:
        format: `FORMAT`.
        version: version of the format.
        content_hash: content hash of the store.
        seed: seed of all draws.
        num_frames: frames of a clip.
        stride: distance of the frames.
        crop: side of the centre crop; the lengths below are in its pixels.
        grow: dilation of the masks.
        feather: sigma of the blur at the edges of the masks.
        ring: width of the ring.
        rows: the composites; those of one video are consecutive.
        same_class: the scene of another video of the same class and another group, by video; without the videos that
            have none.
        scene: the scene probe; None if there were too few videos.
        masks_from: number of tested videos by the origin of their masks.
        left_out: why a test video is not tested, by its id.
    """

    format: Literal["bgaug-bias"] = "bgaug-bias"
    version: Literal[2] = 2
    content_hash: str
    seed: int
    num_frames: PositiveInt
    stride: PositiveInt
    crop: PositiveInt
    grow: NonNegativeFloat
    feather: NonNegativeFloat
    ring: NonNegativeFloat
    rows: tuple[Row, ...]
    same_class: dict[str, Donor] = {}
    scene: SceneTest | None = None
    masks_from: dict[str, int] = {}
    left_out: dict[str, str] = {}

    @property
    def reasons(self) -> dict[str, int]:
        """Number of test videos that are left out, by reason, the most frequent reason first."""
        return dict(Counter(self.left_out.values()).most_common())

    def to_bytes(self) -> bytes:
        """Content of the file; equal tests give equal bytes."""
        return self.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def write_manifest(manifest: Manifest, path: Path) -> Path:
    """Write a manifest as JSON and return its path.

    Raises:
        WriteError: the system refuses; the earlier file is as it was.
    """
    write_bytes(path, manifest.to_bytes())
    return path


def read_manifest(path: Path) -> Manifest:
    """A manifest from its file.

    Raises:
        UsageError: the file cannot be read, or is not a manifest of version 2.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"{path} is not a manifest of {FORMAT} version 2: {where}: {first['msg']}") from error


def check_manifest(manifest: Manifest, store: Store, content_hash: str, name: str) -> None:
    """Check that a manifest was made for this store.

    Raises:
        UsageError: the content hash differs, or a video or class is missing.
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
    donors += manifest.same_class.values()
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
