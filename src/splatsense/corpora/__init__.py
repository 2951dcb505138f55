"""Collections of labelled 3D objects. A corpus is a sequence of `CorpusObject`; its mesh is read on demand.

`furniture` reads the Sweet Home 3D libraries, `folder` any folder of meshes named after what they show.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from splatsense.mesh import Mesh


@dataclass(frozen=True)
class CorpusObject:
    """One object of a corpus.

    Attributes:
        key: unique within the corpus, usable as a file name.
        name: what the object is called, in plain words.
        load_mesh: reads the mesh; raises `SplatSenseError` when it cannot be used.
        tags: further words its source gives it.
        category: coarse group its source puts it in, or "".
        label: class for evaluation, or "" when it has none.
        split: "train", "test", or "" when it must not be used for either.
        licence: SPDX-like name.
        creator: who made it, or "".
        size_cm: width, depth, height in centimetres, or None.
        load_icon: bytes of a picture drawn by another renderer, or None.
        properties: what else its catalogue says, under the catalogue's own names.
    """

    key: str
    name: str
    load_mesh: Callable[[], Mesh] = field(repr=False)
    tags: tuple[str, ...] = ()
    category: str = ""
    label: str = ""
    split: str = "train"
    licence: str = ""
    creator: str = ""
    size_cm: tuple[float, float, float] | None = None
    load_icon: Callable[[], bytes] | None = field(default=None, repr=False)
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)


def words_from_identifier(identifier: str) -> str:
    """Plain lower-case words of a file or model name: "SM_OfficeChair02-final" -> "sm office chair final"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", identifier)
    return " ".join(re.findall(r"[^\W\d_]+", spaced)).lower()


def safe_key(text: str) -> str:
    """`text` with everything but letters, digits and hyphens replaced, for use as a file name without dots."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_")
