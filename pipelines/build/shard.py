"""The work on one shard, done in a worker process: each video in turn, then the commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from bgaug.errors import BgaugError, StoreError, VideoError
from bgaug.labels import Label
from bgaug.pipelines.build.find_videos import Source
from bgaug.pipelines.build.workers import Begins, WorkerLost
from bgaug.store import Failure, Header, Identity, ShardWriter, VideoPayload, VideoRow, identify
from bgaug.store.commit import shard_lock
from bgaug.store.format.layout import SHARDS, shard_name, writing
from bgaug.store.index import parse_failures
from bgaug.store.lock import FileLock
from bgaug.store.write import Placed

Put = Callable[[VideoPayload], None]
"""Stores the payload of a video, or of the next part of a long one."""

_OUT_OF_MEMORY = "out of memory; fewer --jobs or a smaller --memory need less"


class EachVideo(Protocol):
    """The work on one video. It is sent to worker processes, so it must be picklable."""

    def __call__(self, source: Source, label: Label, header: Header, put: Put, parts: int = 1) -> list[VideoRow]:
        """Pass the payload of the video to `put`, or up to `parts` payloads of a long one.

        Returns:
            A row for each payload, in order.

        Raises:
            VideoError: the video cannot be used; its payloads are discarded.
        """
        ...


@dataclass(frozen=True)
class ShardTask:
    """A shard to build, or the shards of one long video: see `bgaug.pipelines.build.workers.Task`.

    Attributes:
        root: of the store.
        header: of the store.
        shards: numbers; several for one video that they share.
        videos: of the shard, with their labels.
        each_video: the work on one video.
        replace: whether the shard exists and is built again because of its failures.
        quarantine: by id, videos that a worker was lost to; they fail without another attempt.
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
        try:
            return self._build_long(begins) if len(self.shards) > 1 else self._build(begins)
        except MemoryError as error:
            raise StoreError(
                self.root / SHARDS / shard_name(self.shards[0]),
                f"cannot be finished: {_OUT_OF_MEMORY}. Run the same command again: finished shards are kept",
            ) from error

    def _build(self, begins: Begins) -> list[Failure]:
        with self._writer(self.shards[0]) as writer:
            if writer.committed is not None:  # another run was faster
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
        """The shards of one long video, under the lock of the first.

        They become visible together, after the whole video was read. If an earlier run was stopped between them, its
        shards are kept, unless the file has changed since.
        """
        with ExitStack() as held:
            with writing(self.root):
                lock = held.enter_context(shard_lock(self.root, self.shards[0]))
            failure = self.quarantine.get(self.videos[0][0].id)
            if failure is None:
                failure = self._build_parts(begins, lock, again=self.replace)
            if failure is not None:
                self._fail_parts(failure, lock)
            return [] if failure is None else [failure]

    def _build_parts(self, begins: Begins, lock: FileLock, *, again: bool) -> Failure | None:
        source, label = self.videos[0]
        with ExitStack() as held:
            writers = [
                held.enter_context(ShardWriter(self.root, self.header, shard, replace=again, lock=lock))
                for shard in self.shards
            ]
            if not self._has_changed(source, writers):
                begins(0)
                # The time limit restarts with each part.
                failure = self._add(writers, source, label, lambda: begins(0))
                begins(None)
                for writer in writers:
                    if failure is None and writer.committed is None:
                        writer.commit()
                return failure
        return self._build_parts(begins, lock, again=True)

    def _fail_parts(self, failure: Failure, lock: FileLock) -> None:
        for shard in self.shards:
            with ShardWriter(self.root, self.header, shard, replace=True, lock=lock) as writer:
                if shard == self.shards[0]:
                    writer.fail(failure)
                writer.commit()

    def _has_changed(self, source: Source, writers: Sequence[ShardWriter]) -> bool:
        rows = [row for writer in writers for row in (writer.committed or {"videos": []})["videos"]]
        return any(Identity.model_validate(row["identity"]) != identify(source.path) for row in rows)

    def _writer(self, shard: int) -> ShardWriter:
        return ShardWriter(self.root, self.header, shard, replace=self.replace)

    def _add(
        self, writers: Sequence[ShardWriter], source: Source, label: Label, on_part: Callable[[], None]
    ) -> Failure | None:
        """One video into its shards, completely or not at all; existing shards stay as they are."""
        try:
            with writers[0].whole_or_not():
                self._put_and_note(writers, source, label, on_part)
        except VideoError as error:
            if self._ends_run:
                raise BgaugError(f"{error}; it ends the run because of --on-error fail") from error
            return Failure(id=source.id, reason=error.reason, message=error.message)
        except FileNotFoundError:
            return Failure(id=source.id, reason="missing", message="the file was deleted while the build was running")
        except BgaugError:
            raise
        except MemoryError:
            return Failure(id=source.id, reason="crashed", message=_OUT_OF_MEMORY)
        except Exception as error:  # noqa: BLE001
            # One bad video never stops a thousand good ones, whatever it raises.
            return Failure(id=source.id, reason="crashed", message=f"{type(error).__name__}: {error}")
        return None

    def _put_and_note(
        self, writers: Sequence[ShardWriter], source: Source, label: Label, on_part: Callable[[], None]
    ) -> None:
        placed: list[Placed | None] = []

        def put(payload: VideoPayload) -> None:
            writer = writers[len(placed)]
            placed.append(writer.put(payload) if writer.committed is None else None)
            if len(writers) > 1:
                writer.finish()  # it is complete, and many may be open at a time
            on_part()

        rows = self.each_video(source, label, self.header, put, len(writers))
        if len(rows) != len(placed):
            raise RuntimeError(f"expected a row for each of its {len(placed)} parts, got {len(rows)} rows")
        for writer, row, place in zip(writers, rows, placed, strict=False):
            if place is not None:
                writer.note(row, place)

    @property
    def _ends_run(self) -> bool:
        """Whether a bad video ends the run."""
        return bool(self.header.options.get("on_error") == "fail")

    def without(self, lost: WorkerLost) -> ShardTask:
        """The same shard with the video in quarantine that a worker was lost to.

        Raises:
            StoreError: no video caused the loss, so building the shard again would not help.
            BgaugError: `on_error` is "fail".
        """
        if lost.place is None:
            raise StoreError(self.root / SHARDS / shard_name(self.shards[0]), f"cannot be built: {lost.message}")
        name = self.videos[lost.place][0].id
        if self._ends_run:
            raise BgaugError(f"{name}: {lost.message} [{lost.reason}]; it ends the run because of --on-error fail")
        failure = Failure(id=name, reason=lost.reason, message=lost.message)
        return replace(self, quarantine={**self.quarantine, name: failure})
