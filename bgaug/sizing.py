"""Frame sizes: one resize for frames, backgrounds and masks, and the ways to fit an image into a store's size.

Letters: T frames, H, W pixels, C channels. A size is (height, width), always in that order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from bgaug.errors import UsageError

if TYPE_CHECKING:  # options of commands need the names here before anything heavy is loaded
    import numpy as np
    from numpy.typing import NDArray

Size = tuple[int, int]
Fit = Literal["stretch", "pad", "crop"]
FITS: tuple[str, ...] = get_args(Fit)

STORE_SIZE: Size = (128, 171)
"""Default size of training stores: 128x171, which most loaders for action recognition use."""

BACKGROUND_SIZE: Size = (256, 342)
"""Default size of background stores: twice `STORE_SIZE`, so that one store serves several training sizes."""


def resize_area(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """An image at another size: area filter if it shrinks, bilinear if it grows.

    Args:
        image: uint8 (H, W) or (H, W, C).
        size: (height, width) of the result.

    Returns:
        uint8 (height, width) or (height, width, C); `image` itself if it has that size.
    """
    import cv2
    import numpy as np

    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    shrinks = size[0] <= height and size[1] <= width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=interpolation), np.uint8)


def working_size(size: Size, side: int) -> Size:
    """Aspect of `size` with a short side of at most `side` pixels, both sides at least 1."""
    height, width = size
    scale = min(1.0, side / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def content_box(source: Size, size: Size, fit: Fit) -> tuple[int, int, int, int]:
    """The box of an image of size `source` inside a stored frame of size `size`.

    Returns:
        (top, left, height, width) in pixels: the whole frame for "stretch" and "crop", without its borders for "pad".
    """
    height, width = size
    if fit != "pad":
        return 0, 0, height, width
    scale = min(height / source[0], width / source[1])
    inner_height = min(height, max(1, round(source[0] * scale)))
    inner_width = min(width, max(1, round(source[1] * scale)))
    return (height - inner_height) // 2, (width - inner_width) // 2, inner_height, inner_width


def fit_frame(image: NDArray[np.uint8], size: Size, fit: Fit, display_size: Size | None = None) -> NDArray[np.uint8]:
    """An image fitted to a store's size.

    "stretch" ignores the aspect, as most loaders do; "pad" keeps the whole image and its aspect, with black borders;
    "crop" keeps the aspect and crops the longer side at its centre.

    Args:
        image: uint8 (H, W) or (H, W, C).
        size: (height, width) of the result.
        fit: one of `FITS`.
        display_size: (height, width) at which the image has its correct aspect, if its pixels are not square; None for
            its own size. Ignored by "stretch".

    Returns:
        uint8 (height, width) or (height, width, C).
    """
    import numpy as np

    if fit == "stretch":
        return resize_area(image, size)
    shown = display_size or (image.shape[0], image.shape[1])
    if fit == "crop":
        return resize_area(_cut_to_aspect(image, size, shown), size)
    top, left, inner_height, inner_width = content_box(shown, size, "pad")
    framed = np.zeros((*size, *image.shape[2:]), np.uint8)
    framed[top : top + inner_height, left : left + inner_width] = resize_area(image, (inner_height, inner_width))
    return framed


def shown_box(
    source: Size, size: Size, fit: Fit, display_size: Size | None = None
) -> tuple[float, float, float, float]:
    """The box of the source that a whole stored frame shows; see `fit_frame` for the arguments.

    Returns:
        (left, top, width, height) as fractions of the source's sides; it exceeds the source where "pad" adds borders.
    """
    height, width = size
    shown = display_size or source
    if fit == "crop":
        y, x, kept_height, kept_width = _kept_box(source, size, shown)
        return x / source[1], y / source[0], kept_width / source[1], kept_height / source[0]
    top, left, inner_height, inner_width = content_box(shown, size, fit)
    return -left / inner_width, -top / inner_height, width / inner_width, height / inner_height


def _cut_to_aspect(image: NDArray[np.uint8], size: Size, shown: Size) -> NDArray[np.uint8]:
    import numpy as np

    top, left, height, width = _kept_box((image.shape[0], image.shape[1]), size, shown)
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _kept_box(source: Size, size: Size, shown: Size) -> tuple[int, int, int, int]:
    """The box (top, left, height, width) of the source that "crop" keeps, in its pixels."""
    height, width = source
    pixel_aspect = shown[1] * height / (shown[0] * width)
    keep_height = min(height, max(1, round(width * pixel_aspect * size[0] / size[1])))
    keep_width = min(width, max(1, round(height / pixel_aspect * size[1] / size[0])))
    return (height - keep_height) // 2, (width - keep_width) // 2, keep_height, keep_width


def parse_size(text: str) -> Size | None:
    """A size from text: "128x171" (height x width), "112" (square), or "native" (None).

    Raises:
        UsageError: anything else.
    """
    if text.strip().lower() == "native":
        return None
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) in (1, 2) and all(part.strip().isdigit() for part in parts):
        height, width = int(parts[0]), int(parts[-1])
        if 8 <= height <= 8192 and 8 <= width <= 8192:
            return height, width
    raise UsageError(f"a size is HEIGHTxWIDTH between 8 and 8192, like 128x171, or native; got {text!r}")
