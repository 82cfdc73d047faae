"""Labels of videos: lists of the data sets of this field, our own CSV, class folders.

label        Label and Labels: what everything else sees
entries      what a list says, row by row, before any video is looked for
lists        lists by format: found, read, joined with videos
match        rows and videos that belong together
labels_csv   tables with a header: our CSV, and others like it
table        cells of CSV and JSON by the names of their columns
ucf101       UCF101
hmdb51       HMDB51
kinetics     Kinetics' CSV
ssv2         Something-Something V2
diving48     Diving48 V2
filelist     a path and a number a line
pickled      lists that ship as pickles, read without executing them
class_names  names of numbered classes
numbering    which class the numbers of a list mean
roles        files of a folder by the split that their names tell
folders      class folders
reading      lines and JSON, bounded, with errors that give the place
description  what a file holds that is none of these
"""

from bgaug.labels.entries import Entry as Entry
from bgaug.labels.entries import SplitList as SplitList
from bgaug.labels.filelist import parse_columns as parse_columns
from bgaug.labels.folders import labels_from_folders as labels_from_folders
from bgaug.labels.folders import parse_layout as parse_layout
from bgaug.labels.label import Label as Label
from bgaug.labels.label import Labels as Labels
from bgaug.labels.lists import FORMATS as FORMATS
from bgaug.labels.lists import find_format as find_format
from bgaug.labels.lists import labels_for as labels_for
from bgaug.labels.lists import read_labels as read_labels
from bgaug.labels.lists import read_list as read_list
from bgaug.labels.lists import split_numbers as split_numbers
from bgaug.labels.match import match_entries as match_entries
