"""Gaussians as plain arrays: NumPy's `.npz` and `.safetensors`, for programs rather than viewers.

Both hold float32 arrays `means`, `quats` (wxyz), `scales` (linear), `opacities` and `sh` as `Gaussians` has them, and the
version of this layout: in `.npz` an array `format_version`, in `.safetensors` the metadata `format` and `version`.

Precision of a round trip: every bit, for SH degrees 0 to 4. Reading takes the size of the arrays, twice when some Gaussians
must be left out. Nothing is unpickled, and shapes are checked against the size of the file before anything is allocated.
"""

import math
import os
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from splatsense.errors import DataError, FormatError, LimitError
from splatsense.files import atomic_write, open_to_read
from splatsense.gaussians import Gaussians
from splatsense.io._archive import open_archive
from splatsense.io._cleaning import clean_gaussians
from splatsense.io._writing import checked_to_write

NAMES = ("means", "quats", "scales", "opacities", "sh")
FORMAT, VERSION = "splatsense.gaussians", 1
LARGEST_HEADER = 1 << 20
NPY_HEADER = re.compile(rb"\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([\d, ]{0,80})\), \}\s*")


def read_npz(path: str | os.PathLike[str]) -> Gaussians:
    """Read the `.npz` file of `write_npz`, or of `numpy.savez` and `savez_compressed` with arrays of these names.

    Raises:
        FormatError: an array is missing, cut off, damaged, not float32 or of the wrong shape, or the version is unknown.
        LimitError: it would inflate to more than 64 times its size.
        DataError: no Gaussian in it is usable, or opacities lie outside [0, 1].
    """
    path = Path(path)
    with open_archive(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.names}
        _check_version(path, str(_parse_npy(archive.read(members["format_version"], 1 << 12), path, "format_version", "<i8"))
                       if "format_version" in members else None)  # fmt: skip
        missing = [name for name in NAMES if name not in members]
        if missing:
            raise _lacks(path, missing)
        arrays = {}
        for name in NAMES:
            data = archive.read(members[name], archive.size_of(members[name]))
            arrays[name] = torch.from_numpy(_parse_npy(data, path, name, "<f4"))
    return _gaussians(path, arrays)


def _parse_npy(data: bytearray, path: Path, name: str, dtype: str) -> np.ndarray:
    """The array of a `.npy` file in memory, sharing its bytes; strict about what NumPy writes, so nothing is evaluated."""
    version = data[6] if data[:6] == b"\x93NUMPY" and len(data) >= 12 else 0
    if version not in (1, 2, 3):
        raise FormatError(f"{path}: {name} is not a NumPy array; export the file again.")
    start, length = (10, struct.unpack_from("<H", data, 8)[0]) if version == 1 else (12, struct.unpack_from("<I", data, 8)[0])
    header = NPY_HEADER.fullmatch(bytes(data[start : start + min(length, LARGEST_HEADER)]))
    if header is None:
        raise FormatError(f"{path}: the header of {name} is damaged; copy or export the file again.")
    if header[1].decode("latin-1") != dtype or header[2] == b"True":
        order = " in Fortran order" if header[2] == b"True" else ""
        raise FormatError(
            f"{path}: {name} is {header[1].decode('latin-1')!r}{order}; save it as {dtype!r}, in C order, with numpy.savez."
        )
    shape = tuple(int(size) for size in header[3].replace(b" ", b"").split(b",") if size)
    if math.prod(shape) * np.dtype(dtype).itemsize != len(data) - start - length:
        raise FormatError(
            f"{path}: {name} has shape {shape}, but {len(data) - start - length} bytes; it is damaged. Export it again."
        )
    return np.frombuffer(data, dtype, offset=start + length).reshape(shape)


def write_npz(gaussians: Gaussians, path: str | os.PathLike[str]) -> None:
    """Write an uncompressed `.npz` file; `numpy.load` reads it without pickles.

    Raises:
        DataError: there are no Gaussians, or some have values that are not finite or out of range.
        FormatError: `path` cannot be written.
    """
    arrays = {name: value.numpy() for name, value in vars(checked_to_write(gaussians, path)).items()}
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in {"format_version": np.int64(VERSION), **arrays}.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, np.asarray(array), allow_pickle=False)


def read_safetensors(path: str | os.PathLike[str]) -> Gaussians:
    """Read the `.safetensors` file of `write_safetensors`, or one with tensors of these names.

    Raises:
        FormatError: a tensor is missing, not float32 or of the wrong shape, the file is cut off or damaged, or of an unknown
            version.
        LimitError: its header is larger than any of Gaussians.
        DataError: no Gaussian in it is usable, or opacities lie outside [0, 1].
    """
    path = Path(path)
    with open_to_read(path) as handle:
        length = int.from_bytes(handle.read(8), "little")
    if length > LARGEST_HEADER and length <= path.stat().st_size:
        raise LimitError(f"{path}: its header takes {length} bytes; one of Gaussians takes less than {LARGEST_HEADER}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format", FORMAT) not in (FORMAT, "pt"):
                raise FormatError(f"{path}: holds {metadata['format']!r}, not Gaussians.")
            _check_version(path, metadata.get("version"))
            missing = [name for name in NAMES if name not in file.keys()]  # noqa: SIM118  # not a dict
            if missing:
                raise _lacks(path, missing)
            tensors = {name: file.get_tensor(name) for name in NAMES}
    except SafetensorError as error:
        raise FormatError(f"{path}: cut off, damaged or not a safetensors file ({error}); copy or export it again.") from error
    return _gaussians(path, tensors)


def write_safetensors(gaussians: Gaussians, path: str | os.PathLike[str]) -> None:
    """Write a `.safetensors` file.

    Raises:
        DataError: there are no Gaussians, or some have values that are not finite or out of range.
        FormatError: `path` cannot be written.
    """
    tensors = vars(checked_to_write(gaussians, path))
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, {"format": FORMAT, "version": str(VERSION)})
        except SafetensorError as error:
            raise FormatError(f"{path}: not written ({error}); free some space or choose another place.") from error


def _check_version(path: Path, version: str | None) -> None:
    if version is not None and version != str(VERSION):
        raise FormatError(f"{path}: has version {version!r} of the layout; this release reads {VERSION}. Update splatsense.")


def _lacks(path: Path, missing: list[str]) -> FormatError:
    return FormatError(f"{path}: not a file of Gaussians: it lacks {', '.join(missing)} of {', '.join(NAMES)}.")


def _gaussians(path: Path, tensors: dict[str, Tensor]) -> Gaussians:
    """Gaussians of checked shape and type; bit for bit the tensors when all are usable as they are."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise FormatError(f"{path}: {name} is {tensor.dtype}; save it as float32.")
    try:
        gaussians = Gaussians(**tensors)
    except (DataError, IndexError) as error:  # an array without dimensions has no length
        raise FormatError(f"{path}: arrays do not belong together: {error} Export the file again.") from error
    if not len(gaussians):
        raise FormatError(f"{path}: is empty: its arrays hold 0 Gaussians.")
    outside = ~((gaussians.opacities >= 0) & (gaussians.opacities <= 1)) & gaussians.opacities.isfinite()
    if outside.any():
        raise DataError(
            f"{path}: {int(outside.sum())} opacities lie outside 0 to 1, the first at {int(outside.int().argmax())}; "
            "save them after the sigmoid."
        )
    is_unit = ((gaussians.quats.norm(dim=1) - 1).abs() < 1e-4).all()
    if is_unit and (gaussians.scales >= 0).all() and all(tensor.isfinite().all() for tensor in tensors.values()):
        return gaussians
    return clean_gaussians(path, **tensors)
