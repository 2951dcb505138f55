"""SOG files of PlayCanvas ("spatially ordered Gaussians"): Gaussians as pixels of lossless WebP images, and a `meta.json`.

Either bundled in a zip archive (`.sog`) or as a folder. Versions 1 and 2 are read, version 2 is written, bundled.

Design
- A pixel is a Gaussian. Positions are 16 bits an axis of `sign(x) log(1 + |x|)` over its range, rotations the three
  smallest components in 8 bits, opacities 8 bits. Log scales, DC colours and, by way of a palette of at most 65,536
  entries, the SH bands are 8-bit indices into codebooks (version 2) or 8 bits over a range (version 1).
- Writing, in `_sog_writer`, sorts the Gaussians along a Z curve; `write_sog` returns the order.
- Reading checks every count before it allocates: `meta.json` against the size of the file, images against `meta.json`.
  It takes at most four times the memory of the Gaussians it returns, and what `_archive` allows for the archive.

Precision of a round trip
- Positions: half a step of 1/65535 of the range of `log(1 + |x|)` on that axis.
- Rotations: each component but the largest to 0.0028. Opacities: 1/510.
- Log scales, DC colours, and SH bands up to 65,536 different ones: exact when they are at most 256 different numbers, else a
  root mean square error of at most 1/510 of their range. More SH bands than that are averaged.
- SH degree 4 and scales below 1e-30 are not kept.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from splatsense.errors import FormatError, LimitError
from splatsense.files import open_referred, open_to_read
from splatsense.gaussians import Gaussians
from splatsense.io._archive import open_archive
from splatsense.io._cleaning import clean_gaussians
from splatsense.io._images import decode_rgba
from splatsense.io._json import Json, integer, member, number, numbers, parse_object
from splatsense.io._smallest_three import HALF_SQRT_2, restore_largest

META = "meta.json"
LARGEST_META = 1 << 20
FREE_COUNT = 1 << 18
MOST_PER_BYTE = 8
"""A real file spends 8 to 20 bytes on a Gaussian. Above `FREE_COUNT`, one that claims this many in a byte is a bomb."""
PALETTE = 1 << 16
PALETTE_COLUMNS = 64
BANDS = (0, 3, 8, 15)


@dataclass(frozen=True)
class _Source:
    """A SOG file, bundled or not: its parsed `meta.json`, the bytes it takes, and how to read `name` of at most n bytes."""

    path: Path
    meta: Json
    size: int
    read: Callable[[str, int], bytes | bytearray]

    @property
    def where(self) -> str:
        return f"{self.path}: {META}"


def read_sog(path: str | os.PathLike[str]) -> Gaussians:
    """Read a `.sog` file, a folder that holds a `meta.json` and its images, or that `meta.json`.

    Raises:
        FormatError: something is missing, cut off, damaged, does not match, or is of an unknown version.
        LimitError: it claims, or would inflate to, more than a file of its size can mean.
        DataError: no Gaussian in it is usable.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() == ".json":
        return _decode(_open_folder(path))
    with open_archive(path) as archive:
        metas = [name for name in archive.names if name == META or name.endswith("/" + META)]
        if len(metas) != 1:
            raise FormatError(f"{path}: not a SOG file: it holds {len(metas)} {META} among {', '.join(archive.names[:12])}.")
        folder = metas[0].removesuffix(META)
        meta = parse_object(archive.read(metas[0], LARGEST_META), f"{path}: {metas[0]}")
        return _decode(_Source(path, meta, archive.size, lambda name, limit: archive.read(folder + name, limit)))


def _open_folder(path: Path) -> _Source:
    folder, meta_path = (path, path / META) if path.is_dir() else (path.parent, path)

    def read(name: str, limit: int) -> bytes:
        with open_to_read(meta_path) if name == meta_path.name else open_referred(folder / name, str(path)) as handle:
            data = handle.read(limit + 1)
        if len(data) > limit:
            raise LimitError(f"{path}: {name} is longer than {limit} bytes, the most that makes sense for it.")
        return data

    meta = parse_object(read(meta_path.name, LARGEST_META), str(meta_path))
    try:
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    except OSError as error:
        raise FormatError(f"{folder}: cannot be read ({error.strerror}); check its permissions.") from error
    return _Source(path, meta, size, read)


@np.errstate(all="ignore")  # what is not finite then is for clean_gaussians to see
def _decode(source: _Source) -> Gaussians:
    meta, where = source.meta, source.where
    if meta.get("version", 1) not in (1, 2):
        raise FormatError(f"{where}: has version {meta['version']!r}; versions 1 and 2 are known. Export it for version 2.")
    is_v1 = meta.get("version", 1) == 1
    means = _section(source, "means")
    if is_v1:
        shape = means.get("shape")
        if not isinstance(shape, list) or not shape:
            raise FormatError(f"{where}: is not that of a SOG file: it has neither a version nor means.shape.")
        count = integer({"means.shape[0]": shape[0]}, "means.shape[0]", where, 1)
        encoding = _section(source, "quats").get("encoding", "quaternion_packed")
        if encoding != "quaternion_packed":
            raise FormatError(f"{where}: quats.encoding is {encoding!r}; only 'quaternion_packed' is known.")
    else:
        count = integer(meta, "count", where, 1)
    if count > FREE_COUNT + MOST_PER_BYTE * source.size:
        raise LimitError(f"{where}: claims {count} Gaussians in {source.size} bytes; it is damaged or hostile.")

    low, high = (_pixels(source, "means", index, count)[:, :3] for index in (0, 1))
    steps = low.astype(np.float32) + np.float32(256) * high
    logged = _between(steps / 65535, numbers(means, "mins", f"{where}: means", 3), numbers(means, "maxs", f"{where}: means", 3))
    positions = np.copysign(np.expm1(np.abs(logged)), logged)
    log_scales, _ = _values(source, "scales", _pixels(source, "scales", 0, count)[:, :3], is_v1)
    colours, opacities = _colours(source, count, is_v1)
    bands = _bands(source, count, is_v1) if "shN" in meta and meta["shN"] is not None else None
    quats = _unpack_quats(_pixels(source, "quats", 0, count), source)
    sh = colours[:, None] if bands is None else np.concatenate([colours[:, None], bands], axis=1)
    return clean_gaussians(
        source.path, *(torch.from_numpy(array) for array in (positions, quats, np.exp(log_scales), opacities, sh))
    )


def _section(source: _Source, name: str) -> Json:
    section = member(source.meta, name, source.where)
    if not section:
        raise FormatError(f"{source.where}: lacks {name!r}; export the file again.")
    return section


def _file(source: _Source, section: str, index: int) -> str:
    """The name of an image, which must be that of a file beside `meta.json`."""
    names = _section(source, section).get("files")
    if not isinstance(names, list) or len(names) <= index or not isinstance(names[index], str):
        raise FormatError(f"{source.where}: {section}.files has no name at place {index}; export the file again.")
    name: str = names[index]
    if name in ("", ".", "..") or any(character in name for character in "/\\:\0"):
        raise FormatError(f"{source.where}: {section}.files names {name!r}, which is not a file beside it; it is hostile.")
    return name


def _pixels(source: _Source, section: str, index: int, count: int) -> np.ndarray:
    """(count, 4) bytes of the image in which every Gaussian has its pixel."""
    most = 4 * count + (1 << 16)  # padded to whole rows, squares or powers of two

    def fault(width: int, height: int) -> str | None:
        if width * height < count:
            return f"fewer than the {count} Gaussians of {META}"
        return f"far more than the {count} Gaussians of {META}" if width * height > most else None

    name = _file(source, section, index)
    data = source.read(name, 4 * most + (1 << 16))
    return decode_rgba(data, f"{source.path}: {name}", fault).reshape(-1, 4)[:count]


def _between(fractions: np.ndarray, lows: list[float], highs: list[float]) -> np.ndarray:
    low, high = np.array(lows, np.float32), np.array(highs, np.float32)
    return low * (1 - fractions) + high * fractions


def _values(source: _Source, name: str, steps: np.ndarray, is_v1: bool) -> tuple[np.ndarray, Json]:
    """Bytes of an image as the float32 they stand for, and the section of `meta.json` that says so."""
    section = _section(source, name)
    where = f"{source.where}: {name}"
    if is_v1 and name == "shN":
        mins, maxs = ([number(section, key, where)] for key in ("mins", "maxs"))
    elif is_v1:
        mins, maxs = (numbers(section, key, where, steps.shape[-1]) for key in ("mins", "maxs"))
    else:
        return _codebook(section, where)[steps], section
    return _between(steps.astype(np.float32) / 255, mins, maxs), section


def _codebook(section: Json, where: str) -> np.ndarray:
    """(256,) float32. A null in front, which splat-transform wrote for a while, continues the spacing of the others."""
    entries = section.get("codebook")
    if isinstance(entries, list) and len(entries) == 256 and entries[0] is None:
        rest = numbers({"codebook": entries[1:]}, "codebook", where, 255)
        return np.array([rest[0] + (rest[0] - rest[-1]) / 255, *rest], np.float32)
    return np.array(numbers(section, "codebook", where, 256), np.float32)


def _colours(source: _Source, count: int, is_v1: bool) -> tuple[np.ndarray, np.ndarray]:
    """(count, 3) DC coefficients and (count,) opacities; version 1 stores the latter as logits over a range."""
    pixels = _pixels(source, "sh0", 0, count)
    if not is_v1:
        return _values(source, "sh0", pixels[:, :3], False)[0], pixels[:, 3].astype(np.float32) / 255
    values, _ = _values(source, "sh0", pixels, True)
    return np.ascontiguousarray(values[:, :3]), 1 / (1 + np.exp(-values[:, 3].clip(-80, 80)))


def _bands(source: _Source, count: int, is_v1: bool) -> np.ndarray:
    """(count, 3, 8 or 15, 3) SH coefficients from the palette."""
    section, where = _section(source, "shN"), f"{source.where}: shN"
    entries = PALETTE if is_v1 else integer(section, "count", where, 1, PALETTE)
    bands = None if is_v1 else BANDS[integer(section, "bands", where, 1, 3)]

    def fault(width: int, height: int) -> str | None:
        if bands is None and width not in [PALETTE_COLUMNS * terms for terms in BANDS[1:]]:
            return "and no SH palette is that wide"
        if bands is not None and width != PALETTE_COLUMNS * bands:
            return f"where {bands} terms of spherical harmonics make it {PALETTE_COLUMNS * bands} wide"
        if bands is not None and height * PALETTE_COLUMNS < entries:
            return f"fewer than {entries} palette entries"
        return "more than any palette" if height * PALETTE_COLUMNS > PALETTE else None

    name = _file(source, "shN", 0)
    image = decode_rgba(source.read(name, 4 * PALETTE * BANDS[3] + (1 << 16)), f"{source.path}: {name}", fault)
    terms = image.shape[1] // PALETTE_COLUMNS
    steps = image[..., :3].reshape(-1, terms, 3)
    entries = min(entries, len(steps))
    palette, _ = _values(source, "shN", steps[:entries], is_v1)
    pixels = _pixels(source, "shN", 1, count)
    labels = pixels[:, 0].astype(np.int64) + 256 * pixels[:, 1].astype(np.int64)
    if labels.max() >= entries:
        raise FormatError(
            f"{source.path}: {_file(source, 'shN', 1)}: Gaussian {int((labels >= entries).argmax())} refers to palette entry "
            f"{int(labels.max())} of {entries}; the file is damaged. Export it again."
        )
    return palette[labels]


def _unpack_quats(pixels: np.ndarray, source: _Source) -> np.ndarray:
    """(count, 4) wxyz from the three smallest components and the number of the largest, which is 252 to 255."""
    largest = pixels[:, 3].astype(np.int64) - 252
    if largest.min() < 0:
        raise FormatError(
            f"{source.path}: {_file(source, 'quats', 0)}: Gaussian {int((largest < 0).argmax())} has alpha "
            f"{int(pixels[:, 3].min())}, not 252 to 255; the file is damaged. Export it again."
        )
    return restore_largest(largest, (pixels[:, :3].astype(np.float32) / 255 - np.float32(0.5)) / np.float32(HALF_SQRT_2))
