import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from splatsense.cameras import Cameras
from splatsense.cli import main
from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians
from splatsense.io import load, load_cameras, save
from splatsense.render import render
from splatsense.turntable import Orbit, OrbitSettings, render_orbit, render_views

QUICK = ["--views", "2", "--size", "48"]


def box(center=(30.0, -20.0, 5.0), size=8.0, count=2000) -> Gaussians:
    """A red cuboid far from the origin, in large units."""
    random = torch.Generator().manual_seed(0)
    means = (torch.rand(count, 3, generator=random) - 0.5) * torch.tensor([1.0, 2.0, 1.0]) * size + torch.tensor(center)
    quats, red = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1), torch.tensor([0.9, 0.1, 0.1]).repeat(count, 1)
    return Gaussians.from_rgb(means, quats, torch.full((count, 3), size / 40), torch.full((count,), 0.95), red)


def read(path):
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture
def asset(tmp_path):
    (tmp_path / "in").mkdir()
    save(box(), tmp_path / "in" / "red box.ply")
    return tmp_path / "in" / "red box.ply"


def test_cameras_depth_and_pictures_fit_the_file(tmp_path, asset):
    """The cameras that are written, used on the file as it is, must give the very pictures that are written."""
    out = tmp_path / "out"
    assert main(["render", str(asset), "--out", str(out), *QUICK]) == 0
    folder = out / "red box"
    cameras, names = load_cameras(folder / "transforms.json")
    assert names == ["color_000.png", "color_001.png"]
    scale = json.loads((folder / "transforms.json").read_text())["depth_unit_scale_factor"]
    again = render(load(asset), cameras, background=torch.ones(3))
    for index in range(2):
        color = again.color[index].clamp(0, 1).numpy() * 255
        assert np.abs(read(folder / f"color_{index:03d}.png") - color).max() < 8
        alpha, depth = read(folder / f"alpha_{index:03d}.png"), read(folder / f"depth_{index:03d}.png")
        np.testing.assert_allclose(alpha, again.alpha[index].numpy() * 255, atol=8)
        solid = alpha > 250
        assert solid.mean() > 0.2
        np.testing.assert_allclose(depth[solid] * scale, again.depth[index].numpy()[solid], rtol=2e-3)
        assert depth.dtype == np.uint16
        assert (depth[again.alpha[index].numpy() == 0] == 0).all()


def test_the_object_fills_the_picture(tmp_path):
    for up in ("y", "z"):
        render_orbit(box(), tmp_path / up, OrbitSettings(views=3, size=60, up=up))
        seen = [read(tmp_path / up / f"alpha_{index:03d}.png") > 25 for index in range(3)]
        union = np.logical_or.reduce(seen)
        rows, columns = np.flatnonzero(union.any(1)), np.flatnonzero(union.any(0))
        assert 48 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 58
    tall = read(tmp_path / "y" / "alpha_000.png") > 25
    assert np.ptp(np.flatnonzero(tall.any(1))) > np.ptp(np.flatnonzero(tall.any(0)))  # y is up and its longest side


def test_backgrounds(tmp_path):
    picture = Orbit(box(), OrbitSettings(size=32)).picture(Orbit(box(), OrbitSettings(size=32)).cameras(1))
    assert picture.over((0, 0, 255))[0, 0].tolist() == [0, 0, 255]
    straight = picture.over(None)
    assert straight[0, 0, 3] == 0
    middle = straight[16, 16]
    assert middle[3] > 240
    np.testing.assert_allclose(middle[:3], [230, 26, 26], atol=3)


@pytest.mark.parametrize(("kind", "background"), [("webp", "transparent"), ("gif", "#203040")])
def test_turntables(tmp_path, kind, background):
    settings = OrbitSettings(views=1, size=40, frames=5, turntable=kind, background=background)
    render_orbit(box(), tmp_path, settings)
    with Image.open(tmp_path / f"turntable.{kind}") as image:
        assert (image.n_frames, image.size) == (5, (40, 40))
        frames = []
        for index in range(5):
            image.seek(index)
            frames.append(np.array(image.convert("RGBA")).astype(int))
            assert image.info["duration"] == 800
    assert all(np.abs(frames[0] - frame).max() > 20 for frame in frames[1:])
    assert frames[0][0, 0].tolist() == ([0, 0, 0, 0] if background == "transparent" else [0x20, 0x30, 0x40, 255])
    still = read(tmp_path / "color_000.png")[..., :3].astype(int)
    assert np.abs(still - frames[0][..., :3])[15:25, 15:25].mean() < 12


def test_a_run_is_resumed(tmp_path, asset, capsys):
    out = tmp_path / "out"
    save(box(count=100), asset.with_name("second.ply"))
    asset.with_name("broken.ply").write_bytes(b"ply\n")
    command = ["render", str(asset.parent), "--out", str(out), *QUICK]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "2 drawn, 0 drawn already, 1 failed." in captured.out
    assert "broken.ply" in captured.err
    assert not (out / "broken").exists()
    (out / "second" / "transforms.json").unlink()  # as if it had been interrupted there
    before = os.stat(out / "red box" / "color_000.png").st_mtime_ns
    main(command)
    assert "1 drawn, 1 drawn already, 1 failed." in capsys.readouterr().out
    main([*command[:-4], "--views", "1", "--size", "48"])
    assert "2 drawn, 0 drawn already" in capsys.readouterr().out
    assert sorted(os.listdir(out / "second")) == ["alpha_000.png", "color_000.png", "depth_000.png", "transforms.json"]
    assert os.stat(out / "red box" / "color_000.png").st_mtime_ns > before
    save(box(count=50), asset.with_name("second.ply"))
    main([*command[:-4], "--views", "1", "--size", "48"])
    assert "1 drawn, 1 drawn already" in capsys.readouterr().out
    main([*command[:-4], "--views", "1", "--size", "48", "--force"])
    assert "2 drawn, 0 drawn already" in capsys.readouterr().out


def test_the_files_of_others_are_left_alone(tmp_path, asset, capsys):
    folder = tmp_path / "out" / "red box"
    folder.mkdir(parents=True)
    (folder / "transforms.json").write_text('{"frames": []}')
    assert main(["render", str(asset), "--out", str(tmp_path / "out"), *QUICK]) == 1
    assert "was not written by `splatsense render`" in capsys.readouterr().err
    assert (folder / "transforms.json").read_text() == '{"frames": []}'


def test_one_gaussian(tmp_path):
    render_orbit(box(count=1), tmp_path, OrbitSettings(views=1, size=32))
    assert read(tmp_path / "alpha_000.png")[16, 16] > 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": 0}, "--views must lie between 1 and 10,000"),
        ({"size": 100_000}, "--size must lie between 1 and 8,192"),
        ({"frames": 1}, "--frames"),
        ({"fov": 180.0}, "--fov"),
        ({"elevation": 90.0}, "--elevation"),
        ({"azimuth": float("nan")}, "--azimuth"),
        ({"background": "octarine"}, "--background 'octarine' is not a colour"),
        ({"background": "#20304080"}, "--background '#20304080' is partly transparent; give #rrggbb, or transparent"),
        ({"background": "transparent", "turntable": "gif"}, "does not go with --turntable gif"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(DataError, match=message):
        OrbitSettings(**settings)


def test_nothing_to_draw():
    with pytest.raises(DataError, match="no Gaussians"):
        Orbit(box()[:0])
    assert isinstance(Orbit(box()).cameras(2), Cameras)


def colmap_model(folder, cameras, names):
    """The cameras as a COLMAP model in text."""
    folder.mkdir()
    fx, fy, cx, cy = (float(cameras.K[0, row, column]) for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))
    (folder / "cameras.txt").write_text(f"1 PINHOLE {cameras.width} {cameras.height} {fx} {fy} {cx} {cy}\n")
    lines = []
    for index, (view, name) in enumerate(zip(cameras.world_to_camera.double().numpy(), names, strict=True), 1):
        x, y, z, w = Rotation.from_matrix(view[:3, :3]).as_quat()
        lines += [" ".join(map(str, (index, w, x, y, z, *view[:3, 3], 1, name))), ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("kind", ["transforms.json", "COLMAP"])
def test_given_cameras_take_the_same_pictures(tmp_path, asset, kind):
    """An orbit's own cameras, given as a file, must see what the orbit saw."""
    assert main(["render", str(asset), "--out", str(tmp_path / "orbit"), *QUICK]) == 0
    former = tmp_path / "orbit" / "red box"
    cameras, names = load_cameras(former / "transforms.json")
    source = former / "transforms.json" if kind == "transforms.json" else colmap_model(tmp_path / "model", cameras, names)
    assert main(["render", str(asset), "--out", str(tmp_path / "again"), "--cameras", str(source)]) == 0
    folder = tmp_path / "again" / "red box"
    written = json.loads((folder / "transforms.json").read_text())
    assert [frame["image"] for frame in written["frames"]] == names
    scales = [json.loads((each / "transforms.json").read_text())["depth_unit_scale_factor"] for each in (former, folder)]
    assert scales[0] == pytest.approx(scales[1], rel=1e-4)
    for index in range(2):
        for name in (f"color_{index:03d}.png", f"alpha_{index:03d}.png"):
            assert np.abs(read(folder / name).astype(int) - read(former / name)).max() <= 3
        depths = [read(each / f"depth_{index:03d}.png") * scales[0] for each in (former, folder)]
        seen = (depths[0] > 0) & (depths[1] > 0)
        assert seen.mean() > 0.2
        np.testing.assert_allclose(depths[0][seen], depths[1][seen], rtol=1e-3)
    torch.testing.assert_close(load_cameras(folder / "transforms.json")[0].world_to_camera, cameras.world_to_camera)


def test_given_cameras_are_known_again(tmp_path, asset, capsys):
    assert main(["render", str(asset), "--out", str(tmp_path / "orbit"), *QUICK]) == 0
    source = tmp_path / "orbit" / "red box" / "transforms.json"
    command = ["render", str(asset), "--out", str(tmp_path / "again"), "--cameras", str(source)]
    for expected in ("1 drawn, 0 drawn already", "0 drawn, 1 drawn already"):
        assert main(command) == 0
        assert expected in capsys.readouterr().out
    content = json.loads(source.read_text())
    source.write_text(json.dumps(content | {"frames": content["frames"][:1]}))
    assert main(command) == 0
    assert "1 drawn, 0 drawn already" in capsys.readouterr().out
    assert not (tmp_path / "again" / "red box" / "color_001.png").exists()


def test_given_cameras_that_cannot_be_used(tmp_path, asset, capsys):
    source = tmp_path / "transforms.json"
    command = ["render", str(asset), "--out", str(tmp_path / "out"), "--cameras", str(source)]
    assert main(command) == 2
    assert str(source) in capsys.readouterr().err
    matrix = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 60], [0, 0, 0, 1]]
    frame = {"file_path": "a.png", "w": 9000, "h": 9, "fl_x": 50, "transform_matrix": matrix}
    source.write_text(json.dumps({"frames": [frame]}))
    assert main(command) == 1
    assert "images of 9000 x 9 pixels; at most 8,192 a side" in capsys.readouterr().err
    assert main([*command, "--views", "3"]) == 2
    assert "--views is about orbits and does not go with --cameras" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.png"))


def test_cameras_in_double_precision_see_the_same(tmp_path):
    """As `Orbit.in_file_units` gives them; with light, too."""
    orbit = Orbit(box(), OrbitSettings(size=32))
    cameras = orbit.in_file_units(orbit.cameras(1))
    single = Cameras(cameras.world_to_camera.float(), cameras.K, 32, 32)
    for name, given in (("double", cameras), ("single", single)):
        render_views(box(), tmp_path / name, given, ["a.png"], OrbitSettings(shaded=True))
    difference = read(tmp_path / "double" / "color_000.png") - read(tmp_path / "single" / "color_000.png").astype(int)
    assert np.abs(difference).max() <= 1


def test_views_need_cameras_names_and_a_folder(tmp_path):
    cameras = Cameras.orbit(2, 8)
    for given, names in ((cameras, ["a"]), (cameras[:0], [])):
        with pytest.raises(DataError, match="give one for each"):
            render_views(box(), tmp_path / "views", given, names)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FormatError, match="no folder can be made here"):
        render_views(box(), tmp_path / "file", cameras, ["a", "b"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
