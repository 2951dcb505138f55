"""`VectorIndex`: exact nearest neighbours over a memory-mapped float32 file.

Design
- Layout, little-endian: a 64-byte header, the ids of the assets (int64, ascending), their unit-length embeddings
  (float32, one row each). The rows start at a multiple of 64 bytes.
- The file is a copy of what SQLite holds. Its header names the revision of the embeddings it was copied from; when
  that differs, or the size of the file is not what the header says, it is written again from SQLite.
- A search reads every row once: one matrix-vector product, then a partial sort. Exact, with nothing to tune, and
  takes some tens of milliseconds for 100,000 assets.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatsense.errors import DataError, FormatError
from splatsense.files import atomic_write

MAGIC = b"SSVECTOR"
HEADER = struct.Struct("<8sIIQ16s24x")  # magic, version, dim, rows, revision
VERSION = 1
ALIGNMENT = 64


@dataclass(frozen=True)
class VectorIndex:
    """Embeddings of a library by one model.

    Attributes:
        ids: (N,) int64, ascending.
        vectors: (N, dim) float32, unit length.
        revision: 16 bytes that name the state of the library these were copied from.
    """

    ids: np.ndarray
    vectors: np.ndarray
    revision: bytes

    def __len__(self) -> int:
        return len(self.ids)

    def top_k(self, query: np.ndarray, k: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The ids (k,) and cosines (k,) of the k nearest rows, best first; equal cosines in ascending order of id.

        Args:
            query: (dim,) float32, unit length.
            k: at least 1; fewer come back when there are fewer rows.
            among: ids of the only rows to look at; by default all.
        """
        scores = self.vectors @ query
        if among is None:
            best = top_k(scores, k)
        else:
            rows = np.flatnonzero(np.isin(self.ids, among))
            best = rows[top_k(scores[rows], k)]
        return self.ids[best], (self.vectors[best] @ query).astype(np.float32)


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions (k,) of the k largest of `scores` (N,), largest first, equal ones by position.

    The same as `np.argsort(-scores, kind="stable")[:k]` without sorting them all. Raises DataError for k below 1.
    """
    if k < 1:
        raise DataError(f"k must be at least 1, got {k}.")
    k = min(k, len(scores))
    if k == 0:
        return np.zeros(0, np.int64)
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > threshold)
    ties = np.flatnonzero(scores == threshold)[: k - len(above)]
    chosen = np.concatenate([above, ties])
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def write_index(path: Path, ids: Sequence[int], vectors: Sequence[bytes], revision: bytes) -> None:
    """Write the vectors file; `vectors` are the float32 bytes of each row.

    Raises:
        FormatError: the rows differ in length, or the folder cannot be written.
    """
    dim = len(vectors[0]) // 4 if vectors else 0
    if any(len(vector) != 4 * dim for vector in vectors):
        raise FormatError(f"{path}: the embeddings of this model differ in length; delete the library and index again.")
    with atomic_write(path) as temporary, temporary.open("wb") as out:
        out.write(HEADER.pack(MAGIC, VERSION, dim, len(ids), revision))
        out.write(np.asarray(ids, "<i8").tobytes())
        out.write(bytes(-out.tell() % ALIGNMENT))
        out.writelines(vectors)


def read_index(path: Path, revision: bytes) -> VectorIndex | None:
    """Map the vectors file into memory, or None when it is missing, damaged or of another revision."""
    try:
        with path.open("rb") as opened:
            header = opened.read(HEADER.size)
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    if len(header) < HEADER.size:
        return None
    magic, version, dim, rows, found = HEADER.unpack(header)
    start = HEADER.size + 8 * rows
    start += -start % ALIGNMENT
    if (magic, version, found) != (MAGIC, VERSION, revision) or size != start + 4 * rows * dim:
        return None
    if rows == 0:
        return VectorIndex(np.zeros(0, np.int64), np.zeros((0, dim), np.float32), revision)
    ids = np.memmap(path, "<i8", "r", HEADER.size, (rows,))
    vectors = np.memmap(path, "<f4", "r", start, (rows, dim))
    return VectorIndex(ids, vectors, revision)
