"""`Catalogue`: the facts of every asset that filters, counts and the map need, in memory.

Design
- A snapshot is made of what the library holds at one moment and never changes; a new one replaces it when the library has
  changed, at most every `REFRESH_SECONDS`, because indexing changes the library several times a second.
- Files that were moved or renamed change no embedding. So names and folders are listed again now and then, as often as
  `LISTING_SHARE` of the time allows; tags and the map are kept.
- The tags of an asset are its likeliest labels: the first, and up to two more that have a probability of 10 % or more.
- The map is the projection of the embeddings on their two directions of largest variance (PCA).
"""

import hashlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from splatsense.errors import FormatError, LibraryError
from splatsense.files import atomic_write
from splatsense.library import Asset, Library
from splatsense.library.records import Revision
from splatsense.library.tags import PROMPT_TEMPLATES, TAG_TEMPERATURE, default_labels, prompt_embeddings
from splatsense.tables import printable

log = logging.getLogger("splatsense.web")

REFRESH_SECONDS = 2.0
LISTING_SHARE = 0.02  # of the time, at most, to look for files that were moved
TAGS, TAG_PROBABILITY = 3, 0.1
BLOCK = 8_192  # assets whose labels are compared at once
SIZES = {"small": (0, 10_000), "medium": (10_000, 100_000), "large": (100_000, 1_000_000), "huge": (1_000_000, 1 << 62)}
"""Names of the filter of sizes -> fewest and, not included, most Gaussians."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What the library held at one moment; row i of everything is one asset.

    Attributes:
        revision: of the embeddings, to know a stale one.
        labels: the vocabulary of tags.
        ids: (N,) ascending.
        names: N names.
        versions: N versions of their pictures.
        gaussians: (N,) counts.
        folders: names of the folders that files lie in.
        folder: (N,) positions in `folders`.
        tags: (N, 3) positions in `labels`, likeliest first, -1 for none.
        probabilities: (N, 3) of the tags.
        positions: (N, 2) on the map, in [-1, 1].
    """

    revision: Revision
    labels: list[str]
    ids: np.ndarray
    names: list[str]
    versions: list[str]
    gaussians: np.ndarray
    folders: list[str]
    folder: np.ndarray
    tags: np.ndarray
    probabilities: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def tags_of(self, asset_id: int) -> list[tuple[str, float]]:
        """(label, probability) of an asset, likeliest first; none when it is newer than the snapshot."""
        row = int(np.searchsorted(self.ids, asset_id))
        if row == len(self) or self.ids[row] != asset_id:
            return []
        pairs = zip(self.tags[row].tolist(), self.probabilities[row].tolist(), strict=True)
        return [(self.labels[tag], probability) for tag, probability in pairs if tag >= 0]

    def select(self, tags: Sequence[str] = (), folder: str = "", size: str = "") -> np.ndarray | None:
        """Ids of the assets that have one of the tags, lie in the folder and have the size; None for all of them."""
        if not (tags or folder or size):
            return None
        kept = np.ones(len(self), bool)
        if tags:
            wanted = [position for position, label in enumerate(self.labels) if label in set(tags)]
            kept &= np.isin(self.tags, wanted).any(1)
        if folder:
            kept &= self.folder == (self.folders.index(folder) if folder in self.folders else -1)
        if size:
            low, high = SIZES[size]
            kept &= (self.gaussians >= low) & (self.gaussians < high)
        return self.ids[kept]

    def counts(self) -> dict[str, dict[str, int]]:
        """How many assets each tag, folder and size has, the most frequent first."""
        tags = Counter(self.tags[self.tags >= 0].tolist()).most_common()
        folders = Counter(self.folder.tolist()).most_common()
        sizes = {name: int(((self.gaussians >= low) & (self.gaussians < high)).sum()) for name, (low, high) in SIZES.items()}
        return {
            "tags": {self.labels[tag]: count for tag, count in tags},
            "folders": {self.folders[folder]: count for folder, count in folders},
            "sizes": {name: count for name, count in sizes.items() if count},
        }


def version_of(asset: Asset) -> str:
    """Changes with all that an asset's picture and view are made from; browsers keep those for as long as it is the same."""
    return asset.sha256[:16] + (asset.up or "")


class Catalogue:
    """Gives the snapshot of a library, made again when the library has changed."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._checked = self._listed = self._listing_seconds = 0.0
        self._expired = False
        self._labels = default_labels()
        self._label_vectors: np.ndarray | None = None

    def snapshot(self) -> Snapshot:
        """The facts of all assets, up to `REFRESH_SECONDS` old; never older than the last `expire`."""
        must = self._snapshot is None or self._expired
        is_due = time.monotonic() - self._checked > REFRESH_SECONDS
        if (must or is_due) and self._lock.acquire(blocking=must):  # others go on with the old one meanwhile
            try:
                self._refresh()
            finally:
                self._lock.release()
        if self._snapshot is None:
            raise LibraryError(f"{self._library.path}: its assets could not be listed.")
        return self._snapshot

    def expire(self) -> None:
        """The library has changed: the next snapshot is a new one."""
        self._expired = True

    def _refresh(self) -> None:
        is_expired, self._expired = self._expired, False
        index, old = self._library.embeddings(), self._snapshot
        if old is None or old.revision != index.revision:
            assets = self._list()
            rows = np.flatnonzero(np.isin(index.ids, np.fromiter(assets, np.int64, len(assets))))
            kept = [assets[asset_id] for asset_id in index.ids[rows].tolist()]
            vectors = np.asarray(index.vectors[rows]) if len(rows) < len(index) else index.vectors
            self._snapshot = self._make(index.revision, kept, vectors)
        elif is_expired or time.monotonic() - self._listed > self._listing_seconds / LISTING_SHARE:
            assets = self._list()
            if all(asset_id in assets for asset_id in old.ids.tolist()):
                kept = [assets[asset_id] for asset_id in old.ids.tolist()]
                folders, folder = _folders(kept)
                self._snapshot = replace(old, names=[asset.name for asset in kept], folders=folders, folder=folder)
        self._checked = time.monotonic()

    def _list(self) -> dict[int, Asset]:
        """Every asset by its id."""
        start = time.monotonic()
        assets = {asset.id: asset for asset in self._library.assets()}
        self._listed = time.monotonic()
        self._listing_seconds = self._listed - start
        return assets

    def _make(self, revision: Revision, assets: list[Asset], vectors: np.ndarray) -> Snapshot:
        folders, folder = _folders(assets)
        tags, probabilities = self._likeliest(vectors)
        return Snapshot(
            revision,
            self._labels,
            np.array([asset.id for asset in assets], np.int64),
            [asset.name for asset in assets],
            [version_of(asset) for asset in assets],
            np.array([asset.gaussians for asset in assets], np.int64),
            folders,
            folder,
            tags,
            probabilities,
            project(vectors),
        )

    def _likeliest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tags = np.full((len(vectors), TAGS), -1, np.int64)
        probabilities = np.zeros((len(vectors), TAGS), np.float32)
        if len(vectors) == 0:
            return tags, probabilities
        if self._label_vectors is None:
            self._label_vectors = label_embeddings(self._library, self._labels)
        for start in range(0, len(vectors), BLOCK):
            logits = vectors[start : start + BLOCK] @ self._label_vectors.T / TAG_TEMPERATURE
            shares = np.exp(logits - logits.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            best = np.argsort(-shares, axis=1)[:, :TAGS]
            likely = np.take_along_axis(shares, best, axis=1)
            best[:, 1:][likely[:, 1:] < TAG_PROBABILITY] = -1
            tags[start : start + BLOCK], probabilities[start : start + BLOCK] = best, likely
        return tags, probabilities


def _folders(assets: Sequence[Asset]) -> tuple[list[str], np.ndarray]:
    """The folders that assets lie in, and (N,) which of them each does."""
    names = [printable(asset.path.parent) for asset in assets]
    distinct = sorted(set(names))
    position = {name: index for index, name in enumerate(distinct)}
    return distinct, np.array([position[name] for name in names], np.int64)


def label_embeddings(library: Library, labels: Sequence[str]) -> np.ndarray:
    """(L, dim) embeddings of labels, kept in the library's folder: they take seconds, and the page needs them at its start."""
    texts = json.dumps([labels, PROMPT_TEMPLATES]).encode()
    path = library.path / f"labels-{library.model.hash[:12]}-{hashlib.sha256(texts).hexdigest()[:12]}.npy"
    try:
        vectors = np.load(path, allow_pickle=False)
        if vectors.shape[0] == len(labels) and vectors.dtype == np.float32:
            return vectors
    except (OSError, ValueError, EOFError):  # it was never written, or is damaged
        pass
    vectors = prompt_embeddings(library.model, labels)
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as out:
            np.save(out, vectors, allow_pickle=False)
    except FormatError as error:
        log.info("%s; they are computed again at the next start.", error)
    return vectors


def project(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """Coordinates on the two directions of largest variance (PCA), scaled together into [-1, 1].

    The sign of each direction is fixed, so that the map stays as it is from start to start.
    """
    if len(vectors) == 0:
        return np.zeros((0, 2), np.float32)
    centred = np.asarray(vectors, np.float32) - vectors.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    axes = directions[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), range(axes.shape[1])] < 0, -1, 1)
    positions = np.zeros((len(vectors), 2), np.float32)
    positions[:, : axes.shape[1]] = centred @ axes
    return positions / max(float(np.abs(positions).max()), 1e-12)
