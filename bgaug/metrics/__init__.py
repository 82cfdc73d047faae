"""Metrics of frozen features, with intervals and comparisons: arrays in, numbers out.

    neighbours  retrieval, and labels by votes
    linear      a linear probe, the choice of its penalty, few-shot classifiers
    held_out    which samples are tested, and which are learnt from
    statistics  intervals, differences of two runs, tables by class
    bias        composites that show whether an encoder uses the background
    heatmap     maps, and how much of them lies on the foreground
    checks      checks of the arrays

Average the features of several clips of one video first: one row per video.
Accuracies and recalls are shares in [0, 1].

Letters: N samples, Q queries, G gallery items, D embedding, K classes.
"""

from bgaug.metrics.held_out import HeldOut as HeldOut
from bgaug.metrics.held_out import deal as deal
from bgaug.metrics.held_out import hold_out as hold_out
from bgaug.metrics.linear import LinearProbe as LinearProbe
from bgaug.metrics.linear import choose_l2 as choose_l2
from bgaug.metrics.linear import few_shot_predict as few_shot_predict
from bgaug.metrics.neighbours import Retrieval as Retrieval
from bgaug.metrics.neighbours import knn_accuracy as knn_accuracy
from bgaug.metrics.neighbours import knn_predict as knn_predict
from bgaug.metrics.neighbours import leave_one_out_retrieval as leave_one_out_retrieval
from bgaug.metrics.neighbours import retrieval as retrieval
from bgaug.metrics.neighbours import smallest_gallery as smallest_gallery
from bgaug.metrics.statistics import Paired as Paired
from bgaug.metrics.statistics import bootstrap_interval as bootstrap_interval
from bgaug.metrics.statistics import class_rows as class_rows
from bgaug.metrics.statistics import confusion_counts as confusion_counts
from bgaug.metrics.statistics import paired_difference as paired_difference
from bgaug.names import FewShotClassifier as FewShotClassifier
