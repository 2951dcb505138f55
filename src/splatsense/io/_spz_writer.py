"""Writing SPZ files of version 3; what they are and how exact, `spz` says."""

import gzip
import math
import os

import numpy as np
from torch.nn.functional import normalize

from splatsense.errors import DataError
from splatsense.files import atomic_write
from splatsense.gaussians import Gaussians
from splatsense.io._smallest_three import HALF_SQRT_2, drop_largest
from splatsense.io._writing import checked_to_write
from splatsense.io.spz import COLOR_SCALE, HEADER, LARGEST_FRACTION_BITS, MAGIC, QUATERNION_STEPS

POSITION_LIMIT = 2**23 - 1
GZIP_LEVEL = 4  # quantised values leave little to find: 2 % larger than level 6 and three times as fast
SH_STEPS = (8, 16)  # of 1/128: degree 1, and above; what the reference encoder keeps for the sake of gzip


def write_spz(gaussians: Gaussians, path: str | os.PathLike[str]) -> None:
    """Write an SPZ file of version 3. Values out of the format's range are clamped.

    Raises:
        DataError: there are no Gaussians, some have values that are not finite or out of range, or a coordinate is beyond
            8,388,607.
        FormatError: `path` cannot be written.
    """
    g = checked_to_write(gaussians, path)
    fraction_bits = _fraction_bits(path, float(g.means.abs().max()))
    fixed = np.round(g.means.double().numpy() * 2**fraction_bits).astype("<i4")
    with np.errstate(divide="ignore"):
        log_scales = np.log(g.scales.numpy())
    steps = np.repeat(np.array(SH_STEPS, "f4"), [3, max(0, g.sh.shape[1] - 4)])[: g.sh.shape[1] - 1, None]
    harmonics = np.round(g.sh[:, 1:].numpy() * (128 / steps)) * steps + 128
    payload = b"".join([
        HEADER.pack(MAGIC, 3, len(g), g.sh_degree, fraction_bits, 0, 0),
        fixed.view("u1").reshape(-1, 4)[:, :3].tobytes(),
        _to_bytes(g.opacities.numpy() * 255),
        _to_bytes(g.sh[:, 0].numpy() * (COLOR_SCALE * 255) + 127.5),
        _to_bytes((log_scales + 10) * 16),
        _pack_rotations(normalize(g.quats, dim=1).numpy()).tobytes(),
        _to_bytes(harmonics),
    ])  # fmt: skip
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress(payload, GZIP_LEVEL, mtime=0))


def _fraction_bits(path: str | os.PathLike[str], extent: float) -> int:
    """12 as the reference encoder has it; for small objects as many as make 65,536 steps; for large ones what 24 bits hold."""
    if extent > POSITION_LIMIT:
        raise DataError(f"{path}: not written: coordinates reach {extent:g}, SPZ holds {POSITION_LIMIT}; scale the scene down.")
    exponent = math.frexp(extent)[1]  # extent < 2^exponent
    wanted = max(12, min(16 - exponent, LARGEST_FRACTION_BITS))
    while round(extent * 2**wanted) > POSITION_LIMIT:
        wanted -= 1
    return wanted


def _pack_rotations(quats: np.ndarray) -> np.ndarray:
    """(N,) words of quaternions (N, 4) wxyz: the index of the largest of xyzw, then sign and magnitude of the others."""
    largest, others = drop_largest(quats[:, [1, 2, 3, 0]])
    magnitudes = (np.abs(others) / HALF_SQRT_2 * QUATERNION_STEPS + 0.5).astype("<u4").clip(max=QUATERNION_STEPS)
    fields = magnitudes | ((others < 0) & (magnitudes > 0)).astype("<u4") << 9
    return (largest.astype("<u4") << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]).astype("<u4")


def _to_bytes(values: np.ndarray) -> bytes:
    return np.round(values).clip(0, 255).astype("u1").tobytes()
