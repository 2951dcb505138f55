"""A saved scene loads equal to the last bit; folders of Pointcept are read; what is wrong with a folder is told."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from splatsense.cameras import Cameras
from splatsense.errors import DataError, FormatError
from splatsense.frames import Frames, FrameWriter, read_depth
from splatsense.io import load_cameras
from splatsense.scenes import ARRAYS, Scene, list_scenes, load_scene, save_scene


def make_scene(folder, count=50, views=3, seed=0, **changes) -> Scene:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    writer = FrameWriter(folder)
    eyes = torch.from_numpy(rng.normal(size=(views, 3))).float()
    cameras = Cameras.look_at(eyes, torch.tensor([0.0, 5.0, 0.3]), torch.tensor([0.0, 0.0, 1.0]), 8, 6, 60)
    for view in range(views):
        color = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        writer.add(color, rng.random((6, 8)) * 4, cameras.world_to_camera[view], cameras.K[view])
    normal = rng.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    fields = {
        "coord": rng.normal(size=(count, 3)).astype(np.float32),
        "color": rng.integers(0, 256, (count, 3), dtype=np.uint8),
        "normal": normal.astype(np.float32),
        "semantic20": rng.integers(-1, 20, count).astype(np.int16),
        "semantic200": rng.integers(-1, 200, count).astype(np.int16),
        "semantic": rng.integers(-1, 13, count).astype(np.int16),
        "instance": rng.integers(-1, 9, count).astype(np.int32),
        "frames": writer.frames(),
    }
    return Scene("room", **(fields | changes))


def assert_same(one: Scene, other: Scene) -> None:
    assert one.name == other.name
    for field in ARRAYS.values():
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes()
    assert (one.frames is None) == (other.frames is None)
    if one.frames is not None and other.frames is not None:
        for name in ("world_to_camera", "K"):
            a, b = getattr(one.frames.cameras, name), getattr(other.frames.cameras, name)
            assert a.dtype == b.dtype == torch.float32
            assert a.numpy().tobytes() == b.numpy().tobytes()
        assert (one.frames.cameras.width, one.frames.cameras.height) == (
            other.frames.cameras.width,
            other.frames.cameras.height,
        )
        assert one.frames.depth_scale == other.frames.depth_scale
        for index in range(len(one.frames)):
            for mine, theirs in zip(one.frames.frame(index), other.frames.frame(index), strict=True):
                assert mine.tobytes() == theirs.tobytes()


def test_a_scene_loads_as_it_was_saved(tmp_path):
    scene = make_scene(tmp_path / "made")
    save_scene(scene, tmp_path / "train" / "room")
    loaded = load_scene(tmp_path / "train" / "room")
    assert_same(scene, loaded)
    save_scene(loaded, tmp_path / "again" / "room")
    for path in sorted((tmp_path / "train" / "room").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tmp_path / "train")).read_bytes()
    assert list_scenes(tmp_path, "train") == [tmp_path / "train" / "room"]
    assert list_scenes(tmp_path / "train") == [tmp_path / "train" / "room"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_a_scene_lacks_stays_missing(tmp_path):
    bare = Scene("bare", np.zeros((3, 3), np.float32))
    save_scene(bare, tmp_path / "bare")
    assert sorted(path.name for path in (tmp_path / "bare").iterdir()) == ["coord.npy"]
    assert_same(bare, load_scene(tmp_path / "bare"))


def test_cameras_with_tiny_and_negative_zero_entries_keep_their_bits(tmp_path):
    matrix = torch.eye(4)
    matrix[0, 1], matrix[1, 0], matrix[2, 3], matrix[0, 2] = 1e-12, -1e-12, 1e-9, -0.0
    matrix[0, 3] = 1234.5
    frames = make_scene(tmp_path / "made", views=1).frames
    assert frames is not None
    frames = replace(frames, cameras=Cameras(matrix[None], frames.cameras.K, 8, 6), depth_scale=1 / 3000)
    scene = make_scene(tmp_path / "made", views=1, frames=frames)
    save_scene(scene, tmp_path / "room")
    assert_same(scene, load_scene(tmp_path / "room"))


def test_transforms_json_is_nerfstudios_and_an_edited_camera_counts(tmp_path):
    scene = make_scene(tmp_path / "made")
    save_scene(scene, tmp_path / "room")
    path = tmp_path / "room" / "transforms.json"
    cameras, names = load_cameras(path)
    assert names == [f"images/00000{i}.png" for i in range(3)]
    assert scene.frames is not None
    torch.testing.assert_close(cameras.world_to_camera, scene.frames.cameras.world_to_camera)
    content = json.loads(path.read_text())
    to_world = np.array(content["frames"][1]["transform_matrix"])
    assert to_world[:3, 3].tolist() == pytest.approx(scene.frames.cameras.centers[1].tolist(), abs=1e-5)
    content["frames"][1]["transform_matrix"][0][3] += 1.0
    path.write_text(json.dumps(content))
    moved = load_scene(tmp_path / "room").frames
    assert moved is not None
    expected = scene.frames.cameras.centers[1] + torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(moved.cameras.centers[1], expected, atol=1e-5, rtol=0)


def test_depth_is_in_metres_and_both_marks_of_no_depth_read_as_zero(tmp_path):
    values = np.array([[0, 1, 1500, 65534, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "depth.png")
    assert read_depth(tmp_path / "depth.png")[0].tolist() == pytest.approx([0, 0.001, 1.5, 65.534, 0])
    assert read_depth(tmp_path / "depth.png", depth_scale=1 / 5000)[0, 2] == pytest.approx(0.3)
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "flat.png")
    with pytest.raises(FormatError, match=r"flat\.png: .*16-bit"):
        read_depth(tmp_path / "flat.png")


def test_pointcept_folders_are_read(tmp_path):
    folder = tmp_path / "scene0000_00"
    folder.mkdir()
    np.save(folder / "coord.npy", np.arange(6.0).reshape(2, 3))
    np.save(folder / "color.npy", np.array([[0, 128, 255.0]] * 2, np.float32))
    np.save(folder / "normal.npy", np.array([[0, 0, 1 - 1e-8], [0, 0, 0]]))
    np.save(folder / "segment20.npy", np.array([-1, 19]))
    np.save(folder / "segment.npy", np.array([[0], [12]], np.int64))
    np.save(folder / "instance.npy", np.array([3, -1], np.int16))
    scene = load_scene(folder)
    assert scene.name == "scene0000_00"
    assert scene.coord.dtype == np.float32
    assert scene.color is not None
    assert scene.color.tolist() == [[0, 128, 255]] * 2
    assert scene.semantic20 is not None
    assert scene.semantic is not None
    assert (scene.semantic20.tolist(), scene.semantic.tolist()) == ([-1, 19], [0, 12])
    assert scene.instance is not None
    assert scene.instance.dtype == np.int32
    assert scene.semantic200 is None


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("color", np.full((2, 3), 0.5), "row 0 is .* no uint8"),
        ("color", np.zeros((2, 4)), r"shape \(2, 4\), expected \(N, 3\)"),
        ("segment20", np.array([0, 20]), r"semantic20\[1\] is 20; labels are -1 \(none\) to 19"),
        ("segment200", np.array([-2, 0]), r"semantic200\[0\] is -2"),
        ("segment20", np.array([0, 255]), "labels are -1"),
        ("instance", np.array([0]), "has 1 rows, coord.npy 2"),
        ("normal", np.full((2, 3), np.nan, np.float32), "normal 0"),
        ("coord", np.array([[0, 0, 0], [0, np.inf, 0]], np.float32), "point 1 is not finite"),
        ("coord", np.zeros((0, 3), np.float32), "no points"),
        ("segment20", np.array(["a", "b"]), "no array of numbers"),
    ],
)
def test_wrong_arrays_are_told(tmp_path, name, array, message):
    folder = tmp_path / "room"
    folder.mkdir()
    np.save(folder / "coord.npy", np.zeros((2, 3), np.float32))
    np.save(folder / f"{name}.npy", array)
    with pytest.raises((FormatError, DataError), match=message) as caught:
        load_scene(folder)
    assert str(folder) in str(caught.value)


def test_pickles_and_cut_off_arrays_are_refused(tmp_path):
    folder = tmp_path / "room"
    folder.mkdir()
    np.save(folder / "coord.npy", np.zeros((2, 3), np.float32))
    np.save(folder / "instance.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(FormatError, match=r"instance\.npy: is no array of numbers"):
        load_scene(folder)
    (folder / "instance.npy").unlink()
    (folder / "coord.npy").write_bytes((folder / "coord.npy").read_bytes()[:-5])
    with pytest.raises(FormatError, match=r"coord\.npy: .*cut off"):
        load_scene(folder)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }".ljust(117) + b"\n"
    (folder / "coord.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header)
    with pytest.raises(FormatError, match=r"coord\.npy: .*cut off"):  # and no memory is taken for it
        load_scene(folder)
    (folder / "coord.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + b"{'descr': (((".ljust(117) + b"\n")
    with pytest.raises(FormatError, match=r"coord\.npy: is no array"):
        load_scene(folder)
    (folder / "coord.npy").rename(folder / "scene0000_00.pth")
    with pytest.raises(FormatError, match=r"pickles .* preprocess the data again"):
        load_scene(folder)


def test_folders_without_scenes_say_what_they_are(tmp_path):
    save_scene(Scene("a", np.zeros((3, 3), np.float32)), tmp_path / "val" / "a")
    with pytest.raises(FormatError, match=r"it has no coord\.npy\. It is a folder of scenes"):
        load_scene(tmp_path / "val")
    with pytest.raises(FormatError, match="holds val"):
        list_scenes(tmp_path, "train")
    with pytest.raises(FormatError, match="does not exist"):
        load_scene(tmp_path / "nothing")
    with pytest.raises(FormatError, match="exists already"):
        save_scene(Scene("a", np.zeros((3, 3), np.float32)), tmp_path / "val" / "a")


def test_a_failed_save_leaves_nothing(tmp_path):
    scene = make_scene(tmp_path / "made")
    assert scene.frames is not None
    scene.frames.depth[1].unlink()
    with pytest.raises(FormatError, match=r"000001\.png: does not exist"):
        save_scene(scene, tmp_path / "out" / "room")
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_damaged_and_resized_frames_are_told(tmp_path):
    save_scene(make_scene(tmp_path / "made"), tmp_path / "room")
    frames = load_scene(tmp_path / "room").frames
    assert frames is not None
    frames.color[0].unlink()
    with pytest.raises(FormatError, match=r"images/000000\.png: does not exist"):
        frames.frame(0)
    frames.depth[1].write_bytes(frames.depth[1].read_bytes()[:-30])
    with pytest.raises(FormatError, match=r"depth/000001\.png: is cut off or damaged"):
        frames.frame(1)
    Image.new("RGB", (9, 6)).save(frames.color[2])
    with pytest.raises(FormatError, match=r"000002\.png: has 9 x 6 pixels, expected 8 x 6"):
        frames.frame(2)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w, K: w[1, 0].mul_(-1), "camera of 000001.png is mirrored"),
        (lambda w, K: w[1, :3, :3].mul_(1.01), "scaled or sheared"),
        (lambda w, K: w[2, 0, 3].fill_(float("nan")), "camera of 000002.png holds values that are not finite"),
        (lambda w, K: K[0, 0, 0].fill_(0), "no positive focal length"),
        (lambda w, K: K[0, 0, 1].fill_(0.1), "skewed"),
        (lambda w, K: w[0, 3, 0].fill_(0.5), "scaled or sheared"),
    ],
)
def test_impossible_cameras_are_told(tmp_path, edit, message):
    frames = make_scene(tmp_path / "made").frames
    assert frames is not None
    edit(frames.cameras.world_to_camera, frames.cameras.K)
    with pytest.raises(DataError, match=message):
        Frames(frames.cameras, frames.color, frames.depth)


def test_frames_need_depth_and_a_scale(tmp_path):
    save_scene(make_scene(tmp_path / "made"), tmp_path / "room")
    path = tmp_path / "room" / "transforms.json"
    content = json.loads(path.read_text())
    content["depth_unit_scale_factor"] = -1
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match="depth_unit_scale_factor is -1"):
        load_scene(tmp_path / "room")
    del content["frames"][2]["depth_file_path"]
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=r'frame 2 \(images/000002.png\) has no "depth_file_path"'):
        load_scene(tmp_path / "room")


def test_selected_frames_keep_their_files_and_cameras(tmp_path):
    frames = make_scene(tmp_path / "made").frames
    assert frames is not None
    chosen = frames.select([2, 0])
    assert chosen.color == (frames.color[2], frames.color[0])
    assert torch.equal(chosen.cameras.centers, frames.cameras.centers[[2, 0]])
