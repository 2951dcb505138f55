import pytest
import torch
from torch.nn.functional import normalize

from splatsense.clip_gs.image_targets import cross_fitted_targets, fit_ridge
from splatsense.errors import DataError

DIM, FEATURES, VIEWS = 6, 40, 3


def corpus(objects: int = 400, kinds: int = 20):
    """Features that a linear map turns into captions up to noise, as the square roots the map works on."""
    g = torch.Generator().manual_seed(0)
    captions = normalize(torch.randn(kinds, DIM, generator=g), dim=1)
    mixing = torch.randn(DIM, FEATURES, generator=g)
    names = torch.arange(objects) % kinds
    roots = 5 + captions[names] @ mixing
    features = [(row + 0.1 * torch.randn(VIEWS, FEATURES, generator=g)).clamp_min(0).square() for row in roots]
    return features, captions[names], names


def test_maps_fitted_to_other_names_predict_the_captions():
    features, captions, names = corpus()
    targets = torch.stack(cross_fitted_targets(features, captions, names, torch.ones(len(names)), ridge=1e-6))
    assert targets.shape == (400, VIEWS, DIM)
    assert torch.allclose(targets.norm(dim=-1), torch.ones(400, VIEWS), atol=1e-5)
    centred = normalize(captions - captions.mean(0), dim=1)
    assert (targets * centred[:, None]).sum(-1).mean() > 0.9


def test_a_target_holds_no_trace_of_the_captions_of_its_own_name():
    features, captions, names = corpus()
    before = cross_fitted_targets(features, captions, names, torch.ones(len(names)))
    changed = captions.clone()
    changed[names == 3] = normalize(torch.ones(DIM), dim=0)
    after = cross_fitted_targets(features, changed, names, torch.ones(len(names)))
    assert all(torch.equal(before[row], after[row]) for row in range(400) if names[row] == 3)
    assert not torch.equal(before[0], after[0])


def test_a_map_is_not_fitted_to_one_object():
    """As of two names, of which each map sees one; neither to several that look the same."""
    captions = normalize(torch.rand(2, DIM), dim=1)
    for features in ([torch.rand(VIEWS, FEATURES), torch.rand(VIEWS, FEATURES)], [torch.ones(VIEWS, FEATURES)] * 2):
        with pytest.raises(DataError, match="--image-map: too few"):
            cross_fitted_targets(features, captions, torch.arange(2), torch.ones(2))


def test_ridge_is_the_minimum_it_claims():
    g = torch.Generator().manual_seed(1)
    x, y, weights = (
        torch.randn(50, 7, generator=g).double(),
        torch.randn(50, 3, generator=g).double(),
        torch.rand(50, generator=g),
    )
    center, matrix = fit_ridge(x, y, weights.double(), 0.1)
    matrix.requires_grad_()
    rows = x - center
    total = (weights[:, None] * rows.square()).sum()
    residual = rows @ matrix - (y - y.mean(0))
    (0.5 * (weights[:, None] * residual.square()).sum() + 0.5 * 0.1 * total * matrix.square().sum()).backward()
    assert matrix.grad.abs().max() < 1e-9
