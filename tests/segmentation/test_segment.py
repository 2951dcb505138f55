import json
import shutil

import numpy as np
import pytest
from PIL import Image

from segmentation_scenes import room
from splatsense.cli import main
from splatsense.errors import CheckpointError
from splatsense.io import load_point_cloud
from splatsense.labels import SCANNET20
from splatsense.segmentation.export import write_points
from splatsense.segmentation.model import load_segmentation_model
from splatsense.segmentation.points import points_of_scene
from splatsense.segmentation.segment import heat_colors, similar, similarity

SCENE = room()


@pytest.fixture
def scan(tmp_path):
    """In millimetres, so that results must go back."""
    normals = dict(zip(("nx", "ny", "nz"), SCENE.normal.T, strict=True))
    write_points(tmp_path / "scan.ply", SCENE.coord * 1000, SCENE.color, normals)
    return tmp_path / "scan.ply"


def test_segment_writes_labels_instances_and_pictures(scan, untrained, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(scan), "--model", str(untrained["instance"]), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "class" in said.out
    cloud = load_point_cloud(out / "semantic.ply")
    assert cloud.points == pytest.approx(SCENE.coord * 1000, rel=1e-5)
    content = json.loads((out / "instances.json").read_text())
    assert content["labels"] == "scannet20"
    prediction = np.load(out / "prediction.npz")
    assert len(prediction["semantic"]) == len(SCENE)
    assert prediction["coord"].tolist() == cloud.points.tolist()
    assert len(content["instances"]) == len(prediction["instance_labels"])
    for found in content["instances"]:
        own = (SCENE.coord * 1000)[prediction["instance"] == found["instance"]]
        assert found["points"] == len(own)
        assert found["box"]["low"] == pytest.approx(own.min(0), rel=1e-4, abs=1e-2)
        assert found["size_in_metres"] == pytest.approx(np.ptp(own, axis=0) / 1000, abs=1e-2)
    for name in ("semantic.png", "instances.png"):
        with Image.open(out / name) as picture:
            shown = np.asarray(picture.convert("RGB"))
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 20
    with Image.open(out / "semantic.png") as picture:
        key = {color for _, color in picture.convert("RGB").crop((800, 30, 824, 720)).getcolors(720 * 24)}
    assert key == {(255, 255, 255), *map(tuple, SCANNET20.colors[np.unique(prediction["semantic"])].tolist())}


def test_a_model_without_instances_writes_classes_only(scan, untrained, tmp_path):
    out = tmp_path / "out"
    assert main(["segment", str(scan), "--model", str(untrained["semantic"]), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"semantic.ply", "semantic.png", "prediction.npz"}


def test_similar_takes_points_of_the_file(scan, untrained, tmp_path, capsys):
    out, (x, y, z) = tmp_path / "out", (SCENE.coord[500] * 1000).tolist()
    assert (
        main(["similar", str(scan), "--point", f"{x},{y},{z}", "--model", str(untrained["semantic"]), "--out", str(out)]) == 0
    )
    assert "0.00 m from the one given" in capsys.readouterr().out
    data = (out / "similar.ply").read_bytes().split(b"end_header\n")[1]
    values = np.frombuffer(data, [("xyz", "<f4", 3), ("rgb", "u1", 3), ("similarity", "<f4")])
    assert values["similarity"][500] == pytest.approx(1, abs=1e-5)
    assert values["similarity"].max() <= 1
    with Image.open(out / "similar.png") as picture:
        assert picture.size == (960, 720)


def test_similarity_is_the_cosine_of_features(untrained):
    network = load_segmentation_model(untrained["semantic"]).network.backbone
    found = similarity(network, points_of_scene(SCENE), 0.1, 0)
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert found.min() >= -1
    same = (np.floor((SCENE.coord - SCENE.coord.min(0)).astype(np.float64) / 0.1) == 0).all(1)
    assert found[same] == pytest.approx(1, abs=1e-5)


def test_heat_rises_with_likeness():
    colors = heat_colors(np.linspace(-0.2, 1, 50).astype(np.float32)).astype(int)
    assert colors[0].tolist() == [13, 8, 135]
    assert colors[-1].tolist() == [240, 249, 33]
    assert heat_colors(np.ones(3, np.float32)).shape == (3, 3)
    assert heat_colors(np.zeros(3, np.float32), -1.0)[0].tolist() == [204, 71, 120]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["segment", "SCAN", "--model", "nothing"], "neither a bundled model"),
        (["segment", "SCAN", "--model", "MODEL", "--unit", "league"], "--unit league"),
        (["segment", "missing.ply", "--model", "MODEL"], "does not exist"),
        (["similar", "SCAN", "--model", "MODEL", "--point", "nan,0,0"], "--point"),
        (["similar", "SCAN", "--model", "MODEL", "--point", "1,2"], "--point 1,2"),
    ],
)
def test_errors_are_said(scan, untrained, capsys, command, message):
    named = {"SCAN": str(scan), "MODEL": str(untrained["semantic"])}
    assert main([named.get(word, word) for word in command]) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_card_is_named(scan, untrained, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(untrained["semantic"], folder)
    (folder / "config.json").write_text('{"voxel": ')
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        similar(scan, "0,0,0", tmp_path / "out", str(folder))
