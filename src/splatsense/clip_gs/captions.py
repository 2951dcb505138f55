"""Captions of an object from what its source says about it: name, tags and category, through varied templates."""

import re

from splatsense.corpora import CorpusObject

TEMPLATES = ("{name}", "a photo of {article} {name}", "a 3D model of {article} {name}", "{article} {name}")


def clean_name(name: str) -> str:
    """A catalogue name as plain words: sizes, numbers and brackets dropped ("Bed 140x190" -> "bed")."""
    name = re.sub(r"\(.*?\)", " ", name)
    name = re.sub(r"\b[\d.,]+\s*(x\s*[\d.,]+)*\s*(cm|mm|m)?\b", " ", name)
    words = " ".join(name.replace("_", " ").replace("-", " ").split()).strip().lower()
    return words or "object"


def fill_template(template: str, name: str) -> str:
    """A template with `{name}` and `{article}` filled in: "a photo of an armchair"."""
    return template.format(name=name, article="an" if name[:1].lower() in "aeiou" else "a")


def captions(item: CorpusObject) -> list[str]:
    """Distinct captions, the plain name first.

    Names and tags go through all `TEMPLATES`; the category is added to the name once.
    """
    name = clean_name(item.name)
    subjects = [name, *(clean_name(tag) for tag in item.tags)]
    written = [fill_template(template, subject) for subject in subjects for template in TEMPLATES]
    if item.category:
        written.append(f"{fill_template(TEMPLATES[-1], name)}, {item.category.lower()}")
    return list(dict.fromkeys(written))
