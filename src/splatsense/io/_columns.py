"""Point clouds out of named columns: which names are positions, colours and normals, and what full intensity is."""

from pathlib import Path

import numpy as np

from splatsense.io.point_cloud import PointCloud

ColumnTable = dict[str, np.ndarray]
"""(N,) values by the names of `cloud_from_columns`."""

POSITION = ("x", "y", "z")
COLORS = (("r", "g", "b"), ("red", "green", "blue"))
NORMALS = (("normal_x", "normal_y", "normal_z"), ("nx", "ny", "nz"))
NAMES = frozenset([*POSITION, *(name for names in (*COLORS, *NORMALS) for name in names), "rgb", "rgba"])
"""All columns that are used."""
FULL_INTENSITY = {"u1": 255.0, "i1": 127.0, "u2": 65535.0, "i2": 32767.0}


@np.errstate(all="ignore")  # a value beyond float32 becomes infinite, and its point is left out
def cloud_from_columns(path: Path, columns: ColumnTable) -> PointCloud:
    """The points in columns x, y, z, with colours `r g b`, `red green blue`, `rgb` or `rgba` and normals if there are any.

    Raises:
        DataError: no point is usable.
    """
    doubles = any(columns[name].dtype != np.float32 for name in POSITION)
    points = np.stack([columns[name] for name in POSITION], 1).astype(np.float64 if doubles else np.float32, copy=False)
    return PointCloud.from_file(path, points, _colors(columns), _normals(columns))


def _colors(columns: ColumnTable) -> np.ndarray | None:
    for names in COLORS:
        if columns.keys() >= set(names):
            values = np.stack([columns[name] for name in names], 1)
            return (values / full_intensity(values.dtype.str[1:], values)).astype(np.float32)
    for name in ("rgb", "rgba"):
        if name in columns and columns[name].dtype.itemsize == 4:
            packed = np.ascontiguousarray(columns[name]).view(np.uint32)
            return np.stack([packed >> shift & 255 for shift in (16, 8, 0)], 1).astype(np.float32) / 255
    return None


def full_intensity(code: str, values: np.ndarray) -> float:
    """The value of a full colour: by the type for integers of 8 and 16 bits, else 1, 255 or 65535 as `values` seem.

    Args:
        code: NumPy type code in the file, such as "u1".
        values: colours, of any type and shape.
    """
    if code in FULL_INTENSITY:
        return FULL_INTENSITY[code]
    largest = np.nanmax(values, initial=0.0, where=np.isfinite(values))
    return 1.0 if largest <= 1 and code.startswith("f") else 255.0 if largest <= 255 else 65535.0


def _normals(columns: ColumnTable) -> np.ndarray | None:
    for names in NORMALS:
        if columns.keys() >= set(names):
            return np.stack([columns[name] for name in names], 1).astype(np.float32)
    return None
