"""Which way up assets are shown: objects with y up, as they are; rooms with the axis up that their floor shows.

Design
- Most files do not say which axis is up. Objects have y up here, and no shape tells a table from a cupboard on its side.
- A scan of a room often has z up. It is told by what objects do not have together: at least `SCENE_GAUSSIANS` Gaussians, the
  size of a room in metres (or cm, mm), a floor that is seen, and things that stand on it. `segment` looks for the same floor.
- Whoever knows better says so: `splatsense add --up`, `render --up`.
- Pictures turn their cameras, so no spherical harmonics have to be rotated.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.gaussians import Gaussians
from splatsense.geometry.upright import AXES, Axis, detect_up, is_room

SCENE_GAUSSIANS = 20_000
"""An asset of this many may be a scene."""
LOOKED_AT = 100_000  # Gaussians
ESTIMATED = 20_000  # points whose normals are estimated, where the Gaussians are balls and show none


def room_up(gaussians: Gaussians, least: int = SCENE_GAUSSIANS) -> Axis | None:
    """The axis that points up in a room; None for what is no room, to be shown with y up.

    Args:
        gaussians: in the file's own axes and units.
        least: assets of fewer Gaussians are objects.
    """
    from splatsense.geometry.normals import normals_towards_middle
    from splatsense.segmentation.scan import LEAST_OPACITY, UNITS, points_of_gaussians, unit_by_size

    if len(gaussians) < least:
        return None
    some = gaussians[:: -(-len(gaussians) // LOOKED_AT)]
    if not bool((some.opacities >= LEAST_OPACITY).any()):
        return None
    cloud = points_of_gaussians(some)
    coord, normal = cloud.points, cloud.normals
    if normal is None:
        coord = coord[:: -(-len(coord) // ESTIMATED)]
        normal = normals_towards_middle(coord)
    up = detect_up(coord, normal, usual="y")
    return up if is_room(coord * UNITS[unit_by_size(coord)], normal, up) else None


def turn_to_y(up: Axis) -> Float[Tensor, "3 3"]:
    """The rotation by quarter turns that brings the axis that points up to y."""
    axis, sign = AXES[up]
    turn = torch.zeros(3, 3)
    turn[1, axis] = sign
    turn[2, (axis + 1) % 3] = sign
    turn[0, (axis + 2) % 3] = 1
    return turn


def stood_up(gaussians: Gaussians, up: Axis | None) -> Gaussians:
    """The asset with y up, where `up` points up in its file; None if nobody said so: as it is."""
    return gaussians if up in (None, "y") else gaussians.transform(rotation=turn_to_y(up))


def orbit(up: Axis, views: int, size: int, elevation: float, azimuth: float, fov: float = 35.0) -> Cameras:
    """`Cameras.orbit` with any axis up."""
    if up in ("y", "z"):
        return Cameras.orbit(views, size, elevation, azimuth, fov, up=up)
    cameras = Cameras.orbit(views, size, elevation, azimuth, fov)
    world_to_camera = cameras.world_to_camera.clone()
    world_to_camera[:, :3, :3] = world_to_camera[:, :3, :3] @ turn_to_y(up)
    return Cameras(world_to_camera, cameras.K, size, size)
