"""`RasterSettings`: what a caller may choose about how Gaussians become images."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from splatsense.errors import DataError

DepthKind = Literal["expected", "median"]


@dataclass(frozen=True)
class RasterSettings:
    """Settings of `render`, the same for every backend. What they do exactly is stated in `splatsense.render.reference`."""

    antialiased: bool = False
    """Lower each opacity by the factor sqrt(det(cov) / det(cov + eps2d I)) of its screen covariance, which keeps what a
    Gaussian adds to the image when `eps2d` widens it (Mip-Splatting, Yu et al. 2024, section 5)."""
    depth: DepthKind = "expected"
    """"expected": the mean of z under the compositing weights. "median": the z of the Gaussian at which the transmittance
    falls below 1/2, and 0 where it never does."""
    near_plane: float = 0.01
    """Gaussians whose mean has a smaller z are not drawn; world units, > 0."""
    far_plane: float = math.inf
    """Gaussians whose mean has a larger z are not drawn; world units, > near_plane."""
    radius_clip: float = 0.0
    """Gaussians that reach no further than this from their mean, along x and along y, are not drawn; pixels, >= 0. How far
    one reaches is where its alpha falls to 1/255, rounded up to whole pixels."""
    eps2d: float = 0.3
    """Added to both variances of every Gaussian on the screen; square pixels, >= 0."""

    def __post_init__(self) -> None:
        if self.depth not in get_args(DepthKind):
            raise DataError(f'RasterSettings.depth must be "expected" or "median", got {self.depth!r}.')
        if not 0 < self.near_plane < self.far_plane:
            raise DataError(
                f"RasterSettings: 0 < near_plane < far_plane must hold, got {self.near_plane} and {self.far_plane}."
            )
        for name in ("radius_clip", "eps2d"):
            if not 0 <= getattr(self, name) < math.inf:
                raise DataError(f"RasterSettings.{name} must be finite and at least 0, got {getattr(self, name)}.")


DEFAULT_SETTINGS = RasterSettings()
