import math
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scene_files import write_seven_scenes
from splatsense.cli import main
from splatsense.errors import CheckpointError, DataError, FormatError
from splatsense.gaussian_cross.model import load_backbone
from splatsense.gaussian_cross.scene_points import load_points
from splatsense.scene_contrast import views as views_module
from splatsense.scene_contrast.config import ContrastConfig
from splatsense.scene_contrast.loss import point_info_nce
from splatsense.scene_contrast.pretrain import ContrastRun, open_scenes, pretrain_contrast
from splatsense.scene_contrast.views import ViewConfig, collate, draw_view, match, view_pair
from splatsense.scene_study.runs import pretrain_once
from splatsense.segmentation.augment import AugmentConfig
from splatsense.training.checkpoint import CURRENT
from splatsense.training.metrics import METRICS, read_metrics
from training_runs import TWO_PROCESSES

NOTHING = AugmentConfig(
    dropout_chance=0, turn_chance=0, tilt_chance=0, scale=(1, 1), flip_chance=0, jitter=0, elastic_chance=0,
    contrast_chance=0, color_shift_chance=0, color_jitter_chance=0,
)  # fmt: skip


def metrics_of(config):
    return read_metrics(Path(config.out) / METRICS)


def test_the_loss_against_loops():
    first, second = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for ours, theirs in ((first, second), (second, first)):
        for row in range(7):
            scores = [math.exp(float(torch.cosine_similarity(ours[row], other, 0)) / 0.4) for other in theirs]
            total -= math.log(scores[row] / sum(scores)) / 14
    assert float(point_info_nce(first, second, 0.4).loss) == pytest.approx(total, rel=1e-5)
    assert float(point_info_nce(first, 3 * first, 0.01).loss) < 1e-3  # each is its own match, whatever its length
    a, b = first.double().requires_grad_(), second.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: point_info_nce(x, y, 0.4).loss, (a, b))


def test_matches_are_mutually_nearest_and_near():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(60, 3, generator=generator), torch.rand(50, 3, generator=generator)
    distance = torch.cdist(first.double(), second.double())
    expected = [[i, j] for i in range(60) for j in range(50)
                if distance[i, j] == distance[i].min() == distance[:, j].min() and distance[i, j] <= 0.15]  # fmt: skip
    assert match(first, second, 0.15).tolist() == expected
    assert 5 < len(expected) < 50


def test_matching_voxels_lie_at_one_place_of_the_scene(config, scene_folder):
    """And after augmentation they do not, for which the views are turned and scaled apart."""
    points = load_points(scene_folder, 0.1)
    generator = torch.Generator().manual_seed(3)
    first, second, pairs = view_pair(points, config.views(), generator)
    apart = (first.origin[pairs[:, 0]] - second.origin[pairs[:, 1]]).norm(dim=1)
    assert len(pairs) == 200
    assert float(apart.max()) <= 0.1
    assert len(pairs[:, 0].unique()) == len(pairs[:, 1].unique()) == len(pairs)
    moved = (first.coordinates[pairs[:, 0]] - second.coordinates[pairs[:, 1]]).double()
    assert float(moved.std(0).max()) > 2


def test_a_view_without_augmentation_is_a_crop_of_the_scene(scene_folder):
    points = load_points(scene_folder, 0.1)
    config = ViewConfig(0.1, 100_000, augment=NOTHING)
    view = draw_view(points, config, torch.Generator().manual_seed(0))
    place = view.origin - points.coord.amin(0)  # the mean of its points lies in each voxel, up to the crop's corner
    shift = place / 0.1 - view.coordinates
    assert float((shift.amax(0) - shift.amin(0)).max()) <= 1.001
    nearest = torch.cdist(view.origin, points.coord).argmin(1)
    close = (points.features[nearest] - view.features).abs().amax(1) < 0.1
    assert float(close.float().mean()) > 0.8
    radius = (view.origin - view.origin.mean(0)).norm(dim=1).max()
    assert float(radius) < float((points.coord - points.coord.mean(0)).norm(dim=1).max()) * 1.2


def test_a_scene_without_colours_is_grey_whatever_augmentation_does_to_colours(scene_folder):
    points = replace(load_points(scene_folder, 0.1), has_color=False)
    view = draw_view(points, ViewConfig(0.1, 100_000), torch.Generator().manual_seed(0))
    assert not view.features[:, :3].any()
    assert view.features[:, 3:].any(0).all()


def test_a_batch_holds_the_pairs_of_each_scene(config, scene_folder):
    points = load_points(scene_folder, 0.1)
    samples = [view_pair(points, config.views(), torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    batch = collate(samples)
    for index, (first, second, pairs) in enumerate(samples):
        own = batch.pairs[batch.scene == index]
        assert torch.equal(batch.features[own[:, 0]], first.features[pairs[:, 0]])
        assert torch.equal(batch.features[own[:, 1]], second.features[pairs[:, 1]])
        assert (batch.coordinates[own, 0] == torch.tensor([2 * index, 2 * index + 1])).all()


def test_it_learns_to_find_the_match(config):
    pretrain_contrast(replace(config, steps=40, learning_rate=5e-3))
    lines = metrics_of(config)
    early, late = ([line[name] for line in part] for name in ("loss",) for part in (lines[:5], lines[-5:]))
    assert sum(late) < sum(early) - 5 * 0.1
    assert sum(line["found"] for line in lines[-5:]) > 2 * sum(line["found"] for line in lines[:2])
    assert lines[-1]["effective_rank"] > 2
    assert lines[-1]["feature_std"] > 0.1


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(config, monkeypatch):
    pretrain_contrast(config)
    broken = replace(config, out=config.out + "-resumed")
    original = ContrastRun.step

    def stop_at_four(self, step, batch):
        if step == 4:
            raise KeyboardInterrupt
        return original(self, step, batch)

    monkeypatch.setattr(ContrastRun, "step", stop_at_four)
    with pytest.raises(KeyboardInterrupt):
        pretrain_contrast(broken)
    monkeypatch.setattr(ContrastRun, "step", original)
    pretrain_contrast(broken)
    ours, theirs = (load_file(Path(each.out) / CURRENT) for each in (config, broken))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert metrics_of(config) == metrics_of(broken)
    with pytest.raises(CheckpointError, match=r"temperature was 0\.4 and is 0\.1"):
        pretrain_contrast(replace(config, temperature=0.1))


def test_the_intrinsics_of_recordings_may_be_said(config, tmp_path):
    K = write_seven_scenes(tmp_path / "seq-01").cameras.K[0]
    recording = replace(config, scenes=(str(tmp_path / "seq-01"),))
    with pytest.raises(FormatError, match=r"has no intrinsics\. Give --intrinsics"):
        open_scenes(recording)
    numbers = (float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]))
    scenes = open_scenes(replace(recording, intrinsics=numbers))
    assert [folder.name for folder in scenes.folders] == ["seq-01"]


def test_two_processes_take_the_steps_of_one(config, scene_folder, tmp_path):
    whole = replace(config, batch_size=2, steps=3)
    pretrain_contrast(whole)
    script = Path(__file__).with_name("two_processes.py")
    paths = [str(script.parents[2] / "src"), str(script.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [*TWO_PROCESSES, str(script), str(scene_folder), str(tmp_path / "two")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    one, two = metrics_of(whole), read_metrics(tmp_path / "two" / METRICS)
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], rel=1e-4)
    assert one[1]["loss"] == pytest.approx(two[1]["loss"], rel=1e-2)


def test_the_backbone_is_one_like_any_other(config, scene_folder, capsys):
    """By the command line; both readers take it."""
    assert main(["train", "scene-contrast", "--scenes", str(scene_folder), "--out", config.out, "--steps", "1"]) == 0
    assert "model" in capsys.readouterr().out
    folder = Path(config.out) / "model"
    backbone = load_backbone(folder)
    assert (backbone.voxel, backbone.card["name"]) == (0.1, "scene-contrast-tiny")


def test_a_finished_run_saves_its_model_without_its_metrics(config):
    quick = replace(config, steps=1)
    folder = pretrain_contrast(quick)
    for path in (Path(config.out) / METRICS, folder / "config.json"):
        path.unlink()
    pretrain_contrast(quick)
    assert load_backbone(folder).card["metrics"] == {}


def test_a_study_trains_a_backbone_once(config):
    quick = replace(config, steps=1)
    folder = pretrain_once(quick)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert pretrain_once(quick) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(CheckpointError, match="pairs was 200 and is 100"):
        pretrain_once(replace(quick, pairs=100))


def test_settings_and_scenes_that_cannot_be(config, scene_folder, monkeypatch):
    for changes, message in (({"crop": 0.5}, "--crop"), ({"temperature": 0.0}, "--temperature"), ({"steps": 0}, "--steps"),
                             ({"pairs": 1}, "--pairs"), ({"voxel": -1.0}, "--voxel"),
                             ({"prefetch": -1}, "--prefetch")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            replace(config, **changes)
    points = load_points(scene_folder, 0.1)
    monkeypatch.setattr(views_module, "match", lambda first, second, radius: torch.zeros(1, 2, dtype=torch.int64))
    with pytest.raises(DataError, match="1 voxels in common"):
        view_pair(points, ContrastConfig(config.scenes, config.out).views(), torch.Generator().manual_seed(0))
