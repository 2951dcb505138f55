"""The furniture that rooms are made of: which models, in which role, at their real size, the right way round.

Design
- `pieces.csv` is ours: the models of the furniture corpus that belong indoors, each with the role it plays in a room, checked
  by eye. A model's split and licence are those of the furniture corpus.
- A piece's frame: x to its right, y to its back, z up, metres, the centre of its footprint at the origin, its base at z = 0.
  Catalogue models are y up with their front at +z; they are turned by the catalogue's `modelRotation` and then stretched to
  the catalogue's size, as Sweet Home 3D does.
- Glass is drawn solid, in its material's colour: the mesh renderer cuts out what is transparent, and a table without its top
  would carry nothing. `assemble` sees to the panes of doors and windows.
"""

import csv
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources

import numpy as np
import torch
from scipy.ndimage import maximum_filter, minimum_filter

from splatsense.cameras import Cameras
from splatsense.corpora import CorpusObject
from splatsense.errors import DataError, FormatError
from splatsense.log_messages import logged
from splatsense.mesh import Material, Mesh
from splatsense.render.mesh import render_mesh

CACHED_MESHES = 160  # parsed models a process keeps; most rooms share theirs
MODEL_TO_PIECE = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float64)
CM = 0.01
HAS_PANES = ("door", "window", "french_window")
TOP_CELL = 0.02  # metres, of height maps
FLAT = 0.015  # metres by which a surface may vary under something that stands on it
FAR_ABOVE = 200.0  # metres from which height maps are taken, so that rays are as good as parallel


@dataclass(frozen=True)
class Piece:
    """One thing that can stand in a room.

    Attributes:
        key: unique name: that of the furniture corpus, or "procedural_" and more.
        name: what it is called.
        role: what it does in a room; a row of `priors.LABELS`.
        size: width, depth, height in metres.
        load: reads or builds its mesh, in the piece's frame.
        elevation: metres between the floor and its base where its catalogue hangs it.
        surface: height of the surface its catalogue has things stand on.
        wall_depth: metres from its back to the inner face of the wall it is set into; its depth if it is not.
        licence: SPDX-like name.
        creator: who made it, or "".
    """

    key: str
    name: str
    role: str
    size: tuple[float, float, float]
    load: Callable[[], Mesh] = field(repr=False, compare=False)
    elevation: float = 0.0
    surface: float = 0.0
    wall_depth: float = 0.0
    licence: str = ""
    creator: str = ""


class Pieces:
    """The pieces that rooms of one split may be made of; keeps the meshes it has read.

    Attributes:
        split: "train" or "test".
        by_role: role -> pieces, sorted by key.
    """

    def __init__(self, corpus: Sequence[CorpusObject], split: str) -> None:
        """Takes the usable models of one split of the furniture corpus.

        Raises:
            FormatError: the corpus holds none of them.
        """
        roles = _role_table()
        found = [_piece(item, roles[item.key]) for item in corpus if item.key in roles and item.split == split]
        if not found:
            raise FormatError(f"the furniture corpus holds no {split} piece for rooms; pass a folder with all five libraries.")
        self.split = split
        self.by_role: dict[str, list[Piece]] = {}
        for piece in sorted(found, key=lambda piece: piece.key):
            self.by_role.setdefault(piece.role, []).append(piece)
        self._meshes: OrderedDict[str, Mesh] = OrderedDict()
        self._tops: dict[str, np.ndarray] = {}
        self._seen: set[str] = set()

    def mesh(self, piece: Piece) -> Mesh:
        """The mesh of a piece in its own frame, kept for a while; what the log says of it is said when it is first read."""
        if piece.key not in self._meshes:
            if len(self._meshes) >= CACHED_MESHES:
                self._meshes.popitem(last=False)
            with logged() if piece.key in self._seen else nullcontext():
                self._meshes[piece.key] = piece.load()
            self._seen.add(piece.key)
        self._meshes.move_to_end(piece.key)
        return self._meshes[piece.key]

    def top(self, piece: Piece) -> np.ndarray:
        """(rows, columns) highest z above each `TOP_CELL` of its footprint, from its front left; NaN where there is nothing."""
        if piece.key not in self._tops:
            self._tops[piece.key] = height_map(self.mesh(piece), piece.size)
        return self._tops[piece.key]


def height_map(mesh: Mesh, size: tuple[float, float, float]) -> np.ndarray:
    """Heights of a mesh in a piece's frame seen from straight above, as `Pieces.top` has them."""
    columns, rows = (max(1, round(side / TOP_CELL)) for side in size[:2])
    world_to_camera = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, FAR_ABOVE], [0, 0, 0, 1]])[None]
    focal_x, focal_y = (count * FAR_ABOVE / side for count, side in ((columns, size[0]), (rows, size[1])))
    K = torch.tensor([[focal_x, 0, columns / 2], [0, focal_y, rows / 2], [0, 0, 1]])[None]
    images = render_mesh(mesh, Cameras(world_to_camera, K, columns, rows), near=1.0)
    height = FAR_ABOVE - images.depth[0].numpy().astype(np.float64)
    return np.where(images.depth[0].numpy() > 0, height, np.nan)[::-1]


def standing_places(top: np.ndarray, width: float, depth: float) -> np.ndarray:
    """(rows, columns) height at which something of that footprint would stand, centred on each cell; NaN where it would not."""
    known = ~np.isnan(top)
    shape = tuple(min(max(1, round(side / TOP_CELL)) | 1, 2 * count - 1)
                  for side, count in zip((depth, width), top.shape, strict=True))  # fmt: skip
    low = minimum_filter(np.where(known, top, -1.0), shape, mode="constant", cval=-1.0)
    high = maximum_filter(np.where(known, top, -1.0), shape, mode="constant", cval=-1.0)
    return np.where((low > 0.1) & (high - low <= FLAT), high, np.nan)


def _role_table() -> dict[str, str]:
    text = resources.files("splatsense.corpora.rooms").joinpath("pieces.csv").read_text("utf-8")
    return {row["key"]: row["role"] for row in csv.DictReader(text.splitlines())}


def _piece(item: CorpusObject, role: str) -> Piece:
    if item.size_cm is None:
        raise DataError(f"{item.key}: its catalogue gives no size, so it cannot stand in a room.")
    width, depth, height = (CM * side for side in item.size_cm)
    facts = item.properties
    distance = CM * float(facts.get("doorOrWindowWallDistance") or 0)
    thickness = CM * float(facts.get("doorOrWindowWallThickness") or 0) or depth
    surface = CM * float(facts.get("dropOnTopElevation") or 0)
    size = width, depth, height
    return Piece(
        key=item.key, name=item.name, role=role, size=size, load=partial(_load, item, size, role),
        elevation=CM * float(facts.get("elevation") or 0), surface=surface if surface > 0 else height,
        wall_depth=min(depth, distance + thickness), licence=item.licence, creator=item.creator,
    )  # fmt: skip


def _load(item: CorpusObject, size: tuple[float, float, float], role: str) -> Mesh:
    mesh = item.load_mesh()
    rotation = item.properties.get("modelRotation")
    turn = np.array(rotation.split(), np.float64).reshape(3, 3) if rotation else np.eye(3)
    vertices = mesh.vertices.astype(np.float64) @ (MODEL_TO_PIECE @ turn).T
    used = vertices[np.unique(mesh.faces)]
    low, extent = used.min(0), np.maximum(np.ptp(used, axis=0), 1e-9)
    vertices = (vertices - low - [extent[0] / 2, extent[1] / 2, 0]) * (np.array(size) / extent)
    materials = mesh.materials if role in HAS_PANES else tuple(map(_solid, mesh.materials))
    return replace(mesh, vertices=vertices.astype(np.float32), materials=materials)


def _solid(material: Material) -> Material:
    cut_out = material.texture is not None and material.texture[..., 3].min() < 128
    return material if cut_out else replace(material, color=np.append(material.color[:3], 1).astype(np.float32))
