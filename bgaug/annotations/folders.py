"""Class folders: what videos are labelled by where no list is given."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from bgaug.annotations.label import Label, Labels, ordered


def labels_from_folders(video_ids: Iterable[str]) -> Labels:
    """Class folders: the first folder of each id is its class, where every video lies in one and there are two or more.

    Returns:
        No labels at all where the folders do not look like classes.
    """
    parents = {video_id: PurePosixPath(video_id).parts for video_id in video_ids}
    folders = {parts[0] for parts in parents.values() if len(parts) > 1}
    if len(folders) < 2 or any(len(parts) == 1 for parts in parents.values()):
        return Labels({}, ())
    labels = {video_id: Label(parts[0]) for video_id, parts in parents.items()}
    return Labels(labels, ordered(folders))
