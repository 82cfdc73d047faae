"""The work on one shard, as a worker process gets it: each video in turn, then the commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from bgaug.annotations import Label
from bgaug.errors import BgaugError, StoreError, VideoError
from bgaug.pipelines.sources import Source
from bgaug.pipelines.worker import Begins, WorkerLost
from bgaug.store import Failure, Header, Identity, ShardWriter, VideoPayload, VideoRow, identify
from bgaug.store.index import parse_failures
from bgaug.store.layout import SHARDS, shard_name
from bgaug.store.write import Placed

Put = Callable[[VideoPayload], None]
"""Takes what is to be stored of a video, part by part."""


class EachVideo(Protocol):
    """What is done with one video. It travels to the worker processes, so it holds values alone."""

    def __call__(self, source: Source, label: Label, header: Header, put: Put, parts: int = 1) -> list[VideoRow]:
        """Give what is stored of the video to `put`: in one payload, or, of a long one, in up to `parts`.

        Returns:
            A row for each payload, in order.

        Raises:
            VideoError: the video cannot be used; what was put counts for nothing.
        """
        ...


@dataclass(frozen=True)
class ShardTask:
    """A shard to build, or the shards of one long video: see `bgaug.pipelines.worker.Task`.

    Attributes:
        root: of the store.
        header: of the store.
        shards: numbers; several for one video that they share.
        videos: of the shard, with their labels.
        each_video: the work on one.
        replace: whether the shard is there and is built again, because of its failures.
        quarantine: by id, videos that took a worker with them; they fail without being touched.
    """

    root: Path
    header: Header
    shards: tuple[int, ...]
    videos: tuple[tuple[Source, Label], ...]
    each_video: EachVideo
    replace: bool = False
    quarantine: Mapping[str, Failure] = field(default_factory=dict)

    def __call__(self, begins: Begins) -> list[Failure]:
        """Build and commit; returns the videos that failed."""
        if len(self.shards) > 1:
            return self._build_long(begins)
        with self._writer(self.shards[0]) as writer:
            if writer.committed is not None:  # another run was quicker
                return parse_failures(writer.committed)
            failures = []
            for place, (source, label) in enumerate(self.videos):
                failure = self.quarantine.get(source.id)
                if failure is None:
                    begins(place)
                    failure = self._add([writer], source, label, lambda: None)
                if failure is not None:
                    failures.append(failure)
                    writer.fail(failure)
            begins(None)
            writer.commit()
            return failures

    def _build_long(self, begins: Begins) -> list[Failure]:
        """The shards of one long video. They become visible together, once it is known to be good.

        Where an earlier run was stopped between them, what it left is kept, unless the file has changed since.
        """
        source, label = self.videos[0]
        failure = self.quarantine.get(source.id)
        if failure is None:
            with ExitStack() as held:
                writers = [held.enter_context(self._writer(shard)) for shard in self.shards]
                if self._has_changed(source, writers):
                    held.close()
                    return replace(self, replace=True)._build_long(begins)
                begins(0)
                # The time limit is for each part anew.
                failure = self._add(writers, source, label, lambda: begins(0))
                begins(None)
                if failure is None:
                    for writer in writers:
                        if writer.committed is None:
                            writer.commit()
                    return []
        for shard in self.shards:
            with ShardWriter(self.root, self.header, shard, replace=True) as writer:
                if shard == self.shards[0]:
                    writer.fail(failure)
                writer.commit()
        return [failure]

    def _has_changed(self, source: Source, writers: Sequence[ShardWriter]) -> bool:
        rows = [row for writer in writers for row in (writer.committed or {"videos": []})["videos"]]
        return any(Identity.model_validate(row["identity"]) != identify(source.path) for row in rows)

    def _writer(self, shard: int) -> ShardWriter:
        return ShardWriter(self.root, self.header, shard, replace=self.replace)

    def _add(
        self, writers: Sequence[ShardWriter], source: Source, label: Label, on_part: Callable[[], None]
    ) -> Failure | None:
        """One video into its shards; those that are there already are left as they are."""
        placed: list[Placed | None] = []

        def put(payload: VideoPayload) -> None:
            writer = writers[len(placed)]
            placed.append(writer.put(payload) if writer.committed is None else None)
            if len(writers) > 1:
                writer.finish()  # it gets no more; many may be open at a time
            on_part()

        try:
            rows = self.each_video(source, label, self.header, put, len(writers))
        except VideoError as error:
            return Failure(id=source.id, reason=error.reason, message=error.message)
        except FileNotFoundError:
            return Failure(id=source.id, reason="missing", message="was there, and is gone")
        except BgaugError:
            raise
        except Exception as error:  # noqa: BLE001
            # One bad video never stops a thousand good ones, whatever it breaks.
            return Failure(id=source.id, reason="crashed", message=f"{type(error).__name__}: {error}")
        for writer, row, place in zip(writers, rows, placed, strict=False):
            if place is not None:
                writer.note(row, place)
        return None

    def without(self, lost: WorkerLost) -> ShardTask:
        """The same shard with the video in quarantine that a worker was lost to.

        Raises:
            StoreError: it was lost to no video, so building the shard again would not help.
            BgaugError: bad videos are to end the run.
        """
        if lost.place is None:
            raise StoreError(self.root / SHARDS / shard_name(self.shards[0]), f"cannot be built: {lost.message}")
        name = self.videos[lost.place][0].id
        if self.header.options.get("on_error") == "fail":
            raise BgaugError(f"{name}: {lost.message} [{lost.reason}]; it ends the run because of --on-error fail")
        failure = Failure(id=name, reason=lost.reason, message=lost.message)
        return replace(self, quarantine={**self.quarantine, name: failure})
