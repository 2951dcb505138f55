import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression as Reference

from splatsense.clip_gs.logistic_regression import LogisticRegression
from splatsense.errors import DataError


def blobs(seed, objects, dim, classes, spread=0.5):
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, objects - classes)])
    features = random.normal(size=(classes, dim))[labels] + spread * random.normal(size=(objects, dim))
    return features / np.linalg.norm(features, axis=1, keepdims=True), labels


@settings(max_examples=25)
@given(st.integers(0, 1000), st.sampled_from([(12, 3, 3), (40, 8, 5), (30, 64, 10)]), st.sampled_from([0.05, 1.0, 30.0]))
def test_it_is_the_solution_of_scikit_learn(seed, shape, C):
    features, labels = blobs(seed, *shape)
    ours = LogisticRegression(features, labels, C)
    reference = Reference(C=C, tol=1e-8, max_iter=5000).fit(features, labels)
    queries = blobs(seed + 1, *shape)[0]
    np.testing.assert_allclose(softmax(ours.scores(queries), axis=1), reference.predict_proba(queries), atol=2e-3)
    assert np.mean(ours.scores(queries).argmax(1) == reference.predict(queries)) > 0.95


def test_two_classes():
    """Two rows of weights share the penalty, so the odds are those of one row under half of it."""
    features, labels = blobs(0, 30, 6, 2)
    ours = LogisticRegression(features, labels, 0.7)
    reference = Reference(C=1.4, tol=1e-8).fit(features, labels)
    odds = ours.scores(features)[:, 1] - ours.scores(features)[:, 0]
    np.testing.assert_allclose(odds, reference.decision_function(features), atol=2e-3)


def test_where_it_starts_and_where_the_features_lie_does_not_matter():
    features, labels = blobs(3, 60, 10, 4)
    near = LogisticRegression(features, labels, 3.0)
    started = LogisticRegression(features, labels, 1.0, start=near)
    plain = LogisticRegression(features, labels, 1.0)
    moved = LogisticRegression(features + 5, labels, 1.0)
    np.testing.assert_allclose(started.scores(features), plain.scores(features), atol=5e-3)
    np.testing.assert_allclose(moved.scores(features + 5), plain.scores(features), atol=5e-3)


def test_a_class_without_objects_is_not_chosen():
    features, labels = blobs(1, 20, 4, 2)
    scores = LogisticRegression(features, labels, 1.0, classes=3).scores(features)
    assert scores.shape == (20, 3)
    assert (scores.argmax(1) < 2).all()


@pytest.mark.parametrize(
    ("features", "labels", "C"),
    [
        (np.zeros((3, 2)), np.zeros(3, int), 1.0),
        (np.zeros((0, 2)), np.zeros(0, int), 1.0),
        (np.full((2, 2), np.nan), np.array([0, 1]), 1.0),
        (np.eye(2), np.array([0, 1]), 0.0),
        (np.eye(2), np.array([0, 1, 1]), 1.0),
    ],
)
def test_what_cannot_be_fitted_is_an_error(features, labels, C):
    with pytest.raises(DataError, match="linear classifier needs"):
        LogisticRegression(features, labels, C)
