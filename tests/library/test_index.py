import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from splatsense.errors import DataError
from splatsense.library.index import VectorIndex, merge_top_k, read_index, top_k, write_index
from splatsense.library.records import Embeddings, Revision

EPOCH = bytes(range(16))
REVISION = Revision(EPOCH, 7)


@given(
    scores=arrays.arrays(np.float32, st.integers(0, 40), elements=st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5])),
    k=st.integers(1, 50),
)
def test_top_k_is_a_stable_sort_cut_off(scores, k):
    np.testing.assert_array_equal(top_k(scores, k), np.argsort(-scores, kind="stable")[:k])


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 60), dim=st.integers(1, 24), k=st.integers(1, 70))
def test_search_is_exact(seed, rows, dim, k):
    random = np.random.default_rng(seed)
    vectors, query = random.normal(size=(rows, dim)).astype(np.float32), random.normal(size=dim).astype(np.float32)
    ids, scores = VectorIndex(np.arange(rows) * 3 + 7, vectors, REVISION).top_k(query, k)
    exact = vectors.astype(np.float64) @ query
    assert len(ids) == len(set(ids.tolist())) == min(k, rows)
    np.testing.assert_allclose(scores, exact[(ids - 7) // 3], atol=1e-4)
    np.testing.assert_allclose(scores, np.sort(exact)[::-1][:k], atol=1e-4)


def test_k_must_be_positive():
    with pytest.raises(DataError, match="k must be at least 1, got 0"):
        top_k(np.zeros(3), 0)


@pytest.fixture
def written(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    path = tmp_path / "vectors.f32"
    ids = np.array([2, 3, 5, 7, 11])
    write_index(path, [Embeddings(ids[:2], vectors[:2]), Embeddings(ids[2:], vectors[2:])], 5, 3, REVISION)
    return path, vectors


def test_a_written_index_is_read_back(written):
    path, vectors = written
    index = read_index(path, EPOCH)
    assert index is not None
    assert index.revision == REVISION
    assert index.ids.tolist() == [2, 3, 5, 7, 11]
    np.testing.assert_array_equal(index.vectors, vectors)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[:40], lambda b: b"", lambda b: b"X" + b[1:]]
)
def test_damaged_files_are_refused(written, damage):
    path, _ = written
    path.write_bytes(damage(path.read_bytes()))
    assert read_index(path, EPOCH) is None


def test_missing_and_stale_files_are_refused(written):
    path, _ = written
    assert read_index(path, bytes(16)) is None
    path.unlink()
    assert read_index(path, EPOCH) is None
    path.mkdir()  # something that cannot be read
    assert read_index(path, EPOCH) is None


def test_an_index_without_rows(tmp_path):
    write_index(tmp_path / "none.f32", [], 0, 3, REVISION)
    index = read_index(tmp_path / "none.f32", EPOCH)
    assert index is not None
    assert len(index) == 0


def test_parts_that_are_not_as_many_as_announced_leave_no_file(tmp_path):
    with pytest.raises(DataError, match="2 embeddings instead of 3"):
        write_index(tmp_path / "x.f32", [Embeddings(np.arange(2), np.zeros((2, 3), np.float32))], 3, 3, REVISION)
    assert list(tmp_path.iterdir()) == []


@given(seed=st.integers(0, 2**31), rows=st.integers(2, 60), cut=st.integers(1, 59), k=st.integers(1, 70))
def test_two_parts_together_find_what_one_index_finds(seed, rows, cut, k):
    random = np.random.default_rng(seed)
    vectors, query = random.integers(-1, 2, (rows, 4)).astype(np.float32), random.integers(-1, 2, 4).astype(np.float32)
    ids, first = np.arange(rows), random.permutation(rows) < cut
    whole = VectorIndex(ids, vectors, REVISION).top_k(query, k)
    parts = [VectorIndex(ids[chosen], vectors[chosen], REVISION).top_k(query, k) for chosen in (first, ~first)]
    merged = merge_top_k(*parts, k)
    np.testing.assert_array_equal(merged[0], whole[0])
    np.testing.assert_array_equal(merged[1], whole[1])
