"""The first step of writers that quantise: plain float32 on the CPU, and nothing that is not a number."""

import math
import os

from torch.nn.functional import normalize

from splatsense.errors import DataError
from splatsense.gaussians import Gaussians


def checked_to_write(gaussians: Gaussians, path: str | os.PathLike[str]) -> Gaussians:
    """`gaussians` as detached float32 on the CPU, with unit quaternions.

    Raises:
        DataError: there are none, or some value is not finite, or a quaternion is zero.
    """
    if not len(gaussians):
        raise DataError(f"{path}: there are no Gaussians to write.")
    g = gaussians
    means, quats, scales, opacities, sh = (v.detach().cpu().float() for v in (g.means, g.quats, g.scales, g.opacities, g.sh))
    parts = (means, quats, scales, opacities[:, None], sh.flatten(1))
    usable = (quats != 0).any(1)
    for part in parts:
        if not math.isfinite(part.sum()):  # the common case costs one pass; a sum may overflow, so look closer
            usable &= part.isfinite().all(1)
    if not usable.all():
        raise DataError(
            f"{path}: not written: {int((~usable).sum())} Gaussians have values that are not finite or a quaternion of zeros."
        )
    return Gaussians(means, normalize(quats, dim=1), scales, opacities, sh)
