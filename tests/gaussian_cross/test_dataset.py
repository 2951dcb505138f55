import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from splatsense.errors import DataError, FormatError
from splatsense.gaussian_cross import scene_points
from splatsense.gaussian_cross.dataset import SampleConfig, SceneSet, collate
from splatsense.gaussian_cross.scene_points import load_points, unproject
from splatsense.scenes import load_scene, save_scene
from synthetic_room import CORNER, ROOM, side_of

CONFIG = SampleConfig(voxel=0.1, views=3, width=48, height=36, mask_side=4)
HEIGHT = 0.5


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def samples_of(folder, **changes):
    return SceneSet([folder], replace(CONFIG, **changes))


@pytest.fixture
def changed(scene_folder, tmp_path):
    """Saves the scene again with some fields changed."""

    def save(**changes):
        folder = tmp_path / "train" / "changed"
        save_scene(replace(load_scene(scene_folder), **changes), folder)
        return folder

    return save


@pytest.mark.parametrize("rotate", [0.0, 180.0])
def test_depth_of_the_views_lies_on_the_points(scene_folder, rotate):
    """What ties everything together: turned points, moved cameras, resized images and the cuboid agree."""
    batch = samples_of(scene_folder, rotate=rotate).sample(0, seeded(), HEIGHT)
    for camera, depth in zip(batch.cameras.world_to_camera, batch.targets.depth, strict=True):
        v, u = (depth > 0).nonzero(as_tuple=True)
        z = depth[v, u]
        K = batch.cameras.K[0]
        local = torch.stack([(u + 0.5 - K[0, 2]) / K[0, 0] * z, (v + 0.5 - K[1, 2]) / K[1, 1] * z, z], dim=1)
        points = (local - camera[:3, 3]) @ camera[:3, :3]
        metre = float(batch.targets.depth.max()) / 3  # about: the room is three metres long
        assert float(torch.cdist(points, batch.positions).amin(1).quantile(0.9)) < 0.15 * metre
        assert len(z) > 1000


def test_a_sample_is_a_function_of_its_generator(scene_folder):
    data = samples_of(scene_folder, dropout=0.2)
    first, again, other = (data.sample(0, seeded(seed), HEIGHT) for seed in (1, 1, 2))
    for name in ("coordinates", "features", "hidden", "positions"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(first.targets.depth, again.targets.depth)
    assert not torch.equal(first.targets.color, other.targets.color)
    fresh = samples_of(scene_folder, dropout=0.2).sample(0, seeded(1), HEIGHT)
    assert torch.equal(first.features, fresh.features)


def test_features_are_colours_and_normals_of_the_walls(scene_folder):
    batch = samples_of(scene_folder, rotate=0.0).sample(0, seeded(), HEIGHT)
    assert float(batch.features[:, :3].abs().max()) <= 1
    lengths = batch.features[:, 3:].norm(dim=1)
    assert float((lengths - 1).abs().median()) < 1e-4
    scene = load_scene(scene_folder)
    data = samples_of(scene_folder)
    points = data.points(0).coord.numpy()
    walls, distances = side_of(points)
    flat = distances[:, 1] > 0.2
    axis = data.points(0).features[:, 3:].abs().argmax(1).numpy()
    assert (axis[flat] == walls[flat] // 2).mean() > 0.95
    assert (scene.coord.max(0) <= CORNER + ROOM + 0.1).all()


def test_half_of_the_voxels_are_hidden_and_views_differ(scene_folder):
    batch = samples_of(scene_folder).sample(0, seeded(), HEIGHT)
    assert 0.35 < float(batch.hidden.float().mean()) < 0.65
    assert bool((batch.hidden.all(1) | ~batch.hidden.any(1)).all())
    assert not torch.equal(batch.targets.color[0], batch.targets.color[1])
    fixed = samples_of(scene_folder).fixed_sample(0, HEIGHT, 0.0)
    assert not bool(fixed.hidden.any())
    assert torch.equal(fixed.targets.color, samples_of(scene_folder).fixed_sample(0, HEIGHT, 0.0).targets.color)


def test_more_voxels_than_asked_are_thinned(scene_folder):
    assert len(samples_of(scene_folder, most_voxels=500).sample(0, seeded(), HEIGHT).coordinates) == 500


def test_batches_keep_scenes_apart(scene_folder):
    data = samples_of(scene_folder)
    parts = [data.sample(0, seeded(seed), HEIGHT) for seed in range(2)]
    both = collate(parts)
    assert both.views == [3, 3]
    assert torch.equal(both.features[both.coordinates[:, 0] == 1], parts[1].features)
    assert torch.equal(both.scene_cameras()[1].world_to_camera, parts[1].cameras.world_to_camera)
    assert both.names == ["room", "room"]


def test_scenes_without_colour_or_normals_say_so(changed, caplog):
    with caplog.at_level(logging.WARNING, "splatsense"):
        data = samples_of(changed(color=None, normal=None))
        batch = data.sample(0, seeded(), HEIGHT)
    assert "has no colours" in caplog.text
    assert "has no normals; they are estimated" in caplog.text
    assert bool(batch.hidden[:, :3].all())
    assert not bool(batch.hidden[:, 3:].all())
    assert float(batch.features[:, 3:].norm(dim=1).median()) == pytest.approx(1, abs=1e-3)


def test_scenes_without_frames_or_with_few_points_are_refused(changed, scene_folder, tmp_path):
    scene = load_scene(scene_folder)
    with pytest.raises(DataError, match="has no frames"):
        load_points(changed(frames=None), 0.1)
    few = tmp_path / "few" / "scene"
    save_scene(replace(scene, coord=scene.coord[:3], color=scene.color[:3], normal=scene.normal[:3]), few)
    with pytest.raises(DataError, match=r"3 points fill [123] voxels"):
        load_points(few, 0.1)


def test_depth_in_other_units_is_found_out(changed, scene_folder):
    frames = load_scene(scene_folder).frames
    with pytest.raises(DataError, match="depth_unit_scale_factor"):
        load_points(changed(frames=replace(frames, depth_scale=0.01)), 0.1)


def test_depth_that_is_nowhere_valid_is_refused_and_lone_frames_are_passed_over(changed, scene_folder, tmp_path):
    from PIL import Image

    folder = changed()
    depths = sorted((folder / "depth").glob("*.png"))
    empty = Image.fromarray(np.zeros((72, 96), np.uint16))
    for path in depths[:-1]:
        empty.save(path)
    batch = samples_of(folder).sample(0, seeded(), HEIGHT)
    assert torch.equal(batch.targets.color[0], batch.targets.color[2])  # the only frame left, three times
    empty.save(depths[-1])
    with pytest.raises(DataError, match="none of its 8 frames has measured depth"):
        samples_of(folder).sample(0, seeded(), HEIGHT)


def test_a_missing_image_is_named(changed):
    folder = changed()
    for path in (folder / "images").glob("*"):
        path.unlink()
    with pytest.raises(FormatError, match="images/00000"):
        samples_of(folder).sample(0, seeded(), HEIGHT)


def test_left_handed_and_scaled_cameras_are_refused(changed, scene_folder):
    import json

    folder = changed()
    content = json.loads((folder / "transforms.json").read_text())
    for frame in content["frames"]:
        frame.pop("world_to_camera")
        frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ np.diag([1, 1, -1, 1])).tolist()
    (folder / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="mirrored"):
        samples_of(folder).sample(0, seeded(), HEIGHT)


def test_a_large_scan_takes_the_memory_of_a_sampled_one(changed, scene_folder):
    scene = load_scene(scene_folder)
    many = np.repeat(scene.coord, 60, axis=0) + np.random.default_rng(0).uniform(-0.01, 0.01, (60 * len(scene), 3))
    dense = changed(
        coord=many.astype(np.float32), color=np.repeat(scene.color, 60, axis=0), normal=np.repeat(scene.normal, 60, axis=0)
    )
    assert len(load_points(dense, 0.1).coord) < 2.5 * len(load_points(scene_folder, 0.1).coord)


def test_a_scan_of_too_many_points_is_thinned_and_says_so(scene_folder, monkeypatch, caplog):
    whole = load_points(scene_folder, 0.1)
    monkeypatch.setattr(scene_points, "MOST_POINTS", len(whole.coord) // 4 + 1)
    with caplog.at_level(logging.WARNING, "splatsense"):
        thinned = load_points(scene_folder, 0.1)
    assert torch.equal(thinned.coord, whole.coord[::4])
    assert torch.equal(thinned.features, whole.features[::4])
    assert "one in 4 is kept" in caplog.text


def test_unprojected_depth_is_where_the_room_is(scene_folder):
    points = unproject(load_scene(scene_folder).frames, 0)
    assert side_of(points)[1][:, 0].max() < 0.02
    assert not math.isnan(points.sum())


def test_settings_out_of_range_are_named(scene_folder, tmp_path):
    for changes in ({"views": 0}, {"voxel": 0.0}, {"mask_ratio": 1.0}, {"dropout": -0.1}):
        with pytest.raises(DataError, match="--"):
            replace(CONFIG, **changes)
    with pytest.raises(DataError, match="no scenes"):
        SceneSet([], CONFIG)
    with pytest.raises(DataError, match="has no frames"):
        SceneSet([scene_folder, tmp_path], CONFIG)
