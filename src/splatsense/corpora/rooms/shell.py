"""The mesh of an empty room: floor, ceiling, walls with holes for doors and windows, skirting boards.

Texture coordinates are metres divided by the size of the photograph, so nothing is stretched.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from splatsense.corpora.rooms.layout import Layout, Opening
from splatsense.corpora.rooms.priors import KINDS, WALL_COLORS
from splatsense.corpora.rooms.textures import Texture
from splatsense.mesh import Material, Mesh

FLOOR, CEILING, WALL = 0, 1, 2
"""Instance ids of the shell; pieces follow from 3 on."""
REVEAL = 0.35  # metres that the sides of an opening go into the wall
SKIRTING = (0.08, 0.012)  # height and thickness in metres
PHOTO_WALLS = 0.3  # probability of a photograph rather than paint on the walls


@dataclass(frozen=True)
class Finish:
    """Materials of the floor, the ceiling, the walls and the skirting boards, with the size in metres each texture shows."""

    materials: tuple[Material, Material, Material, Material]
    sizes: tuple[tuple[float, float], ...]
    names: dict[str, str]


def draw_finish(layout: Layout, textures: list[Texture], rng: np.random.Generator) -> Finish:
    """Draws what floor and walls look like."""
    prior = KINDS[layout.kind]
    wood = rng.random() >= prior.tiles
    floors = [t for t in textures if t.use == "floor" and t.is_wood == wood] or [t for t in textures if t.use == "floor"]
    walls = [t for t in textures if t.use == "wall"]
    floor = floors[int(rng.integers(len(floors)))] if floors else None
    photo = rng.random() < (PHOTO_WALLS if layout.kind != "bathroom" else 0.8)
    wall = walls[int(rng.integers(len(walls)))] if walls and photo else None
    paint = np.clip(np.array(WALL_COLORS[int(rng.integers(len(WALL_COLORS)))]) / 255 + rng.normal(0, 0.015, 3), 0, 1)
    plain_floor = np.array([0.62, 0.46, 0.3] if wood else [0.7, 0.68, 0.64]) * rng.uniform(0.7, 1.1)
    ceiling = np.full(3, rng.uniform(0.88, 0.96))
    skirting = np.full(3, 0.92) if rng.random() < 0.6 else np.array([0.45, 0.3, 0.18])
    materials = (
        _textured(floor, rng) if floor else _plain(plain_floor), _plain(ceiling),
        _textured(wall, rng) if wall else _plain(paint), _plain(skirting),
    )  # fmt: skip
    sizes = (floor.size if floor else (1.0, 1.0), (1.0, 1.0), wall.size if wall else (1.0, 1.0), (1.0, 1.0))
    names = {"floor": floor.name if floor else "plain", "wall": wall.name if wall else "painted"}
    return Finish(materials, sizes, names)


def _plain(color: np.ndarray) -> Material:
    return Material(np.append(np.clip(color, 0, 1), 1).astype(np.float32))


def _textured(texture: Texture, rng: np.random.Generator) -> Material:
    tint = np.clip(rng.uniform(0.85, 1.0) * (1 + rng.normal(0, 0.02, 3)), 0, 1)
    return Material(np.append(tint, 1).astype(np.float32), texture.image)


def shell_mesh(layout: Layout, finish: Finish) -> Mesh:
    """The mesh of an empty room; `face_instances` are FLOOR, CEILING and WALL."""
    quads: list[tuple[np.ndarray, int, int, np.ndarray]] = []  # corners (4, 3), material, instance, uv in metres (4, 2)
    for x0, y0, x1, y1 in layout.rectangles:
        flat = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        quads.append((np.column_stack([flat, np.zeros(4)]), 0, FLOOR, flat))
        quads.append((np.column_stack([flat, np.full(4, layout.size[2])]), 1, CEILING, flat))
    for index in range(len(layout.walls)):
        quads += _wall_quads(layout, index)
    corners = np.stack([quad[0] for quad in quads])
    materials = np.repeat([quad[1] for quad in quads], 2)
    instances = np.repeat([quad[2] for quad in quads], 2)
    uv = np.stack([quad[3] / finish.sizes[quad[1]] for quad in quads])
    faces = (4 * np.arange(len(quads))[:, None, None] + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    return Mesh(
        corners.reshape(-1, 3).astype(np.float32), faces.astype(np.int32), materials.astype(np.int32),
        instances.astype(np.int32), finish.materials, uv.reshape(-1, 2)[faces].astype(np.float32),
    )  # fmt: skip


def _wall_quads(layout: Layout, index: int) -> list[tuple[np.ndarray, int, int, np.ndarray]]:
    wall, height = layout.walls[index], layout.size[2]
    openings = [opening for opening in layout.openings if opening.wall == index]
    cuts = sorted({0.0, wall.length, *(edge for x in openings for edge in _extent(x, height)[:2])})
    levels = sorted({0.0, height, *(edge for x in openings for edge in _extent(x, height)[2:])})
    quads = []
    for a0, a1 in pairwise(cuts):
        for z0, z1 in pairwise(levels):
            if not any(_inside(x, (a0 + a1) / 2, (z0 + z1) / 2, height) for x in openings):
                quads.append(_upright(layout, index, (a0, 0.0), (a1, 0.0), z0, z1, 2))
        if not any(_inside(x, (a0 + a1) / 2, 0.01, height) for x in openings):
            thick = SKIRTING[1]
            quads.append(_upright(layout, index, (a0, thick), (a1, thick), 0.0, SKIRTING[0], 3))
            flat = [wall.at(a, inwards) for a, inwards in ((a0, 0.0), (a1, 0.0), (a1, thick), (a0, thick))]
            quads.append((np.column_stack([flat, np.full(4, SKIRTING[0])]), 3, WALL, np.zeros((4, 2))))
    for opening in openings:
        a0, a1, z0, z1 = _extent(opening, height)
        quads += [_upright(layout, index, (a, -REVEAL), (a, 0.0), z0, z1, 3) for a in (a0, a1)]
        for z in (z0, z1):
            flat = [wall.at(a, inwards) for a, inwards in ((a0, 0.0), (a1, 0.0), (a1, -REVEAL), (a0, -REVEAL))]
            quads.append((np.column_stack([flat, np.full(4, z)]), 3, WALL, np.zeros((4, 2))))
    return quads


def _upright(
    layout: Layout, index: int, start: tuple[float, float], end: tuple[float, float], z0: float, z1: float, material: int
) -> tuple[np.ndarray, int, int, np.ndarray]:
    """A vertical quad between two points given along and inwards of a wall."""
    (x0, y0), (x1, y1) = layout.walls[index].at(*start), layout.walls[index].at(*end)
    corners = np.array([[x0, y0, z0], [x1, y1, z0], [x1, y1, z1], [x0, y0, z1]])
    a0, a1 = start[0] - start[1], end[0] - end[1]
    return corners, material, WALL, np.array([[a0, z0], [a1, z0], [a1, z1], [a0, z1]])


def _extent(opening: Opening, height: float) -> tuple[float, float, float, float]:
    width, _, tall = opening.piece.size
    return opening.along - width / 2, opening.along + width / 2, opening.bottom, min(opening.bottom + tall, height)


def _inside(opening: Opening, along: float, z: float, height: float) -> bool:
    a0, a1, z0, z1 = _extent(opening, height)
    return a0 < along < a1 and z0 < z < z1
