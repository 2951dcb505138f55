"""One room from its number to a scene: furnished, filmed with a hand-held sensor, fused, labelled.

Everything is drawn from (seed, split, index), so a room can be made again alone and comes out the same to the last bit.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splatsense.cameras import Cameras
from splatsense.corpora.fusion import fuse_depth, usable_depth
from splatsense.corpora.rooms.assemble import Assembled, assemble
from splatsense.corpora.rooms.camera_path import CameraSettings, camera_path
from splatsense.corpora.rooms.furnish import furnish
from splatsense.corpora.rooms.lighting import Lit, draw_lights, light_view, unproject
from splatsense.corpora.rooms.pieces import Pieces
from splatsense.corpora.rooms.placement import Arrangement
from splatsense.corpora.rooms.priors import KINDS, LABELS
from splatsense.corpora.rooms.sensor import Sensor, SensorSettings
from splatsense.corpora.rooms.shell import Finish, draw_finish
from splatsense.corpora.rooms.textures import Texture
from splatsense.errors import DataError, FormatError
from splatsense.frames import Frames, FrameWriter
from splatsense.labels import scannet_labels
from splatsense.render.mesh import MeshImages, render_mesh
from splatsense.scenes import Scene, save_scene

SPLITS = ("train", "val", "test")
ROOM_FILE = "room.json"
ATTEMPTS = 12
VIEWS_AT_ONCE = 15  # rendered together: bounds memory
NEAR_PLANE = 0.05
GOLDEN = (5**0.5 - 1) / 2
MIN_PIXELS = 2  # that a voxel needs: single ones are noise
SYNTHETIC = (
    "Synthetic: a made-up room of library furniture, drawn by a mesh renderer and a simulated sensor. No real room was scanned."
)


@dataclass(frozen=True)
class RoomSettings:
    """How rooms are made.

    Attributes:
        seed: of the corpus.
        frames: of each recording.
        camera: size and focal length of its images.
        sensor: noise and holes.
        voxel: side in metres of the voxels that depth is fused in.
        supersample: samples per pixel along each axis for colours.
        jpeg_quality: of the colour images, 1 to 95.
    """

    seed: int = 0
    frames: int = 60
    camera: CameraSettings = field(default_factory=CameraSettings)
    sensor: SensorSettings = field(default_factory=SensorSettings)
    voxel: float = 0.02
    supersample: int = 2
    jpeg_quality: int = 92

    def __post_init__(self) -> None:
        bounds = {"seed": (0, 2**31 - 1), "frames": (1, 10_000), "supersample": (1, 4), "jpeg_quality": (1, 95)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise DataError(f"rooms: {name} must be {low} to {high}, got {getattr(self, name)}.")
        if not 0.002 <= self.voxel <= 0.5:
            raise DataError(f"rooms: voxel must be 0.002 to 0.5 metres, got {self.voxel}.")


@dataclass(frozen=True, eq=False)
class Room:
    """A room before it is filmed.

    Attributes:
        split, index: which one it is.
        arrangement: what stands where.
        finish: what floor and walls look like.
        assembled: its mesh and instances.
        cameras: the path.
        lit: its light.
        rng: goes on to the sensor.
    """

    split: str
    index: int
    arrangement: Arrangement
    finish: Finish
    assembled: Assembled
    cameras: Cameras
    lit: Lit
    rng: np.random.Generator

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.split}_{self.index:04d}"


def make_room(split: str, index: int, pieces: Pieces, textures: list[Texture], settings: RoomSettings) -> Room:
    """Room `index` of a split: "train", "val" or "test".

    Raises:
        DataError: the split is unknown, the index negative, `pieces` are of the wrong split, or no room can be furnished.
    """
    if split not in SPLITS or index < 0:
        raise DataError(f"rooms: split must be one of {', '.join(SPLITS)} and index at least 0; got {split!r}, {index}.")
    if pieces.split != piece_split(split):
        raise DataError(f"rooms: {split} rooms are made of {piece_split(split)} pieces, got {pieces.split} pieces.")
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    kind = kind_of(index)
    for _ in range(ATTEMPTS):
        arrangement = furnish(kind, pieces, rng)
        cameras = camera_path(arrangement, settings.frames, settings.camera, rng)
        if cameras is not None:
            finish = draw_finish(arrangement.layout, textures, rng)
            assembled = assemble(arrangement, finish)
            lit = draw_lights(arrangement, assembled, rng)
            return Room(split, index, arrangement, finish, assembled, cameras, lit, rng)
    raise DataError(f"rooms: {split} {index}: {ATTEMPTS} times no camera could be carried through the {kind}.")


def kind_of(index: int) -> str:
    """The kind of a room: any run of indices holds each kind about as often as its share, by the golden ratio sequence."""
    edges = np.cumsum([prior.share for prior in KINDS.values()])
    place = (index + 1) * GOLDEN % 1.0 * edges[-1]
    return list(KINDS)[min(int(np.searchsorted(edges, place, side="right")), len(KINDS) - 1)]


def piece_split(split: str) -> str:
    """Which pieces rooms of a split are made of: validation rooms share those of training rooms."""
    return "test" if split == "test" else "train"


def record_room(room: Room, settings: RoomSettings, folder: Path) -> None:
    """Films a room and writes it as a scene folder with `room.json`; the folder appears when all of it is written."""
    if folder.exists():
        raise FormatError(f"{folder}: exists already; delete it or choose another name.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent) as temporary:
        writer, ids = FrameWriter(temporary, jpeg_quality=settings.jpeg_quality), []
        for index, (color, depth, instance) in enumerate(film(room, settings)):
            writer.add(color, depth, room.cameras.world_to_camera[index], room.cameras.K[index])
            ids.append(instance)
        frames = writer.frames()
        cloud = fuse_depth(_Thinned(frames), settings.voxel, least=MIN_PIXELS, ids=ids.__getitem__)
        if cloud.ids is None:
            raise DataError(f"{folder}: fusion returned no ids.")
        labels20, labels200 = _label_tables(room)
        scene = Scene(
            room.name, cloud.coord, cloud.color, cloud.normal, labels20[cloud.ids], labels200[cloud.ids],
            instance=cloud.ids, frames=frames,
        )  # fmt: skip
        complete = Path(temporary) / room.name
        save_scene(scene, complete)
        (complete / ROOM_FILE).write_text(json.dumps(describe(room, settings), indent=1) + "\n", "utf-8")
        shutil.move(complete, folder)


@dataclass(frozen=True, eq=False)
class _Thinned:
    """Frames with depth at one pixel of each 2 x 2, another one in every frame: voxels get enough of 60 frames.

    Flying pixels are taken out before, as long as their neighbours are there.
    """

    frames: Frames

    @property
    def cameras(self) -> Cameras:
        return self.frames.cameras

    def frame(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        color, depth = self.frames.frame(index)
        thin, (row, column) = np.zeros_like(depth), divmod(index % 4, 2)
        kept = np.where(usable_depth(depth), depth, 0)
        thin[row::2, column::2] = kept[row::2, column::2]
        return color, thin


def film(room: Room, settings: RoomSettings) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Colour, depth and instance ids of one view after the other."""
    sensor = Sensor(settings.sensor, len(room.cameras), room.rng)
    forward = room.cameras.world_to_camera[:, 2, :3].double()
    turned = torch.acos((forward[1:] * forward[:-1]).sum(1).clamp(-1, 1)).tolist()
    for start in range(0, len(room.cameras), VIEWS_AT_ONCE):
        cameras = room.cameras[start : start + VIEWS_AT_ONCE]
        images = render_mesh(room.assembled.mesh, cameras, supersample=settings.supersample, near=NEAR_PLANE)
        for view in range(len(cameras)):
            index = start + view
            pixels = turned[min(index, len(turned) - 1)] * float(cameras.K[view, 0, 0]) if turned else 0.0
            color = sensor.color(index, light_view(images, view, cameras, room.lit), pixels)
            depth = sensor.depth(images.depth[view].numpy(), *_surface(images, view, cameras, room))
            yield color, depth, images.instance_id[view].numpy()


def _surface(images: MeshImages, view: int, cameras: Cameras, room: Room) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the depth sensor's holes depend on: cosine of the angle of incidence, brightness, and what shines."""
    ray = unproject(images.depth[view], cameras.K[view], cameras.world_to_camera[view]) - cameras.centers[view][:, None, None]
    cosine = -(ray * images.normal[view].permute(2, 0, 1)).sum(0) / (ray * ray).sum(0).clamp(min=1e-12).sqrt()
    face = images.face_id[view]
    shining = (face >= 0) & (room.lit.glow[face.clamp(min=0).long()] > 0)
    return cosine.numpy(), images.color[view].mean(-1).numpy(), shining.numpy()


def _label_tables(room: Room) -> tuple[np.ndarray, np.ndarray]:
    """Labels in ScanNet20 and ScanNet200 by instance id; the last row serves id -1."""
    rows = [scannet_labels(LABELS[instance.role]) for instance in room.assembled.instances] + [(-1, -1)]
    labels = np.array(rows, np.int16)
    return labels[:, 0], labels[:, 1]


def describe(room: Room, settings: RoomSettings) -> dict[str, Any]:
    """What `room.json` says: kind, layout, pieces with their places and licences, instances, settings."""
    arrangement, layout = room.arrangement, room.arrangement.layout
    used = [opening.piece for opening in layout.openings] + [placed.piece for placed in arrangement.placed]
    return {
        "synthetic": True,
        "note": SYNTHETIC,
        "split": room.split,
        "index": room.index,
        "kind": layout.kind,
        "size": layout.size,
        "notch": layout.notch,
        "finish": room.finish.names,
        "openings": [
            {"key": x.piece.key, "role": x.piece.role, "wall": x.wall, "along": x.along, "bottom": x.bottom,
             "width": x.piece.size[0], "height": x.piece.size[2]} for x in layout.openings
        ],
        "placed": [
            {"key": x.piece.key, "name": x.piece.name, "role": x.piece.role, "support": x.support, **asdict(x.box)}
            for x in arrangement.placed
        ],
        "instances": [
            {"id": i, "role": x.role, "key": x.key, "scannet200": LABELS[x.role], "placed": x.row}
            for i, x in enumerate(room.assembled.instances)
        ],
        "pieces": {
            piece.key: {"name": piece.name, "licence": piece.licence, "creator": piece.creator}
            for piece in sorted(used, key=lambda piece: piece.key)
        },
        "settings": asdict(settings),
    }  # fmt: skip
