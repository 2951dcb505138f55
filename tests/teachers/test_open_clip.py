"""The teachers of open_clip, on tiny architectures with random weights; `make test-clip` installs what they need."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from splatsense.clip_gs.shards import Triplet, embed_shard, encode_sample, write_shard
from splatsense.errors import CheckpointError, DataError, FormatError
from splatsense.gaussians import Gaussians
from splatsense.teachers import Teacher, load_teacher
from splatsense.teachers.open_clip import OpenClipTeacher, import_open_clip

needs_open_clip = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="open_clip is not installed; run `make test-clip`"
)
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
ARCHITECTURES = {
    "tiny-ViT": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": TEXT,
    },
    "tiny-EVA02": {
        "embed_dim": 20,
        "vision_cfg": {
            "image_size": 224, "timm_model_name": "eva02_tiny_patch14_224", "timm_model_pretrained": False,
            "timm_pool": "token", "timm_proj": None,
        },
        "text_cfg": TEXT,
        "custom_text": True,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of random weights by architecture; the architectures are made known to open_clip."""
    open_clip = import_open_clip()
    folder = tmp_path_factory.mktemp("open_clip")
    files = {}
    for name, config in ARCHITECTURES.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")
        torch.manual_seed(len(files))
        files[name] = folder / f"{name}.safetensors"
        save_file(open_clip.create_model(name).state_dict(), files[name])
    return files


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (40, 56, 3), np.uint8)) for _ in range(3)]


@needs_open_clip
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_embeddings_are_those_of_open_clip(weights, pictures, name):
    """Against open_clip called as its documentation says."""
    open_clip = import_open_clip()
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=str(weights[name]))
    model.eval()
    texts = ["a chair", "a very long description of a wooden table that has far more words than the context holds"]
    with torch.no_grad():
        expected_images = normalize(model.encode_image(torch.stack([transform(picture) for picture in pictures])), dim=-1)
        expected_texts = normalize(model.encode_text(open_clip.get_tokenizer(name)(texts)), dim=-1)
    teacher = load_teacher(f"open_clip:{name}:{weights[name]}")
    assert isinstance(teacher, Teacher)
    assert teacher.dim == ARCHITECTURES[name]["embed_dim"]
    torch.testing.assert_close(teacher.encode_images(pictures), expected_images, atol=1e-5, rtol=0)
    torch.testing.assert_close(teacher.encode_text(texts), expected_texts, atol=1e-5, rtol=0)
    assert load_teacher(teacher.name).hash == teacher.hash


@needs_open_clip
def test_batches_order_and_kinds_of_pictures_make_no_difference(weights, pictures, tmp_path):
    teacher = load_teacher(f"open_clip:tiny-ViT:{weights['tiny-ViT']}")
    pictures[0].save(tmp_path / "picture.png")
    array = np.asarray(pictures[0])
    same = teacher.encode_images([pictures[0], str(tmp_path / "picture.png"), array, torch.from_numpy(array / 255)])
    torch.testing.assert_close(same, same[:1].expand(4, -1), atol=1e-5, rtol=0)
    many = teacher.encode_images(pictures * 12)
    torch.testing.assert_close(many, teacher.encode_images(pictures).repeat(12, 1), atol=1e-5, rtol=0)
    assert teacher.encode_images([]).shape == (0, 24)
    assert teacher.encode_text([]).shape == (0, 24)


@needs_open_clip
def test_transparent_pictures_stand_on_white(weights):
    teacher = load_teacher(f"open_clip:tiny-ViT:{weights['tiny-ViT']}")
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    torch.testing.assert_close(teacher.encode_images([clear]), teacher.encode_images([Image.new("RGB", (32, 32), "white")]))


@needs_open_clip
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_half_precision_is_close(weights, pictures, name):
    full, half = (OpenClipTeacher(name, file=weights[name], precision=precision) for precision in ("fp32", "bf16"))
    assert half.hash == full.hash
    similarity = (full.encode_images(pictures) * half.encode_images(pictures)).sum(1)
    assert similarity.min() > 0.999
    assert (full.encode_text(["a chair"]) * half.encode_text(["a chair"])).sum() > 0.999
    assert half.encode_images(pictures).dtype == torch.float32


@needs_open_clip
def test_the_hash_covers_weights_architecture_and_preprocessing(weights, tmp_path):
    base = OpenClipTeacher("tiny-ViT", file=weights["tiny-ViT"])
    changed = load_file(weights["tiny-ViT"])
    changed["logit_scale"] += 1
    save_file(changed, tmp_path / "other.safetensors")
    hashes = {
        base.hash,
        OpenClipTeacher("tiny-ViT", file=tmp_path / "other.safetensors").hash,
        OpenClipTeacher("ViT-L-14", "laion400m_e31", weights["tiny-ViT"]).hash,
        OpenClipTeacher("ViT-L-14", "laion2b_s32b_b82k", weights["tiny-ViT"]).hash,
    }
    assert len(hashes) == 4
    assert all(len(value) == 64 for value in hashes)


@needs_open_clip
def test_preprocessing_is_that_of_the_tag(weights):
    """ViT-L-14 was trained with two kinds of normalisation."""
    file = weights["tiny-ViT"]
    assert OpenClipTeacher("ViT-L-14", "laion2b_s32b_b82k", file)._preprocessing["mean"] == (0.5, 0.5, 0.5)
    assert OpenClipTeacher("ViT-L-14", "laion400m_e32", file)._preprocessing["mean"][0] == pytest.approx(0.4814, abs=1e-4)
    assert OpenClipTeacher("ViT-B-16-SigLIP", file=file)._preprocessing["resize_mode"] == "squash"
    with pytest.raises(CheckpointError, match=r"name the tag .*open_clip:ViT-L-14:openai:"):
        OpenClipTeacher("ViT-L-14", file=file)


@needs_open_clip
def test_names_that_cannot_be_are_refused(weights, tmp_path):
    torch.save({}, tmp_path / "weights.pt")
    for name, message in {
        "open_clip:ViT-B-32": "expected open_clip:MODEL:TAG",
        "open_clip:ViT-B-99:laion2b": "no model 'ViT-B-99'",
        "open_clip:ViT-B-32:laion3b": "no tag of ViT-B-32; its tags: openai, ",
        f"open_clip:tiny-ViT:{tmp_path / 'weights.pt'}": "no safetensors file",
        f"open_clip:tiny-ViT:{tmp_path / 'missing.safetensors'}": "no safetensors file",
        "open_clip:ViT-B-32:openai": "take model ViT-B-32-quickgelu",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            load_teacher(name)


@needs_open_clip
def test_weights_of_another_model_are_refused(weights):
    teacher = load_teacher(f"open_clip:tiny-ViT:{weights['tiny-EVA02']}")
    with pytest.raises(CheckpointError, match="does not hold the weights of tiny-ViT"):
        teacher.encode_text(["a chair"])


@needs_open_clip
def test_weights_that_are_out_of_reach_are_an_error(monkeypatch):
    def unreachable(config):
        raise FileNotFoundError("no route to host")

    teacher = OpenClipTeacher("ViT-B-32", "laion2b_s34b_b79k")
    monkeypatch.setattr(import_open_clip(), "download_pretrained", unreachable)
    with pytest.raises(CheckpointError, match=r"could not be fetched .*laion2b_s34b_b79k:FILE\.safetensors"):
        assert teacher.hash
    monkeypatch.setattr(import_open_clip(), "download_pretrained", lambda config: "somewhere/open_clip_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="come as a pickle"):
        assert teacher.hash


@needs_open_clip
def test_bad_input_is_named(weights, tmp_path):
    teacher = load_teacher(f"open_clip:tiny-ViT:{weights['tiny-ViT']}")
    with pytest.raises(DataError, match=r"pass \['a chair'\]"):
        teacher.encode_text("a chair")
    with pytest.raises(DataError, match=r"pass \['chair\.png'\]"):
        teacher.encode_images("chair.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"broken\.jpg"):
        teacher.encode_images([tmp_path / "broken.jpg"])


@needs_open_clip
def test_a_corpus_is_embedded_once_per_teacher(weights, tmp_path):
    """Beside a shard there is one file for each teacher; another teacher's is never read."""
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 4), np.uint8)
    points = Gaussians.from_rgb(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1, 3), torch.ones(1), torch.ones(1, 3)
    )
    shard = tmp_path / "triplets-00000.tar"
    write_shard(shard, [encode_sample(Triplet("a", points, pixels, {"captions": ["a chair", "a wooden chair"]}))])
    teachers = [load_teacher(f"open_clip:{name}:{weights[name]}") for name in ARCHITECTURES]
    embedded = [embed_shard(shard, teacher) for teacher in teachers]
    assert [rows["images"].shape for rows in embedded] == [(1, 2, 24), (1, 2, 20)]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert len(before) == 2
    again = embed_shard(shard, teachers[0])
    assert torch.equal(again["captions"], embedded[0]["captions"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == before


def test_without_open_clip_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(CheckpointError, match=r"pip install 'splatsense\[clip\]'"):
        load_teacher("open_clip:ViT-B-32:laion2b_s34b_b79k")
