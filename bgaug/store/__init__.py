"""The on-disk format: plan, write, commit, verify, read. The only room that imports zarr.

A store is a folder that any Zarr v3 reader can open:

    STORE/zarr.json             the header: format, version, size, fit, options, classes
    STORE/plan.json             which video goes into which shard; its sha256 stands in the header
    STORE/shards/00017/         one Zarr group, written by one process, once, visible only when whole
        frames, masks, ...      the arrays
        COMMIT.json             the last file written: every other file's size and checksum, and the videos' rows
    STORE/banks/NAME/           pictures from elsewhere, to put foregrounds over
    STORE/index/                columns over all videos, derived from the commits
    STORE/failures.jsonl        the videos that could not be used, derived likewise
"""

from bgaug.names import FrameKind
from bgaug.store.banks import Bank, write_bank
from bgaug.store.check import Problem
from bgaug.store.create import building, create_store, finish_store, pending_shards
from bgaug.store.format.layout import FRAME_KINDS, Header
from bgaug.store.format.payload import VideoPayload
from bgaug.store.format.plan import Plan, PlannedVideo, plan_shards
from bgaug.store.format.records import Failure, Identity, Shot, VideoRow, identify
from bgaug.store.locks.writers import alone
from bgaug.store.merge import merge_stores
from bgaug.store.read import Store, open_store
from bgaug.store.repair import Repair, repair_store, restore_header
from bgaug.store.replace import replace_masks
from bgaug.store.verify import Report, verify_store
from bgaug.store.write import ShardWriter

__all__ = [
    "FRAME_KINDS",
    "Bank",
    "Failure",
    "FrameKind",
    "Header",
    "Identity",
    "Plan",
    "PlannedVideo",
    "Problem",
    "Repair",
    "Report",
    "ShardWriter",
    "Shot",
    "Store",
    "VideoPayload",
    "VideoRow",
    "alone",
    "building",
    "create_store",
    "finish_store",
    "identify",
    "merge_stores",
    "open_store",
    "pending_shards",
    "plan_shards",
    "repair_store",
    "replace_masks",
    "restore_header",
    "verify_store",
    "write_bank",
]
