"""S3DIS rooms and Pointcept folders as they are on disk, the data set's faulty line among them."""

import numpy as np
import pytest

from scene_files import write_room
from splatsense.corpora.pointcept import find_preprocessed, read_preprocessed
from splatsense.corpora.s3dis import find_rooms, read_s3dis
from splatsense.errors import DataError, FormatError
from splatsense.labels import S3DIS


def test_a_room_becomes_a_scene(tmp_path):
    folder = write_room(tmp_path)
    assert find_rooms(tmp_path) == [folder]
    assert find_rooms(folder) == [folder]
    scene = read_s3dis(folder)
    assert len(scene) == 802
    assert scene.semantic is not None
    assert scene.instance is not None
    assert scene.color is not None
    names = [S3DIS.names[label] for label in scene.semantic]
    assert (names[0], names[1], names[401], names[402]) == ("chair", "floor", "clutter", "wall")
    assert (scene.instance[0], scene.instance[1], scene.instance[401], scene.instance[402]) == (0, 1, 2, 3)
    assert scene.color[0].tolist() == [10, 20, 30]
    assert scene.coord[2].tolist() == pytest.approx([0, 0.05, 0])
    assert scene.normal is not None
    floor = scene.normal[(scene.coord[:, 2] == 0) & (scene.coord[:, 1] > 0.25)]
    assert len(floor) > 200
    assert (floor[:, 2] > 0.99).all()


def test_rooms_are_turned_by_the_angle_of_their_area(tmp_path):
    folder = write_room(tmp_path)
    table = "## Global alignment angle per disjoint space in Area_5 ##\n## Disjoint Space Name ##\nlobby_1 270\nhallway_6 90\n"
    (tmp_path / "Area_5" / "Area_5_alignmentAngle.txt").write_text(table)
    plain, turned = read_s3dis(folder, axes="scanned"), read_s3dis(folder)
    middle = (plain.coord.max(0) + plain.coord.min(0)) / 2
    x, y, z = (plain.coord - middle).T
    np.testing.assert_allclose(turned.coord, np.stack([y, -x, z], axis=1) + middle, atol=1e-6)  # by -90 degrees


def test_the_faulty_line_is_read_and_reported(tmp_path, caplog):
    folder = write_room(tmp_path)
    path = folder / "Annotations" / "floor_1.txt"
    lines = path.read_bytes().split(b"\n")
    lines[179] = b"22.350 6.692 3.048 185\x10187 182"
    path.write_bytes(b"\n".join(lines))
    scene = read_s3dis(folder)
    assert "floor_1.txt: line 180 holds the control character 0x10" in caplog.text
    assert scene.color is not None
    assert scene.coord[180].tolist() == pytest.approx([22.35, 6.692, 3.048])
    assert scene.color[180].tolist() == [185, 187, 182]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"1 2 3 185187 182", r"floor_1\.txt: line 7 is not 6 numbers: '1 2 3 185187 182'"),
        (b"1 2 3 300 0 0", "line 7 has a colour beyond 0 to 255"),
        (b"nan 2 3 30 0 0", "line 7 has .* not finite"),
    ],
)
def test_other_faulty_lines_are_named(tmp_path, line, message):
    folder = write_room(tmp_path)
    path = folder / "Annotations" / "floor_1.txt"
    lines = path.read_bytes().split(b"\n")
    lines[6] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(FormatError, match=message):
        read_s3dis(folder)


def test_folders_without_annotations_say_so(tmp_path):
    with pytest.raises(FormatError, match="Stanford3dDataset"):
        read_s3dis(tmp_path)
    folder = write_room(tmp_path)
    (folder / "Annotations" / "empty_1.txt").write_text("")
    with pytest.raises(FormatError, match=r"empty_1\.txt: holds 0 numbers a line"):
        read_s3dis(folder)


def write_preprocessed(folder, **arrays):
    folder.mkdir(parents=True)
    points = np.random.default_rng(0).random((50, 3))
    points[:, 2] = 0
    for name, array in ({"coord": points, "color": np.full((50, 3), 7.0)} | arrays).items():
        np.save(folder / f"{name}.npy", array)


def test_preprocessed_splits_are_found_and_lacking_normals_estimated(tmp_path):
    write_preprocessed(tmp_path / "train" / "scene0000_00", segment20=np.zeros(50, int))
    write_preprocessed(tmp_path / "val" / "scene0011_00", normal=np.tile([1.0, 0, 0], (50, 1)))
    found = find_preprocessed(tmp_path)
    assert [(split, path.name) for split, path in found] == [("train", "scene0000_00"), ("val", "scene0011_00")]
    assert [(split, path.name) for split, path in find_preprocessed(tmp_path / "val")] == [("", "scene0011_00")]
    estimated, given = (read_preprocessed(path) for _, path in found)
    assert estimated.normal is not None
    assert given.normal is not None
    np.testing.assert_allclose(np.abs(estimated.normal), np.tile([0, 0, 1], (50, 1)), atol=1e-6)
    np.testing.assert_allclose(given.normal, np.tile([1, 0, 0], (50, 1)))


def test_pickles_and_labels_out_of_range_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "scene0000_00.pth").write_bytes(b"\x80\x02}q\x00.")
    ((split, path),) = find_preprocessed(tmp_path)
    assert split == "train"
    with pytest.raises(FormatError, match=r"scene0000_00\.pth: is a pickle .* preprocess the data again"):
        read_preprocessed(path)
    write_preprocessed(tmp_path / "val" / "a", segment20=np.full(50, 40))
    with pytest.raises(DataError, match=r"val/a: .*semantic20\[0\] is 40"):
        read_preprocessed(tmp_path / "val" / "a")
