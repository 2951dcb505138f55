"""Patches: the nearest Gaussians in any order, and dropout that leaves the others as they were."""

import pytest
import torch

from splatsense.clip_gs.patches import drop_centers, group_patches


@pytest.mark.parametrize("order", ["distance", "xyz", "hilbert", "z"])
def test_patches_hold_the_nearest_gaussians_in_any_order(order):
    means = torch.randn(2, 200, 3, generator=torch.Generator().manual_seed(1))
    found = group_patches(means, patches=10, patch_size=12, orders=(order,))
    assert found.centers.shape == (2, 10)
    assert found.members.shape == (2, 1, 10, 12)
    for b in range(2):
        distance = torch.cdist(means[b, found.centers[b]], means[b])
        nearest = distance.topk(12, largest=False).indices
        assert torch.equal(found.members[b, 0].sort(-1).values, nearest.sort(-1).values)
        if order == "distance":
            assert torch.equal(found.members[b, 0], nearest)


def test_serial_order_inside_a_patch_follows_the_curve():
    means = torch.randn(1, 64, 3, generator=torch.Generator().manual_seed(2))
    members = group_patches(means, patches=4, patch_size=16, orders=("xyz",)).members[0, 0]
    x = means[0, members, 0]
    cell = (means[0, :, 0].max() - means[0, :, 0].min()) / 2**8
    assert bool((x.diff(dim=-1) >= -2 * cell).all())


def test_several_orders_are_each_what_they_are_alone():
    means = torch.randn(3, 300, 3, generator=torch.Generator().manual_seed(3))
    orders = ("xyz", "hilbert", "z", "distance")
    together = group_patches(means, 7, 20, orders)
    for position, order in enumerate(orders):
        alone = group_patches(means, 7, 20, (order,))
        assert torch.equal(together.centers, alone.centers)
        assert torch.equal(together.members[:, position], alone.members[:, 0])
    assert not torch.equal(together.members[:, 0], together.members[:, 1])


def test_patches_that_are_kept_are_those_without_dropout():
    means = torch.randn(3, 300, 3, generator=torch.Generator().manual_seed(4))
    whole = group_patches(means, 16, 8)
    torch.manual_seed(0)
    kept = group_patches(means, 16, 8, dropout=0.75)
    assert kept.centers.shape == (3, 4)
    for b in range(3):
        assert len(kept.centers[b].unique()) == 4
        place = [whole.centers[b].tolist().index(center) for center in kept.centers[b].tolist()]
        assert torch.equal(kept.members[b, 0], whole.members[b, 0, place])


def test_dropout_keeps_at_least_one_and_draws_anew():
    centers = torch.arange(8).repeat(3, 1)
    assert drop_centers(centers[:1], 0.99).shape == (1, 1)
    torch.manual_seed(0)
    drawn = torch.stack([drop_centers(centers, 0.5) for _ in range(20)])
    assert drawn.shape == (20, 3, 4)
    assert set(drawn.flatten().tolist()) == set(range(8))
