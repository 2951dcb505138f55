"""`.splat` files: 32 bytes a Gaussian and no header, as the WebGL viewer of Kevin Kwok (antimatter15) defined them.

Each record is position (3 float32), linear scale (3 float32), red, green, blue, opacity (4 bytes) and a quaternion
wxyz (4 bytes, `128 + 128 q`). There is no view-dependent colour, and colour and rotation are quantised to 8 bits.
"""

import logging
import os
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from splatsense.errors import FormatError
from splatsense.files import atomic_write, open_to_read
from splatsense.gaussians import Gaussians
from splatsense.io._cleaning import clean_gaussians
from splatsense.io._writing import checked_to_write
from splatsense.spherical_harmonics import SH_C0

log = logging.getLogger("splatsense")

ROWS_PER_BLOCK = 1 << 14
RECORD = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def read_splat(path: str | os.PathLike[str]) -> Gaussians:
    """Read a `.splat` file; the result has SH degree 0.

    Records with values that are not finite, a negative scale or a quaternion of zeros are left out with a warning in
    the log.

    Raises:
        FormatError: the file is missing, empty, or not a whole number of 32-byte records.
        DataError: no Gaussian in it is usable.
    """
    path = Path(path)
    with open_to_read(path) as handle:
        size = handle.seek(0, os.SEEK_END)
        count, excess = divmod(size, RECORD.itemsize)
        if not size:
            raise FormatError(f"{path}: is empty.")
        if excess:
            raise FormatError(
                f"{path}: cut off or not a .splat file: {size} bytes are {count} records of 32 bytes and "
                f"{excess} more at byte {count * RECORD.itemsize}. Copy or export it again."
            )
        handle.seek(0)
        means, scales = np.empty((count, 3), "f4"), np.empty((count, 3), "f4")
        rgba, quats = np.empty((count, 4), "f4"), np.empty((count, 4), "f4")
        for start in range(0, count, ROWS_PER_BLOCK):
            rows = slice(start, min(start + ROWS_PER_BLOCK, count))
            block = np.empty(rows.stop - start, RECORD)
            if handle.readinto(block.view(np.uint8).data) < block.nbytes:
                raise FormatError(f"{path}: became shorter while it was read; read it again when it is complete.")
            means[rows], scales[rows] = block["mean"], block["scale"]
            np.divide(block["rgba"], np.float32(255), out=rgba[rows])
            np.subtract(block["quat"], np.float32(128), out=quats[rows])
    opacities = torch.from_numpy(rgba[:, 3].copy())
    sh = torch.from_numpy(rgba[:, :3]).sub(0.5).div_(SH_C0)[:, None]
    return clean_gaussians(path, torch.from_numpy(means), torch.from_numpy(quats), torch.from_numpy(scales), opacities, sh)


def write_splat(gaussians: Gaussians, path: str | os.PathLike[str]) -> None:
    """Write a `.splat` file. View-dependent colour is left out, which the log says.

    Raises:
        DataError: there are no Gaussians, or some have values that are not finite or out of range.
        FormatError: `path` cannot be written.
    """
    g = checked_to_write(gaussians, path)
    if g.sh_degree > 0:
        log.warning("%s: .splat files have no view-dependent colour; it is left out. Write .ply to keep it.", path)
    records = np.empty(len(g), RECORD)
    records["mean"], records["scale"] = g.means.numpy(), g.scales.numpy()
    records["rgba"] = (torch.cat([g.rgb, g.opacities[:, None]], dim=1) * 255).round().numpy()
    records["quat"] = (normalize(g.quats, dim=1) * 128 + 128).round().clamp(0, 255).numpy()
    with atomic_write(path) as temporary:
        temporary.write_bytes(records.tobytes())
