"""E57 files (ASTM E2807), the exchange format of terrestrial scanners, read by pye57 (MIT): `pip install splatsense[e57]`.

Design
- pye57 is 17 MB and a binding of C++ (libE57Format), hence an extra, and run in a process of its own, see `_isolated`.
- All scans of a file become one cloud in its common frame: each scan's rotation and translation are applied in float64, points
  marked invalid are left out. Spherical coordinates are understood.
- Colours by the limits that a scan states, else 8-bit, or 16-bit if one exceeds 255. A scan without colours is grey among
  scans with them. Images and intensities are passed over.
"""

import importlib.util
import logging
import os
from pathlib import Path

import numpy as np

from splatsense.errors import FormatError
from splatsense.files import open_to_read
from splatsense.io._isolated import IsolatedError, stream
from splatsense.io.point_cloud import GREY, PointCloud

log = logging.getLogger("splatsense")

ROW = np.dtype([("xyz", "<f8", 3), ("rgb", "<f8", 3)])
WORKER_MEMORY, WORKER_MEMORY_PER_BYTE = 1 << 30, 32
WORKER_SECONDS, WORKER_BYTES_PER_SECOND = 60.0, 1_000_000


@np.errstate(all="ignore")  # what is not finite then is left out
def read_e57(path: str | os.PathLike[str]) -> PointCloud:
    """Read the points and colours of all scans of an .e57 file.

    Raises:
        FormatError: the file is missing, cut off or damaged, or pye57 is not installed.
        DataError: no point in it is usable.
    """
    path = Path(path)
    with open_to_read(path) as handle:
        size = handle.seek(0, os.SEEK_END)
    if importlib.util.find_spec("pye57") is None:
        raise FormatError(f"{path}: reading .e57 needs pye57; run `pip install splatsense[e57]`, or convert it to .las.")
    data = bytearray()
    try:
        request = {"path": str(path), "most_points": 8 * size}
        memory, seconds = WORKER_MEMORY + WORKER_MEMORY_PER_BYTE * size, WORKER_SECONDS + size / WORKER_BYTES_PER_SECOND
        for block in stream("e57", request, memory, seconds):
            data += block
    except IsolatedError as error:
        raise FormatError(f"{path}: cut off or damaged: {error}. Copy or export it again.") from error
    rows = np.frombuffer(data, ROW)
    if not len(rows):
        raise FormatError(f"{path}: holds no valid points. Export it again.")
    colors = rows["rgb"].astype(np.float32)
    without = np.isnan(colors).any(1)
    if without.all():
        return PointCloud.from_file(path, rows["xyz"], None, None)
    colors[without] = GREY
    return PointCloud.from_file(path, rows["xyz"], colors, None)
