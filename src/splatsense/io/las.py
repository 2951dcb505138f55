"""LAS and LAZ files, the point clouds of airborne and terrestrial laser scanners: versions 1.0 to 1.4, point formats 0 to 10.

Design
- LAS is a header and records of one length: both are read here, and checked against the size of the file first.
- LAZ is LAS with its records compressed; lazrs (0.6 MB, MIT) decompresses them in a process of its own, see `_isolated`.
- Coordinates are integers with a scale and an offset. They become float64, and a cloud far from the origin, as all
  georeferenced ones are, is moved to it before it becomes float32; `PointCloud.origin` holds the shift.
- Colours are 16-bit by the standard; where none exceeds 255 they are taken for 8-bit, which many programs write.
- Axes stay those of the file: z is up.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from splatsense.errors import FormatError, LimitError
from splatsense.files import open_to_read
from splatsense.io._isolated import IsolatedError, stream
from splatsense.io.point_cloud import PointCloud

SHORTEST_RECORDS = (20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67)
"""Bytes of a record by point format; more may follow in each."""
COLOR_OFFSETS = {2: 20, 3: 28, 5: 28, 7: 30, 8: 30, 10: 30}
POINTS_PER_BLOCK = 1 << 17
LASZIP_USER, LASZIP_RECORD = b"laszip encoded", 22204
LARGEST_RATIO = 200  # of LAZ; real files reach about 30
WORKER_MEMORY = 1 << 30
WORKER_SECONDS, WORKER_POINTS_PER_SECOND = 60.0, 100_000


@dataclass(frozen=True)
class Header:
    """What the header of a LAS file declares.

    Attributes:
        path: the file.
        point_format: 0 to 10.
        record_length: bytes of a point.
        count: number of points.
        start: byte where the points begin.
        scale: (3,) float64, units of an integer step.
        offset: (3,) float64, where the integers are 0.
        laszip: the record that describes the compression, or None for LAS.
    """

    path: Path
    point_format: int
    record_length: int
    count: int
    start: int
    scale: np.ndarray
    offset: np.ndarray
    laszip: bytes | None


def read_las(path: str | os.PathLike[str]) -> PointCloud:
    """Read the points and colours of a .las or .laz file.

    Raises:
        FormatError: the file is missing, cut off or damaged.
        LimitError: a .laz file claims to decompress to more than 200 times its size.
        DataError: no point in it is usable.
    """
    header = read_header(Path(path))
    fields = {"position": ("<i4", (3,), 0)}
    if header.point_format in COLOR_OFFSETS:
        fields["color"] = ("<u2", (3,), COLOR_OFFSETS[header.point_format])
    dtype = np.dtype({
        "names": list(fields), "formats": [(code, shape) for code, shape, _ in fields.values()],
        "offsets": [at for _, _, at in fields.values()], "itemsize": header.record_length,
    })  # fmt: skip
    points = np.empty((header.count, 3), np.float64)
    colors = np.empty((header.count, 3), np.float32) if "color" in fields else None
    done = 0
    for block in _records(header):
        rows = np.frombuffer(block, dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite then is left out below
            points[done : done + len(rows)] = rows["position"] * header.scale + header.offset
        if colors is not None:
            colors[done : done + len(rows)] = rows["color"]
        done += len(rows)
    if colors is not None:
        colors /= 255.0 if colors.max() <= 255 else 65535.0
        colors = colors if colors.any() else None  # the format has room for colours, the scanner had none
    return PointCloud.from_file(path, points, colors, None)


def read_header(path: Path) -> Header:
    """Parse the header of `path`.

    Raises:
        FormatError: the file cannot be read, is no LAS file, or its header is damaged or promises more than the file holds.
        LimitError: a .laz file claims to decompress to more than 200 times its size.
    """
    with open_to_read(path) as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(0)
        data = handle.read(375)
        if data[:4] != b"LASF":
            raise FormatError(f"{path}: not a LAS file: it does not start with LASF.")
        if len(data) < 227:
            raise FormatError(
                f"{path}: cut off: a LAS header has at least 227 bytes, the file {size}. Copy or export it again."
            )
        header_size, start, extra_count, format_byte, record_length, count = struct.unpack_from("<HIIBHI", data, 94)
        if data[25] >= 4 and header_size >= 375 and len(data) == 375:
            count = struct.unpack_from("<Q", data, 247)[0]
        point_format, compressed = format_byte & 0x3F, bool(format_byte & 0xC0)
        if data[24] != 1 or point_format >= len(SHORTEST_RECORDS):
            raise FormatError(f"{path}: version {data[24]}.{data[25]} with point format {point_format} is not supported.")
        if record_length < SHORTEST_RECORDS[point_format]:
            raise FormatError(
                f"{path}: damaged: records of {record_length} bytes, but point format {point_format} needs "
                f"{SHORTEST_RECORDS[point_format]}. Copy or export it again."
            )
        scale, offset = np.frombuffer(data, "<f8", 3, 131), np.frombuffer(data, "<f8", 3, 155)
        if not np.isfinite([scale, offset]).all() or not (scale != 0).all():
            raise FormatError(f"{path}: damaged: scale {scale} and offset {offset} at byte 131. Copy or export it again.")
        if count == 0:
            raise FormatError(f"{path}: is empty: it declares 0 points.")
        laszip = _find_laszip(path, handle, header_size, start, extra_count) if compressed else None
    header = Header(path, point_format, record_length, count, start, scale, offset, laszip)
    _check_size(header, size)
    return header


def _find_laszip(path: Path, handle: BinaryIO, header_size: int, start: int, extra_count: int) -> bytes:
    """The contents of the variable-length record that describes the compression."""
    position = header_size
    for _ in range(extra_count):
        handle.seek(position)
        record = handle.read(54)
        if len(record) < 54 or position >= start:
            break
        _, user, number, length, _ = struct.unpack("<H16sHH32s", record)
        if user.rstrip(b"\0") == LASZIP_USER and number == LASZIP_RECORD:
            return handle.read(length)
        position += 54 + length
    raise FormatError(f"{path}: damaged: its points are compressed, but no record says how. Copy or export it again.")


def _check_size(header: Header, file_size: int) -> None:
    promised = header.count * header.record_length
    if header.laszip is None and header.start + promised > file_size:
        raise FormatError(
            f"{header.path}: cut off: the header promises {header.count} points, which end at byte {header.start + promised}, "
            f"but the file has {file_size} bytes. Copy or export it again."
        )
    if header.laszip is not None and header.start >= file_size:
        raise FormatError(
            f"{header.path}: cut off: its points should begin at byte {header.start}, but it has {file_size} bytes. "
            "Copy or export it again."
        )
    if header.laszip is not None and promised > LARGEST_RATIO * file_size:
        raise LimitError(
            f"{header.path}: claims {header.count} points of {header.record_length} bytes in a file of {file_size} bytes, over "
            f"{LARGEST_RATIO} times its size. If that is true, decompress it to .las first."
        )


def _records(header: Header) -> Iterator[bytes]:
    """Blocks of whole records, all of them."""
    if header.laszip is not None:
        yield from _decompressed(header, header.laszip)
        return
    with open_to_read(header.path) as handle:
        handle.seek(header.start)
        for first in range(0, header.count, POINTS_PER_BLOCK):
            size = min(POINTS_PER_BLOCK, header.count - first) * header.record_length
            block = handle.read(size)
            if len(block) < size:
                raise FormatError(f"{header.path}: became shorter while it was read; read it again when it is complete.")
            yield block


def _decompressed(header: Header, laszip: bytes) -> Iterator[bytes]:
    request = {
        "path": str(header.path), "offset": header.start, "laszip": laszip.hex(), "record_length": header.record_length,
        "count": header.count, "points_per_block": POINTS_PER_BLOCK,
    }  # fmt: skip
    memory = WORKER_MEMORY + 2 * header.path.stat().st_size
    seconds = WORKER_SECONDS + header.count / WORKER_POINTS_PER_SECOND
    rest, done = b"", 0
    try:
        for block in stream("laz", request, memory, seconds):
            data = rest + block
            whole = len(data) // header.record_length
            yield data[: whole * header.record_length]
            rest, done = data[whole * header.record_length :], done + whole
    except IsolatedError as error:
        raise FormatError(
            f"{header.path}: cut off or damaged: decompressing failed after {done} of {header.count} points: {error}. "
            "Copy or export it again."
        ) from error
