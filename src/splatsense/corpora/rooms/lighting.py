"""Light in a room: from the ceiling lamp, from windows, from lamps on tables; with shadows and a bright ambient.

Design
- Shading is deferred: the mesh renderer gives colour, depth and normal of each pixel, and the light that falls there is added
  up from a few point lights and an ambient term that is stronger from above, in linear colours.
- Shadows by shadow maps: the depth that each light sees, drawn by the same renderer. A window is a point in its middle.
- Simple on purpose: no reflections, no light from wall to wall beyond the ambient term.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.corpora.rooms.assemble import Assembled
from splatsense.corpora.rooms.layout import Opening
from splatsense.corpora.rooms.placement import Arrangement
from splatsense.mesh import Mesh
from splatsense.render.mesh import MeshImages, render_mesh

SHADOW_SIZE = 384  # pixels of a shadow map's side
SHADOW_FOV = 140.0  # degrees; what lies outside is lit
SHADOW_BIAS = 0.02  # metres
SHADOW_OFFSET = 1.5 * 2 * math.tan(math.radians(SHADOW_FOV / 2)) / SHADOW_SIZE  # points move so many depths along their normal
LAMP_COLOR, DAY_COLOR = np.array([1.0, 0.86, 0.68]), np.array([0.88, 0.95, 1.0])
MOST_LIGHTS = 4
SOFTEST = 0.35  # square metres added to squared distances, so that nothing near a lamp burns out
LAMP_ROLES = ("pendant_lamp", "ceiling_lamp", "table_lamp", "floor_lamp", "desk_lamp", "wall_lamp")


@dataclass(frozen=True, eq=False)
class Light:
    """A point light that shines into the half space around `direction`; `row` of `Arrangement.placed` glows, -1 for windows."""

    position: np.ndarray
    direction: np.ndarray
    color: np.ndarray
    row: int = -1


@dataclass(frozen=True, eq=False)
class Lit:
    """The lights of a room with their shadow maps.

    Attributes:
        lights: what shines.
        shadows: one camera and depth image per light.
        ambient: (3,) linear light that falls everywhere.
        glow: (F,) linear light that each face of the mesh sends out by itself.
    """

    lights: list[Light]
    shadows: list[tuple[Cameras, Tensor]]
    ambient: np.ndarray
    glow: Tensor


def draw_lights(room: Arrangement, assembled: Assembled, rng: np.random.Generator) -> Lit:
    """Draws which lamps are on and how bright the day is, and looks where their light falls."""
    day = float(rng.uniform(0.5, 1.6)) if rng.random() < 0.8 else 0.02
    lights = [
        Light(_window_position(room, opening), np.array([*room.layout.walls[opening.wall].normal, -0.3]),
              day * 2.2 * DAY_COLOR * math.sqrt(opening.piece.size[0] * opening.piece.size[2]))
        for opening in room.layout.openings if not opening.is_door
    ]  # fmt: skip
    dark = day < 0.1 or not lights
    for row, placed in enumerate(room.placed):
        if placed.piece.role in LAMP_ROLES and rng.random() < (0.95 if dark else 0.45):
            lights.append(_lamp(room, row, rng))
    if not any(light.row < 0 or room.placed[light.row].support == -2 for light in lights):  # never quite dark
        width, depth, height = room.layout.size
        lights.append(Light(np.array([width / 2, depth / 2, height - 0.1]), np.array([0, 0, -1.0]), 3 * LAMP_COLOR))
    lights = sorted(lights, key=lambda light: -float(light.color.sum()))[:MOST_LIGHTS]
    ambient = 0.16 * DAY_COLOR + 0.055 * np.sum([light.color for light in lights], axis=0)
    return Lit(lights, [_shadow_map(light, assembled.mesh) for light in lights], ambient, _glow(assembled, lights, day))


def _window_position(room: Arrangement, opening: Opening) -> np.ndarray:
    x, y = room.layout.walls[opening.wall].at(opening.along, 0.12)
    return np.array([x, y, opening.bottom + 0.6 * opening.piece.size[2]])


def _lamp(room: Arrangement, row: int, rng: np.random.Generator) -> Light:
    placed = room.placed[row]
    box, hangs = placed.box, placed.support == -2
    height = box.bottom - 0.03 if hangs else box.top + 0.04
    strength = 3.2 if hangs else 0.8
    down = np.array([0, 0, -1.0]) if hangs else np.array([0, 0, 1.0])
    color = LAMP_COLOR * (1 + rng.normal(0, 0.04, 3))
    x, y = (box.x, box.y) if placed.piece.role != "wall_lamp" else box.at(0, -box.depth)
    return Light(np.array([x, y, height]), down, strength * float(rng.uniform(0.7, 1.2)) * color, row)


def _glow(assembled: Assembled, lights: list[Light], day: float) -> Tensor:
    glow = np.where(assembled.pane, 0.9 * day + 0.02, 0.0)
    on = {light.row for light in lights if light.row >= 0}
    shining = np.array([instance.row in on for instance in assembled.instances])
    return torch.from_numpy(np.where(shining[assembled.mesh.face_instances], 0.7, glow)).float()


def _shadow_map(light: Light, mesh: Mesh) -> tuple[Cameras, Tensor]:
    eye = torch.from_numpy(light.position).float()[None]
    to = torch.from_numpy(light.direction).float()
    up = torch.tensor([0.0, 1.0, 0.0]) if abs(float(to[2])) > 0.9 * float(to.norm()) else torch.tensor([0.0, 0.0, 1.0])
    camera = Cameras.look_at(eye, eye[0] + to, up, SHADOW_SIZE, SHADOW_SIZE, SHADOW_FOV)
    return camera, render_mesh(mesh, camera, near=0.02).depth[0]


def srgb_to_linear(color: Tensor) -> Tensor:
    """sRGB in [0, 1] to linear light (a power of 2.2)."""
    return color.clamp(min=0) ** 2.2


def light_view(images: MeshImages, view: int, cameras: Cameras, lit: Lit) -> Float[Tensor, "3 h w"]:
    """The linear light that one view's pixels send to the camera; in planes, since that is several times faster than pixels."""
    albedo = srgb_to_linear(images.color[view].permute(2, 0, 1).contiguous())
    normal, face = images.normal[view].permute(2, 0, 1).contiguous(), images.face_id[view]
    points = unproject(images.depth[view], cameras.K[view], cameras.world_to_camera[view])
    ambient = torch.from_numpy(lit.ambient).float()[:, None, None]
    total = ambient * (0.75 + 0.25 * normal[2])
    for light, (camera, seen) in zip(lit.lights, lit.shadows, strict=True):
        to = [float(light.position[k]) - points[k] for k in range(3)]
        square = _dot(to, to)
        away = square.sqrt().clamp(min=1e-3)
        falloff = (_dot(to, normal) / away).clamp(min=0) / (square + SOFTEST)
        shape = (0.35 - 0.65 * _dot(to, (light.direction / np.linalg.norm(light.direction)).tolist()) / away).clamp(min=0.08)
        bright = falloff * shape * _lit_share(points, normal, camera, seen)
        total = total + bright * torch.from_numpy(light.color).float()[:, None, None]
    glow = torch.where(face >= 0, lit.glow[face.clamp(min=0).long()], torch.zeros(()))
    return albedo * (total + glow)


def unproject(
    depth: Float[Tensor, "h w"], K: Float[Tensor, "3 3"], world_to_camera: Float[Tensor, "4 4"]
) -> Float[Tensor, "3 h w"]:
    """World coordinates of the pixels' centres at their depth along z."""
    height, width = depth.shape
    x = (torch.arange(width) + 0.5 - K[0, 2]) / K[0, 0] * depth
    y = ((torch.arange(height) + 0.5 - K[1, 2]) / K[1, 1])[:, None] * depth
    R, t = world_to_camera[:3, :3].tolist(), world_to_camera[:3, 3]
    center = (-world_to_camera[:3, :3].T @ t).tolist()
    return torch.stack([x * R[0][k] + y * R[1][k] + depth * R[2][k] + center[k] for k in range(3)])


def _dot(a: Sequence[Tensor] | Tensor, b: Sequence[Tensor] | Sequence[float] | Tensor) -> Tensor:
    """Dot product of two vectors given by their three parts, planes or numbers."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _lit_share(points: Tensor, normal: Tensor, camera: Cameras, seen: Tensor) -> Tensor:
    """(H, W) how much of a light reaches each point: 0 in shadow, 1 in the light, soft at edges."""
    R, t = camera.world_to_camera[0, :3, :3].tolist(), camera.world_to_camera[0, :3, 3].tolist()
    offset = SHADOW_OFFSET * (_dot(points, R[2]) + t[2]).clamp(min=0.1)
    x, y, z = (_dot(points, R[k]) + t[k] + offset * _dot(normal, R[k]) for k in range(3))
    scale = float(camera.K[0, 0, 0]) / z.clamp(min=1e-3)
    column, row = x * scale + SHADOW_SIZE / 2, y * scale + SHADOW_SIZE / 2
    inside = (z > 0.05) & (column > 1) & (column < SHADOW_SIZE - 2) & (row > 1) & (row < SHADOW_SIZE - 2)
    column, row = column.clamp(1, SHADOW_SIZE - 2), row.clamp(1, SHADOW_SIZE - 2)
    reached, flat = torch.zeros_like(z), seen.flatten()
    limit = (z - SHADOW_BIAS) / 1.01
    for right, down in ((-0.75, -0.75), (0.75, -0.75), (-0.75, 0.75), (0.75, 0.75)):
        nearest = flat[(row + down).long() * SHADOW_SIZE + (column + right).long()]
        reached += (nearest <= 0) | (limit < nearest)
    return torch.where(inside, reached / 4, torch.ones(()))
