"""Things no library has, or only one split has, built from numbers: pictures, mirrors, rugs, curtains, a bathtub, a bin.

They belong to no split: what they look like is drawn anew for every room. Each function returns a `Piece` whose mesh is in
the piece's frame (see `pieces`).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter

from splatsense.corpora.rooms.pieces import Piece
from splatsense.mesh import Material, Mesh

LICENCE = "Apache-2.0"
WHITE = (0.93, 0.93, 0.92)


def picture(rng: np.random.Generator, width: float, height: float) -> Piece:
    """A framed picture: soft patches of a few colours."""
    image, frame = _painting(rng), rng.choice([(0.1, 0.09, 0.08), (0.45, 0.3, 0.17), (0.85, 0.84, 0.8), (0.7, 0.58, 0.3)])
    return _piece("picture", "Picture", rng, (width, 0.025, height), partial(_framed, width, height, frame, image))


def mirror(rng: np.random.Generator, width: float, height: float) -> Piece:
    """A mirror; it shows a grey gleam, since the renderer knows no reflections."""
    gleam = np.linspace(0.62, 0.82, 32)[:, None, None] * np.array([0.97, 1.0, 1.0])
    image = np.repeat((255 * gleam).astype(np.uint8), 32, axis=1)
    return _piece("mirror", "Mirror", rng, (width, 0.025, height), partial(_framed, width, height, (0.75, 0.75, 0.76), image))


def rug(rng: np.random.Generator, width: float, depth: float) -> Piece:
    """A woven rug with borders, 1 cm thick."""
    return _piece("rug", "Rug", rng, (width, depth, 0.01), partial(_slab, width, depth, 0.01, _weave(rng, width, depth)))


def bath_mat(rng: np.random.Generator) -> Piece:
    """A mat of one colour."""
    image = np.full((8, 8, 3), rng.integers(90, 245, 3), np.uint8)
    return _piece("bath_mat", "Bath mat", rng, (0.75, 0.5, 0.015), partial(_slab, 0.75, 0.5, 0.015, image))


def cloth_color(rng: np.random.Generator) -> np.ndarray:
    """(3,) sRGB of a curtain."""
    return np.clip(rng.uniform(0.35, 0.9) + 0.12 * rng.standard_normal(3), 0.1, 1)


def curtain(rng: np.random.Generator, width: float, height: float, color: np.ndarray, role: str = "curtain") -> Piece:
    """A hanging cloth with folds."""
    name = "Shower curtain" if role == "shower_curtain" else "Curtain"
    folds = max(3, round(width / 0.14))
    return _piece(role, name, rng, (width, 0.07, height), partial(_cloth, width, 0.07, height, folds, color))


def counter_top(rng: np.random.Generator, width: float, depth: float) -> Piece:
    """A plate of 3 cm that joins kitchen cabinets."""
    shades = [(0.25, 0.25, 0.27), (0.6, 0.45, 0.3), (0.75, 0.73, 0.7), (0.4, 0.33, 0.27)]
    base = np.array(shades[int(rng.integers(len(shades)))])
    image = np.clip(255 * (base + 0.05 * rng.standard_normal((64, 64, 1))), 0, 255).astype(np.uint8)
    return _piece("counter", "Counter", rng, (width, depth, 0.03), partial(_slab, width, depth, 0.03, image))


def bathtub(rng: np.random.Generator) -> Piece:
    """A rectangular tub."""
    size = (float(rng.uniform(1.55, 1.75)), float(rng.uniform(0.7, 0.8)), float(rng.uniform(0.52, 0.6)))
    return _piece("bathtub", "Bathtub", rng, size, partial(_tub, size))


def trash_bin(rng: np.random.Generator) -> Piece:
    """A round bin, open at the top."""
    radius, height, color = float(rng.uniform(0.12, 0.16)), float(rng.uniform(0.26, 0.38)), 0.15 + 0.7 * rng.random(3)
    return _piece("trash_bin", "Bin", rng, (2 * radius, 2 * radius, height), partial(_bin, radius, height, color))


def _piece(role: str, name: str, rng: np.random.Generator, size: tuple[float, float, float], load: Callable[[], Mesh]) -> Piece:
    key = f"procedural_{role}_{int(rng.integers(2**40)):010x}"
    return Piece(key, name, role, size, load, surface=size[2], wall_depth=size[1], licence=LICENCE)


def _mesh(vertices: np.ndarray, faces: np.ndarray, materials: list[Material], of_face: np.ndarray, uvs: np.ndarray) -> Mesh:
    return Mesh(
        vertices.astype(np.float32), faces.astype(np.int32), of_face.astype(np.int32), np.zeros(len(faces), np.int32),
        tuple(materials), uvs.astype(np.float32),
    )  # fmt: skip


def _plain(color: object) -> Material:
    return Material(np.append(np.asarray(color, np.float32), 1).astype(np.float32))


def _textured(image: np.ndarray) -> Material:
    opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
    return Material(np.ones(4, np.float32), np.ascontiguousarray(np.concatenate([image, opaque], -1)))


def _box(size: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a box on its base; the faces come in pairs: bottom, top, front, right, back, left."""
    half = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0], [-1, -1, 2], [1, -1, 2], [1, 1, 2], [-1, 1, 2]]) / 2
    quads = [(0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
    faces = [corner for a, b, c, d in quads for corner in ((a, b, c), (a, c, d))]
    return half * np.array(size), np.array(faces)


QUAD_UV = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]], np.float32)


def _framed(width: float, height: float, frame: object, image: np.ndarray) -> Mesh:
    """A box with an image on its front, inside a border of 3 cm."""
    vertices, faces = _box((width, 0.025, height))
    x, z, border = width / 2 - 0.03, height - 0.03, 0.03
    panel = np.array([[-x, -0.0135, border], [x, -0.0135, border], [x, -0.0135, z], [-x, -0.0135, z]])
    faces = np.concatenate([faces, [[8, 9, 10], [8, 10, 11]]])
    uvs = np.concatenate([np.zeros((12, 3, 2)), QUAD_UV])
    of_face = np.repeat([0, 1], [12, 2])
    return _mesh(np.concatenate([vertices, panel]), faces, [_plain(frame), _textured(image)], of_face, uvs)


def _slab(width: float, depth: float, height: float, image: np.ndarray) -> Mesh:
    """A box with an image on its top; its sides have the image's mean colour."""
    vertices, faces = _box((width, depth, height))
    uvs = np.zeros((12, 3, 2))
    uvs[2:4] = QUAD_UV
    of_face = np.zeros(12)
    of_face[2:4] = 1
    return _mesh(vertices, faces, [_plain(image.mean((0, 1)) / 255), _textured(image)], of_face, uvs)


def _painting(rng: np.random.Generator) -> np.ndarray:
    """Soft fields of a muted palette, half of the time with a horizon."""
    grey = rng.random((4, 1))
    palette = 255 * (grey + rng.uniform(0.1, 0.45) * (rng.random((4, 3)) - grey))
    fields = np.stack([gaussian_filter(rng.standard_normal((48, 64)), float(rng.uniform(3, 9))) for _ in palette])
    fields /= fields.std((1, 2), keepdims=True)
    if rng.random() < 0.5:
        above = np.arange(48)[:, None] < rng.uniform(15, 33)
        fields += np.where(above, 2.0, -2.0) * np.array([1, 1, -1, -1])[:, None, None]
    share = np.exp(3 * fields)
    mixed = np.einsum("khw,kc->hwc", share / share.sum(0), palette)
    return np.clip(mixed + 6 * rng.standard_normal(mixed.shape), 0, 255).astype(np.uint8)


def _weave(rng: np.random.Generator, width: float, depth: float) -> np.ndarray:
    base, border, accent = np.clip(rng.uniform(50, 210, (3, 1)) + 30 * rng.standard_normal((3, 3)), 20, 240)
    rows, columns = round(64 * depth), round(64 * width)
    from_edge = np.minimum.outer(np.minimum(np.arange(rows), np.arange(rows)[::-1]),
                                 np.minimum(np.arange(columns), np.arange(columns)[::-1]))  # fmt: skip
    image = np.where((from_edge < 7)[..., None], border, base)
    image = np.where(((from_edge >= 9) & (from_edge < 11))[..., None], accent, image)
    period = int(rng.integers(10, 24))
    y, x = np.mgrid[:rows, :columns]
    diamond = (abs(x % period - period // 2) + abs(y % period - period // 2)) < period // 4
    if rng.random() < 0.6:
        image = np.where((diamond & (from_edge >= 13))[..., None], accent, image)
    return np.clip(image + 10 * rng.standard_normal((rows, columns, 1)), 0, 255).astype(np.uint8)


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    """Faces of a grid of rows x columns vertices in row-major order."""
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    b, c, d = a + 1, a + columns + 1, a + columns
    return np.stack([np.stack([a, b, c], 1), np.stack([a, c, d], 1)], 1).reshape(-1, 3)


def _cloth(width: float, depth: float, height: float, folds: int, color: np.ndarray) -> Mesh:
    columns = 8 * folds + 1
    across = np.linspace(0, 1, columns)
    wave = depth / 2 * np.sin(2 * np.pi * folds * across)
    levels = np.array([0.0, 0.35, 0.7, 1.0])
    x = np.broadcast_to((across - 0.5) * width, (4, columns))
    y = wave * np.array([1.0, 0.95, 0.85, 0.6])[:, None]
    z = np.broadcast_to((levels * height)[:, None], (4, columns))
    faces = _grid_faces(4, columns)
    return _mesh(np.stack([x, y, z], -1).reshape(-1, 3), faces, [_plain(color)], np.zeros(len(faces)),
                 np.zeros((len(faces), 3, 2)))  # fmt: skip


def _tub(size: tuple[float, float, float]) -> Mesh:
    """A box whose top is a grid that dips inside a rim."""
    width, depth, height = size
    rows, columns = 17, 29
    u, v = np.linspace(-1, 1, columns), np.linspace(-1, 1, rows)
    inside = np.clip((1 - np.maximum.outer(abs(v) ** 4 / 0.85**4, abs(u) ** 4 / 0.92**4)) / 0.45, 0, 1)
    z = height - 0.4 * inside * (2 - inside)
    top = np.stack([*np.meshgrid(u * width / 2, v * depth / 2), z], -1).reshape(-1, 3)
    vertices, faces = _box((width, depth, height))
    faces = np.concatenate([np.delete(faces, [2, 3], axis=0), _grid_faces(rows, columns) + len(vertices)])
    return _mesh(np.concatenate([vertices, top]), faces, [_plain(WHITE)], np.zeros(len(faces)), np.zeros((len(faces), 3, 2)))


def _bin(radius: float, height: float, color: np.ndarray) -> Mesh:
    angle = np.linspace(0, 2 * np.pi, 25)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    levels = [(0.85 * radius, 0.0), (radius, height), (0.95 * radius, height), (0.8 * radius, 0.02), (0.0, 0.02)]
    vertices = np.concatenate([np.column_stack([r * ring, np.full(25, z)]) for r, z in levels])
    faces = _grid_faces(len(levels), 25)
    return _mesh(vertices, faces, [_plain(color)], np.zeros(len(faces)), np.zeros((len(faces), 3, 2)))
