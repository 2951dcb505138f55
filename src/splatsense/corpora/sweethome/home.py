"""Home.xml: levels, walls, rooms and pieces of furniture as plain records, checked, in metres and with y up.

The format is that of the document type that Sweet Home 3D's documentation of `HomeXMLHandler` gives. Attributes that do not
change what a home looks like are passed over, and so are polylines, dimension lines, labels, and all that is not visible.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from splatsense.errors import FormatError
from splatsense.io._xml import Element, parse_xml

METRES = 0.01  # in one unit of the file
DEFAULT_WALL_HEIGHT = 250.0  # centimetres
LARGEST = 1e7  # centimetres: a hundred kilometres
FURNITURE = ("pieceOfFurniture", "doorOrWindow", "light", "furnitureGroup", "shelfUnit")


@dataclass(frozen=True)
class Level:
    """A storey: elevation of its floor and height in metres."""

    elevation: float = 0.0
    height: float | None = None


@dataclass(frozen=True)
class Texture:
    """A picture that repeats every `width` x `height` metres, turned by `angle` radians; `image` is its name in the archive."""

    image: str
    width: float
    height: float
    angle: float = 0.0


@dataclass(frozen=True)
class Finish:
    """How a surface looks: (3,) sRGB in [0, 1] or None for the default, and a texture or None."""

    color: tuple[float, float, float] | None = None
    texture: Texture | None = None


@dataclass(frozen=True, eq=False)
class Wall:
    """A wall from `start` to `end` (plan, metres), `left` and `right` of that direction.

    Attributes:
        id: that other walls refer to.
        heights: at start and end, above the level's floor.
        arc: angle in radians that a round wall turns by, counterclockwise; 0 for a straight one.
        at_start: id of the wall joined there, or "".
        at_end: the same for the end.
    """

    id: str
    level: Level
    start: np.ndarray
    end: np.ndarray
    thickness: float
    heights: tuple[float, float]
    arc: float
    at_start: str
    at_end: str
    left: Finish
    right: Finish
    top: Finish


@dataclass(frozen=True, eq=False)
class Room:
    """A polygon (N, 2) with a floor and a ceiling; None where one is not shown."""

    name: str
    level: Level
    points: np.ndarray
    floor: Finish | None
    ceiling: Finish | None


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of furniture, door or window.

    Attributes:
        center: (2,) in the plan.
        bottom: above the level's floor.
        size: width, depth, height before it is tilted.
        angle: counterclockwise about the vertical, in radians.
        pitch: about its width axis, as the file has it.
        roll: about its depth axis, as the file has it.
        model: name in the archive, or "".
        rotation: (3, 3) of the model before it is fitted into its size.
        color: that replaces the model's, or None.
        opening: for doors and windows, what they cut from a wall: left and width as shares of their width, top and height as
            shares of their height.
    """

    name: str
    catalog_id: str
    level: Level
    is_door_or_window: bool
    center: np.ndarray
    bottom: float
    size: tuple[float, float, float]
    angle: float
    pitch: float
    roll: float
    model: str
    rotation: np.ndarray
    centered: bool
    mirrored: bool
    color: tuple[float, float, float] | None
    opening: tuple[float, float, float, float]


@dataclass(frozen=True)
class Home:
    """What of a home can be seen."""

    name: str
    walls: list[Wall] = field(default_factory=list)
    rooms: list[Room] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)


def parse_home(data: bytes | bytearray, where: str) -> Home:
    """Read the bytes of a Home.xml; `where` names it in errors.

    Raises:
        FormatError: it is no XML, another document, or a number in it is missing or not finite.
        LimitError: it is larger than any home.
    """
    root = parse_xml(data, where)
    if root.tag != "home":
        raise FormatError(f"{where}: holds <{root.tag}>, not <home>; save it again with Sweet Home 3D.")
    return _Reader(root, where).home()


class _Reader:
    """Reads the records of one home; errors name the element and the attribute."""

    def __init__(self, root: Element, where: str) -> None:
        self.root, self.where = root, where
        self.wall_height = self._number(root, "wallHeight", DEFAULT_WALL_HEIGHT)
        self.levels = {
            level.attributes.get("id", ""): Level(
                self._number(level, "elevation") * METRES, self._number(level, "height") * METRES
            )
            for level in root.all("level")
        }
        shown = [level for level in root.all("level") if _is_true(level, "visible") and _is_true(level, "viewable")]
        self.shown = {level.attributes.get("id", "") for level in shown} | {""}

    def home(self) -> Home:
        walls = [self._wall(element) for element in self.root.all("wall") if self._is_shown(element)]
        rooms = [self._room(element) for element in self.root.all("room") if self._is_shown(element)]
        return Home(self.root.attributes.get("name", ""), walls, rooms, self._pieces(self.root, ""))

    def _wall(self, element: Element) -> Wall:
        height = self._number(element, "height", self.wall_height)
        finishes = {"leftSide": Finish(), "rightSide": Finish()}
        for side in finishes:
            color = self._color(element, f"{side}Color")
            texture = next((t for t in element.all("texture") if t.attributes.get("attribute") == f"{side}Texture"), None)
            finishes[side] = Finish(color, self._texture(texture))
        if not (thickness := self._number(element, "thickness")) > 0 or not height > 0:
            raise self._error(element, "has no thickness or height")
        return Wall(
            element.attributes.get("id", ""),
            self._level(element),
            self._point(element, "xStart", "yStart"),
            self._point(element, "xEnd", "yEnd"),
            thickness * METRES,
            (height * METRES, self._number(element, "heightAtEnd", height) * METRES),
            -self._number(element, "arcExtent", 0.0),
            element.attributes.get("wallAtStart", ""),
            element.attributes.get("wallAtEnd", ""),
            finishes["leftSide"],
            finishes["rightSide"],
            Finish(self._color(element, "topColor")),
        )

    def _room(self, element: Element) -> Room:
        points = [self._point(point, "x", "y") for point in element.all("point")]
        if len(points) < 3:
            raise self._error(element, f"has {len(points)} points, and a room needs three")
        surfaces: dict[str, Finish | None] = {}
        for side in ("floor", "ceiling"):
            texture = next((t for t in element.all("texture") if t.attributes.get("attribute") == f"{side}Texture"), None)
            finish = Finish(self._color(element, f"{side}Color"), self._texture(texture))
            surfaces[side] = finish if _is_true(element, f"{side}Visible") else None
        name = element.attributes.get("name", "")
        return Room(name, self._level(element), np.array(points), surfaces["floor"], surfaces["ceiling"])

    def _pieces(self, parent: Element, group_level: str) -> list[Piece]:
        pieces = []
        for element in parent.all(*FURNITURE):
            level = element.attributes.get("level", group_level)
            if not _is_true(element, "visible") or level not in self.shown:
                continue
            if element.all(*FURNITURE):
                pieces += self._pieces(element, level)
            elif element.tag != "furnitureGroup":
                pieces.append(self._piece(element, self.levels.get(level, Level())))
        return pieces

    def _piece(self, element: Element, level: Level) -> Piece:
        attributes = element.attributes
        width, depth, height = (self._number(element, axis) * METRES for axis in ("width", "depth", "height"))
        if not min(width, depth, height) > 0:
            raise self._error(element, "has no width, depth or height")
        opening = [self._number(element, name, default) for name, default in OPENING.items()]
        return Piece(
            attributes.get("name", ""),
            attributes.get("catalogId", ""),
            level,
            element.tag == "doorOrWindow" or attributes.get("doorOrWindow") == "true",
            self._point(element, "x", "y"),
            self._number(element, "elevation", 0.0) * METRES,
            (width, depth, height),
            -self._number(element, "angle", 0.0),
            self._number(element, "pitch", 0.0),
            self._number(element, "roll", 0.0),
            attributes.get("model", ""),
            np.array(self._numbers(element, "modelRotation", 9, (1, 0, 0, 0, 1, 0, 0, 0, 1))).reshape(3, 3),
            attributes.get("modelCenteredAtOrigin") != "false",
            attributes.get("modelMirrored") == "true",
            self._color(element, "color"),
            (opening[0], opening[1], opening[2], opening[3]),
        )

    def _texture(self, element: Element | None) -> Texture | None:
        if element is None or not element.attributes.get("image"):
            return None
        scale = self._number(element, "scale", 1.0) * METRES
        width, height = self._number(element, "width") * scale, self._number(element, "height") * scale
        if not min(width, height) > 0:
            raise self._error(element, "has no width or height")
        return Texture(element.attributes["image"], width, height, self._number(element, "angle", 0.0))

    def _is_shown(self, element: Element) -> bool:
        return element.attributes.get("level", "") in self.shown

    def _level(self, element: Element) -> Level:
        return self.levels.get(element.attributes.get("level", ""), Level())

    def _point(self, element: Element, x: str, y: str) -> np.ndarray:
        return np.array([self._number(element, x), -self._number(element, y)]) * METRES

    def _number(self, element: Element, name: str, default: float | None = None) -> float:
        return self._numbers(element, name, 1, None if default is None else (default,))[0]

    def _numbers(self, element: Element, name: str, count: int, default: Sequence[float] | None) -> Sequence[float]:
        text = element.attributes.get(name)
        if text is None and default is not None:
            return default
        try:
            values = [float(word) for word in (text or "").split()]
        except ValueError:
            values = []
        if len(values) != count or not all(math.isfinite(value) and abs(value) < LARGEST for value in values):
            raise self._error(element, f"has {name}={text!r}, not {count} finite numbers")
        return values

    def _color(self, element: Element, name: str) -> tuple[float, float, float] | None:
        text = element.attributes.get(name)
        if text is None:
            return None
        try:
            value = int(text, 16)
        except ValueError as error:
            raise self._error(element, f"has {name}={text!r}, not a colour such as FF8000C0") from error
        return (value >> 16 & 255) / 255, (value >> 8 & 255) / 255, (value & 255) / 255

    def _error(self, element: Element, fault: str) -> FormatError:
        name = element.attributes.get("name") or element.attributes.get("id") or "without a name"
        return FormatError(f"{self.where}: <{element.tag}> {name!r} {fault}; correct it or save the home again.")


OPENING = {"wallLeft": 0.0, "wallWidth": 1.0, "wallTop": 0.0, "wallHeight": 1.0}


def _is_true(element: Element, name: str) -> bool:
    """Of attributes that are true unless they say otherwise."""
    return element.attributes.get(name) != "false"
