"""`Searching`: queries of words, pictures and assets, alone or mixed, over all assets or some.

Design
- What was embedded is kept: the words of the last searches, and pictures and files that were dropped on the page, which the
  page then names by an id.
- One query is embedded at a time. The model's threads share the processor, so taking turns costs nothing, and fifty who
  search at once do not need fifty times the memory. Files that are dropped are read one at a time too, but words do not
  wait for that.
- Cosines of words spread over a narrower range than those of pictures and assets, so in a mixture each part is divided by the
  standard deviation of its cosines over the library: equal weights then have equal say. A mixture is one vector again.
"""

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from splatsense.errors import DataError, FormatError, LimitError
from splatsense.library import Hit, Library, thumbnails

REMEMBERED = 512
SPREAD_SAMPLE = 20_000  # rows that measure the spread of a query's cosines
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
LARGEST_PICTURE = 64_000_000  # pixels


@dataclass(frozen=True)
class Dropped:
    """A picture or an asset that was dropped on the page: its embedding, and a small picture of it (WebP)."""

    id: str
    kind: str
    vector: np.ndarray
    thumbnail: bytes


class Searching:
    """Searches of one library. Whoever searches takes one of the `turns`, as many as there are processors."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._encoding, self._reading = threading.Lock(), threading.Lock()
        self.turns = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._words: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._dropped: OrderedDict[str, Dropped] = OrderedDict()

    def text(self, words: str) -> np.ndarray:
        """The embedding of words."""
        return self._remembered(" ".join(words.split()), self._library.embed_text)

    def asset(self, asset_id: int) -> np.ndarray:
        """The embedding of an asset of the library. Raises LibraryError when there is none of this id."""
        return self._library.embed_asset(asset_id)

    def drop(self, path: Path, is_picture: bool) -> Dropped:
        """Embed a picture or an asset file and remember it under an id.

        Raises:
            FormatError: the file cannot be read.
            LimitError: the picture has too many pixels.
        """
        with self._reading:
            if is_picture:
                picture = open_picture(path)
                with self._encoding:
                    vector = self._library.embed_image(picture)
            else:
                gaussians = self._library.load(path)
                with self._encoding:
                    vector = self._library.embed_asset(gaussians)
                picture = thumbnails.draw(gaussians)
            dropped = Dropped(secrets.token_urlsafe(12), "picture" if is_picture else "asset", vector, _small(picture))
            self._dropped[dropped.id] = dropped
            while len(self._dropped) > REMEMBERED:
                self._dropped.popitem(last=False)
        return dropped

    def dropped(self, identity: str) -> Dropped:
        """What was dropped under this id. Raises DataError when it is not remembered."""
        found = self._dropped.get(identity)
        if found is None:
            raise DataError("that picture or file is no longer remembered; drop it again.")
        return found

    def find(self, parts: Sequence[tuple[np.ndarray, float]], k: int, among: np.ndarray | None = None) -> list[Hit]:
        """The k assets closest to a mixture of embeddings, best first.

        Args:
            parts: (embedding, weight) of each part; a negative weight leads away from it.
            k: at least 1.
            among: ids of the only assets to look at; by default all.

        Raises:
            LibraryError: nothing in the library is indexed.
        """
        if among is not None and len(among) == 0:
            return []
        if len(parts) == 1 and parts[0][1] > 0:
            return self._library.search_vector(parts[0][0], k, among)
        return self._library.search_vector(mixture(parts, self._library.embeddings().vectors), k, among)

    def _remembered(self, key: str, embed: Callable[[str], np.ndarray]) -> np.ndarray:
        found = self._words.get(key)
        if found is None:
            with self._encoding:
                found = self._words.get(key)
                if found is None:
                    found = self._words[key] = embed(key)
                    while len(self._words) > REMEMBERED:
                        self._words.popitem(last=False)
        return found


def mixture(
    parts: Sequence[tuple[Float[np.ndarray, " d"], float]], vectors: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " d"]:
    """The unit-length embedding whose order of `vectors` is that of the weighted sum of the parts' standard scores.

    Args:
        parts: (embedding, weight), at least one.
        vectors: of the library, unit length.

    Raises:
        DataError: there are no parts, or they cancel out.
    """
    sample = vectors[:: -(-len(vectors) // SPREAD_SAMPLE)]
    mixed = np.zeros(vectors.shape[1], np.float32)
    for vector, weight in parts:
        mixed += weight * vector / max(float((sample @ vector).std()), 1e-6)
    length = float(np.linalg.norm(mixed))
    if not length > 1e-6:
        raise DataError("the parts of this search cancel out; give one of them a larger weight.")
    return mixed / length


def open_picture(path: Path) -> Image.Image:
    """A picture from a stranger as RGB or RGBA.

    Raises:
        FormatError: it is none, damaged, or of a format that is not taken here.
        LimitError: it has too many pixels.
    """
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as opened:
            if opened.width * opened.height > LARGEST_PICTURE:
                raise LimitError(f"The picture has {opened.width} x {opened.height} pixels; make it smaller.")
            opened.load()
            return opened.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FormatError("This is no picture that can be read; use a PNG, JPEG or WebP file.") from error


def _small(picture: Image.Image) -> bytes:
    """A small picture (WebP), upright as its EXIF tag says, as the model sees it."""
    picture = ImageOps.exif_transpose(picture)
    small = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    small.thumbnail((thumbnails.SIZE, thumbnails.SIZE))
    buffer = BytesIO()
    small.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()
