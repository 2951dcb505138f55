"""`Search`: finds the assets of a library by words, by a picture, or by another asset; `Library` adds all that changes it.

Design
- The model loads on first use, and of it only the tower a call needs.
- `search` looks at what it is given; `search_text`, `search_image` and `search_asset` say it outright.
- Searching is exact unless FAISS was asked for. A query that is a file of the library finds that file first, with a score of 1.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from splatsense.errors import DataError, FormatError, LibraryError
from splatsense.formats import ASSET_SUFFIXES
from splatsense.gaussians import Gaussians
from splatsense.library.asset_files import seen_file
from splatsense.library.embedding_model import EmbeddingModel, ImageLike, resolve_model
from splatsense.library.index import VectorIndex, check_k
from splatsense.library.reading import Read, read_here, shared_readers
from splatsense.library.records import Asset
from splatsense.library.store import Store
from splatsense.library.tags import chosen_labels, prompt_embeddings, rank_labels
from splatsense.library.vectors import VectorCache

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

AssetLike = Asset | int | str | os.PathLike[str] | Gaussians
Query = str | os.PathLike[str] | Asset | int | Gaussians | ImageLike


@dataclass(frozen=True)
class Hit:
    """One result of a search.

    Attributes:
        score: cosine between the query's and the asset's embedding, -1 to 1.
        asset: what was found.
    """

    score: float
    asset: Asset

    @property
    def id(self) -> int:
        """The asset's id."""
        return self.asset.id

    @property
    def name(self) -> str:
        """The words of the asset's file name."""
        return self.asset.name

    @property
    def path(self) -> Path:
        """The asset's file."""
        return self.asset.path


class Search:
    """Searches of one library with one model.

    Args:
        store: what the library knows.
        model: name of a bundled model, folder of a model, or a loaded model.
        approximate_above: search through FAISS in libraries of more assets than this; None for always exactly.
        isolated: read files in processes of their own.
    """

    def __init__(
        self, store: Store, model: str | Path | EmbeddingModel, approximate_above: int | None = None, isolated: bool = True
    ) -> None:
        self._store, self._model = store, model
        self._approximate_above, self._isolated = approximate_above, isolated
        self._label_vectors: tuple[tuple[str, ...], np.ndarray] | None = None

    @cached_property
    def model(self) -> EmbeddingModel:
        """The model that embeds assets and queries."""
        return resolve_model(self._model)

    def search(self, query: Query, k: int = 10) -> list[Hit]:
        """The k assets closest to a query, best first.

        Args:
            query: words; or an image (a file or a PIL image); or an asset (a file, Gaussians, an `Asset` or its id).
                A string is a file when it ends in a suffix of an image or an asset, or when a file of that name, with a suffix
                or in a folder, is there.
            k: at least 1.

        Raises:
            DataError: k is below 1, or the query is empty or of a kind that cannot be searched for.
            FormatError: the file does not exist or cannot be read.
            LibraryError: nothing in the library is indexed with this model.
        """
        if isinstance(query, str) and not _names_a_file(query):
            return self.search_text(query, k)
        if isinstance(query, (str, os.PathLike)):
            path = Path(query)
            if os.path.isdir(path):
                raise FormatError(f"{path}: is a folder; name a file in it.")
            if not os.path.isfile(path):  # also where the words are too long for a name
                raise FormatError(f"{path}: no such file. Words that end like one are for `Library.search_text` in Python.")
            return self.search_image(path, k) if path.suffix.lower() in IMAGE_SUFFIXES else self.search_asset(path, k)
        if isinstance(query, (int, Asset, Gaussians)):
            return self.search_asset(query, k)
        if not isinstance(query, (Image.Image, np.ndarray, Tensor)):
            raise DataError(f"a {type(query).__name__} cannot be searched for; give words, a picture or an asset.")
        return self.search_image(query, k)

    def search_text(self, text: str, k: int = 10) -> list[Hit]:
        """The k assets closest to words, best first. See `search`."""
        return self._search(lambda: self.embed_text(text), k)

    def search_image(self, image: str | os.PathLike[str] | ImageLike, k: int = 10) -> list[Hit]:
        """The k assets closest to a picture: a file, a PIL image or an (H, W, 3) uint8 array. See `search`."""
        return self._search(lambda: self.embed_image(image), k)

    def search_asset(self, asset: AssetLike, k: int = 10) -> list[Hit]:
        """The k assets closest to an asset of the library, a file, or Gaussians, best first. See `search`."""
        return self._search(lambda: self.embed_asset(asset), k)

    def search_vector(self, vector: np.ndarray, k: int = 10, among: np.ndarray | None = None) -> list[Hit]:
        """The k assets closest to an embedding, best first.

        Args:
            vector: (dim,) unit length, such as `embed_text` gives, or a mixture of several.
            k: at least 1.
            among: ids of the only assets to look at; by default all.
        """
        return self._search(lambda: vector, k, among)

    def embed_text(self, text: str) -> np.ndarray:
        """(dim,) unit-length embedding of words, the one that `search_text` uses."""
        return prompt_embeddings(self.model, [text])[0]

    def embed_image(self, image: str | os.PathLike[str] | ImageLike) -> np.ndarray:
        """(dim,) unit-length embedding of a picture: a file, a PIL image or an (H, W, 3) uint8 array."""
        picture = Path(image) if isinstance(image, (str, os.PathLike)) else image
        return _row(self.model.encode_images([picture]))

    def embeddings(self) -> VectorIndex:
        """The ids and embeddings of all assets that are indexed with this model, as they are now."""
        return self._vectors.whole()

    def embed_asset(self, asset: AssetLike) -> np.ndarray:
        """(dim,) unit-length embedding of an asset: the stored one if there is one."""
        if isinstance(asset, (Asset, int)):
            found = self._found(asset)
            stored = self._store.embedding(found.id, self.model.hash)
            if stored is None:
                raise LibraryError(f"{found.path}: not indexed with {self.model.name}; {self._add_hint()}.")
            return stored
        if isinstance(asset, (str, os.PathLike)):
            file = seen_file(Path(asset))
            known = self._store.known_content(file.sha256, self.model.hash)
            stored = self._store.embedding(known.asset_id, self.model.hash) if known else None
            if stored is not None:
                return stored
            asset = self.load(file.path)
        return _row(self.model.encode_gaussians([asset]))

    def tags(self, asset: AssetLike, labels: Sequence[str] | None = None,
             k: int = 5) -> list[tuple[str, float]]:  # fmt: skip
        """The k likeliest labels of an asset with their probabilities, best first.

        Args:
            asset: an asset of the library, a file, or Gaussians.
            labels: to choose from; by default about 200 names of everyday objects.
            k: at least 1.
        """
        check_k(k)
        chosen = chosen_labels(labels)
        if self._label_vectors is None or self._label_vectors[0] != chosen:
            self._label_vectors = (chosen, prompt_embeddings(self.model, chosen))
        return rank_labels(self.embed_asset(asset), self._label_vectors[1], chosen, k)

    def asset(self, asset_id: int) -> Asset:
        """One asset. Raises LibraryError when there is none of this id."""
        found = self._store.find_assets([asset_id])
        if asset_id not in found:
            raise LibraryError(f"{self._store.place}: no asset has the id {asset_id}; `assets()` lists them.")
        return found[asset_id]

    def present(self, asset_ids: Sequence[int]) -> list[Asset]:
        """Those assets of these ids that are in the library now, in this order."""
        found = self._store.find_assets(asset_ids)
        return [found[asset_id] for asset_id in asset_ids if asset_id in found]

    def load(self, path: str | os.PathLike[str]) -> Gaussians:
        """The Gaussians of any asset file, read in a process of its own unless the library is not `isolated`."""
        return self._read(Path(path), False, None).result().gaussians

    def _found(self, asset: Asset | int) -> Asset:
        """An asset as the library knows it now."""
        return self.asset(asset.id if isinstance(asset, Asset) else asset)

    @property
    def _read(self) -> Read:
        return shared_readers().read if self._isolated else read_here

    def _search(self, embed: Callable[[], np.ndarray], k: int, among: np.ndarray | None = None) -> list[Hit]:
        check_k(k)
        if self._vectors.is_empty():
            reason = f"has no assets indexed with {self.model.name}" if self._store.count() else "is empty"
            raise LibraryError(f"{self._store.place}: this library {reason}; {self._add_hint()}.")
        vector, asked = embed().astype(np.float32), k
        while True:
            ids, scores = self._vectors.top_k(vector, asked, among)
            found = self._store.find_assets(ids.tolist())
            hits = [Hit(score, found[id_]) for id_, score in zip(ids.tolist(), scores.tolist(), strict=True) if id_ in found]
            if len(hits) >= k or len(ids) < asked:
                return hits[:k]
            asked += k - len(hits)  # in the place of assets that went meanwhile, or whose file holds something else by now

    @cached_property
    def _vectors(self) -> VectorCache:
        return VectorCache(self._store, self.model.hash, self.model.name, self._approximate_above)

    def _add_hint(self) -> str:
        return f"index some with `splatsense add {self._store.folder} FILES`"


def _names_a_file(query: str) -> bool:
    suffix = Path(query).suffix.lower()
    return suffix in IMAGE_SUFFIXES | ASSET_SUFFIXES or bool((suffix or os.sep in query) and os.path.exists(query))


def _row(embeddings: Any) -> np.ndarray:
    return embeddings[0].detach().cpu().numpy()
