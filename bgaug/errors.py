"""Every error that bgaug raises on purpose.

BgaugError
├── VideoError (OSError)        a video that cannot be used; carries path and reason
│   └── VideoDecodeError        ... found while decoding; also says how many frames were good
├── StoreError (ValueError)     a store that cannot be used; carries path
│   ├── StoreFormatError        not a bgaug store, or of a version that this bgaug does not read
│   ├── StoreOptionsError       built with other options than those asked for
│   ├── StoreDamageError        bytes missing or changed
│   └── StoreLockedError        another process is writing it
├── LabelsError (ValueError)    a label file that cannot be understood
├── MasksError (ValueError)     mask files that cannot be understood; carries path
├── CheckpointError (ValueError) a run or checkpoint that cannot be used
├── WriteError (OSError)        a file or folder that cannot be written; carries path and errno
└── UsageError (ValueError)     options or inputs that contradict each other

Each also inherits the builtin that a caller would catch anyway.
"""

from __future__ import annotations

from pathlib import Path


class BgaugError(Exception):
    """The root: catch it to catch everything that bgaug raises on purpose."""


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
    """A video that broke off while it was decoded.

    Attributes:
        num_good_frames: frames decoded before the fault, all of them right.
    """

    def __init__(self, path: str | Path, reason: str, message: str, num_good_frames: int = 0) -> None:
        super().__init__(path, reason, message)
        self.args = (path, reason, message, num_good_frames)
        self.num_good_frames = num_good_frames


class StoreError(BgaugError, ValueError):
    """A store that cannot be used.

    Attributes:
        path: the store, or the part of it that is meant.
    """

    def __init__(self, path: str | Path, message: str) -> None:
        super().__init__(path, message)
        self.path = Path(path)
        self.message = message

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.message}"  # a path would take a slash from a URL


class StoreFormatError(StoreError):
    """Not a bgaug store, or one of a version that this bgaug does not read."""


class StoreOptionsError(StoreError):
    """A store built with other options than those asked for now."""


class StoreDamageError(StoreError):
    """A store whose bytes are missing or are not those that were committed."""


class StoreLockedError(StoreError):
    """A store that another process is writing."""


class LabelsError(BgaugError, ValueError):
    """A label file that cannot be understood."""


class MasksError(BgaugError, ValueError):
    """Mask files that cannot be understood, or not matched with videos.

    Attributes:
        path: the file or folder that is meant.
    """

    def __init__(self, path: str | Path, message: str) -> None:
        super().__init__(path, message)
        self.path = Path(path)
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class CheckpointError(BgaugError, ValueError):
    """A run or checkpoint that cannot be used."""


class WriteError(BgaugError, OSError):
    """A file or folder that cannot be written; a file that was there before is as it was.

    Attributes:
        path: the file or folder.
        errno: the system's number, 0 where there is none.
        strerror: what was refused, and what to do.
    """

    def __init__(self, path: str | Path, number: int, message: str) -> None:
        super().__init__(number, message)
        self.args = (path, number, message)  # so that it can be pickled
        self.path = Path(path)

    def __str__(self) -> str:
        return f"{self.path}: {self.strerror}"


class UsageError(BgaugError, ValueError):
    """Options or inputs that contradict each other."""
