import struct

import numpy as np
import pytest
import torch

from splatsense.errors import DataError, FormatError, SplatSenseError
from splatsense.gaussians import Gaussians
from splatsense.io import load_cameras, read_colmap, read_colmap_points
from splatsense.render import render

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap makes the models")

PARAMETERS = {"PINHOLE": [90.0, 110.0, 41.3, 28.9], "SIMPLE_PINHOLE": [100.0, 37.1, 30.7]}


def reconstruction(model="PINHOLE", seed=0, parameters=None, rigs=2):
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = rigs, 2, 3, 40
    options.camera_width, options.camera_height = 80, 60
    options.camera_model_id = getattr(pycolmap.CameraModelId, model)
    options.camera_params = parameters or PARAMETERS[model]
    pycolmap.set_random_seed(seed)
    return pycolmap.synthesize_dataset(options)


def write(model, folder, form="binary"):
    folder.mkdir(parents=True, exist_ok=True)
    model.write_binary(folder) if form == "binary" else model.write_text(folder)
    return folder


@pytest.mark.parametrize("form", ["binary", "text"])
@pytest.mark.parametrize("model", list(PARAMETERS))
def test_agrees_with_pycolmap(tmp_path, form, model):
    expected = reconstruction(model)
    write(expected, tmp_path / "sparse" / "0", form)
    cameras, names = load_cameras(tmp_path)
    by_name = {image.name: image for image in expected.images.values()}
    assert names == sorted(by_name)
    assert (cameras.width, cameras.height) == (80, 60)
    for index, name in enumerate(names):
        pose = by_name[name].cam_from_world().matrix()
        np.testing.assert_allclose(cameras.world_to_camera[index, :3], pose, atol=1e-6)
        np.testing.assert_allclose(cameras.K[index], by_name[name].camera.calibration_matrix(), rtol=1e-6)


@pytest.mark.parametrize("form", ["binary", "text"])
def test_points_agree_with_pycolmap(tmp_path, form):
    expected = reconstruction()
    cloud = read_colmap_points(write(expected, tmp_path / "model", form))
    points = list(expected.points3D.values())
    order = np.lexsort(cloud.points.T)
    found = np.concatenate([cloud.points, cloud.colors * 255], 1)[order]
    wanted = np.array([[*point.xyz, *point.color] for point in points], np.float32)
    np.testing.assert_allclose(found, wanted[np.lexsort(wanted[:, :3].T)], atol=1e-4)


@pytest.mark.parametrize("model", list(PARAMETERS))
def test_a_gaussian_is_drawn_where_pycolmap_projects_its_centre(tmp_path, model):
    expected = reconstruction(model)
    cameras, names = read_colmap(write(expected, tmp_path / "model"))
    by_name = {image.name: image for image in expected.images.values()}
    checked = 0
    for point in list(expected.points3D.values())[:6]:
        mean = torch.tensor(point.xyz).float()[None]
        gaussian = Gaussians.from_rgb(
            mean, torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.06), torch.ones(1), torch.ones(1, 3)
        )
        alpha = render(gaussian, cameras).alpha.double()
        for index, name in enumerate(names):
            pixel = by_name[name].project_point(point.xyz)
            if pixel is None or not (10 < pixel[0] < 70 and 10 < pixel[1] < 50):
                continue
            weight = alpha[index] / alpha[index].sum()
            x = (weight.sum(0) * (torch.arange(80) + 0.5)).sum()
            y = (weight.sum(1) * (torch.arange(60) + 0.5)).sum()
            np.testing.assert_allclose([float(x), float(y)], pixel, atol=0.01)
            checked += 1
    assert checked > 20


def test_models_whose_distortion_is_zero_are_pinholes(tmp_path):
    expected = reconstruction("OPENCV", parameters=[90.0, 110.0, 41.3, 28.9, 0, 0, 0, 0])
    cameras, _ = read_colmap(write(expected, tmp_path / "model"))
    np.testing.assert_allclose(cameras.K[0], [[90, 0, 41.3], [0, 110, 28.9], [0, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "parameters"), [("SIMPLE_RADIAL", [100.0, 40, 30, 0.05]), ("OPENCV_FISHEYE", [90.0, 90, 40, 30, 0, 0, 0, 0])]
)
def test_distortion_is_an_error_that_says_what_to_do(tmp_path, model, parameters):
    write(reconstruction(model, parameters=parameters), tmp_path / "model")
    with pytest.raises(FormatError, match=rf"lens distortion \(model {model}\)\. Run `colmap image_undistorter`"):
        read_colmap(tmp_path / "model")


def test_several_sizes(tmp_path):
    model = reconstruction()
    camera = next(iter(model.cameras.values()))
    camera.width = 100
    write(model, tmp_path / "model")
    with pytest.raises(FormatError, match=r"differ in size: 9 of 80 x 60, 3 of 100 x 60\. .* size=\(width, height\)"):
        read_colmap(tmp_path / "model")
    cameras, names = read_colmap(tmp_path / "model", size=(100, 60))
    assert (cameras.width, len(cameras), len(names)) == (100, 3, 3)
    with pytest.raises(DataError, match="no image is 10 x 10"):
        read_colmap(tmp_path / "model", size=(10, 10))


def test_an_image_without_points_and_a_name_with_spaces(tmp_path):
    (tmp_path / "cameras.txt").write_text("# one\n3 PINHOLE 80 60 90 110 41.3 28.9\n")
    (tmp_path / "images.txt").write_text("1 1 0 0 0 1 2 3 3 my photo.png\n\n2 2 0 0 0 0 0 1 3 b.png\n1 2 -1\n")
    cameras, names = read_colmap(tmp_path)
    assert names == ["b.png", "my photo.png"]
    np.testing.assert_array_equal(cameras.world_to_camera[1, :3, 3], [1, 2, 3])
    np.testing.assert_array_equal(cameras.world_to_camera[0, :3, :3], np.eye(3))


@pytest.mark.parametrize(
    ("cameras", "images", "message"),
    [
        ("1 PINHOLE 80 60 90 110 41.3\n", "", r"cameras\.txt: line 1 is damaged: 4 numbers expected, got '90 110 41.3'"),
        ("1 CYLINDER 80 60 1\n", "", "line 1 is not a camera"),
        ("1 PINHOLE 0 60 90 110 41 28\n", "1 1 0 0 0 0 0 0 1 a\n\n", "'a' has the size 0 x 60"),
        ("1 PINHOLE 80 60 -90 110 41 28\n", "1 1 0 0 0 0 0 0 1 a\n\n", "focal lengths .* must be positive"),
        ("1 PINHOLE 80 60 90 110 41 28\n", "1 0 0 0 0 0 0 0 1 a\n\n", "quaternion .* no rotation"),
        ("1 PINHOLE 80 60 90 110 41 28\n", "1 1 0 0 0 0 nan 0 1 a\n\n", "'a' has values that are not finite"),
        ("1 PINHOLE 80 60 90 110 41 28\n", "1 1 0 0 0 0 0 0 2 a\n\n", "was taken by camera 2, which cameras.txt does not hold"),
        ("1 PINHOLE 80 60 90 110 41 28\n", "1 1 0 0 0 0 0\n", "images.txt: line 1 is not an image"),
        ("1 PINHOLE 80 60 90 110 41 28\n", "# none\n", "holds no images"),
    ],
)
def test_damaged_text(tmp_path, cameras, images, message):
    (tmp_path / "cameras.txt").write_text(cameras)
    (tmp_path / "images.txt").write_text(images)
    with pytest.raises(FormatError, match=message):
        read_colmap(tmp_path)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_a_model_cut_at_any_byte_is_an_error(tmp_path, name):
    path = write(reconstruction(rigs=1), tmp_path / "model") / name
    data = path.read_bytes()
    read = read_colmap_points if name == "points3D.bin" else read_colmap
    read(tmp_path / "model")
    for size in range(0, len(data), 1 if len(data) < 2000 else 37):
        path.write_bytes(data[:size])
        with pytest.raises(FormatError, match=name.replace(".", r"\.")):
            read(tmp_path / "model")


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("count", [2**31, 2**63, 2**64 - 1])
def test_counts_are_checked_before_anything_is_read(tmp_path, name, count):
    path = write(reconstruction(), tmp_path / "model") / name
    path.write_bytes(struct.pack("<Q", count) + path.read_bytes()[8:])
    with pytest.raises(FormatError, match=f"byte 0 promises {count} entries"):
        (read_colmap_points if name == "points3D.bin" else read_colmap)(tmp_path / "model")


def test_flipped_bytes(tmp_path):
    path = write(reconstruction(), tmp_path / "model") / "images.bin"
    data = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(100):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[random.integers(0, len(data), 4)] = random.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        try:
            read_colmap(tmp_path / "model")
        except SplatSenseError as error:
            if "images.bin" not in str(error):
                raise


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(FormatError, match=r"holds no COLMAP model: no images\.bin or images\.txt"):
        load_cameras(tmp_path)
