"""`splatsense segment` and `splatsense similar`: labels, instances and likeness for the points of a user's own scan."""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from jaxtyping import Float32, Float64, UInt8
from torch.nn.functional import normalize

from splatsense.errors import DataError, FormatError
from splatsense.gaussian_cross.model import load_backbone
from splatsense.gaussian_cross.unet import SpUNet
from splatsense.segmentation.export import (
    describe_instances,
    instance_colors,
    save_prediction,
    semantic_colors,
    write_json,
    write_points,
)  # fmt: skip
from splatsense.segmentation.model import SegmentationModel, load_segmentation_model
from splatsense.segmentation.points import Points
from splatsense.segmentation.predict import Prediction, Views, predict, voxel_features
from splatsense.segmentation.scan import Scan, ScanSettings, read_scan
from splatsense.segmentation.scan_picture import draw_scan
from splatsense.tables import counted, table

LIGHT_GREY = (205, 205, 205)  # of points of no instance in a picture, which is white around them
HEAT = np.array([[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]], np.float64)
HEAT_STEPS = 6  # of the key
ScanPath = Annotated[Path, tyro.conf.arg(metavar="SCAN")]
OutputFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]
MODEL, BACKBONE = "rooms20-tiny", "gaussian-cross-tiny"  # bundled
DEFAULT = ScanSettings()


def segment(
    scan: ScanPath,
    out: OutputFolder = None,
    model: str = MODEL,
    views: Views = "one",
    settings: ScanSettings = DEFAULT,
) -> str:
    """Say what every point of a scan belongs to: classes, and instances with boxes where the model has them.

    Writes semantic.ply, coloured by class, semantic.png and prediction.npz; with instances also instances.ply, instances.png
    and instances.json.

    Args:
        scan: A point cloud, splat or mesh; or the folder of a scene or of a posed RGB-D recording.
        out: Folder for the results; by default SCAN's name with -segments, in the current folder.
        model: A bundled model's name, or the folder of one.
        views: One pass, or the votes of all test-time augmentations, 13 times slower.
        settings: How the scan is read.
    """
    start = time.monotonic()
    loaded = load_segmentation_model(model)
    read = read_scan(scan, settings)
    folder = _folder(out, scan, "segments")
    prediction = predict(loaded, read.points, views)
    _write_classes(folder, read, prediction, loaded)
    lines = [_class_table(prediction, loaded)]
    if loaded.has_instances:
        found = _write_instances(folder, read, prediction, loaded)
        lines.append(f"{counted(len(found), 'instance')} in {folder / 'instances.json'}")
    lines.append(f"{len(read.coord):,} points in {time.monotonic() - start:.1f} s; results are in {folder}.")
    return "\n".join(lines)


def similar(
    scan: ScanPath,
    point: Annotated[str, tyro.conf.arg(metavar="X,Y,Z", help_behavior_hint="(required)")] = "",
    out: OutputFolder = None,
    model: str = BACKBONE,
    settings: ScanSettings = DEFAULT,
) -> str:
    """Show what is like a point of a scan to a backbone: a heat map of the cosine similarity of features.

    Writes similar.ply, with the similarity as a property of each point, and similar.png.

    Args:
        scan: A point cloud, splat or mesh; or the folder of a scene or of a posed RGB-D recording.
        point: In the axes and units of the file; the nearest point of the scan is taken. With a minus first: --point=-1,2,3.
        out: Folder for the results; by default SCAN's name with -similar, in the current folder.
        model: A segmentation model or a pre-trained backbone: a bundled one's name, or a folder.
        settings: How the scan is read.
    """
    target = _numbers(point)
    backbone = load_backbone(model)
    read = read_scan(scan, settings)
    row = int(np.square(read.coord - target).sum(1).argmin())
    away = float(np.linalg.norm((read.coord[row] - target) @ read.matrix.T))
    folder = _folder(out, scan, "similar")
    likeness = similarity(backbone.network, read.points, backbone.voxel, row)
    low, high = (float(value) for value in np.quantile(likeness, [0.05, 0.95]))
    colors = heat_colors(likeness, low)
    write_points(folder / "similar.ply", read.coord, colors, {"similarity": likeness})
    steps = np.linspace(1, low, HEAT_STEPS, dtype=np.float32)
    key = [(f"{value:.2f}", _rgb(color)) for value, color in zip(steps, heat_colors(steps, low), strict=True)]
    draw_scan(folder / "similar.png", read.points, colors, key, "cosine similarity", row)
    x, y, z = read.coord[row].tolist()
    return (
        f"compared with the point at {x:.3f} {y:.3f} {z:.3f}, {away:.2f} m from the one given; similarity "
        f"{low:.2f} to {high:.2f} (5 to 95 % of the points). "
        f"Results are in {folder}."
    )


def similarity(backbone: SpUNet, points: Points, voxel: float, row: int) -> Float32[np.ndarray, " n"]:
    """Cosine between a backbone's features of a point's voxel and those of every point's voxel, in [-1, 1]."""
    features, inverse = voxel_features(backbone, points, voxel)
    features = normalize(features, dim=1)
    return (features @ features[inverse[row]]).clamp(-1, 1)[inverse].numpy()


def heat_colors(values: Float32[np.ndarray, " n"], low: float | None = None) -> UInt8[np.ndarray, "n 3"]:
    """Dark blue over red to yellow, from `low`, by default the 5 % quantile, to 1."""
    low = float(np.quantile(values, 0.05)) if low is None else low
    place = np.clip((values.astype(np.float64) - low) / max(1 - low, 1e-6), 0, 1) * (len(HEAT) - 1)
    channels = [np.interp(place, np.arange(len(HEAT)), HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def _numbers(point: str) -> Float64[np.ndarray, "3"]:
    try:
        target = np.array([float(part) for part in point.split(",")])
    except ValueError:
        target = np.empty(0)
    if target.shape != (3,) or not np.isfinite(target).all():
        raise DataError(f"--point {point or 'X,Y,Z'}: must be three numbers with commas between them, such as 1.5,0.2,0.9.")
    return target


def _folder(out: Path | None, scan: Path, what: str) -> Path:
    folder = out or Path(f"{scan.absolute().name.removesuffix(scan.suffix) if scan.is_file() else scan.absolute().name}-{what}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(f"{folder}: cannot be made ({error.strerror}); choose another folder with --out.") from error
    return folder


def _write_classes(folder: Path, read: Scan, prediction: Prediction, model: SegmentationModel) -> None:
    colors = semantic_colors(prediction, model.labels)
    write_points(
        folder / "semantic.ply", read.coord, colors, {"label": prediction.semantic, "confidence": prediction.confidence}
    )
    save_prediction(folder / "prediction.npz", prediction, model.labels, read.coord)
    key = [(model.labels.names[label], _rgb(model.labels.colors[label])) for label in _by_count(prediction, model)]
    draw_scan(folder / "semantic.png", read.points, colors, key)


def _write_instances(folder: Path, read: Scan, prediction: Prediction, model: SegmentationModel) -> list[dict[str, Any]]:
    colors = instance_colors(prediction)
    write_points(folder / "instances.ply", read.coord, colors, {"instance": prediction.instance, "label": prediction.semantic})
    found = describe_instances(prediction, model.labels, read.coord, read.points.coord.numpy())
    write_json(folder / "instances.json", {"model": model.name, "labels": model.labels.name, "instances": found})
    shown = np.where(prediction.instance[:, None] < 0, np.array(LIGHT_GREY, np.uint8), colors)
    draw_scan(folder / "instances.png", read.points, shown)
    return found


def _class_table(prediction: Prediction, model: SegmentationModel) -> str:
    rows = [("class", "points", "share", "mean confidence")]
    for label in _by_count(prediction, model):
        own = prediction.semantic == label
        sure = prediction.confidence[own].mean()
        rows.append((model.labels.names[label], f"{own.sum():,}", f"{own.mean():.1%}", f"{sure:.2f}"))
    return table(rows, "<>>>")


def _by_count(prediction: Prediction, model: SegmentationModel) -> list[int]:
    """The classes that were found, that of most points first."""
    counts = np.bincount(prediction.semantic, minlength=len(model.labels))
    return [label for label in np.argsort(-counts, kind="stable").tolist() if counts[label]]


def _rgb(color: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = color.tolist()
    return red, green, blue
