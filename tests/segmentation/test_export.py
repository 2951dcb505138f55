import numpy as np
import pytest

from splatsense.errors import FormatError
from splatsense.io import load_point_cloud
from splatsense.labels import SCANNET20
from splatsense.segmentation.export import (
    describe_instances,
    distinct_colors,
    instance_colors,
    load_prediction,
    save_prediction,
    semantic_colors,
    write_points,
)
from splatsense.segmentation.predict import Prediction


def prediction():
    return Prediction(
        np.array([0, 4, 4, 6], np.int16), np.array([0.5, 0.9, 0.8, 0.7], np.float32), np.array([-1, 1, 1, 0], np.int32),
        np.array([6, 4], np.int16), np.array([0.7, 0.85], np.float32),
    )  # fmt: skip


def test_npz_keeps_everything(tmp_path):
    save_prediction(tmp_path / "a.npz", prediction(), SCANNET20)
    found = load_prediction(tmp_path / "a.npz", SCANNET20)
    for name, value in vars(prediction()).items():
        assert getattr(found, name).tolist() == value.tolist()
        assert getattr(found, name).dtype == value.dtype
    assert prediction().masks().tolist() == [[False, False, False, True], [False, True, True, False]]


def test_no_prediction(tmp_path):
    np.savez(tmp_path / "a.npz", semantic=np.zeros(3))
    with pytest.raises(FormatError, match="no prediction"):
        load_prediction(tmp_path / "a.npz", SCANNET20)


def test_instances_that_are_numbered_otherwise_are_no_prediction(tmp_path):
    """Numbers from 1 would lose the last instance without a word."""
    arrays = vars(prediction()) | {"classes": np.array(SCANNET20.names)}
    numbers = arrays["instance"]
    for change, message in (({"instance": numbers + 1}, "0 to 2; its 2 instances"), ({"instance": numbers - 1}, "-2 to 0"),
                            ({"instance": numbers[1:]}, r"instance is int32 \(3,\), expected whole numbers \(4,\)"),
                            ({"semantic": arrays["semantic"] / 2}, "semantic is float64"),
                            ({"instance_scores": np.ones((2, 1))}, r"instance_scores .* expected numbers \(2,\)")):  # fmt: skip
        np.savez(tmp_path / "a.npz", **(arrays | change))
        with pytest.raises(FormatError, match=message):
            load_prediction(tmp_path / "a.npz", SCANNET20)


def test_ply_is_read_back(tmp_path):
    coord = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    colors = semantic_colors(prediction(), SCANNET20)
    write_points(tmp_path / "a.ply", coord, colors, {"label": prediction().semantic, "confidence": prediction().confidence})
    cloud = load_point_cloud(tmp_path / "a.ply")
    assert (cloud.points == coord).all()
    assert cloud.colors is not None
    assert (cloud.colors * 255).round().astype(int).tolist() == colors.tolist()
    header = (tmp_path / "a.ply").read_bytes().split(b"end_header")[0].decode()
    assert "property int label\nproperty float confidence" in header
    values = np.frombuffer((tmp_path / "a.ply").read_bytes().split(b"end_header\n")[1],
                           [("xyz", "<f4", 3), ("rgb", "u1", 3), ("label", "<i4"), ("confidence", "<f4")])  # fmt: skip
    assert values["label"].tolist() == [0, 4, 4, 6]


def test_boxes_have_the_digits_of_their_coordinates():
    metres = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    far = metres + np.array([500_000, 4_600_000, 100.0])
    low = describe_instances(prediction(), SCANNET20, far, metres)[0]["box"]["low"]
    assert np.abs(far - low).min() < 1e-5


def test_colours_of_instances():
    colors = instance_colors(prediction())
    assert colors[1].tolist() == colors[2].tolist() != colors[3].tolist()
    assert colors[0].tolist() == [60, 60, 60]
    many = distinct_colors(60).astype(int)
    assert len(np.unique(many, axis=0)) == 60
    assert np.abs(many[1:] - many[:-1]).sum(1).min() > 80
    assert distinct_colors(0).shape == (0, 3)


def test_boxes_are_in_the_axes_of_the_file():
    coord = np.array([[0, 0, 0], [1000, 0, 0], [1500, 2000, 100.1], [5, 5, 5]], np.float32)
    metres = (coord[:, [0, 2, 1]] / 1000).astype(np.float32)
    found = describe_instances(prediction(), SCANNET20, coord, metres)
    assert [each["class"] for each in found] == ["chair", "table"]  # the surest first
    assert found[0] == {
        "instance": 1, "class": "chair", "score": 0.85, "color": instance_colors(prediction())[1].tolist(), "points": 2,
        "box": {"low": [1000, 0, 0], "high": [1500, 2000, 100.1]}, "size_in_metres": [0.5, 0.1, 2.0],
    }  # fmt: skip
