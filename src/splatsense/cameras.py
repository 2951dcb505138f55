"""`Cameras`: a batch of pinhole cameras of one image size, in OpenCV axes (x right, y down, z forward)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.errors import DataError


@dataclass(frozen=True, eq=False)
class Cameras:
    """V pinhole cameras.

    Attributes:
        world_to_camera: (V, 4, 4) rigid transforms from world to camera axes.
        K: (V, 3, 3) intrinsics in pixels; pixel centres lie at +0.5.
        width: image width in pixels.
        height: image height in pixels.
    """

    world_to_camera: Tensor
    K: Tensor
    width: int
    height: int

    def __post_init__(self) -> None:
        views = self.world_to_camera.shape[0]
        if tuple(self.world_to_camera.shape) != (views, 4, 4):
            raise DataError(f"Cameras.world_to_camera has shape {tuple(self.world_to_camera.shape)}, expected (V, 4, 4).")
        if tuple(self.K.shape) != (views, 3, 3):
            raise DataError(f"Cameras.K has shape {tuple(self.K.shape)}, expected ({views}, 3, 3).")
        if self.width < 1 or self.height < 1:
            raise DataError(f"Cameras: image size must be positive, got {self.width} x {self.height}.")

    def __len__(self) -> int:
        return self.world_to_camera.shape[0]

    def __getitem__(self, index: slice | Tensor) -> "Cameras":
        """The cameras selected by a slice or an index tensor."""
        return Cameras(self.world_to_camera[index], self.K[index], self.width, self.height)

    @property
    def centers(self) -> Tensor:
        """(V, 3) camera centres in the world."""
        rotation, translation = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3]
        return -(rotation.transpose(1, 2) @ translation[:, :, None])[:, :, 0]

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras on another device."""
        return Cameras(self.world_to_camera.to(device), self.K.to(device), self.width, self.height)

    @classmethod
    def look_at(cls, eyes: Tensor, target: Tensor, up: Tensor, width: int, height: int, fov: float) -> "Cameras":
        """Cameras at `eyes` (V, 3) that look at `target` (3,) or (V, 3) with `up` (3,) pointing up in the image.

        Args:
            fov: vertical field of view in degrees, between 0 and 180.

        Raises:
            DataError: the field of view is out of range, or a camera stands on its target or looks along `up`.
        """
        if not 0 < fov < 180:
            raise DataError(f"Cameras: fov must lie between 0 and 180 degrees, got {fov}.")
        forward = normalize(target - eyes, dim=-1)
        right = torch.linalg.cross(forward, up.expand_as(forward))
        if bool((right.norm(dim=-1) < 1e-6).any()):
            raise DataError("Cameras.look_at: a camera stands on its target, or looks parallel to `up`; choose another `up`.")
        right = normalize(right, dim=-1)
        down = torch.linalg.cross(forward, right)
        rotation = torch.stack([right, down, forward], dim=1)
        world_to_camera = torch.eye(4, device=eyes.device).repeat(len(eyes), 1, 1)
        world_to_camera[:, :3, :3] = rotation
        world_to_camera[:, :3, 3] = -(rotation @ eyes[:, :, None])[:, :, 0]
        focal = 0.5 * height / math.tan(math.radians(fov) / 2)
        K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], device=eyes.device)
        return cls(world_to_camera, K.repeat(len(eyes), 1, 1), width, height)

    @classmethod
    def orbit(
        cls, views: int, size: int = 256, elevation: float = 20.0, azimuth: float = 30.0, fov: float = 35.0,
        distance: float | None = None, up: str = "y",
    ) -> "Cameras":  # fmt: skip
        """`views` square cameras on a circle around the origin, looking at it.

        Args:
            size: width and height in pixels.
            elevation: degrees above the horizon, between -89 and 89.
            azimuth: degrees of the first camera; 0 looks from +z for `up="y"` and from +x for `up="z"`.
            fov: field of view in degrees.
            distance: from the origin; by default the whole ball of radius sqrt(3) * 0.75 fits the image, which
                holds any object of longest half-extent 1 but extreme cubes.
            up: "y" (objects) or "z" (scenes).

        Raises:
            DataError: an argument is out of range.
        """
        if views < 1:
            raise DataError(f"Cameras.orbit: views must be at least 1, got {views}.")
        if not -89 <= elevation <= 89:
            raise DataError(f"Cameras.orbit: elevation must lie between -89 and 89 degrees, got {elevation}.")
        if not 0 < fov < 180:
            raise DataError(f"Cameras: fov must lie between 0 and 180 degrees, got {fov}.")
        if up not in ("y", "z"):
            raise DataError(f'Cameras.orbit: up must be "y" or "z", got {up!r}.')
        if distance is None:
            distance = math.sqrt(3) * 0.75 / math.sin(math.radians(fov) / 2)
        if not 0 < distance < math.inf or not math.isfinite(azimuth):
            raise DataError(f"Cameras.orbit: distance must be positive and azimuth finite, got {distance} and {azimuth}.")
        angle = torch.deg2rad(azimuth + torch.arange(views) * (360.0 / views))
        height, radius = math.sin(math.radians(elevation)), math.cos(math.radians(elevation))
        around, toward = radius * torch.sin(angle), radius * torch.cos(angle)
        level = torch.full_like(angle, height)
        eyes = torch.stack([around, level, toward] if up == "y" else [toward, around, level], dim=-1) * distance
        up_vector = torch.tensor([0.0, 1.0, 0.0] if up == "y" else [0.0, 0.0, 1.0])
        return cls.look_at(eyes, torch.zeros(3), up_vector, size, size, fov)
