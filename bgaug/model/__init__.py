"""The model: methods by name, backbone, decomposition and heads, and the learner that compares their codes.

method      Method: which pairs, which terms, which form
presets     the methods by name
encoder     trunk, static last stage, decomposition, one head per term
learner     ContrastiveLearner: pairs in, terms out; in the batch or with a momentum encoder and queues
checkpoint  checkpoints of runs, written and read
parallel    the device, and one batch over several processes
modes       DCLR's input modes, as a rival
supervised  classification by labels, with ALBAR's terms on static clips
"""

from bgaug.model.encoder import Encoder
from bgaug.model.learner import ContrastiveLearner
from bgaug.model.method import Method
from bgaug.names import METHODS

__all__ = ["METHODS", "ContrastiveLearner", "Encoder", "Method"]
