"""The last step of every reader: unit quaternions, and nothing that is not a number."""

import logging
import math
import os

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.errors import DataError
from splatsense.gaussians import Gaussians

log = logging.getLogger("splatsense")


def clean_gaussians(
    path: str | os.PathLike[str],
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    sh: Float[Tensor, "N K 3"],
) -> Gaussians:
    """Gaussians from activated values, with quaternions of any length made unit and unusable rows left out.

    Unusable is a row with a value that is not finite, a negative scale, or a quaternion of zeros. Such rows are
    dropped with one warning that gives their number. Values are judged after activation: a logit opacity of infinity
    is an opacity of 1 and fine.

    Raises:
        DataError: no usable row is left.
    """
    largest = quats.abs().amax(-1, keepdim=True)
    quats = torch.nn.functional.normalize(quats / largest, dim=-1)
    gaussians = Gaussians(means, quats, scales, opacities, sh)
    parts = {"position": means, "rotation": quats, "scale": scales, "opacity": opacities[:, None], "colour": sh.flatten(1)}
    # One bad value makes the sum of its tensor bad: the common case costs one pass. A sum may overflow; then look closer.
    if all(math.isfinite(values.sum()) for values in parts.values()) and bool((scales >= 0).all()):
        return gaussians
    faults = {name: ~torch.isfinite(values).all(1) for name, values in parts.items()}
    faults["scale"] |= (scales < 0).any(1)
    unusable = torch.stack(list(faults.values())).any(0)
    dropped = int(unusable.sum())
    if dropped == 0:
        return gaussians
    found = ", ".join(f"{int(fault.sum())} in {name}" for name, fault in faults.items() if fault.any())
    if dropped == len(gaussians):
        raise DataError(f"{path}: every one of its {dropped} Gaussians has unusable values ({found}); export the file again.")
    log.warning("%s: left out %d of %d Gaussians with unusable values (%s).", path, dropped, len(gaussians), found)
    return gaussians[~unusable]
