"""Photographs for floors and walls, from the texture catalogue inside `sweethome3d.jar`.

Every third photograph is kept for test rooms, the others are for training. Without the jar there are none, and floors and
walls have plain colours.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from splatsense.corpora.furniture import parse_catalogue
from splatsense.errors import FormatError

CATALOGUE = "com/eteks/sweethome3d/io/DefaultTexturesCatalog.properties"
LICENCE = "GPL-2+ or CC-BY-3.0"
OUTDOORS = ("Grass", "Pebbles", "Box tree", "Paving stone")
WOOD = ("Wooden floor", "Old wooden floor")
TEST_EVERY = 3


@dataclass(frozen=True, eq=False)
class Texture:
    """A photograph that repeats.

    Attributes:
        name: of its catalogue.
        use: "floor" or "wall".
        size: width and height in metres of what it shows.
        image: (H, W, 4) uint8.
    """

    name: str
    use: str
    size: tuple[float, float]
    image: np.ndarray

    @property
    def is_wood(self) -> bool:
        """Whether it is a floor of dry rooms."""
        return self.name in WOOD


def read_textures(archives: Sequence[Path], split: str) -> list[Texture]:
    """The photographs of one split ("train" or "test") in the first archive that has any; none if no archive has.

    Raises:
        FormatError: an archive or an image in it is damaged.
    """
    for path in archives:
        if path.suffix != ".jar":
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                if CATALOGUE in archive.namelist():
                    entries = parse_catalogue(archive.read(CATALOGUE).decode("latin-1"))
                    return [_read(archive, entry) for entry in _of_split(entries, split)]
        except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
            raise FormatError(f"{path}: its textures cannot be read ({error}); install sweethome3d again.") from error
    return []


def _of_split(entries: list[dict[str, str]], split: str) -> list[dict[str, str]]:
    chosen = []
    for use in ("Floor", "Wall"):
        of_use = [entry for entry in entries if entry["category"] == use and entry["name"] not in OUTDOORS]
        chosen += [entry for i, entry in enumerate(of_use) if (i % TEST_EVERY == 1) == (split == "test")]
    return chosen


def _read(archive: zipfile.ZipFile, entry: dict[str, str]) -> Texture:
    with Image.open(io.BytesIO(archive.read(entry["image"].lstrip("/")))) as opened:
        image = np.array(opened.convert("RGBA"))
    size = float(entry["width"]) / 100, float(entry["height"]) / 100
    return Texture(entry["name"], entry["category"].lower(), size, image)
