"""ScanNet scans written byte by byte as the dataset has them: recording, mesh, segments, groups and the table of labels."""

import json
import struct
import zlib

import numpy as np
import pytest
import torch

from scene_files import write_scan, write_sens
from splatsense.corpora.fusion import fuse_depth
from splatsense.corpora.scannet import evenly, find_scans, read_label_table, read_scannet
from splatsense.corpora.sens import SensFile, register_color
from splatsense.errors import DataError, FormatError
from splatsense.labels import SCANNET20, SCANNET200
from synthetic_room import box, side_of


@pytest.fixture
def labels(tmp_path):
    """A few rows of the real table, with its mixed line ends."""
    path = tmp_path / "scannetv2-labels.combined.tsv"
    header = "id\traw_category\tcategory\tcount\tnyu40id\teigen13id\tnyuClass\tnyu40class\r\n"
    rows = ["3\tfloor\tfloor\t1553\t2\t5\tfloor\tfloor\r\n", "10\toffice chair\toffice chair\t595\t5\t4\tchair\tchair\r\n",
            "28\tlamp\tlamp\t424\t35\t7\tlamp\tlamp\r\n", '9999\t"odd" word\tword\t1\t\t7\t\t\r\n']  # fmt: skip
    path.write_bytes((header + "".join(rows)).encode())
    return read_label_table(path)


def test_a_scan_becomes_a_scene(tmp_path, labels):
    folder = write_scan(tmp_path)
    assert find_scans(tmp_path) == [folder]
    scene = read_scannet(folder, labels, tmp_path, axes="scanned")
    mesh = box()
    np.testing.assert_array_equal(scene.coord, mesh.vertices[mesh.faces].reshape(-1, 3))
    assert scene.color is not None
    assert scene.color[5].tolist() == [10, 20, 5]
    assert scene.semantic20 is not None
    assert scene.semantic200 is not None
    assert scene.instance is not None
    chair20, chair200 = SCANNET20.index("chair"), SCANNET200.index("office chair")
    lamp200, floor200 = SCANNET200.index("lamp"), SCANNET200.index("floor")
    assert scene.semantic20[::6].tolist() == [-1, chair20, chair20, -1, SCANNET20.index("floor"), -1]
    assert scene.semantic200[::6].tolist() == [-1, chair200, chair200, lamp200, floor200, -1]
    assert scene.instance[::6].tolist() == [-1, 1, 1, 2, 0, 5]
    assert scene.normal is not None
    across = mesh.vertices[mesh.faces].astype(float)
    normal = np.cross(across[:, 1] - across[:, 0], across[:, 2] - across[:, 0])
    np.testing.assert_allclose(scene.normal[::3], normal / np.linalg.norm(normal, axis=1, keepdims=True), atol=1e-6)


def test_axis_alignment_turns_points_normals_and_cameras_together(tmp_path, labels):
    folder = write_scan(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    turned = read_scannet(folder, labels, tmp_path / "a")
    plain = read_scannet(folder, labels, tmp_path / "b", axes="scanned")
    x, y, z = plain.coord.T
    np.testing.assert_allclose(turned.coord, np.stack([1 - y, 2 + x, z + 0.5], axis=1), atol=1e-6)
    assert turned.normal is not None
    assert plain.normal is not None
    x, y, z = plain.normal.T
    np.testing.assert_allclose(turned.normal, np.stack([-y, x, z], axis=1), atol=1e-6)
    assert turned.frames is not None
    assert plain.frames is not None
    x, y, z = plain.frames.cameras.centers.T
    torch.testing.assert_close(turned.frames.cameras.centers, torch.stack([1 - y, 2 + x, z + 0.5], 1), atol=1e-5, rtol=0)


def test_test_scans_have_no_labels_and_no_alignment(tmp_path, labels):
    scene = read_scannet(write_scan(tmp_path, annotated=False, align=False), labels, tmp_path, frames=0)
    assert (scene.semantic20, scene.semantic200, scene.instance, scene.frames) == (None, None, None, None)


@pytest.mark.parametrize(("color_kind", "depth_kind"), [(2, 1), (1, 0), (0, 1)])
def test_recorded_frames_match_what_was_seen(tmp_path, color_kind, depth_kind):
    truth = write_sens(tmp_path / "a.sens", color_kind, depth_kind)
    with SensFile(tmp_path / "a.sens") as file:
        assert [frame.number for frame in file.tracked] == [0, 1, 3]
        assert len(file.frames) == 4
        torch.testing.assert_close(file.K, truth.cameras.K[0])
        for frame in file.tracked:
            np.testing.assert_allclose(frame.camera_to_world, truth.camera_to_world[frame.number], atol=1e-6)
            color, depth = file.read(frame)
            np.testing.assert_allclose(depth, truth.depth[frame.number], atol=6e-4)
            error = np.abs(color.astype(int) - truth.color_bytes[frame.number])
            assert np.median(error) <= 2
            assert (error.max(2) > 12).mean() < 0.06  # where two walls meet


def test_fused_frames_of_a_scan_lie_on_its_walls(tmp_path, labels):
    scene = read_scannet(write_scan(tmp_path), labels, tmp_path, axes="scanned")
    assert scene.frames is not None
    assert len(scene.frames) == 3
    side, distance = side_of(fuse_depth(scene.frames, 0.05).coord)
    assert np.quantile(distance[:, 0], 0.9) < 2e-3
    assert set(side) == {1, 2, 3, 4, 5}  # the frame that was lost is the only one to see the first wall


def test_colour_is_taken_where_the_depth_camera_looks():
    """Against a pinhole projection written out for each pixel, with another lens and a shift of 5 cm."""
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    depth = rng.uniform(1, 2, (12, 15)).astype(np.float32)
    depth[3, 4] = 0
    of_color, of_depth = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
    of_color[[0, 1, 0, 1], [0, 1, 2, 2]] = 18, 17.5, 24, 20
    of_depth[[0, 1, 0, 1], [0, 1, 2, 2]] = 13, 13, 7, 6
    shift = np.eye(4, dtype=np.float32)
    shift[:3, 3] = 0.05, -0.02, 0.01
    seen = register_color(color, of_color, depth, of_depth, shift)
    for row, column in [(0, 0), (5, 9), (11, 14), (3, 4), (6, 2)]:
        z = depth[row, column] or np.median(depth[depth > 0])
        x, y, z = (column - 7) / 13 * z + 0.05, (row - 6) / 13 * z - 0.02, z + 0.01
        u, v = 18 * x / z + 24, 17.5 * y / z + 20
        left, top = int(u), int(v)
        a, b = u - left, v - top
        c = color.astype(float)
        expected = (1 - b) * ((1 - a) * c[top, left] + a * c[top, left + 1]) + b * (
            (1 - a) * c[top + 1, left] + a * c[top + 1, left + 1]
        )
        np.testing.assert_allclose(seen[row, column], expected, atol=0.6)


def test_pixels_the_colour_camera_does_not_see_are_black():
    wide, narrow = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
    wide[[0, 1, 0, 1], [0, 1, 2, 2]] = 5, 5, 4.5, 4.5
    narrow[[0, 1, 0, 1], [0, 1, 2, 2]] = 10, 10, 4.5, 4.5
    white = np.full((10, 10, 3), 255, np.uint8)
    seen = register_color(white, narrow, np.ones((10, 10), np.float32), wide, np.eye(4, dtype=np.float32))
    assert (seen[3:7, 3:7] == 255).all()
    assert not seen[:2].any()
    assert not seen[:, -2:].any()
    with pytest.raises(DataError, match="looks away"):
        register_color(white, narrow, np.ones((10, 10), np.float32), wide, np.diag([1, -1, -1, 1]).astype(np.float32))


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (3, "the header begins at byte 0"),
        (200, "the header"),
        (-1000, r"frame 3 of 4 begins at byte \d+"),
        (400, "frame 0 of 4"),
    ],
)
def test_a_recording_that_is_cut_off_says_at_which_frame(tmp_path, cut, message):
    path = tmp_path / "cut.sens"
    write_sens(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FormatError, match=rf"cut\.sens: is cut off: {message}"):
        SensFile(path)


def test_damaged_recordings_are_told(tmp_path):
    path = tmp_path / "bad.sens"
    write_sens(path, version=3)
    with pytest.raises(FormatError, match="version 3"):
        SensFile(path)
    write_sens(path, depth_kind=2)
    with pytest.raises(FormatError, match="depth in form 2"):
        SensFile(path)
    write_sens(path)
    whole = bytearray(path.read_bytes())
    with SensFile(path) as file:
        first = file.frames[0]
    broken = whole.copy()
    broken[first.offset + first.color_size + 20] ^= 255
    path.write_bytes(broken)
    with SensFile(path) as file, pytest.raises(FormatError, match=rf"frame 0 at byte {first.offset}: its depth"):
        file.read(file.frames[0])
    broken = whole.copy()
    broken[first.offset : first.offset + 40] = bytes(40)
    path.write_bytes(broken)
    with SensFile(path) as file, pytest.raises(FormatError, match="colour image is damaged"):
        file.read(file.frames[0])
    broken = whole.copy()
    struct.pack_into("<Q", broken, first.offset - 16, 10**8)
    path.write_bytes(broken)
    with pytest.raises(FormatError, match="declares 100000000 bytes of colour"):
        SensFile(path)


def test_depth_that_inflates_to_more_than_an_image_is_refused(tmp_path):
    path = tmp_path / "bomb.sens"
    write_sens(path, depth_kind=1)
    with SensFile(path) as file:
        first = file.frames[0]
    data = bytearray(path.read_bytes())
    bomb = zlib.compress(bytes(10**8), 9)
    struct.pack_into("<Q", data, first.offset - 8, min(len(bomb), 60_000))
    start = first.offset + first.color_size
    path.write_bytes(data[:start] + bomb[:60_000])
    with pytest.raises(FormatError, match="is cut off"):  # the frames after it are gone
        SensFile(path)
    struct.pack_into("<Q", data, first.offset - 80 - 16 - 8, 1)  # one frame only
    path.write_bytes(data[:start] + bomb[:60_000])
    with SensFile(path) as file, pytest.raises(FormatError, match="not 96 x 72 pixels"):
        file.read(file.frames[0])


def test_a_recording_without_tracking_says_so(tmp_path, labels):
    folder = write_scan(tmp_path)
    path = folder / "scene0000_00.sens"
    with SensFile(path) as file:
        offsets = [frame.offset for frame in file.frames]
    data = bytearray(path.read_bytes())
    for offset in offsets:
        data[offset - 96 : offset - 32] = np.full(16, -np.inf, "<f4").tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match="none of its 4 frames was tracked"):
        read_scannet(folder, labels, tmp_path)


def test_a_camera_that_is_not_rigid_is_named(tmp_path, labels):
    folder = write_scan(tmp_path)
    path = folder / "scene0000_00.sens"
    with SensFile(path) as file:
        offset = file.frames[1].offset
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, offset - 96, 5.0)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"scene0000_00\.sens: the camera of frame 1 is scaled"):
        read_scannet(folder, labels, tmp_path)


def test_files_that_do_not_fit_each_other_are_told(tmp_path, labels):
    folder = write_scan(tmp_path)
    segments = folder / "scene0000_00_vh_clean_2.0.010000.segs.json"
    segments.write_text(json.dumps({"segIndices": [1, 2, 3]}))
    with pytest.raises(FormatError, match=r"segs\.json: has segments of 3 vertices, the mesh 36"):
        read_scannet(folder, labels, tmp_path)
    segments.write_text(json.dumps({"segIndices": ["x"]}))
    with pytest.raises(FormatError, match="not a list of whole numbers"):
        read_scannet(folder, labels, tmp_path)
    (folder / "scene0000_00.txt").write_text("axisAlignment = 1 2 3\n")
    with pytest.raises(FormatError, match=r"line 1: axisAlignment is not 16 numbers"):
        read_scannet(folder, labels, tmp_path)
    (tmp_path / "table.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(FormatError, match="lacks the columns raw_category, nyu40id, id"):
        read_label_table(tmp_path / "table.tsv")


def test_frames_are_chosen_evenly():
    assert evenly(3, 10) == [0, 1, 2]
    assert evenly(10, 4) == [0, 2, 5, 7]
    assert evenly(1000, 300)[-1] == 996
