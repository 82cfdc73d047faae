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

from bgaug.names import FrameKind as FrameKind
from bgaug.store.banks import Bank as Bank
from bgaug.store.banks import write_bank as write_bank
from bgaug.store.create import building as building
from bgaug.store.create import create_store as create_store
from bgaug.store.create import exclusive as exclusive
from bgaug.store.create import finish_store as finish_store
from bgaug.store.create import pending_shards as pending_shards
from bgaug.store.format.layout import Header as Header
from bgaug.store.format.payload import VideoPayload as VideoPayload
from bgaug.store.format.plan import Plan as Plan
from bgaug.store.format.plan import PlannedVideo as PlannedVideo
from bgaug.store.format.plan import plan_shards as plan_shards
from bgaug.store.format.records import Failure as Failure
from bgaug.store.format.records import Identity as Identity
from bgaug.store.format.records import MaskModel as MaskModel
from bgaug.store.format.records import Shot as Shot
from bgaug.store.format.records import VideoRow as VideoRow
from bgaug.store.format.records import identify as identify
from bgaug.store.read import Store as Store
from bgaug.store.read import open_store as open_store
from bgaug.store.summary import StoreCounts as StoreCounts
from bgaug.store.summary import summarise_store as summarise_store
from bgaug.store.upkeep import Repair as Repair
from bgaug.store.upkeep import merge_stores as merge_stores
from bgaug.store.upkeep import repair_store as repair_store
from bgaug.store.upkeep import restore_header as restore_header
from bgaug.store.verify import Problem as Problem
from bgaug.store.verify import Report as Report
from bgaug.store.verify import verify_store as verify_store
from bgaug.store.write import ShardWriter as ShardWriter
from bgaug.store.write import replace_masks as replace_masks
