import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clip_gs.test_tokenizer import SMALL
from splatsense.clip_gs import encoder as encoder_module
from splatsense.clip_gs import pretrain as pretrain_module
from splatsense.clip_gs.build import build_triplets
from splatsense.clip_gs.model import load_model
from splatsense.clip_gs.pretrain import PretrainConfig, pretrain
from splatsense.clip_gs.triplets import TripletConfig
from splatsense.errors import CheckpointError, DataError
from splatsense.training.checkpoint import CURRENT, PREVIOUS


@pytest.fixture
def setup(boxes, tmp_path, teacher, monkeypatch):
    """Triplets of eight boxes, a network of a few thousand weights, and the fake teacher."""
    monkeypatch.setattr(pretrain_module, "load_teacher", lambda name: teacher)
    monkeypatch.setattr(pretrain_module, "encoder_config", lambda size, dim: replace(SMALL, embed_dim=dim))
    # One caption each: to the fake teacher, two captions of an object have nothing in common.
    monkeypatch.setattr("splatsense.clip_gs.triplets.captions", lambda item, *look: [item.name])
    build_triplets(boxes, tmp_path / "triplets", TripletConfig(method="surface", gaussians=256, views=3, size=32))
    return PretrainConfig(
        triplets=(str(tmp_path / "triplets"),),
        out=str(tmp_path / "run"),
        epochs=6,
        batch_size=4,
        views=2,
        checkpoint_every=3,
        ema=0.5,
    )


def read_metrics(config):
    return [json.loads(line) for line in Path(config.out, "metrics.jsonl").read_text().splitlines()]


def test_overfits_eight_objects(setup):
    from splatsense.clip_gs.augment import AugmentConfig

    gentle = AugmentConfig(
        turn=0.0, tilt=0.0, scale=0.0, stretch=0.0, shift=0.0, mirror=0.0, drop_color=0.0, color_jitter=0.0, splat_scale=0.0
    )
    config = replace(
        setup,
        epochs=120,
        batch_size=8,
        image_weight=0.0,
        augment=gentle,
        patch_dropout=0.0,
        drop_path=0.0,
        learning_rate=3e-3,
        checkpoint_every=1000,
    )
    folder = pretrain(config)
    first, last = read_metrics(config)[0], read_metrics(config)[-1]
    assert last["loss"] < 0.25 * first["loss"]
    assert (folder / "model.safetensors").exists()


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(setup, monkeypatch):
    whole = replace(setup, precision="float32")
    pretrain(whole)
    broken = replace(whole, out=whole.out + "-resumed")
    original = pretrain_module._Run.step

    def stop_at_eight(self, step):
        if step == 8:
            raise KeyboardInterrupt
        return original(self, step)

    monkeypatch.setattr(pretrain_module._Run, "step", stop_at_eight)
    with pytest.raises(KeyboardInterrupt):
        pretrain(broken)
    monkeypatch.setattr(pretrain_module._Run, "step", original)
    pretrain(broken)
    first, second = (Path(c.out, "model", "model.safetensors").read_bytes() for c in (whole, broken))
    assert first == second
    assert read_metrics(whole) == read_metrics(broken)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(setup):
    pretrain(setup)
    run = Path(setup.out)
    (run / CURRENT).write_bytes(b"junk")
    assert (run / PREVIOUS).exists()
    pretrain(setup)
    (run / CURRENT).write_bytes(b"junk")
    (run / PREVIOUS).write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        pretrain(setup)


def test_other_settings_in_the_same_folder_are_refused(setup):
    pretrain(setup)
    with pytest.raises(DataError, match="learning_rate"):
        pretrain(replace(setup, learning_rate=1e-5))


def test_holdout_and_test_objects_are_never_used(setup, teacher):
    run_data = pretrain_module.TripletSet(
        setup.triplets, teacher, lambda key, info: pretrain_module._is_used(replace(setup, holdout="red"), key, info)
    )
    assert len(run_data) == 4
    assert all(key.startswith("blue") for key in run_data.keys)
    with pytest.raises(DataError, match="no object is left"):
        pretrain_module.TripletSet(setup.triplets, teacher, lambda key, info: info["split"] == "test")


def test_bad_settings_name_the_flag(setup):
    for change, flag in (({"epochs": 0}, "--epochs"), ({"ema": 1.0}, "--ema"), ({"batch_size": 0}, "--batch-size")):
        with pytest.raises(DataError, match=flag):
            replace(setup, **change)


def test_the_saved_model_loads_and_embeds_as_the_average_did(setup, boxes, teacher):
    from splatsense.io.surface import mesh_to_gaussians

    folder = pretrain(setup)
    model = load_model(folder)
    objects = [mesh_to_gaussians(item.load_mesh(), 300) for item in boxes]
    found = model.encode_gaussians(objects, batch_size=3)
    assert found.shape == (8, teacher.dim)
    assert torch.allclose(found, model.encode_gaussians([g.transform(scale=3.0) for g in objects]), atol=1e-4)
    assert torch.allclose(found.norm(dim=-1), torch.ones(8), atol=1e-5)
    assert model.card["objects"] == 8
    (folder / "model.safetensors").write_bytes(b"tampered")
    with pytest.raises(CheckpointError, match="sha256"):
        load_model(folder).encode_gaussians(objects)
    with pytest.raises(CheckpointError, match="neither a bundled model"):
        load_model("no-such-model")


def test_a_run_starts_from_the_weights_of_another(setup, teacher):
    folder = pretrain(setup)
    first = load_model(folder).encoder
    config = replace(setup, init=str(folder), out=setup.out + "-2")
    data = pretrain_module.TripletSet(config.triplets, teacher, lambda key, info: True)
    second = pretrain_module._Run(config, data).encoder
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    other = encoder_module.GaussianEncoder(replace(SMALL, embed_dim=teacher.dim, width=48))
    with pytest.raises(CheckpointError, match="another size"):
        pretrain_module.start_from(other, str(folder))


def test_sizes_come_from_the_recipe():
    assert encoder_module.encoder_config("tiny", 16).embed_dim == 16


def test_weights_say_how_often_a_folder_is_drawn(setup, boxes, teacher, tmp_path):
    build_triplets(boxes[:4], tmp_path / "rare", TripletConfig(method="surface", gaussians=256, views=3, size=32))
    config = replace(setup, triplets=(*setup.triplets, str(tmp_path / "rare")), weights=(1.0, 0.25), batch_size=9, epochs=400)
    data = pretrain_module.TripletSet(config.triplets, teacher, lambda key, info: True)
    run = pretrain_module._Run(config, data)
    assert run.per_epoch == 1
    drawn = torch.cat([run._rows(step) for step in range(400)]).bincount(minlength=12) / 400
    assert drawn[:8].min() > 0.75
    assert drawn[8:].max() < 0.5
    with pytest.raises(DataError, match="--weights"):
        replace(config, weights=(1.0,))
    with pytest.raises(DataError, match="--weights"):
        replace(config, weights=(1.0, 0.0))


def test_image_map_moves_the_targets_and_needs_pooled_features(setup, feature_teacher, teacher, monkeypatch):
    config = replace(setup, image_map=1.0, epochs=2)
    with pytest.raises(DataError, match="--image-map"):
        pretrain(config)
    monkeypatch.setattr(pretrain_module, "load_teacher", lambda name: feature_teacher)
    data = pretrain_module.TripletSet(config.triplets, feature_teacher, lambda key, info: True)
    before = torch.stack(data._images)
    pretrain_module._Run(config, data)
    after = torch.stack(data._images)
    assert torch.allclose(after.norm(dim=-1), torch.ones(8, 3), atol=1e-5)
    assert not torch.allclose(after, before, atol=0.05)
    with pytest.raises(DataError, match="--image-map"):
        replace(setup, image_map=-1.0)
