"""What is trained: a method by name, backbone, decomposition and heads, and the learner that compares their codes.

method      Method and its presets: which pairs, which terms, which form
encoder     trunk, static last stage, decomposition, one head a term
learner     ContrastiveLearner: pairs in, terms out; in the batch or with a momentum encoder and queues
parallel    one batch over several processes: what each computed, gathered
modes       DCLR's input modes, as a rival
"""

from bgaug.model.encoder import Encoder, projection_head
from bgaug.model.learner import ContrastiveLearner
from bgaug.model.method import METHODS, Method, queue_length

__all__ = ["METHODS", "ContrastiveLearner", "Encoder", "Method", "projection_head", "queue_length"]
