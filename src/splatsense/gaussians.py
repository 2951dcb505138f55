"""`Gaussians`: the one data type that every reader fills, every model eats and the rasteriser draws.

Design
- Values are activated: scales are linear and positive, opacities lie in [0, 1], quaternions are unit wxyz.
  Raw values (log scales, logit opacities) exist only inside `splatsense.io` and inside optimisers.
- Colour is spherical harmonics with the DC term first, as in 3DGS (Kerbl et al. 2023), sRGB valued:
  `rgb = 0.5 + Y(direction) . sh`.
- Instances are immutable; transforms return new ones and move everything that must move: means, scales,
  quaternions and the higher SH bands.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.errors import DataError
from splatsense.spherical_harmonics import SH_C0, rotate_sh


@dataclass(frozen=True, eq=False)
class Gaussians:
    """N anisotropic 3D Gaussians.

    Attributes:
        means: (N, 3) centres, in the units of the scene (objects: longest half-extent 1; scenes: metres).
        quats: (N, 4) unit quaternions, wxyz, rotating the Gaussian's own axes into the world.
        scales: (N, 3) standard deviations along the Gaussian's own axes, linear, >= 0.
        opacities: (N,) in [0, 1].
        sh: (N, K, 3) spherical-harmonics coefficients, K = (degree + 1)^2 in {1, 4, 9, 16, 25}, DC first.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    sh: Tensor

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        expected = {"means": (n, 3), "quats": (n, 4), "scales": (n, 3), "opacities": (n,)}
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise DataError(f"Gaussians.{name} has shape {tuple(getattr(self, name).shape)}, expected {shape}.")
        if self.sh.ndim != 3 or self.sh.shape[0] != n or self.sh.shape[1] not in (1, 4, 9, 16, 25) or self.sh.shape[2] != 3:
            raise DataError(f"Gaussians.sh has shape {tuple(self.sh.shape)}, expected ({n}, K, 3) with K = 1, 4, 9, 16 or 25.")

    @classmethod
    def from_rgb(cls, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, rgb: Tensor) -> "Gaussians":
        """Gaussians of SH degree 0 from sRGB colours `rgb` (N, 3) in [0, 1]."""
        return cls(means, quats, scales, opacities, ((rgb - 0.5) / SH_C0)[:, None, :])

    def __len__(self) -> int:
        return self.means.shape[0]

    def __repr__(self) -> str:
        return f"Gaussians(n={len(self)}, sh_degree={self.sh_degree}, device={self.means.device})"

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 4."""
        return math.isqrt(self.sh.shape[1]) - 1

    @property
    def rgb(self) -> Tensor:
        """(N, 3) view-independent sRGB colour (the DC band), clamped to [0, 1]."""
        return (self.sh[:, 0] * SH_C0 + 0.5).clamp(0, 1)

    @property
    def bounds(self) -> Tensor:
        """(2, 3) smallest and largest coordinate of the means. Raises DataError when there are none."""
        if len(self) == 0:
            raise DataError("Gaussians holds no Gaussians, so it has no bounds.")
        return torch.stack([self.means.amin(0), self.means.amax(0)])

    def to(self, device: torch.device | str) -> "Gaussians":
        """The same Gaussians on another device."""
        return Gaussians(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def __getitem__(self, index: Tensor | slice) -> "Gaussians":
        """The Gaussians selected by a slice, an index tensor (M,) or a boolean mask (N,)."""
        return Gaussians(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def subsample(self, count: int, seed: int = 0) -> "Gaussians":
        """At most `count` Gaussians drawn without replacement, in file order; the same for the same seed.

        Raises:
            DataError: `count` is negative.
        """
        if count < 0:
            raise DataError(f"Gaussians.subsample: count must be at least 0, got {count}.")
        if count >= len(self):
            return self
        keep = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count].sort().values
        return self[keep.to(self.means.device)]

    def crop(self, low: Sequence[float] | Tensor, high: Sequence[float] | Tensor) -> "Gaussians":
        """The Gaussians whose means lie in the box from `low` (3,) to `high` (3,), both included; possibly none.

        Raises:
            DataError: a corner is not three numbers, or `low` exceeds `high`.
        """
        corners = [torch.as_tensor(corner).to(self.means) for corner in (low, high)]
        if any(tuple(corner.shape) != (3,) for corner in corners) or not bool((corners[0] <= corners[1]).all()):
            raise DataError(f"Gaussians.crop: low {low} and high {high} must be three numbers each, low not above high.")
        return self[((self.means >= corners[0]) & (self.means <= corners[1])).all(1)]

    def transform(self, rotation: Tensor | None = None, scale: float = 1.0, translation: Tensor | None = None) -> "Gaussians":
        """Apply the similarity `x -> scale * rotation @ x + translation` to everything it moves.

        Args:
            rotation: (3, 3) proper rotation matrix, or None for the identity.
            scale: finite factor > 0.
            translation: (3,), or None for zero.

        Raises:
            DataError: the rotation is not a proper rotation, or the scale or the translation is not as above.
        """
        if not 0 < scale < math.inf:
            raise DataError(f"Gaussians.transform: scale must be positive and finite, got {scale}.")
        if translation is not None and (tuple(translation.shape) != (3,) or not bool(translation.isfinite().all())):
            raise DataError(f"Gaussians.transform: translation must be three finite numbers, got {translation}.")
        means, quats, sh = self.means, self.quats, self.sh
        if rotation is not None:
            rotation = rotation.to(means)
            if not _is_rotation(rotation):
                raise DataError(
                    "Gaussians.transform: rotation is not a proper rotation matrix ((3, 3), orthonormal, determinant +1)."
                )
            means = means @ rotation.T
            quats = normalize(quaternion_multiply(matrix_to_quaternion(rotation), quats), dim=-1)
            sh = rotate_sh(sh, rotation)
        means = means * scale
        if translation is not None:
            means = means + translation.to(means)
        return replace(self, means=means, quats=quats, scales=self.scales * scale, sh=sh)

    def normalized(self, outlier_fraction: float = 0.0) -> "Gaussians":
        """Centred on the bounding box of the means, longest half-extent 1: the form object models expect.

        Args:
            outlier_fraction: ignore this fraction of means at both ends of each axis when measuring the box,
                so that a few floaters in a captured splat do not shrink the object.
        """
        center, scale = self.frame(outlier_fraction)
        return self.transform(scale=scale, translation=-center * scale)

    def frame(self, outlier_fraction: float = 0.0) -> tuple[Tensor, float]:
        """The centre (3,) and the scale of `normalized`, which maps x to `scale * (x - center)`."""
        low, high = self.bounds
        if outlier_fraction > 0:
            ordered = self.means.sort(dim=0).values
            cut = min(int(outlier_fraction * len(self)), (len(self) - 1) // 2)
            low, high = ordered[cut], ordered[len(self) - 1 - cut]
        half_extent = float(((high - low) / 2).max())
        return (low + high) / 2, 1 / half_extent if half_extent > 0 else 1.0

    @staticmethod
    def cat(parts: "Sequence[Gaussians]") -> "Gaussians":
        """All Gaussians of `parts` (at least one) in order. SH bands missing in some parts are filled with zeros."""
        if not parts:
            raise DataError("Gaussians.cat needs at least one part.")
        bands = max(part.sh.shape[1] for part in parts)
        sh = [torch.nn.functional.pad(part.sh, (0, 0, 0, bands - part.sh.shape[1])) for part in parts]
        names = ("means", "quats", "scales", "opacities")
        return Gaussians(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names}, sh=torch.cat(sh))


def _is_rotation(matrix: Tensor) -> bool:
    if tuple(matrix.shape) != (3, 3):
        return False
    identity = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    return torch.allclose(matrix @ matrix.T, identity, atol=1e-4) and bool(torch.linalg.det(matrix.double()) > 0)


def quaternion_to_matrix(quats: Tensor) -> Tensor:
    """(..., 3, 3) rotation matrices of quaternions (..., 4), wxyz, normalised on the way."""
    w, x, y, z = normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """(..., 4) unit quaternions, wxyz with w >= 0, of rotation matrices (..., 3, 3).

    The quaternion is the column of largest diagonal of q q^T, which is stable for every rotation.
    """
    m = matrix.flatten(-2).unbind(-1)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
    outer = torch.stack([
        1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01,
        m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20,
        m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21,
        m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22,
    ], dim=-1).unflatten(-1, (4, 4))  # fmt: skip
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1, keepdim=True)
    quats = normalize(outer.gather(-2, best[..., None].expand(*best.shape, 4)).squeeze(-2), dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def quaternion_multiply(left: Tensor, right: Tensor) -> Tensor:
    """(..., 4) Hamilton product, wxyz: the rotation `right` followed by the rotation `left`."""
    w1, x1, y1, z1 = left.unbind(-1)
    w2, x2, y2, z2 = right.unbind(-1)
    return torch.stack([
        w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
        w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
        w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
    ], dim=-1)  # fmt: skip
