"""`VectorCache`: the copy of a model's embeddings that searches run over, brought up to date before each.

Design
- A file of all vectors, mapped into memory, and a tail: the embeddings stored since it was written, in memory. So one asset
  more in a library of a million costs one row, not a new file. The file is written again when the tail has grown, or when the
  epoch is another because embeddings changed or went.
- The file is disposable. Where it cannot be written, the vectors are kept in memory.
- Above a number of assets that the user chooses, a FAISS index (`splatsense.library.approximate`) answers for the file.
- Where the database can search vectors itself (PostgreSQL), it does, and nothing is copied.
"""

import logging
import threading
from pathlib import Path

import numpy as np

from splatsense.errors import DataError, FormatError
from splatsense.library.approximate import LEAST_ROWS, ApproximateIndex, load_or_build
from splatsense.library.index import VectorIndex, check_k, merge_top_k, read_index, write_index
from splatsense.library.names import words_of
from splatsense.library.records import Embeddings, Revision
from splatsense.library.store import Store

log = logging.getLogger("splatsense")

TAIL_ROWS, TAIL_SHARE = 2000, 0.05
"""The file is written again when the tail has more rows than the first, and than this share of the file."""


class VectorCache:
    """Nearest neighbours among the embeddings of one model.

    Args:
        store: that holds them; the files lie in its folder.
        model: hash of the weights.
        name: of the model, for the names of files.
        approximate_above: search through FAISS when there are more embeddings than this; None for always exact.
    """

    def __init__(self, store: Store, model: str, name: str, approximate_above: int | None = None) -> None:
        stem = f"vectors-{words_of(Path(name).name).replace(' ', '-')}-{model[:12]}"
        self.path = store.folder / f"{stem}.f32"
        self._store, self._model, self._above = store, model, approximate_above
        self._in_database = store.database.vector_search(model)
        self._base: VectorIndex | None = None
        self._tail: VectorIndex | None = None
        self._approximate: ApproximateIndex | None = None
        self._building = threading.Lock()

    def is_empty(self) -> bool:
        """Whether the model has embedded nothing yet."""
        return not self._store.has_embeddings(self._model)

    def top_k(self, query: np.ndarray, k: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The ids (k,) and cosines (k,) of the k nearest assets, best first; equal cosines in ascending order of id.

        Args:
            query: (dim,) float32, unit length.
            k: at least 1; fewer come back when there are fewer assets.
            among: ids of the only assets to look at, which is always exact; by default all.

        Raises:
            DataError: k is below 1, or the query has another number of dimensions.
        """
        check_k(k)
        dim = self._store.dim(self._model)
        if dim and query.shape != (dim,):
            raise DataError(f"the query has {query.size} dimensions, the library {dim}; use one model for both.")
        if self._in_database is not None:
            return self._in_database.top_k(query, k, among)
        base, tail = self.current()
        if among is None and self._is_approximate(base):
            found = self._faiss(base).top_k(base, query, k)
        else:
            found = base.top_k(query, k, among)
        return merge_top_k(found, tail.top_k(query, k, among), k) if len(tail) else found

    def whole(self) -> VectorIndex:
        """All vectors in one index, ids ascending."""
        base, tail = self.current()
        if not len(tail):
            return base
        ids = np.concatenate([base.ids, tail.ids])
        order = np.argsort(ids)
        return VectorIndex(ids[order], np.concatenate([base.vectors, tail.vectors])[order], tail.revision)

    def current(self) -> tuple[VectorIndex, VectorIndex]:
        """The file and the tail, as the store has them now. Together they hold every embedding once."""
        with self._store.snapshot():
            revision = self._store.revision(self._model) or Revision(b"", 0)
            if self._tail is not None and self._tail.revision == revision and self._base is not None:
                return self._base, self._tail
            base = self._base
            if base is None or base.revision.epoch != revision.epoch:
                base = read_index(self.path, revision.epoch)
            new = 0 if base is None else revision.sequence - base.revision.sequence
            if base is None or new < 0 or new > max(TAIL_ROWS, TAIL_SHARE * len(base)):
                base = self._write(revision)
            tail = self._read_tail(base, revision)
            self._base, self._tail = base, tail
        return base, tail

    def refresh(self) -> None:
        """Bring the file up to date where searches read one."""
        if self._in_database is None:
            self.current()

    def rebuild(self) -> None:
        """Delete the files and, where searches read them, write them again, the FAISS index included."""
        self._base = self._tail = self._approximate = None
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".faiss").unlink(missing_ok=True)
        if self._in_database is not None:
            return
        base, _ = self.current()
        if self._is_approximate(base):
            self._faiss(base)

    def _is_approximate(self, base: VectorIndex) -> bool:
        return self._above is not None and len(base) > self._above and len(base) >= LEAST_ROWS

    def _faiss(self, base: VectorIndex) -> ApproximateIndex:
        with self._building:
            if self._approximate is None or self._approximate.revision != base.revision:
                self._approximate = load_or_build(self.path.with_suffix(".faiss"), base)
            return self._approximate

    def _read_tail(self, base: VectorIndex, revision: Revision) -> VectorIndex:
        if revision == base.revision:
            return VectorIndex(np.zeros(0, np.int64), np.zeros((0, base.vectors.shape[1]), np.float32), revision)
        return _collected(list(self._store.embeddings(self._model, base.revision.sequence)), revision)

    def _write(self, revision: Revision) -> VectorIndex:
        rows = self._store.count_embeddings(self._model)
        dim = self._store.dim(self._model)
        if rows == 0:
            return VectorIndex(np.zeros(0, np.int64), np.zeros((0, dim), np.float32), revision)
        try:
            write_index(self.path, self._store.embeddings(self._model), rows, dim, revision)
            written = read_index(self.path, revision.epoch)
        except FormatError as error:
            log.warning("%s; the vectors are kept in memory.", error)
            written = None
        if written is None or written.revision != revision:  # another process replaced it meanwhile: what is stored serves
            written = _collected(list(self._store.embeddings(self._model)), revision)
        return written


def _collected(parts: list[Embeddings], revision: Revision) -> VectorIndex:
    if not parts:
        return VectorIndex(np.zeros(0, np.int64), np.zeros((0, 0), np.float32), revision)
    ids, vectors = np.concatenate([part.ids for part in parts]), np.concatenate([part.vectors for part in parts])
    return VectorIndex(ids, vectors, revision)
