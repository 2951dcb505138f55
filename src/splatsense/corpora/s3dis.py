"""S3DIS as it is downloaded (Armeni et al. 2016, `Stanford3dDataset_v1.2`): one text file for each object of a room.

Design
- `Area_1/office_1/Annotations/chair_2.txt` holds lines of x, y, z, red, green, blue. The file's name gives the class; names
  beyond the 13 classes (stairs) are clutter, as in the benchmark. Objects in order of their names are the instances.
- The data set has a line with a control character in the middle of its numbers (Area_5/hallway_6, ceiling_1.txt). Such
  characters count as spaces, and the log says where; a line that is not six numbers even so is an error that names it.
- `Area_1_alignmentAngle.txt`, where there is one, turns each room about its centre so that walls follow the axes.
- There are no normals: they are estimated and turned to the middle of the room. There are no frames.
"""

import logging
import re
from pathlib import Path
from typing import Literal

import numpy as np

from splatsense.errors import FormatError
from splatsense.files import open_to_read, walk
from splatsense.geometry.normals import normals_towards_middle
from splatsense.io._text_table import read_table
from splatsense.labels import S3DIS
from splatsense.scenes import Scene

log = logging.getLogger("splatsense")

ANNOTATIONS = "Annotations"
CONTROL = bytes(code for code in range(32) if code not in b"\t\n\r")
CONTROL_TO_SPACE = bytes.maketrans(CONTROL, b" " * len(CONTROL))
COLUMNS = 6
LARGEST = 1e6  # metres


def find_rooms(root: Path) -> list[Path]:
    """The folders of all rooms below `root`, sorted by area and name; `root` may be one itself."""
    rooms = [folder for folder, inner, _ in walk(root) if ANNOTATIONS in inner and any((folder / ANNOTATIONS).glob("*.txt"))]
    return sorted(rooms, key=lambda path: (path.parent.name, path.name))


def read_s3dis(folder: Path, axes: Literal["aligned", "scanned"] = "aligned") -> Scene:
    """Read one room.

    Args:
        folder: of the room, with `Annotations`; its parent is called Area_1 to Area_6.
        axes: "aligned" turns the room by the angle that its area's file gives, if there is one.

    Raises:
        FormatError: a file is missing, or a line is not six numbers.
    """
    files = sorted((folder / ANNOTATIONS).glob("*.txt"))
    if not files:
        raise FormatError(f"{folder}: has no {ANNOTATIONS}/*.txt; is it a room of Stanford3dDataset_v1.2?")
    objects = [_read_object(path) for path in files]
    sizes = [len(points) for points, _ in objects]
    labels = [S3DIS.index(path.name.split("_")[0]) for path in files]
    clutter = S3DIS.index("clutter")
    points = np.concatenate([points for points, _ in objects])
    middle = (points.max(0) + points.min(0)) / 2
    if axes == "aligned":
        angle = np.deg2rad(360 - _alignment_angle(folder))
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        points = (points - middle) @ turn.T + middle
    coord = points.astype(np.float32)
    log.info("%s: has no normals; they are estimated from neighbouring points and turned to the middle of the room.", folder)
    return Scene(
        folder.name,
        coord,
        np.concatenate([color for _, color in objects]),
        normals_towards_middle(coord),
        semantic=np.repeat([clutter if label < 0 else label for label in labels], sizes).astype(np.int16),
        instance=np.repeat(np.arange(len(files)), sizes).astype(np.int32),
    )


def _read_object(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) float64 points and (N, 3) uint8 colours of an object."""
    with open_to_read(path) as handle:
        data = handle.read()
    cleaned = data.translate(CONTROL_TO_SPACE)
    for match in re.finditer(b"[" + re.escape(CONTROL) + b"]", data):
        line = data.count(b"\n", 0, match.start()) + 1
        log.warning("%s: line %d holds the control character 0x%02x; it was read as a space.", path, line, data[match.start()])
    table = read_table(path, iter(cleaned.decode("latin-1").splitlines(keepends=True)), 1)
    if len(table) == 0 or table.shape[1] != COLUMNS:
        raise FormatError(
            f"{path}: holds {table.shape[1]} numbers a line, not x y z red green blue; unpack the data set again."
        )
    wrong = ~((np.abs(table) < LARGEST).all(1) & (table[:, 3:] >= 0).all(1) & (table[:, 3:] <= 255).all(1))
    if wrong.any():
        raise FormatError(
            f"{path}: line {int(wrong.argmax()) + 1} has a colour beyond 0 to 255 or a number that is not finite."
        )
    return table[:, :3], table[:, 3:].astype(np.uint8)


def _alignment_angle(folder: Path) -> float:
    """Degrees that the area's file gives for a room; 0 where there is none."""
    path = folder.parent / f"{folder.parent.name}_alignmentAngle.txt"
    if not path.is_file():
        return 0.0
    for number, line in enumerate(path.read_text("latin-1").splitlines(), 1):
        words = line.split()
        if words[:1] == [folder.name]:
            try:
                return float(words[1])
            except (IndexError, ValueError) as error:
                raise FormatError(f"{path}: line {number} gives no angle: {line[:80]!r}.") from error
    return 0.0
