"""Point clouds as text: .xyz .xyzrgb .xyzn .pts .txt .csv .asc, one point a line.

Design
- Numbers are separated by white space, commas or semicolons, whichever the first lines use.
- A header line names the columns: `x y z`, `r g b` or `red green blue`, `nx ny nz` or `normal_x ...`, in any order and case;
  it may be a comment, as CloudCompare's `//X,Y,Z,R,G,B`. Other columns are passed over. A lone count may come first (.pts).
- Without a header, 3 columns are positions, 4 are positions and a value that is passed over, 6 are positions with colours or
  normals, 7 in a .pts file are position, intensity, colour, and 9 are positions with colours and normals in either order.
  Normals are three columns of unit length or with values below 0; colours are 0 to 1 or, where one exceeds 1, 0 to 255. Any
  other table is an error that asks for a header: which columns are colours is not guessed.
"""

import io
import os
import re
from itertools import chain
from pathlib import Path

import numpy as np

from splatsense.errors import FormatError
from splatsense.files import open_to_read
from splatsense.io._columns import NAMES, ColumnTable, cloud_from_columns
from splatsense.io._text_table import is_number, read_table
from splatsense.io.point_cloud import PointCloud

COMMENT = re.compile(r"\s*(#|//|;|%)")
MAX_START_LINES = 1000  # of comments before the first point
MAX_LINE = 1 << 16
ALIASES = {"px": "x", "py": "y", "pz": "z", "rf": "r", "gf": "g", "bf": "b", "normalx": "nx", "normaly": "ny", "normalz": "nz"}
UNIT_TOLERANCE = 0.02
EXAMPLE = 'Give it a first line that names its columns, such as "x y z r g b".'


def read_text_cloud(path: str | os.PathLike[str]) -> PointCloud:
    """Read points, and colours and normals if there are any, from a table in text.

    Raises:
        FormatError: the file is missing, no text, damaged at a line that is named, or its columns cannot be told apart.
        DataError: no point in it is usable.
    """
    path = Path(path)
    with open_to_read(path) as handle:
        if b"\0" in handle.read(4096):
            raise FormatError(f"{path}: is not a text file: it holds null bytes. Copy or export it again.")
        handle.seek(0)
        with io.TextIOWrapper(handle, encoding="utf-8-sig", errors="replace") as text:
            start = _Start(path, text)
            table = read_table(path, chain([start.first], text), start.line_number, start.delimiter)
    return cloud_from_columns(path, _columns(path, table, start.names))


class _Start:
    """What comes before the first point: comments, a header, a count.

    Attributes:
        first: the line of the first point.
        line_number: its number in the file.
        delimiter: between its numbers; None for white space.
        names: of the columns, lower case, or None.
    """

    def __init__(self, path: Path, text: io.TextIOWrapper) -> None:
        self.names: list[str] | None = None
        count_seen = False
        for number in range(1, MAX_START_LINES + 1):
            line = text.readline(MAX_LINE)
            if not line:
                raise FormatError(f"{path}: holds no points. Export it again.")
            if line.isspace():
                continue
            comment = COMMENT.match(line)
            words = _split(line[comment.end() :] if comment else line)[0]
            if comment or not is_number(words[0]):
                names = [ALIASES.get(word, word) for word in (_plain(word) for word in words)]
                if {"x", "y", "z"} <= set(names):
                    self.names = names
                elif not comment:
                    raise FormatError(
                        f"{path}: line {number} is neither a point nor the names of columns x, y, z: {line.strip()[:80]!r}. "
                        "Is this a point cloud, with decimal points?"
                    )
            elif len(words) == 1 and words[0].isdecimal() and not count_seen:
                count_seen = True
            else:
                self.first, self.line_number = line, number
                self.delimiter = _split(line)[1]
                return
        raise FormatError(f"{path}: no point within its first {MAX_START_LINES} lines.")


def _split(line: str) -> tuple[list[str], str | None]:
    """The words of a line and what separates them: a semicolon, a comma, or white space."""
    for delimiter in (";", ","):
        if delimiter in line:
            return [word.strip() for word in line.strip().split(delimiter)], delimiter
    return line.split() or [""], None


def _plain(word: str) -> str:
    """A column's name without quotes, units and case: '"X [m]"' gives "x"."""
    return re.sub(r"[\[(].*", "", word.strip().strip("\"'")).strip().lower()


def _columns(path: Path, table: np.ndarray, names: list[str] | None) -> ColumnTable:
    width = table.shape[1]
    if names is None:
        return _unnamed(path, table)
    if len(names) != width:
        raise FormatError(f"{path}: its header names {len(names)} columns, but its lines have {width} numbers.")
    twice = {name for name in names if name in NAMES and names.count(name) > 1}
    if twice:
        raise FormatError(f"{path}: its header names {', '.join(sorted(twice))} more than once.")
    return {name: table[:, index] for index, name in enumerate(names) if name in NAMES}


def _unnamed(path: Path, table: np.ndarray) -> ColumnTable:
    width, suffix = table.shape[1], path.suffix.lower()
    colors = normals = None
    if width in (3, 4) or (width == 7 and suffix == ".pts"):
        colors = 4 if width == 7 else None
    elif width == 6:
        is_normal = suffix != ".xyzrgb" and (suffix == ".xyzn" or _seem_normals(table[:, 3:6]))
        colors, normals = (None, 3) if is_normal else (3, None)
    elif width == 9 and _seem_normals(table[:, 3:6]) != _seem_normals(table[:, 6:9]):
        colors, normals = (6, 3) if _seem_normals(table[:, 3:6]) else (3, 6)
    else:
        raise FormatError(f"{path}: what its {width} columns mean cannot be told. {EXAMPLE}")
    starts = {"xyz": 0, "rgb": colors}
    columns = {name: table[:, at + index] for key, at in starts.items() if at is not None for index, name in enumerate(key)}
    if normals is not None:
        columns |= {name: table[:, normals + index] for index, name in enumerate(("nx", "ny", "nz"))}
    negative = colors is not None and np.nanmin(table[:, colors : colors + 3], initial=0) < 0
    if negative:
        raise FormatError(f"{path}: three of its columns seem to be colours, but some are below 0. {EXAMPLE}")
    return columns


def _seem_normals(values: np.ndarray) -> bool:
    """Whether three columns are unit vectors, or at least hold values that no colour has."""
    values = values[np.isfinite(values).all(1)]
    if not len(values) or np.abs(values).max() > 1 + UNIT_TOLERANCE:
        return False
    lengths = np.linalg.norm(values, axis=1)
    return bool((values < 0).any() or (np.abs(lengths - 1) < UNIT_TOLERANCE).all())
