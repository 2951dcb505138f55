"""The copy of the vectors that searches run over: file and tail together are always what the store holds."""

import logging

import numpy as np
import pytest

from splatsense.errors import DataError
from splatsense.library import vectors as module
from splatsense.library.approximate import (
    LEAST_ROWS,
    RECALL,
    ApproximateIndex,
    Effort,
    best_rows,
    load_or_build,
    trial_queries,
)
from splatsense.library.index import VectorIndex
from splatsense.library.records import Indexed, Revision, SeenFile
from splatsense.library.store import Store
from splatsense.library.vectors import VectorCache

DIM = 16


@pytest.fixture
def vector_store(tmp_path):
    store = Store(tmp_path / "library")
    yield store
    store.close()


def put(store, numbers, seed=0, model="model"):
    """Store assets of these numbers; the vector of a number is the same for the same seed."""
    with store.database.transaction():
        for number in numbers:
            vector = np.random.default_rng((seed, number)).normal(size=DIM).astype(np.float32)
            file = SeenFile(store.folder / f"{number}.splat", 1, 1, f"{number:064x}")
            store._put_embedding(asset(store, file), vector / np.linalg.norm(vector), model, model)


def asset(store, file):
    store._query("INSERT INTO assets (sha256, status, gaussians, added) VALUES (?, 'ok', 1, 0) ON CONFLICT DO NOTHING",
                 (file.sha256,))  # fmt: skip
    asset_id = store._query("SELECT id FROM assets WHERE sha256 = ?", (file.sha256,))[0][0]
    store._put_file(file, asset_id)
    return asset_id


def check(cache, store):
    """What the cache finds is what a look at every embedding of the store finds."""
    parts = list(store.embeddings("model"))
    ids, rows = np.concatenate([part.ids for part in parts]), np.concatenate([part.vectors for part in parts])
    for seed in range(3):
        query = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
        best = np.lexsort((ids, -(rows @ query)))[:5]
        found, scores = cache.top_k(query, 5)
        np.testing.assert_array_equal(found, ids[best])
        np.testing.assert_allclose(scores, rows[best] @ query, atol=1e-6)
    whole = cache.whole()
    np.testing.assert_array_equal(whole.ids, ids)
    np.testing.assert_array_equal(whole.vectors, rows)


def test_new_assets_go_into_the_tail_and_into_the_file_when_there_are_many(vector_store, monkeypatch):
    monkeypatch.setattr(module, "TAIL_ROWS", 10)
    monkeypatch.setattr("splatsense.library.store.CHUNK", 7)
    put(vector_store, range(50))
    cache = VectorCache(vector_store, "model", "A Model")
    check(cache, vector_store)
    written = cache.path.read_bytes()
    put(vector_store, range(50, 60))
    check(cache, vector_store)
    assert cache.path.read_bytes() == written
    assert [len(part) for part in cache.current()] == [50, 10]
    put(vector_store, range(60, 61))
    check(cache, vector_store)
    assert [len(part) for part in cache.current()] == [61, 0]
    other = VectorCache(vector_store, "model", "A Model")
    check(other, vector_store)
    assert other.path == cache.path


def test_changed_and_removed_assets_are_seen_at_once(vector_store):
    put(vector_store, range(30))
    cache = VectorCache(vector_store, "model", "m")
    check(cache, vector_store)
    put(vector_store, [3, 40], seed=1)  # one that is there already, by the same model again
    check(cache, vector_store)
    vector_store.remove(7)
    check(cache, vector_store)
    assert 7 not in cache.whole().ids


def test_two_models_do_not_disturb_each_other(vector_store):
    put(vector_store, range(5))
    cache = VectorCache(vector_store, "model", "m")
    check(cache, vector_store)
    revision = vector_store.revision("model")
    put(vector_store, range(8), seed=2, model="other")
    assert vector_store.revision("model") == revision
    check(cache, vector_store)


def test_vectors_stay_in_memory_where_no_file_can_be_written(vector_store, tmp_path, caplog):
    put(vector_store, range(20))
    cache = VectorCache(vector_store, "model", "m")
    cache.path = tmp_path / "nowhere" / cache.path.name
    with caplog.at_level(logging.WARNING):
        check(cache, vector_store)
    assert "kept in memory" in caplog.text


def test_one_transaction_holds_a_file_and_its_embedding(vector_store):
    item = Indexed(SeenFile(vector_store.folder / "a.splat", 1, 1, "a" * 64), np.ones(3, np.float32), 5, np.zeros((2, 3)))
    vector_store.put_indexed(item, "model", "m")
    with pytest.raises(Exception, match="gave 4 dimensions, and 3 before"):
        vector_store.put_indexed(
            Indexed(SeenFile(vector_store.folder / "b.splat", 1, 1, "b" * 64), np.ones(4, np.float32), 5, np.zeros((2, 3))),
            "model",
            "m",
        )
    assert vector_store.count() == 1
    assert len(vector_store.files()) == 1


@pytest.fixture(scope="module")
def clustered():
    """3,000 vectors in 30 clusters."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(30, DIM))
    vectors = (centers[random.integers(0, 30, 3000)] + 0.5 * random.normal(size=(3000, DIM))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return VectorIndex(np.arange(3000) * 2 + 1, vectors, Revision(bytes(16), 9))


def test_the_approximate_index_has_the_recall_it_claims_and_exact_scores(clustered, tmp_path):
    pytest.importorskip("faiss", reason="FAISS is not installed (extra `faiss`)")
    index = load_or_build(tmp_path / "x.faiss", clustered)
    assert index.effort.recall >= RECALL
    far = np.random.default_rng(2).normal(size=(60, DIM)).astype(np.float32)  # as words are: in no cluster
    far /= np.linalg.norm(far, axis=1, keepdims=True)
    found = total = 0
    for query in [*trial_queries(clustered, 60), *far]:
        exact_ids, exact_scores = clustered.top_k(query, 10)
        ids, scores = index.top_k(clustered, query, 10)
        assert len(set(ids.tolist())) == 10
        np.testing.assert_allclose(scores, clustered.vectors[(ids - 1) // 2] @ query, atol=1e-6)
        assert scores[0] <= exact_scores[0] + 1e-6
        found, total = found + len(set(ids.tolist()) & set(exact_ids.tolist())), total + 10
    assert found / total >= 0.95


def test_best_rows_of_blocks_are_the_best_of_all(clustered, monkeypatch):
    monkeypatch.setattr("splatsense.library.approximate.BLOCK", 700)
    queries = trial_queries(clustered, 20)
    for query, rows in zip(queries, best_rows(clustered.vectors, queries, 10), strict=True):
        assert set(clustered.ids[rows].tolist()) == set(clustered.top_k(query, 10)[0].tolist())
    assert best_rows(clustered.vectors[:4], queries, 10).shape == (20, 4)


def test_the_approximate_file_is_read_back_and_made_again_when_stale_or_damaged(clustered, tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="FAISS is not installed (extra `faiss`)")
    from splatsense.library import approximate

    built = []
    real = approximate.build
    monkeypatch.setattr(approximate, "build", lambda exact: built.append(len(exact)) or real(exact))
    path = tmp_path / "x.faiss"
    first = load_or_build(path, clustered)
    query = clustered.vectors[17]
    again = load_or_build(path, clustered)
    assert (again.effort, built) == (first.effort, [3000])
    np.testing.assert_array_equal(again.top_k(clustered, query, 10)[0], first.top_k(clustered, query, 10)[0])
    load_or_build(path, VectorIndex(clustered.ids, clustered.vectors, Revision(bytes(16), 10)))
    path.write_bytes(path.read_bytes()[:-100])
    load_or_build(path, clustered)
    assert len(built) == 3


def test_the_approximate_index_stays_in_memory_where_no_file_can_be_written(clustered, tmp_path, caplog):
    pytest.importorskip("faiss", reason="FAISS is not installed (extra `faiss`)")
    index = load_or_build(tmp_path / "nowhere" / "x.faiss", clustered)
    assert len(index.top_k(clustered, clustered.vectors[17], 10)[0]) == 10
    assert "kept in memory" in caplog.text


def test_a_cache_answers_through_faiss_above_the_size_chosen(vector_store, monkeypatch):
    pytest.importorskip("faiss", reason="FAISS is not installed (extra `faiss`)")
    asked = []
    real = ApproximateIndex.top_k
    monkeypatch.setattr(ApproximateIndex, "top_k", lambda self, *rest: asked.append(self.effort) or real(self, *rest))
    put(vector_store, range(700))
    cache = VectorCache(vector_store, "model", "m", approximate_above=500)
    query = np.random.default_rng(5).normal(size=DIM).astype(np.float32)
    exact = VectorCache(vector_store, "model", "m").top_k(query, 3)
    found = cache.top_k(query, 3)
    assert set(found[0].tolist()) <= set(cache.whole().ids.tolist())
    assert found[1][0] <= exact[1][0] + 1e-6
    assert isinstance(asked[0], Effort)
    put(vector_store, [800])  # in the tail: found although FAISS does not know it
    new = vector_store.embeddings("model", after=700)
    part = next(new)
    assert cache.top_k(part.vectors[0], 1)[0].tolist() == part.ids.tolist()
    cache.top_k(query, 3, among=part.ids)
    assert len(asked) == 2  # a search among some is exact
    with pytest.raises(DataError, match="3 dimensions, the library 16"):
        cache.top_k(query[:3], 1)


def test_a_few_assets_are_searched_exactly_whatever_was_chosen(vector_store, capfd):
    pytest.importorskip("faiss", reason="FAISS is not installed (extra `faiss`)")
    put(vector_store, range(LEAST_ROWS - 1))
    cache = VectorCache(vector_store, "model", "m", approximate_above=0)
    check(cache, vector_store)
    cache.rebuild()
    assert not cache.path.with_suffix(".faiss").exists()
    put(vector_store, [LEAST_ROWS])
    cache.rebuild()
    assert cache.path.with_suffix(".faiss").exists()
    assert "WARNING" not in "".join(capfd.readouterr())  # of FAISS, which has too few to learn from
