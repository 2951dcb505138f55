"""Captions of an object (paper, section 3.1): its corpus's own, and templates over name, tags, category, size and colour.

Design
- The plain name comes first. Names and tags go through all `TEMPLATES`; descriptions ("a tall brown wardrobe") through two of
  `DESCRIPTIONS` each, drawn by the object's seed, so that a corpus shows them all and no object holds dozens.
- Size words come from centimetres where the corpus knows them, and from the proportions of the object; see `size_words`.
"""

import random
import re
from dataclasses import dataclass

from splatsense.clip_gs.color_words import ANCHORS
from splatsense.corpora import CorpusObject

TEMPLATES = ("{name}", "a photo of {article} {name}", "a 3D model of {article} {name}", "{article} {name}")
DESCRIPTIONS = (
    "{article} {name}",
    "a photo of {article} {name}",
    "a 3D model of {article} {name}",
    "a rendering of {article} {name}",
    "a picture of {article} {name} on a white background",
    "{article} {name}, seen from the side",
    "this is {article} {name}",
    "one {name}",
)
SMALL_CM, LARGE_CM, HUGE_CM = 30, 200, 400  # longest side of an object that is called so
SLENDER = 2.2  # ratio of sides from which an object is called tall or long
FLAT = 0.3  # height over the shorter of the other sides, below which it is called flat


@dataclass(frozen=True)
class Appearance:
    """What an object looks like, in words and numbers.

    Attributes:
        colors: as `dominant_colors` names them.
        extent: width, height, depth in any unit; y is up.
    """

    colors: tuple[str, ...]
    extent: tuple[float, float, float]


def clean_name(name: str) -> str:
    """A catalogue name as plain words: sizes, numbers and brackets dropped ("Bed 140x190" -> "bed"); "object" without any."""
    return _words(name) or "object"


def _words(name: str) -> str:
    name = re.sub(r"\(.*?\)", " ", name.replace("_", " "))
    name = re.sub(r"\b[\d.,]+\s*(x\s*[\d.,]+)*\s*(cm|mm|m)?\b", " ", name)
    return " ".join(name.replace("-", " ").split()).lower()


def fill_template(template: str, name: str) -> str:
    """A template with `{name}` and `{article}` filled in: "a photo of an armchair"."""
    return template.format(name=name, article="an" if name[:1].lower() in "aeiou" else "a")


def captions(item: CorpusObject, appearance: Appearance | None = None, seed: int = 0) -> list[str]:
    """Distinct captions, the plain name first, then the corpus's own.

    Args:
        item: what its corpus says about the object.
        appearance: adds descriptions by size and colour.
        seed: of the templates of descriptions.
    """
    name = clean_name(item.name)
    subjects = [name, *filter(None, map(_words, item.tags))]
    written = [fill_template(template, subject) for subject in subjects for template in TEMPLATES]
    if item.category:
        written.append(f"{fill_template('{article} {name}', name)}, {item.category.lower()}")
    draw = random.Random(seed)
    for subject in _described(name, item, appearance) if appearance else []:
        written += [fill_template(template, subject) for template in draw.sample(DESCRIPTIONS, 2)]
    return list(dict.fromkeys([name, *item.captions, *written]))


def _described(name: str, item: CorpusObject, appearance: Appearance) -> list[str]:
    """The name with its size, with its colours, and with both, unless it says so itself."""
    words = set(name.split())
    sizes = [word for word in size_words(item.size_cm, appearance.extent) if word not in words]
    colors = appearance.colors if words.isdisjoint(ANCHORS) else ()  # a name knows better than its pictures
    size, color = " ".join(sizes), " and ".join(colors)
    described = [f"{size} {name}"] * bool(size) + [f"{color} {name}"] * bool(color)
    return described + [f"{size} {color} {name}"] * bool(size and color)


def size_words(size_cm: tuple[float, float, float] | None, extent: tuple[float, float, float]) -> list[str]:
    """ "small", "large" or "huge" by centimetres where they are known, then "tall", "long" or "flat" by proportions.

    Args:
        size_cm: width, depth, height in centimetres, or None.
        extent: width, height, depth in any unit.
    """
    words = []
    longest = max(size_cm) if size_cm else 0.0
    if longest > 0:
        words += (
            ["small"] * (longest <= SMALL_CM) + ["huge"] * (longest >= HUGE_CM) + ["large"] * (LARGE_CM <= longest < HUGE_CM)
        )
    width, height, depth = extent
    longer, shorter = max(width, depth), min(width, depth)
    if height >= SLENDER * longer:
        words.append("tall")
    elif height <= FLAT * shorter:
        words.append("flat")
    elif longer >= SLENDER * max(shorter, height):
        words.append("long")
    return words
