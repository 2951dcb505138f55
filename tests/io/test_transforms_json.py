import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from splatsense.cameras import Cameras
from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians
from splatsense.io import load_cameras, read_transforms_json, write_transforms_json
from splatsense.render import render

INTRINSICS = {"fl_x": 90, "fl_y": 110, "cx": 41.3, "cy": 28.9, "w": 80, "h": 60}
# 2 units up the z axis from (1, 1, 0), looking straight down, the image's top towards +y: OpenGL axes are the world's.
ABOVE = [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 2], [0, 0, 0, 1]]
FRAME = {"file_path": "images/a.png", "transform_matrix": ABOVE}


def write(path, **content):
    path.write_text(json.dumps(content))
    return path


def test_a_hand_worked_camera(tmp_path):
    cameras, names = load_cameras(write(tmp_path / "transforms.json", **INTRINSICS, frames=[FRAME]))
    assert names == ["images/a.png"]
    np.testing.assert_allclose(cameras.centers, [[1, 1, 2]])
    # (1.5, 1, 0) lies half a unit right of the axis, two in front; (1, 1.25, 0) a quarter up, which is -y in the image.
    for point, pixel in (((1.5, 1, 0), (41.3 + 90 * 0.25, 28.9)), ((1, 1.25, 0), (41.3, 28.9 - 110 * 0.125))):
        gaussian = Gaussians.from_rgb(
            torch.tensor([point]).float(),
            torch.tensor([[1.0, 0, 0, 0]]),
            torch.full((1, 3), 0.04),
            torch.ones(1),
            torch.ones(1, 3),
        )
        alpha = render(gaussian, cameras).alpha[0].double()
        weight = alpha / alpha.sum()
        x, y = (weight.sum(0) * (torch.arange(80) + 0.5)).sum(), (weight.sum(1) * (torch.arange(60) + 0.5)).sum()
        np.testing.assert_allclose([float(x), float(y)], pixel, atol=0.01)


def test_frames_go_before_the_top_and_angles_give_focal_lengths(tmp_path):
    frames = [FRAME, FRAME | {"fl_x": 50, "cx": 1.5, "file_path": "b"}]
    cameras, _ = read_transforms_json(write(tmp_path / "t.json", **INTRINSICS, frames=frames))
    assert cameras.K[:, 0, 0].tolist() == [90, 50]
    assert cameras.K[1, 0, 2] == 1.5
    Image.new("RGB", (80, 60)).save(tmp_path / "r_0.png")
    nerf = {"camera_angle_x": math.pi / 2, "frames": [FRAME | {"file_path": "./r_0"}]}
    cameras, _ = read_transforms_json(write(tmp_path / "t.json", **nerf))
    np.testing.assert_allclose(cameras.K[0], [[40, 0, 40], [0, 40, 30], [0, 0, 1]], rtol=1e-6)


def test_the_applied_transform_can_be_undone(tmp_path):
    """nerfstudio maps COLMAP's (x, y, z) to (x, z, -y) or the like; the camera's centre must return to where it was."""
    applied = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 5]]
    path = write(tmp_path / "t.json", **INTRINSICS, applied_transform=applied, frames=[FRAME])
    np.testing.assert_allclose(read_transforms_json(path)[0].centers, [[1, 1, 2]])
    np.testing.assert_allclose(read_transforms_json(path, original=True)[0].centers, [[1, 1, 3]])
    looks = read_transforms_json(path, original=True)[0].world_to_camera[0, 2, :3]
    np.testing.assert_allclose(looks, [0, 0, 1], atol=1e-6)  # down in the file is up in a world whose z was turned over


def test_an_applied_transform_that_is_no_rotation(tmp_path):
    path = write(tmp_path / "t.json", **INTRINSICS, applied_transform=np.zeros((3, 4)).tolist(), frames=[FRAME])
    with pytest.raises(FormatError, match="its matrix is not a rotation"):
        read_transforms_json(path, original=True)


def test_agrees_with_pycolmap(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    quaternion = np.array([0.1, -0.2, 0.3, 0.9])
    pose = pycolmap.Rigid3d(pycolmap.Rotation3d(quaternion / np.linalg.norm(quaternion)), np.array([0.5, -1.0, 3.0]))
    to_world = np.vstack([pose.inverse().matrix(), [0, 0, 0, 1]]) @ np.diag([1, -1, -1, 1])
    path = write(tmp_path / "t.json", **INTRINSICS, frames=[FRAME | {"transform_matrix": to_world.tolist()}])
    np.testing.assert_allclose(load_cameras(path)[0].world_to_camera[0, :3], pose.matrix(), atol=1e-6)


@settings(max_examples=30)
@given(views=st.integers(1, 5), elevation=st.floats(-80, 80), fov=st.floats(5, 120), size=st.integers(1, 500))
def test_round_trip(tmp_path_factory, views, elevation, fov, size):
    path = tmp_path_factory.getbasetemp() / "round.json"
    cameras = Cameras.orbit(views, size, elevation, fov=fov)
    write_transforms_json(path, cameras, [f"{index}.png" for index in range(views)], extras={"made_by": "a test"})
    back, names = read_transforms_json(path)
    torch.testing.assert_close(back.world_to_camera, cameras.world_to_camera, rtol=0, atol=1e-4)
    torch.testing.assert_close(back.K, cameras.K)
    assert names == [f"{index}.png" for index in range(views)]
    assert (back.width, back.height) == (size, size)


def test_cameras_that_are_optimised_can_be_written(tmp_path):
    cameras = Cameras.orbit(1, 8)
    write_transforms_json(tmp_path / "a.json", Cameras(cameras.world_to_camera.requires_grad_(), cameras.K, 8, 8), ["a"])
    torch.testing.assert_close(load_cameras(tmp_path / "a.json")[0].world_to_camera, cameras.world_to_camera.detach())


def test_writing_needs_a_name_for_each_camera(tmp_path):
    with pytest.raises(DataError, match="2 cameras, but 1 names"):
        write_transforms_json(tmp_path / "t.json", Cameras.orbit(2), ["a"])
    assert not list(tmp_path.iterdir())


SCALED = (np.diag([2.0, 2, 2, 1])).tolist()
MIRRORED = (np.diag([-1.0, 1, 1, 1])).tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"frames": []}, "holds no images"),
        ({"frame": []}, 'has no list of "frames"'),
        ({"frames": ["a.png"]}, "frames is .*, not a list of objects"),
        ({"frames": [{"transform_matrix": ABOVE}]}, 'frame 0 has no "file_path"'),
        (INTRINSICS | {"frames": [FRAME, {"file_path": "b"}]}, "frame 1 has no matrix"),
        (INTRINSICS | {"frames": [FRAME | {"transform_matrix": [[1, 2], [3]]}]}, "frame 0 has no matrix"),
        (INTRINSICS | {"frames": [FRAME | {"transform_matrix": np.zeros((4, 4)).tolist()}]}, "has no inverse"),
        (INTRINSICS | {"frames": [FRAME | {"transform_matrix": SCALED}]}, "mirrored or scaled"),
        (INTRINSICS | {"frames": [FRAME | {"transform_matrix": MIRRORED}]}, "mirrored or scaled"),
        (INTRINSICS | {"k1": 0.1, "frames": [FRAME]}, r"lens distortion \(coefficients k1\)\. Undistort the images"),
        (INTRINSICS | {"camera_model": "OPENCV_FISHEYE", "frames": [FRAME]}, r"lens distortion \(model OPENCV_FISHEYE\)"),
        (INTRINSICS | {"fl_x": "90", "frames": [FRAME]}, "frame 0: fl_x is '90', not a finite number"),
        (INTRINSICS | {"fl_x": float("nan"), "frames": [FRAME]}, "fl_x is nan, not a finite number"),
        (INTRINSICS | {"fl_x": 0, "frames": [FRAME]}, "must be positive"),
        (INTRINSICS | {"w": 80.5, "frames": [FRAME]}, r"has the size 80\.5 x 60"),
        (INTRINSICS | {"w": 10**9, "frames": [FRAME]}, "has the size 1000000000 x 60"),
        ({"fl_x": 90, "frames": [FRAME]}, "has no w and h, and its image 'images/a.png' is not beside the file"),
        ({"fl_x": 90, "frames": [FRAME | {"file_path": "x" * 5000}]}, "has no w and h"),
        ({"w": 80, "h": 60, "frames": [FRAME]}, "no focal length: neither fl_x nor camera_angle_x"),
        ({"w": 80, "h": 60, "camera_angle_x": 4, "frames": [FRAME]}, "must lie between 0 and pi"),
        (INTRINSICS | {"frames": [FRAME, FRAME | {"w": 90}]}, "differ in size: 1 of 80 x 60, 1 of 90 x 60"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    with pytest.raises(FormatError, match=message) as caught:
        load_cameras(write(tmp_path / "t.json", **content))
    assert str(caught.value).startswith(f"{tmp_path / 't.json'}: ")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"frames": [{"w": 1' + b"0" * 5000 + b"}]}"])
def test_what_is_no_json(tmp_path, data):
    (tmp_path / "t.json").write_bytes(data)
    with pytest.raises(FormatError, match=r"t\.json: "):
        load_cameras(tmp_path / "t.json")
