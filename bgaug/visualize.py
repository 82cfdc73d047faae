"""Images for people: contact sheets of a store, and heat maps side by side. Imports numpy and cv2, not torch.

Letters: H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bgaug.errors import UsageError
from bgaug.files import write_bytes
from bgaug.store import Store
from bgaug.text import printable
from bgaug.video import write_video

COLUMNS = ("frame", "background", "mask", "composite")
KINDS: dict[str, tuple[bytes, ...]] = {
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8\xff",),
    ".jpeg": (b"\xff\xd8\xff",),
    ".webp": (b"RIFF",),
    ".bmp": (b"BM",),
    ".tif": (b"II*\x00", b"MM\x00*"),
    ".tiff": (b"II*\x00", b"MM\x00*"),
    ".mp4": (b"\x00\x00\x00\x1cftyp", b"\x00\x00\x00\x20ftyp"),
}
"""First bytes of files by suffix: a file of the same kind is replaced without --overwrite."""

IMAGE_SUFFIXES = tuple(suffix for suffix in KINDS if suffix != ".mp4")

_CAPTION = 18
_GREY = 24
_MARGIN = 4
_TALLEST = 8
_TINT = np.array([40, 220, 90], np.float32)
_HATCH, _HATCH_EVERY = (255, 60, 60), 8
_MOST_BACKGROUNDS = 4
_CAMERAS = {"jitter": "shaking camera", "moving": "moving camera"}


def contact_sheet(
    store: Store, *, rows: int = 12, seed: int = 0, videos: Sequence[int] | None = None, width: int = 200
) -> NDArray[np.uint8]:
    """One row per video: a frame, its background, its mask over the frame, and a composite with a donor's background.

    Of a moving camera's shot with several backgrounds, a frame is drawn that has one of its own. Where a background was
    never seen, but filled in, it is hatched.

    Args:
        store: the store; if it keeps no frames, only backgrounds are drawn: several of a moving camera's shot, from
            left to right in order of time, and the canvas of a camera that shakes to the right of its background.
        rows: number of videos, evenly spaced over the store.
        seed: seed of the choice of frames and donors.
        videos: indices of the videos, instead of `rows`.
        width: width of one image, pixels; smaller images are enlarged.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UsageError: the store holds no video with a static background.
    """
    usable = [i for i in range(len(store)) if (store.shots(i)[:, 2] >= 0).any()]
    if not usable:
        raise UsageError(f"{store.path} holds no video with a static background")
    if videos is None:
        videos = [usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, rows).round().astype(int))]
    if store.header.frames == "none":
        found = [_background_row(store, video) for video in videos]
        count = max(len(images) for images, _ in found)
        strips = [_strip(images, caption, width, count) for images, caption in found]
        return np.concatenate([_header(("background" + "s" * (count > 1), *[""] * (count - 1)), width), *strips])
    rng = np.random.default_rng(seed)
    strips = []
    for video in videos:
        others = [other for other in usable if other != video] or [video]
        strips.append(_row(store, video, int(rng.choice(others)), rng, width))
    return np.concatenate([_header(COLUMNS, width), *strips])


@dataclass(frozen=True, eq=False)
class _Hatched:
    """An image uint8 (H, W, 3), with lines where `valid`, bool (H, W), is False."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]


def _shown_shot(store: Store, video: int) -> int:
    return int(np.flatnonzero(store.shots(video)[:, 2] >= 0)[0])


def _caption(store: Store, video: int, shot: int, what: str) -> str:
    row = store.row(video)
    record = row.shots[shot]
    facts = [f"grade {record.grade}"] if record.grade else []
    facts += [_CAMERAS[record.camera]] if record.camera in _CAMERAS else []
    facts.append(f"masks from {row.masks_from(record)}")
    reasons = f": {'; '.join(record.reasons)}" if record.reasons else ""
    return "  ".join(part for part in (row.id, what, ", ".join(facts) + reasons) if part)


def _background(store: Store, video: int, shot: int, frame: int | None = None) -> _Hatched:
    found = store.background(video, shot, frame)
    top, left, height, width = store.content_box(video)
    valid = np.ones_like(found.valid)  # borders are no part of the scene
    inside = slice(top, top + height), slice(left, left + width)
    valid[inside] = found.valid[inside]
    return _Hatched(found.image, valid)


def _background_row(store: Store, video: int) -> tuple[list[_Hatched], str]:
    """Backgrounds of a video's shot, and a caption."""
    shot = _shown_shot(store, video)
    frames, canvas = store.background_frames(video, shot), store.canvas(video, shot)
    if canvas is not None:
        size = "x".join(map(str, canvas.image.shape[:2]))
        images = [_background(store, video, shot), _Hatched(canvas.image, canvas.valid)]
        return images, _caption(store, video, shot, f"and its canvas of {size}")
    if len(frames):
        chosen = frames[np.unique(np.linspace(0, len(frames) - 1, _MOST_BACKGROUNDS).round().astype(int))].tolist()
        what = f"{', '.join(f'#{frame}' for frame in chosen)} of {len(frames)}"
        return [_background(store, video, shot, frame) for frame in chosen], _caption(store, video, shot, what)
    return [_background(store, video, shot)], _caption(store, video, shot, "")


def _row(store: Store, video: int, donor: int, rng: np.random.Generator, width: int) -> NDArray[np.uint8]:
    shot = _shown_shot(store, video)
    start, stop = store.shots(video)[shot, :2].tolist()
    # In the middle half: the first and last frames often show little.
    frame = start + int((stop - start) * rng.uniform(0.25, 0.75))
    own = [int(other) for other in store.background_frames(video, shot) if start <= other < stop]
    if own:  # for any other frame, the camera has moved since
        frame = min(own, key=lambda other: abs(other - frame))
    image = store.clip(video, frame, 1)[0]
    mask = store.masks(video, frame, 1)[0]
    foreign = store.background(donor, _shown_shot(store, donor)).image
    composite = np.where(mask[..., None], image, foreign)
    cells = [image, _background(store, video, shot, frame), overlay(image, mask), composite]
    return _strip(cells, _caption(store, video, shot, f"#{frame}"), width)


def hatched(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """An image, uint8 (H, W, 3), with oblique lines where `valid`, bool (H, W), is False."""
    lines = np.add.outer(np.arange(image.shape[0]), np.arange(image.shape[1])) % _HATCH_EVERY == 0
    return np.where((lines & ~valid)[..., None], np.array(_HATCH, np.uint8), image)


def overlay(image: NDArray[np.uint8], mask: NDArray[np.bool_], strength: float = 0.55) -> NDArray[np.uint8]:
    """A mask tinted green over its frame, with its outline, the rest dimmed: uint8 (H, W, 3)."""
    shown = image.astype(np.float32) * 0.6
    shown[mask] = image[mask] * (1 - strength) + _TINT * strength
    return _outlined(np.asarray(np.clip(shown, 0, 255), np.uint8), mask)


@dataclass(frozen=True, eq=False)
class HeatmapRow:
    """One clip on a `heatmap_sheet`.

    Attributes:
        frame: uint8 (H, W, 3), RGB.
        maps: float in [0, 1], (H', W') each, resized to the frame.
        mask: bool (H, W), the foreground.
        caption: text under the row.
    """

    frame: NDArray[np.uint8]
    maps: Sequence[NDArray[np.floating]]
    mask: NDArray[np.bool_]
    caption: str = ""

    def __post_init__(self) -> None:
        if self.frame.dtype != np.uint8 or self.frame.ndim != 3 or self.frame.shape[2] != 3:
            raise ValueError(f"frame must be uint8 (H, W, 3), got {self.frame.dtype} {self.frame.shape = }")
        if self.mask.dtype != np.bool_ or self.mask.shape != self.frame.shape[:2]:
            raise ValueError(f"mask must be bool {self.frame.shape[:2]}, got {self.mask.dtype} {self.mask.shape = }")
        for heat in self.maps:
            if heat.ndim != 2 or not (heat.min() >= 0 and heat.max() <= 1):
                raise ValueError(f"maps must be (H', W') in [0, 1], got {heat.shape = }, {heat.min()} to {heat.max()}")


def heatmap_sheet(
    rows: Sequence[HeatmapRow], titles: Sequence[str], *, width: int = 160, mask_title: str = "true mask"
) -> NDArray[np.uint8]:
    """One row per clip: its frame, each map over the frame with the outline of the mask, and the mask.

    Args:
        rows: the clips, all with the same number of maps.
        titles: titles of the maps, such as the encoders' names.
        width: width of one image, pixels; smaller images are enlarged.
        mask_title: title of the masks.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        ValueError: there are no rows, or the number of maps and titles differ.
    """
    if not rows or any(len(row.maps) != len(titles) for row in rows):
        raise ValueError(f"rows need {len(titles)} maps each, got {[len(row.maps) for row in rows]}")
    strips = []
    for row in rows:
        height = max(1, round(row.frame.shape[0] * width / row.frame.shape[1]))
        enlarged = row.frame.shape[1] < width
        # Drawn at the final size, so that maps stay smooth and outlines thin over the large pixels of a small frame.
        filter_ = cv2.INTER_NEAREST if enlarged else cv2.INTER_AREA
        frame = np.asarray(cv2.resize(row.frame, (width, height), interpolation=filter_), np.uint8)
        mask = np.asarray(cv2.resize(row.mask.astype(np.uint8) * 255, (width, height), interpolation=filter_)) > 127
        heated = [_outlined(heat_overlay(frame, heat), mask) for heat in row.maps]
        strips.append(_strip([frame, *heated, overlay(frame, mask)], row.caption, width))
    return np.concatenate([_header(["frame", *titles, mask_title], width), *strips])


def image_sheet(
    rows: Sequence[tuple[Sequence[NDArray[np.uint8]], str]], titles: Sequence[str], *, width: int = 160
) -> NDArray[np.uint8]:
    """Images in rows under titles, each row with a caption below.

    Args:
        rows: (uint8 (H, W, 3) RGB images of one shape, caption) each.
        titles: titles of the columns.
        width: width of one image, pixels; smaller images are enlarged.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        ValueError: there are no rows, or the number of images and titles differ.
    """
    if not rows or any(len(images) != len(titles) for images, _ in rows):
        raise ValueError(f"rows need {len(titles)} images each, got {[len(images) for images, _ in rows]}")
    strips = [_strip(images, caption, width) for images, caption in rows]
    return np.concatenate([_header(titles, width), *strips])


def heat_overlay(image: NDArray[np.uint8], heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A map in [0, 1], (H', W'), over its frame (H, W, 3): from blue to red, more opaque where it is hotter."""
    height, width = image.shape[:2]
    smooth = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colours = cv2.cvtColor(cv2.applyColorMap((smooth * 255).astype(np.uint8), cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    share = (0.25 + 0.45 * smooth)[..., None]
    return np.asarray((image * (1 - share) + colours * share).round(), np.uint8)


def _outlined(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The outline of a mask drawn in white around it: uint8 (H, W, 3)."""
    shown = image.copy()
    wider = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    shown[(wider > 0) & ~mask] = 255
    return shown


def _strip(
    images: Sequence[NDArray[np.uint8] | _Hatched], caption: str, width: int, count: int | None = None
) -> NDArray[np.uint8]:
    """Images side by side over a caption; if there are fewer than `count`, the rest of the row is empty."""
    cells = [_hatched_cell(image, width) if isinstance(image, _Hatched) else _cell(image, width) for image in images]
    tallest = max(len(cell) for cell in cells)
    cells += [cells[0][:0]] * ((count or len(cells)) - len(cells))
    cells = [np.pad(cell, ((0, tallest - len(cell)), (0, 0), (0, 0)), constant_values=_GREY) for cell in cells]
    row = np.concatenate(cells, axis=1)
    bar = np.full((_CAPTION, row.shape[1], 3), _GREY, np.uint8)
    _write(bar, caption, 6)
    return np.concatenate([row, bar])


def _cell(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    return np.pad(_scaled(image, width), ((_MARGIN, 0), (_MARGIN, 0), (0, 0)), constant_values=_GREY)


def _hatched_cell(part: _Hatched, width: int) -> NDArray[np.uint8]:
    """Hatched at the final size, so that lines neither blur nor grow."""
    valid = _scaled(part.valid.astype(np.uint8) * 255, width) > 127
    return _cell(hatched(_scaled(part.image, width), valid), width)


def _scaled(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    height = min(height, _TALLEST * width)  # bounded, because a frame may be one pixel wide
    enlarged = image.shape[1] < width
    filter_ = cv2.INTER_NEAREST if enlarged else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, (width, height), interpolation=filter_), np.uint8)


def _header(names: Sequence[str], width: int) -> NDArray[np.uint8]:
    bar = np.full((_CAPTION + 4, (width + _MARGIN) * len(names), 3), _GREY, np.uint8)
    for column, name in enumerate(names):
        _write(bar, name, column * (width + _MARGIN) + 6)
    return bar


def _write(bar: NDArray[np.uint8], text: str, left: int) -> None:
    # The fonts of cv2 have ASCII only.
    shown = printable(text).encode("ascii", "replace").decode()
    cv2.putText(bar, shown, (left, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (225, 225, 225), 1, cv2.LINE_AA)


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file: uint8 (H, W, 3), RGB, upright by its EXIF orientation.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except cv2.error as error:
        raise ValueError(f"cannot be read as an image ({error.err})") from error
    if image is None:
        raise ValueError("cannot be read as an image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def write_image(path: str | Path, image: NDArray[np.uint8]) -> Path:
    """Write uint8 (H, W, 3) RGB as an image file in one step, in the format of its suffix. Returns the absolute path.

    Raises:
        UsageError: cv2 cannot write files with this suffix.
        WriteError: the file cannot be written; the earlier file is unchanged.
    """
    path = Path(path).resolve()
    try:
        good, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if not good:
            raise UsageError(f"{path.name} could not be encoded; name it .png or .jpg")
    except cv2.error as error:
        raise UsageError(f"{path.name} has no suffix of an image format; name it .png or .jpg") from error
    return write_bytes(path, data.tobytes())


def heatmap_film(
    frames: NDArray[np.uint8],
    maps: Sequence[NDArray[np.floating]],
    masks: Sequence[NDArray[np.bool_] | None],
    titles: Sequence[str],
    *,
    caption: str = "",
    width: int = 224,
) -> NDArray[np.uint8]:
    """A clip and its maps side by side, frame by frame, with the outline of each frame's mask.

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        maps: float in [0, 1], (T, H', W') each, any grid.
        masks: bool (H, W) of each frame; None if it has no mask.
        titles: titles of the maps.
        caption: text under the images.
        width: width of one image, pixels.

    Returns:
        uint8 (T, height, width, 3), RGB; both sides are even, as common codecs require.

    Raises:
        ValueError: numbers of frames, maps, masks and titles do not fit.
    """
    if len(maps) != len(titles) or any(len(part) != len(frames) for part in (*maps, masks)):
        raise ValueError(
            f"{len(titles)} titles and {len(frames)} frames need as many maps, of as many frames, and masks; "
            f"got {len(maps)} maps of {[len(part) for part in maps]}, {len(masks)} masks"
        )
    height = max(1, round(frames.shape[1] * width / frames.shape[2]))
    header = _header(["frame", *titles], width)
    film = []
    for t, frame in enumerate(frames):
        shown = _smooth(frame, height, width)
        mask = np.zeros((height, width), np.bool_)
        known = masks[t]
        if known is not None:
            mask = _smooth(known.astype(np.uint8) * 255, height, width) > 127
        images = [_outlined(image, mask) for image in (shown, *(heat_overlay(shown, heat[t]) for heat in maps))]
        film.append(np.concatenate([header, _strip(images, caption, width)]))
    pads = [(0, 0), *((0, side % 2) for side in film[0].shape[:2]), (0, 0)]
    return np.pad(np.stack(film), pads, constant_values=_GREY)


def _smooth(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    shrinks = image.shape[0] >= height
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def write_film(path: str | Path, frames: NDArray[np.uint8], fps: float) -> Path:
    """Write uint8 (T, H, W, 3) RGB as a film in one step: H.264, or MPEG-4 if FFmpeg has no H.264.

    Returns its absolute path.

    Raises:
        WriteError: the file cannot be written; the earlier file is unchanged.
    """
    path = Path(path).resolve()
    try:
        write_video(path, frames, fps, pixel_format="yuv420p", options={"crf": "16", "preset": "veryfast"})
    except ValueError:  # FFmpeg has no such encoder
        write_video(path, frames, fps, codec="mpeg4", pixel_format="yuv420p", options={"q:v": "2"})
    return path
