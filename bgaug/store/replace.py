"""Another version of a shard: with masks that were made elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bgaug.errors import StoreDamageError
from bgaug.store.arrays import ArrayWriter, sync_tree
from bgaug.store.commit import commit_shard, shard_folder
from bgaug.store.files import ArrayFile
from bgaug.store.format.inside import link_inside, refuse_links
from bgaug.store.format.layout import SHARDS, Header, crc32c, read_commit, shard_name, writing
from bgaug.store.format.payload import content_digest
from bgaug.store.format.records import VideoRow
from bgaug.store.places import Folder
from bgaug.store.write import array_specs

Masks = NDArray[np.uint8]
GiveMasks = Callable[[VideoRow, Masks], Masks | None]
"""Of a video's row and its packed masks, uint8 (num_frames, P): others of the same shape, or None to leave them."""


def replace_masks(root: Path, header: Header, shard: int, give: GiveMasks) -> list[str]:
    """Put other masks into a shard. The old shard stays until the new one is whole; all else is linked, not copied.

    Args:
        root: of the store.
        header: of the store.
        shard: its number.
        give: the masks of each video of the shard.

    Returns:
        Ids of the videos whose masks were replaced; where there are none, the shard is left as it is.

    Raises:
        StoreLockedError: another process writes this shard.
        StoreDamageError: the shard is damaged.
        StoreError: the store cannot be written.
    """
    old = root / SHARDS / shard_name(shard)
    with shard_folder(root, shard, replace=True) as folder:
        assert folder is not None
        commit = read_commit(old)
        refuse_links(root, SHARDS)
        rows = [VideoRow.model_validate(row) for row in commit["videos"]]
        place, key = Folder(root), f"{SHARDS}/{old.name}"
        writer = ArrayWriter(folder, "masks", array_specs(header)["masks"])
        known = ArrayFile(place, f"{key}/masks", array_specs(header)["masks"]) if rows else None
        renewed: list[VideoRow] = []
        for row in rows:
            assert known is not None
            before = known.read(row.start, row.start + row.num_frames)
            masks = give(row, before)
            with writing(folder):
                writer.append(before if masks is None else masks)
            if masks is None:
                renewed.append(row)
            else:
                digest = _content(place, key, header, row, masks)
                renewed.append(row.model_copy(update={"content": digest, "imported_masks": True}))
        changed = [row.id for row, was in zip(renewed, rows, strict=True) if row != was]
        if changed:
            with writing(folder):
                writer.finish()
                files = _linked(root, key, folder, commit["files"], writer)
                commit_shard(root, {**commit, "files": files, "videos": [row.to_json() for row in renewed]})
        else:
            writer.close()
    return changed


def _linked(
    root: Path, key: str, folder: Path, files: dict[str, list[int]], masks: ArrayWriter
) -> dict[str, list[int]]:
    """The other files of a shard into its new folder; name to [bytes, crc32c] of all."""
    kept = {name: entry for name, entry in files.items() if not name.startswith("masks/")}
    for name, (size, checksum) in kept.items():
        found = link_inside(root, f"{key}/{name}", folder / name)
        # A linked file was not read; what is small is, so that no damage is sealed anew.
        if found != size or (name.endswith("zarr.json") and crc32c((folder / name).read_bytes()) != checksum):
            said = "its bytes are not those that were committed: run `bgaug verify`"
            raise StoreDamageError(root / key / name, said)
    return sync_tree(folder, kept | masks.files)


def _content(place: Folder, key: str, header: Header, row: VideoRow, masks: Masks) -> str:
    """See `content_digest`; with these masks."""
    specs = array_specs(header)

    def array(name: str) -> ArrayFile:
        return ArrayFile(place, f"{key}/{name}", specs[name])

    def rows_of(name: str) -> NDArray[Any]:
        return array(name).read(row.start, row.start + row.num_frames)

    numbers = sorted({shot.background for shot in row.shots if shot.background >= 0})
    layers = [array(name) for name in ("backgrounds", "noise", "valid")]
    parts = [layer.read(number, number + 1)[0] for number in numbers for layer in layers]
    checksums = [] if header.frames == "none" else rows_of("frame_crc").tolist()
    return content_digest(rows_of("pts_seconds").tolist(), checksums, [masks, *parts])
