"""Posed RGB-D recordings as scenes: folders in the form of 7-Scenes and of TUM, and transforms.json with depth.

Design
- The form is told by its files: `frame-000000.pose.txt` is 7-Scenes (also 3DMatch and what KinectFusion tools write),
  `groundtruth.txt` with `rgb.txt` and `depth.txt` is TUM, `transforms.json` is nerfstudio and what phones export through it.
- Frames without a camera, colour or depth are left out and counted in the log. A matrix that is no rigid transform is an error.
- Intrinsics come from `--intrinsics`, or from `camera-intrinsics.txt` (a 3x3 matrix) in the folder or its parent; there is no
  default, because a wrong focal length bends every wall.
- The point cloud is fused from the depth (`fusion.py`). Worlds whose up is another axis are turned so that z is up.
- Depth that seems to be in other units, and cameras that disagree with it, are warned about (`_plausibility.py`).
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.corpora._plausibility import warn_of_implausible_depth
from splatsense.corpora.fusion import fuse_depth
from splatsense.corpora.recording_lists import Recording, list_seven_scenes, list_tum, read_matrix
from splatsense.corpora.scannet import evenly
from splatsense.errors import DataError, FormatError
from splatsense.files import walk
from splatsense.frame_files import CAMERAS, load_frames
from splatsense.frames import Frames, image_size, invert_cameras, read_color
from splatsense.geometry.upright import AXES, Axis, Up, turn_to_z
from splatsense.scenes import Scene

log = logging.getLogger("splatsense")

INTRINSICS = "camera-intrinsics.txt"
ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class RecordingSettings:
    """How recordings become scenes."""

    frames: int = 300
    """The most frames to take, evenly over the recording."""
    voxel: float = 0.02
    """Side of the voxels that points are fused in, in metres."""
    farthest: float = 10.0
    """Depth beyond this is left out of the point cloud, in metres."""
    intrinsics: tuple[float, float, float, float] | None = None
    """Focal lengths and principal point fx fy cx cy in pixels of the colour image, counted from its corner."""
    depth_scale: float | None = None
    """Metres in one unit of the depth files; by default 0.001, and 0.0002 in the form of TUM."""
    up: Up = "auto"
    """Axis of the recording's world that points up; "auto" takes the one nearest to the cameras' mean up."""

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise DataError(f"--frames must be at least 1, got {self.frames}.")
        for name in ("voxel", "farthest"):
            if not 0 < getattr(self, name) < float("inf"):
                raise DataError(f"--{name} must be metres, above 0; got {getattr(self, name)}.")
        if self.depth_scale is not None and not 0 < self.depth_scale < float("inf"):
            raise DataError(f"--depth-scale must be metres per unit, above 0; got {self.depth_scale}.")
        if self.intrinsics is not None and not (np.isfinite(self.intrinsics).all() and min(self.intrinsics[:2]) > 0):
            raise DataError(f"--intrinsics must be fx fy cx cy with positive focal lengths, got {self.intrinsics}.")


def find_recordings(root: Path) -> list[Path]:
    """The folders of all recordings at or below `root`, sorted."""
    marks = (".pose.txt", "groundtruth.txt", CAMERAS)
    return sorted(
        folder
        for folder, _, files in walk(root)
        if "coord.npy" not in files and any(file.endswith(marks[0]) or file in marks for file in files)
    )


def read_recording(folder: Path, scratch: Path, settings: RecordingSettings = RecordingSettings()) -> Scene:
    """Read one recording and fuse its point cloud.

    Args:
        folder: of the recording.
        scratch: an empty folder, for colour images that have to be resized to their depth.
        settings: see there.

    Raises:
        FormatError: files are missing or damaged, or there are no intrinsics.
        DataError: a camera is mirrored or scaled, or there is no usable depth.
    """
    try:
        if (folder / CAMERAS).is_file():
            frames = _transforms_frames(folder / CAMERAS, scratch, settings)
        else:
            listed = list_tum(folder) if (folder / "groundtruth.txt").is_file() else list_seven_scenes(folder)
            frames = _listed_frames(folder, listed, scratch, settings)
        warn_of_implausible_depth(frames, str(folder))
        frames = z_up(frames, settings.up, str(folder))
        cloud = fuse_depth(frames, settings.voxel, farthest=settings.farthest)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error
    return Scene(folder.absolute().name, cloud.coord, cloud.color, cloud.normal, frames=frames)


def settings_of(folder: Path, settings: RecordingSettings) -> dict[str, Any]:
    """The settings, with the intrinsics that the recording is read with. Raises FormatError when there are none."""
    if (folder / CAMERAS).is_file():
        return asdict(replace(settings, intrinsics=None))
    return asdict(settings) | {"intrinsics": settings.intrinsics or _read_intrinsics(folder)}


def z_up(frames: Frames, up: Up, where: str) -> Frames:
    """The same frames in a world turned by quarter turns so that its axis `up` is z.

    Args:
        where: names the recording in the log.
    """
    cameras = frames.cameras
    turn = torch.eye(4)
    turn[:3, :3] = torch.from_numpy(turn_to_z(up_of_world(cameras, up, where)))
    turned = Cameras(cameras.world_to_camera @ turn.T, cameras.K, cameras.width, cameras.height)
    return replace(frames, cameras=turned)


def up_of_world(cameras: Cameras, up: Up, where: str) -> Axis:
    """The axis of a recording's world that points up: what `up` says, or the one nearest to the cameras' mean up.

    Args:
        where: names the recording in the log.
    """
    if up != "auto":
        return up
    mean_up = -cameras.world_to_camera[:, 1, :3].mean(0)  # images have y down
    found = max(AXES, key=lambda name: float(AXES[name][1] * mean_up[AXES[name][0]]))
    if found != "z":
        log.warning("%s: %s points up in its world; it was turned to z (--up).", where, found)
    return found


def _transforms_frames(path: Path, scratch: Path, settings: RecordingSettings) -> Frames:
    frames = load_frames(path)
    there = [i for i in range(len(frames)) if frames.color[i].is_file() and frames.depth[i].is_file()]
    if not there:
        raise FormatError(f"{path}: none of the images of its {len(frames)} frames is there; copy the whole folder.")
    if len(there) < len(frames):
        log.warning("%s: left out %d of %d frames whose images are missing.", path, len(frames) - len(there), len(frames))
    frames = frames.select([there[index] for index in evenly(len(there), settings.frames)])
    scale = frames.depth_scale if settings.depth_scale is None else settings.depth_scale
    return _joined(frames.color, frames.depth, frames.cameras.world_to_camera, frames.cameras.K, scale, scratch)


def _listed_frames(folder: Path, listed: Recording, scratch: Path, settings: RecordingSettings) -> Frames:
    count = len(listed.color)
    if listed.left_out:
        log.warning("%s: left out %s.", folder, ", ".join(listed.left_out))
    if not count:
        raise FormatError(f"{folder}: no frame has colour, depth and a camera.")
    chosen = evenly(count, settings.frames)
    world_to_camera = invert_cameras(listed.camera_to_world[chosen], [listed.color[index].name for index in chosen])
    K = torch.eye(3)
    K[[0, 1, 0, 1], [0, 1, 2, 2]] = torch.tensor(settings.intrinsics or _read_intrinsics(folder))
    scale = listed.depth_scale if settings.depth_scale is None else settings.depth_scale
    color, depth = ([files[index] for index in chosen] for files in (listed.color, listed.depth))
    return _joined(color, depth, world_to_camera, K.repeat(len(color), 1, 1), scale, scratch)


def _read_intrinsics(folder: Path) -> tuple[float, ...]:
    """fx, fy, cx, cy of `camera-intrinsics.txt`."""
    for path in (folder / INTRINSICS, folder.absolute().parent / INTRINSICS):
        if path.is_file():
            matrix = read_matrix(path, 3)
            if not (matrix[[0, 1, 2], [0, 1, 2]] > 0).all():
                raise FormatError(f"{path}: is no camera matrix with positive focal lengths.")
            return tuple(matrix[[0, 1, 0, 1], [0, 1, 2, 2]].tolist())
    raise FormatError(
        f"{folder}: has no intrinsics. Give --intrinsics fx fy cx cy of the colour images (7-Scenes: 585 585 320 240, TUM: "
        f"525 525 320 240), or put the 3x3 camera matrix into {INTRINSICS} beside the images."
    )


def _joined(
    color: Sequence[Path], depth: Sequence[Path], world_to_camera: Tensor, K: Tensor, depth_scale: float, scratch: Path
) -> Frames:
    """Frames of colour and depth files; colour of another size than depth is resized to it.

    Args:
        K: (V, 3, 3) of the colour images.
    """
    size, depth_size = image_size(color[0]), image_size(depth[0])
    if size != depth_size:
        x, y = depth_size[0] / size[0], depth_size[1] / size[1]
        if abs(x / y - 1) > ASPECT_TOLERANCE:
            raise FormatError(
                f"{depth[0]}: has {depth_size[0]} x {depth_size[1]} pixels, its colour {size[0]} x {size[1]}: another field of "
                "view. Register depth to colour first."
            )
        K = torch.tensor([x, y, 1.0])[:, None] * K
        color = [_resized(path, size, depth_size, scratch / f"{index:06d}.png") for index, path in enumerate(color)]
    return Frames(Cameras(world_to_camera, K, *depth_size), tuple(color), tuple(depth), depth_scale)


def _resized(path: Path, size: tuple[int, int], new_size: tuple[int, int], target: Path) -> Path:
    Image.fromarray(read_color(path, size)).resize(new_size, Image.Resampling.BOX).save(target, compress_level=1)
    return target
