import pytest
import torch

from splatsense.gaussian_cross.collapse import effective_rank, feature_spread


def test_rank_counts_directions_that_are_used():
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(12, 12, generator=g)).Q
    for rank in (1, 3, 12):
        features = torch.randn(20_000, rank, generator=g) @ basis[:rank] + 5
        assert effective_rank(features) == pytest.approx(rank, rel=0.02)
    assert effective_rank(torch.ones(50, 4)) == 1


def test_spread_is_zero_for_features_that_are_the_same():
    assert feature_spread(torch.ones(50, 4)) == pytest.approx(0, abs=1e-6)
    assert feature_spread(torch.randn(10_000, 4, generator=torch.Generator().manual_seed(0))) == pytest.approx(1, abs=0.05)
