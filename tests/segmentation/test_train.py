import hashlib
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segmentation_scenes import SMALL
from splatsense.cli import main
from splatsense.errors import CheckpointError, DataError, FormatError
from splatsense.gaussian_cross.model import load_backbone
from splatsense.gaussian_cross.unet import SpUNet
from splatsense.scenes import load_scene, save_scene
from splatsense.segmentation.augment import AugmentConfig
from splatsense.segmentation.config import ClusterConfig, SegmentationConfig
from splatsense.segmentation.evaluate import score_scenes
from splatsense.segmentation.model import load_segmentation_model
from splatsense.segmentation.points import points_of_scene
from splatsense.segmentation.predict import predict
from splatsense.segmentation.train import SegmentationRun, train_segmentation
from splatsense.training.checkpoint import CURRENT

GENTLE = AugmentConfig(dropout_chance=0, elastic_chance=0, tilt_chance=0)


def config(rooms, out, **changes):
    settings = {"voxel": 0.1, "batch_size": 2, "crop_points": 0, "steps": 3, "checkpoint_every": 100,
                "log_every": 1, "augment": GENTLE, "cluster": ClusterConfig(1.5, 5, 20), "learning_rate": 0.01,
                "val_split": "none"}  # fmt: skip
    return SegmentationConfig(str(rooms), str(out), **(settings | changes))


def weights(folder):
    return load_segmentation_model(folder).network.state_dict()


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_classes_and_instances_of_a_room_are_learned(rooms, tmp_path):
    """Overfits the two training rooms, and finds their furniture."""
    model = load_segmentation_model(train_segmentation(config(rooms, tmp_path, task="instance", steps=90, mix=0.0)))
    scores = score_scenes(model, rooms, "train").headline()
    assert scores["mean_accuracy"] > 0.8
    assert scores["ap25"] > 0.7


def test_a_run_that_is_stopped_and_resumed_equals_one_that_is_not(rooms, tmp_path):
    whole = SegmentationRun(config(rooms, tmp_path / "whole"))
    for step in range(3):
        whole.step(step, whole.load(step))
    folder = tmp_path / "parts"
    train_segmentation(config(rooms, folder))
    state = dict(whole.network.state_dict().items())
    assert same(weights(folder / "model"), {name: value.half().float() if value.is_floating_point() else value
                                            for name, value in state.items()})  # fmt: skip
    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    (folder / CURRENT).rename(tmp_path / "last")
    with pytest.raises(DataError):
        config(rooms, folder, steps=-1)
    train_segmentation(config(rooms, folder))  # from nothing again
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[0]) == first
    with pytest.raises(CheckpointError, match="learning_rate"):
        train_segmentation(config(rooms, folder, learning_rate=0.02))


def test_probing_trains_the_head_and_fine_tuning_everything(rooms, untrained, tmp_path):
    start = load_backbone(untrained["semantic"]).network.state_dict()
    for protocol, changes in (("probe", False), ("finetune", True)):
        out = train_segmentation(config(rooms, tmp_path / protocol, protocol=protocol, backbone=str(untrained["semantic"])))
        assert same(load_backbone(out).network.state_dict(), start) != changes
        assert not torch.equal(weights(out)["classes.weight"], weights(untrained["semantic"])["classes.weight"])


def test_fine_tuning_keeps_the_heads_that_fit(rooms, untrained, tmp_path):
    """All of them for the same task; an offset branch is new to a semantic model."""
    for kind, task in (("semantic", "semantic"), ("instance", "instance"), ("semantic", "instance")):
        settings = config(rooms, tmp_path, protocol="finetune", backbone=str(untrained[kind]), task=task)
        started, given = SegmentationRun(settings).network.state_dict(), weights(untrained[kind])
        assert same({name: given[name] for name in given if name in started}, started)
        assert {name.split(".")[0] for name in started.keys() - given.keys()} == ({"offsets"} if kind != task else set())


def test_a_backbone_can_learn_more_slowly_than_its_heads(rooms, untrained, tmp_path):
    given = weights(untrained["semantic"])
    settings = {"protocol": "finetune", "backbone": str(untrained["semantic"]), "backbone_rate": 1e-9}
    out = train_segmentation(config(rooms, tmp_path, **settings))
    moved = {name: float((value - given[name]).abs().max()) for name, value in weights(out).items() if name.endswith("weight")}
    assert max(value for name, value in moved.items() if name.startswith("backbone.")) < 1e-6 < moved["classes.weight"]


def test_a_pretrained_backbone_is_a_start(rooms, untrained, tmp_path):
    """A folder as pre-training writes it: no head, weights without a prefix."""
    torch.manual_seed(5)
    network = SpUNet(SMALL)
    save_file({name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()},
              tmp_path / "model.safetensors")  # fmt: skip
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    card = {"method": "gaussian-cross", "name": "x", "backbone": asdict(SMALL), "voxel": 0.02, "sha256": digest}
    (tmp_path / "config.json").write_text(json.dumps(card))
    run = SegmentationRun(config(rooms, tmp_path / "out", protocol="finetune", backbone=str(tmp_path)))
    expected = network.state_dict()["conv_input.0.weight"].half().float()
    assert torch.equal(run.network.backbone.state_dict()["conv_input.0.weight"], expected)
    with pytest.raises(CheckpointError, match="no segmentation model"):
        load_segmentation_model(tmp_path)


def test_validation_goes_into_the_metrics(rooms, tmp_path):
    train_segmentation(config(rooms, tmp_path, steps=1, val_split="val"))
    assert 0 <= json.loads((tmp_path / "metrics.jsonl").read_text())["val_mean_iou"] <= 1


def test_scenes_without_labels_are_found_before_training(rooms, tmp_path):
    """In any split that is used: a run would otherwise end with the error, hours later, and without a model."""
    for split in ("train", "val"):
        for folder in sorted((rooms / split).iterdir()):
            save_scene(load_scene(folder), tmp_path / "data" / split / folder.name)
    settings = config(tmp_path / "data", tmp_path / "out", val_split="val", task="instance")
    for split in ("val", "train"):
        last = sorted((tmp_path / "data" / split).iterdir())[-1]
        for array, message in (("instance", "has no instances"), ("segment20", "has no labels of scannet20")):
            (last / f"{array}.npy").unlink()
            with pytest.raises(DataError, match=f"{last.name}.*{message}"):
                train_segmentation(settings)
    assert not (tmp_path / "out" / CURRENT).exists()
    with pytest.raises(DataError, match="has no split none; name one with --val-split"):
        train_segmentation(config(rooms, tmp_path / "out", evaluate_every=1))


def test_scenes_without_any_label_are_refused(rooms, tmp_path):
    """The loss would be zero to the end."""
    for folder in sorted((rooms / "train").iterdir()):
        scene = load_scene(folder)
        unlabelled = replace(scene, semantic20=np.full_like(scene.semantic20, -1))
        save_scene(unlabelled, tmp_path / "data" / "train" / folder.name)
    with pytest.raises(DataError, match=r"data: none of \d scenes, such as .*/segment20\.npy, has a labelled point"):
        train_segmentation(config(tmp_path / "data", tmp_path / "out"))


def test_damaged_labels_are_named_before_training(rooms, tmp_path):
    for folder in sorted((rooms / "train").iterdir()):
        save_scene(load_scene(folder), tmp_path / "data" / "train" / folder.name)
        labels = tmp_path / "data" / "train" / folder.name / "segment20.npy"
        labels.write_bytes(labels.read_bytes()[:-20])
    with pytest.raises(FormatError, match=r"segment20\.npy"):
        train_segmentation(config(tmp_path / "data", tmp_path / "out"))


def test_a_run_says_that_nothing_is_validated(rooms, tmp_path, caplog):
    train_segmentation(config(rooms, tmp_path / "out", steps=1, val_split="dev"))
    assert "has no split dev: nothing is validated; name one with --val-split" in caplog.text


def test_from_the_command_line(rooms, tmp_path, capsys):
    command = ["train", "segmentation", "--scenes", str(rooms), "--out", str(tmp_path), "--steps", "1", "--batch-size", "1",
               "--crop-points", "300", "--points", "20", "--val-split", "none"]  # fmt: skip
    assert main(command) == 0
    assert "model" in capsys.readouterr().out
    card = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (card["labels"], card["task"], card["training"]["points"]) == ("scannet20", "semantic", 20)
    model = load_segmentation_model(tmp_path / "model")
    assert len(predict(model, points_of_scene(load_scene(rooms / "val" / "val_0000"))).semantic) > 1000


def test_models_that_are_damaged_or_of_other_labels(untrained, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((untrained["semantic"] / name).read_bytes())
    card = json.loads((folder / "config.json").read_text())
    for change, message in (({"classes": card["classes"][:-1]}, "do not match"), ({"sha256": "0"}, "sha256"),
                            ({"backbone": {"width": 3}}, "other settings"), ({"voxel": None}, "damaged"),
                            ({"task": "instance"}, "tensors differ")):  # fmt: skip
        (folder / "config.json").write_text(json.dumps(card | change))
        with pytest.raises(CheckpointError, match=message):
            load_segmentation_model(folder)
    with pytest.raises(CheckpointError, match="neither a bundled model"):
        load_segmentation_model(tmp_path / "nothing")
