"""Captions of an object from what its source says about it: name, tags and category, through varied templates."""

import re

from splatsense.corpora import CorpusObject

TEMPLATES = ("{}", "a photo of a {}", "a 3D model of a {}", "a {}")


def clean_name(name: str) -> str:
    """A catalogue name as plain words: sizes, numbers and brackets dropped ("Bed 140x190" -> "bed")."""
    name = re.sub(r"\(.*?\)", " ", name)
    name = re.sub(r"\b[\d.,]+\s*(x\s*[\d.,]+)*\s*(cm|mm|m)?\b", " ", name)
    words = " ".join(name.replace("_", " ").replace("-", " ").split()).strip().lower()
    return words or "object"


def captions(item: CorpusObject) -> list[str]:
    """Distinct captions, the plain name first.

    Names and tags go through all `TEMPLATES`; the category is added to the name once.
    """
    name = clean_name(item.name)
    subjects = [name, *(clean_name(tag) for tag in item.tags)]
    written = [template.format(subject) for subject in subjects for template in TEMPLATES]
    if item.category:
        written.append(f"a {name}, {item.category.lower()}")
    return list(dict.fromkeys(written))
