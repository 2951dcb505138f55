import pytest
import torch

from splatsense.errors import DataError
from splatsense.gaussian_cross.masking import MaskToken, drop_points, mask_blocks

GRID = torch.cartesian_prod(*[torch.arange(-16, 16, dtype=torch.int32)] * 3)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.75])
def test_about_that_part_is_hidden_in_whole_blocks(ratio):
    hidden = mask_blocks(GRID, ratio, 4, seeded(0))
    assert float(hidden.float().mean()) == pytest.approx(ratio, abs=0.04)
    cube = hidden.view(32, 32, 32)
    changes = [(cube.diff(dim=axis) != 0).nonzero()[:, axis].unique() for axis in range(3)]
    for places in changes:  # along each axis, what is hidden changes at every fourth place only
        assert len((places % 4).unique()) <= 1


def test_masks_depend_on_the_seed_alone_and_follow_the_voxels():
    first, again, other = (mask_blocks(GRID, 0.5, 4, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    order = torch.randperm(len(GRID), generator=seeded(9))
    assert torch.equal(mask_blocks(GRID[order], 0.5, 4, seeded(3)), first[order])


def test_dropped_points_are_as_many_as_asked_and_never_all():
    kept = drop_points(10_000, 0.3, seeded(0))
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.02)
    assert int(drop_points(3, 0.999, seeded(0)).sum()) >= 1
    assert bool(drop_points(50, 0.0, seeded(0)).all())


def test_the_token_stands_where_hidden_and_learns_from_there():
    token = MaskToken(2)
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    hidden = torch.tensor([[True, False], [False, False]])
    with torch.no_grad():
        token.token.copy_(torch.tensor([7.0, 8.0]))
    out = token(features, hidden)
    assert out.tolist() == [[7.0, 2.0], [3.0, 4.0]]
    out.sum().backward()
    assert token.token.grad.tolist() == [1.0, 0.0]


def test_ratios_out_of_range_are_refused():
    for call in (lambda: mask_blocks(GRID, 1.0, 4), lambda: mask_blocks(GRID, 0.5, 0), lambda: drop_points(3, -0.1)):
        with pytest.raises(DataError):
            call()
