"""What `splatsense render` leaves in a folder: numbered pictures of colour, depth and alpha, and transforms.json.

Design
- `prepare` takes away what a former run left, and only that; `write_views` writes transforms.json last, with a note by which
  a later run knows what is there.
- Depth is 16-bit; `depth_unit_scale_factor` in transforms.json times a value gives the file's units, 0 means nothing
  there, and floaters far behind the asset have the largest value.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from splatsense.cameras import Cameras
from splatsense.errors import FormatError, SplatSenseError
from splatsense.files import atomic_write
from splatsense.io.transforms_json import write_transforms_json
from splatsense.pictures import Picture

CAMERAS = "transforms.json"
NOTE = "splatsense"  # entry of transforms.json
DEPTH_STEPS = 65535


def _former(folder: Path) -> dict[str, Any]:
    """What transforms.json in a folder says, or nothing."""
    try:
        content = json.loads((folder / CAMERAS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def prepare(folder: Path) -> None:
    """Make a folder, or take away the pictures of a former run: all and only those that its transforms.json names.

    Raises:
        FormatError: it cannot be made.
        SplatSenseError: its transforms.json was not written by `splatsense render`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(f"{folder}: no folder can be made here ({error.strerror}); choose another output folder.") from error
    former = _former(folder)
    if not former:
        return
    if NOTE not in former:
        raise SplatSenseError(f"{folder / CAMERAS}: was not written by `splatsense render`; choose another output folder.")
    for kind in ("color", "depth", "alpha"):
        for index in range(len(former.get("frames", []))):
            (folder / f"{kind}_{index:03d}.png").unlink(missing_ok=True)
    for kind in ("webp", "gif"):
        (folder / f"turntable.{kind}").unlink(missing_ok=True)
    (folder / CAMERAS).unlink()


def note_of(folder: Path) -> dict[str, Any] | None:
    """The note that `write_views` left in a folder, or None."""
    return _former(folder).get(NOTE)


def write_views(
    folder: Path,
    cameras: Cameras,
    pictures: Iterable[Picture],
    background: tuple[int, int, int] | None,
    farthest: float,
    note: dict[str, Any],
    frames: Sequence[dict[str, Any]] = (),
) -> None:
    """Write pictures and, last, the cameras that took them.

    Args:
        folder: one that `prepare` has seen.
        cameras: V cameras in the units of the asset's file.
        pictures: V, with depth in those units.
        background: 8-bit sRGB, or None for transparent.
        farthest: the depth that the largest number of the depth images stands for.
        note: kept in transforms.json.
        frames: V more entries of the frames in transforms.json.

    Raises:
        FormatError: the folder cannot be written.
    """
    step = farthest / DEPTH_STEPS
    names, extras = [], []
    for index, picture in enumerate(pictures):
        depth = (picture.depth / step).round().clamp(0, DEPTH_STEPS).to(torch.int32).numpy().astype(np.uint16)
        alpha = (picture.alpha.clamp(0, 1) * 255).round().byte().numpy()
        files = {"color": picture.over(background), "depth": depth, "alpha": alpha}
        for kind, values in files.items():
            _write_png(folder / f"{kind}_{index:03d}.png", values)
        names.append(f"color_{index:03d}.png")
        own = {"depth_file_path": f"depth_{index:03d}.png", "mask_path": f"alpha_{index:03d}.png"}
        extras.append(own | (frames[index] if frames else {}))
    write_transforms_json(folder / CAMERAS, cameras, names, extras, {"depth_unit_scale_factor": step, NOTE: note})


def _write_png(path: Path, values: np.ndarray) -> None:
    with atomic_write(path) as temporary:
        Image.fromarray(values).save(temporary, "PNG")
