import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from splatsense.errors import CheckpointError, DataError, FormatError
from splatsense.gaussian_cross import pretrain as pretrain_module
from splatsense.gaussian_cross.model import load_backbone
from splatsense.gaussian_cross.pretrain import PretrainRun, open_scenes, pretrain
from splatsense.training.metrics import METRICS, read_metrics
from training_runs import TWO_PROCESSES, assert_same_runs, interrupted_before, python_environment


def metrics_of(config):
    return read_metrics(Path(config.out) / METRICS)


def test_a_recording_trains_with_one_command_and_no_labels(small, recording, tmp_path):
    from splatsense.cli import main

    flags = ["--steps", "2", "--teacher", "none", "--log-every", "1"]
    assert main(["train", "gaussian-cross", "--scenes", str(recording), "--out", str(tmp_path / "run"), *flags]) == 0
    assert (tmp_path / "run/scenes/train/seq-01/coord.npy").is_file()
    backbone = load_backbone(tmp_path / "run/model")
    assert backbone.voxel == 0.1
    assert len(read_metrics(tmp_path / "run" / METRICS)) == 2


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(config):
    pretrain(config)
    broken = replace(config, out=config.out + "-resumed")
    with interrupted_before(4, PretrainRun):
        pretrain(broken)
    pretrain(broken)
    assert_same_runs(config.out, broken.out)
    with pytest.raises(CheckpointError, match=r"mask_ratio was None and is 0\.25"):
        pretrain(replace(config, mask_ratio=0.25))


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(config, monkeypatch):
    original = PretrainRun.load

    def damaged(self, step):
        batch = original(self, step)
        if step == 2:
            batch.targets.color[0, 0, 0, 0] = torch.nan
        return batch

    monkeypatch.setattr(PretrainRun, "load", damaged)
    with pytest.raises(DataError, match="diverged at step 2"):
        pretrain(config)
    kept = load_file(Path(config.out) / "diverged-step-2-process-0.safetensors")
    assert kept["targets.color"].isnan().sum() == 1
    assert kept.keys() >= {"coordinates", "features", "hidden", "positions", "cameras.K", "targets.depth"}


def test_validation_is_reported_with_controls_and_pictures(config, scene_folder, tmp_path):
    other = tmp_path / "val" / "room"
    other.parent.mkdir()
    other.symlink_to(scene_folder)
    with pytest.raises(DataError, match="is in --scenes and in --validation"):
        pretrain(replace(config, validation=(str(other),)))
    other.unlink()
    import shutil

    shutil.copytree(scene_folder, other)
    config = replace(config, validation=(str(other.parent),), evaluate_every=3, steps=6, teacher="mini:block:32")
    pretrain(config)
    lines = [line for line in metrics_of(config) if "psnr_validation" in line]
    assert [line["step"] for line in lines] == [3, 6]
    controls = json.loads((Path(config.out) / "report/controls.json").read_text())
    assert controls["constant"].keys() == lines[0].keys() & controls["constant"].keys()
    assert "cosine_validation" in controls["untrained"]
    assert len(list((Path(config.out) / "report").glob("views-*.png"))) == 2
    assert "untrained" in (Path(config.out) / "report.html").read_text()
    card = load_backbone(Path(config.out) / "model").card
    assert card["controls"] == controls


def test_scenes_that_are_not_there_are_named(config, tmp_path):
    with pytest.raises(FormatError, match="nothing: is no folder"):
        open_scenes(replace(config, scenes=(str(tmp_path / "nothing"),)))


@pytest.mark.parametrize("objective", ["color", "depth", "semantic"])
def test_overfits_one_batch(config, objective):
    weights = {f"{name}_weight": float(name == objective) for name in ("color", "depth", "semantic")}
    config = replace(config, teacher="mini:block:32", steps=80, learning_rate=1e-2, mask_ratio=0.0, **weights)
    data, _ = open_scenes(config)
    run = PretrainRun(config, data, pretrain_module.mean_features(data))
    batch = run.load(0)
    losses = [run.step(step, batch)[objective] for step in range(config.steps)]
    assert losses[-1] < {"color": 0.25, "depth": 0.35, "semantic": 0.5}[objective] * losses[0]


def test_every_sample_of_a_batch_is_drawn_apart(config):
    data, _ = open_scenes(config)
    one, two = (PretrainRun(replace(config, batch_size=size), data) for size in (1, 2))
    pair, first, second = two.load(1), one.load(2), one.load(3)
    assert torch.equal(pair.features, torch.cat([first.features, second.features]))
    assert torch.equal(pair.targets.color, torch.cat([first.targets.color, second.targets.color]))
    assert pair.coordinates[:, 0].unique().tolist() == [0, 1]
    assert not torch.equal(first.targets.color, second.targets.color)


def test_flags_out_of_range_are_named(config):
    for changes, message in (
        ({"steps": 0}, "--steps"),
        ({"intrinsics": (1.0, 2.0)}, "--intrinsics"),
        ({"evaluate_every": 5}, "--evaluate-every"),
        ({"color_weight": -1.0}, "loss weights"),
        ({"grid": (15, 16, 16)}, "--grid"),
        ({"mask_ratio": 1.0}, "--mask-ratio"),
    ):
        with pytest.raises(DataError, match=message):
            replace(config, **changes)


def test_the_mean_feature_is_that_of_the_images(config):
    assert pretrain_module.mean_features(open_scenes(config)[0]) is None
    data, _ = open_scenes(replace(config, teacher="mini:block:32"))
    center = pretrain_module.mean_features(data)
    frames = data.points(0).frames
    expected = data.teacher.teacher.encode_dense(torch.from_numpy(frames.frame(len(frames) // 2)[0])[None])
    assert torch.allclose(center, expected.flatten(0, 2).mean(0), atol=1e-2)


def test_two_processes_take_the_steps_of_one(config, scene_folder, tmp_path):
    whole = replace(config, batch_size=2, steps=4, learning_rate=1e-4)
    pretrain(whole)
    script = Path(__file__).with_name("two_processes.py")
    command = [*TWO_PROCESSES, str(script), str(scene_folder), str(tmp_path / "two")]
    done = subprocess.run(command, env=python_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = metrics_of(whole), read_metrics(tmp_path / "two" / METRICS)
    assert one[0] == pytest.approx(two[0], rel=1e-3, abs=1e-5)
    for ours, theirs in zip(one[1:3], two[1:3], strict=True):  # then rounding grows: Adam divides by small gradients
        assert ours == pytest.approx(theirs, rel=4e-2, abs=1e-4)
