"""A home as a `Scene`: points on all its surfaces, classes by its catalogue, and frames taken in its rooms.

Design
- Points are spread over the mesh and thinned to one in a voxel. Normals are those of the faces. Insides of walls and furniture
  have points too. With `points="seen"` they are fused from the frames instead, as of a scan: what no frame sees has none.
- A piece's class comes from its catalogue id where the furniture corpus knows it, otherwise from the words of its name, which
  have to be English. Others are unlabelled.
- Frames are drawn by the mesh renderer from the places that `cameras.py` finds in the rooms.
"""

import io
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from splatsense.corpora import words_from_identifier
from splatsense.corpora.furniture import _class_table
from splatsense.corpora.fusion import fuse_depth
from splatsense.corpora.sweethome.build import HomeFiles, Thing, build_home
from splatsense.corpora.sweethome.cameras import home_cameras
from splatsense.corpora.sweethome.home import Home, Piece, parse_home
from splatsense.errors import DataError, FormatError, LimitError
from splatsense.files import walk
from splatsense.frames import DAMAGES, Frames, FrameWriter
from splatsense.geometry.voxels import voxel_keys
from splatsense.io._archive import Archive, open_archive
from splatsense.io._mesh_limits import TEXTURE_PIXELS
from splatsense.io.surface import sample_surface
from splatsense.labels import FURNITURE_TO_SCANNET200, SCANNET200, UNLABELLED, scannet_labels
from splatsense.mesh import Mesh
from splatsense.render.mesh import render_mesh
from splatsense.scenes import Scene

log = logging.getLogger("splatsense")

MOST_MEMBERS = 65_536
LARGEST_MEMBER = 1 << 29
OVERSAMPLING = 2.0  # samples for each voxel's area, before thinning
MOST_SAMPLES = 40_000_000
SKY = (0.75, 0.85, 0.95)
VIEWS_AT_ONCE = 16
SURFACES = ("wall", "floor", "ceiling")  # no words for furniture: a "wall uplight" is a lamp


@dataclass(frozen=True)
class HomeSettings:
    """How homes become scenes."""

    frames: int = 120
    """The most frames to draw; 0 for none."""
    width: int = 320
    """Of the frames, in pixels."""
    height: int = 240
    """Of the frames, in pixels."""
    fov: float = 60.0
    """Vertical field of view in degrees."""
    voxel: float = 0.02
    """One point is kept in each voxel of this side, in metres."""
    shading: float = 0.4
    """0 shows plain colours, 1 light from above."""
    points: Literal["all", "seen"] = "all"
    """On all surfaces, insides and outsides too; or those that the frames see, fused as a scan is."""

    def __post_init__(self) -> None:
        for name, low, high in (("frames", 0, 100_000), ("width", 8, 8192), ("height", 8, 8192)):
            if not low <= getattr(self, name) <= high:
                raise DataError(f"--{name} must lie between {low} and {high:,}, got {getattr(self, name)}.")
        if not 1 <= self.fov <= 150:
            raise DataError(f"--fov must lie between 1 and 150 degrees, got {self.fov}.")
        if not 0 < self.voxel < float("inf"):
            raise DataError(f"--voxel must be metres, above 0; got {self.voxel}.")
        if not 0 <= self.shading <= 1:
            raise DataError(f"--shading must lie between 0 and 1, got {self.shading}.")
        if self.points == "seen" and not self.frames:
            raise DataError("--points seen: needs frames; leave out --frames 0.")


def find_homes(root: Path) -> list[Path]:
    """All `.sh3d` files below `root`, sorted; `root` may be one itself."""
    if root.is_file():
        return [root]
    return sorted(folder / file for folder, _, files in walk(root) for file in files if file.endswith(".sh3d"))


def read_home(path: Path, scratch: Path, settings: HomeSettings = HomeSettings()) -> Scene:
    """Read one home.

    Args:
        path: the `.sh3d` file.
        scratch: an empty folder; frames are written there and the scene refers to them.
        settings: see there.

    Raises:
        FormatError: it is no home, damaged, or of an old version, which kept it as Java objects alone.
        LimitError: it is larger than any home, or would inflate to far more than its size.
        DataError: there is nothing to see in it.
    """
    with open_archive(path, MOST_MEMBERS) as archive:
        home = parse_home(_read_home_xml(archive), f"{path}!/Home.xml")
        files = HomeFiles(str(path), archive.names, lambda name: _read(archive, name), lambda name: _texture(archive, name))
        try:
            mesh, things = build_home(home, files)
        except (DataError, LimitError) as error:
            raise type(error)(f"{path}: {error}") from error
    labels = np.array([*(_labels(thing) for thing in things), (UNLABELLED, UNLABELLED)], np.int16)  # the last is for -1
    frames, ids = _take_frames(home, mesh, scratch, settings, path)
    if settings.points == "all":
        coord, face, color, normal = sample_home(mesh, settings.voxel)
        instance = mesh.face_instances[face].astype(np.int32)
    elif frames is None:
        raise DataError(f"{path}: there is no room in it for a camera; use --points all.")
    else:
        cloud = fuse_depth(frames, settings.voxel, ids=ids.__getitem__)
        assert cloud.ids is not None
        coord, color, normal, instance = cloud.coord, cloud.color, cloud.normal, cloud.ids
    return Scene(
        path.stem,
        coord,
        color,
        normal,
        semantic20=labels[instance, 0],
        semantic200=labels[instance, 1],
        instance=instance,
        frames=frames,
    )


def _read_home_xml(archive: Archive) -> bytearray:
    if "Home.xml" in archive.names:
        return archive.read("Home.xml", LARGEST_MEMBER)
    if "Home" in archive.names:
        raise FormatError(
            f"{archive.path}: holds its home as Java objects alone, as older versions of Sweet Home 3D wrote it. "
            "Open it with a current Sweet Home 3D and save it again."
        )
    raise FormatError(f"{archive.path}: holds no Home.xml; is it a home (.sh3d)? A .sh3f file is a library of furniture.")


def _read(archive: Archive, name: str) -> bytes:
    return bytes(archive.read(name, LARGEST_MEMBER))


def _texture(archive: Archive, name: str) -> np.ndarray:
    where = f"{archive.path}!/{name}"
    try:
        with Image.open(io.BytesIO(_read(archive, name))) as image:
            if image.width * image.height > TEXTURE_PIXELS:
                raise LimitError(
                    f"{where}: is a picture of {image.width} x {image.height} pixels; the most are {TEXTURE_PIXELS}"
                )
            return np.asarray(image.convert("RGBA"))
    except DAMAGES as error:
        raise FormatError(f"{where}: cannot be read as a picture ({error})") from error


def sample_home(mesh: Mesh, voxel: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points (N, 3) float32 on a mesh, one in a voxel, their faces (N,), 8-bit colours (N, 3) and normals (N, 3) float32."""
    count = int(np.clip(OVERSAMPLING * mesh.face_areas.sum() / voxel**2, 1, MOST_SAMPLES))
    samples = sample_surface(mesh, count, np.random.default_rng(0))
    kept = np.sort(np.unique(voxel_keys(samples.points, voxel), return_index=True)[1])
    face = samples.face[kept]
    a, b, c = mesh.vertices[mesh.faces[face]].astype(np.float64).transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    color = (samples.rgba[kept, :3] * 255).round().astype(np.uint8)
    return samples.points[kept].astype(np.float32), face, color, normal.astype(np.float32)


def _labels(thing: Thing) -> tuple[int, int]:
    """Indices in ScanNet20 and ScanNet200."""
    if thing.piece is None:
        return scannet_labels(thing.kind)
    return scannet_labels(piece_class(thing.piece))


def piece_class(piece: Piece) -> str:
    """The ScanNet200 name of a piece, or ""."""
    known = _class_table().get(piece.catalog_id)
    if known is not None and known["class"]:
        return FURNITURE_TO_SCANNET200.get(known["class"], "")
    identifier = piece.catalog_id.split("#")[-1]
    text = f" {words_from_identifier(piece.name)} {words_from_identifier(identifier)} "
    found = [name for word, name in _class_words().items() if f" {word} " in text or f" {word}s " in text]
    if found:
        return found[0]
    return "door" if piece.is_door_or_window else ""


@cache
def _class_words() -> dict[str, str]:
    """Words that name a class of furniture, longest first, so that "office chair" comes before "chair"."""
    words = {name: name for name in SCANNET200.names if SCANNET200.index(name) != UNLABELLED and name not in SURFACES}
    for furniture_class, name in FURNITURE_TO_SCANNET200.items():
        words |= {word.strip(): name for word in furniture_class.split("/")}
    words |= {"sofa": "couch", "television": "tv", "fridge": "refrigerator", "washbasin": "sink", "bookcase": "bookshelf"}
    words |= {"uplight": "lamp", "cooker": "stove", "sideboard": "cabinet"}
    return dict(sorted(words.items(), key=lambda item: -len(item[0])))


def _take_frames(
    home: Home, mesh: Mesh, scratch: Path, settings: HomeSettings, path: Path
) -> tuple[Frames | None, list[np.ndarray]]:
    """Frames, and the (H, W) instances that their pixels show."""
    cameras = home_cameras(home, settings.frames, settings.width, settings.height, settings.fov) if settings.frames else None
    if cameras is None:
        if settings.frames:
            log.warning("%s: there is no room in it for a camera, so the scene has no frames.", path)
        return None, []
    writer, ids = FrameWriter(scratch), []
    for start in range(0, len(cameras), VIEWS_AT_ONCE):
        some = cameras[start : start + VIEWS_AT_ONCE]
        images = render_mesh(mesh, some, background=SKY, supersample=2, shading=settings.shading)
        color = (images.color * 255).round().byte().numpy()
        ids += list(images.instance_id.numpy())
        for view in range(len(some)):
            writer.add(color[view], images.depth[view].numpy(), some.world_to_camera[view], some.K[view])
    return writer.frames(), ids
