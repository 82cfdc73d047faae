"""The on-disk format: plan, write, commit, verify, read. The only package that imports zarr.

A store is a folder that any Zarr v3 reader can open:

    STORE/zarr.json             the header: format, version, size, fit, options, classes
    STORE/plan.json             the videos of each shard; its sha256 is in the header
    STORE/shards/00017/         one Zarr group, written once by one process, visible only when complete
        frames, masks, ...      the arrays
        COMMIT.json             the last file written: size and checksum of every other file, and the videos' rows
    STORE/banks/NAME/           images from elsewhere as backgrounds for foregrounds
    STORE/index/                columns over all videos, derived from the commits
    STORE/failures.jsonl        the videos that could not be used, derived from the commits
"""

from bgaug.names import FrameKind
from bgaug.store.banks import Bank, write_bank
from bgaug.store.create import building, create_store, finish_store, pending_shards
from bgaug.store.format.layout import FRAME_KINDS, Header
from bgaug.store.format.payload import VideoPayload
from bgaug.store.format.plan import Plan, PlannedVideo, plan_shards
from bgaug.store.format.records import Failure, Identity, Shot, VideoRow, identify
from bgaug.store.merge import merge_stores
from bgaug.store.read import Store, open_store
from bgaug.store.repair import Repair, repair_store, restore_header
from bgaug.store.verify import Problem, Report, verify_store
from bgaug.store.write import ShardWriter, replace_masks
from bgaug.store.writers import alone

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
