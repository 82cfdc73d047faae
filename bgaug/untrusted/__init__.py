"""Files from outside, read without executing anything in them and without spending more on them than they are worth.

regular   opening: regular files only
pickles   pickles of plain containers, text and numbers; names in them are never imported
archives  zip and .npz archives whose sizes are known before anything is allocated
"""

from bgaug.untrusted.archives import is_npy as is_npy
from bgaug.untrusted.archives import npz_names as npz_names
from bgaug.untrusted.archives import open_archive as open_archive
from bgaug.untrusted.archives import read_npy as read_npy
from bgaug.untrusted.archives import read_npz as read_npz
from bgaug.untrusted.pickles import load_plain as load_plain
from bgaug.untrusted.regular import MalformedFile as MalformedFile
from bgaug.untrusted.regular import open_regular as open_regular
from bgaug.untrusted.regular import read_regular as read_regular
