"""Every error that bgaug raises on purpose.

BgaugError
├── VideoError (OSError)        a video that cannot be used; has path and reason
│   └── VideoDecodeError        ... found while decoding; has the number of good frames
├── StoreError (ValueError)     a store that cannot be used; has path
│   ├── StoreFormatError        not a bgaug store, or of an unsupported version
│   ├── StoreOptionsError       built with other options than requested
│   ├── StoreDamageError        bytes missing or changed
│   └── StoreLockedError        another process is writing it
├── LabelsError (ValueError)    a label file that cannot be understood
├── MasksError (ValueError)     mask files that cannot be understood; has path
├── SegmenterError (ValueError) a segmentation network, or its settings, that cannot be used; has path
├── CheckpointError (ValueError) a run or checkpoint that cannot be used
├── WriteError (OSError)        a file or folder that cannot be written; has path and errno
└── UsageError (ValueError)     options or inputs that contradict each other

Each also inherits from the builtin exception that callers would catch.
"""

from __future__ import annotations

from pathlib import Path


class BgaugError(Exception):
    """The base class of all errors that bgaug raises on purpose."""


class VideoError(BgaugError, OSError):
    """A video that cannot be used.

    Attributes:
        path: the video.
        reason: a short code, one of `REASONS`.
    """

    REASONS = (
        "missing",
        "not_a_file",
        "empty",
        "not_a_video",
        "no_video_stream",
        "unsupported_codec",
        "unsupported_container",
        "truncated",
        "corrupt",
        "length_mismatch",
        "too_large",
        "timeout",
        "crashed",
    )

    def __init__(self, path: str | Path, reason: str, message: str) -> None:
        super().__init__(path, reason, message)
        self.path = Path(path)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message} [{self.reason}]"


class VideoDecodeError(VideoError):
    """A video that failed while it was decoded.

    Attributes:
        num_good_frames: number of frames decoded before the fault, all of them correct.
    """

    def __init__(self, path: str | Path, reason: str, message: str, num_good_frames: int = 0) -> None:
        super().__init__(path, reason, message)
        self.args = (path, reason, message, num_good_frames)
        self.num_good_frames = num_good_frames


class _PathError(BgaugError, ValueError):
    """A path, and what is wrong with it.

    Attributes:
        path: the affected file or folder.
    """

    def __init__(self, path: str | Path, message: str) -> None:
        super().__init__(path, message)
        self.path = Path(path)
        self.message = message

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.message}"  # a Path would remove a slash from a URL


class StoreError(_PathError):
    """A store that cannot be used; `path` is the store, or the affected part of it."""


class StoreFormatError(StoreError):
    """Not a bgaug store, or one of a version that this bgaug does not support."""


class StoreOptionsError(StoreError):
    """A store built with other options than requested now."""


class StoreDamageError(StoreError):
    """A store with missing bytes, or bytes other than those committed."""


class StoreLockedError(StoreError):
    """A store that another process is writing."""


class LabelsError(BgaugError, ValueError):
    """A label file that cannot be understood."""


class MasksError(_PathError):
    """Mask files that cannot be understood, or do not match the videos."""


class SegmenterError(_PathError):
    """A segmentation network, or its settings, that cannot be used."""


class CheckpointError(BgaugError, ValueError):
    """A run or checkpoint that cannot be used."""


class WriteError(BgaugError, OSError):
    """A file or folder that cannot be written; an existing file is unchanged.

    Attributes:
        path: the file or folder.
        errno: error number of the system, 0 if there is none.
        strerror: what was refused, and the fix.
    """

    def __init__(self, path: str | Path, number: int, message: str) -> None:
        super().__init__(number, message)
        self.args = (path, number, message)  # so that it can be pickled
        self.path = Path(path)

    def __str__(self) -> str:
        return f"{self.path}: {self.strerror}"


class UsageError(BgaugError, ValueError):
    """Options or inputs that contradict each other."""
