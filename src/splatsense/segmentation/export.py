"""Predictions on disk: `.npz` for programs, `.ply` coloured by label for viewers, `.json` of instances with their boxes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, UInt8

from splatsense.errors import FormatError
from splatsense.files import atomic_write
from splatsense.labels import UNLABELLED_COLOR, LabelSet
from splatsense.segmentation.predict import Prediction

FIELDS = ("semantic", "confidence", "instance", "instance_labels", "instance_scores")
WHOLE = ("semantic", "instance", "instance_labels")
PLY_TYPES = {"<f8": "double", "<f4": "float", "|u1": "uchar", "<i4": "int"}


def save_prediction(
    path: Path, prediction: Prediction, labels: LabelSet, coord: Float[np.ndarray, "n 3"] | None = None
) -> None:
    """Write all arrays of a prediction, and the names of the classes as `classes`, into an `.npz`.

    Args:
        path: ends in .npz.
        prediction: of the points.
        labels: its classes.
        coord: of the points; written too where it is given.
    """
    arrays: dict[str, Any] = {name: getattr(prediction, name) for name in FIELDS}
    if coord is not None:
        arrays["coord"] = coord
    with atomic_write(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **arrays, classes=np.array(labels.names))


def load_prediction(path: Path, labels: LabelSet) -> Prediction:
    """Read what `save_prediction`, or another program, wrote.

    Raises:
        FormatError: the file is missing or damaged, its arrays do not fit together, or its classes are not those of `labels`.
    """
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in (*FIELDS, "classes")}
    except FileNotFoundError as error:
        raise FormatError(f"{path}: does not exist; every scene of the split needs a prediction of that name.") from error
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, BadZipFile) as error:
        raise FormatError(f"{path}: is no prediction of splatsense, or damaged ({error}).") from error
    if arrays.pop("classes").tolist() != list(labels.names):
        raise FormatError(f"{path}: was made with other classes than {labels.name}; give the label set it was made with.")
    _check(path, arrays)
    return Prediction(**arrays)


def _check(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A number beyond the instances, as where they are counted from 1, would silently lose its points."""
    points, instances = arrays["semantic"].size, arrays["instance_labels"].size
    for name in FIELDS:
        found, expected = arrays[name], (instances if name.startswith("instance_") else points,)
        if found.shape != expected or (name in WHOLE and found.dtype.kind not in "iu"):
            kind = "whole numbers" if name in WHOLE else "numbers"
            raise FormatError(f"{path}: {name} is {found.dtype} {found.shape}, expected {kind} {expected}.")
    numbers = arrays["instance"]
    if points and not -1 <= numbers.min() <= numbers.max() < instances:
        raise FormatError(
            f"{path}: instance holds {numbers.min()} to {numbers.max()}; its {instances} instances are numbered from 0, "
            "-1 is none."
        )


def semantic_colors(prediction: Prediction, labels: LabelSet) -> UInt8[np.ndarray, "n 3"]:
    """Colour of each point's class."""
    return labels.colors[prediction.semantic]


def instance_colors(prediction: Prediction) -> UInt8[np.ndarray, "n 3"]:
    """A colour for each instance, dark grey for points of none."""
    table = np.concatenate([distinct_colors(len(prediction.instance_labels)), [UNLABELLED_COLOR]]).astype(np.uint8)
    return table[prediction.instance]  # -1 is the last


def distinct_colors(count: int) -> UInt8[np.ndarray, "{count} 3"]:
    """Saturated colours that differ from those before them: hues by the golden ratio, two brightnesses."""
    hue = np.arange(count) * 0.61803399 % 1
    value = np.where(np.arange(count) % 2, 0.75, 1.0)
    channels = np.clip(np.abs((hue[:, None] * 6 + [0, 4, 2]) % 6 - 3) - 1, 0, 1)
    return (255 * value[:, None] * (0.25 + 0.75 * channels)).astype(np.uint8).reshape(count, 3)


def write_points(
    path: Path,
    coord: Float[np.ndarray, "n 3"],
    color: UInt8[np.ndarray, "n 3"],
    columns: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write points as binary PLY.

    Args:
        path: ends in .ply.
        coord: as they are to stand in the file; float64 as doubles.
        color: sRGB.
        columns: further properties of the points by name, floats or integers.
    """
    values: dict[str, np.ndarray] = dict(zip("xyz", coord.astype("<f8" if coord.dtype == np.float64 else "<f4").T, strict=True))
    values |= dict(zip(("red", "green", "blue"), color.T, strict=True))
    for name, column in (columns or {}).items():
        values[name] = column.astype("<f4" if column.dtype.kind == "f" else "<i4")
    table = np.empty(len(coord), [(name, column.dtype) for name, column in values.items()])
    for name, column in values.items():
        table[name] = column
    lines = ["ply", "format binary_little_endian 1.0", "comment splatsense", f"element vertex {len(coord)}"]
    lines += [f"property {PLY_TYPES[column.dtype.str]} {name}" for name, column in values.items()]
    with atomic_write(path) as temporary, temporary.open("wb") as handle:
        handle.write("\n".join([*lines, "end_header", ""]).encode())
        table.tofile(handle)


def describe_instances(
    prediction: Prediction, labels: LabelSet, coord: Float[np.ndarray, "n 3"], metres: Float[np.ndarray, "n 3"]
) -> list[dict[str, Any]]:
    """Each instance as JSON, the surest first: number, class, score, colour, points, and the box around its points.

    Args:
        prediction: of the points.
        labels: its classes.
        coord: of the points in the axes and units of their file, in which the boxes are given.
        metres: the same points, z up, in metres; `size_in_metres` is along these axes, height last.
    """
    found, colors = [], distinct_colors(len(prediction.instance_labels)).tolist()
    order = np.argsort(prediction.instance, kind="stable")
    starts = np.searchsorted(prediction.instance[order], np.arange(len(prediction.instance_labels) + 1))
    for number in np.argsort(-prediction.instance_scores, kind="stable").tolist():
        rows = order[starts[number] : starts[number + 1]]
        own, upright = coord[rows], metres[rows]
        found.append({
            "instance": number,
            "class": labels.names[prediction.instance_labels[number]],
            "score": round(float(prediction.instance_scores[number]), 4),
            "color": colors[number],
            "points": len(rows),
            "box": {"low": _rounded(own.min(0)), "high": _rounded(own.max(0))},
            "size_in_metres": [round(float(side), 3) for side in upright.max(0) - upright.min(0)],
        })  # fmt: skip
    return found


def _rounded(corner: np.ndarray) -> list[float]:
    digits = 12 if corner.dtype == np.float64 else 7  # micrometres in a country's grid; what float32 holds
    return [float(f"{value:.{digits}g}") for value in corner.tolist()]


def write_json(path: Path, content: Any) -> None:
    """Write JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
