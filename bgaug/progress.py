"""How a pipeline tells what it is doing; whoever calls it decides what to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Receives what happens. All of it is for people; results come back as values."""

    def start(self, task: str, total: int | None) -> None:
        """A stage of work begins, of `total` units if that is known."""
        ...

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` units of the current stage are done; `note` says how it stands, in a few words."""
        ...

    def state(self, values: Mapping[str, str]) -> None:
        """How the current stage stands, name by name; it takes the place of what was told before."""
        ...

    def warn(self, message: str) -> None:
        """Something that the user should know."""
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
