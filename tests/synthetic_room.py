"""A closed, coloured box seen from inside: a room whose every depth and colour is known. Scene readers are tested with it."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch

from splatsense.cameras import Cameras
from splatsense.mesh import Material, Mesh
from splatsense.render.mesh import MeshImages, render_mesh

ROOM = np.array([3.0, 2.0, 2.5])
CORNER = np.array([-0.013, 0.017, 0.021])  # walls within voxels, not on their sides
COLORS = np.array([[0.2 + 0.1 * i, 0.5, 0.9 - 0.1 * i] for i in range(6)])


def box() -> Mesh:
    """A closed box; face pairs 0 to 5 are x=0, x=1, y=0, y=1, z=0, z=1 and instances of their own."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * ROOM + CORNER
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([[(a, b, c), (a, c, d)] for a, b, c, d in quads]).reshape(-1, 3)
    sides = np.repeat(np.arange(6), 2).astype(np.int32)
    materials = tuple(Material(np.append(color, 1).astype(np.float32)) for color in COLORS)
    return Mesh(corners.astype(np.float32), faces.astype(np.int32), sides, sides, materials)


@dataclass
class InMemory:
    """Frames that are not in files."""

    cameras: Cameras
    color: np.ndarray
    depth: np.ndarray

    def frame(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.color[index], self.depth[index]

    @property
    def color_bytes(self) -> np.ndarray:
        return (self.color * 255).round().astype(np.uint8)

    @property
    def camera_to_world(self) -> np.ndarray:
        return np.linalg.inv(self.cameras.world_to_camera.double().numpy())


@functools.cache
def room_frames(views: int = 8, width: int = 96, height: int = 72, fov: float = 70) -> tuple[InMemory, MeshImages]:
    angles = torch.arange(views) * (2 * math.pi / views)
    eyes = torch.tensor([1.5, 1.0, 1.3]) + 0.3 * torch.stack([angles.cos(), angles.sin(), 0 * angles], 1)
    targets = eyes + torch.stack([angles.cos(), angles.sin(), 0.6 * torch.sin(3 * angles)], 1)
    cameras = Cameras.look_at(eyes, targets, torch.tensor([0.0, 0.0, 1.0]), width, height, fov)
    images = render_mesh(box(), cameras)
    return InMemory(cameras, images.color.numpy(), images.depth.numpy()), images


def side_of(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest wall of each point, and its sorted distances to all six."""
    low, high = points - CORNER, CORNER + ROOM - points
    distances = np.abs(np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1], low[:, 2], high[:, 2]], axis=1))
    return distances.argmin(1), np.sort(distances, axis=1)
