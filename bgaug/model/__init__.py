"""What is trained: a method by name, backbone, decomposition and heads, and the learner that compares their codes.

method      Method: which pairs, which terms, which form
presets     the methods by name
encoder     trunk, static last stage, decomposition, one head a term
learner     ContrastiveLearner: pairs in, terms out; in the batch or with a momentum encoder and queues
parallel    one batch over several processes: what each computed, gathered
modes       DCLR's input modes, as a rival
"""

from bgaug.model.encoder import Encoder, projection_head
from bgaug.model.learner import ContrastiveLearner
from bgaug.model.method import Method, queue_length
from bgaug.names import METHODS

__all__ = ["METHODS", "ContrastiveLearner", "Encoder", "Method", "projection_head", "queue_length"]
