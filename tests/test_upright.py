"""Rooms are shown as they stand; objects with y up."""

import numpy as np
import pytest
import torch

from segmentation_scenes import room
from splatsense.cameras import Cameras
from splatsense.gaussians import Gaussians
from splatsense.geometry.upright import AXES
from splatsense.io import PointCloud, point_cloud_to_gaussians
from splatsense.library import thumbnails
from splatsense.pictures import OUTLIER_FRACTION, draw, zoomed
from splatsense.turntable import Orbit, OrbitSettings
from splatsense.upright import SCENE_GAUSSIANS, orbit, room_up, turn_to_y

ROOM = room()


def scan(normals: bool = True, scale: float = 1.0) -> Gaussians:
    """A room of 24,000 points or so, z up."""
    rng = np.random.default_rng(0)
    times = -(-24_000 // len(ROOM.coord))
    coord = np.concatenate([ROOM.coord + rng.uniform(0, 0.04, ROOM.coord.shape) for _ in range(times)])
    color, normal = (np.concatenate([value] * times) for value in (ROOM.color / 255, ROOM.normal))
    cloud = PointCloud(
        (scale * coord).astype(np.float32), color.astype(np.float32), normal.astype(np.float32) if normals else None
    )
    gaussians = point_cloud_to_gaussians(cloud)
    assert len(gaussians) >= SCENE_GAUSSIANS
    return gaussians


@pytest.fixture(scope="module")
def z_up() -> Gaussians:
    return scan()


@pytest.mark.parametrize("up", AXES)
def test_quarter_turns_bring_the_axis_to_y(z_up, up):
    stood = z_up.transform(rotation=turn_to_y("z"))
    assert torch.allclose(stood.means[:, 1], z_up.means[:, 2])
    there = stood.transform(rotation=turn_to_y(up).T)
    assert room_up(there) == up
    assert torch.allclose(there.transform(rotation=turn_to_y(up)).means, stood.means, atol=1e-5)


def test_rooms_are_told_from_objects(z_up):
    assert room_up(z_up) == "z"
    assert room_up(scan(normals=False)) == "z", "normals are estimated"
    assert room_up(scan(scale=100)) == "z", "centimetres"
    assert room_up(scan(scale=1_000)) == "z", "millimetres"
    assert room_up(scan(scale=0.2)) is None, "the size of a doll's house"
    assert room_up(z_up[: SCENE_GAUSSIANS - 1]) is None
    assert room_up(z_up[::3], least=9_000) == "z"
    assert room_up(Gaussians(z_up.means, z_up.quats, z_up.scales, 0 * z_up.opacities, z_up.sh)) is None, "nothing is seen"


def gray(picture) -> np.ndarray:
    return np.asarray(picture.convert("L"), np.float32)


def test_a_room_s_thumbnail_is_that_of_the_room_stood_up(z_up):
    lying, stood = (thumbnails.draw(one, 128) for one in (z_up, z_up.transform(rotation=turn_to_y("z"))))
    assert np.abs(gray(lying) - gray(stood)).mean() < 1
    normalized = z_up.normalized(OUTLIER_FRACTION)
    sideways = draw(normalized, zoomed(normalized, Cameras.orbit(1, 128, 50.0, 30.0)), shaded=True)
    assert np.abs(gray(lying) - sideways.over((255, 255, 255)).mean(-1)).mean() > 20


def test_an_object_s_thumbnail_has_y_up(z_up):
    for thing in (z_up[: SCENE_GAUSSIANS - 1], scan(scale=0.2)):
        normalized = thing.normalized(OUTLIER_FRACTION)
        drawn = draw(normalized, zoomed(normalized, Cameras.orbit(1, 128, 20.0, 30.0)), shaded=True)
        assert np.array_equal(np.asarray(thumbnails.draw(thing, 128)), drawn.over(thumbnails.WHITE))


def test_nothing_of_a_cube_or_a_room_is_cut_off(z_up):
    """Their corners lie outside the field of view of the cameras that are zoomed."""
    corners = torch.cartesian_prod(*[torch.linspace(-1, 1, 12)] * 3)
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(len(corners), 4)
    sizes, grey = torch.full_like(corners, 0.08), torch.full_like(corners, 0.3)
    cube = Gaussians.from_rgb(corners, quats, sizes, torch.ones(len(corners)), grey)
    for thing in (cube, z_up):
        picture = gray(thumbnails.draw(thing, 128))
        rows, columns = (np.flatnonzero((picture < 250).any(axis)) for axis in (1, 0))
        assert min(rows[0], columns[0], 127 - rows[-1], 127 - columns[-1]) >= 1
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) > 100


def test_orbits_take_any_axis_for_up(z_up):
    reference = orbit("y", 5, 64, 30.0, 40.0)
    assert torch.equal(reference.world_to_camera, Cameras.orbit(5, 64, 30.0, 40.0).world_to_camera)
    for up in AXES:
        cameras = orbit(up, 5, 64, 30.0, 40.0)
        assert torch.allclose(cameras.centers @ turn_to_y(up).T, reference.centers, atol=1e-5)
        turned = cameras.world_to_camera[:, :3, :3] @ turn_to_y(up).T
        assert torch.allclose(turned, reference.world_to_camera[:, :3, :3], atol=1e-5)


def test_turntables_stand_rooms_up_unless_told(z_up):
    def centers(**settings) -> torch.Tensor:
        return Orbit(z_up, OrbitSettings(size=32, **settings)).cameras(4).centers

    assert torch.allclose(centers(), centers(up="z"))
    assert not torch.allclose(centers(), centers(up="y"))
    flipped = centers(up="-y")
    assert (flipped[:, 1] < 0).all()
    assert (centers(up="y")[:, 1] > 0).all()
