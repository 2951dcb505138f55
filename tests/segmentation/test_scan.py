import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from scene_files import write_seven_scenes
from segmentation_scenes import room
from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians
from splatsense.io import PointCloud, point_cloud_to_gaussians, save
from splatsense.scenes import save_scene
from splatsense.segmentation.export import write_points
from splatsense.segmentation.scan import ScanSettings, detect_up, points_of_gaussians, read_scan

SCENE = room()
STRAIGHT = np.eye(3)
Y_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float)  # z becomes y


def write(path, coord, normals=True, color=None, turn=STRAIGHT):
    columns = dict(zip(("nx", "ny", "nz"), (SCENE.normal @ turn.T).T, strict=True)) if normals else {}
    write_points(path, np.asarray(coord, np.float32), SCENE.color if color is None else color, columns)
    return path


def test_a_scan_in_metres_and_z_up_is_taken_as_it_is(tmp_path, caplog):
    scan = read_scan(write(tmp_path / "a.ply", SCENE.coord))
    assert (scan.points.coord.numpy() == SCENE.coord).all()
    assert (scan.points.normal.numpy() == SCENE.normal).all()
    assert scan.points.color.numpy() == pytest.approx(SCENE.color / 255, abs=1e-6)
    assert not caplog.records


@pytest.mark.parametrize(("factor", "word"), [(1000, "millimetres"), (100, "centimetres")])
def test_units_are_told_by_the_size(tmp_path, caplog, factor, word):
    path = write(tmp_path / "a.ply", SCENE.coord * factor)
    scan = read_scan(path)
    assert scan.points.coord.numpy() == pytest.approx(SCENE.coord, abs=1e-4)
    assert scan.coord == pytest.approx(SCENE.coord * factor)
    assert word in caplog.text
    caplog.clear()
    given = read_scan(path, ScanSettings(unit=str(1 / factor)))
    assert given.points.coord.numpy() == pytest.approx(SCENE.coord, abs=1e-4)
    assert not caplog.records


def test_a_scan_of_an_unlikely_height_is_warned_about(tmp_path, caplog):
    read_scan(write(tmp_path / "a.ply", SCENE.coord * 0.1))
    assert "would be 0.22 m high" in caplog.text
    assert "--unit" in caplog.text


def test_y_up_is_told_by_the_floor_and_turned(tmp_path, caplog):
    path = write(tmp_path / "a.ply", SCENE.coord @ Y_UP.T, turn=Y_UP)
    scan = read_scan(path)
    assert "y seems to point up" in caplog.text
    assert scan.points.coord[:, 2].numpy() == pytest.approx(SCENE.coord[:, 2], abs=1e-6)
    assert np.linalg.det(scan.matrix) == pytest.approx(1)
    assert scan.points.coord.numpy() == pytest.approx(scan.coord @ scan.matrix.T, abs=1e-5)
    floor = SCENE.semantic20 == 1
    assert (scan.points.normal[floor, 2] == 1).all()
    kept = read_scan(path, ScanSettings(up="z"))
    assert (kept.points.coord.numpy() == scan.coord).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_either_sign_of_y(sign):
    turn = Y_UP if sign > 0 else np.diag([1, -1, -1]) @ Y_UP
    coord, normal = SCENE.coord @ turn.T, SCENE.normal @ turn.T
    assert detect_up(coord, normal) == ("y" if sign > 0 else "-y")
    assert detect_up(SCENE.coord, SCENE.normal) == "z"


def test_no_colours_and_no_normals_are_said(tmp_path, caplog):
    path = tmp_path / "a.xyz"
    np.savetxt(path, SCENE.coord, "%.4f")
    scan = read_scan(path)
    assert "has no colours" in caplog.text
    assert "has no normals" in caplog.text
    assert (scan.points.color == 0.5).all()
    floor = (SCENE.coord[:, 2] < 0.03) & (SCENE.coord[:, :2] > 0.3).all(1)
    assert np.median(np.abs(scan.points.normal.numpy()[floor, 2])) > 0.99


def test_normals_of_a_scan_in_millimetres_are_those_of_the_scan_in_metres(tmp_path):
    found = [read_scan(write(tmp_path / f"{factor}.ply", SCENE.coord * factor, normals=False)) for factor in (1, 1000)]
    along = np.abs((found[0].points.normal * found[1].points.normal).sum(1).numpy())
    assert np.quantile(along, 0.1) > 0.999


def test_a_splat_gives_centres_colours_and_shortest_axes(tmp_path):
    cloud = PointCloud(SCENE.coord, SCENE.color.astype(np.float32) / 255, SCENE.normal)
    splat = point_cloud_to_gaussians(cloud)
    hidden = splat.opacities.clone()
    hidden[::10] = 0.05
    save(Gaussians(splat.means, splat.quats, splat.scales, hidden, splat.sh), tmp_path / "a.ply")
    scan = read_scan(tmp_path / "a.ply")
    seen = np.arange(len(SCENE)) % 10 != 0
    assert scan.coord == pytest.approx(SCENE.coord[seen], abs=1e-5)
    along = np.abs((scan.points.normal.numpy() * SCENE.normal[seen]).sum(1))
    assert along.min() > 0.999
    floor = SCENE.semantic20[seen] == 1
    assert (scan.points.normal.numpy()[floor, 2] > 0.999).all()  # towards the middle of the room
    with pytest.raises(DataError, match="opacity"):
        points_of_gaussians(Gaussians(splat.means, splat.quats, splat.scales, torch.zeros(len(splat)), splat.sh))


def test_balls_have_no_normals(tmp_path, caplog):
    """A cloud without normals that was saved as a splat is none whose normals all look along x."""
    normals = SCENE.normal.copy()
    normals[:100] = 0
    discs, balls = (point_cloud_to_gaussians(PointCloud(SCENE.coord, None, given)) for given in (normals, None))
    found = points_of_gaussians(discs).normals
    assert (found[:100] == 0).all()
    assert np.linalg.norm(found[100:], axis=1) == pytest.approx(1, abs=1e-4)
    assert points_of_gaussians(balls).normals is None
    save(balls, tmp_path / "balls.ply")
    scan = read_scan(tmp_path / "balls.ply")
    assert "has no normals" in caplog.text
    floor = (scan.points.coord[:, 2] < 0.03).numpy()
    assert (np.abs(scan.points.normal.numpy()[floor, 2]) > 0.9).mean() > 0.8


def test_a_scene_folder(tmp_path):
    save_scene(SCENE, tmp_path / "room")
    assert (read_scan(tmp_path / "room").points.coord.numpy() == SCENE.coord).all()


def test_a_posed_recording_is_fused(tmp_path, caplog):
    write_seven_scenes(tmp_path / "seq")
    settings = ScanSettings(intrinsics=(51.4, 51.4, 48, 36), frames=4)
    with caplog.at_level(logging.WARNING):
        scan = read_scan(tmp_path / "seq", settings)
    assert len(scan.coord) > 1000
    assert np.isfinite(scan.points.normal.numpy()).all()
    with pytest.raises(DataError, match="--depth-scale"):
        read_scan(tmp_path / "seq", ScanSettings(unit="mm"))
    with pytest.raises(FormatError, match=r"it holds .*seq, name that"):
        read_scan(tmp_path)


@pytest.mark.parametrize("unit", ["parsec", "0", "-1", "nan"])
def test_no_unit(unit):
    with pytest.raises(DataError, match="--unit"):
        ScanSettings(unit=unit).metres()


def test_no_scan(tmp_path):
    with pytest.raises(FormatError, match="is no scan"):
        read_scan(tmp_path)
    with pytest.raises(FormatError, match="does not exist"):
        read_scan(tmp_path / "missing.ply")


@pytest.mark.parametrize("away", [(0, 0, -30), (0, 0, 30), (20, 0, 0)])
def test_a_stray_point_does_not_turn_the_floor_round(tmp_path, away):
    coord = np.vstack([SCENE.coord, [away]]).astype(np.float32)
    write_points(tmp_path / "a.ply", coord, np.vstack([SCENE.color, SCENE.color[:1]]))
    scan = read_scan(tmp_path / "a.ply", ScanSettings(unit="m", up="z"))
    floor = scan.points.coord[:, 2].abs().numpy() < 0.03
    assert (scan.points.normal.numpy()[floor, 2] > 0.9).mean() > 0.8


def test_points_very_far_away_are_left_out(tmp_path, caplog):
    coord = np.vstack([SCENE.coord, [(10_000, 0, 0)]]).astype(np.float32)
    write_points(tmp_path / "a.ply", coord, np.vstack([SCENE.color, SCENE.color[:1]]))
    scan = read_scan(tmp_path / "a.ply")
    assert (scan.coord == SCENE.coord).all()
    assert f"left out 1 of {len(coord):,} points" in caplog.text


def test_points_in_the_grid_of_a_country_keep_their_coordinates(tmp_path):
    coord = SCENE.coord + np.array([500_000.125, 4_600_000.25, 120])
    write_points(tmp_path / "a.ply", coord, SCENE.color)
    scan = read_scan(tmp_path / "a.ply")
    assert scan.coord.dtype == np.float64
    assert np.abs(scan.coord - coord).max() < 1e-6
    origin = (scan.coord - scan.points.coord.numpy() @ scan.matrix).mean(0)
    assert np.abs((scan.coord - origin) @ scan.matrix.T - scan.points.coord.numpy()).max() < 1e-5
    assert scan.points.coord.abs().max() < 20


def test_a_recording_keeps_the_axes_of_its_world(tmp_path, caplog):
    write_seven_scenes(tmp_path / "seq")
    settings = ScanSettings(intrinsics=(51.4, 51.4, 48, 36), frames=4)
    upright, lying = read_scan(tmp_path / "seq", settings), read_scan(tmp_path / "seq", replace(settings, up="-y"))
    assert (np.sort(upright.coord, 0) == np.sort(lying.coord, 0)).all()
    assert (lying.points.coord.numpy() == lying.coord @ lying.matrix.T).all()
    assert (lying.points.coord[:, 2].numpy() == -lying.coord[:, 1]).all()
    assert not (lying.points.normal == upright.points.normal).all()


def test_a_mesh_has_the_colours_of_its_vertices(tmp_path, caplog):
    corners = np.array([(0, 0, 0), (5, 0, 0), (5, 4, 0), (0, 4, 2.5)])
    colors = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.2, 0.4, 0.6)]
    lines = [f"v {x} {y} {z} {r} {g} {b}" for (x, y, z), (r, g, b) in zip(corners.tolist(), colors, strict=True)]
    (tmp_path / "a.obj").write_text("\n".join([*lines, "f 1 2 3", "f 1 3 4"]) + "\n")
    scan = read_scan(tmp_path / "a.obj")
    order = np.lexsort(corners.T[::-1])
    assert (scan.coord == corners[order]).all()
    assert scan.points.color.numpy() == pytest.approx(np.array(colors)[order], abs=1 / 255)
    assert "has no colours" not in caplog.text
    (tmp_path / "b.obj").write_text("\n".join([*(line.rsplit(" ", 3)[0] for line in lines), "f 1 2 3"]) + "\n")
    assert (read_scan(tmp_path / "b.obj").points.color == 0.5).all()
    assert "has no colours" in caplog.text
