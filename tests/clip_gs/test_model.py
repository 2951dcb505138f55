"""Model folders: what is written is what is read, and weights that would give other embeddings are found out."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_gs.test_tokenizer import SMALL
from splatsense.clip_gs.encoder import GaussianEncoder
from splatsense.clip_gs.evaluation_set import load_models
from splatsense.clip_gs.golden import TOLERANCE, check_golden, golden_embedding, golden_object
from splatsense.clip_gs.model import GOLDEN, load_model, save_model
from splatsense.errors import CheckpointError, DataError
from splatsense.files import sha256_of
from splatsense.model_folder import CONFIG, WEIGHTS
from splatsense.teachers import MiniTeacher


@pytest.fixture
def folder(tmp_path):
    """A small model with random weights, large enough that every layer matters."""
    torch.manual_seed(0)
    encoder = GaussianEncoder(SMALL)
    for parameter in encoder.parameters():
        if parameter.ndim == 2:
            parameter.data *= 8
    encoder.center.normal_(std=0.01)
    save_model(tmp_path, encoder, "small", MiniTeacher(), {"licence": "CC0"}, torch.zeros(SMALL.embed_dim))
    return tmp_path


def change(folder, **card):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | card))


def change_weights(folder, changes):
    weights = load_file(folder / WEIGHTS)
    changes(weights)
    save_file(weights, folder / WEIGHTS)
    change(folder, sha256=sha256_of(folder / WEIGHTS))


def test_a_saved_model_loads_with_the_embedding_in_its_card(folder):
    model = load_model(folder)
    assert model.encoder.config == SMALL
    assert golden_embedding(model.encoder) == pytest.approx(model.card[GOLDEN], abs=2e-5)
    assert model.card["licence"] == "CC0"


def test_the_bundled_model_gives_the_embedding_in_its_card():
    model = load_model("clip-gs-tiny")
    assert golden_embedding(model.encoder) == pytest.approx(model.card[GOLDEN], abs=TOLERANCE / 4)


def test_the_golden_object_has_no_two_gaussians_alike_nor_ties():
    """So which patches it falls into hangs on no rounding."""
    means = golden_object(512).means[0].double()
    distances = torch.cdist(means, means) + 9 * torch.eye(512)
    assert float(distances.min()) > 0.02
    assert torch.linalg.det(golden_object(64).rotations[0]).tolist() == pytest.approx([1] * 64, abs=1e-5)


def test_weights_that_give_other_embeddings_are_found_out(folder):
    def swap(weights):  # same names and sizes, another meaning: gate and value the wrong way round
        name = "blocks.1.mlp.gate_and_value.weight"
        weights[name] = torch.cat(weights[name].chunk(2)[::-1])

    def scaled(weights):
        weights["norm.weight"] *= -1

    for changes in (swap, scaled):
        before = (folder / WEIGHTS).read_bytes()
        change_weights(folder, changes)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: gives other embeddings than when it was saved"):
            _ = load_model(folder).encoder
        assert load_model(folder, verify=False).encoder.config == SMALL
        (folder / WEIGHTS).write_bytes(before)
        change(folder, sha256=sha256_of(folder / WEIGHTS))
    _ = load_model(folder).encoder


def test_another_teacher_of_the_same_name_is_found_out(folder, teacher):
    model = load_model(folder)
    assert model.card["teacher_hash"] == MiniTeacher().hash
    assert model.teacher.hash == MiniTeacher().hash
    with pytest.raises(
        CheckpointError, match=r"config\.json: was trained against the teacher 'mini' of hash .* has ffffffffffff"
    ):
        model.check_teacher(teacher)
    change(folder, teacher_hash="0" * 64)
    with pytest.raises(CheckpointError, match="of hash 000000000000; the one here has"):
        load_model(folder).encode_text(["a chair"])
    with pytest.raises(CheckpointError, match="train it again"):
        load_models([str(folder)])
    card = json.loads((folder / CONFIG).read_text())
    del card["teacher_hash"]
    (folder / CONFIG).write_text(json.dumps(card))
    assert load_model(folder).teacher.name == "mini"


def test_the_bundled_model_knows_its_teacher():
    assert load_model("clip-gs-tiny").card["teacher_hash"] == MiniTeacher().hash


def test_a_model_without_a_golden_embedding_loads(folder):
    card = json.loads((folder / CONFIG).read_text())
    del card[GOLDEN]
    (folder / CONFIG).write_text(json.dumps(card))
    assert load_model(folder).encoder.config == SMALL


def test_a_golden_embedding_of_another_length_or_not_a_number_is_refused():
    encoder = GaussianEncoder(SMALL).eval()
    with pytest.raises(CheckpointError, match="has 3 numbers, the encoder gives 32"):
        check_golden(encoder, [0.0] * 3, "somewhere")
    encoder.head.bias.data.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="other embeddings"):
        check_golden(encoder, [0.0] * 32, "somewhere")


def test_models_of_another_size_or_version_are_named(folder):
    encoder = json.loads((folder / CONFIG).read_text())["encoder"]
    change(folder, encoder=encoder | {"width": 48})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: weights of another network \(of another size: "):
        _ = load_model(folder).encoder
    change(folder, encoder=encoder | {"depth": 3})
    with pytest.raises(CheckpointError, match=r"missing: blocks\.2\..* and \d+ more"):
        _ = load_model(folder).encoder
    change(folder, encoder=encoder | {"rotary": True})
    with pytest.raises(CheckpointError, match=r"config\.json: .*does not know \(rotary\)"):
        _ = load_model(folder).encoder


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there():
    with pytest.raises(DataError, match='device="cuda:1"'):
        load_model(device="cuda:1")
