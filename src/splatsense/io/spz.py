"""SPZ files (Niantic, 2024): about a tenth of the size of PLY. Reads versions 1 to 4, writes version 3.

Design
- Versions 1 to 3 are one gzip stream: a header of 16 bytes, then all positions, opacities, colours, scales, rotations and
  spherical harmonics, one after the other. Version 4 has a plain header of 32 bytes, a table of contents and a zstd stream
  for each of the six. Version 1 stores positions as float16, 2 and later as 24-bit fixed point; 1 and 2 store x, y, z of a
  quaternion in 8 bits each, 3 and later the smallest three components in 10 bits each. A stream that was never compressed
  is read too.
- Writing, in `_spz_writer`, chooses version 3: version 4 appeared in 2026 and older tools refuse it, version 2 has coarse
  rotations.
- The number of Gaussians is held against the size of the file and `max_bytes` before anything is decompressed.
- Axes. The format calls its axes right, up, back (RUB), yet converters (Niantic's own command line tools, splat-transform,
  gaussforge) copy coordinates to and from PLY as they are, and so does this module: as `docs/conventions.md` says, a
  file's own axes are kept. Only if a file names other axes in a record are its Gaussians brought to RUB, rotations and SH
  included.

Precision (half a step): position 2^-13, or extent / 65,536 for objects within 8 units of the origin, coarser only beyond
2048; log scale 1/32 within [-10, 5.94]; quaternion components 0.0007, the largest 0.0021; opacity 1/510; colour 0.0037 of its
0 to 1, within [-0.44, 1.44]; SH 1/32 in degree 1 and 1/16 above, within [-1, 127/128]. Memory: at most 8 times the
decompressed size, which is 19 to 92 bytes a Gaussian.
"""

import io
import logging
import os
import struct
from dataclasses import dataclass

import numpy as np
import torch

from splatsense.errors import FormatError
from splatsense.files import open_to_read
from splatsense.gaussians import Gaussians
from splatsense.io._cleaning import clean_gaussians
from splatsense.io._decompression import Decompressed, check_expansion, gzip_bound, inflation_limit, zstd_bound
from splatsense.io._smallest_three import HALF_SQRT_2, restore_largest
from splatsense.io._spz_axes import stored_axes, to_rub

log = logging.getLogger("splatsense")

MAGIC, GZIP_MAGIC = b"NGSP", b"\x1f\x8b"
HEADER = struct.Struct("<4s2I4B")  # magic, version, count, SH degree, fraction bits, flags, reserved or number of streams
HEADER_BYTES, HEADER_BYTES_V4 = 16, 32
ANTIALIASED, HAS_EXTENSIONS = 0x1, 0x2
LARGEST_DEGREE, LARGEST_FRACTION_BITS = 4, 30
MAX_EXTENSION_BYTES = 1 << 20
COLOR_SCALE = 0.15
QUATERNION_STEPS = 511
ROWS_PER_BLOCK = 1 << 15


@dataclass(frozen=True)
class _Header:
    version: int
    count: int
    degree: int
    fraction_bits: int
    flags: int
    streams: int

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each attribute, in the order of the file."""
        each = {
            "positions": 6 if self.version == 1 else 9,
            "opacities": 1,
            "colours": 3,
            "scales": 3,
            "rotations": 4 if self.version >= 3 else 3,
            "harmonics": 3 * ((self.degree + 1) ** 2 - 1),
        }
        return {name: self.count * size for name, size in each.items()}


def read_spz(path: str | os.PathLike[str], max_bytes: int | None = None) -> Gaussians:
    """Read an SPZ file of version 1 to 4 and SH degree 0 to 4.

    Gaussians with values that are not finite are left out with a warning in the log.

    Args:
        path: the file.
        max_bytes: what the file may decompress to; by default 64 times its size and 64 MiB.

    Raises:
        FormatError: the file is missing, cut off, damaged, or of an unknown version.
        LimitError: it would decompress to more than `max_bytes`.
        DataError: no Gaussian in it is usable.
    """
    with open_to_read(path) as handle:
        return parse_spz(handle, str(path), max_bytes)


def parse_spz(handle: io.BufferedIOBase, where: str, max_bytes: int | None = None) -> Gaussians:
    """`read_spz` of an open file, which may lie in memory; `where` names it in errors."""
    file_size = handle.seek(0, os.SEEK_END)
    max_bytes = inflation_limit(file_size) if max_bytes is None else max_bytes
    handle.seek(0)
    start = handle.read(HEADER_BYTES)
    if start.startswith(GZIP_MAGIC):
        handle.seek(0)
        stream = Decompressed.gzip(where, "the gzip stream", handle)
        header = _parse_header(where, stream.read(HEADER_BYTES), (1, 2, 3))
        size = sum(header.sizes.values())
        check_expansion(where, f"{header.count} Gaussians", size, gzip_bound(file_size), max_bytes)
        attributes = _split(header, stream.read(size))
        records = stream.read_rest(MAX_EXTENSION_BYTES) if header.flags & HAS_EXTENSIONS else b""
        stream.finish()
    else:
        header = _parse_header(where, start, (1, 2, 3, 4))
        read = _read_streams if header.version == 4 else _read_plain
        attributes, records = read(where, handle, header, file_size, max_bytes)
    if header.flags & ANTIALIASED:
        log.info("%s: was trained for antialiased rendering; draw it with RasterSettings(antialiased=True).", where)
    return _decode(where, header, attributes, stored_axes(where, records))


def _parse_header(where: str, data: bytes | bytearray, versions: tuple[int, ...]) -> _Header:
    if not data.startswith(MAGIC):
        raise FormatError(f"{where}: is not an SPZ file: it starts with {bytes(data[:4])!r}, not {MAGIC!r}. Copy it again.")
    if len(data) < HEADER_BYTES:
        raise FormatError(f"{where}: cut off: it ends after {len(data)} of the {HEADER_BYTES} bytes of its header.")
    header = _Header(*HEADER.unpack(data)[1:])
    if header.version not in versions:
        raise FormatError(f"{where}: SPZ version {header.version} is not known here, only 1 to 4; export it as version 3.")
    if not header.count:
        raise FormatError(f"{where}: is empty: it declares 0 Gaussians.")
    if header.degree > LARGEST_DEGREE:
        raise FormatError(f"{where}: SH degree {header.degree} at byte 12 is not known, only 0 to 4; the file is damaged.")
    if header.fraction_bits > LARGEST_FRACTION_BITS:
        raise FormatError(f"{where}: {header.fraction_bits} fraction bits at byte 13 of 24; the file is damaged.")
    if header.flags & ~(ANTIALIASED | HAS_EXTENSIONS):
        raise FormatError(
            f"{where}: flags {header.flags:#x} at byte 14 are not known, only 0x1 and 0x2; export it without them."
        )
    return header


def _split(header: _Header, data: bytearray) -> dict[str, np.ndarray]:
    ends = np.cumsum(list(header.sizes.values()))
    return dict(zip(header.sizes, np.split(np.frombuffer(data, "u1"), ends[:-1]), strict=True))


def _read_plain(
    where: str, handle: io.BufferedIOBase, header: _Header, file_size: int, max_bytes: int
) -> tuple[dict[str, np.ndarray], bytes]:
    """Version 1 to 3 without gzip around it."""
    size = sum(header.sizes.values())
    end, more = HEADER_BYTES + size, file_size - HEADER_BYTES - size
    if more < 0 or (more and not header.flags & HAS_EXTENSIONS) or more > MAX_EXTENSION_BYTES:
        raise FormatError(
            f"{where}: {'cut off' if more < 0 else 'damaged'}: {header.count} Gaussians end at byte {end}, but the file has "
            f"{file_size} bytes. Copy or export it again."
        )
    check_expansion(where, f"{header.count} Gaussians", size, size, max_bytes)
    return _split(header, bytearray(_read_exactly(where, handle, size))), handle.read()


def _read_exactly(where: str, handle: io.BufferedIOBase, size: int) -> bytes:
    data = handle.read(size)
    if len(data) < size:
        raise FormatError(f"{where}: became shorter while it was read; read it again when it is complete.")
    return data


def _read_streams(
    where: str, handle: io.BufferedIOBase, header: _Header, file_size: int, max_bytes: int
) -> tuple[dict[str, np.ndarray], bytes]:
    """Version 4: the rest of the header, extension records, table of contents, and a zstd stream for each attribute."""
    rest = handle.read(HEADER_BYTES_V4 - HEADER_BYTES)
    sizes = {name: size for name, size in header.sizes.items() if size}
    if len(rest) < HEADER_BYTES_V4 - HEADER_BYTES:
        raise FormatError(f"{where}: cut off: it ends within the {HEADER_BYTES_V4} bytes of its header. Copy it again.")
    (table,) = struct.unpack_from("<I", rest)
    first = table + 16 * len(sizes)
    if header.streams != len(sizes) or not HEADER_BYTES_V4 <= table <= HEADER_BYTES_V4 + MAX_EXTENSION_BYTES:
        raise FormatError(
            f"{where}: {header.streams} streams with a table at byte {table}; SH degree {header.degree} needs {len(sizes)} "
            "streams and a table soon after the header. The file is damaged; export it again."
        )
    if first > file_size:
        raise FormatError(f"{where}: cut off: its table ends at byte {first}, but the file has {file_size}. Copy it again.")
    records = handle.read(table - HEADER_BYTES_V4)
    entries = [struct.unpack("<2Q", _read_exactly(where, handle, 16)) for _ in sizes]
    end = first + sum(compressed for compressed, _ in entries)
    if end != file_size:
        raise FormatError(
            f"{where}: {'cut off' if file_size < end else 'damaged'}: its streams end at byte {end}, but the file has "
            f"{file_size} bytes. Copy or export it again."
        )
    check_expansion(where, f"{header.count} Gaussians", sum(sizes.values()), zstd_bound(file_size), max_bytes)
    attributes = {"harmonics": np.empty(0, "u1")}
    for (name, size), (compressed, promised) in zip(sizes.items(), entries, strict=True):
        if promised != size:
            raise FormatError(f"{where}: the stream of {name} has {promised} bytes, {header.count} Gaussians need {size}.")
        check_expansion(where, f"the stream of {name}", size, zstd_bound(compressed), max_bytes)
        data = io.BytesIO(handle.read(compressed))
        stream = Decompressed.zstd(where, f"the stream of {name}", data, size)
        attributes[name] = np.frombuffer(stream.read(size), "u1")
        stream.finish()
    return attributes, records if header.flags & HAS_EXTENSIONS else b""


@np.errstate(all="ignore")  # what is not finite then is for clean_gaussians to see
def _decode(where: str, header: _Header, attributes: dict[str, np.ndarray], axes: str) -> Gaussians:
    """Gaussians of the bytes of all attributes, a block of rows at a time so that temporary arrays stay small."""
    count, bands = header.count, (header.degree + 1) ** 2
    rows = {name: data.reshape(count, len(data) // count) for name, data in attributes.items()}
    means, quats, scales = np.empty((count, 3), "f4"), np.empty((count, 4), "f4"), np.empty((count, 3), "f4")
    opacities, sh = np.empty(count, "f4"), np.empty((count, bands, 3), "f4")
    for start in range(0, count, ROWS_PER_BLOCK):
        span = slice(start, start + ROWS_PER_BLOCK)
        means[span] = _positions(header, rows["positions"][span])
        quats[span] = _rotations(header, rows["rotations"][span])
        np.divide(rows["scales"][span], np.float32(16), out=scales[span])
        np.exp(scales[span] - np.float32(10), out=scales[span])
        np.divide(rows["opacities"][span, 0], np.float32(255), out=opacities[span])
        sh[span, 0] = (rows["colours"][span] / np.float32(255) - np.float32(0.5)) / np.float32(COLOR_SCALE)
        np.subtract(rows["harmonics"][span].reshape(sh[span, 1:].shape), np.float32(128), out=sh[span, 1:])
        sh[span, 1:] /= 128
    parts = {name: torch.from_numpy(values) for name, values in (("means", means), ("quats", quats), ("sh", sh))}
    if axes != "RUB":
        log.info("%s: stored in axes %s, brought to RUB.", where, axes)
        parts["means"], parts["quats"], parts["sh"] = to_rub(axes, **parts)
    return clean_gaussians(where, **parts, scales=torch.from_numpy(scales), opacities=torch.from_numpy(opacities))


def _positions(header: _Header, data: np.ndarray) -> np.ndarray:
    """(N, 3) centres. The three bytes of a number become the upper three of four, whose shift brings the sign along."""
    if header.version == 1:
        return data.view("<f2").astype("f4")
    words = np.zeros((3 * len(data), 4), "u1")
    words[:, 1:] = data.reshape(-1, 3)
    fixed = words.view("<i4").reshape(-1, 3) >> 8
    return fixed.astype("f4") * np.float32(2.0**-header.fraction_bits)


def _rotations(header: _Header, data: np.ndarray) -> np.ndarray:
    """(N, 4) quaternions wxyz; the file has xyzw without one."""
    if header.version < 3:
        xyz = data / np.float32(127.5) - 1
        w = np.sqrt(np.maximum(0, 1 - np.square(xyz).sum(1, keepdims=True)))
        return np.hstack([w, xyz])
    words = data.view("<u4")
    fields = words >> np.array([20, 10, 0], "u4") & 1023
    magnitudes = (fields & QUATERNION_STEPS) * np.float32(HALF_SQRT_2 / QUATERNION_STEPS)
    others = np.where(fields >> 9, -magnitudes, magnitudes)
    return restore_largest((words[:, 0] >> 30).astype(np.intp), others)[:, [3, 0, 1, 2]]
