"""`.ksplat` files of the viewer GaussianSplats3D (Mark Kellogg): version 0.1, compression levels 0 to 2. Read only.

Design
- A header of 4096 bytes, a header of 1024 bytes for each section, then the sections. All sizes follow from the headers and
  are checked against the size of the file before anything is read; then a section is read at a time.
- At levels 1 and 2 the Gaussians of a section lie in buckets: first the full ones, then the others, whose sizes are listed.
  A position counts steps from a corner of the block around its bucket's centre.
- Spherical harmonics come after the colour: the three of degree 1 for red, then green, then blue, and likewise the five of
  degree 2. Sections may differ in degree; what is missing becomes zero. The viewer knows no degree 3; gaussforge writes
  one, in an order of its own, and such a file is refused rather than guessed at.

Precision. Level 0: float32; levels 1 and 2: position block / 131,068 (half a step; a block is 5 units by default), scales
and rotations float16, SH float16 (level 1) or 1/255 of the range that the header gives (level 2). Colour and opacity 1/255,
for the viewer rounds them down. The file's axes are kept. Memory: at most 6 times the file size.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from splatsense.errors import FormatError
from splatsense.files import open_to_read
from splatsense.gaussians import Gaussians
from splatsense.io._cleaning import clean_gaussians
from splatsense.spherical_harmonics import SH_C0

HEADER_BYTES, SECTION_HEADER_BYTES, BUCKET_BYTES = 4096, 1024, 12
HEADER = struct.Struct("<2B2x4IH14x2f")  # version; sections, splats; level; range of 8-bit harmonics
SECTION = struct.Struct("<4IfH2x4IH")
LARGEST_DEGREE = 2
DEFAULT_STEPS = 32767
DEFAULT_HARMONICS_RANGE = (-1.5, 1.5)
TYPES = (("<f4", "<f4", "<f4"), ("<u2", "<f2", "<f2"), ("<u2", "<f2", "u1"))
"""By level: number types of position, of scale and rotation, and of SH."""


@dataclass(frozen=True)
class _Section:
    """A section as its header describes it, and where it lies."""

    count: int
    capacity: int
    bucket_size: int
    buckets: int
    block: float
    bucket_bytes: int
    steps: int
    full_buckets: int
    partial_buckets: int
    degree: int
    start: int
    level: int

    @property
    def dtype(self) -> np.dtype:
        position, other, harmonics = TYPES[self.level]
        components = 3 * ((self.degree + 1) ** 2 - 1)
        return np.dtype(
            [("mean", position, 3), ("scale", other, 3), ("quat", other, 4), ("rgba", "u1", 4), ("sh", harmonics, components)]
        )

    @property
    def rows_start(self) -> int:
        return self.start + 4 * self.partial_buckets + self.bucket_bytes * self.buckets

    @property
    def end(self) -> int:
        return self.rows_start + self.capacity * self.dtype.itemsize


def read_ksplat(path: str | os.PathLike[str]) -> Gaussians:
    """Read a `.ksplat` file of any compression level and SH degree 0 to 2.

    Gaussians with values that are not finite or a quaternion of zeros are left out with a warning in the log.

    Raises:
        FormatError: the file is missing, cut off, damaged, or of an unknown version.
        DataError: no Gaussian in it is usable.
    """
    path = Path(path)
    with open_to_read(path) as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(0)
        sections, harmonics_range = _read_headers(path, handle, size)
        count = sum(section.count for section in sections)
        bands = (1 + max((section.degree for section in sections), default=0)) ** 2
        means, quats, scales = np.empty((count, 3), "f4"), np.empty((count, 4), "f4"), np.empty((count, 3), "f4")
        opacities, sh = np.empty(count, "f4"), np.zeros((count, bands, 3), "f4")
        start = 0
        for section in sections:
            rows = slice(start, start + section.count)
            records = _read_section(path, handle, section, means[rows])
            quats[rows], scales[rows] = records["quat"], records["scale"]
            np.divide(records["rgba"][:, 3], 255, out=opacities[rows], dtype="f4")
            sh[rows, 0] = (records["rgba"][:, :3] / np.float32(255) - np.float32(0.5)) / np.float32(SH_C0)
            _fill_harmonics(section, records["sh"], harmonics_range, sh[rows])
            start += section.count
    parts = (torch.from_numpy(values) for values in (means, quats, scales, opacities, sh))
    return clean_gaussians(path, *parts)


def _read_headers(path: Path, handle: BinaryIO, size: int) -> tuple[list[_Section], tuple[float, float]]:
    """The sections and the range of 8-bit harmonics, all checked against the size of the file."""
    if size < HEADER_BYTES:
        raise FormatError(
            f"{path}: cut off or not a .ksplat file: {size} bytes are less than its header of {HEADER_BYTES}. Copy it again."
        )
    start = handle.read(HEADER_BYTES)
    major, minor, section_count, _, _, count, level, low, high = HEADER.unpack_from(start)
    if (major, minor) != (0, 1):
        raise FormatError(f"{path}: .ksplat version {major}.{minor} is not known, only 0.1; convert it to .ply.")
    if level >= len(TYPES):
        raise FormatError(f"{path}: compression level {level} at byte 20 is not known, only 0 to 2; the file is damaged.")
    sections_start = HEADER_BYTES + section_count * SECTION_HEADER_BYTES
    if sections_start > size:
        raise FormatError(
            f"{path}: cut off: the headers of its {section_count} sections end at byte {sections_start}, "
            f"but the file has {size} bytes. Copy or export it again."
        )
    sections, end = [], sections_start
    for index in range(section_count):
        sections.append(_parse_section(path, handle.read(SECTION_HEADER_BYTES), index, end, level))
        end = sections[-1].end
        if end > size:
            raise FormatError(
                f"{path}: cut off: section {index} with {sections[-1].capacity} Gaussians ends at byte {end}, "
                f"but the file has {size} bytes. Copy or export it again."
            )
    if end < size:
        raise FormatError(f"{path}: {size - end} bytes follow the last section at byte {end}; the file is damaged.")
    if (found := sum(section.count for section in sections)) != count:
        raise FormatError(
            f"{path}: the header promises {count} Gaussians, its sections hold {found}; the file is damaged. Export it again."
        )
    if not count:
        raise FormatError(f"{path}: is empty: it declares 0 Gaussians.")
    low, high = low or DEFAULT_HARMONICS_RANGE[0], high or DEFAULT_HARMONICS_RANGE[1]
    if level == 2 and any(section.degree for section in sections) and not -np.inf < low <= high < np.inf:
        raise FormatError(f"{path}: {low} to {high} at byte 36 is no range of spherical harmonics; the file is damaged.")
    return sections, (low, high)


def _parse_section(path: Path, header: bytes, index: int, start: int, level: int) -> _Section:
    count, capacity, bucket_size, buckets, block, bucket_bytes, steps, _, full, partial, degree = SECTION.unpack_from(header)
    place = f"{path}: section {index}, header at byte {HEADER_BYTES + index * SECTION_HEADER_BYTES}:"
    if degree > LARGEST_DEGREE:
        raise FormatError(f"{place} SH degree {degree} is not known, only 0 to 2; convert it to .ply.")
    if count > capacity:
        raise FormatError(f"{place} {count} Gaussians in room for {capacity}; the file is damaged. Export it again.")
    if level > 0 and capacity:
        if full + partial != buckets or bucket_bytes != BUCKET_BYTES:
            raise FormatError(
                f"{place} {full} full and {partial} other buckets do not make {buckets} of {BUCKET_BYTES} bytes; "
                "the file is damaged. Export it again."
            )
        if not 0 < block < np.inf:
            raise FormatError(f"{place} {block} is no size of a block; the file is damaged. Export it again.")
    return _Section(
        count, capacity, bucket_size, buckets, block, bucket_bytes, steps or DEFAULT_STEPS, full, partial, degree, start, level
    )


def _read_section(path: Path, handle: BinaryIO, section: _Section, means: np.ndarray) -> np.ndarray:
    """Records of a section; its positions are written to `means`."""
    handle.seek(section.start)
    data = handle.read(section.end - section.start)
    if len(data) < section.end - section.start:
        raise FormatError(f"{path}: became shorter while it was read; read it again when it is complete.")
    records = np.frombuffer(data, section.dtype, section.count, section.rows_start - section.start)
    if section.level == 0 or not section.count:
        means[...] = records["mean"]
        return records
    partial = np.frombuffer(data, "<u4", section.partial_buckets)
    centres = np.frombuffer(data, "<f4", 3 * section.buckets, 4 * section.partial_buckets).reshape(-1, 3)
    held = section.full_buckets * section.bucket_size + int(partial.sum(dtype=np.int64))
    if held != section.capacity:
        raise FormatError(
            f"{path}: the buckets of the section at byte {section.start} hold {held} Gaussians, not {section.capacity}; "
            "the file is damaged. Export it again."
        )
    sizes = np.concatenate([np.full(section.full_buckets, section.bucket_size, np.int64), partial])
    np.subtract(records["mean"], np.float32(section.steps), out=means)
    means *= np.float32(section.block / 2 / section.steps)
    means += np.repeat(centres, sizes, axis=0)[: section.count]
    return records


def _fill_harmonics(section: _Section, values: np.ndarray, limits: tuple[float, float], sh: np.ndarray) -> None:
    """Spread `values` (N, 9 or 24) of one section over the bands of `sh` (N, K, 3) after the first."""
    low, high = limits
    for degree in range(1, section.degree + 1):
        first, end = degree * degree, (degree + 1) ** 2
        target = sh[:, first:end]
        columns = values[:, 3 * (first - 1) : 3 * (end - 1)].reshape(len(values), 3, end - first)
        target[...] = columns.transpose(0, 2, 1)
        if section.level == 2:
            target *= np.float32((high - low) / 255)
            target += np.float32(low)
