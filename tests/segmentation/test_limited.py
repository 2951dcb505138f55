import itertools

import numpy as np
import pytest

from splatsense.errors import DataError, FormatError
from splatsense.segmentation.limited import PointLists, draw_points, draw_scenes, listed_scenes, only_points

NAMES = [f"train/scene{number:04d}_00" for number in range(200)]


def test_shares_of_scenes_contain_smaller_ones_and_depend_on_the_seed():
    drawn = [set(draw_scenes(NAMES, share, 0)) for share in (0.01, 0.05, 0.1, 0.2, 1.0)]
    assert [len(names) for names in drawn] == [2, 10, 20, 40, 200]
    assert all(a < b for a, b in itertools.pairwise(drawn))
    assert draw_scenes(NAMES, 0.1, 0) == [name for name in NAMES if name in drawn[2]]
    assert set(draw_scenes(NAMES, 0.1, 1)) != drawn[2]
    assert len(draw_scenes(NAMES[:5], 0.01, 0)) == 1
    with pytest.raises(DataError, match="--scene-share"):
        draw_scenes(NAMES, 0.0, 0)


def test_a_list_of_scenes(tmp_path):
    names, path = [name.split("/")[1] for name in NAMES], tmp_path / "1.txt"
    path.write_text("scene0007_00\n\nscene0003_00.pth\n")
    assert listed_scenes(names, path) == ["scene0003_00", "scene0007_00"]
    path.write_text("scene9999_00\n")
    with pytest.raises(DataError, match="names scene9999_00, which is not among the 200"):
        listed_scenes(names, path)
    path.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(FormatError, match="no text file"):
        listed_scenes(names, path)


def test_annotated_points_are_labelled_and_follow_name_and_seed():
    labels = np.random.default_rng(0).integers(-1, 20, 5000)
    rows = draw_points(labels, 50, "a", 0)
    assert len(np.unique(rows)) == 50
    assert (labels[rows] >= 0).all()
    assert (rows == draw_points(labels, 50, "a", 0)).all()
    assert set(rows) < set(draw_points(labels, 200, "a", 0))
    assert set(rows) != set(draw_points(labels, 50, "b", 0)) != set(draw_points(labels, 50, "a", 1))
    assert len(draw_points(np.array([-1, 3]), 50, "a", 0)) == 1


def test_lists_of_points(tmp_path):
    np.savez(tmp_path / "points20.npz", a=np.array([1, 2]), b=np.array([0.5]))
    np.save(tmp_path / "c.npy", np.array([4, 0]))
    lists = PointLists(tmp_path / "points20.npz")
    assert lists["a"].tolist() == [1, 2]
    assert PointLists(tmp_path)["c"].tolist() == [4, 0]
    with pytest.raises(FormatError, match="no array of indices"):
        lists["b"]
    with pytest.raises(DataError, match="lists no points of d"):
        lists["d"]


@pytest.mark.parametrize("content", [b"\x80\x04\x95pickle", b"", b"PK\x03\x04 cut off"])
def test_pickles_and_damaged_lists_are_refused(tmp_path, content):
    (tmp_path / "points20").write_bytes(content)
    with pytest.raises(FormatError, match=r"docs/segmentation.md"):
        PointLists(tmp_path / "points20")


def test_only_listed_points_keep_labels():
    assert only_points(np.array([5, 6, 7]), np.array([2, 0]), "x").tolist() == [5, -1, 7]
    with pytest.raises(DataError, match="point 3 is listed, but the scene has 3"):
        only_points(np.array([5, 6, 7]), np.array([3]), "x")
