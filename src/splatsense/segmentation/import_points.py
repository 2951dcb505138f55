"""`splatsense scenes points`: labelled point clouds, PLY files whose points have a number for their class, become scenes.

Design
- Unit, axis up and missing normals are told as `splatsense segment` does (`scan.py`): a model meets scans as it was trained.
- Numbers become indices into the label set here, once: `--first` is taken off, and what means no label becomes -1. CloudCompare
  keeps them as floats, called scalar_..., and NaN where a point has none.
- With a label set every file must have labels, all of them in it. Without one labels are taken as they are, and files that have
  none are imported without.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatsense.errors import DataError, FormatError
from splatsense.files import walk
from splatsense.geometry.upright import Up
from splatsense.import_scenes import SceneSource, import_scenes
from splatsense.io._ply_container import read_header
from splatsense.io.ply import is_splat, read_point_cloud
from splatsense.label_files import label_set
from splatsense.labels import UNLABELLED, LabelSet
from splatsense.scenes import ARRAYS, Scene
from splatsense.segmentation.scan import ScanSettings, scan_of_cloud

log = logging.getLogger("splatsense")

LABEL_NAMES, INSTANCE_NAMES = ("label", "class", "segment", "classification"), ("instance",)
PREFIX = "scalar_"  # of CloudCompare


@dataclass(frozen=True)
class PointsSettings:
    """How labelled point clouds are read."""

    labels: str = ""
    """label set of the files: a JSON file of classes, scannet20, scannet200 or s3dis; by default labels are taken as is"""
    property: str = ""
    """property that holds the labels; by default label, class, segment or classification, also with scalar_ before it"""
    unlabelled: tuple[int, ...] = ()
    """numbers that mean no label, beside -1"""
    first: int = 0
    """number of the first class in the files"""
    unit: str = "auto"
    """of the coordinates: m, cm, mm, ft, in, or metres per unit as a number; auto tells it by the size"""
    up: Up = "auto"
    """axis that points up; auto tells it by the planes of the scan"""


def import_points(source: tuple[Path, ...], out: Path, settings: PointsSettings, split: str = "train") -> int:
    """Import labelled point clouds (.ply), with colours, normals and instances where they have them.

    Args:
        source: Files, or folders of files to any depth.
        out: Folder for the scenes.
        settings: How files become scenes.
        split: Folder below OUT that they go into.
    """
    labels = label_set(settings.labels) if settings.labels else None
    ScanSettings(unit=settings.unit).metres()  # a wrong unit is wrong for all
    files = [file for path in source for file in (_find(path) if path.is_dir() else [path])]
    if not files:
        raise FormatError(f"--source: {' '.join(map(str, source)) or 'nothing'} holds no .ply file.")
    sources = [
        SceneSource(path, path.stem, split, lambda _, path=path: read_points(path, settings, labels), labels)
        for path in dict.fromkeys(files)
    ]
    return import_scenes("point clouds", sources, out).tell("imported")


def _find(folder: Path) -> list[Path]:
    return sorted(inside / file for inside, _, files in walk(folder) for file in files if file.lower().endswith(".ply"))


def read_points(path: Path, settings: PointsSettings, labels: LabelSet | None) -> Scene:
    """Read a PLY file as a scene.

    Args:
        path: of the file.
        settings: see there; its label set is `labels`.
        labels: that the file must have labels of; None takes them as they are, or none.

    Raises:
        FormatError: it is missing, damaged, or no point cloud.
        DataError: labels are missing, not whole or out of range, or several properties may hold them.
    """
    header = read_header(path)
    if is_splat(header):
        raise FormatError(f"{path}: is a Gaussian splat; labels are read of point clouds. Export its centres with colours.")
    vertex = header.elements.get("vertex")
    properties = vertex.properties if vertex else {}
    semantic = _named(path, properties, settings.property) if settings.property else _one(path, properties, LABEL_NAMES)
    if semantic is None and labels is not None:
        raise DataError(f"{path}: has no labels; name their property with --property. It has {', '.join(properties)}.")
    if semantic is None:
        log.warning("%s: has no labels; it is imported without.", path)
    instance = _one(path, properties, INSTANCE_NAMES)
    cloud = read_point_cloud(path, [name for name in (semantic, instance) if name is not None])
    points = scan_of_cloud(cloud, path, ScanSettings(settings.unit, settings.up)).points
    arrays = {
        "color": None if cloud.colors is None else (cloud.colors * 255).round().astype(np.uint8),
        "normal": points.normal.numpy(),
    }
    if semantic is not None:
        name = ARRAYS[labels.array if labels else "segment"].name
        arrays[name] = _indices(path, semantic, cloud.columns[semantic], settings, labels)
    if instance is not None:
        arrays["instance"] = _instances(path, instance, cloud.columns[instance])
    return Scene(path.stem, points.coord.numpy(), **arrays)


def _named(path: Path, properties: Mapping[str, str | None], name: str) -> str:
    if name not in properties:
        raise DataError(f"{path}: has no property {name}; it has {', '.join(properties)}.")
    return name


def _one(path: Path, properties: Mapping[str, str | None], names: tuple[str, ...]) -> str | None:
    """The property of one of these names, in any case and with or without CloudCompare's prefix."""
    found = [name for name in properties if name.casefold().removeprefix(PREFIX) in names]
    if len(found) > 1:
        raise DataError(f"{path}: has {' and '.join(found)}; name the one of the labels with --property, or keep one only.")
    return found[0] if found else None


def _indices(path: Path, name: str, values: np.ndarray, settings: PointsSettings, labels: LabelSet | None) -> np.ndarray:
    """(N,) int16 indices of the classes, -1 for none."""
    most = len(labels) - 1 if labels else np.iinfo(np.int16).max
    none = np.isnan(values) | np.isin(values, [UNLABELLED, *settings.unlabelled])
    index = np.where(none, UNLABELLED, values - settings.first)
    wrong = ~none & ~((index >= 0) & (index <= most) & (index == np.floor(index)))
    if wrong.any():
        value = f"{values[wrong][0]:g}"
        has = f"{labels.name} has {len(labels)} class{'es' if len(labels) > 1 else ''}" if labels else "classes are"
        raise DataError(
            f"{path}: {name} holds {value}, but {has} numbered from {settings.first} to {settings.first + most}; "
            f"--unlabelled {value} if it means no label, --first N if classes are numbered from N."
        )
    return index.astype(np.int16)


def _instances(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """(N,) int32 instances, -1 for none."""
    none = np.isnan(values) | (values < 0)
    values = np.where(none, UNLABELLED, values)
    wrong = (values != np.floor(values)) | (values > np.iinfo(np.int32).max)
    if wrong.any():
        raise DataError(f"{path}: {name} is {values[wrong][0]:g}; instances are whole numbers of at most 31 bits, -1 for none.")
    return values.astype(np.int32)
