"""Training: from batches to a run on disk.

A run is a folder: `config.json` (everything that decides the run), `log.jsonl` (one line a step) and `checkpoints/`.

optimisation  optimisers, schedules
processes     one, or those of torchrun
signals       a stop signal, taken up between two steps
log           what a run says of itself
checkpoint    written in one step, the last few and the best kept
loop          Trainer: a step, an epoch, resuming
"""

from bgaug.encoders.run import BEST, CHECKPOINTS, load_checkpoint
from bgaug.encoders.run import find_checkpoint as last_checkpoint
from bgaug.trainer.log import LOG
from bgaug.trainer.loop import Keeping, Line, Trained, Trainer, average_of
from bgaug.trainer.optimisation import LARS, Optimisation, make_optimiser
from bgaug.trainer.processes import Processes, processes

CONFIG = "config.json"

__all__ = [
    "BEST",
    "CHECKPOINTS",
    "CONFIG",
    "LARS",
    "LOG",
    "Keeping",
    "Line",
    "Optimisation",
    "Processes",
    "Trained",
    "Trainer",
    "average_of",
    "last_checkpoint",
    "load_checkpoint",
    "make_optimiser",
    "processes",
]
