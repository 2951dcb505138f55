import pytest
import torch

from splatsense.errors import DataError
from splatsense.gaussian_cross.distillation import LossWeights, ProjectionHead, color_loss, depth_loss, semantic_loss


def test_color_loss_is_the_mean_difference():
    assert float(color_loss(torch.full((1, 2, 2, 3), 0.25), torch.full((1, 2, 2, 3), 0.75))) == pytest.approx(0.5)


def test_depth_loss_leaves_out_what_was_not_measured_and_weighs_views_alike():
    depth = torch.tensor([[[1.0, 9.0]], [[2.0, 4.0]], [[5.0, 5.0]]])
    target = torch.tensor([[[2.0, 0.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
    assert float(depth_loss(depth, target)) == pytest.approx((1.0 + 2.0 + 0.0) / 3)
    depth.requires_grad_()
    depth_loss(depth, target).backward()
    assert depth.grad[0, 0, 1] == 0
    assert bool(depth.grad[2].eq(0).all())
    assert bool(depth.grad.isfinite().all())


def test_semantic_loss_is_one_minus_the_cosine():
    features = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]])
    assert float(semantic_loss(features, 3 * features)) == pytest.approx(0, abs=1e-6)
    assert float(semantic_loss(features, -features)) == pytest.approx(2)
    assert float(semantic_loss(features, features.flip(-1))) == pytest.approx(1)


def test_rendered_features_are_averaged_per_location_before_they_are_lifted():
    torch.manual_seed(0)
    head = ProjectionHead(3, 5)
    rendered = torch.randn(2, 12, 16, 3)
    lifted = head(rendered, (3, 4))
    assert lifted.shape == (2, 3, 4, 5)
    expected = head.layers(rendered[1, 4:8, 8:12].mean((0, 1)))
    assert torch.allclose(lifted[1, 1, 2], expected, atol=1e-6)


def test_losses_have_right_gradients():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 4, 3, dtype=torch.double, requires_grad=True)
    other = torch.rand(2, 3, 4, 3, dtype=torch.double)
    torch.autograd.gradcheck(lambda x: color_loss(x, other), images)
    torch.autograd.gradcheck(lambda x: semantic_loss(x, other), images)
    torch.autograd.gradcheck(lambda x: depth_loss(x[..., 0], other[..., 0].where(other[..., 1] > 0.5, 0)), images)


def test_weights_must_weigh_something():
    with pytest.raises(DataError, match="loss weights"):
        LossWeights(0.0, 0.0, 0.0)
