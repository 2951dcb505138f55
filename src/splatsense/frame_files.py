"""The files of a scene's frames: nerfstudio's `transforms.json` with colour in `images/` and depth in `depth/`.

What is saved and loaded again is equal to the last bit, unless somebody has edited a camera since.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from splatsense.cameras import Cameras
from splatsense.errors import FormatError
from splatsense.files import open_to_read
from splatsense.frames import Frames
from splatsense.io._json import objects, parse_object
from splatsense.io.transforms_json import read_transforms_json, write_transforms_json

CAMERAS = "transforms.json"
CAMERA_TOLERANCE = 1e-5


def save_frames(frames: Frames, folder: Path) -> None:
    """Copy the files of frames into a folder, beside a transforms.json of their cameras.

    Raises:
        FormatError: a file of a frame is missing.
    """
    names: dict[str, list[str]] = {"images": [], "depth": []}
    for kind, paths in (("images", frames.color), ("depth", frames.depth)):
        (folder / kind).mkdir()
        for index, path in enumerate(paths):
            names[kind].append(f"{kind}/{index:06d}{path.suffix.lower()}")
            try:
                shutil.copyfile(path, folder / names[kind][-1])
            except FileNotFoundError as error:
                raise FormatError(f"{path}: does not exist, but a frame of the scene refers to it.") from error
    # nerfstudio's camera-to-world matrix is inverted on reading, which rounds; the matrix itself keeps every bit
    exact = frames.cameras.world_to_camera.tolist()
    extras = [{"depth_file_path": name, "world_to_camera": rows} for name, rows in zip(names["depth"], exact, strict=True)]
    write_transforms_json(
        folder / CAMERAS, frames.cameras, names["images"], extras, {"depth_unit_scale_factor": frames.depth_scale}
    )


def load_frames(path: str | os.PathLike[str]) -> Frames:
    """The frames of a transforms.json whose images have their depth's size and camera; files are looked for beside it.

    Raises:
        FormatError: it is missing or damaged, has frames without depth, or images of several sizes.
        DataError: a camera is mirrored or scaled.
    """
    path = Path(path)
    cameras, names = read_transforms_json(path)
    with open_to_read(path) as handle:
        content = parse_object(handle.read(), str(path))
    frames = objects(content, "frames", str(path))
    missing = [index for index, frame in enumerate(frames) if not isinstance(frame.get("depth_file_path"), str)]
    if missing:
        raise FormatError(f'{path}: frame {missing[0]} ({names[missing[0]]}) has no "depth_file_path"; scenes need depth.')
    scale = content.get("depth_unit_scale_factor", 0.001)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < float("inf"):
        raise FormatError(f"{path}: depth_unit_scale_factor is {scale!r}; it must be metres per unit, above 0.")
    exact = _exact_cameras(frames, cameras.world_to_camera)
    return Frames(
        Cameras(exact, cameras.K, cameras.width, cameras.height),
        tuple(path.parent / name for name in names),
        tuple(path.parent / frame["depth_file_path"] for frame in frames),
        float(scale),
    )


def _exact_cameras(frames: Sequence[dict[str, Any]], world_to_camera: torch.Tensor) -> torch.Tensor:
    """The matrices that `save_frames` wrote, wherever nobody has edited `transform_matrix` since."""
    cameras = []
    for frame, read in zip(frames, world_to_camera, strict=True):
        try:
            exact = torch.tensor(frame["world_to_camera"], dtype=torch.float32)
        except (KeyError, TypeError, ValueError):
            exact = read
        close = exact.shape == (4, 4) and torch.allclose(exact, read, CAMERA_TOLERANCE, CAMERA_TOLERANCE)
        cameras.append(exact if close else read)
    return torch.stack(cameras)
