"""SPZ files (Niantic, 2024): about a tenth of the size of PLY. Reads versions 1 to 4, writes version 3.

Design
- Versions 1 to 3 are one gzip stream: a header of 16 bytes, then all positions, opacities, colours, scales, rotations and
  spherical harmonics, one after the other. Version 4 has a plain header of 32 bytes, a table of contents and a zstd stream
  for each of the six. Version 1 stores positions as float16, 2 and later as 24-bit fixed point; 1 and 2 store x, y, z of a
  quaternion in 8 bits each, 3 and later the smallest three components in 10 bits each. A stream that was never compressed
  is read too.
- Writing chooses version 3: version 4 appeared in 2026 and older tools refuse it, version 2 has coarse rotations.
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

import gzip
import io
import logging
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from splatsense.errors import DataError, FormatError
from splatsense.files import atomic_write, open_to_read
from splatsense.gaussians import Gaussians
from splatsense.io._cleaning import clean_gaussians
from splatsense.io._decompression import MAX_DECOMPRESSED_BYTES, Decompressed, check_expansion, gzip_bound, zstd_bound
from splatsense.io._smallest_three import HALF_SQRT_2, drop_largest, restore_largest
from splatsense.io._spz_axes import stored_axes, to_rub
from splatsense.io._writing import checked_to_write

log = logging.getLogger("splatsense")

MAGIC, GZIP_MAGIC = b"NGSP", b"\x1f\x8b"
HEADER = struct.Struct("<4s2I4B")  # magic, version, count, SH degree, fraction bits, flags, reserved or number of streams
HEADER_BYTES, HEADER_BYTES_V4 = 16, 32
ANTIALIASED, HAS_EXTENSIONS = 0x1, 0x2
LARGEST_DEGREE, LARGEST_FRACTION_BITS = 4, 30
MAX_EXTENSION_BYTES = 1 << 20
COLOR_SCALE = 0.15
QUATERNION_STEPS = 511
POSITION_LIMIT = 2**23 - 1
ROWS_PER_BLOCK = 1 << 15
GZIP_LEVEL = 4  # quantised values leave little to find: 2 % larger than level 6 and three times as fast
SH_STEPS = (8, 16)  # of 1/128: degree 1, and above; what the reference encoder keeps for the sake of gzip


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


def read_spz(path: str | os.PathLike[str], max_bytes: int = MAX_DECOMPRESSED_BYTES) -> Gaussians:
    """Read an SPZ file of version 1 to 4 and SH degree 0 to 4.

    Gaussians with values that are not finite are left out with a warning in the log.

    Args:
        path: the file.
        max_bytes: what the file may decompress to.

    Raises:
        FormatError: the file is missing, cut off, damaged, or of an unknown version.
        LimitError: it would decompress to more than `max_bytes`.
        DataError: no Gaussian in it is usable.
    """
    path = Path(path)
    with open_to_read(path) as handle:
        file_size = handle.seek(0, os.SEEK_END)
        handle.seek(0)
        start = handle.read(HEADER_BYTES)
        if start.startswith(GZIP_MAGIC):
            handle.seek(0)
            stream = Decompressed.gzip(path, "the gzip stream", handle)
            header = _parse_header(path, stream.read(HEADER_BYTES), (1, 2, 3))
            size = sum(header.sizes.values())
            check_expansion(path, f"{header.count} Gaussians", size, gzip_bound(file_size), max_bytes)
            attributes = _split(header, stream.read(size))
            records = stream.read_rest(MAX_EXTENSION_BYTES) if header.flags & HAS_EXTENSIONS else b""
            stream.finish()
        else:
            header = _parse_header(path, start, (1, 2, 3, 4))
            read = _read_streams if header.version == 4 else _read_plain
            attributes, records = read(path, handle, header, file_size, max_bytes)
    if header.flags & ANTIALIASED:
        log.info("%s: was trained for antialiased rendering.", path)
    return _decode(path, header, attributes, stored_axes(path, records))


def write_spz(gaussians: Gaussians, path: str | os.PathLike[str]) -> None:
    """Write an SPZ file of version 3. Values out of the format's range are clamped.

    Raises:
        DataError: there are no Gaussians, some value is not finite, or a coordinate is beyond 8,388,607.
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
        _pack_rotations(g.quats.numpy()).tobytes(),
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


def _parse_header(path: Path, data: bytes | bytearray, versions: tuple[int, ...]) -> _Header:
    if not data.startswith(MAGIC):
        raise FormatError(f"{path}: is not an SPZ file: it starts with {bytes(data[:4])!r}, not {MAGIC!r}. Copy it again.")
    if len(data) < HEADER_BYTES:
        raise FormatError(f"{path}: cut off: it ends after {len(data)} of the {HEADER_BYTES} bytes of its header.")
    header = _Header(*HEADER.unpack(data)[1:])
    if header.version not in versions:
        raise FormatError(f"{path}: SPZ version {header.version} is not known here, only 1 to 4; export it as version 3.")
    if not header.count:
        raise FormatError(f"{path}: is empty: it declares 0 Gaussians.")
    if header.degree > LARGEST_DEGREE:
        raise FormatError(f"{path}: SH degree {header.degree} at byte 12 is not known, only 0 to 4; the file is damaged.")
    if header.fraction_bits > LARGEST_FRACTION_BITS:
        raise FormatError(f"{path}: {header.fraction_bits} fraction bits at byte 13 of 24; the file is damaged.")
    if header.flags & ~(ANTIALIASED | HAS_EXTENSIONS):
        raise FormatError(
            f"{path}: flags {header.flags:#x} at byte 14 are not known, only 0x1 and 0x2; export it without them."
        )
    return header


def _split(header: _Header, data: bytearray) -> dict[str, np.ndarray]:
    ends = np.cumsum(list(header.sizes.values()))
    return dict(zip(header.sizes, np.split(np.frombuffer(data, "u1"), ends[:-1]), strict=True))


def _read_plain(
    path: Path, handle: BinaryIO, header: _Header, file_size: int, max_bytes: int
) -> tuple[dict[str, np.ndarray], bytes]:
    """Version 1 to 3 without gzip around it."""
    size = sum(header.sizes.values())
    end, more = HEADER_BYTES + size, file_size - HEADER_BYTES - size
    if more < 0 or (more and not header.flags & HAS_EXTENSIONS) or more > MAX_EXTENSION_BYTES:
        raise FormatError(
            f"{path}: {'cut off' if more < 0 else 'damaged'}: {header.count} Gaussians end at byte {end}, but the file has "
            f"{file_size} bytes. Copy or export it again."
        )
    check_expansion(path, f"{header.count} Gaussians", size, size, max_bytes)
    return _split(header, bytearray(_read_exactly(path, handle, size))), handle.read()


def _read_exactly(path: Path, handle: BinaryIO, size: int) -> bytes:
    data = handle.read(size)
    if len(data) < size:
        raise FormatError(f"{path}: became shorter while it was read; read it again when it is complete.")
    return data


def _read_streams(
    path: Path, handle: BinaryIO, header: _Header, file_size: int, max_bytes: int
) -> tuple[dict[str, np.ndarray], bytes]:
    """Version 4: the rest of the header, extension records, table of contents, and a zstd stream for each attribute."""
    rest = handle.read(HEADER_BYTES_V4 - HEADER_BYTES)
    sizes = {name: size for name, size in header.sizes.items() if size}
    if len(rest) < HEADER_BYTES_V4 - HEADER_BYTES:
        raise FormatError(f"{path}: cut off: it ends within the {HEADER_BYTES_V4} bytes of its header. Copy it again.")
    (table,) = struct.unpack_from("<I", rest)
    first = table + 16 * len(sizes)
    if header.streams != len(sizes) or not HEADER_BYTES_V4 <= table <= HEADER_BYTES_V4 + MAX_EXTENSION_BYTES:
        raise FormatError(
            f"{path}: {header.streams} streams with a table at byte {table}; SH degree {header.degree} needs {len(sizes)} "
            "streams and a table soon after the header. The file is damaged; export it again."
        )
    if first > file_size:
        raise FormatError(f"{path}: cut off: its table ends at byte {first}, but the file has {file_size}. Copy it again.")
    records = handle.read(table - HEADER_BYTES_V4)
    entries = [struct.unpack("<2Q", _read_exactly(path, handle, 16)) for _ in sizes]
    end = first + sum(compressed for compressed, _ in entries)
    if end != file_size:
        raise FormatError(
            f"{path}: {'cut off' if file_size < end else 'damaged'}: its streams end at byte {end}, but the file has "
            f"{file_size} bytes. Copy or export it again."
        )
    check_expansion(path, f"{header.count} Gaussians", sum(sizes.values()), zstd_bound(file_size), max_bytes)
    attributes = {"harmonics": np.empty(0, "u1")}
    for (name, size), (compressed, promised) in zip(sizes.items(), entries, strict=True):
        if promised != size:
            raise FormatError(f"{path}: the stream of {name} has {promised} bytes, {header.count} Gaussians need {size}.")
        check_expansion(path, f"the stream of {name}", size, zstd_bound(compressed), max_bytes)
        data = io.BytesIO(handle.read(compressed))
        stream = Decompressed.zstd(path, f"the stream of {name}", data, size)
        attributes[name] = np.frombuffer(stream.read(size), "u1")
        stream.finish()
    return attributes, records if header.flags & HAS_EXTENSIONS else b""


def _decode(path: Path, header: _Header, attributes: dict[str, np.ndarray], axes: str) -> Gaussians:
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
        log.info("%s: stored in axes %s, brought to RUB.", path, axes)
        parts["means"], parts["quats"], parts["sh"] = to_rub(axes, **parts)
    return clean_gaussians(path, **parts, scales=torch.from_numpy(scales), opacities=torch.from_numpy(opacities))


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
