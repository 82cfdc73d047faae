"""What may happen to a view of a clip."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[float, float, float]

KINETICS_MEAN: Colour = (0.43216, 0.394666, 0.37645)
KINETICS_STD: Colour = (0.22803, 0.22145, 0.216989)
"""What the published Kinetics-400 weights of torchvision's video networks expect: R, G, B of colours in [0, 1]."""


@dataclass(frozen=True)
class Augmentation:
    """What may happen to one view of a clip; every choice holds for all of its frames.

    Attributes:
        size: side S of the square output, pixels.
        scale: range of the crop's area, as a share of the picture.
        ratio: range of the crop's width over height.
        flip: probability of a left-right flip.
        jitter: probability of brightness, contrast, saturation and hue changing (all four together).
        brightness: factor drawn from U(1 - b, 1 + b).
        contrast: factor about the clip's mean grey, drawn from U(1 - c, 1 + c).
        saturation: factor about each pixel's grey, drawn from U(1 - s, 1 + s).
        hue: turn in the colour plane of YIQ drawn from U(-hue, hue); 1 is the whole circle, so at most 0.5. Not HSV's turn, see
            `colour_jitter`.
        channel_gain: factor for each of R, G, B drawn from U(1 - g, 1 + g), always.
        grey: probability of losing all colour.
        blur: probability of a Gaussian blur in space.
        blur_sigma: range of the blur's sigma, pixels of the output.
        mean: subtracted from R, G, B at the end, colours in [0, 1]; (0, 0, 0) leaves them there. `KINETICS_MEAN` and
            `KINETICS_STD` are (0.43216, 0.394666, 0.37645) and (0.22803, 0.22145, 0.216989), for published weights;
            what is trained from scratch does without. Evaluate with the same, see `centre_crop`.
        std: what R, G, B are divided by then, in (0, 1].
    """

    size: int = 112
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    channel_gain: float = 0.0
    grey: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    mean: Colour = (0.0, 0.0, 0.0)
    std: Colour = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size = }")
        for name in ("flip", "jitter", "grey", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability in [0, 1], got {getattr(self, name)}")
        for name in ("brightness", "contrast", "saturation", "channel_gain"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is the half-width of a factor around 1, in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is in turns of the colour circle, [0, 0.5], got {self.hue}; degrees / 360?")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high <= 1, got {self.scale}")
        for name in ("ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (low, high) with 0 < low <= high, got {(low, high)}")
        check_normalisation(self.mean, self.std)

    @classmethod
    def standard(cls, size: int = 112) -> Augmentation:
        """The field's usual recipe for clips; the blur is given at 112 pixels and scales with `size`."""
        return cls(size=size, blur_sigma=(0.1 * size / 112, 2.0 * size / 112))

    @classmethod
    def tiny(cls, size: int = 32) -> Augmentation:
        """For the synthetic world at 32 pixels: nothing that changes the class of a motion, so no flips."""
        return cls(
            size=size,
            scale=(0.5, 1.0),
            ratio=(1.0, 1.0),
            flip=0.0,
            jitter=1.0,
            saturation=0.0,
            hue=0.0,
            channel_gain=0.25,
            grey=0.3,
            blur=0.0,
        )

    @property
    def normalises(self) -> bool:
        """Whether colours leave [0, 1] at the end."""
        return any(self.mean) or any(value != 1 for value in self.std)


def check_normalisation(mean: Colour, std: Colour) -> None:
    """Three numbers each, of colours in [0, 1].

    Raises:
        ValueError: they are not.
    """
    if len(mean) != 3 or not all(0 <= value <= 1 for value in mean):
        raise ValueError(f"mean is of R, G, B in [0, 1], got {mean}; divide by 255?")
    if len(std) != 3 or not all(0 < value <= 1 for value in std):
        raise ValueError(f"std is of R, G, B in [0, 1], each in (0, 1], got {std}; divide by 255?")
