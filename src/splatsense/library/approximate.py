"""Approximate search through FAISS (extra `faiss`): a disposable file beside the vectors, with a measured recall.

Design
- The rows fall into cells around centroids (inverted file), and each is held as 4-bit codes of products of its dimensions, 1/16
  of the memory (Jégou et al. 2011; André et al. 2017 for the SIMD scan). A search scans the codes of the nearest cells and
  computes the cosines of the best of them from the exact vectors, so scores are exact and only rows can be missed.
- How many cells that takes is found by measurement when the index is built: the fewest that reach a recall of 0.97 among the
  best 10 for each kind of query: near the library's own vectors, between two of them, and far from all, as words are, whose
  cosines with the nearest assets are 0.2 or 0.3. The least recall of a kind is stored and told.
- The file ends with the revision of the vectors it was made from and is made again when that is another.
"""

import importlib
import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splatsense.errors import FormatError, LibraryError
from splatsense.files import atomic_write
from splatsense.library.index import VectorIndex, top_k

log = logging.getLogger("splatsense")

RECALL, AMONG = 0.97, 10
QUERIES, KINDS = 300, 3
NEAR, FAR = 0.5, 8.0  # lengths of the noise that makes queries of vectors; FAR finds as much as words do
CANDIDATES = 400
TRAINING_ROWS = 100_000
LEAST_ROWS = 624  # that the codes are learned from: 39 for each of 16, below which FAISS warns; fewer are searched exactly
BLOCK = 8192  # rows in one product with all queries
VERSION = 2


@dataclass(frozen=True)
class Effort:
    """How much a search looks at.

    Attributes:
        cells: whose codes are scanned.
        candidates: whose exact cosines are computed.
        recall: share of the best 10 that are found, of the kind of query that finds least, measured when the index was built.
    """

    cells: int
    candidates: int
    recall: float


class ApproximateIndex:
    """A FAISS index over the rows of a `VectorIndex`."""

    def __init__(self, index: Any, revision: Any, effort: Effort) -> None:
        self._index, self.revision, self.effort = index, revision, effort

    def top_k(self, exact: VectorIndex, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `VectorIndex.top_k`, but a few of the k may be missed."""
        return search(self._index, exact, query, k, self.effort)


def search(index: Any, exact: VectorIndex, query: np.ndarray, k: int, effort: Effort) -> tuple[np.ndarray, np.ndarray]:
    """The best k by exact cosine among the candidates that a FAISS index names."""
    faiss = _faiss()
    parameters = faiss.SearchParametersIVF(nprobe=effort.cells)
    _, rows = index.search(query[None].astype(np.float32), max(effort.candidates, 4 * k), params=parameters)
    rows = np.sort(rows[0][rows[0] >= 0])
    scores = exact.vectors[rows] @ query
    best = top_k(scores, k)
    return exact.ids[rows[best]], scores[best].astype(np.float32)


def load_or_build(path: Path, exact: VectorIndex) -> ApproximateIndex:
    """The index in a file if it is of these vectors; else it is built, which takes minutes for a million, and stored.

    Raises:
        LibraryError: FAISS is not installed.
    """
    faiss = _faiss()
    facts_path = path.with_suffix(".faiss.json")
    try:
        facts = json.loads(facts_path.read_text())
        if facts["version"] == VERSION and (facts["epoch"], facts["sequence"], facts["bytes"]) == (
            exact.revision.epoch.hex(), exact.revision.sequence, path.stat().st_size,
        ):  # fmt: skip
            return ApproximateIndex(faiss.read_index(str(path)), exact.revision, Effort(**facts["effort"]))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        log.info("%s: missing or stale; it is built.", path)
    index = build(exact)
    effort = tune(index, exact)
    if effort.recall < RECALL:
        log.warning("%s: recall@%d is %.3f at best.", path, AMONG, effort.recall)
    try:
        with atomic_write(path) as temporary:
            faiss.write_index(index, str(temporary))
        facts = {"version": VERSION, "epoch": exact.revision.epoch.hex(), "sequence": exact.revision.sequence,
                 "bytes": path.stat().st_size, "effort": asdict(effort)}  # fmt: skip
        with atomic_write(facts_path) as temporary:
            temporary.write_text(json.dumps(facts))
    except FormatError as error:
        log.warning("%s; the index is kept in memory, and built again by the next process.", error)
    return ApproximateIndex(index, exact.revision, effort)


def build(exact: VectorIndex) -> Any:
    """An inverted file of product codes over all rows."""
    faiss = _faiss()
    rows, dim = exact.vectors.shape
    cells = max(1, min(int(math.sqrt(rows)), rows // 40))
    parts = next(parts for parts in (dim // 2, dim // 3, dim) if parts and dim % parts == 0)
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFPQFastScan(quantizer, dim, cells, parts, 4, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed = 8, 1
    random = np.random.default_rng(0)
    sample = np.sort(random.choice(rows, min(rows, TRAINING_ROWS), replace=False))
    index.train(np.ascontiguousarray(exact.vectors[sample]))
    for start in range(0, rows, TRAINING_ROWS):
        index.add(np.ascontiguousarray(exact.vectors[start : start + TRAINING_ROWS]))
    return index


def tune(index: Any, exact: VectorIndex) -> Effort:
    """The least effort of RECALL, or the most there is."""
    queries = trial_queries(exact)
    truth = [set(row.tolist()) for row in exact.ids[best_rows(exact.vectors, queries, AMONG)]]
    cells, effort = 1, Effort(1, CANDIDATES, 0.0)
    while True:
        effort = Effort(cells, CANDIDATES, 0.0)
        found = [set(search(index, exact, query, AMONG, effort)[0].tolist()) for query in queries]
        shares = [len(a & b) / len(b) for a, b in zip(found, truth, strict=True)]
        recall = min(float(np.mean(shares[kind::KINDS])) for kind in range(min(KINDS, len(shares))))
        effort = Effort(cells, CANDIDATES, recall)
        if recall >= RECALL or cells >= index.nlist:
            return effort
        cells = min(index.nlist, 2 * cells)


def best_rows(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """(Q, k) rows of `vectors` with the largest products with each query, in no order; fewer where there are fewer rows."""
    rows, scores = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(vectors), BLOCK):
        part = queries @ vectors[start : start + BLOCK].T
        scores = np.concatenate([scores, part], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)], axis=1)
        best = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
        rows, scores = np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)
    return rows


def trial_queries(exact: VectorIndex, count: int = QUERIES) -> np.ndarray:
    """(count, dim) unit-length queries, of three kinds in turn: near a vector of the library, between two, and far from all."""
    random = np.random.default_rng(1)
    count = min(count, len(exact))
    rows, others = exact.vectors[random.integers(0, len(exact), (2, count))]
    noise = random.normal(size=rows.shape) / math.sqrt(rows.shape[1])
    kind = np.arange(count)[:, None] % KINDS
    queries = rows + np.choose(kind, [NEAR * noise, others, FAR * noise])
    return (queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise LibraryError('approximate search: FAISS is missing; pip install "splatsense[faiss]".') from error
