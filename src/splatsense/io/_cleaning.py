"""The last step of every reader: unit quaternions, and nothing that is not a number.

Design
- The common case, a file without faults, is told by one sum over each tensor. Everything else goes slice by slice and
  moves rows within the memory they are in, so that a large file needs little more than its own values.
"""

import logging
import math
import os

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.errors import DataError
from splatsense.gaussians import Gaussians

log = logging.getLogger("splatsense")

ROWS_PER_SLICE = 1 << 13


def clean_gaussians(
    path: str | os.PathLike[str],
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    sh: Float[Tensor, "N K 3"],
) -> Gaussians:
    """Gaussians from activated values, with quaternions of any length made unit and unusable rows left out.

    The tensors are taken over: where rows are left out, the others move up in the same memory.

    Unusable is a row with a value that is not finite, a negative scale, or a quaternion of zeros. Such rows are
    dropped with one warning that gives their number. Values are judged after activation: a logit opacity of infinity
    is an opacity of 1 and fine.

    Raises:
        DataError: no usable row is left.
    """
    quats = _unit(quats)
    gaussians = Gaussians(means, quats, scales, opacities, sh)
    parts = {"position": means, "rotation": quats, "scale": scales, "opacity": opacities[:, None], "colour": sh.flatten(1)}
    # One bad value makes the sum of its tensor bad: the common case costs one pass. A sum may overflow; then look closer.
    if all(math.isfinite(values.sum()) for values in parts.values()) and bool((scales >= 0).all()):
        return gaussians
    faults = {name: _not_finite(values) for name, values in parts.items()}
    faults["scale"] |= (scales < 0).any(1)
    unusable = torch.stack(list(faults.values())).any(0)
    dropped = int(unusable.sum())
    if dropped == 0:
        return gaussians
    found = ", ".join(f"{int(fault.sum())} in {name}" for name, fault in faults.items() if fault.any())
    if dropped == len(gaussians):
        raise DataError(f"{path}: every one of its {dropped} Gaussians has unusable values ({found}); export the file again.")
    log.warning("%s: left out %d of %d Gaussians with unusable values (%s).", path, dropped, len(gaussians), found)
    return Gaussians(*(_move_up(values, ~unusable) for values in (means, quats, scales, opacities, sh)))


def _unit(quats: Tensor) -> Tensor:
    """Unit quaternions; NaN for those of zeros."""
    unit = torch.empty_like(quats, memory_format=torch.contiguous_format)
    for source, target in zip(quats.split(ROWS_PER_SLICE), unit.split(ROWS_PER_SLICE), strict=True):
        w, x, y, z = source.unbind(1)
        length = (w * w).addcmul_(x, x).addcmul_(y, y).addcmul_(z, z).sqrt_()
        if not ((length > 1e-15) & (length < 1e15)).all():  # squares under- or overflow: the largest component goes first
            source = source / source.abs().amax(1, keepdim=True)
            length = source.norm(dim=1)
        torch.div(source, length[:, None], out=target)
    return unit


def _not_finite(values: Tensor) -> Tensor:
    """(N,) whether a row of (N, K) has a value that is not finite."""
    return torch.cat([~torch.isfinite(rows).all(1) for rows in values.split(ROWS_PER_SLICE)])


def _move_up(values: Tensor, keep: Tensor) -> Tensor:
    """The rows to keep, in order, at the front of the memory they were in, or in memory of their own where most go."""
    if int(keep.sum()) < len(values) // 2 or not values.is_contiguous():
        return values[keep]
    end = 0
    for rows, chosen in zip(values.split(ROWS_PER_SLICE), keep.split(ROWS_PER_SLICE), strict=True):
        kept = rows[chosen]
        values[end : end + len(kept)] = kept
        end += len(kept)
    return values[:end]
