import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from splatsense.io._palette import value_codebook, vector_palette


@settings(max_examples=40)
@given(count=st.integers(1, 3000), power=st.sampled_from([1, 3, 9]), seed=st.integers(0, 2**31))
def test_codebooks_are_no_worse_than_equal_steps(count, power, seed):
    values = np.random.default_rng(seed).normal(size=(count, 1)).astype(np.float32) ** power
    codebook, indices = value_codebook(values)
    assert indices.shape == values.shape
    assert (np.diff(codebook) >= 0).all()
    error = codebook[indices].astype(np.float64) - values
    assert np.sqrt((error**2).mean()) <= np.ptp(values) / 510 * (1 + 1e-5) + 1e-7
    if count <= 256:
        assert not error.any()


def test_indices_are_those_of_the_nearest_entry():
    values = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    codebook, indices = value_codebook(values)
    nearest = np.abs(values[:, None] - codebook).min(1)
    np.testing.assert_array_equal(np.abs(values - codebook[indices]), nearest)


def test_a_codebook_of_extreme_values_keeps_the_bulk():
    values = np.append(np.random.default_rng(0).normal(size=5000), [1e6, -1e6]).astype(np.float32)
    codebook, indices = value_codebook(values)
    assert np.sqrt(((codebook[indices] - values)[:5000] ** 2).mean()) < 0.03  # equal steps: 7843


@settings(max_examples=40)
@given(count=st.integers(1, 400), entries=st.sampled_from([1, 2, 16, 256]), seed=st.integers(0, 2**31))
def test_every_entry_is_the_mean_of_its_vectors(count, entries, seed):
    vectors = np.random.default_rng(seed).normal(size=(count, 9)).astype(np.float32)
    palette, labels = vector_palette(vectors, entries)
    assert len(palette) == min(count, entries)
    for entry in range(len(palette)):
        np.testing.assert_allclose(palette[entry], vectors[labels == entry].mean(0), atol=1e-5)


def test_few_different_vectors_are_kept():
    vectors = np.random.default_rng(0).normal(size=(10, 9)).astype(np.float32)[np.arange(1000) % 10]
    palette, labels = vector_palette(vectors, 16)
    assert len(palette) == 10
    np.testing.assert_array_equal(palette[labels], vectors)


def test_clusters_are_found():
    random = np.random.default_rng(0)
    centres = random.normal(size=(64, 24)) * 10
    vectors = (centres[random.permutation(64 * 50) % 64] + random.normal(size=(3200, 24)) * 0.01).astype(np.float32)
    palette, labels = vector_palette(vectors, 64)
    spread = np.square(vectors - vectors.mean(0)).sum()
    assert np.square(vectors - palette[labels]).sum() < 0.2 * spread
