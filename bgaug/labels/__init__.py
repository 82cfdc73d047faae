"""Labels of videos: lists of the data sets of this field, CSV, class folders.

label        records that all formats share: Label, Labels, Entry, SplitList, ListFormat; the table of formats
lists        lists by format: found, read, matched with videos
match        rows and the videos they belong to
reading      lines, tables and JSON, bounded, with errors that name the place
class_names  names of numbered classes, and which class the numbers of a list mean
folders      class folders
labels_csv   tables with a header: ours, and others like it
filelist     a path and a number per line; lists that ship as pickles, read without executing them
published    the lists that UCF101, HMDB51, Kinetics, Something-Something V2 and Diving48 ship

Names load on first use: the table of formats is available without numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bgaug.labels.filelist import parse_columns as parse_columns
    from bgaug.labels.folders import labels_from_folders as labels_from_folders
    from bgaug.labels.folders import parse_layout as parse_layout
    from bgaug.labels.label import FORMATS as FORMATS
    from bgaug.labels.label import Entry as Entry
    from bgaug.labels.label import Label as Label
    from bgaug.labels.label import Labels as Labels
    from bgaug.labels.label import SplitList as SplitList
    from bgaug.labels.lists import labels_for as labels_for
    from bgaug.labels.lists import read_labels as read_labels
    from bgaug.labels.lists import read_list as read_list
    from bgaug.labels.lists import split_numbers as split_numbers
    from bgaug.labels.match import match_entries as match_entries

_HOME_OF = {
    **dict.fromkeys(("FORMATS", "Entry", "Label", "Labels", "SplitList"), "label"),
    **dict.fromkeys(("labels_for", "read_labels", "read_list", "split_numbers"), "lists"),
    **dict.fromkeys(("labels_from_folders", "parse_layout"), "folders"),
    "match_entries": "match",
    "parse_columns": "filelist",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"bgaug.labels.{_HOME_OF[name]}"), name)
