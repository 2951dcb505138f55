import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from splatsense.clip_gs.bootstrap import class_mean_interval, mean_interval
from splatsense.errors import DataError


def test_the_interval_of_a_mean_is_that_of_scipy():
    values = np.random.default_rng(0).random(150)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(1))
    assert mean_interval(torch.from_numpy(values)) == pytest.approx(tuple(expected.confidence_interval), abs=0.004)


def test_it_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        low, high = mean_interval(torch.from_numpy((random.random(100) < 0.4).astype(float)))
        covered += low <= 0.4 <= high
    assert 0.87 <= covered / 60 < 1


def test_clusters_are_drawn_whole():
    values = torch.tensor([0.0, 0.0, 0.0, 1.0])
    low, high = mean_interval(values, torch.tensor([7, 7, 7, 2]))
    assert (low, high) == (0, 1)  # two clusters: both draws may be the same
    sizes = torch.tensor([1.0, 1.0, 0.0])
    assert mean_interval(sizes, torch.tensor([0, 0, 1]))[1] == 1.0


def test_classes_are_resampled_within():
    values, classes = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([3, 3, 5, 5])
    assert class_mean_interval(values, classes) == (0.5, 0.5)  # nothing varies within a class
    assert mean_interval(values)[0] < 0.5


def test_the_same_seed_gives_the_same_interval_and_nothing_is_an_error():
    values = torch.rand(30)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3) != mean_interval(values, seed=4)
    with pytest.raises(DataError, match="at least one value"):
        mean_interval(torch.zeros(0))
