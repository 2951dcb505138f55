import json
import shutil

import numpy as np
import pytest
import torch

from splatsense.cli import main
from splatsense.errors import CheckpointError, DataError
from splatsense.gaussian_cross.model import load_backbone
from splatsense.gaussian_cross.unet import UNET_SIZES, SpUNet
from splatsense.scenes import Scene, save_scene
from splatsense.segmentation import cached_features
from splatsense.segmentation import config as config_module
from splatsense.segmentation.cached_features import CachedFeatures
from splatsense.segmentation.config import SegmentationConfig
from splatsense.segmentation.dataset import SeedOf
from splatsense.segmentation.model import load_segmentation_model
from splatsense.segmentation.network import ProbeHead
from splatsense.segmentation.predict import predict
from splatsense.segmentation.train import SegmentationRun, train_segmentation
from splatsense.training.metrics import METRICS, read_metrics
from training_runs import assert_same_runs, interrupted_before


def probe(rooms, out, backbone, **changes):
    settings = {"voxel": 0.1, "batch_size": 2, "crop_points": 300, "steps": 4, "log_every": 1, "val_split": "none",
                "protocol": "probe", "cached": True, "backbone": str(backbone)}  # fmt: skip
    return SegmentationConfig(str(rooms), str(out), **(settings | changes))


def test_cached_features_are_those_of_predictions(rooms, untrained, tmp_path):
    """The head on them gives what the whole network predicts of the scene: the same to the last bit."""
    run = SegmentationRun(probe(rooms, tmp_path, untrained["semantic"]))
    points = run.scenes.points(0)
    cached = run.features.scene(0)
    run.network.eval()
    prediction = predict(run.model(), points)
    with torch.no_grad():
        confidence, best = run.model().network.classes(cached.features).softmax(1).max(1)
    assert len(cached.semantic) > 1000
    assert set(best.tolist()) == set(prediction.semantic.tolist())
    assert set(confidence.tolist()) == set(prediction.confidence.tolist())


def test_a_probe_does_not_feel_the_scale_of_features(rooms, untrained, tmp_path):
    """Nor does the model that is saved, whose head is a plain linear layer."""
    features = torch.rand(500, 12, generator=torch.Generator().manual_seed(0)) * torch.logspace(-1, 2, 12) + 4
    torch.manual_seed(0)
    head = ProbeHead(12, 20)
    first = head(features)
    assert torch.allclose(first, head((features - 4) / torch.logspace(-1, 2, 12)), atol=2e-3)
    head = ProbeHead(12, 20)
    head(features)
    head.eval()
    with torch.no_grad():
        assert torch.allclose(head(features), head.folded()(features), atol=1e-3)
    run = SegmentationRun(probe(rooms, tmp_path, untrained["semantic"]))
    assert list(run.model().network.state_dict()) == list(load_segmentation_model(untrained["semantic"]).network.state_dict())
    assert [name for name, _ in run.trained] == ["classes.linear.weight", "classes.linear.bias"]


def test_what_does_not_fit_the_memory_is_computed_again(rooms, untrained, tmp_path, monkeypatch):
    run = SegmentationRun(probe(rooms, tmp_path, untrained["semantic"]))
    batches = [run.features.batch([0, 1, 0], 5, range(3), SeedOf(0)).features]
    monkeypatch.setattr(cached_features, "KEPT_BYTES", 1)
    small = CachedFeatures(run.scenes, run.network)
    batches.append(small.batch([0, 1, 0], 5, range(3), SeedOf(0)).features)
    assert torch.equal(*batches)
    assert len(small._kept) == 1
    assert batches[0].shape == (900, 12)


def test_a_cached_probe_learns_and_goes_on_where_it_stopped(rooms, untrained, tmp_path, monkeypatch):
    config = probe(rooms, tmp_path / "whole", untrained["semantic"], steps=40, learning_rate=0.05, checkpoint_every=20)
    whole = load_segmentation_model(train_segmentation(config)).network.state_dict()
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    start = load_backbone(untrained["semantic"]).network.state_dict()
    assert all(torch.equal(whole[f"backbone.{name}"], value.to(whole[f"backbone.{name}"])) for name, value in start.items())
    original = SegmentationRun.step

    def stop(self, step, batch):
        if step == 30:
            raise KeyboardInterrupt
        return original(self, step, batch)

    monkeypatch.setattr(SegmentationRun, "step", stop)
    config = probe(rooms, tmp_path / "parts", untrained["semantic"], steps=40, learning_rate=0.05, checkpoint_every=20)
    with pytest.raises(KeyboardInterrupt):
        train_segmentation(config)
    monkeypatch.setattr(SegmentationRun, "step", original)
    parts = load_segmentation_model(train_segmentation(config)).network.state_dict()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_an_untrained_backbone_is_probed_by_one_flag(rooms, tmp_path, monkeypatch, untrained):
    """Its weights are those that the seed draws, as when training from scratch."""
    small = load_backbone(untrained["semantic"]).network.config
    monkeypatch.setitem(config_module.UNET_SIZES, "tiny", small)
    command = ["train", "segmentation", "--scenes", str(rooms), "--out", str(tmp_path), "--backbone", "random:tiny", "--probe",
               "--cached", "--steps", "1", "--batch-size", "1", "--voxel", "0.1", "--seed", "7",
               "--val-split", "none"]  # fmt: skip
    assert main(command) == 0
    torch.manual_seed(7)
    expected = SpUNet(small).state_dict()["conv_input.0.weight"]
    found = load_segmentation_model(tmp_path / "model").network.state_dict()["backbone.conv_input.0.weight"]
    assert torch.equal(found, expected.half().float())
    scratch = SegmentationConfig(str(rooms), str(tmp_path), seed=7)
    assert torch.equal(SegmentationRun(scratch).network.state_dict()["backbone.conv_input.0.weight"], expected)
    assert small in UNET_SIZES.values()


def test_a_backbone_is_used_with_its_own_voxels(rooms, untrained, tmp_path):
    from splatsense.segmentation.command import TrainOptions

    options = TrainOptions(str(rooms), str(tmp_path), backbone=str(untrained["semantic"]))
    assert options.config().voxel == load_backbone(untrained["semantic"]).voxel == 0.1
    assert TrainOptions(str(rooms), str(tmp_path)).config().voxel == 0.05
    for card, message in (({}, "describes no backbone"), ({"backbone": {}}, "no side of a voxel")):
        (tmp_path / "config.json").write_text(json.dumps(card))
        with pytest.raises(CheckpointError, match=message):
            load_backbone(tmp_path)


def test_scenes_with_few_labels_are_trained_on_too(rooms, untrained, tmp_path):
    """They keep all voxels; a run with one of them goes on where it stopped."""
    one = SegmentationRun(probe(rooms, tmp_path, untrained["semantic"], points=1)).features.scene(0)
    assert int((one.semantic >= 0).sum()) == 1
    scenes = shutil.copytree(rooms, tmp_path / "scenes")
    labels = np.load(scenes / "train" / "train_0001" / "segment20.npy")
    np.save(scenes / "train" / "train_0001" / "segment20.npy", np.full_like(labels, -1))
    whole, parts = (
        probe(scenes, tmp_path / name, untrained["semantic"], batch_size=1, steps=6, checkpoint_every=2)
        for name in ("whole", "parts")
    )
    train_segmentation(whole)
    with interrupted_before(3, SegmentationRun):
        train_segmentation(parts)
    train_segmentation(parts)
    assert_same_runs(whole.out, parts.out)
    losses = [line["loss"] for line in read_metrics(tmp_path / "whole" / METRICS)]
    assert sorted(loss == 0 for loss in losses) == 3 * [False] + 3 * [True]


def test_a_scene_of_one_voxel_is_refused(untrained, tmp_path):
    scene = Scene("dot", np.zeros((3, 3), np.float32), semantic20=np.zeros(3, np.int16))
    save_scene(scene, tmp_path / "scenes" / "train" / "dot")
    run = SegmentationRun(probe(tmp_path / "scenes", tmp_path / "out", untrained["semantic"]))
    with pytest.raises(DataError, match="dot: lies in a single voxel"):
        run.features.scene(0)


def test_settings_that_cannot_be(rooms, tmp_path, untrained):
    untrained_tuned = {"backbone": "random:tiny", "protocol": "finetune", "cached": False}
    for changes, message in (({"backbone": "random:huge"}, "random:tiny"), ({"protocol": "finetune"}, "--cached"),
                             (untrained_tuned, "only be probed")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            probe(rooms, tmp_path, **({"backbone": untrained["semantic"]} | changes))
