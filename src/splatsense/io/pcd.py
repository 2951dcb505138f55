"""PCD files, the point clouds of the Point Cloud Library: a text header, then rows as text, as bytes, or compressed columns.

Design
- The header is checked against the size of the file before anything is allocated.
- Colours: `rgb` or `rgba`, four bytes 0xAARRGGBB in an integer or in the bits of a float; or columns `r g b`, `red green
  blue`. In text, a float `rgb` of whole numbers is that integer, as most writers mean it; any other gives its bits.
- Normals: `normal_x normal_y normal_z`, or `nx ny nz`. Other columns are passed over, and so is VIEWPOINT, which says where
  the scanner stood and moves nothing.
- Organised clouds mark what the scanner did not see with NaN; such points are left out with a warning that gives their number.
"""

import io
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatsense.errors import FormatError
from splatsense.files import open_to_read
from splatsense.io._columns import NAMES, ColumnTable, cloud_from_columns
from splatsense.io._lzf import LARGEST_RATIO, LzfError, decompress
from splatsense.io._text_table import read_table
from splatsense.io.point_cloud import PointCloud

MAX_HEADER_BYTES = 1 << 16
TYPES = {("I", size): f"<i{size}" for size in (1, 2, 4, 8)} | {("U", size): f"<u{size}" for size in (1, 2, 4, 8)}
TYPES |= {("F", 4): "<f4", ("F", 8): "<f8"}
KEYS = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")
MAX_COLUMNS = 4096


@dataclass(frozen=True)
class Header:
    """What the header of a PCD file declares.

    Attributes:
        path: the file.
        dtype: of one row; fields of several values are arrays, and names that occur twice have a number at the end.
        count: number of points.
        data: "ascii", "binary" or "binary_compressed".
        size: bytes of the header.
        file_size: bytes of the whole file.
    """

    path: Path
    dtype: np.dtype
    count: int
    data: str
    size: int
    file_size: int


def read_pcd(path: str | os.PathLike[str]) -> PointCloud:
    """Read a PCD file of version 0.6 or 0.7: ASCII, binary or compressed.

    Raises:
        FormatError: the file is missing, cut off, damaged, or has no x, y, z.
        DataError: no point in it is usable.
    """
    header = read_header(Path(path))
    match header.data:
        case "ascii":
            columns = _read_ascii(header)
        case "binary":
            columns = _read_binary(header)
        case _:
            columns = _read_compressed(header)
    return cloud_from_columns(header.path, columns)


def read_header(path: Path) -> Header:
    """Parse the header of `path`; nothing larger than it is read.

    Raises:
        FormatError: the file cannot be read, is no PCD file, or its header is damaged or promises more than the file holds.
    """
    with open_to_read(path) as handle:
        start = handle.read(MAX_HEADER_BYTES)
        file_size = handle.seek(0, io.SEEK_END)
    end = re.search(rb"(?:^|\n)DATA[ \t]+(\w+)[ \t\r]*(?:\n|\Z)", start)
    if not end:
        raise FormatError(f'{path}: no PCD header that ends with a "DATA" line; the file is cut off or of another format.')
    entries = _entries(path, start[: end.end()].decode("latin-1"))
    data = entries["DATA"][0]
    if data not in ("ascii", "binary", "binary_compressed"):
        raise FormatError(f"{path}: DATA {data!r} is not one of ascii, binary, binary_compressed.")
    dtype = _row_type(path, entries)
    missing = {"x", "y", "z"} - set(dtype.names or ())
    if missing:
        raise FormatError(f"{path}: lacks the fields {', '.join(sorted(missing))}; it has {' '.join(entries['FIELDS'])}.")
    header = Header(path, dtype, _count(path, entries), data, end.end(), file_size)
    row_bytes = dtype.itemsize if data == "binary" else 2 * len(dtype.names or ()) if data == "ascii" else 0
    if header.size + header.count * row_bytes - (data == "ascii") > file_size:
        raise FormatError(
            f"{path}: cut off: the header promises {header.count} points of at least {row_bytes} bytes after byte "
            f"{header.size}, but the file has {file_size} bytes. Copy or export it again."
        )
    return header


def _entries(path: Path, text: str) -> dict[str, list[str]]:
    entries: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if words[0] not in KEYS or words[0] in entries or len(words) < 2:
            raise FormatError(f"{path}: header line {number} is not valid: {line[:100]!r}.")
        entries[words[0]] = words[1:]
    missing = [key for key in ("FIELDS", "SIZE", "TYPE") if key not in entries]
    if missing:
        raise FormatError(f"{path}: the header has no {', '.join(missing)} line; export the file again as PCD 0.7.")
    return entries


def _row_type(path: Path, entries: dict[str, list[str]]) -> np.dtype:
    names, sizes, types = entries["FIELDS"], entries["SIZE"], entries["TYPE"]
    counts = entries.get("COUNT", ["1"] * len(names))
    if not len(names) == len(sizes) == len(types) == len(counts):
        raise FormatError(
            f"{path}: FIELDS, SIZE, TYPE and COUNT list {len(names)}, {len(sizes)}, {len(types)} and {len(counts)} fields; "
            "they must agree."
        )
    fields: dict[str, tuple[str, int]] = {}
    for name, size, kind, count in zip(names, sizes, types, counts, strict=True):
        code = TYPES.get((kind, int(size))) if re.fullmatch(r"[1248]", size) else None
        if code is None or not re.fullmatch(r"[0-9]{1,4}", count) or not 1 <= int(count) <= MAX_COLUMNS:
            raise FormatError(f"{path}: the field {name!r} has TYPE {kind}, SIZE {size}, COUNT {count}, which is not valid.")
        if name in NAMES and int(count) > 1:
            raise FormatError(f"{path}: the field {name!r} has {count} values a point; one is expected.")
        if name in fields and name in NAMES:
            raise FormatError(f"{path}: the field {name!r} occurs twice; export the file again.")
        fields[f"{name} {len(fields)}" if name in fields else name] = (code, int(count))
    if sum(count for _, count in fields.values()) > MAX_COLUMNS:
        raise FormatError(f"{path}: a point has more than {MAX_COLUMNS} values; export it with fewer fields.")
    return np.dtype([(name, code) if count == 1 else (name, code, (count,)) for name, (code, count) in fields.items()])


def _count(path: Path, entries: dict[str, list[str]]) -> int:
    numbers = {}
    for key in ("WIDTH", "HEIGHT", "POINTS"):
        if key in entries:
            if not re.fullmatch(r"[0-9]{1,18}", entries[key][0]):
                raise FormatError(f"{path}: {key} is {entries[key][0][:40]!r}, not a number of points.")
            numbers[key] = int(entries[key][0])
    area = numbers["WIDTH"] * numbers.get("HEIGHT", 1) if "WIDTH" in numbers else numbers.get("POINTS")
    if area is None or numbers.get("POINTS", area) != area:
        raise FormatError(f"{path}: the header does not say one number of points: {numbers}. Export the file again.")
    if area == 0:
        raise FormatError(f"{path}: is empty: it declares 0 points.")
    return area


def _read_binary(header: Header) -> ColumnTable:
    with open_to_read(header.path) as handle:
        handle.seek(header.size)
        rows = np.frombuffer(handle.read(header.count * header.dtype.itemsize), header.dtype)
    return {name: rows[name] for name in header.dtype.names or () if name in NAMES}


def _read_compressed(header: Header) -> ColumnTable:
    with open_to_read(header.path) as handle:
        handle.seek(header.size)
        packed, size = struct.unpack("<2I", handle.read(8).ljust(8, b"\xff"))
        if header.size + 8 + packed > header.file_size:
            raise FormatError(
                f"{header.path}: cut off: {packed} compressed bytes should follow byte {header.size + 8}, but the file has "
                f"{header.file_size} bytes. Copy or export it again."
            )
        if size != header.count * header.dtype.itemsize or size > packed * LARGEST_RATIO:
            raise FormatError(
                f"{header.path}: damaged: {header.count} points of {header.dtype.itemsize} bytes cannot be {packed} compressed "
                f"bytes that stand for {size}. Copy or export it again."
            )
        data = handle.read(packed)
    try:
        values = decompress(data, size)
    except LzfError as error:
        raise FormatError(f"{header.path}: the compressed points are {error}. Copy or export the file again.") from error
    columns: ColumnTable = {}
    start = 0
    for name in header.dtype.names or ():  # each field's values of all points lie together
        kind = header.dtype[name]
        end = start + header.count * kind.itemsize
        if name in NAMES:
            columns[name] = values[start:end].view(kind.base).reshape(header.count, *kind.shape)
        start = end
    return columns


def _read_ascii(header: Header) -> ColumnTable:
    names = [name for name in header.dtype.names or () if name in NAMES]
    starts = dict(zip(header.dtype.names or (), _ascii_columns(header.dtype), strict=True))
    width = sum(int(np.prod(header.dtype[name].shape, dtype=int)) for name in header.dtype.names or ())
    with open_to_read(header.path) as handle:
        first_line = handle.read(header.size).count(b"\n") + 1
        with io.TextIOWrapper(handle, encoding="latin-1") as text:
            table = read_table(header.path, text, first_line, most=header.count)
    if len(table) < header.count:
        raise FormatError(
            f"{header.path}: cut off: the header promises {header.count} points, but the file ends after {len(table)}. "
            "Copy or export it again."
        )
    if table.shape[1] != width:
        raise FormatError(f"{header.path}: its rows have {table.shape[1]} values, but FIELDS and COUNT promise {width}.")
    columns = {name: table[:, starts[name]] for name in names}
    for name in ("rgb", "rgba"):
        if name in columns:
            columns[name] = _packed_from_text(columns[name], header.dtype[name].base)
    for name in columns.keys() - {"x", "y", "z", "rgb", "rgba"}:
        columns[name] = _as_type(columns[name], header.dtype[name].base)
    return columns


def _ascii_columns(dtype: np.dtype) -> list[int]:
    widths = [int(np.prod(dtype[name].shape, dtype=int)) for name in dtype.names or ()]
    return np.cumsum([0, *widths])[:-1].tolist()


def _packed_from_text(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """(N,) uint32 colours from their text; see the module's design."""
    finite = np.where(np.isfinite(values), values, 0)
    if kind.kind != "f" or (finite.max() >= 1 and (finite == np.round(finite)).all() and finite.min() >= 0):
        return (finite.clip(-(2.0**31), 2.0**32 - 1).astype(np.int64) & 0xFFFFFFFF).astype(np.uint32)
    with np.errstate(over="ignore"):
        return finite.astype(np.float32).view(np.uint32)


def _as_type(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Text values as the integers the header says they are, so that full intensity is known."""
    if kind.kind == "f":
        return values
    limits = np.iinfo(kind)
    with np.errstate(invalid="ignore"):  # the largest int64 is no float64
        return np.nan_to_num(values).clip(limits.min, limits.max).astype(kind)
