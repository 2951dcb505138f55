import numpy as np
import pytest
import torch

from splatsense.corpora.rooms.boxes import Box
from splatsense.corpora.rooms.camera_path import CameraSettings, camera_path
from splatsense.corpora.rooms.free_space import CAMERA_HEIGHTS, inside, walkable
from splatsense.corpora.rooms.furnish import furnish
from splatsense.corpora.rooms.pieces import Pieces
from splatsense.corpora.rooms.priors import KINDS
from splatsense.frames import check_cameras


@pytest.fixture(scope="module", params=list(KINDS))
def path(request: pytest.FixtureRequest, train_pieces: Pieces):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        room = furnish(request.param, train_pieces, rng)
        cameras = camera_path(room, 60, CameraSettings(), rng)
        if cameras is not None:
            return room, cameras
    raise AssertionError("no path in ten rooms")


def test_the_camera_stays_in_free_space(path) -> None:
    room, cameras = path
    low, high = CAMERA_HEIGHTS
    for x, y, z in cameras.centers.double().tolist():
        assert low - 1e-6 <= z <= high + 1e-6
        assert room.layout.contains(Box(x, y, 0.4, 0.4, z - 0.1, z + 0.1))
        for placed in room.placed:
            if placed.box.bottom - 0.05 < z < placed.box.top + 0.05:
                assert not inside(np.array([[x, y]]), placed.box, 0.1).any(), placed


def test_the_camera_moves_like_a_hand_and_turns_smoothly(path) -> None:
    _, cameras = path
    check_cameras(cameras, [str(i) for i in range(len(cameras))])
    centers, forward = cameras.centers.double(), cameras.world_to_camera[:, 2, :3].double()
    assert (centers[1:] - centers[:-1]).norm(dim=1).max() < 0.6
    turns = torch.rad2deg(torch.acos((forward[1:] * forward[:-1]).sum(1).clamp(-1, 1)))
    assert turns.max() < 60
    assert turns.sum() > 180, "it looks around"
    down = cameras.world_to_camera[:, 1, 2]
    assert (down < -0.5).all(), "the image's down is about the world's down"


def test_people_can_walk_from_the_door(path) -> None:
    room, _ = path
    assert walkable(room).sum() * 0.05**2 > 0.2 * room.layout.floor_area
