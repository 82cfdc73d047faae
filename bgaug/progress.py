"""How a pipeline reports its progress; the caller decides what to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Receives progress as text for people; results are returned as values."""

    def start(self, task: str, total: int | None) -> None:
        """A stage of work begins, with `total` units if known."""
        ...

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` units of the current stage are done; `note` describes its state in a few words."""
        ...

    def state(self, values: Mapping[str, str]) -> None:
        """State of the current stage by name; it replaces the state reported before."""
        ...

    def warn(self, message: str) -> None:
        """A message that the user should read."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, task: str, total: int | None) -> None:
        """Ignored."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Ignored."""

    def state(self, values: Mapping[str, str]) -> None:
        """Ignored."""

    def warn(self, message: str) -> None:
        """Ignored."""
