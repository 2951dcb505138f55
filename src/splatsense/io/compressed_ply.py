"""Compressed PLY files as SuperSplat writes them: 16 bytes a Gaussian, plus a byte for each SH coefficient.

Design
- `element chunk` holds the range of position, log scale and (in newer files) colour of each 256 Gaussians; `element vertex`
  holds four 32-bit words a Gaussian, whose fields are fractions of these ranges; `element sh` holds `f_rest_*` as bytes.
- The header goes through `_ply_container`; here the elements must fill the file exactly. Blocks of rows are unpacked as they
  are read, straight into the arrays of the result.
- Ranges are small where neighbours in the file are neighbours in space, so writing puts Gaussians along a Hilbert curve
  unless the caller wants their order kept.

Precision (half a step), of the range within a chunk: position x, z range / 4094, y range / 2046; log scale the same, clamped
to [-20, 20]; colour range / 510; opacity 1 / 510; quaternion components 0.0007, the largest 0.0021; SH 1/64, or 1/32 within
1/32 of the limits of -4 and 4. SH degree is 0 to 3. The file's axes are kept. Memory: at most 8 times the file size.
"""

import logging
import os
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from splatsense.errors import FormatError
from splatsense.files import atomic_write
from splatsense.gaussians import Gaussians
from splatsense.geometry.serialize import serial_order
from splatsense.io._cleaning import clean_gaussians
from splatsense.io._ply_container import Element, Header, fill, read_header, read_rows
from splatsense.io._smallest_three import HALF_SQRT_2, drop_largest, restore_largest
from splatsense.io._writing import checked_to_write
from splatsense.spherical_harmonics import SH_C0

log = logging.getLogger("splatsense")

CHUNK = 256
RANGES = {
    "position": tuple(f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"),
    "scale": tuple(f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"),
    "color": tuple(f"{end}_{channel}" for end in ("min", "max") for channel in "rgb"),
}
PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
SH_COLUMNS = (9, 24, 45)
LARGEST_DEGREE = 3
LOG_SCALE_LIMIT = 20.0
SH_LIMIT = 4.0
THREE = ((21, 11), (11, 10), (0, 11))  # shift and bits of each field of a word
FOUR = ((24, 8), (16, 8), (8, 8), (0, 8))
SMALLEST_THREE = ((20, 10), (10, 10), (0, 10))
HILBERT_BITS = 16


def is_compressed(header: Header) -> bool:
    """Whether the vertices are packed as SuperSplat packs them, completely or not."""
    vertex = header.elements.get("vertex")
    return vertex is not None and not vertex.properties.keys().isdisjoint(PACKED)


@np.errstate(all="ignore")  # what a damaged range makes of its Gaussians is for clean_gaussians to see
def read_compressed_ply(path: str | os.PathLike[str]) -> Gaussians:
    """Read a compressed PLY file of SH degree 0 to 3.

    Gaussians with values that are not finite are left out with a warning in the log.

    Raises:
        FormatError: the file is missing, cut off, damaged, or no compressed PLY.
        DataError: no Gaussian in it is usable.
    """
    header = read_header(Path(path))
    bands = _check(header)
    count = header.elements["vertex"].count
    ranges = {name: _read_ranges(header, names) for name, names in RANGES.items() if names[0] in _columns(header, "chunk")}
    means, quats, scales = np.empty((count, 3), "f4"), np.empty((count, 4), "f4"), np.empty((count, 3), "f4")
    opacities, sh = np.empty(count, "f4"), np.empty((count, bands, 3), "f4")
    start = 0
    for block in read_rows(header, "vertex"):
        rows = slice(start, start + len(block))
        chunk = np.arange(rows.start, rows.stop) // CHUNK
        means[rows] = _interpolate(ranges["position"], chunk, _unpack(block["packed_position"], THREE))
        scales[rows] = np.exp(_interpolate(ranges["scale"], chunk, _unpack(block["packed_scale"], THREE)))
        others = (_unpack(block["packed_rotation"], SMALLEST_THREE) - np.float32(0.5)) / np.float32(HALF_SQRT_2)
        quats[rows] = restore_largest((block["packed_rotation"] >> 30).astype(np.intp), others)
        rgba = _unpack(block["packed_color"], FOUR)
        rgb = _interpolate(ranges["color"], chunk, rgba[:, :3]) if "color" in ranges else rgba[:, :3]
        sh[rows, 0] = (rgb - np.float32(0.5)) / np.float32(SH_C0)
        opacities[rows] = rgba[:, 3]
        start = rows.stop
    if bands > 1:
        _fill_harmonics(header, sh)
    return clean_gaussians(path, *(torch.from_numpy(values) for values in (means, quats, scales, opacities, sh)))


def write_compressed_ply(gaussians: Gaussians, path: str | os.PathLike[str], keep_order: bool = False) -> None:
    """Write a compressed PLY file. Bands of SH beyond degree 3 are left out, which the log says.

    Args:
        gaussians: at least one.
        path: the file.
        keep_order: keep the order of the Gaussians, for labels that refer to it. Otherwise they are put along a Hilbert
            curve, which makes chunks compact and positions several times finer.

    Raises:
        DataError: there are no Gaussians, or some have values that are not finite or out of range.
        FormatError: `path` cannot be written.
    """
    g = checked_to_write(gaussians, path)
    if not keep_order:
        g = g[serial_order(g.means, "hilbert", HILBERT_BITS)]
    if g.sh_degree > LARGEST_DEGREE:
        log.warning("%s: compressed PLY files hold SH up to degree %d; the bands above are left out.", path, LARGEST_DEGREE)
    rest = g.sh[:, 1 : (LARGEST_DEGREE + 1) ** 2].transpose(1, 2).flatten(1).numpy()
    with np.errstate(divide="ignore"):
        log_scales = np.log(g.scales.numpy()).clip(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)
    parts = {"position": g.means.numpy(), "scale": log_scales, "color": (g.sh[:, 0] * SH_C0 + 0.5).numpy()}
    ranges = {name: _ranges(values) for name, values in parts.items()}
    fractions = {name: _fractions(values, *ranges[name]) for name, values in parts.items()}
    largest, others = drop_largest(normalize(g.quats, dim=1).numpy())
    words = [
        _pack(fractions["position"], THREE),
        _pack(others * HALF_SQRT_2 + 0.5, SMALLEST_THREE) | largest.astype("<u4") << 30,
        _pack(fractions["scale"], THREE),
        _pack(np.hstack([fractions["color"], g.opacities.numpy()[:, None]]), FOUR),
    ]
    chunks = np.hstack([ends for low_high in ranges.values() for ends in low_high])
    with atomic_write(path) as temporary, temporary.open("wb") as handle:
        handle.write(_header(len(chunks), len(g), rest.shape[1]))
        handle.write(chunks.astype("<f4").tobytes())
        handle.write(np.stack(words, axis=1).astype("<u4").tobytes())
        handle.write(((rest / (2 * SH_LIMIT) + 0.5) * 256).clip(0, 255).astype("u1").tobytes())


def _header(chunks: int, count: int, sh_columns: int) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"element chunk {chunks}"]
    lines += [f"property float {name}" for names in RANGES.values() for name in names]
    lines += [f"element vertex {count}", *(f"property uint {name}" for name in PACKED)]
    if sh_columns:
        lines += [f"element sh {count}", *(f"property uchar f_rest_{index}" for index in range(sh_columns))]
    return "\n".join([*lines, "end_header\n"]).encode("ascii")


def _check(header: Header) -> int:
    """The number of SH bands, after checking that every element is as it must be and that they fill the file exactly."""
    if header.byte_order is None:
        raise FormatError(f"{header.path}: a compressed PLY must be binary, but its format is ascii; export it again.")
    for element, needed, code in (
        ("chunk", RANGES["position"] + RANGES["scale"], "f4"),
        ("chunk", RANGES["color"] if "min_r" in _columns(header, "chunk") else (), "f4"),
        ("vertex", PACKED, "u4"),
    ):
        wrong = [name for name in needed if _columns(header, element).get(name) != code]
        if wrong:
            raise FormatError(
                f"{header.path}: not a compressed PLY: element {element!r} lacks {', '.join(wrong)} of type "
                f"{'float' if code == 'f4' else 'uint'}; export it again."
            )
    count, chunks = header.elements["vertex"].count, header.elements["chunk"].count
    if not count:
        raise FormatError(f"{header.path}: is empty: it declares 0 vertices.")
    if chunks != -(-count // CHUNK):
        raise FormatError(
            f"{header.path}: {count} Gaussians need {-(-count // CHUNK)} chunks of {CHUNK}, but it declares {chunks}; "
            "export it again."
        )
    _check_end(header)
    return _check_harmonics(header, header.elements["sh"], count) if "sh" in header.elements else 1


def _check_harmonics(header: Header, element: Element, count: int) -> int:
    columns = element.properties
    if columns != {f"f_rest_{index}": "u1" for index in range(len(columns))} or len(columns) not in SH_COLUMNS:
        raise FormatError(
            f"{header.path}: element 'sh' must have the 9, 24 or 45 uchar properties f_rest_0, f_rest_1, ...; it has "
            f"{len(columns)} properties. Export it again."
        )
    if element.count != count:
        raise FormatError(f"{header.path}: SH of {element.count} Gaussians for {count}; the file is damaged. Export it again.")
    return 1 + len(columns) // 3


def _check_end(header: Header) -> None:
    lists = [element.name for element in header.elements.values() if element.has_lists]
    if lists:
        raise FormatError(f"{header.path}: the elements {', '.join(lists)} have list properties; export it without them.")
    order = header.byte_order or "<"
    end = header.size + sum(e.count * e.dtype(order).itemsize for e in header.elements.values() if e.properties)
    if header.file_size != end:
        raise FormatError(
            f"{header.path}: {'cut off' if header.file_size < end else 'damaged'}: the header promises rows that end at byte "
            f"{end}, but the file has {header.file_size} bytes. Copy or export it again."
        )


def _columns(header: Header, element: str) -> dict[str, str | None]:
    return header.elements[element].properties if element in header.elements else {}


def _read_ranges(header: Header, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends (chunks, 3)."""
    ends = np.empty((header.elements["chunk"].count, 6), "f4")
    fill(header, "chunk", {names: ends})
    return ends[:, :3], ends[:, 3:]


def _fill_harmonics(header: Header, sh: np.ndarray) -> None:
    """Bytes 1 to 254 mean the middle of their 256th part of [-4, 4]; 0 and 255 mean the ends."""
    values = ((np.arange(256, dtype="f4") + 0.5) / 256 - 0.5) * (2 * SH_LIMIT)
    values[0], values[255] = -SH_LIMIT, SH_LIMIT
    start = 0
    for block in read_rows(header, "sh"):
        codes = block.view("u1").reshape(len(block), 3, sh.shape[1] - 1)
        sh[start : start + len(block), 1:] = values[codes.transpose(0, 2, 1)]
        start += len(block)


def _unpack(words: np.ndarray, layout: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(N, fields) fractions in [0, 1] of packed words (N,)."""
    fields = [(words >> shift & (1 << bits) - 1) / np.float32((1 << bits) - 1) for shift, bits in layout]
    return np.stack(fields, axis=1, dtype="f4")


def _pack(fractions: np.ndarray, layout: tuple[tuple[int, int], ...]) -> np.ndarray:
    """What `_unpack` undoes."""
    words = np.zeros(len(fractions), "<u4")
    for column, (shift, bits) in zip(fractions.T, layout, strict=True):
        words |= (column.astype("f8").clip(0, 1) * ((1 << bits) - 1) + 0.5).astype("<u4") << shift
    return words


def _interpolate(ends: tuple[np.ndarray, np.ndarray], chunk: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    low, high = ends
    return low[chunk] * (1 - fractions) + high[chunk] * fractions


def _ranges(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    starts = np.arange(0, len(values), CHUNK)
    return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def _fractions(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    chunk = np.arange(len(values)) // CHUNK
    extent = high.astype("f8") - low  # it may be beyond float32
    return (values - low[chunk].astype("f8")) / np.where(extent > 0, extent, 1)[chunk]
