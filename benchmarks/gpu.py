"""Costs of bgaug on a GPU: its share of a training step, clips per second, memory; a check that no step waits.

python benchmarks/gpu.py [--json] [--clips 64] [--backbone r2plus1d18] [--method bgaug] [--steps 20]
python benchmarks/gpu.py --device cpu --quick      # a tiny form, to see that it runs

Needs torch and numpy alone: batches are made up on the spot, no store is read. A step is what a training loop does once
the uint8 batch is on the device: pairs, encoder and loss under bf16 autocast, gradients, optimiser. Times are medians
over steps, by the device's own clock; the share of the pairs is measured in the same run. The step is also run under
torch's profiler, and with synchronisation forbidden: a step that waits for the device ends the benchmark with an error.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from bgaug.model import ContrastiveLearner
from bgaug.model.backbones import count_parameters
from bgaug.pairs import Augmentation, Pairs, SemiNegativePairs

WAITS = (
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "Memcpy DtoH",
    "aten::_local_scalar_dense",
    "aten::nonzero",
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--device", default="cuda")
parser.add_argument("--backbone", default="r2plus1d18")
parser.add_argument("--method", default="bgaug")
parser.add_argument("--clips", type=int, default=64, help="of a batch")
parser.add_argument("--steps", type=int, default=20, help="that are timed, after as many that are not")
parser.add_argument("--compile", action="store_true", help="also with torch.compile, of pairs and encoder")
parser.add_argument("--quick", action="store_true", help="a tiny network on tiny clips")
parser.add_argument("--json", action="store_true", help="print the result as the last line of stdout")


def main() -> None:
    """Measure, check, print."""
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here; --device cpu --quick shows that the benchmark runs", file=sys.stderr)
        raise SystemExit(1)
    frames, height, width, size = (8, 40, 48, 32) if options.quick else (16, 128, 171, 112)
    if options.quick:
        options.backbone, options.clips, options.steps = "tiny", min(options.clips, 8), min(options.steps, 3)
    torch.manual_seed(0)
    batch = make_batch(options.clips, frames, height, width, device)
    result: dict[str, Any] = {"device": device_name(device), "torch": torch.__version__, "clips": options.clips}
    result |= {"backbone": options.backbone, "method": options.method, "frames": frames, "crop": size}
    for compiled in (False, True) if options.compile else (False,):
        step = Step(options.backbone, options.method, size, device, compiled)
        result["parameters"] = count_parameters(step.learner)
        result["compiled" if compiled else "eager"] = measure(step, batch, options.steps)
    show(result)
    if options.json:
        print(json.dumps(result))


class Step:
    """One training step, and its pairs alone."""

    def __init__(self, backbone: str, method: str, size: int, device: torch.device, compiled: bool) -> None:
        self.device = device
        self.learner = ContrastiveLearner(backbone, method).to(device).train()
        augmentation = Augmentation.tiny(size) if backbone == "tiny" else Augmentation.standard(size)
        self.pairs: Callable[[dict[str, Tensor]], Pairs] = SemiNegativePairs(
            augmentation, self.learner.method.compose
        ).to(device)
        self.optimiser = torch.optim.SGD(self.learner.parameters(), lr=0.01, momentum=0.9)
        if compiled:
            self.learner.encoder = torch.compile(self.learner.encoder)  # type: ignore[assignment]
            self.pairs = torch.compile(self.pairs)

    def __call__(self, batch: dict[str, Tensor]) -> None:
        """Everything that a loop does with a batch on the device."""
        pairs = self.pairs(batch)
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.learner(pairs)["loss"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()


def measure(step: Step, batch: dict[str, Tensor], steps: int) -> dict[str, Any]:
    """Times, memory, and whether a step waits."""
    for _ in range(max(3, steps // 2)):
        step(batch)
    cuda = step.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(step.device)
    whole = [timed(lambda: step(batch), step.device) for _ in range(steps)]
    pairs = [timed(lambda: step.pairs(batch), step.device) for _ in range(steps)]
    middle, share = statistics.median(whole), statistics.median(pairs)
    clips = len(batch["key"])
    return {
        "step_ms": round(middle, 3),
        "step_ms_spread": round((max(whole) - min(whole)) / middle, 3),
        "pairs_ms": round(share, 3),
        "pairs_share": round(share / middle, 4),
        "clips_per_second": round(2 * clips / middle * 1000, 1),
        "peak_memory_mib": round(torch.cuda.max_memory_allocated(step.device) / 2**20) if cuda else None,
        "waits": waits(step, batch),
    }


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Milliseconds, by the device's clock."""
    if device.type != "cuda":
        begun = time.process_time()
        work()
        return 1000 * (time.process_time() - begun)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    first.record()
    work()
    last.record()
    torch.cuda.synchronize(device)
    return float(first.elapsed_time(last))


def waits(step: Step, batch: dict[str, Tensor]) -> list[str]:
    """Operations of one step that make the host wait, found by the profiler."""
    from torch.profiler import ProfilerActivity, profile, record_function

    cuda = step.device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    with profile(activities=activities) as profiler, forbidden_to_wait(cuda), record_function("the step"):
        step(batch)
    events = list(profiler.events())
    within = next(event.time_range for event in events if event.name == "the step" and event.device_type.name == "CPU")
    # The profiler waits for the device itself when it is left, so what the host does counts within the step alone.
    seen = {
        event.name
        for event in events
        if event.device_type.name != "CPU" or within.start <= event.time_range.start <= within.end
    }
    return sorted(name for name in seen if any(wait in name for wait in WAITS))


def forbidden_to_wait(cuda: bool) -> Any:
    """Within, whatever makes the host wait for the device is an error."""
    if not cuda:
        return nullcontext()

    class Forbidden:
        def __enter__(self) -> None:
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *error: object) -> None:
            torch.cuda.set_sync_debug_mode("default")

    return Forbidden()


def make_batch(clips: int, frames: int, height: int, width: int, device: torch.device) -> dict[str, Tensor]:
    """Random bytes where a store's would be."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    batch = {
        "frames": noise(clips, 2, frames, height, width, 3),
        "masks": noise(clips, 2, frames, (height * width + 7) // 8),
        "backgrounds": noise(clips, height, width, 3),
        "video": torch.arange(clips),
        "grade": torch.ones(clips, dtype=torch.int64),
        "box": torch.tensor([[0, 0, height, width]]).repeat(clips, 1),
        "key": torch.randint(-(2**62), 2**62, (clips,), generator=generator),
    }
    return {name: value.to(device) for name, value in batch.items()}


def device_name(device: torch.device) -> str:
    """The card, or the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def show(result: dict[str, Any]) -> None:
    """The result as text."""
    million = result["parameters"] / 1e6
    print(
        f"{result['method']} on {result['backbone']} ({million:.1f} M parameters), {result['clips']} clips, "
        f"{result['device']}"
    )
    for form in ("eager", "compiled"):
        if form in result:
            row = result[form]
            memory = f", {row['peak_memory_mib']} MiB" if row["peak_memory_mib"] else ""
            print(
                f"{form}: {row['step_ms']:.1f} ms a step, pairs {row['pairs_ms']:.1f} ms ({row['pairs_share']:.1%}), "
                f"{row['clips_per_second']:.0f} encoded clips/s{memory}; waits: {', '.join(row['waits']) or 'none'}"
            )


if __name__ == "__main__":
    main()
