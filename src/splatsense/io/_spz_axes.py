"""The axes that an SPZ file says it is stored in, and how Gaussians come from them to the format's own.

An SPZ file may carry records of vendors; one (0xADBE0003, by Adobe) names the directions of x, y and z, such as RDF for right,
down, front. Without it a file means RUB, or the axes of whatever it was made from.
"""

import struct

import torch
from torch import Tensor

from splatsense.errors import FormatError
from splatsense.gaussians import matrix_to_quaternion, quaternion_multiply
from splatsense.spherical_harmonics import rotate_sh

COORDINATE_SYSTEM = 0xADBE0003
SYSTEMS = ("LDB", "RDB", "LUB", "RUB", "LDF", "RDF", "LUF", "RUF", "LFD", "RFD", "LFU", "RFU", "LBD", "RBD", "LBU", "RBU")
DIRECTIONS = {"R": (0, 1), "L": (0, -1), "U": (1, 1), "D": (1, -1), "B": (2, 1), "F": (2, -1)}


def stored_axes(where: str, records: bytes | bytearray) -> str:
    """The axes that the extension records of a file name, "RUB" if none does.

    Raises:
        FormatError: the records are cut off, or name axes that are not known.
    """
    at, axes = 0, "RUB"
    while at < len(records):
        if at + 8 > len(records):
            raise FormatError(f"{where}: cut off: its extension record {at} bytes in has no header. Export it again.")
        kind, size = struct.unpack_from("<II", records, at)
        if at + 8 + size > len(records):
            raise FormatError(
                f"{where}: its extension record {at} bytes in promises {size} bytes, but {len(records) - at - 8} follow. "
                "Export it again."
            )
        if kind == COORDINATE_SYSTEM:
            (number,) = struct.unpack_from("<I", records, at + 8) if size == 4 else (0,)
            if not 1 <= number <= len(SYSTEMS):
                raise FormatError(f"{where}: coordinate system {number} ({size} bytes) is not known; export it as RUB.")
            axes = SYSTEMS[number - 1]
        at += 8 + size
    return axes


def matrix_to_rub(axes: str) -> Tensor:
    """(3, 3) signed permutation from coordinates in `axes` to right, up, back; mirrors if `axes` are left-handed."""
    matrix = torch.zeros(3, 3)
    for column, letter in enumerate(axes):
        row, sign = DIRECTIONS[letter]
        matrix[row, column] = sign
    return matrix


def to_rub(axes: str, means: Tensor, quats: Tensor, sh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centres, wxyz quaternions and SH in right, up, back of those in `axes`.

    A mirror M gives a Gaussian the axes M R, which no quaternion is; -M R is one and shows the same Gaussian.
    """
    matrix = matrix_to_rub(axes)
    proper = matrix * torch.linalg.det(matrix)
    return means @ matrix.T, quaternion_multiply(matrix_to_quaternion(proper), quats), rotate_sh(sh, matrix)
