"""A user's scan for segmentation: point clouds, splats, meshes, scene folders and posed RGB-D recordings become `Points`.

Design
- A splat's Gaussian is a point at its centre, with its colour, and its shortest axis as the normal; those that are hardly seen
  are left out. Of a mesh the vertices are taken.
- Points that lie very far from the rest, such as reflections, are left out of a file, with a warning.
- The network was trained on metres with z up. Another unit is told by the size of the scan, y up by the floor that its normals
  show; both are warned about and can be given (`--unit`, `--up`). Results go back into the axes and units of the file, also
  where its coordinates are those of a country's grid (`PointCloud.origin`) or of a recording's own world.
- Without normals they are estimated; without colours points are grey. Both are said.
"""

import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32

from splatsense.corpora.recordings import RecordingSettings, find_recordings, read_recording, up_of_world
from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians, quaternion_to_matrix
from splatsense.geometry.normals import normals_towards_middle
from splatsense.geometry.upright import Up, detect_up, turn_to_z
from splatsense.io import PointCloud, load, load_mesh, load_point_cloud
from splatsense.io._ply_container import read_header
from splatsense.io._sniffing import sniff
from splatsense.io.compressed_ply import is_compressed
from splatsense.io.ply import is_splat
from splatsense.io.surface import vertex_colors
from splatsense.scenes import load_scene
from splatsense.segmentation.points import GREY, NONE, Points

log = logging.getLogger("splatsense")

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "ft": 0.3048, "in": 0.0254}
LEAST_OPACITY = 0.1  # of a Gaussian that counts as a point of the scene
OUTLIERS = 0.005  # of the points at both ends of an axis do not count for a scan's size
STRAY = 10.0  # times the largest side of the box of the others: points further from that box are left out
LOWEST, HIGHEST = 1.2, 30.0  # metres that scans of rooms and buildings are high
LARGE_IN_CM, LARGE_IN_MM = 60.0, 600.0  # smallest side of the box from which coordinates must be cm, and mm
ROUND = 0.99  # a Gaussian whose shortest axis is no shorter than this share of the next is a ball


@dataclass(frozen=True)
class ScanSettings:
    """How a scan is read."""

    unit: str = "auto"
    """of the coordinates: m, cm, mm, ft, in, or metres per unit as a number; auto tells it by the size"""
    up: Up = "auto"
    """axis that points up; auto tells it by the planes of the scan"""
    frames: int = 300
    """the most frames to take of an RGB-D recording"""
    intrinsics: tuple[float, float, float, float] | None = None
    """focal lengths and principal point fx fy cx cy of an RGB-D recording, in pixels of the colour image"""
    depth_scale: float | None = None
    """metres in one unit of a recording's depth files; by default 0.001, and 0.0002 in the form of TUM"""

    def metres(self) -> float | None:
        """Metres in a unit; None for auto. Raises DataError when it is no unit."""
        if self.unit == "auto":
            return None
        try:
            value = UNITS.get(self.unit) or float(self.unit)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise DataError(f"--unit {self.unit}: give auto, {', '.join(UNITS)}, or metres per unit as a number above 0.")
        return value


DEFAULT = ScanSettings()


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan as the network wants it, and where it came from.

    Attributes:
        points: z up, metres, without labels.
        coord: (N, 3) the same points in the axes and units of the file; float64 where they lie far from the origin.
        matrix: (3, 3) with `points.coord = (coord - origin) @ matrix.T`, where `origin` is that of the point cloud.
    """

    points: Points
    coord: Float[np.ndarray, "n 3"]
    matrix: Float[np.ndarray, "3 3"]


def read_scan(path: Path, settings: ScanSettings = DEFAULT) -> Scan:
    """Read a scan of any kind.

    Args:
        path: a point cloud, splat or mesh; the folder of a scene, or of a posed RGB-D recording.
        settings: see there.

    Raises:
        FormatError: it is missing, damaged, or none of these.
        DataError: nothing in it is usable, or a setting is out of range.
    """
    cloud, settings = _read(path, settings)
    return scan_of_cloud(_without_strays(cloud, path), path, settings)


def scan_of_cloud(cloud: PointCloud, path: Path | str, settings: ScanSettings = DEFAULT) -> Scan:
    """A scan of points in memory; its points are those of the cloud, in their order.

    Args:
        cloud: with or without colours and normals.
        path: names it in messages.
        settings: see there.

    Raises:
        DataError: a setting is out of range.
    """
    given = settings.metres()
    if cloud.colors is None:
        log.warning("%s: has no colours; every point is grey, and labels will be less sure.", path)
    coord = np.ascontiguousarray(cloud.points, np.float32)
    scale = given or _detected_unit(coord, path)
    normal = _unit_normals(cloud, scale, path)
    turn = _upright(coord, normal, settings.up, path)
    upright = (coord.astype(np.float64) @ turn.T * scale).astype(np.float32)
    if given is None:
        _warn_of_height(upright, path)
    color = np.full(coord.shape, GREY, np.float32) if cloud.colors is None else cloud.colors.astype(np.float32)
    none = torch.full((len(coord),), NONE)
    turned = (normal @ turn.T.astype(np.float32)).astype(np.float32)
    points = Points(torch.from_numpy(upright), torch.from_numpy(color), torch.from_numpy(turned), none, none)
    return Scan(points, coord + np.array(cloud.origin) if any(cloud.origin) else coord, turn * scale)


def _read(path: Path, settings: ScanSettings) -> tuple[PointCloud, ScanSettings]:
    """Points with colours and normals, and the settings with what is known of their unit and axes."""
    if path.is_dir() and (path / "coord.npy").is_file():
        scene = load_scene(path)
        color = None if scene.color is None else scene.color.astype(np.float32) / 255
        is_metric = settings.unit == "auto" and settings.up in ("auto", "z")
        return PointCloud(scene.coord, color, scene.normal), replace(settings, unit="m", up="z") if is_metric else settings
    if path.is_dir() and not (path / "meta.json").is_file():
        return _recording(path, settings)
    kind = sniff(path)
    if kind == "ply":
        header = read_header(path)
        if not (is_compressed(header) or is_splat(header)):
            return load_point_cloud(path), settings
    if kind in ("pcd", "las", "e57", "text"):
        return load_point_cloud(path), settings
    if kind in ("obj", "stl") or (kind in ("glb", "gltf") and not _holds_splats(path)):
        mesh = load_mesh(path, kind)
        log.warning(
            "%s: is a mesh; its %d vertices are segmented. Sample points on it for a finer result.", path, len(mesh.vertices)
        )
        points, rows = np.unique(mesh.vertices.astype(np.float32), axis=0, return_index=True)
        colors = vertex_colors(mesh)
        return PointCloud(points, None if colors is None else colors[rows]), settings
    return points_of_gaussians(load(path), path), settings


def _without_strays(cloud: PointCloud, path: Path) -> PointCloud:
    """Without points so far away that they are nothing of the scene."""
    low, high = _box(cloud.points)
    reach = STRAY * (high - low).max()
    near = ((cloud.points >= low - reach) & (cloud.points <= high + reach)).all(1)
    if near.all() or not reach:
        return cloud
    log.warning(
        "%s: left out %s of %s points, which lie over %.0f times the size of the rest away from it.",
        path, f"{(~near).sum():,}", f"{len(near):,}", STRAY,
    )  # fmt: skip
    colors, normals = (None if values is None else values[near] for values in (cloud.colors, cloud.normals))
    return PointCloud(cloud.points[near], colors, normals, cloud.origin)


def _holds_splats(path: Path) -> bool:
    from splatsense.io.gltf_splat import is_gltf_splat

    return is_gltf_splat(path)


def _recording(path: Path, settings: ScanSettings) -> tuple[PointCloud, ScanSettings]:
    found = find_recordings(path)
    if path not in found:
        inside = f"; it holds {found[0]}, name that" if found else ""
        raise FormatError(
            f"{path}: is no scan: a folder needs coord.npy (a scene), transforms.json, *.pose.txt or groundtruth.txt (a posed "
            f"RGB-D recording){inside}."
        )
    if settings.unit != "auto":
        raise DataError("--unit: a recording's unit is that of its depth; give --depth-scale instead.")
    recording = RecordingSettings(settings.frames, intrinsics=settings.intrinsics, depth_scale=settings.depth_scale, up="z")
    with tempfile.TemporaryDirectory() as scratch:
        scene = read_recording(path, Path(scratch), recording)
    assert scene.color is not None
    assert scene.frames is not None
    up = up_of_world(scene.frames.cameras, settings.up, str(path))
    cloud = PointCloud(scene.coord, scene.color.astype(np.float32) / 255, scene.normal)
    return cloud, replace(settings, unit="m", up=up)


def points_of_gaussians(gaussians: Gaussians, path: Path | str = "splat") -> PointCloud:
    """Centres, colours and shortest axes of the Gaussians that are seen; balls have no normal. Raises DataError if none is."""
    seen = gaussians[gaussians.opacities >= LEAST_OPACITY]
    if not len(seen):
        raise DataError(f"{path}: none of its {len(gaussians)} Gaussians has an opacity of {LEAST_OPACITY} or more.")
    axes = quaternion_to_matrix(seen.quats)
    shortest = seen.scales.argmin(1)[:, None, None].expand(-1, 3, 1)
    normal = axes.gather(2, shortest)[:, :, 0]
    middle = seen.means.median(0).values
    away = (normal * (middle - seen.means)).sum(1, keepdim=True) < 0
    ordered = seen.scales.sort(1).values
    is_ball = ordered[:, 0] > ROUND * ordered[:, 1]
    normal = torch.where(away, -normal, normal).masked_fill(is_ball[:, None], 0)
    return PointCloud(seen.means.numpy(), seen.rgb.numpy(), None if bool(is_ball.all()) else normal.numpy())


def _unit_normals(cloud: PointCloud, scale: float, path: Path | str) -> Float32[np.ndarray, "n 3"]:
    if cloud.normals is None:
        log.warning("%s: has no normals; they are estimated from neighbouring points.", path)
        return normals_towards_middle((cloud.points * np.float32(scale)).astype(np.float32))
    length = np.linalg.norm(cloud.normals, axis=1, keepdims=True)
    known = np.isfinite(length) & (length > 1e-12)
    return np.divide(cloud.normals, length, out=np.zeros_like(cloud.normals, np.float32), where=known).astype(np.float32)


def _upright(coord: np.ndarray, normal: np.ndarray, up: Up, path: Path | str) -> Float[np.ndarray, "3 3"]:
    """The quarter turns that bring the axis that points up to z."""
    if up == "auto":
        up = detect_up(coord, normal)
        if up != "z":
            log.warning("%s: %s seems to point up; the scan was turned for the network. Say --up z if it does not.", path, up)
    return turn_to_z(up)


def _box(coord: np.ndarray) -> Float[np.ndarray, "2 3"]:
    return np.quantile(coord[:: max(1, len(coord) // 200_000)], [OUTLIERS, 1 - OUTLIERS], axis=0)


def _sides(coord: np.ndarray) -> Float[np.ndarray, "3"]:
    low, high = _box(coord)
    return high - low


def unit_by_size(coord: np.ndarray) -> str:
    """The unit of a scan, by its smallest side: "m" unless no room or building is that high, then "cm" or "mm"."""
    smallest = _sides(coord).min()
    return "m" if smallest <= LARGE_IN_CM else "cm" if smallest <= LARGE_IN_MM else "mm"


def _detected_unit(coord: np.ndarray, path: Path | str) -> float:
    """Metres in a unit, by the size."""
    unit = unit_by_size(coord)
    if unit != "m":
        name = {"cm": "centimetres", "mm": "millimetres"}[unit]
        side = _sides(coord)
        log.warning("%s: spans %.0f x %.0f x %.0f; it was taken for %s. Say --unit m if it is not.", path, *side, name)
    return UNITS[unit]


def _warn_of_height(upright: np.ndarray, path: Path | str) -> None:
    height = _sides(upright)[2]
    if not LOWEST <= height <= HIGHEST:
        log.warning(
            "%s: would be %.2f m high; rooms are %.1f m to %.0f m. Give --unit (m, cm, mm, ft, in, or metres per unit).",
            path, height, LOWEST, HIGHEST,
        )  # fmt: skip
