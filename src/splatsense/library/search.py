"""`Library`: a folder that knows your 3D assets and finds them by words, by a picture, or by another asset.

Design
- The model loads on first use, and of it only the tower a call needs.
- `search` looks at what it is given; `search_text`, `search_image` and `search_asset` say it outright.
- Searching is exact. A query that is a file of the library finds that file first, with a score of 1.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from splatsense.errors import DataError, FormatError, LibraryError
from splatsense.formats import ASSET_SUFFIXES
from splatsense.gaussians import Gaussians
from splatsense.library import thumbnails
from splatsense.library.duplicates import THRESHOLD, Duplicates, find_duplicates
from splatsense.library.embedding_model import EmbeddingModel, ImageLike, resolve_model
from splatsense.library.index import VectorIndex
from splatsense.library.ingest import AddReport, Ingest, OnError, find_files, seen_file
from splatsense.library.reading import Read, read_here, shared_readers
from splatsense.library.store import Asset, ModelState, Store
from splatsense.library.tags import chosen_labels, prompt_embeddings, rank_labels
from splatsense.library.transfer import Transfer, export_library, import_library
from splatsense.library.vectors import VectorCache
from splatsense.library.verify import VerifyReport, rebuild, verify

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


class Library:
    """A searchable library of 3D assets, kept in one folder. The assets stay where they are.

    Args:
        path: the library's folder; made when missing, unless `create` is false.
        model: name of a bundled model, folder of a model, or a loaded model.
        create: make a new library if there is none.
        store: postgresql://USER@HOST/DATABASE to share one library among machines; the folder then holds thumbnails and
            caches only. By default everything is in the folder.
        approximate_above: search through FAISS in libraries of more assets than this; by default always exactly.
        isolated: read files in processes of their own, so that none can harm this one. False reads them here.

    Raises:
        LibraryError: the folder is not a library, is damaged, locked, not writable, or of a newer version; or the server
            cannot be reached.

    Example:
        >>> with Library("my_assets") as library:
        ...     library.add("downloads/")
        ...     library.search("wooden chair", k=3)
    """

    def __init__(self, path: str | os.PathLike[str], model: str | Path | EmbeddingModel = "clip-gs-tiny",
                 create: bool = True, store: str | None = None, approximate_above: int | None = None,
                 isolated: bool = True) -> None:  # fmt: skip
        self.path = Path(os.path.abspath(path))
        self._model = model
        self._store = Store(self.path, create, store)
        self._approximate_above, self._isolated = approximate_above, isolated
        self._label_vectors: tuple[tuple[str, ...], np.ndarray] | None = None

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.count()

    def __repr__(self) -> str:
        return f"Library({str(self.path)!r})"

    def close(self) -> None:
        """Close the library's files. It cannot be used afterwards."""
        self.__dict__.pop("_vectors", None)
        self._store.close()

    @cached_property
    def model(self) -> EmbeddingModel:
        """The model that embeds assets and queries."""
        return resolve_model(self._model)

    def add(self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, progress: bool = True,
            on_error: OnError = "report", retry: bool = False, draw: bool = False,
            ray: str | None = None) -> AddReport:  # fmt: skip
        """Index files, and folders with all that is in them.

        Files that are in the library already are passed over, and so are copies of them. It may be interrupted at any
        moment: what is stored is kept, and the same call goes on from there.

        Args:
            paths: one or more files or folders.
            progress: show count, rate and time left on stderr.
            on_error: "report" goes on after a file that cannot be indexed; "raise" raises its error.
            retry: try files again that failed before and have not changed since.
            draw: also draw the thumbnails of new assets; otherwise each is drawn when it is first asked for.
            ray: embed on a Ray cluster: its address, such as "auto" or "ray://host:10001", or "local" for one on this
                machine. Its machines must see the files under the same paths.
        """
        given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        files, missing = find_files([Path(path) for path in given], self.path)
        if missing and on_error == "raise":
            raise FormatError(f"{missing[0][0]}: {missing[0][1]}.")
        ingest = Ingest(self._store, self.model, self._read, on_error, retry, draw)
        if ray is None:
            report = ingest.run(files, progress)
        else:
            from splatsense.library.ray_embedding import embedded_by_ray

            report = ingest.run_elsewhere(files, lambda paths: embedded_by_ray(paths, self._model, ray, draw), progress)
        report.failed[:0] = missing
        self._vectors.refresh()
        return report

    def assets(self) -> list[Asset]:
        """Every asset that could be read, in the order of their ids."""
        return self._store.all_assets()

    def failures(self) -> list[Asset]:
        """Every file that could not be read, with the reason in `error`."""
        return self._store.all_assets("failed")

    def asset(self, asset_id: int) -> Asset:
        """One asset. Raises LibraryError when there is none of this id."""
        return self._store.assets([asset_id])[0]

    def files(self) -> list[Path]:
        """Every file the library was given and has not forgotten, copies and failed ones too."""
        return self._store.paths()

    def models(self) -> list[ModelState]:
        """The models that have embedded assets of this library, and how many each."""
        return self._store.models()

    def remove(self, asset: Asset | int) -> None:
        """Forget an asset. Its file stays where it is, and is indexed again by the next `add` that meets it.

        Raises:
            LibraryError: there is no asset of this id.
        """
        found = self.asset(_id(asset))
        self._store.remove(found.id)
        thumbnails.thumbnail_path(self.path, found.sha256).unlink(missing_ok=True)

    def forget(self, files: Iterable[Path]) -> list[Path]:
        """Forget files that are gone, and assets of which no file is left; returns those files."""
        gone = list(files)
        if gone:
            self._store.forget_files(gone)
            self._store.drop_unseen()
        return gone

    def duplicates(self, threshold: float = THRESHOLD) -> Duplicates:
        """Files of the same content, and groups of assets whose embeddings are at least `threshold` (cosine) close."""
        return find_duplicates(self._store, self.embeddings(), threshold)

    def verify(self, contents: bool = False) -> VerifyReport:
        """Check everything that is stored, without changing it; `contents` also reads every asset file."""
        return verify(self._store, contents)

    def rebuild(self) -> int:
        """Make the vectors files and FAISS indexes of all models anew, delete damaged and unused thumbnails; returns how many.

        Raises:
            LibraryError: the database itself is damaged.
        """
        self.__dict__.pop("_vectors", None)
        above = self._approximate_above
        return rebuild(self._store, [VectorCache(self._store, self.path, m.hash, m.name, above) for m in self.models()])

    def export(self, folder: str | os.PathLike[str], files: bool = True) -> Transfer:
        """Write the whole library into a new folder, with the asset files unless `files` is false."""
        return export_library(self._store, Path(os.path.abspath(folder)), files)

    def import_from(self, folder: str | os.PathLike[str], destination: str | os.PathLike[str] | None = None) -> Transfer:
        """Add what `export` wrote. Asset files are copied to `destination`, by default `assets/` in the library's folder."""
        target = self.path / "assets" if destination is None else Path(os.path.abspath(destination))
        done = import_library(self._store, Path(os.path.abspath(folder)), target)
        self._vectors.refresh()
        return done

    def search(self, query: Query, k: int = 10) -> list[Hit]:
        """The k assets closest to a query, best first.

        Args:
            query: words; or an image (a file or a PIL image); or an asset (a file, Gaussians, an `Asset` or its id).
                A string is a file when it ends in a suffix of an image or an asset.
            k: at least 1.

        Raises:
            DataError: the query is empty or of a kind that cannot be searched for.
            FormatError: the file does not exist or cannot be read.
            LibraryError: nothing in the library is indexed with this model.
        """
        if isinstance(query, str) and Path(query).suffix.lower() not in IMAGE_SUFFIXES | ASSET_SUFFIXES:
            return self.search_text(query, k)
        if isinstance(query, (str, os.PathLike)):
            path = Path(query)
            if not path.is_file():
                raise FormatError(f"{path}: no such file. To search for words that look like one, use search_text.")
            return self.search_image(path, k) if path.suffix.lower() in IMAGE_SUFFIXES else self.search_asset(path, k)
        if isinstance(query, (int, Asset, Gaussians)):
            return self.search_asset(query, k)
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

    def tags(self, asset: AssetLike, labels: Sequence[str] | None = None,
             k: int = 5) -> list[tuple[str, float]]:  # fmt: skip
        """The k likeliest labels of an asset with their probabilities, best first.

        Args:
            asset: an asset of the library, a file, or Gaussians.
            labels: to choose from; by default about 200 names of everyday objects.
            k: at least 1.
        """
        chosen = chosen_labels(labels)
        if self._label_vectors is None or self._label_vectors[0] != chosen:
            self._label_vectors = (chosen, prompt_embeddings(self.model, chosen))
        return rank_labels(self.embed_asset(asset), self._label_vectors[1], chosen, k)

    def thumbnail(self, asset: Asset | int) -> Path:
        """A 256-pixel picture of an asset (WebP), drawn on first use and kept in the library.

        Raises:
            LibraryError: its file is gone.
        """
        found = self.asset(_id(asset))
        path = thumbnails.thumbnail_path(self.path, found.sha256)
        if not path.is_file():
            picture = self._read(self.file(found), True).result().thumbnail
            if picture is None:
                raise DataError(f"{found.path}: nothing in it can be seen.")
            thumbnails.write_bytes(picture, path)
        return path

    def load(self, path: str | os.PathLike[str]) -> Gaussians:
        """The Gaussians of any asset file, read in a process of its own unless the library is not `isolated`."""
        return self._read(Path(path), False).result().gaussians

    @property
    def _read(self) -> Read:
        return shared_readers().read if self._isolated else read_here

    def file(self, asset: Asset | int) -> Path:
        """A file of an asset that exists now: where it was seen, or in the same place seen from the library's folder.

        Raises:
            LibraryError: there is none any more.
        """
        found = self.asset(_id(asset))
        path = self._store.moved_path(found)
        if path is None:
            raise LibraryError(f"{found.path}: the file is gone; add the folder it was moved to, or remove the asset.")
        return path

    def embed_asset(self, asset: AssetLike) -> np.ndarray:
        """(dim,) unit-length embedding of an asset: the stored one if there is one."""
        if isinstance(asset, (Asset, int)):
            found = self.asset(_id(asset))
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

    def _search(self, embed: Callable[[], np.ndarray], k: int, among: np.ndarray | None = None) -> list[Hit]:
        if self._vectors.is_empty():
            reason = f"has no assets indexed with {self.model.name}" if len(self) else "is empty"
            raise LibraryError(f"{self._store.place}: this library {reason}; {self._add_hint()}.")
        ids, scores = self._vectors.top_k(embed().astype(np.float32), k, among)
        assets = self._store.assets(ids.tolist())
        return [Hit(float(score), asset) for score, asset in zip(scores, assets, strict=True)]

    @cached_property
    def _vectors(self) -> VectorCache:
        return VectorCache(self._store, self.path, self.model.hash, self.model.name, self._approximate_above)

    def _add_hint(self) -> str:
        return f"index some with `splatsense add {self.path} FILES`"


def _id(asset: Asset | int) -> int:
    return asset.id if isinstance(asset, Asset) else asset


def _row(embeddings: Any) -> np.ndarray:
    return embeddings[0].detach().cpu().numpy()
