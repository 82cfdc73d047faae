"""What bgaug's whole method costs over plain MoCo: CPU time of training steps at equal encoded views, side by side.

python benchmarks/step.py [--backbone r2plus1d18] [--clips 4] [--rounds 3] [--json]
python benchmarks/step.py --quick      # a tiny form, to see that it runs

Both are the momentum form: one encoded query and one encoded key a clip. semi adds the composition; bgaug
the dynamic code and its term; dual a static stream and a third term. A step is what the trainer does with a batch on
the device: pairs, encoder and loss, gradients, optimiser. Rounds alternate between the methods; medians of CPU time
over one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from gpu import make_batch

from bgaug.model import ContrastiveLearner, Method
from bgaug.pairs import Augmentation, SemiNegativePairs
from bgaug.pipelines.train.optimisation import Optimisation, make_optimiser

METHODS = ("moco", "semi", "bgaug", "dual")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--backbone", default="r2plus1d18")
parser.add_argument("--clips", type=int, default=4, help="of a batch")
parser.add_argument("--rounds", type=int, default=3, help="steps of each method that are timed, after one that is not")
parser.add_argument("--quick", action="store_true", help="a tiny network on tiny clips")
parser.add_argument("--json", action="store_true", help="print the result as the last line of stdout")


class Step:
    """A method's training step in the momentum form."""

    def __init__(self, name: str, backbone: str, size: int) -> None:
        torch.manual_seed(0)
        method = Method.resolve(name, momentum=True, queue=256)
        self.learner = ContrastiveLearner(backbone, method).train()
        self.pairs = SemiNegativePairs(Augmentation.standard(size), method.compose)
        self.optimiser = make_optimiser(self.learner, Optimisation(100))

    def __call__(self, batch: dict[str, torch.Tensor]) -> float:
        """CPU seconds of one step."""
        begun = time.process_time()
        loss = self.learner(self.pairs(batch))["loss"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return time.process_time() - begun


def main() -> None:
    """Measure and print."""
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames, height, width, size = (8, 40, 48, 32) if options.quick else (16, 128, 171, 112)
    if options.quick:
        options.backbone = "tiny"
    batch = make_batch(options.clips, frames, height, width, torch.device("cpu"))
    steps = {name: Step(name, options.backbone, size) for name in METHODS}
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for number in range(options.rounds + 1):
        for name, step in steps.items():
            taken = step(batch)
            if number:
                seconds[name].append(taken)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "backbone": options.backbone,
        "clips": options.clips,
        "torch": torch.__version__,
        "cpu_seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "over_moco": {name: round(value / middle["moco"], 4) for name, value in middle.items()},
    }
    for name, values in seconds.items():
        print(
            f"{name:6} {middle[name]:8.2f} s per step ({min(values):.2f} to {max(values):.2f}), "
            f"{middle[name] / middle['moco']:.3f} of moco"
        )
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
