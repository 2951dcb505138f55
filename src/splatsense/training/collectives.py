"""Sums and concatenations over the processes of a run that gradients flow through.

With one process each is the identity. The gradient of what every process computes from the result is summed over the
processes: where all compute the same loss, the gradients of the parameters come out that many times too large, and their
mean over the processes, which data-parallel training takes, is the gradient of that loss.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def process_count() -> int:
    """Processes that train together; 1 without `torchrun` or `accelerate launch`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Elementwise sum, in float32 or float64, of every process's tensor of this shape."""
    return _Sum.apply(values) if process_count() > 1 else values  # pyright: ignore[reportReturnType]


def gather_rows(rows: Float[Tensor, "n *rest"]) -> Float[Tensor, "all *rest"]:
    """Every process's rows in the order of their ranks; each must have as many."""
    return _Gather.apply(rows) if process_count() > 1 else rows  # pyright: ignore[reportReturnType]


def gather_integers(rows: Tensor) -> Tensor:
    """`gather_rows` for integers."""
    return _gathered(rows) if process_count() > 1 else rows


def _gathered(rows: Tensor) -> Tensor:
    parts = [torch.empty_like(rows) for _ in range(process_count())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def _summed(values: Tensor) -> Tensor:
    total = values.contiguous().clone()
    dist.all_reduce(total)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        return _gathered(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        start = dist.get_rank() * ctx.count
        return _summed(gradients[0])[start : start + ctx.count]
