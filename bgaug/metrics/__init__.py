"""How good frozen features are, and how sure the numbers are.

    neighbours  retrieval, and labels by the votes of the nearest
    linear      a linear probe, and the choice of its penalty
    few_shot    a handful of labelled samples a class
    held_out    who is tested, and who is learnt from
    by_class    what happened to each class
    certainty   intervals, and whether two runs differ
    checks      what all of them ask of their arrays

Pure functions over arrays; who encoded which clips is the caller's business. Where a video gave several clips, average
their features first: one row a video. Accuracies and recalls are shares in [0, 1].

Letters: N samples, Q queries, G gallery items, D embedding, K classes.
"""

from bgaug.metrics.by_class import class_rows as class_rows
from bgaug.metrics.by_class import confusion_counts as confusion_counts
from bgaug.metrics.few_shot import draw_shots as draw_shots
from bgaug.metrics.few_shot import few_shot_predict as few_shot_predict
from bgaug.metrics.held_out import HeldOut as HeldOut
from bgaug.metrics.held_out import deal as deal
from bgaug.metrics.held_out import hold_out as hold_out
from bgaug.metrics.linear import L2_CANDIDATES as L2_CANDIDATES
from bgaug.metrics.linear import LinearProbe as LinearProbe
from bgaug.metrics.linear import choose_l2 as choose_l2
from bgaug.metrics.retrieval import QUERY_BLOCK as QUERY_BLOCK
from bgaug.metrics.retrieval import TIE as TIE
from bgaug.metrics.retrieval import Retrieval as Retrieval
from bgaug.metrics.retrieval import knn_accuracy as knn_accuracy
from bgaug.metrics.retrieval import knn_predict as knn_predict
from bgaug.metrics.retrieval import leave_one_out_retrieval as leave_one_out_retrieval
from bgaug.metrics.retrieval import retrieval as retrieval
from bgaug.metrics.retrieval import smallest_gallery as smallest_gallery
from bgaug.metrics.statistics import Paired as Paired
from bgaug.metrics.statistics import bootstrap_interval as bootstrap_interval
from bgaug.metrics.statistics import paired_difference as paired_difference
from bgaug.names import FewShotClassifier as FewShotClassifier
