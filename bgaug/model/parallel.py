"""The device, and one batch over several processes, gathered in order of their ranks.

Every process computes the loss of the whole batch from the gathered values. Gradient flows only to a process's own
part, so the sum of the processes' gradients is that of the whole batch. DistributedDataParallel takes their mean, so
the loss is multiplied by the number of processes there.

Letters: B clips of one process, W processes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from bgaug.errors import UsageError
from bgaug.pairs import Pairs


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The device of this name; by default CUDA where it is available, else the CPU.

    Args:
        name: "cpu", "cuda", "cuda:1", ...

    Raises:
        UsageError: there is no such device here.
    """
    cuda = torch.cuda.is_available()
    try:
        device = torch.device(name or ("cuda" if cuda else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"no device {name!r}; give cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not cuda:
        raise UsageError("CUDA is not available here; use --device cpu")
    return device


def num_processes() -> int:
    """W; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(values: Tensor) -> Tensor:
    """(B, ...) of this process -> (W * B, ...), the same on all; gradient flows only to its own part."""
    if num_processes() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(num_processes())]
    dist.all_gather(parts, values.detach().contiguous())
    parts[dist.get_rank()] = values
    return torch.cat(parts)


def own_part(values: Tensor) -> Tensor:
    """This process's B of (W * B, ...)."""
    return values if num_processes() == 1 else torch.chunk(values, num_processes())[dist.get_rank()]


def gather_pairs(pairs: Pairs) -> Pairs:
    """Pairs with donors, weights, videos and keys of the whole batch; the clips stay those of this process."""
    if num_processes() == 1:
        return pairs
    shift = dist.get_rank() * len(pairs.donor)
    donor = torch.where(pairs.donor >= 0, pairs.donor + shift, pairs.donor)
    return replace(
        pairs,
        donor=gather(donor),
        weight=gather(pairs.weight),
        video=gather(pairs.video),
        provenance={"key": gather(pairs.provenance["key"])},
    )
