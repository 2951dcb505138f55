import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splatsense.cameras import Cameras
from splatsense.errors import DataError


def project(cameras, points):
    """(V, N, 2) pixels and (V, N) depths of world points (N, 3)."""
    homogeneous = torch.cat([points, torch.ones(len(points), 1)], dim=1)
    inside = (cameras.world_to_camera @ homogeneous.T)[:, :3]
    pixels = cameras.K @ inside
    return (pixels[:, :2] / pixels[:, 2:]).transpose(1, 2), inside[:, 2]


@given(eye=st.tuples(*[st.floats(-5, 5)] * 3).filter(lambda e: math.hypot(e[0], e[2]) > 0.1), fov=st.floats(5, 150))
def test_look_at_is_a_rigid_view_of_the_target(eye, fov):
    cameras = Cameras.look_at(torch.tensor([eye]), torch.zeros(3), torch.tensor([0.0, 1, 0]), 64, 48, fov)
    rotation = cameras.world_to_camera[0, :3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), rtol=0, atol=1e-5)
    assert float(torch.linalg.det(rotation)) > 0
    torch.testing.assert_close(cameras.centers, torch.tensor([eye]), rtol=0, atol=1e-4)
    pixels, depth = project(cameras, torch.zeros(1, 3))
    torch.testing.assert_close(pixels[0, 0], torch.tensor([32.0, 24.0]), rtol=0, atol=1e-2)
    torch.testing.assert_close(depth[0, 0], torch.tensor(eye).norm(), rtol=1e-4, atol=1e-4)


def test_axes_are_those_of_opencv():
    camera = Cameras.look_at(torch.tensor([[0.0, 0, 5]]), torch.zeros(3), torch.tensor([0.0, 1, 0]), 100, 100, 60.0)
    pixels, depth = project(camera, torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]))
    assert float(pixels[0, 0, 0]) > 50  # +x is to the right
    assert float(pixels[0, 1, 1]) < 50  # up is towards row 0
    assert float(depth[0, 2]) == pytest.approx(4)  # nearer


def test_the_field_of_view_is_vertical():
    camera = Cameras.look_at(torch.tensor([[0.0, 0, 1]]), torch.zeros(3), torch.tensor([0.0, 1, 0]), 200, 100, 90.0)
    pixels, _ = project(camera, torch.tensor([[0.0, 1, 0], [0, -1, 0]]))
    torch.testing.assert_close(pixels[0, :, 1], torch.tensor([0.0, 100]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("up", ["y", "z"])
def test_orbit(up):
    axis = "xyz".index(up)
    cameras = Cameras.orbit(6, size=32, elevation=30, up=up)
    assert len(cameras) == 6
    distance = math.sqrt(3) * 0.75 / math.sin(math.radians(17.5))
    torch.testing.assert_close(cameras.centers.norm(dim=1), torch.full((6,), distance), rtol=1e-4, atol=0)
    torch.testing.assert_close(cameras.centers[:, axis], torch.full((6,), distance / 2), rtol=1e-4, atol=0)
    pixels, _ = project(cameras, torch.eye(3)[axis : axis + 1] * 0.1)
    assert bool((pixels[..., 1] < 16).all())  # up in the world is up in the image
    torch.testing.assert_close(pixels[..., 0], torch.full((6, 1), 16.0), rtol=0, atol=1e-3)
    gaps = (cameras.centers - cameras.centers.roll(1, 0)).norm(dim=1)
    torch.testing.assert_close(gaps, gaps[:1].expand(6), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("up", "expected"), [("y", [0.0, 0, 2]), ("z", [2.0, 0, 0])])
def test_azimuth_zero(up, expected):
    cameras = Cameras.orbit(1, elevation=0, azimuth=0, distance=2.0, up=up)
    torch.testing.assert_close(cameras.centers, torch.tensor([expected]), rtol=0, atol=1e-6)


def test_the_default_distance_shows_a_whole_ball():
    cameras = Cameras.orbit(4, size=64)
    ball = (
        torch.nn.functional.normalize(torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
        * math.sqrt(3)
        * 0.75
    )
    pixels, depth = project(cameras, ball)
    assert float(depth.min()) > 0
    assert float(pixels.min()) > -0.1
    assert float(pixels.max()) < 64.1


def test_selecting_and_moving():
    cameras = Cameras.orbit(4, size=16)
    part = cameras[torch.tensor([2, 0])].to("cpu")
    assert torch.equal(part.world_to_camera, cameras.world_to_camera[[2, 0]])
    assert (part.width, part.height, len(cameras[1:])) == (16, 16, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cameras(torch.eye(3)[None], torch.eye(3)[None], 4, 4), r"world_to_camera has shape \(1, 3, 3\)"),
        (
            lambda: Cameras(torch.eye(4)[None], torch.eye(3).repeat(2, 1, 1), 4, 4),
            r"K has shape \(2, 3, 3\), expected \(1, 3, 3\)",
        ),
        (lambda: Cameras(torch.eye(4)[None], torch.eye(3)[None], 0, 4), "image size must be positive, got 0 x 4"),
        (lambda: Cameras.orbit(1, up="x"), 'up must be "y" or "z", got \'x\''),
        (lambda: Cameras.orbit(1, elevation=90.0), "elevation must lie between -89 and 89"),
        (lambda: Cameras.orbit(0), "views must be at least 1"),
        (lambda: Cameras.orbit(1, fov=180.0), "fov must lie between 0 and 180"),
        (lambda: Cameras.orbit(1, distance=0.0), "distance must be positive"),
        (lambda: Cameras.orbit(1, distance=math.inf), "distance must be positive"),
        (lambda: Cameras.orbit(1, azimuth=math.nan), "azimuth finite"),
        (
            lambda: Cameras.look_at(torch.tensor([[0.0, 3, 0]]), torch.zeros(3), torch.tensor([0.0, 1, 0]), 4, 4, 40.0),
            "parallel to `up`; choose another",
        ),
        (
            lambda: Cameras.look_at(torch.zeros(1, 3), torch.zeros(3), torch.tensor([0.0, 1, 0]), 4, 4, 40.0),
            "stands on its target",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(DataError, match=message):
        make()
