"""One mesh of a whole furnished room, and what its instance ids mean.

Glass of windows shows the sky: it shines (`Assembled.shining`), since daylight falls through it, and depth sensors see nothing
there. So do the shades of lamps that are on.
"""

from dataclasses import dataclass, replace

import numpy as np

from splatsense.corpora.rooms.kitchen import parts
from splatsense.corpora.rooms.layout import Opening
from splatsense.corpora.rooms.pieces import Piece
from splatsense.corpora.rooms.placement import Arrangement
from splatsense.corpora.rooms.shell import CEILING, FLOOR, WALL, Finish, shell_mesh
from splatsense.mesh import Material, Mesh

SKY = np.array([0.86, 0.93, 1.0], np.float32)
GLASS_OPACITY = 0.95  # of a material; below it, in a window or door, it is a pane
GLASS_GREY = 0.82  # colour of window panes that the default catalogue makes opaque


@dataclass(frozen=True)
class Instance:
    """What one instance id is: the role that labels it, the key of its piece, and its row in `Arrangement.placed` or -1."""

    role: str
    key: str
    row: int


@dataclass(frozen=True, eq=False)
class Assembled:
    """A room as one mesh.

    Attributes:
        mesh: of everything, in the room's frame; `face_instances` are rows of `instances`.
        instances: what each id is.
        pane: (F,) bool, faces that are window glass.
    """

    mesh: Mesh
    instances: list[Instance]
    pane: np.ndarray


def assemble(room: Arrangement, finish: Finish) -> Assembled:
    """Joins the shell, doors, windows and all pieces of a room."""
    meshes = [shell_mesh(room.layout, finish)]
    instances = [Instance("floor", "", -1), Instance("ceiling", "", -1), Instance("wall", "", -1)]
    if [FLOOR, CEILING, WALL] != [0, 1, 2]:
        raise AssertionError("instance ids of the shell are rows of `instances`")
    panes = [np.zeros(len(meshes[0].faces), bool)]
    for opening in room.layout.openings:
        mesh, pane = _opening_mesh(room, opening)
        meshes.append(replace(mesh, face_instances=np.full(len(mesh.faces), len(instances), np.int32)))
        panes.append(pane)
        instances.append(Instance(opening.piece.role, opening.piece.key, -1))
    for row, placed in enumerate(room.placed):
        mesh = room.pieces.mesh(placed.piece)
        roles = parts(placed.piece, mesh.vertices[mesh.faces].mean(1))
        names = [placed.piece.role, *sorted(set(roles.tolist()) - {placed.piece.role})]
        of_face = np.select([roles == name for name in names], np.arange(len(names)) + len(instances))
        turned = mesh.vertices.copy()
        turned[:, :2] = mesh.vertices[:, :2].astype(np.float64) @ placed.box.axes + [placed.box.x, placed.box.y]
        turned[:, 2] += placed.box.bottom
        meshes.append(replace(mesh, vertices=turned, face_instances=of_face.astype(np.int32)))
        panes.append(np.zeros(len(mesh.faces), bool))
        instances += [Instance(name, placed.piece.key, row) for name in names]
    return Assembled(_join(meshes), instances, np.concatenate(panes))


def _opening_mesh(room: Arrangement, opening: Opening) -> tuple[Mesh, np.ndarray]:
    """A door or window in its wall, its panes the colour of the sky, and which of its faces are panes."""
    piece: Piece = opening.piece
    wall, mesh = room.layout.walls[opening.wall], room.pieces.mesh(piece)
    x, y = wall.at(opening.along, piece.size[1] / 2 - piece.wall_depth)
    cos, sin = np.cos(wall.yaw), np.sin(wall.yaw)
    turned = mesh.vertices.copy()
    turned[:, :2] = mesh.vertices[:, :2].astype(np.float64) @ np.array([[cos, sin], [-sin, cos]]) + [x, y]
    turned[:, 2] += opening.bottom
    glass = np.array([_is_glass(material, piece) for material in mesh.materials])
    sky = Material(np.append(SKY, 1).astype(np.float32))
    materials = tuple(sky if pane else material for pane, material in zip(glass, mesh.materials, strict=True))
    return replace(mesh, vertices=turned, materials=materials), glass[mesh.face_materials]


def _is_glass(material: Material, piece: Piece) -> bool:
    grey = piece.role != "door" and material.texture is None and bool((abs(material.color[:3] - GLASS_GREY) < 0.01).all())
    return grey or bool(material.color[3] < GLASS_OPACITY)


def _join(meshes: list[Mesh]) -> Mesh:
    vertex_at = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    material_at = np.cumsum([0, *(len(mesh.materials) for mesh in meshes)])
    uvs = [m.corner_uvs if m.corner_uvs is not None else np.zeros((len(m.faces), 3, 2), np.float32) for m in meshes]
    colored = any(mesh.corner_colors is not None for mesh in meshes)
    colors = [m.corner_colors if m.corner_colors is not None else np.ones((len(m.faces), 3, 3), np.float32) for m in meshes]
    return Mesh(
        vertices=np.concatenate([mesh.vertices for mesh in meshes]),
        faces=np.concatenate([mesh.faces + at for mesh, at in zip(meshes, vertex_at[:-1], strict=True)]).astype(np.int32),
        face_materials=np.concatenate(
            [mesh.face_materials + at for mesh, at in zip(meshes, material_at[:-1], strict=True)]
        ).astype(np.int32),
        face_instances=np.concatenate([mesh.face_instances for mesh in meshes]),
        materials=tuple(material for mesh in meshes for material in mesh.materials),
        corner_uvs=np.concatenate(uvs),
        corner_colors=np.concatenate(colors) if colored else None,
    )  # fmt: skip
