"""Collections of labelled 3D objects. A `Corpus` is a sequence of `CorpusObject`; what an object holds is read on demand.

Design
- `furniture` reads the Sweet Home 3D libraries, `folder` any folder of meshes (Objaverse downloads too), `modelnet40` the
  folders of ModelNet, `splats` a folder of splats; `sources.open_corpus` opens any of them by a short name.
- Loaders are partials of module functions, so an object can be sent to another process.
- Keys are unique, which is checked, and usable as names of files and of WebDataset samples: no dots.
"""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from splatsense.errors import DataError
from splatsense.gaussians import Gaussians
from splatsense.mesh import Mesh

LONGEST_KEY = 120


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
        captions: whole sentences its source gives it.
        load_gaussians: reads the splat of an object that is one, or None; then `load_mesh` raises DataError.
        open_source: opens the file the object is read from (without its textures), or None.
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
    captions: tuple[str, ...] = ()
    load_gaussians: Callable[[], Gaussians] | None = field(default=None, repr=False)
    open_source: Callable[[], io.BufferedIOBase] | None = field(default=None, repr=False)
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Corpus(Sequence[CorpusObject]):
    """Objects in a fixed order.

    Attributes:
        name: what the corpus is called.
        objects: with keys of their own.
        unknown: what its caption file names and the corpus does not hold.

    Raises:
        DataError: two objects have one key.
    """

    name: str
    objects: tuple[CorpusObject, ...] = field(repr=False)
    unknown: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        repeated = [key for key, count in Counter(item.key for item in self.objects).items() if count > 1]
        if repeated:
            raise DataError(
                f"{self.name}: {len(repeated)} ids occur more than once, such as {repeated[0]!r}; rename or remove one of each."
            )

    def __len__(self) -> int:
        return len(self.objects)

    def __iter__(self) -> Iterator[CorpusObject]:
        return iter(self.objects)

    @overload
    def __getitem__(self, index: int) -> CorpusObject: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CorpusObject]: ...
    def __getitem__(self, index: int | slice) -> CorpusObject | Sequence[CorpusObject]:
        """One object, or a tuple of them for a slice."""
        return self.objects[index]


def words_from_identifier(identifier: str) -> str:
    """Plain lower-case words of a file or model name: "SM_OfficeChair02-final" -> "sm office chair final"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", identifier)
    return " ".join(re.findall(r"[^\W\d_]+", spaced)).lower()


def safe_key(text: str) -> str:
    """`text` with everything but letters, digits and hyphens replaced, for use as a file name without dots."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_")


def file_keys(names: Sequence[str]) -> list[str]:
    """A key for each of some distinct relative paths: the path without its suffix as `safe_key` writes it.

    Paths that would share a key ("chair.obj" beside "chair.glb"), and those whose key would be empty or too long, get a
    hash of the path behind it.
    """
    keys = [safe_key(re.sub(r"\.[^./]*$", "", name)) for name in names]
    counts = Counter(key.lower() for key in keys)  # some file systems take upper for lower case
    return [
        key if key and len(key) <= LONGEST_KEY and counts[key.lower()] == 1 else _hashed_key(key, name)
        for key, name in zip(keys, names, strict=True)
    ]


def _hashed_key(key: str, name: str) -> str:
    return f"{key[:LONGEST_KEY] or 'object'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
