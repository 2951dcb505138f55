import pytest
import torch

from splatsense.cameras import Cameras
from splatsense.gaussian_cross.view_images import resize_cameras, resize_color, resize_depth


def test_colour_is_averaged():
    color = torch.rand(6, 8, 3, generator=torch.Generator().manual_seed(0))
    small = resize_color(color, (4, 3))
    assert torch.allclose(small[1, 2], color[2:4, 4:6].mean((0, 1)), atol=1e-6)


def test_depth_is_averaged_over_what_was_measured_on_one_surface():
    depth = torch.tensor([[2.0, 2.0, 1.0, 4.0, 0.0, 3.0], [2.02, 0.0, 1.0, 4.0, 0.0, 0.0]])
    small = resize_depth(depth, (3, 1))
    assert small[0].tolist() == pytest.approx([(2 + 2 + 2.02) / 3, 0.0, 3.0], abs=1e-5)
    assert torch.equal(resize_depth(depth, (6, 2)), depth)


def test_cameras_see_the_same_points_at_the_same_part_of_the_image():
    K = torch.tensor([[[100.0, 0, 41], [0, 90, 29], [0, 0, 1]]])
    camera = Cameras(torch.eye(4)[None], K, 80, 60)
    small = resize_cameras(camera, (40, 20))
    point = torch.tensor([0.2, -0.1, 1.5])
    before, after = (camera.K[0] @ point)[:2] / 1.5, (small.K[0] @ point)[:2] / 1.5
    assert torch.allclose(after, before * torch.tensor([40 / 80, 20 / 60]))
    assert (small.width, small.height) == (40, 20)
