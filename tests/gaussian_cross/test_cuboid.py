import pytest
import torch

from splatsense.errors import DataError
from splatsense.gaussian_cross.cuboid import BOTTOM, Cuboid
from splatsense.gaussians import Gaussians
from splatsense.render import render


def room(extent, seed=0):
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(seed)) * torch.tensor(extent)
    return torch.cat([points, torch.zeros(1, 3), torch.tensor([extent])]) + torch.tensor([3.0, -7.0, 0.5])


@pytest.mark.parametrize(("extent", "height"), [((4.0, 2.0, 1.0), 1.0), ((2.0, 4.0, 3.0), 0.5), ((1.0, 1.0, 5.0), 0.5)])
def test_a_scene_fills_the_cuboid_from_its_bottom(extent, height):
    points = room(extent)
    cuboid = Cuboid.around(points, height)
    normalised = cuboid.points(points)
    low, high = normalised.amin(0), normalised.amax(0)
    assert torch.allclose((low + high)[:2], torch.zeros(2), atol=1e-5)
    assert low[2] == pytest.approx(BOTTOM, abs=1e-5)
    sides = torch.tensor([1.0, 1.0, height])
    assert bool((high - low <= sides + 1e-5).all())
    assert float(((high - low) / sides).max()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose((high - low) / cuboid.scale, torch.tensor(extent), atol=1e-4)


def test_a_cuboid_of_fixed_size_keeps_the_proportions_of_scenes():
    """What is twice as large stays so; what fits is not clipped."""
    small, large = (Cuboid.around(room(extent), 0.5, 10.0) for extent in ((2.0, 3.0, 2.0), (4.0, 6.0, 4.0)))
    assert small.scale == large.scale == 0.1
    normalised = large.points(room((4.0, 6.0, 4.0)))
    assert torch.allclose(normalised.amax(0) - normalised.amin(0), torch.tensor([0.4, 0.6, 0.4]), atol=1e-5)
    assert normalised[:, 2].amin() == pytest.approx(BOTTOM, abs=1e-5)


def test_points_outside_are_clipped():
    cuboid = Cuboid.around(room((2.0, 2.0, 2.0)), 1.0)
    assert cuboid.points(torch.tensor([[100.0, -100.0, 100.0]])).tolist() == [[0.5, -0.5, 0.5]]


def test_the_normalised_scene_looks_as_the_scene_does_and_depth_is_scaled(known_frames):
    frames, _ = known_frames
    cameras = frames.cameras
    g = torch.Generator().manual_seed(1)
    means = torch.rand(800, 3, generator=g) * torch.tensor([3.0, 2.0, 2.5])
    scene = Gaussians.from_rgb(
        means, torch.nn.functional.normalize(torch.randn(800, 4, generator=g), dim=1),
        0.02 + 0.05 * torch.rand(800, 3, generator=g), torch.rand(800, generator=g), torch.rand(800, 3, generator=g),
    )  # fmt: skip
    cuboid = Cuboid.around(means, 0.5)
    normalised = scene.transform(scale=cuboid.scale, translation=-cuboid.scale * cuboid.origin)
    assert torch.allclose(normalised.means, cuboid.points(means), atol=1e-5)
    from splatsense.render import RasterSettings

    before = render(scene, cameras, settings=RasterSettings(near_plane=0.1))
    after = render(normalised, cuboid.cameras(cameras), settings=RasterSettings(near_plane=0.1 * cuboid.scale))
    assert torch.allclose(before.color, after.color, atol=2e-3)
    assert torch.allclose(cuboid.depth(before.depth), after.depth, atol=2e-3)
    assert bool((before.alpha > 0.1).any())


def test_places_that_make_no_cuboid_are_refused():
    with pytest.raises(DataError, match="one place"):
        Cuboid.around(torch.ones(3, 3))
    with pytest.raises(DataError, match="finite"):
        Cuboid.around(torch.tensor([[0.0, torch.nan, 0.0]]))
    with pytest.raises(DataError, match="height"):
        Cuboid.around(torch.rand(3, 3), 0.0)
    assert Cuboid.around(torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])).scale == pytest.approx(0.5)
