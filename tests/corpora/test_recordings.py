"""Recordings in the forms of 7-Scenes, TUM and nerfstudio, as the data sets write them; faults are told."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from scene_files import HEIGHT, VIEWS, WIDTH, write_nerfstudio, write_seven_scenes, write_tum
from splatsense.corpora.recording_lists import associate, list_seven_scenes, list_tum
from splatsense.corpora.recordings import RecordingSettings, find_recordings, read_recording, z_up
from splatsense.errors import DataError, FormatError
from splatsense.scenes import load_scene, save_scene
from synthetic_room import CORNER, ROOM, room_frames, side_of


def intrinsics() -> tuple[float, ...]:
    K = room_frames(VIEWS, WIDTH, HEIGHT)[0].cameras.K[0]
    return tuple(K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist())


def settings(**changes) -> RecordingSettings:
    return RecordingSettings(**({"intrinsics": intrinsics(), "voxel": 0.05, "up": "z"} | changes))


def assert_is_the_room(scene, tolerance=2e-3):
    side, distance = side_of(scene.coord)
    assert len(scene) > 2000
    assert np.quantile(distance[:, 0], 0.9) < tolerance
    assert set(side) == set(range(6))
    inward = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])[side]
    assert (np.einsum("nc,nc->n", scene.normal, inward) > 0).mean() > 0.98
    assert scene.frames is not None
    expected = room_frames(VIEWS, WIDTH, HEIGHT)[0].cameras
    torch.testing.assert_close(scene.frames.cameras.world_to_camera, expected.world_to_camera, atol=2e-5, rtol=0)
    torch.testing.assert_close(scene.frames.cameras.K, expected.K, atol=1e-3, rtol=0)


def test_seven_scenes(tmp_path, caplog):
    write_seven_scenes(tmp_path / "chess" / "seq-01")
    assert find_recordings(tmp_path) == [tmp_path / "chess" / "seq-01"]
    scene = read_recording(tmp_path / "chess" / "seq-01", tmp_path, settings())
    assert scene.name == "seq-01"
    assert_is_the_room(scene)
    assert scene.frames is not None
    assert not scene.frames.frame(3)[1][:4, :9].any()  # 65535 is no depth
    assert not caplog.records
    save_scene(scene, tmp_path / "out" / "seq-01")
    assert load_scene(tmp_path / "out" / "seq-01").coord.tobytes() == scene.coord.tobytes()


def test_tum(tmp_path, caplog):
    write_tum(tmp_path / "rgbd_dataset_room")
    assert find_recordings(tmp_path) == [tmp_path / "rgbd_dataset_room"]
    scene = read_recording(tmp_path / "rgbd_dataset_room", tmp_path, settings())
    assert_is_the_room(scene)
    assert scene.frames is not None
    assert scene.frames.depth_scale == 1 / 5000
    assert not caplog.records


@pytest.mark.parametrize("scale", [1, 2])
def test_nerfstudio(tmp_path, scale, caplog):
    write_nerfstudio(tmp_path / "phone", scale)
    (tmp_path / "scratch").mkdir()
    scene = read_recording(tmp_path / "phone", tmp_path / "scratch", RecordingSettings(voxel=0.05, up="z"))
    assert_is_the_room(scene)
    assert scene.frames is not None
    truth, _ = room_frames(VIEWS, WIDTH, HEIGHT)
    assert np.median(np.abs(scene.frames.frame(2)[0] - truth.color[2])) < 0.01
    assert not caplog.records


@pytest.mark.parametrize("scale", [1, 2])
def test_every_frame_of_a_transforms_json_keeps_its_own_intrinsics(tmp_path, scale):
    """Every second frame is the magnified left upper quarter of its images; one frame is missing."""
    folder = tmp_path / "phone"
    write_nerfstudio(folder, scale)
    content = json.loads((folder / "transforms.json").read_text())
    for index in range(1, VIEWS, 2):
        for path in (folder / f"images/{index}.png", folder / f"depth/{index}.png"):
            image = np.asarray(Image.open(path))
            Image.fromarray(image[: len(image) // 2, : image.shape[1] // 2].repeat(2, 0).repeat(2, 1)).save(path)
        content["frames"][index] |= {key: 2 * content[key] for key in ("fl_x", "fl_y", "cx", "cy")}
    (folder / "transforms.json").write_text(json.dumps(content))
    (folder / "images" / "2.png").unlink()
    scene = read_recording(folder, tmp_path, RecordingSettings(voxel=0.05, up="z"))
    assert scene.frames is not None
    K = room_frames(VIEWS, WIDTH, HEIGHT)[0].cameras.K[0]
    expected = torch.stack([K * torch.tensor([zoom, zoom, 1])[:, None] for zoom in (1, 2, 2, 1, 2, 1, 2)])
    torch.testing.assert_close(scene.frames.cameras.K, expected, atol=1e-3, rtol=0)
    assert np.quantile(side_of(scene.coord)[1][:, 0], 0.9) < 0.02


def test_intrinsics_may_lie_beside_the_images(tmp_path):
    write_seven_scenes(tmp_path / "scan" / "seq")
    with pytest.raises(FormatError, match=r"has no intrinsics\. Give --intrinsics .* 585 585 320 240"):
        read_recording(tmp_path / "scan" / "seq", tmp_path, settings(intrinsics=None))
    fx, fy, cx, cy = intrinsics()
    (tmp_path / "scan" / "camera-intrinsics.txt").write_text(f"{fx} 0 {cx}\n0 {fy} {cy}\n0 0 1\n")
    assert_is_the_room(read_recording(tmp_path / "scan" / "seq", tmp_path, settings(intrinsics=None)))
    (tmp_path / "scan" / "seq" / "camera-intrinsics.txt").write_text("585 0 320\n")
    with pytest.raises(FormatError, match=r"camera-intrinsics\.txt: is not 3 rows of 3 numbers"):
        read_recording(tmp_path / "scan" / "seq", tmp_path, settings(intrinsics=None))


def test_incomplete_frames_and_lost_tracking_are_left_out_and_counted(tmp_path, caplog):
    folder = tmp_path / "seq"
    write_seven_scenes(folder)
    (folder / "frame-000001.depth.png").unlink()
    (folder / "frame-000002.color.png").unlink()
    (folder / "frame-000004.pose.txt").write_text("-inf -inf -inf -inf\n" * 4)
    listed = list_seven_scenes(folder)
    assert [path.name[6:12] for path in listed.color] == ["000000", "000003", "000005", "000006", "000007"]
    scene = read_recording(folder, tmp_path, settings())
    assert scene.frames is not None
    assert len(scene.frames) == 5
    assert "left out 2 frames without colour, depth or camera, 1 frames whose camera is not finite" in caplog.text


def test_frames_are_thinned_evenly(tmp_path):
    write_seven_scenes(tmp_path / "seq")
    frames = read_recording(tmp_path / "seq", tmp_path, settings(frames=4)).frames
    assert frames is not None
    assert [path.name[6:12] for path in frames.color] == ["000000", "000002", "000004", "000006"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m @ np.diag([1, 1, -1, 1]), r"seq: the camera of frame-000000\.color\.png is mirrored"),
        (lambda m: m @ np.diag([2, 2, 2, 1]), "scaled or sheared"),
        (lambda m: m * 0, "matrix without inverse"),
    ],
)
def test_cameras_that_are_not_rigid_are_told(tmp_path, change, message):
    frames, _ = room_frames(VIEWS, WIDTH, HEIGHT)
    write_seven_scenes(tmp_path / "seq", camera_to_world=change(frames.camera_to_world))
    with pytest.raises(DataError, match=message):
        read_recording(tmp_path / "seq", tmp_path, settings())


def test_depth_in_other_units_is_warned_about_and_can_be_set(tmp_path, caplog):
    write_seven_scenes(tmp_path / "seq", units_per_metre=100)
    read_recording(tmp_path / "seq", tmp_path, settings())
    assert "half of its depth is below 0.1" in caplog.text
    assert "--depth-scale" in caplog.text
    caplog.clear()
    assert_is_the_room(read_recording(tmp_path / "seq", tmp_path, settings(depth_scale=0.01)), tolerance=0.01)
    assert not caplog.records


def test_cameras_that_contradict_their_depth_are_warned_about(tmp_path, caplog):
    frames, _ = room_frames(VIEWS, WIDTH, HEIGHT)
    write_seven_scenes(tmp_path / "seq", camera_to_world=np.linalg.inv(frames.camera_to_world))
    read_recording(tmp_path / "seq", tmp_path, settings())
    assert "depth and cameras disagree" in caplog.text


def test_all_invalid_depth_and_no_frames_say_so(tmp_path):
    folder = tmp_path / "seq"
    write_seven_scenes(folder)
    for path in folder.glob("*.depth.png"):
        Image.fromarray(np.full((HEIGHT, WIDTH), 65535, np.uint16)).save(path)
    with pytest.raises(DataError, match=r"seq: .*none of 8 frames has usable depth"):
        read_recording(folder, tmp_path, settings())
    for path in folder.glob("*.depth.png"):
        path.unlink()
    with pytest.raises(FormatError, match="no frame has colour, depth and a camera"):
        read_recording(folder, tmp_path, settings())


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_worlds_are_turned_so_that_z_is_up(tmp_path, up, caplog):
    """The room laid on its side is found and set upright; walls, cameras and depth still agree."""
    sign, axis = (-1 if up[0] == "-" else 1), "xyz".index(up[-1])
    to_side = np.zeros((4, 4))
    to_side[axis, 2], to_side[(axis + 1) % 3, 0], to_side[(axis + 2) % 3, 1], to_side[3, 3] = sign, sign, 1, 1
    frames, _ = room_frames(VIEWS, WIDTH, HEIGHT)
    write_seven_scenes(tmp_path / "seq", camera_to_world=to_side @ frames.camera_to_world)
    for asked in ("auto", up):
        assert_is_the_room(read_recording(tmp_path / "seq", tmp_path, settings(up=asked)))
    assert (f"{up} points up in its world" in caplog.text) == (up != "z")


def test_turning_keeps_rigid_cameras(tmp_path):
    write_seven_scenes(tmp_path / "seq")
    frames = read_recording(tmp_path / "seq", tmp_path, settings()).frames
    assert frames is not None
    for up in ("x", "y", "z", "-x", "-y", "-z"):
        turned = z_up(frames, up, "seq")  # Frames checks that they are rigid and not mirrored
        back = frames.cameras.centers[:, "xyz".index(up[-1])] * (-1 if up[0] == "-" else 1)
        torch.testing.assert_close(turned.cameras.centers[:, 2], back)


def test_times_are_joined_closest_first_each_once():
    first, second = np.array([0.0, 0.010, 0.100, 0.2]), np.array([0.102, 0.011, 0.29, 0.008])
    assert associate(first, second) == [(0, 3), (1, 1), (2, 0)]
    assert associate(first, np.empty(0)) == []


def test_damaged_lists_name_the_line(tmp_path, caplog):
    folder = tmp_path / "tum"
    write_tum(folder)
    truth = folder / "groundtruth.txt"
    lines = truth.read_text().splitlines()
    truth.write_text("\n".join([*lines[:4], lines[4].rsplit(" ", 1)[0], *lines[5:]]))
    with pytest.raises(FormatError, match=r"groundtruth\.txt: line 5 is not time tx ty tz"):
        list_tum(folder)
    truth.write_text("\n".join([*lines[:4], lines[4].rsplit(" ", 4)[0] + " 1 1 1 1", *lines[5:]]))
    with pytest.raises(FormatError, match=r"line 5: its quaternion has length 2\.000"):
        list_tum(folder)
    truth.write_text("\n".join([*lines[:4], lines[4].split()[0] + " nan nan nan nan nan nan nan", *lines[5:]]))
    (folder / "rgb" / "1305031102.000000.png").unlink()
    listed = list_tum(folder)
    assert "1 cameras that are not finite" in listed.left_out
    assert "1 frames whose files are missing" in listed.left_out
    (folder / "rgb.txt").write_text("nonsense\n")
    with pytest.raises(FormatError, match=r"rgb\.txt: line 1 is not a time and a file"):
        list_tum(folder)


def test_depth_of_another_field_of_view_is_refused(tmp_path):
    write_nerfstudio(tmp_path / "phone", 1)
    for path in (tmp_path / "phone" / "depth").glob("*.png"):
        Image.fromarray(np.full((HEIGHT, HEIGHT), 1000, np.uint16)).save(path)
    with pytest.raises(FormatError, match="another field of view"):
        read_recording(tmp_path / "phone", tmp_path, RecordingSettings())


def test_missing_images_of_a_transforms_json_are_left_out(tmp_path, caplog):
    write_nerfstudio(tmp_path / "phone", 1)
    (tmp_path / "phone" / "images" / "3.png").unlink()
    frames = read_recording(tmp_path / "phone", tmp_path, RecordingSettings(voxel=0.05)).frames
    assert frames is not None
    assert len(frames) == VIEWS - 1
    assert "left out 1 of 8 frames whose images are missing" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [{"frames": 0}, {"voxel": 0}, {"depth_scale": -1}, {"farthest": float("nan")}, {"intrinsics": (0.0, 1.0, 1.0, 1.0)}],
)
def test_settings_out_of_range_name_their_flag(wrong):
    with pytest.raises(DataError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        RecordingSettings(**wrong)


def test_the_room_is_as_large_as_it_should_be(tmp_path):
    write_seven_scenes(tmp_path / "seq")
    scene = read_recording(tmp_path / "seq", tmp_path, settings())
    np.testing.assert_allclose(scene.coord.min(0), CORNER, atol=0.01)
    np.testing.assert_allclose(scene.coord.max(0), CORNER + ROOM, atol=0.01)
