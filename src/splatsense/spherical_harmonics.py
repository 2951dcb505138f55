"""Real spherical harmonics in the basis and order of 3DGS (Kerbl et al. 2023): evaluation and rotation.

Degrees 0 to 4. Within a band the order is m = -l ... l; odd-m terms carry the sign that the 3DGS code base uses,
so coefficients read from its files mean the same thing here.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

SH_C0 = 0.28209479177387814


def sh_basis(degree: int, directions: Tensor) -> Tensor:
    """(..., (degree + 1)^2) basis values at unit `directions` (..., 3); `degree` is 0 to 4."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        c = math.sqrt(3 / (4 * math.pi))
        values += [-c * y, c * z, -c * x]
    if degree >= 2:
        c = math.sqrt(15 / math.pi)
        values += [
            c / 2 * x * y,
            -c / 2 * y * z,
            math.sqrt(5 / math.pi) / 4 * (3 * z * z - 1),
            -c / 2 * x * z,
            c / 4 * (x * x - y * y),
        ]
    if degree >= 3:
        outer, middle, inner = (
            math.sqrt(35 / (2 * math.pi)) / 4,
            math.sqrt(105 / math.pi) / 4,
            math.sqrt(21 / (2 * math.pi)) / 4,
        )
        values += [
            -outer * y * (3 * x * x - y * y),
            2 * middle * x * y * z,
            -inner * y * (5 * z * z - 1),
            math.sqrt(7 / math.pi) / 4 * z * (5 * z * z - 3),
            -inner * x * (5 * z * z - 1),
            middle * z * (x * x - y * y),
            -outer * x * (x * x - 3 * y * y),
        ]
    if degree >= 4:
        values += [
            3 / 4 * math.sqrt(35 / math.pi) * x * y * (x * x - y * y),
            -3 / 4 * math.sqrt(35 / (2 * math.pi)) * y * z * (3 * x * x - y * y),
            3 / 4 * math.sqrt(5 / math.pi) * x * y * (7 * z * z - 1),
            -3 / 4 * math.sqrt(5 / (2 * math.pi)) * y * z * (7 * z * z - 3),
            3 / 16 * math.sqrt(1 / math.pi) * (35 * z**4 - 30 * z * z + 3),
            -3 / 4 * math.sqrt(5 / (2 * math.pi)) * x * z * (7 * z * z - 3),
            3 / 8 * math.sqrt(5 / math.pi) * (x * x - y * y) * (7 * z * z - 1),
            -3 / 4 * math.sqrt(35 / (2 * math.pi)) * x * z * (x * x - 3 * y * y),
            3 / 16 * math.sqrt(35 / math.pi) * (x**4 - 6 * x * x * y * y + y**4),
        ]
    return torch.stack(values, dim=-1)


def sh_to_rgb(sh: Tensor, directions: Tensor) -> Tensor:
    """(..., 3) colours `max(0, 0.5 + basis . sh)` of coefficients (..., K, 3) seen along `directions` (..., 3).

    `directions` point from the camera to the Gaussian and need not be unit length.
    """
    basis = sh_basis(math.isqrt(sh.shape[-2]) - 1, normalize(directions, dim=-1))
    return ((basis[..., None] * sh).sum(-2) + 0.5).clamp_min(0)


def rotate_sh(sh: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients (N, K, 3) of the same colour functions after rotating the world by `rotation` (3, 3).

    Each band maps to itself; its matrix follows from evaluating the band at more directions than it has terms,
    before and after the rotation, and solving in float64. Exact to rounding.
    """
    degree = math.isqrt(sh.shape[1]) - 1
    if degree == 0:
        return sh
    directions = normalize(torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1)
    here = sh_basis(degree, directions)
    before = sh_basis(degree, directions @ rotation.double().cpu())  # rotation^-1 applied to each direction
    rotated = [sh[:, :1]]
    for band in range(1, degree + 1):
        span = slice(band * band, (band + 1) ** 2)
        matrix = torch.linalg.lstsq(here[:, span], before[:, span]).solution
        rotated.append(torch.einsum("ij,njc->nic", matrix.to(sh), sh[:, span]))
    return torch.cat(rotated, dim=1)
