"""Label sets by name, or of a user's own: a JSON file, or what a model's card keeps of one.

    {"name": "warehouse", "classes": ["floor", "rack", "pallet"], "colors": {"pallet": "#c08040"}, "leave_out": ["floor"]}

Design
- The order of the classes gives their indices. A class without a colour gets one that is far from all others, from the white
  of pictures and from the grey of points without a label; a class that is added at the end changes none of these.
- `leave_out` are the classes that are no instances. Both it and `colors` may be missing; what is unknown is an error, so that
  no slip of the pen is passed over.
- Points carry the indices in `segment.npy`, as in Pointcept's data sets that are none of ScanNet's.
- A model keeps its label set in its card, all colours included, so that the file is needed for training only.
"""

import re
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from splatsense.color_distance import colors_apart
from splatsense.errors import DataError, FormatError
from splatsense.files import open_to_read
from splatsense.io._json import Json, parse_object
from splatsense.labels import LABEL_SETS, UNLABELLED_COLOR, Label, LabelSet

KEYS = ("name", "classes", "colors", "leave_out")
MOST_CLASSES = 1000
TAKEN = [(255, 255, 255), UNLABELLED_COLOR]  # the first is the ground of pictures


def label_set(name_or_path: str) -> LabelSet:
    """A label set by its name in `LABEL_SETS`, or from a JSON file.

    Raises:
        FormatError: there is no such file, or it is not JSON.
        DataError: what the file holds is no label set.
    """
    if name_or_path in LABEL_SETS:
        return LABEL_SETS[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise FormatError(f"--labels {name_or_path}: neither one of {', '.join(LABEL_SETS)} nor a JSON file of classes.")
    with open_to_read(path) as handle:
        return label_set_of(parse_object(handle.read(), str(path)), str(path))


def label_set_of(content: Json, where: str) -> LabelSet:
    """The label set that a JSON object describes; `where` names its file in errors. Raises DataError when it is none."""
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise DataError(f"{where}: has an unknown entry {unknown[0]!r}; a label set has {', '.join(KEYS)}.")
    name, names = content.get("name"), content.get("classes")
    if not isinstance(name, str) or not name.strip() or name.casefold() in LABEL_SETS:
        raise DataError(f'{where}: "name" must be a text other than {", ".join(LABEL_SETS)}.')
    if not _is_texts(names) or not 1 <= len(names) <= MOST_CLASSES:
        raise DataError(f'{where}: "classes" must be a list of 1 to {MOST_CLASSES} names of classes.')
    leave_out = content.get("leave_out", [])
    if not _is_texts(leave_out):
        raise DataError(f'{where}: "leave_out" must be a list of names of classes.')
    colors = _colors(content.get("colors", {}), names, where)
    missing = [each for each in names if each not in colors]
    free = colors_apart(len(missing), np.array([*TAKEN, *colors.values()], np.uint8))
    colors |= {each: (red, green, blue) for each, (red, green, blue) in zip(missing, free.tolist(), strict=True)}
    labels = [Label(index, each, colors[each]) for index, each in enumerate(names)]
    try:
        return LabelSet(name, tuple(labels), leave_out=tuple(leave_out))
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def as_json(labels: LabelSet) -> Json:
    """What `label_set_of` makes the same label set of."""
    colors = {label.name: f"#{bytes(label.color).hex()}" for label in labels.labels}
    return {"name": labels.name, "classes": list(labels.names), "colors": colors, "leave_out": list(labels.leave_out)}


def _is_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value)


def _colors(colors: Any, names: list[str], where: str) -> dict[str, tuple[int, int, int]]:
    if not isinstance(colors, dict):
        raise DataError(f'{where}: "colors" must be an object of classes and their colours.')
    for name, color in colors.items():
        if name not in names:
            raise DataError(f'{where}: "colors" names {name!r}, which is none of the classes.')
        if not isinstance(color, str) or not re.fullmatch("#[0-9a-fA-F]{6}", color):
            raise DataError(f'{where}: the colour of {name!r} is {color!r}; write it as "#c08040".')
    return {name: (int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)) for name, color in colors.items()}
