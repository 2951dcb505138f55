"""Classes of a user's own from labelled files to a segmented scan, by the command line as docs/segmentation.md has it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from segmentation_scenes import CHAIR, FLOOR, TABLE, WALL, room
from splatsense.cli import main
from splatsense.errors import CheckpointError, DataError
from splatsense.io import load_point_cloud
from splatsense.labels import SCANNET20, LabelSet
from splatsense.scenes import load_scene
from splatsense.segmentation.config import SegmentationConfig
from splatsense.segmentation.export import write_points
from splatsense.segmentation.import_points import PointsSettings, read_points
from splatsense.segmentation.model import load_segmentation_model
from splatsense.segmentation.train import SegmentationRun, train_segmentation
from splatsense.web.scene_models import SceneModels

CLASSES = {"name": "warehouse", "classes": ["ground", "rack", "forklift", "pallet"], "colors": {"pallet": "#c08040"},
           "leave_out": ["ground", "rack"]}  # fmt: skip
OWN = {FLOOR: 0, WALL: 1, CHAIR: 2, TABLE: 3}


@pytest.fixture(scope="module")
def halls(tmp_path_factory):
    """A folder with classes.json and labelled files of three halls, imported into `scenes`."""
    folder = tmp_path_factory.mktemp("halls")
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    for number in range(3):
        split, scene = "val" if number == 2 else "train", room(seed=number)
        columns = dict(zip(("nx", "ny", "nz"), scene.normal.T, strict=True))
        columns |= {"label": np.vectorize(OWN.get)(scene.semantic20) + 1, "instance": scene.instance}
        (folder / split).mkdir(exist_ok=True)
        write_points(folder / split / f"hall{number}.ply", scene.coord, scene.color, columns)
    for split in ("train", "val"):
        command = ["scenes", "points", "--source", str(folder / split), "--out", str(folder / "scenes"), "--split", split]
        assert main([*command, "--labels", str(folder / "classes.json"), "--first", "1", "--unlabelled", "0"]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(halls, untrained, tmp_path_factory):
    """A model of these classes; the file that it learned them from is gone."""
    out, labels = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("labels") / "classes.json"
    labels.write_text(json.dumps(CLASSES))
    command = ["train", "segmentation", "--scenes", str(halls / "scenes"), "--labels", str(labels), "--out", str(out)]
    command += ["--backbone", str(untrained["instance"]), "--task", "instance", "--steps", "40", "--learning-rate", "0.02"]
    command += ["--backbone-rate", "1"]
    assert main(command) == 0
    labels.unlink()
    return out / "model"


def test_scans_are_segmented_in_own_names_and_colours_without_the_file(halls, trained, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(halls / "val" / "hall2.ply"), "--model", str(trained), "--out", str(out)]) == 0
    assert {"ground", "rack"} <= set(capsys.readouterr().out.split())
    content = json.loads((out / "instances.json").read_text())
    assert content["labels"] == "warehouse"
    assert {found["class"] for found in content["instances"]} <= {"forklift", "pallet"}  # the others are left out
    prediction, model = np.load(out / "prediction.npz"), load_segmentation_model(trained)
    assert prediction["classes"].tolist() == CLASSES["classes"]
    assert model.labels.colors[3].tolist() == [192, 128, 64]
    shown = np.round(load_point_cloud(out / "semantic.ply").colors * 255)
    assert (shown == model.labels.colors[prediction["semantic"]]).all()
    again = read_points(out / "semantic.ply", PointsSettings(), model.labels)  # what was segmented can be labels
    assert (again.semantic == prediction["semantic"]).all()
    truth = load_scene(halls / "scenes" / "val" / "hall2").semantic
    assert (prediction["semantic"] == truth).mean() > 0.7  # it learned


def test_scores_are_those_of_own_classes(halls, trained, tmp_path, capsys):
    command = ["--scenes", str(halls / "scenes"), "--split", "val", "--json", str(tmp_path / "figures.json")]
    kept = ["--predictions", str(tmp_path / "kept")]
    assert main(["evaluate", "semantic", *command, "--model", str(trained), *kept]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert list(figures["iou"]) == CLASSES["classes"]
    assert figures["iou"]["ground"] > 0.6
    assert main(["evaluate", "instance", *command, "--labels", str(halls / "classes.json"), *kept]) == 0
    assert "pallet" in capsys.readouterr().out
    assert json.loads((tmp_path / "figures.json").read_text())["instances"] == 3


def test_the_page_has_the_classes_of_the_model_it_is_given(trained):
    labels = SceneModels(segmentation=str(trained)).head().labels
    assert (labels.name, labels.names, labels.leave_out) == ("warehouse", tuple(CLASSES["classes"]), ("ground", "rack"))


def config(halls, out, **changes):
    settings = {
        "labels": str(halls / "classes.json"),
        "voxel": 0.1,
        "batch_size": 1,
        "steps": 1,
        "mix": 0.0,
        "val_split": "none",
    }
    return SegmentationConfig(str(halls / "scenes"), str(out), **(settings | changes))


def test_fine_tuning_keeps_the_head_of_the_same_classes_only(halls, trained, tmp_path):
    given = load_segmentation_model(trained).network.state_dict()["classes.weight"]
    more = tmp_path / "classes.json"
    more.write_text(json.dumps(CLASSES | {"classes": [*CLASSES["classes"], "person"]}))
    for labels, is_kept in ((halls / "classes.json", True), (more, False)):
        settings = config(halls, tmp_path, labels=str(labels), protocol="finetune", backbone=str(trained))
        weight = SegmentationRun(settings).network.state_dict()["classes.weight"]
        assert (weight[: len(given)] == given).all() == is_kept


def test_a_run_goes_on_with_the_same_classes_only(halls, tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    train_segmentation(config(halls, tmp_path / "out"))
    train_segmentation(config(halls, tmp_path / "out", labels=str(tmp_path / "classes.json")))  # wherever the file lies
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES | {"leave_out": []}))
    with pytest.raises(CheckpointError, match="leave_out"):
        train_segmentation(config(halls, tmp_path / "out", labels=str(tmp_path / "classes.json")))


def test_scenes_of_another_label_set_are_an_error_at_once(halls, trained, tmp_path, capsys):
    """In training, its validation and in evaluation."""
    assert json.loads((halls / "scenes" / "train" / "hall0" / "segment.json").read_text())["name"] == "warehouse"
    classes, scenes = tmp_path / "classes.json", tmp_path / "scenes"
    classes.write_text(json.dumps({"name": "garage", "classes": ["ground", "car", "forklift", "pallet"]}))
    message = "hall[012]: its labels are of the label set warehouse, not of garage: class 1 is 'rack' there and 'car' here"
    with pytest.raises(DataError, match=message):
        SegmentationRun(config(halls, tmp_path / "out", labels=str(classes)))
    shutil.copytree(halls / "scenes", scenes)
    for path in (scenes / "train").glob("*/segment.json"):
        path.unlink()  # as of scenes that do not say it, which are taken
    settings = replace(config(halls, tmp_path / "out", labels=str(classes)), scenes=str(scenes))
    assert len(SegmentationRun(settings).scenes) == 2
    with pytest.raises(DataError, match=message):
        train_segmentation(replace(settings, val_split="val"))
    assert main(["evaluate", "semantic", "--scenes", str(halls / "scenes"), "--split", "val", "--labels", str(classes),
                 "--predictions", str(tmp_path)]) == 2  # fmt: skip
    assert "not of garage" in capsys.readouterr().err
    record = scenes / "val" / "hall2" / "segment.json"
    record.write_text(json.dumps({"name": "store", "classes": ["ground", "rack", "till"]}))
    assert main(["evaluate", "semantic", "--scenes", str(scenes), "--split", "val", "--model", str(trained)]) == 2
    assert "of the label set store, not of warehouse: class 2 is 'till' there" in capsys.readouterr().err
    classes.write_text(json.dumps({"name": "more", "classes": [*CLASSES["classes"], "person"]}))
    assert len(SegmentationRun(config(halls, tmp_path / "out", labels=str(classes))).scenes) == 2  # the same classes first


def test_labels_beyond_the_classes_name_scene_file_and_count(halls, tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps({"name": "few", "classes": CLASSES["classes"][:3]}))
    message = r"scenes/train/hall\d: .* segment\.npy has the label 3 at row \d+, but the label set few has 3 classes"
    with pytest.raises(DataError, match=message):
        SegmentationRun(config(halls, tmp_path, labels=str(tmp_path / "classes.json")))
    with pytest.raises(DataError, match="leave_out names 'wall', which is none of its classes"):
        config(halls, tmp_path, leave_out=("wall", "floor"))


def test_instances_need_instances(halls, tmp_path):
    folder = tmp_path / "scenes" / "train" / "hall"
    folder.mkdir(parents=True)
    for name in ("coord", "color", "segment"):
        (folder / f"{name}.npy").write_bytes((halls / "scenes" / "train" / "hall0" / f"{name}.npy").read_bytes())
    settings = replace(config(halls, tmp_path / "out", task="instance"), scenes=str(tmp_path / "scenes"))
    with pytest.raises(DataError, match=r"hall: has no instances \(instance\.npy\)"):
        SegmentationRun(settings).load(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": CLASSES["classes"][:3]}, "damaged"),  # a colour of no class
        ({"colors": {"pallet": "brown"}}, "damaged"),
        ({"labels": "scannet20"}, "do not match"),
        ({"classes": [*CLASSES["classes"], "person"]}, "tensors differ"),
    ],
)
def test_heads_that_do_not_match_their_card_are_refused(trained, tmp_path, changes, message):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    card = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(card | changes))
    with pytest.raises(CheckpointError, match=message):
        load_segmentation_model(tmp_path)


def test_a_label_set_checks_itself():
    with pytest.raises(DataError, match="'wall' occurs twice"):
        LabelSet("x", (*SCANNET20.labels, SCANNET20.labels[0]))
    with pytest.raises(DataError, match="has no classes"):
        LabelSet("x", ())
