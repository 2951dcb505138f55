"""Label sets of indoor scenes: ScanNet's 20 and 200 classes, S3DIS's 13, and the classes of the furniture corpus among them.

Design
- Points carry the index of their class in a set, -1 for none, as in Pointcept. The ids of ScanNet's own files (NYU40 ids for
  ScanNet20, ids of the labels table for ScanNet200) are kept beside, and `LabelSet.index_of_ids` translates.
- A set also says which file of a scene's folder its indices are in, and which classes are no instances. Sets of a user's own
  are read by `label_files.py`.
- The tables are facts of the benchmarks: Dai et al. 2017 (ScanNet), Rozenberszki et al. 2022 (ScanNet200, with its
  head, common and tail classes), Armeni et al. 2016 (S3DIS).
- `FURNITURE_TO_SCANNET200` is ours: what a class of `corpora/furniture_classes.csv` is called in ScanNet200. The class in
  ScanNet20 follows from that through NYU40 (`Label.scannet20`), so lamps and stools have none, as in ScanNet.
"""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

import numpy as np

from splatsense.errors import DataError

UNLABELLED = -1
UNLABELLED_COLOR = (60, 60, 60)
NO_INSTANCES = ("wall", "floor")  # in all benchmarks


@dataclass(frozen=True)
class Label:
    """One class.

    Attributes:
        id: number in the benchmark's own files.
        name: in the benchmark's words.
        color: 8-bit sRGB in which it is usually drawn.
        frequency: "head", "common" or "tail" in ScanNet200, otherwise "".
        scannet20: name of the class of ScanNet20 that it belongs to, or "".
    """

    id: int
    name: str
    color: tuple[int, int, int]
    frequency: str = ""
    scannet20: str = ""


@dataclass(frozen=True)
class LabelSet:
    """The classes of a benchmark, or of a user, in their order: a point's label is an index into `labels`, or -1.

    Attributes:
        name: of the set.
        labels: its classes; no two have the same name.
        array: the file in a scene's folder that holds the indices, without .npy.
        leave_out: names of classes that are no instances, such as walls.

    Raises:
        DataError: there are no classes, two have one name, or one that is left out is none of them.
    """

    name: str
    labels: tuple[Label, ...]
    array: str = "segment"
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.labels:
            raise DataError(f"label set {self.name}: has no classes.")
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise DataError(f"label set {self.name}: the class {twice[0]!r} occurs twice; classes need different names.")
        unknown = [name for name in self.leave_out if name not in self.names]
        if unknown:
            raise DataError(f"label set {self.name}: leave_out names {unknown[0]!r}, which is none of its classes.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all classes, in order."""
        return tuple(label.name for label in self.labels)

    @property
    def colors(self) -> np.ndarray:
        """(C, 3) uint8 sRGB."""
        return np.array([label.color for label in self.labels], np.uint8)

    @cached_property
    def _indices(self) -> Mapping[str, int]:
        return {label.name: index for index, label in enumerate(self.labels)}

    def index(self, name: str) -> int:
        """Index of the class of that name, -1 when there is none."""
        return self._indices.get(name, UNLABELLED)

    def index_of_ids(self, ids: np.ndarray) -> np.ndarray:
        """Int16 indices of the classes with these ids, of the same shape; -1 where an id belongs to none."""
        table = np.full(max(label.id for label in self.labels) + 2, UNLABELLED, np.int16)
        table[[label.id for label in self.labels]] = np.arange(len(self.labels))
        known = (ids >= 0) & (ids < len(table))
        return table[np.where(known, ids, len(table) - 1)]


def _rgb(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def _scannet200() -> LabelSet:
    text = resources.files("splatsense").joinpath("scannet200.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    labels = [Label(int(row["id"]), row["name"], _rgb(row["color"]), row["frequency"], row["scannet20"]) for row in rows]
    return LabelSet("scannet200", tuple(labels), "segment200", NO_INSTANCES)


_SCANNET20 = """
1 #aec7e8 wall;2 #98df8a floor;3 #1f77b4 cabinet;4 #ffbb78 bed;5 #bcbd22 chair;6 #8c564b sofa;7 #ff9896 table;8 #d62728 door
9 #c5b0d5 window;10 #9467bd bookshelf;11 #c49c94 picture;12 #17becf counter;14 #f7b6d2 desk;16 #dbdb8d curtain
24 #ff7f0e refrigerator;28 #9edae5 shower curtain;33 #2ca02c toilet;34 #708090 sink;36 #e377c2 bathtub
39 #5254a3 otherfurniture
"""
_S3DIS = """
0 #00ff00 ceiling;1 #0000ff floor;2 #00ffff wall;3 #ffff00 beam;4 #ff00ff column;5 #6464ff window;6 #c8c864 door
7 #aa78c8 table;8 #ff0000 chair;9 #c86464 sofa;10 #0ac864 bookcase;11 #c8c8c8 board;12 #323232 clutter
"""


def _parse(name: str, table: str, array: str) -> LabelSet:
    rows = [row.split(" ", 2) for row in table.strip().replace("\n", ";").split(";")]
    return LabelSet(name, tuple(Label(int(number), label, _rgb(color)) for number, color, label in rows), array, NO_INSTANCES)


SCANNET20 = _parse("scannet20", _SCANNET20, "segment20")
SCANNET200 = _scannet200()
S3DIS = _parse("s3dis", _S3DIS, "segment")
LABEL_SETS: Mapping[str, LabelSet] = {labels.name: labels for labels in (SCANNET20, SCANNET200, S3DIS)}
"""Those that are known by name."""

FURNITURE_TO_SCANNET200: Mapping[str, str] = {
    "armchair": "armchair", "bag / suitcase": "bag", "bathtub": "bathtub", "bed": "bed", "bedside table": "nightstand",
    "bench": "bench", "bicycle": "bicycle", "book / paper": "book", "bottle": "bottle", "box / basket": "box",
    "cabinet / dresser": "cabinet", "chair": "chair", "clock / watch": "clock", "clothes rack / hanger": "coat rack",
    "clothing": "clothes", "coffee table": "coffee table", "column": "column", "deck chair": "chair", "desk": "desk",
    "door": "door", "fan": "fan", "fireplace": "fireplace", "fridge": "refrigerator", "games table": "table",
    "glass / cup": "cup", "human figure": "person", "kitchen cabinet": "kitchen cabinet", "ladder": "ladder", "lamp": "lamp",
    "mailbox": "mailbox", "oven / stove": "stove", "phone": "telephone", "picture frame": "picture",
    "plate / bowl / tray": "plate", "potted plant / flower": "potted plant", "power outlet / switch": "power outlet",
    "radiator": "radiator", "railing / fence": "rail", "range hood": "range hood", "rug": "mat",
    "shelf / bookcase": "bookshelf", "shoes": "shoe", "shower": "shower", "sofa": "couch", "staircase": "stairs",
    "stool": "stool", "table": "table", "television": "tv", "toilet": "toilet", "towel": "towel", "trash bin": "trash can",
    "vase / pot": "decoration", "wardrobe": "wardrobe", "washbasin / sink": "sink", "washing machine": "washing machine",
    "window": "window", "window blind / curtain": "curtain",
}  # fmt: skip
"""Classes of `corpora/furniture_classes.csv` that ScanNet200 has a name for."""


def scannet_labels(name200: str) -> tuple[int, int]:
    """Indices in ScanNet20 and ScanNet200 of a class by its ScanNet200 name; -1 where a set has none."""
    index = SCANNET200.index(name200)
    return (SCANNET20.index(SCANNET200.labels[index].scannet20) if index >= 0 else UNLABELLED), index
