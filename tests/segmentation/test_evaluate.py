import json
from dataclasses import replace

import numpy as np
import pytest

from segmentation_scenes import CHAIR, TABLE, room
from splatsense.cli import main
from splatsense.errors import DataError, FormatError
from splatsense.labels import S3DIS, SCANNET20
from splatsense.scenes import load_scene, save_scene
from splatsense.segmentation.evaluate import EvaluateConfig, evaluate_instance, evaluate_semantic
from splatsense.segmentation.export import save_prediction
from splatsense.segmentation.predict import Prediction


def truth_of(scene, semantic=None):
    count = len(scene)
    return Prediction(
        scene.semantic20 if semantic is None else semantic, np.ones(count, np.float32), scene.instance,
        np.array([CHAIR, CHAIR, TABLE], np.int16), np.array([0.9, 0.8, 0.7], np.float32),
    )  # fmt: skip


@pytest.fixture
def predicted(rooms, tmp_path):
    """Perfect predictions of the training rooms."""
    for folder in sorted((rooms / "train").iterdir()):
        save_prediction(tmp_path / f"{folder.name}.npz", truth_of(load_scene(folder)), SCANNET20)
    return tmp_path


def test_perfect_predictions(rooms, predicted, tmp_path):
    config = EvaluateConfig(rooms, "train", predictions=predicted, labels="scannet20", json=tmp_path / "figures.json")
    assert "100.0" in evaluate_semantic(config)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["mean_iou"], figures["count"], figures["split"]) == (1, 2, "train")
    assert "chair" in evaluate_instance(config)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["ap"], figures["ap50"], figures["instances"]) == (1, 1, 6)


def test_a_model_scores_what_its_kept_predictions_score(rooms, untrained, tmp_path, capsys):
    command = ["evaluate", "instance", "--scenes", str(rooms), "--split", "val"]
    model = ["--model", str(untrained["instance"])]
    assert main([*command, *model, "--predictions", str(tmp_path / "kept"), "--json", str(tmp_path / "a.json")]) == 0
    again = ["--predictions", str(tmp_path / "kept"), "--labels", "scannet20", "--json", str(tmp_path / "b.json")]
    assert main([*command, *again]) == 0
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert first["classes"] == second["classes"]
    assert "mean over classes" in capsys.readouterr().out


def test_bad_input(rooms, predicted, untrained, tmp_path):
    with pytest.raises(DataError, match="--model, or --predictions"):
        evaluate_semantic(EvaluateConfig(rooms, "train"))
    for given in ({"labels": "scannet20"}, {"leave_out": ("wall",)}):
        with pytest.raises(DataError, match="a model has its own classes, so leave out --l"):
            evaluate_semantic(EvaluateConfig(rooms, "train", model="rooms20-tiny", **given))
    with pytest.raises(DataError, match=r"--views: is for a model; .* leave out --views"):
        evaluate_semantic(EvaluateConfig(rooms, "train", views="all", predictions=predicted, labels="scannet20"))
    with pytest.raises(DataError, match="give --labels"):
        evaluate_semantic(EvaluateConfig(rooms, "train", predictions=predicted))
    with pytest.raises(FormatError, match=r"val_0000\.npz: does not exist"):
        evaluate_semantic(EvaluateConfig(rooms, "val", predictions=predicted, labels="scannet20"))
    with pytest.raises(FormatError, match="other classes than s3dis"):
        evaluate_semantic(EvaluateConfig(rooms, "train", predictions=predicted, labels="s3dis"))
    with pytest.raises(DataError, match="--task instance"):
        evaluate_instance(EvaluateConfig(rooms, "val", str(untrained["semantic"])))
    scene = room("train_0000")
    save_scene(
        type(scene)("train_0000", scene.coord, semantic=np.zeros(len(scene), np.int16)), tmp_path / "s" / "t" / "train_0000"
    )
    with pytest.raises(DataError, match="no labels of scannet20"):
        evaluate_semantic(EvaluateConfig(tmp_path / "s", "t", str(untrained["semantic"])))
    whole = room()
    shorter = replace(
        whole, **{name: getattr(whole, name)[1:] for name in ("coord", "color", "normal", "semantic20", "instance")}
    )
    save_prediction(predicted / "train_0000.npz", truth_of(shorter), SCANNET20)
    with pytest.raises(DataError, match=r"has \d+ points, its prediction \d+"):
        evaluate_semantic(EvaluateConfig(rooms, "train", predictions=predicted, labels="scannet20"))
    (predicted / "train_0000.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(FormatError, match="damaged"):
        evaluate_semantic(EvaluateConfig(rooms, "train", predictions=predicted, labels="scannet20"))


def test_folds_of_s3dis_are_scored_together(tmp_path, monkeypatch, capsys):
    """Six tiny areas; the second call finds all folds done."""
    rng = np.random.default_rng(0)
    for area in range(1, 7):
        scene = room(seed=area)
        keep = rng.permutation(len(scene))[:400]
        labels = (scene.semantic20[keep] % 13).astype(np.int16)
        small = type(scene)("office", scene.coord[keep], scene.color[keep], scene.normal[keep], semantic=labels)
        save_scene(small, tmp_path / "data" / f"Area_{area}" / "office")
    command = ["train", "s3dis-folds", "--scenes", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--size", "tiny",
               "--steps", "1", "--batch-size", "1", "--views", "one"]  # fmt: skip
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "6-fold" in first
    figures = json.loads((tmp_path / "out" / "6-fold.json").read_text())
    assert figures["points"] == 6 * 400
    assert set(figures["iou"]) == set(S3DIS.names)
    assert main(command) == 0
    assert capsys.readouterr().out == first
    fold = tmp_path / "out" / "Area_3" / "fold.json"
    done = json.loads(fold.read_text())
    fold.write_text(json.dumps(done | {"matrix": (np.array(done["matrix"]) + 1).tolist()}))
    assert main(command) == 0
    assert capsys.readouterr().out != first  # it was taken as it is
    fold.write_text(json.dumps(done | {"settings": done["settings"] | {"views": "all"}, "matrix": [[0]]}))
    assert main(command) == 0
    assert capsys.readouterr().out == first  # it was scored again
    assert main([*command, "--learning-rate", "0.5"]) == 2
    assert "Area_1" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")  # under torchrun, which could not start its second fold
    assert main(command) == 2
    assert "runs in one process" in capsys.readouterr().err


def test_classes_are_scored_by_a_model_of_instances_where_there_are_none(rooms, untrained, tmp_path):
    folder = next((rooms / "val").iterdir())
    save_scene(replace(load_scene(folder), instance=None), tmp_path / "val" / folder.name)
    config = EvaluateConfig(tmp_path, "val", str(untrained["instance"]))
    assert "mean over classes" in evaluate_semantic(config)
    with pytest.raises(DataError, match=r"has no instances \(instance\.npy\)"):
        evaluate_instance(config)
