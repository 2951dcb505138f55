"""The unit cuboid that a scene is normalised to before it becomes Gaussians (GaussianCross, arXiv 2508.02172, section 3.2).

Design
- x and y lie in [-0.5, 0.5]; z in [-0.5, -0.5 + height], the lowest point at the bottom. `height` is 1 for the paper's cube.
- One similarity moves everything: points, extrinsics and depth. So images of the normalised scene are those of the scene, and
  only lengths differ, by the factor `scale`.

Differs from the paper: a height below 1 is allowed, because rooms are flat and a volume over the whole cube is half empty.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.errors import DataError

BOTTOM = -0.5


@dataclass(frozen=True, eq=False)
class Cuboid:
    """The similarity `x -> scale * (x - origin)` into a unit cuboid.

    Attributes:
        origin: (3,) the point that becomes zero, in metres.
        scale: normalised units in one metre.
        height: of the cuboid; its other sides are 1.
    """

    origin: Float[Tensor, "3"]
    scale: float
    height: float

    @classmethod
    def around(cls, points: Float[Tensor, "n 3"], height: float = 1.0, side: float | None = None) -> "Cuboid":
        """The cuboid that holds all points: centred in x and y, the lowest point at the bottom.

        Args:
            points: in metres.
            height: of the cuboid.
            side: in metres of its other sides, the same for every scene, instead of one that fits; points may be outside.

        Raises:
            DataError: there are no points, they are not finite or all in one place, or `height` is not in (0, 1].
        """
        if not 0 < height <= 1:
            raise DataError(f"Cuboid: height must lie in (0, 1], got {height}.")
        if not len(points) or not bool(points.isfinite().all()):
            raise DataError("Cuboid: needs at least one point, and finite ones.")
        low, high = points.amin(0), points.amax(0)
        extent = high - low
        side = float(torch.maximum(extent[:2].max(), extent[2] / height)) if side is None else side
        if not side > 0:
            raise DataError("Cuboid: all points lie in one place; leave the scene out.")
        center = (low + high) / 2
        return cls(torch.stack([center[0], center[1], low[2] - BOTTOM * side]), 1 / side, height)

    def points(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Normalised points, clipped to the cuboid."""
        normalised = (points - self.origin.to(points)) * self.scale
        low = normalised.new_tensor([-0.5, -0.5, BOTTOM])
        return normalised.clamp(low, low + normalised.new_tensor([1.0, 1.0, self.height]))

    def cameras(self, cameras: Cameras) -> Cameras:
        """Cameras that see in the normalised scene what they saw in the scene; intrinsics stay."""
        world_to_camera = cameras.world_to_camera.clone()
        rotation, translation = world_to_camera[:, :3, :3], world_to_camera[:, :3, 3]
        world_to_camera[:, :3, 3] = self.scale * (rotation @ self.origin.to(rotation) + translation)
        return Cameras(world_to_camera, cameras.K, cameras.width, cameras.height)

    def depth(self, depth: Float[Tensor, "*v h w"]) -> Float[Tensor, "*v h w"]:
        """Depth in normalised units; 0 stays "nothing there"."""
        return depth * self.scale
