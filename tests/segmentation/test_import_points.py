"""`splatsense scenes points`: labels of PLY files, as programs write them, become those of a scene."""

import json

import numpy as np
import pytest
import torch

from segmentation_scenes import room
from splatsense.cli import main
from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians
from splatsense.io import save
from splatsense.label_files import label_set_of
from splatsense.labels import SCANNET20
from splatsense.scenes import load_scene
from splatsense.segmentation.export import write_points
from splatsense.segmentation.import_points import PointsSettings, read_points

LABELS = label_set_of({"name": "warehouse", "classes": ["floor", "rack", "pallet"]}, "warehouse")
RNG = np.random.default_rng(0)
COORD, COLOR = RNG.random((60, 3)).astype(np.float32) * 3, RNG.integers(0, 256, (60, 3), dtype=np.uint8)
CLASSES = np.arange(60) % 4 - 1  # -1 to 2


def read(path, labels=LABELS, coord=COORD, settings=None, **columns):
    write_points(path, coord, COLOR, columns)
    return read_points(path, settings or PointsSettings(), labels)


def test_a_file_becomes_a_scene_and_nothing_is_lost(tmp_path, capsys):
    scene = room()
    normal = dict(zip(("nx", "ny", "nz"), scene.normal.T, strict=True))
    label, instance = scene.semantic20 % 3, scene.instance
    (tmp_path / "in").mkdir()
    write_points(tmp_path / "in" / "hall.ply", scene.coord * 1000, scene.color, normal | {"label": label, "instance": instance})
    (tmp_path / "in" / "bad.ply").write_bytes((tmp_path / "in" / "hall.ply").read_bytes()[:-5])
    (tmp_path / "classes.json").write_text(json.dumps({"name": "w", "classes": ["a", "b", "c"]}))
    command = ["scenes", "points", "--source", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--labels"]
    assert main([*command, str(tmp_path / "classes.json")]) == 1
    told = capsys.readouterr()
    assert "1 imported, 0 imported already, 1 failed." in told.out
    assert "bad.ply" in told.err
    assert "cut off" in told.err
    found = load_scene(tmp_path / "out" / "train" / "hall")
    assert found.coord == pytest.approx(scene.coord, abs=1e-5)  # back in metres
    assert (found.color == scene.color).all()
    assert found.normal == pytest.approx(scene.normal, abs=1e-6)
    assert (found.semantic == label).all()
    assert (found.instance == instance).all()
    assert (found.semantic20, found.semantic200) == (None, None)


def test_numbers_as_cloudcompare_writes_them(tmp_path):
    """Floats with a prefix, NaN where a point has none, classes from 1 and 0 for those that nobody labelled."""
    values = np.where(CLASSES < 0, np.nan, CLASSES + 1).astype(np.float32)
    values[5] = 0
    scene = read(tmp_path / "a.ply", settings=PointsSettings(first=1, unlabelled=(0,)), scalar_Label=values)
    assert scene.semantic.tolist() == [*CLASSES[:5], -1, *CLASSES[6:]]
    assert scene.instance is None


def test_points_that_are_left_out_take_their_labels_along(tmp_path):
    coord = COORD.copy()
    coord[7] = np.nan
    scene = read(tmp_path / "a.ply", coord=coord, label=CLASSES, instance=np.arange(60))
    assert scene.semantic.tolist() == np.delete(CLASSES, 7).tolist()
    assert scene.instance.tolist() == np.delete(np.arange(60), 7).tolist()


def test_files_without_labels_are_scenes_where_none_are_expected(tmp_path, caplog):
    scene = read(tmp_path / "a.ply", labels=None)
    assert scene.semantic is None
    assert "has no labels; it is imported without" in caplog.text
    assert read(tmp_path / "a.ply", labels=None, label=CLASSES + 100).semantic.max() == 102
    with pytest.raises(DataError, match=r"a\.ply: has no labels; name their property with --property. It has x, y, z"):
        read(tmp_path / "a.ply")


def test_labels_of_benchmarks_go_into_their_own_file(tmp_path):
    scene = read(tmp_path / "a.ply", labels=SCANNET20, label=CLASSES)
    assert scene.semantic20.tolist() == CLASSES.tolist()
    assert scene.semantic is None


def test_the_property_can_be_named(tmp_path):
    both = {"label": CLASSES * 0, "class": CLASSES}
    with pytest.raises(DataError, match="has label and class; name the one"):
        read(tmp_path / "a.ply", **both)
    assert read(tmp_path / "a.ply", settings=PointsSettings(property="class"), **both).semantic.tolist() == CLASSES.tolist()
    with pytest.raises(DataError, match="has no property Class; it has x, y, z"):
        read(tmp_path / "a.ply", settings=PointsSettings(property="Class"), **both)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": CLASSES + 1}, "label holds 3, but warehouse has 3 classes numbered from 0 to 2; --unlabelled 3"),
        ({"label": np.where(CLASSES < 0, -2, CLASSES)}, "label holds -2"),
        ({"label": CLASSES + np.float32(0.5)}, "label holds -0.5"),
        ({"label": np.where(CLASSES < 0, np.inf, 0)}, "label holds inf"),
        ({"label": CLASSES, "instance": CLASSES * 0 + np.float32(0.5)}, r"instance is 0.5; instances are whole"),
    ],
)
def test_wrong_numbers_are_said_with_the_file(tmp_path, columns, message):
    with pytest.raises(DataError, match=r"a\.ply: " + message):
        read(tmp_path / "a.ply", **columns)


def test_splats_are_refused(tmp_path):
    splat = Gaussians.from_rgb(torch.zeros(2, 3), torch.eye(4)[:2], torch.ones(2, 3), torch.ones(2), torch.ones(2, 3))
    save(splat, tmp_path / "a.ply")
    with pytest.raises(FormatError, match="is a Gaussian splat"):
        read_points(tmp_path / "a.ply", PointsSettings(), LABELS)


@pytest.mark.parametrize(("words", "message"), [(["--unit", "league"], "--unit league"), (["--labels", "x"], "--labels x")])
def test_wrong_settings_stop_before_any_file(tmp_path, capsys, words, message):
    write_points(tmp_path / "a.ply", COORD, COLOR)
    assert main(["scenes", "points", "--source", str(tmp_path), "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
