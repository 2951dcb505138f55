"""ScanNet as it is downloaded (Dai et al. 2017): mesh, annotation and recording of a scan to a `Scene`.

Design
- Points are the vertices of `<scan>_vh_clean_2.ply`, in its order, with normals of its faces weighted by area, as Pointcept has
  them. A vertex's segment (`segs.json`) and the group that names it (`aggregation.json`) give instance and label; where groups
  share a segment the later one counts.
- A label's words are looked up in `scannetv2-labels.combined.tsv`: `nyu40id` gives ScanNet20, `id` ScanNet200.
- Scans without annotation (the test scans) have no labels; a scan without `.sens` has no frames.
- `axisAlignment` in `<scan>.txt` turns the scan so that walls follow the axes; points, normals and cameras turn together.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from splatsense.cameras import Cameras
from splatsense.corpora.sens import SensFile
from splatsense.errors import DataError, FormatError
from splatsense.files import open_to_read, walk
from splatsense.frames import Frames, FrameWriter, check_cameras, invert_cameras
from splatsense.io._json import objects, parse_object
from splatsense.io.mesh import load_mesh
from splatsense.io.ply import read_point_cloud
from splatsense.labels import SCANNET20, SCANNET200
from splatsense.scenes import Scene

MESH = "_vh_clean_2.ply"
SEGMENTS = "_vh_clean_2.0.010000.segs.json"
AGGREGATION = ".aggregation.json"
JPEG_QUALITY = 95
SHORTEST = 1e-12


@dataclass(frozen=True)
class LabelTable:
    """Indices in ScanNet20 and ScanNet200 of the words that annotators used.

    Attributes:
        indices: (index in ScanNet20, index in ScanNet200) by `raw_category`, -1 where a set has none.
    """

    indices: Mapping[str, tuple[int, int]]


def read_label_table(path: Path) -> LabelTable:
    """Read `scannetv2-labels.combined.tsv`.

    Raises:
        FormatError: it is missing or lacks a column.
    """
    with open_to_read(path) as handle:
        text = handle.read().decode("utf-8", "replace")
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    missing = [name for name in ("raw_category", "nyu40id", "id") if not rows or name not in rows[0]]
    if missing:
        raise FormatError(f"{path}: lacks the columns {', '.join(missing)}; is it scannetv2-labels.combined.tsv?")
    try:
        nyu40, ids = (np.array([int(row[name] or -1) for row in rows]) for name in ("nyu40id", "id"))
    except (ValueError, TypeError) as error:
        raise FormatError(f"{path}: an id or nyu40id is no whole number ({error}); download it again.") from error
    indices: dict[str, tuple[int, int]] = {}
    for row, in20, in200 in zip(
        rows, SCANNET20.index_of_ids(nyu40).tolist(), SCANNET200.index_of_ids(ids).tolist(), strict=True
    ):
        indices.setdefault(row["raw_category"], (in20, in200))
    return LabelTable(indices)


def find_scans(root: Path) -> list[Path]:
    """The folders below `root` that hold a scan's mesh, sorted by name; `root` may be one itself."""
    folders = [folder for folder, _, files in walk(root) if any(file.endswith(MESH) for file in files)]
    return sorted(folders, key=lambda path: path.name)


def read_scannet(
    folder: Path, labels: LabelTable | None, scratch: Path, frames: int = 300, axes: Literal["aligned", "scanned"] = "aligned"
) -> Scene:
    """Read one scan.

    Args:
        folder: named as the scan, with its files.
        labels: of `read_label_table`; None leaves labels out.
        scratch: an empty folder; frames are written there and the scene refers to them.
        frames: the most to take, evenly over those that are tracked.
        axes: "aligned" applies the scan's axisAlignment, if it has one.

    Raises:
        FormatError: a file is missing, damaged or does not fit the others.
    """
    name = folder.name
    mesh = load_mesh(folder / f"{name}{MESH}")
    cloud = read_point_cloud(folder / f"{name}{MESH}")
    if len(cloud.points) != len(mesh.vertices):
        raise FormatError(f"{folder / name}{MESH}: {len(mesh.vertices) - len(cloud.points)} vertices are not finite.")
    count = len(cloud.points)
    align = _axis_alignment(folder / f"{name}.txt") if axes == "aligned" else np.eye(4)
    normal = vertex_normals(cloud.points, mesh.faces)
    semantic20 = semantic200 = instance = None
    if labels is not None and (folder / f"{name}{AGGREGATION}").is_file():
        semantic20, semantic200, instance = _annotation(folder, labels, count)
    recording = folder / f"{name}.sens"
    return Scene(
        name,
        (cloud.points @ align[:3, :3].T + align[:3, 3]).astype(np.float32),
        None if cloud.colors is None else (cloud.colors * 255).round().astype(np.uint8),
        (normal @ align[:3, :3].T).astype(np.float32),
        semantic20=semantic20,
        semantic200=semantic200,
        instance=instance,
        frames=_frames(recording, scratch, frames, align) if recording.is_file() and frames > 0 else None,
    )


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(N, 3) float64 unit normals of vertices: of their faces, weighted by area; zero for vertices without faces."""
    a, b, c = vertices[faces].astype(np.float64).transpose(1, 0, 2)
    of_faces = np.cross(b - a, c - a)
    corners = faces.ravel()
    total = [np.bincount(corners, np.repeat(column, 3), len(vertices)) for column in of_faces.T]
    normal = np.stack(total, axis=1)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.divide(normal, length, out=np.zeros_like(normal), where=length > SHORTEST)


def _axis_alignment(path: Path) -> np.ndarray:
    """(4, 4) of the scan's .txt, or the identity where it gives none."""
    if not path.is_file():
        return np.eye(4)
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        key, _, value = line.partition("=")
        if key.strip() != "axisAlignment":
            continue
        try:
            matrix = np.array(value.split(), np.float64).reshape(4, 4)
        except ValueError as error:
            raise FormatError(f"{path}: line {number}: axisAlignment is not 16 numbers; download it again.") from error
        if not np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3) or np.linalg.det(matrix) < 0:
            raise FormatError(f"{path}: line {number}: axisAlignment is not a rotation; download it again.")
        return matrix
    return np.eye(4)


def _annotation(folder: Path, labels: LabelTable, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    segment_file, group_file = folder / f"{folder.name}{SEGMENTS}", folder / f"{folder.name}{AGGREGATION}"
    with open_to_read(segment_file) as handle:
        listed = parse_object(handle.read(), str(segment_file)).get("segIndices")
    try:
        segments = np.array(listed, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{segment_file}: segIndices is not a list of whole numbers; download it again.") from error
    if segments.shape != (count,):
        raise FormatError(f"{segment_file}: has segments of {segments.size} vertices, the mesh {count}; download both again.")
    with open_to_read(group_file) as handle:
        groups = objects(parse_object(handle.read(), str(group_file)), "segGroups", str(group_file))
    found, row = np.unique(segments, return_inverse=True)
    of_segment = np.full((len(found), 3), -1)  # ScanNet20, ScanNet200, instance
    for group in groups:
        number, members = group.get("id"), group.get("segments")
        whole = isinstance(members, list) and all(isinstance(member, int) and abs(member) < 2**62 for member in members)
        if not isinstance(number, int) or not 0 <= number < 2**31 or not whole:
            raise FormatError(f"{group_file}: a group of segGroups has no id or no segments; download it again.")
        used = np.isin(found, np.array(members, np.int64))
        of_segment[used] = (*labels.indices.get(str(group.get("label")), (-1, -1)), number)
    semantic20, semantic200, instance = of_segment[row].T
    return semantic20.astype(np.int16), semantic200.astype(np.int16), instance.astype(np.int32)


def _frames(recording: Path, scratch: Path, most: int, align: np.ndarray) -> Frames:
    with SensFile(recording) as file:
        tracked = file.tracked
        if not tracked:
            raise DataError(
                f"{recording}: none of its {len(file.frames)} frames was tracked; import without frames (--frames 0)."
            )
        writer = FrameWriter(scratch, 1 / file.units_per_metre, JPEG_QUALITY)
        chosen = [tracked[index] for index in evenly(len(tracked), most)]
        to_world = align @ np.array([frame.camera_to_world for frame in chosen], np.float64)
        names = [f"frame {frame.number}" for frame in chosen]
        try:
            cameras = Cameras(invert_cameras(to_world, names), file.K.repeat(len(chosen), 1, 1), file.width, file.height)
            check_cameras(cameras, names)
        except DataError as error:
            raise DataError(f"{recording}: {error}") from error
        for frame, world_to_camera in zip(chosen, cameras.world_to_camera, strict=True):
            writer.add(*file.read(frame), world_to_camera, file.K)
        return writer.frames()


def evenly(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` things, evenly spaced, the first one included."""
    return [index * count // most for index in range(most)] if count > most else list(range(count))
