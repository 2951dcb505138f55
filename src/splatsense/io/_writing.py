"""The first step of every writer: float32 on the CPU, and nothing that a reader would have to leave out."""

import math
import os

from splatsense.errors import DataError
from splatsense.gaussians import Gaussians


def checked_to_write(gaussians: Gaussians, path: str | os.PathLike[str]) -> Gaussians:
    """`gaussians` as detached, contiguous float32 on the CPU; the same tensors where they are that already.

    Raises:
        DataError: there are none, or some are not as `Gaussians` wants them.
    """
    if not len(gaussians):
        raise DataError(f"{path}: there are no Gaussians to write.")
    g = gaussians
    means, quats, scales, opacities, sh = (
        value.detach().cpu().float().contiguous() for value in (g.means, g.quats, g.scales, g.opacities, g.sh)
    )
    usable = (quats != 0).any(1) & (scales >= 0).all(1) & (opacities >= 0) & (opacities <= 1)
    for values in (means, quats, scales, sh.flatten(1)):
        if not math.isfinite(values.sum()):  # the common case costs one pass; a sum may overflow, so look closer
            usable &= values.isfinite().all(1)
    if not usable.all():
        raise DataError(
            f"{path}: not written: {int((~usable).sum())} Gaussians have values that are not finite, a quaternion of zeros, a "
            "negative scale or an opacity outside 0 to 1; leave them out."
        )
    return Gaussians(means, quats, scales, opacities, sh)
