"""`Scene`: a labelled point cloud of an indoor scene with its posed RGB-D frames, and the folder it is kept in.

Design
- A folder holds Pointcept's arrays (`coord color normal segment20 segment200 segment instance`, each a `.npy`), which users
  already have, and the files of its frames (`frame_files`). All but `coord.npy` may be missing.
- A folder appears under its name only when it is complete. What is saved and loaded again is equal to the last bit.
- `load_scene` also takes folders that Pointcept wrote: other number types are converted when that loses nothing.
- `segment.npy` may be of any label set; `segment.json` beside it says which, where that is known, so that none are mixed up.
  So does `import.json` of the settings that a recording was imported with.
- A scene is called what its folder is called; a corpus is a folder of splits, a split a folder of scenes.
"""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from splatsense.errors import DataError, FormatError
from splatsense.files import DISK_FAULTS, open_to_read
from splatsense.frame_files import CAMERAS, load_frames, save_frames
from splatsense.frames import Frames
from splatsense.io._json import parse_object
from splatsense.labels import SCANNET20, SCANNET200, LabelSet

UNIT_TOLERANCE = 1e-2
LABEL_SET = "segment.json"
MADE_WITH = "import.json"


@dataclass(frozen=True, eq=False)
class Scene:
    """An indoor scene, z up, in metres.

    Attributes:
        name: of its folder.
        coord: (N, 3) float32, finite, at least one point.
        color: (N, 3) uint8 sRGB, or None.
        normal: (N, 3) float32, of unit length or zero where it is not known, or None.
        semantic20: (N,) int16 indices into `labels.SCANNET20`, -1 where unlabelled, or None.
        semantic200: the same for `labels.SCANNET200`.
        semantic: the same for `labels.S3DIS`, or a label set of a user's own (`label_files`).
        instance: (N,) int32 ids >= 0, -1 for none, or None.
        frames: posed colour and depth, or None.

    Raises:
        DataError: an array has another type or shape, values that are not finite, or labels out of range.
    """

    name: str
    coord: np.ndarray
    color: np.ndarray | None = None
    normal: np.ndarray | None = None
    semantic20: np.ndarray | None = None
    semantic200: np.ndarray | None = None
    semantic: np.ndarray | None = None
    instance: np.ndarray | None = None
    frames: Frames | None = None

    def __post_init__(self) -> None:
        count = len(self.coord)
        if not count:
            raise DataError(f"scene {self.name}: holds no points.")
        for field in ARRAYS.values():
            value = getattr(self, field.name)
            if value is not None and (value.dtype != field.dtype or value.shape != (count, *field.columns)):
                raise DataError(
                    f"scene {self.name}: {field.name} is {value.dtype} {value.shape}, "
                    f"expected {np.dtype(field.dtype)} {(count, *field.columns)}."
                )
        if not np.isfinite(self.coord).all():
            row = int(np.argwhere(~np.isfinite(self.coord))[0, 0])
            raise DataError(f"scene {self.name}: point {row} is not finite; remove such points.")
        if self.normal is not None:
            length = np.einsum("nc,nc->n", self.normal, self.normal)
            bad = ~((np.abs(length - 1) < 2 * UNIT_TOLERANCE) | (length == 0))
            if bad.any():
                raise DataError(f"scene {self.name}: normal {int(bad.argmax())} is neither of unit length nor zero.")
        for field in ARRAYS.values():
            value = getattr(self, field.name)
            if field.most is not None and value is not None and (value.min() < -1 or value.max() > field.most):
                row = int(((value < -1) | (value > field.most)).argmax())
                raise DataError(
                    f"scene {self.name}: {field.name}[{row}] is {value[row]}; labels are -1 (none) to {field.most}. "
                    "Map the labels to the classes of splatsense.labels first."
                )

    def __len__(self) -> int:
        return len(self.coord)

    def labels_of(self, labels: LabelSet) -> np.ndarray:
        """(N,) int16 indices into a label set. Raises DataError when there are none, or some that the set does not have."""
        values = getattr(self, ARRAYS[labels.array].name)
        if values is None:
            there = [f"{file}.npy" for file in SEGMENTS if getattr(self, ARRAYS[file].name) is not None]
            raise DataError(
                f"scene {self.name}: has no labels of {labels.name} ({labels.array}.npy); "
                f"it has {', '.join(there) or 'no labels at all'}."
            )
        if values.max() >= len(labels):
            row = int((values >= len(labels)).argmax())
            raise DataError(
                f"scene {self.name}: {labels.array}.npy has the label {values[row]} at row {row}, but the label set "
                f"{labels.name} has {len(labels)} class{'es' if len(labels) > 1 else ''}: labels are -1 (none) to "
                f"{len(labels) - 1}."
            )
        return values


@dataclass(frozen=True)
class ArrayField:
    """An array of a scene: its name in `Scene`, type, shape after the first dimension, and the largest label it may hold."""

    name: str
    dtype: type
    columns: tuple[int, ...] = ()
    most: int | None = None


ARRAYS = {
    "coord": ArrayField("coord", np.float32, (3,)),
    "color": ArrayField("color", np.uint8, (3,)),
    "normal": ArrayField("normal", np.float32, (3,)),
    "segment20": ArrayField("semantic20", np.int16, most=len(SCANNET20) - 1),
    "segment200": ArrayField("semantic200", np.int16, most=len(SCANNET200) - 1),
    "segment": ArrayField("semantic", np.int16, most=np.iinfo(np.int16).max),  # `Scene.labels_of` knows the label set
    "instance": ArrayField("instance", np.int32, most=np.iinfo(np.int32).max),
}
"""By the names of Pointcept's files, which are `<name>.npy`."""
SEGMENTS = ("segment20", "segment200", "segment")


def save_scene(
    scene: Scene,
    folder: str | os.PathLike[str],
    labels: LabelSet | None = None,
    made_with: Mapping[str, Any] | None = None,
) -> None:
    """Write a scene into a new folder, with copies of its frames' files.

    The folder appears when all of it is written. Its parents are made.

    Args:
        scene: to write.
        folder: to make.
        labels: label set that `scene.semantic` is of, which is written beside it, where that is known.
        made_with: settings that the scene was made with, which are written beside it too.

    Raises:
        FormatError: the folder exists already or cannot be written, or a file of a frame is missing.
    """
    folder = Path(folder)
    if folder.exists():
        raise FormatError(f"{folder}: exists already; delete it or choose another name.")
    temporary = folder.with_name(f".{folder.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.mkdir(parents=True)
        for file, field in ARRAYS.items():
            value = getattr(scene, field.name)
            if value is not None:
                np.save(temporary / f"{file}.npy", value, allow_pickle=False)
        if scene.frames is not None:
            save_frames(scene.frames, temporary)
        if labels is not None and labels.array == "segment" and scene.semantic is not None:
            record = {"name": labels.name, "classes": list(labels.names)}
            (temporary / LABEL_SET).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        if made_with is not None:
            (temporary / MADE_WITH).write_text(json.dumps(made_with, indent=1) + "\n", "utf-8")
        temporary.rename(folder)
    except OSError as error:
        reason = "free some space" if error.errno in DISK_FAULTS else "check that its parent is a writable folder"
        raise FormatError(f"{folder}: not written ({error.strerror or error}); {reason}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # it is gone when all went well


def load_scene(folder: str | os.PathLike[str], labels: LabelSet | None = None) -> Scene:
    """Read the folder of a scene, written by `save_scene` or by Pointcept's preprocessing.

    The frames' images stay in their files until `Frames.frame` asks for them.

    Args:
        folder: of the scene.
        labels: that its points must have.

    Raises:
        FormatError: the folder or a file in it is missing or damaged, or there are arrays of other lengths.
        DataError: values are not finite, labels out of range, not there or of another label set, or a camera is mirrored or
            scaled.
    """
    folder = Path(folder)
    if not (folder / "coord.npy").is_file():
        raise FormatError(f"{folder}: no scene: it has no coord.npy. {_what_instead(folder)}")
    if labels is not None:
        check_label_set(folder, labels)
    arrays: dict[str, Any] = {}
    for file, field in ARRAYS.items():
        path = folder / f"{file}.npy"
        if path.is_file():
            arrays[field.name] = _load_array(path, field)
            if len(arrays[field.name]) != len(arrays["coord"]):
                raise FormatError(f"{path}: has {len(arrays[field.name])} rows, coord.npy {len(arrays['coord'])}.")
    try:
        frames = load_frames(folder / CAMERAS) if (folder / CAMERAS).is_file() else None
        scene = Scene(folder.absolute().name, frames=frames, **arrays)
        if labels is not None:
            scene.labels_of(labels)
        return scene
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error


def _what_instead(folder: Path) -> str:
    if not folder.is_dir():
        return "The folder does not exist; check the name."
    if any(folder.glob("*.pth")):
        return (
            "Its .pth files are pickles of an older Pointcept, which could run any code; preprocess the data again with a "
            "current Pointcept, which writes .npy files."
        )
    if any(folder.glob("*/coord.npy")):
        return "It is a folder of scenes; name one of them."
    return "Make scenes of other data with `splatsense scenes`."


def _load_array(path: Path, field: ArrayField) -> np.ndarray:
    open_to_read(path).close()
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a shape that the file cannot hold takes no memory
    except (ValueError, TypeError, OverflowError, EOFError, OSError, SyntaxError, TokenError) as error:
        raise FormatError(f"{path}: is no array of numbers, or cut off ({error}); copy or make it again.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iufb":
        raise FormatError(f"{path}: holds no array of numbers; make it again.")
    if not field.columns and array.shape[1:] == (1,):
        array = array[:, 0]
    if array.shape[1:] != field.columns or array.ndim == 0:
        raise FormatError(f"{path}: has the shape {array.shape}, expected (N{''.join(f', {n}' for n in field.columns)}).")
    if array.dtype == field.dtype:
        return np.array(array, order="C")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = np.array(array, field.dtype, order="C")
    if not np.issubdtype(field.dtype, np.floating) and not (converted == array).all():
        row = int(np.argwhere(converted != array)[0, 0])
        raise FormatError(f"{path}: row {row} is {array[row]}, which no {np.dtype(field.dtype)} holds; map the values first.")
    if field.name == "normal":
        length = np.linalg.norm(converted, axis=1, keepdims=True)
        converted = np.divide(converted, length, out=np.zeros_like(converted), where=length > 0)
    return converted


def check_label_set(folder: Path, labels: LabelSet) -> None:
    """Raise DataError when a scene's `segment.npy` is known to be of another label set.

    A set may have more classes at its end than the other. A scene that does not say what its labels are of is taken.
    """
    path = folder / LABEL_SET
    if labels.array != "segment" or not path.is_file():
        return
    with open_to_read(path) as handle:
        record = parse_object(handle.read(), str(path))
    name, classes = record.get("name"), record.get("classes")
    if not isinstance(classes, list):
        raise FormatError(f'{path}: has no list "classes"; import the scene again.')
    for index, (theirs, ours) in enumerate(zip(classes, labels.names, strict=False)):
        if theirs != ours:
            raise DataError(
                f"{folder}: its labels are of the label set {name}, not of {labels.name}: class {index} is {theirs!r} there "
                f"and {ours!r} here. Use that one, or delete the scene and import it again with {labels.name}; if classes were "
                f"only renamed, delete {path}."
            )


def check_made_with(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise DataError when a scene is known to be made with other settings, as far as both say."""
    path = folder / MADE_WITH
    with open_to_read(path) as handle:
        record = parse_object(handle.read(), str(path))
    for name, value in json.loads(json.dumps(settings)).items():
        if record.get(name, value) != value:
            raise DataError(
                f"{folder}: was imported with {name} {record[name]}, not {value}. Choose another --out, or delete this folder "
                "to import it again."
            )


def list_scenes(root: str | os.PathLike[str], split: str = "", labels: LabelSet | None = None) -> list[Path]:
    """The folders of all scenes of a split ("train", "val", "Area_5"), sorted; of `root` itself when it is "".

    Args:
        root: folder of splits.
        split: its name.
        labels: label set that all of them must be of, as far as they say.

    Raises:
        FormatError: there are none.
        DataError: one is of another label set.
    """
    folder = Path(root) / split
    scenes = sorted(path.parent for path in folder.glob("*/coord.npy") if not path.parent.name.startswith("."))
    if not scenes:
        found = ", ".join(sorted(path.name for path in Path(root).glob("*") if path.is_dir())[:12]) if split else ""
        raise FormatError(
            f"{folder}: holds no scene (a folder with coord.npy). "
            + (f"{root} holds {found}." if found else _what_instead(folder))
        )
    if labels is not None:
        for scene in scenes:
            check_label_set(scene, labels)
    return scenes
