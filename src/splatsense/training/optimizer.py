"""What training runs share about optimisers: groups of parameters, and the update itself."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from splatsense.training.divergence import DivergedError
from splatsense.training.schedules import Schedule, apply_schedule


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], peak: Callable[[str], float], weight_decay: float
) -> list[dict[str, Any]]:
    """Groups of parameters of one peak learning rate and weight decay each, for `torch.optim`.

    Weights of two or more dimensions decay; biases, norms, tokens and temperatures do not.

    Args:
        parameters: names and values, as from `named_parameters`.
        peak: learning rate of a name at the top of the schedule.
        weight_decay: of matrices.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        decay = weight_decay if parameter.ndim >= 2 and name.endswith("weight") else 0.0
        groups.setdefault((peak(name), decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "peak_lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()
    ]


def layer_factor(name: str, depth: int, decay: float) -> float:
    """Layer-wise learning-rate decay of a transformer (BEiT, arXiv 2106.08254): 1 for the head, less for what is below.

    Args:
        name: of a parameter; `blocks.<k>.` is layer k + 1, `norm` and `head` are above, all else is layer 0.
        depth: number of blocks.
        decay: factor from one layer to the one below.
    """
    part, *rest = name.split(".")
    if part == "blocks":
        return decay ** (depth - int(rest[0]))
    return 1.0 if part in ("norm", "head") else decay ** (depth + 1)


def update(
    optimizer: torch.optim.Optimizer, schedule: Schedule, step: int, clipped: Iterable[nn.Parameter], clip: float
) -> dict[str, float]:
    """One step of the optimiser from the gradients that are there.

    Args:
        optimizer: of `parameter_groups`.
        schedule: of its learning rates.
        step: counted from 0.
        clipped: parameters whose gradients are scaled so that their joint norm is at most `clip`.
        clip: that norm.

    Returns:
        "learning_rate", the largest of the groups', and "gradient_norm", before clipping.

    Raises:
        DivergedError: the gradient is not finite; the parameters are as they were.
    """
    apply_schedule(optimizer, schedule, step)
    norm = float(nn.utils.clip_grad_norm_(clipped, clip))
    if not math.isfinite(norm):
        raise DivergedError("the gradient is not finite")
    optimizer.step()
    return {"learning_rate": max(group["lr"] for group in optimizer.param_groups), "gradient_norm": norm}
