"""Light in a room: from the ceiling lamp, from windows, from lamps on tables; with shadows and a bright ambient.

Design
- Shading is deferred: the mesh renderer gives colour, depth and normal of each pixel, and the light that falls there is added
  up from a few point lights and an ambient term that is stronger from above, in linear colours.
- Shadows by shadow maps: the depth that each light sees, drawn by the same renderer. A window is a point in its middle.
- Simple on purpose: no reflections, no light from wall to wall beyond the ambient term.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from splatsense.cameras import Cameras
from splatsense.corpora.rooms.assemble import Assembled
from splatsense.corpora.rooms.placement import Arrangement
from splatsense.mesh import Mesh
from splatsense.render.mesh import MeshImages, render_mesh

SHADOW_SIZE = 384  # pixels of a shadow map's side
SHADOW_FOV = 140.0  # degrees; what lies outside is lit
SHADOW_BIAS = 0.02  # metres
SHADOW_OFFSET = 1.5 * 2 * math.tan(math.radians(SHADOW_FOV / 2)) / SHADOW_SIZE  # points move so many depths along their normal
LAMP_COLOR, DAY_COLOR = np.array([1.0, 0.86, 0.68]), np.array([0.88, 0.95, 1.0])
MOST_LIGHTS = 4
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


def _window_position(room: Arrangement, opening) -> np.ndarray:
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


def linear_to_srgb(light: Tensor) -> Tensor:
    """Linear light to sRGB, unclamped above 1."""
    return light.clamp(min=0) ** (1 / 2.2)


def light_view(images: MeshImages, view: int, cameras: Cameras, lit: Lit) -> Tensor:
    """(H, W, 3) linear light that one view's pixels send to the camera."""
    albedo = srgb_to_linear(images.color[view])
    normal, face = images.normal[view], images.face_id[view]
    points = unproject(images.depth[view], cameras.K[view], cameras.world_to_camera[view])
    ambient = torch.from_numpy(lit.ambient).float()
    total = ambient * (0.75 + 0.25 * normal[..., 2:])
    for light, (camera, seen) in zip(lit.lights, lit.shadows, strict=True):
        to = torch.from_numpy(light.position).float() - points
        square = (to * to).sum(-1)
        cosine = (to * normal).sum(-1) / square.sqrt().clamp(min=1e-3)
        falloff = cosine.clamp(min=0) / (square + 0.35)
        facing = -(to @ torch.from_numpy(light.direction).float()) / square.sqrt().clamp(min=1e-3)
        shape = (0.35 + 0.65 * facing).clamp(min=0.08)
        bright = falloff * shape * _lit_share(points, normal, camera, seen)
        total = total + bright[..., None] * torch.from_numpy(light.color).float()
    glow = torch.where(face >= 0, lit.glow[face.clamp(min=0).long()], torch.zeros(()))
    return albedo * (total + glow[..., None])


def unproject(depth: Tensor, K: Tensor, world_to_camera: Tensor) -> Tensor:
    """(H, W, 3) world coordinates of the pixels' centres at their depth along z."""
    height, width = depth.shape
    x = (torch.arange(width) + 0.5 - K[0, 2]) / K[0, 0]
    y = (torch.arange(height) + 0.5 - K[1, 2]) / K[1, 1]
    inside = torch.stack([x * depth, y[:, None] * depth, depth], -1)
    return (inside - world_to_camera[:3, 3]) @ world_to_camera[:3, :3]


def _lit_share(points: Tensor, normal: Tensor, camera: Cameras, seen: Tensor) -> Tensor:
    """(H, W) how much of a light reaches each point: 0 in shadow, 1 in the light, soft at edges."""
    R, t = camera.world_to_camera[0, :3, :3], camera.world_to_camera[0, :3, 3]
    distance = (points @ R[2] + t[2]).clamp(min=0.1)
    local = (points + normal * (SHADOW_OFFSET * distance[..., None])) @ R.T + t
    z = local[..., 2].clamp(min=1e-3)
    u, v = camera.K[0, 0, 0] * local[..., 0] / z / (SHADOW_SIZE / 2), camera.K[0, 1, 1] * local[..., 1] / z / (SHADOW_SIZE / 2)
    inside = (local[..., 2] > 0.05) & (u.abs() < 1) & (v.abs() < 1)
    total = torch.zeros_like(z)
    step = 1.5 / SHADOW_SIZE
    for du, dv in ((-step, -step), (step, -step), (-step, step), (step, step)):
        nearest = grid_sample(seen[None, None], torch.stack([u + du, v + dv], -1)[None], "nearest", align_corners=False)[0, 0]
        total += ((nearest <= 0) | (z < nearest * 1.01 + SHADOW_BIAS)).float()
    return torch.where(inside, total / 4, torch.ones(()))
