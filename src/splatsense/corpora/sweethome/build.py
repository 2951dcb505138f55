"""A home as one mesh, z up, in metres: walls, floors, ceilings and furniture, each thing an instance with a class.

Design
- A model is centred, turned by its rotation, stretched to the piece's width, depth and height, mirrored, tilted, turned and
  put in its place, as Sweet Home 3D does.
- Pieces without a model, or with one that is no OBJ file or is damaged, become boxes of their size; the log counts them.
- Colours given to a piece replace its materials. Colours of single materials and textures given to a piece are not applied.
- Ceilings hang at the usual height of their level's walls.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

import numpy as np

from splatsense.corpora.furniture import parse_furniture_model
from splatsense.corpora.sweethome.home import Finish, Home, Level, Piece, Room, Texture
from splatsense.corpora.sweethome.polygons import triangulate
from splatsense.corpora.sweethome.walls import opening_of, wall_patches
from splatsense.errors import DataError, LimitError, SplatSenseError
from splatsense.io.mesh import match_name
from splatsense.mesh import Material, Mesh

log = logging.getLogger("splatsense")

WALL, FLOOR, CEILING = (0.93, 0.92, 0.9), (0.75, 0.7, 0.62), (0.96, 0.96, 0.96)
BOX = (0.6, 0.6, 0.6)
DEFAULT_HEIGHT = 2.5
MOST_FACES = 20_000_000
THINNEST = 1e-6  # extent of a model along an axis that is not stretched
Y_UP_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@dataclass(frozen=True)
class Thing:
    """What an instance is: "wall", "floor", "ceiling", or the piece of furniture."""

    kind: str
    piece: Piece | None = None


@dataclass(frozen=True, eq=False)
class HomeFiles:
    """The files that a home brings.

    Attributes:
        where: names the archive in errors.
        names: of all members.
        read: gives the bytes of a member, or raises SplatSenseError.
        read_texture: gives the (H, W, 4) pixels of a member, or raises SplatSenseError.
    """

    where: str
    names: list[str]
    read: Callable[[str], bytes]
    read_texture: Callable[[str], np.ndarray]


@dataclass
class MeshParts:
    """Collects faces, materials and instances."""

    things: list[Thing] = field(default_factory=list)
    _corners: list[np.ndarray] = field(default_factory=list)
    _uvs: list[np.ndarray] = field(default_factory=list)
    _colors: list[np.ndarray] = field(default_factory=list)
    _face_materials: list[np.ndarray] = field(default_factory=list)
    _face_instances: list[np.ndarray] = field(default_factory=list)
    _materials: list[Material] = field(default_factory=list)
    _count: int = 0

    def begin(self, thing: Thing) -> None:
        """What is added from here on belongs to `thing`."""
        self.things.append(thing)

    def add(self, corners: np.ndarray, material: Material, uvs: np.ndarray | None = None) -> None:
        """Faces (F, 3, 3) of one material with texture coordinates (F, 3, 2)."""
        self.add_mesh(corners, np.zeros(len(corners), np.int32), (material,), uvs, None)

    def add_mesh(
        self, corners: np.ndarray, face_materials: np.ndarray, materials: tuple[Material, ...],
        uvs: np.ndarray | None, colors: np.ndarray | None,
    ) -> None:  # fmt: skip
        """Faces (F, 3, 3) of several materials."""
        count = len(corners)
        self._count += count
        if self._count > MOST_FACES:
            raise LimitError(f"the home has over {MOST_FACES} faces; take pieces out of it.")
        self._corners.append(corners.astype(np.float32))
        self._uvs.append(np.zeros((count, 3, 2), np.float32) if uvs is None else uvs.astype(np.float32))
        self._colors.append(np.ones((count, 3, 3), np.float32) if colors is None else colors)
        self._face_materials.append(face_materials + len(self._materials))
        self._face_instances.append(np.full(count, len(self.things) - 1, np.int32))
        self._materials += materials

    def mesh(self) -> Mesh:
        """Everything that was added. Raises DataError when that is nothing."""
        if not self._count:
            raise DataError("nothing in the home can be seen: it has no walls, rooms or furniture.")
        corners = np.concatenate(self._corners)
        return Mesh(
            corners.reshape(-1, 3),
            np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3),
            np.concatenate(self._face_materials).astype(np.int32),
            np.concatenate(self._face_instances),
            tuple(self._materials),
            np.concatenate(self._uvs),
            np.concatenate(self._colors),
        )


def build_home(home: Home, files: HomeFiles) -> tuple[Mesh, list[Thing]]:
    """The mesh of a home, whose `face_instances` are indices into the things that are returned with it.

    Raises:
        DataError: there is nothing to see.
        LimitError: it has too many faces.
    """
    parts = MeshParts()
    textures = _Textures(files)
    openings = [opening_of(piece) for piece in home.pieces if piece.is_door_or_window]
    walls = {wall.id: wall for wall in home.walls}
    for wall in home.walls:
        parts.begin(Thing("wall"))
        finishes = {"left": wall.left, "right": wall.right, "top": wall.top, "end": Finish(wall.left.color)}
        for patch in wall_patches(wall, walls, openings):
            material, texture = textures.material(finishes[patch.side], WALL)
            uvs = None if texture is None else _as_triangles(_texture_places(patch.places, texture))
            parts.add(_as_triangles(patch.quads), material, uvs)
    for room in home.rooms:
        _add_room(parts, room, home, textures)
    models = _Models(files)
    boxes = 0
    for piece in home.pieces:
        parts.begin(Thing("piece", piece))
        mesh = models.mesh(piece.model)
        boxes += mesh is None
        _add_piece(parts, piece, mesh or _box())
    if boxes:
        text = "%s: %d of %d pieces have no OBJ model that can be read; boxes stand for them."
        log.warning(text, files.where, boxes, len(home.pieces))
    return parts.mesh(), parts.things


def ceiling_height(level: Level, home: Home) -> float:
    """Elevation of the ceilings of a level: that of half of its walls, or else the level's own height."""
    tops = [max(wall.heights) for wall in home.walls if wall.level == level]
    return level.elevation + (float(np.median(tops)) if tops else level.height or DEFAULT_HEIGHT)


def _add_room(parts: MeshParts, room: Room, home: Home, textures: "_Textures") -> None:
    try:
        triangles = room.points[triangulate(room.points)]
    except DataError:
        return  # a room of no area has no floor to see
    for kind, finish, height, default in (
        ("floor", room.floor, room.level.elevation, FLOOR),
        ("ceiling", room.ceiling, ceiling_height(room.level, home), CEILING),
    ):
        if finish is None:
            continue
        flat = triangles if kind == "floor" else triangles[:, ::-1]
        corners = np.concatenate([flat, np.full((*flat.shape[:2], 1), height)], axis=2)
        material, texture = textures.material(finish, default)
        parts.begin(Thing(kind))
        parts.add(corners, material, None if texture is None else _texture_places(flat, texture))


def _add_piece(parts: MeshParts, piece: Piece, mesh: Mesh) -> None:
    corners = place_model(mesh.vertices.astype(np.float64), piece)[mesh.faces]
    if piece.mirrored:
        corners = corners[:, ::-1]
    uvs, colors = (
        None if values is None else (values[:, ::-1] if piece.mirrored else values)
        for values in (mesh.corner_uvs, mesh.corner_colors)
    )
    materials = mesh.materials
    if piece.color is not None:
        materials = tuple(Material(np.array([*piece.color, m.color[3]], np.float32)) for m in materials)
        colors = None
    parts.add_mesh(corners, mesh.face_materials, materials, uvs, colors)


def place_model(vertices: np.ndarray, piece: Piece) -> np.ndarray:
    """(N, 3) vertices of a model (y up, facing z) where the piece stands, z up."""
    width, depth, height = piece.size
    rotated = _centered(vertices) @ piece.rotation.T
    if piece.centered:
        rotated = _centered(rotated)
    extent = np.maximum(rotated.max(0) - rotated.min(0), THINNEST)
    fitted = rotated / extent * [-width if piece.mirrored else width, height, depth]
    if piece.pitch or piece.roll:
        fitted = _centered(fitted @ (_turn(2, -piece.roll) @ _turn(0, -piece.pitch)).T)
        height = float(fitted[:, 1].max() - fitted[:, 1].min())
    upright = fitted @ Y_UP_TO_Z_UP.T @ _turn(2, piece.angle).T
    return upright + np.array([*piece.center, piece.level.elevation + piece.bottom + height / 2])


def _centered(vertices: np.ndarray) -> np.ndarray:
    return vertices - (vertices.min(0) + vertices.max(0)) / 2


def _turn(axis: int, angle: float) -> np.ndarray:
    """(3, 3) rotation about a coordinate axis."""
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[first, first] = matrix[second, second] = cos
    matrix[second, first], matrix[first, second] = sin, -sin
    return matrix


def _as_triangles(quads: np.ndarray) -> np.ndarray:
    """(2 Q, 3, ...) halves of quads (Q, 4, ...)."""
    return quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3, quads.shape[-1])


def _texture_places(places: np.ndarray, texture: Texture) -> np.ndarray:
    """Texture coordinates of places in metres."""
    cos, sin = math.cos(texture.angle), math.sin(texture.angle)
    turned = places @ np.array([[cos, -sin], [sin, cos]])
    return turned / [texture.width, texture.height]


def _box() -> Mesh:
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
    quads = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])
    faces = quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3).astype(np.int32)
    zeros = np.zeros(len(faces), np.int32)
    return Mesh(corners, faces, zeros, zeros, (Material(np.array([*BOX, 1], np.float32)),))


class _Textures:
    """Materials of finishes; a texture that cannot be read leaves the colour, and the log says so once."""

    def __init__(self, files: HomeFiles) -> None:
        self._files = files
        self._pixels: dict[str, np.ndarray | None] = {}

    def material(self, finish: Finish, default: tuple[float, float, float]) -> tuple[Material, Texture | None]:
        texture = finish.texture
        pixels = None if texture is None else self._read(texture.image)
        if pixels is not None:
            return Material(np.ones(4, np.float32), pixels), texture
        return Material(np.array([*(finish.color or default), 1], np.float32)), None

    def _read(self, name: str) -> np.ndarray | None:
        if name not in self._pixels:
            try:
                self._pixels[name] = self._files.read_texture(unquote(name))
            except SplatSenseError as error:
                log.warning("%s; a plain colour serves.", error)
                self._pixels[name] = None
        return self._pixels[name]


class _Models:
    """Meshes of the models of a home, each parsed once; None for those that cannot be read."""

    def __init__(self, files: HomeFiles) -> None:
        self._files = files
        self._meshes: dict[str, Mesh | None] = {"": None}

    def mesh(self, name: str) -> Mesh | None:
        if name not in self._meshes:
            try:
                self._meshes[name] = self._parse(unquote(name))
            except SplatSenseError as error:
                log.info("%s; a box stands for it.", error)
                self._meshes[name] = None
        return self._meshes[name]

    def _parse(self, name: str) -> Mesh:
        folder = name.rpartition("/")[0]
        prefix = f"{folder}/"
        siblings = [other.removeprefix(prefix) for other in self._files.names if folder and other.startswith(prefix)]

        def read_beside(file: str) -> bytes:
            found = match_name(file, siblings)
            if found is None:
                raise FileNotFoundError(file)
            return self._files.read(prefix + found)

        data = self._files.read(name)
        mesh = parse_furniture_model(data, read_beside, f"{self._files.where}!/{name}")
        return replace(mesh, face_instances=np.zeros(len(mesh.faces), np.int32))
