import shutil
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clip_gs.conftest import TRIPLETS
from clip_gs.test_augment import NOT_AUGMENTED
from clip_gs.test_tokenizer import SMALL
from splatsense.clip_gs import encoder as encoder_module
from splatsense.clip_gs import pretrain as pretrain_module
from splatsense.clip_gs.build import build_triplets
from splatsense.clip_gs.dataset import TripletSet
from splatsense.clip_gs.model import load_model
from splatsense.clip_gs.pretrain import draw_rows, pretrain
from splatsense.clip_gs.pretrain_config import PretrainConfig
from splatsense.errors import CheckpointError, DataError
from splatsense.training.checkpoint import CURRENT, PREVIOUS
from splatsense.training.metrics import METRICS, read_metrics
from splatsense.training.shares import Share
from training_runs import TWO_PROCESSES, assert_same_runs, interrupted_before, python_environment


def run_of(config, teacher):
    """A run before its first step."""
    return pretrain_module._Run(config, pretrain_module.TripletSet(config.triplets, teacher, config.is_used))


def metrics_of(config):
    return read_metrics(Path(config.out) / METRICS)


def test_overfits_eight_objects(setup):
    config = replace(
        setup,
        epochs=200,
        batch_size=8,
        image_weight=0.0,
        augment=NOT_AUGMENTED,
        patch_dropout=0.0,
        drop_path=0.0,
        learning_rate=3e-3,
        seed=2,
        checkpoint_every=1000,
        log_every=1,
    )
    folder = pretrain(config)
    losses = [line["loss"] for line in metrics_of(config)]
    assert sum(losses[-10:]) < 0.25 * sum(losses[:10])  # captions are drawn anew in each step, so one loss says little
    assert (folder / "model.safetensors").exists()


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(setup):
    whole = replace(setup, precision="float32")
    pretrain(whole)
    broken = replace(whole, out=whole.out + "-resumed")
    with interrupted_before(8, pretrain_module._Run):
        pretrain(broken)
    pretrain(broken)
    assert_same_runs(whole.out, broken.out)
    first, second = (Path(c.out, "model", "model.safetensors").read_bytes() for c in (whole, broken))
    assert first == second


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
    with pytest.raises(CheckpointError, match=r"learning_rate was 0.001 and is 1e-05; augment.turn was 20.0 and is 5.0\."):
        pretrain(replace(setup, learning_rate=1e-5, augment=replace(setup.augment, turn=5.0)))


def test_holdout_and_test_objects_are_never_used(setup, teacher):
    run_data = pretrain_module.TripletSet(setup.triplets, teacher, replace(setup, holdout="red").is_used)
    assert len(run_data) == 4
    assert all(key.startswith("blue") for key in run_data.keys)
    with pytest.raises(DataError, match="no object is left"):
        pretrain_module.TripletSet(setup.triplets, teacher, lambda key, info: info["split"] == "test")


def test_bad_settings_name_the_flag(setup):
    for change, flag in (({"epochs": 0}, "--epochs"), ({"ema": 1.0}, "--ema"), ({"batch_size": 0}, "--batch-size")):
        with pytest.raises(DataError, match=flag):
            replace(setup, **change)


def test_a_batch_without_negatives_is_refused(setup, boxes, tmp_path):
    """Its loss is 0 whatever the network does."""
    with pytest.raises(DataError, match="--batch-size: must be at least 2"):
        replace(setup, batch_size=1)
    build_triplets(boxes[:1], tmp_path / "one", TRIPLETS)
    with pytest.raises(DataError, match="one object only"):
        pretrain(replace(setup, triplets=(str(tmp_path / "one"),)))


def test_an_impossible_network_is_refused_before_pictures_are_embedded(setup, teacher, tmp_path):
    for changes, message in (({"patches": 5000}, "must not exceed"), ({"init": str(tmp_path)}, "neither a bundled model"),
                             ({"init": "clip-gs-tiny"}, "of another size")):  # fmt: skip
        with pytest.raises((DataError, CheckpointError), match=message):
            pretrain(replace(setup, **changes))
    assert teacher.pictures_seen == 0


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
    second = run_of(config, teacher).encoder
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    other = encoder_module.GaussianEncoder(replace(SMALL, embed_dim=teacher.dim, width=48))
    with pytest.raises(CheckpointError, match="another size"):
        pretrain_module.start_from(other, str(folder))


def test_sizes_come_from_the_recipe():
    assert encoder_module.encoder_config("tiny", 16).embed_dim == 16


def test_weights_say_how_often_a_folder_is_drawn(setup, boxes, teacher, tmp_path):
    build_triplets(boxes[:4], tmp_path / "rare", TRIPLETS)
    config = replace(setup, triplets=(*setup.triplets, str(tmp_path / "rare")), weights=(1.0, 0.25), batch_size=9, epochs=400)
    run = run_of(config, teacher)
    assert run.per_epoch == 1
    drawn = torch.cat([run._rows(step) for step in range(400)]).bincount(minlength=12) / 400
    assert drawn[:8].tolist() == [1.0] * 8
    assert drawn[8:].tolist() == pytest.approx([0.25] * 4, abs=0.06)
    with pytest.raises(DataError, match="--weights"):
        replace(config, weights=(1.0,))
    with pytest.raises(DataError, match="--weights"):
        replace(config, weights=(1.0, 0.0))
    with pytest.raises(DataError, match="--weights: an epoch would draw 1 of 12 objects"):
        run_of(replace(config, weights=(0.1, 0.25)), teacher)


def test_rows_are_drawn_at_most_once_and_as_often_as_their_rates_say():
    rates = torch.tensor([1.0, 0.7, 0.5, 0.35], dtype=torch.float64).repeat_interleave(10)
    draws = [draw_rows(rates, torch.Generator().manual_seed(seed)) for seed in range(2000)]
    assert {len(rows) for rows in draws} == {25, 26}
    assert all(len(rows.unique()) == len(rows) for rows in draws)
    counts = torch.cat(draws).bincount(minlength=40) / len(draws)
    assert torch.allclose(counts, rates.float(), atol=0.04)
    first = torch.stack([rows[0] for rows in draws]).bincount(minlength=40).view(4, 10).sum(1) / len(draws)
    assert torch.allclose(first, torch.tensor([1.0, 0.7, 0.5, 0.35]) / 2.55, atol=0.05)  # the order is random too


def test_without_weights_the_order_is_that_of_earlier_versions():
    ours, theirs = (torch.Generator().manual_seed(3) for _ in range(2))
    expected = torch.multinomial(torch.ones(50), 50, generator=theirs)
    assert torch.equal(draw_rows(torch.ones(50, dtype=torch.float64), ours), expected)


def test_steps_of_an_epoch_are_counted_exactly(setup, teacher):
    """320 times 0.7 is 224, of which float32 makes 223.99998."""
    data = TripletSet(setup.triplets, teacher, setup.is_used)
    data.keys, data.folders = data.keys * 40, data.folders.repeat(40)
    run = pretrain_module._Run(replace(setup, weights=(0.7,), batch_size=32), data)
    assert run.per_epoch == 7
    assert {len(run._rows(step)) for step in range(700)} == {32}


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


def test_a_process_gets_its_part_of_the_batch_of_one(setup, teacher):
    whole, half = run_of(setup, teacher), run_of(setup, teacher)
    half.parts = Share.whole(4).split(2, "processes")[1:]
    for step in (0, 3):
        ours, theirs = half.load(step), whole.load(step)
        for name in ("text", "images", "names"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)[2:])
        for field in fields(ours.gaussians):
            assert torch.equal(getattr(ours.gaussians, field.name), getattr(theirs.gaussians, field.name)[2:])


def test_parts_of_a_batch_give_the_gradient_of_the_batch(setup, teacher):
    found = {}
    for parts in (1, 4):
        run = run_of(replace(setup, accumulate=parts, batch_size=8, precision="float32"), teacher)
        for module in run.encoder.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.eval()  # in training each part would have statistics of its own
        batch = run.load(0)
        losses = run._backward(0, batch.gaussians, [batch.text, batch.images, batch.names])
        parameters = [*run.encoder.named_parameters(), *run.loss.named_parameters()]
        found[parts] = losses["loss"].item(), {name: parameter.grad for name, parameter in parameters}
    assert found[1][0] == pytest.approx(found[4][0], rel=1e-6)
    for name, gradient in found[1][1].items():
        assert torch.allclose(gradient, found[4][1][name], rtol=1e-4, atol=1e-5), name


def test_temperatures_are_those_of_the_settings_and_a_fixed_one_stays(setup, teacher):
    run = run_of(replace(setup, temperature=0.2, voting_temperature=0.5), teacher)
    assert run.loss.logit_scale.exp().item() == pytest.approx(5)
    assert run.loss.voting_temperature == 0.5
    learned, fixed = (replace(setup, out=f"{setup.out}-{name}", epochs=1, fixed_temperature=name == "fixed") for name in
                      ("learned", "fixed"))  # fmt: skip
    pretrain(learned)
    pretrain(fixed)
    pretrain(fixed)  # reads the checkpoint, which holds no state of a temperature that is not learned
    scales = [load_file(Path(config.out, CURRENT))["loss/logit_scale"].exp().item() for config in (learned, fixed)]
    assert scales[0] != pytest.approx(1 / 0.07, abs=1e-5)
    assert scales[1] == pytest.approx(1 / 0.07, abs=1e-5)
    for flag in ("temperature", "voting_temperature"):
        with pytest.raises(DataError, match=f"--{flag.replace('_', '-')}: must be above 0"):
            replace(setup, **{flag: 0.0})


def test_a_batch_in_parts_trains_and_tracks_statistics_once_a_part(setup, teacher):
    pretrain(replace(setup, accumulate=2))
    with pytest.raises(DataError, match="4 objects cannot be shared equally among 3 parts; change --batch-size"):
        pretrain(replace(setup, accumulate=3, out=setup.out + "-3"))
    saved = load_file(Path(setup.out, CURRENT))
    assert saved["encoder/tokenizer.point_branch.point_layers.1.num_batches_tracked"] == 12 * 2


def test_a_point_cloud_model_starts_one_of_all_attributes(setup, teacher):
    points = pretrain(replace(setup, tokenizer="points"))
    assert load_model(points).encoder.config.attributes == "position_color"
    config = replace(setup, init=str(points), out=setup.out + "-2", layer_decay=0.5)
    run = run_of(config, teacher)
    source = load_model(points).encoder.state_dict()
    assert source["center"].norm() > 0
    assert run.encoder.center.norm() == 0
    peaks = {id(p): group["peak_lr"] for group in run.optimizer.param_groups for p in group["params"]}
    depth = run.encoder.config.depth
    for name, parameter in run.encoder.named_parameters():
        if name.startswith("tokenizer.attribute_branch"):
            assert name not in source
            assert peaks[id(parameter)] == config.learning_rate
        else:
            assert torch.equal(parameter, source[name])
            below = {"head": 0, "norm": 0, "blocks": depth - int(name.split(".")[1]) if name.startswith("blocks") else 0}
            assert peaks[id(parameter)] == pytest.approx(1e-4 * 0.5 ** below.get(name.split(".")[0], depth + 1))
    batch = run.data.batch(torch.arange(4), run.encoder.config.gaussians, 1, torch.Generator()).gaussians
    widened = run_of(replace(config, tokenizer="attributes"), teacher).encoder.eval()
    original = load_model(points).encoder.eval()
    original.center.zero_()
    assert widened.state_dict()[pretrain_module.FIRST_LAYER].shape[1] > source[pretrain_module.FIRST_LAYER].shape[1]
    assert torch.allclose(widened(batch), original(batch), atol=1e-6)
    pretrain(config)
    with pytest.raises(CheckpointError, match="another size or configuration"):
        pretrain(replace(setup, init=str(Path(config.out, "model")), tokenizer="points", out=setup.out + "-3"))


def test_held_out_objects_are_evaluated_and_change_nothing(setup):
    with_evaluation = replace(setup, holdout="red", evaluate_every=2, batch_size=2, precision="float32", log_every=1)
    without = replace(with_evaluation, evaluate_every=0, out=setup.out + "-2")
    pretrain(with_evaluation)
    pretrain(without)
    ours, theirs = metrics_of(with_evaluation), metrics_of(without)
    names = {"holdout_text_r1", "holdout_top1", "holdout_class_mean"}
    assert [line["step"] for line in ours if names <= line.keys()] == list(range(2, 13, 2))
    assert [line["step"] for line in theirs if names & line.keys()] == [12]
    assert [line["loss"] for line in ours] == [line["loss"] for line in theirs]
    assert all(0 <= line.get(name, 0) <= 1 for line in ours for name in names)
    with pytest.raises(DataError, match="--evaluate-every: needs --holdout"):
        replace(setup, evaluate_every=5)


def test_other_data_in_the_same_folder_is_refused(setup, boxes, tmp_path):
    pretrain(setup)
    shutil.rmtree(tmp_path / "triplets")
    build_triplets(boxes[:6], tmp_path / "triplets", TRIPLETS)
    with pytest.raises(CheckpointError, match="data was"):
        pretrain(setup)


def test_the_same_objects_in_other_shards_are_refused(setup, boxes, tmp_path):
    pretrain(setup)
    shutil.rmtree(tmp_path / "triplets")
    build_triplets(boxes, tmp_path / "triplets", replace(TRIPLETS, seed=1))
    with pytest.raises(CheckpointError, match="data was"):
        pretrain(setup)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(boxes, tmp_path):
    """The command itself, with the real teacher, under torchrun; dropout, augmentation and batch statistics included."""
    build_triplets(boxes, tmp_path / "triplets", TRIPLETS)
    config = PretrainConfig(
        triplets=(str(tmp_path / "triplets"),),
        out=str(tmp_path / "one"),
        gaussians=256,
        patches=16,
        patch_size=16,
        epochs=4,
        batch_size=8,
        views=2,
        precision="float32",
        log_every=1,
    )
    pretrain(config)
    flags = [f"--{name}={getattr(config, name.replace('-', '_'))}" for name in ("gaussians", "patches", "patch-size", "epochs",
             "batch-size", "views", "precision", "log-every")]  # fmt: skip
    command = [
        *TWO_PROCESSES,
        "-m",
        "splatsense",
        "train",
        "clip-gs",
        "--triplets",
        *config.triplets,
        "--out",
        str(tmp_path / "two"),
        *flags,
    ]
    done = subprocess.run(command, env=python_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "two" / "model")]
    for ours, theirs in zip(metrics_of(config), metrics_of(replace(config, out=str(tmp_path / "two"))), strict=True):
        # Adam makes whole steps of gradients that are rounding noise alone, so the difference grows with the steps.
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5 if ours["step"] < 4 else 1e-4)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-5 if ours["step"] == 1 else 2e-3)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    for name in one:
        if name.startswith(("blocks", "head", "norm", "position", "cls_token")):
            assert torch.allclose(one[name], two[name], atol=5e-4), name
