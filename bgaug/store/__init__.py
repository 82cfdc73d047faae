"""The on-disk format: plan, write, commit, verify, read. The only room that imports zarr.

A store is a folder that any Zarr v3 reader can open:

    STORE/zarr.json             the header: format, version, size, fit, options, classes
    STORE/plan.json             which video goes into which shard; its sha256 stands in the header
    STORE/shards/00017/         one Zarr group, written by one process, once, visible only when whole
        frames, masks, ...      the arrays
        COMMIT.json             the last file written: every other file's size and checksum, and the videos' rows
    STORE/index/                columns over all videos, derived from the commits
    STORE/failures.jsonl        the videos that could not be used, derived likewise
"""

from bgaug.store.create import create_store, finish_store, pending_shards
from bgaug.store.layout import FRAME_KINDS, FrameKind, Header
from bgaug.store.payload import VideoPayload
from bgaug.store.plan import Plan, PlannedVideo, plan_shards
from bgaug.store.read import Store, open_store
from bgaug.store.records import Failure, Identity, Shot, VideoRow, identify
from bgaug.store.verify import Problem, Report, verify_store
from bgaug.store.write import ShardWriter

__all__ = [
    "FRAME_KINDS",
    "Failure",
    "FrameKind",
    "Header",
    "Identity",
    "Plan",
    "PlannedVideo",
    "Problem",
    "Report",
    "ShardWriter",
    "Shot",
    "Store",
    "VideoPayload",
    "VideoRow",
    "create_store",
    "finish_store",
    "identify",
    "open_store",
    "pending_shards",
    "plan_shards",
    "verify_store",
]
