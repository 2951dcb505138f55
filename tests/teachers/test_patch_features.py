"""DINOv2 and RADIO as dense teachers: their architectures with random weights, in files as published (extra `dense`)."""

import importlib.util
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from splatsense.errors import CheckpointError, DataError
from splatsense.gaussian_cross.pretrain_config import PretrainConfig
from splatsense.teachers import dinov2, radio
from splatsense.teachers.dense import DenseTeacher, load_dense_teacher
from splatsense.teachers.feature_cache import FeatureCache

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed (extra `dense`)"
)
IMAGES = torch.rand(2, 45, 72, 3, generator=torch.Generator().manual_seed(0))
BLOCK = "radio_model.model.blocks.11"
PUBLISHED = {  # of facebook/dinov2-small, facebook/dinov2-with-registers-small and nvidia/RADIO-B
    "dinov2:vits14": {
        "embeddings.cls_token": (1, 1, 384),
        "embeddings.mask_token": (1, 384),
        "embeddings.position_embeddings": (1, 1370, 384),
        "embeddings.patch_embeddings.projection.weight": (384, 3, 14, 14),
        "encoder.layer.11.attention.attention.query.weight": (384, 384),
        "encoder.layer.11.attention.output.dense.bias": (384,),
        "encoder.layer.11.layer_scale2.lambda1": (384,),
        "encoder.layer.11.mlp.fc1.weight": (1536, 384),
        "layernorm.weight": (384,),
    },
    "dinov2:vits14_reg": {
        "embeddings.register_tokens": (1, 4, 384),
        "embeddings.position_embeddings": (1, 1370, 384),
        "encoder.layer.11.attention.attention.value.bias": (384,),
        "encoder.layer.11.norm2.bias": (384,),
    },
    "radio:v2.5-b": {
        "radio_model.summary_idxs": (3,),
        "radio_model.input_conditioner.norm_mean": (3, 1, 1),
        "radio_model.model.patch_generator.embedder.weight": (768, 768),
        "radio_model.model.patch_generator.pos_embed": (1, 16384, 768),
        "radio_model.model.patch_generator.cls_token.token": (8, 768),
        f"{BLOCK}.attn.qkv.weight": (2304, 768),
        f"{BLOCK}.attn.proj.bias": (768,),
        f"{BLOCK}.mlp.fc2.weight": (768, 3072),
    },
}
RADIO_B = 12 * 7_087_872 + 768 * 768 + 16_384 * 768 + 8 * 768  # blocks, embedder without bias, positions, tokens
PARAMETERS = {"dinov2:vits14": 22_056_576, "dinov2:vits14_reg": 22_058_112, "radio:v2.5-b": RADIO_B}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """Sizes of two layers: those that are published have 22 million weights and more."""
    patched = pytest.MonkeyPatch()
    for family, size in ((dinov2, ("tiny", 64, 2, 4)), (radio, ("T", 64, 2, 4))):
        patched.setitem(family.SIZES, "tiny", size)
    patched.setitem(dinov2.ARCHITECTURES, "tiny", dinov2.architecture("tiny", 0))
    patched.setitem(dinov2.ARCHITECTURES, "tiny_reg", dinov2.architecture("tiny", 4))
    patched.setitem(radio.ARCHITECTURES, "tiny", radio.architecture("tiny"))
    yield
    patched.undo()


def make_weights(name, folder, side=2048):
    """Random weights of an architecture, written by transformers under the published names; the network they are of."""
    import transformers

    family, variant = name.split(":")
    torch.manual_seed(len(name))
    if family == "dinov2":
        kind = dinov2.ARCHITECTURES[variant]
        settings = kind.settings({})
    else:
        kind, (_, width, layers, heads) = radio.ARCHITECTURES[variant], radio.SIZES[variant]
        settings = {
            "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "max_img_size": side,
            "num_cls_tokens": 4, "num_registers": 4, "summary_idxs": [0, 1, 2],
        }  # fmt: skip
    model_class = getattr(transformers, kind.model)
    network = model_class(model_class.config_class(**settings)).eval()
    if family == "radio":
        state = network.state_dict()
        state["input_conditioner.norm_mean"].fill_(0.4)
        state["input_conditioner.norm_std"].fill_(0.2)
    network.save_pretrained(folder)
    file = folder / "model.safetensors"
    state = {key: value for key, value in load_file(file).items() if family != "radio" or "layer_scale" not in key}
    save_file(state, file)  # RADIO has no layer scale, and what is published no such weights
    return network


@pytest.fixture(scope="module", params=["dinov2:tiny", "dinov2:tiny_reg", "radio:tiny"])
def published(request, tmp_path_factory):
    """A name, its folder of weights and the network they are of."""
    folder = tmp_path_factory.mktemp("weights")
    return request.param, folder, make_weights(request.param, folder, side=256)


def expected_features(name, network, image):
    """As the documentation of transformers calls it."""
    pixels = image.movedim(-1, 0)[None]
    with torch.no_grad():
        if name.startswith("radio"):
            return network(pixels).features[0]
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return network((pixels - mean) / std).last_hidden_state[0, 5 if name.endswith("reg") else 1 :]


def test_features_are_those_of_transformers(published):
    name, folder, network = published
    teacher = load_dense_teacher(f"{name}:{folder}")
    assert isinstance(teacher, DenseTeacher)
    images = torch.rand(2, 3 * teacher.stride, 5 * teacher.stride, 3, generator=torch.Generator().manual_seed(1))
    features = teacher.encode_dense(images)
    assert features.shape == (2, 3, 5, teacher.dim)
    assert not features.requires_grad
    for image, one in zip(images, features, strict=True):
        torch.testing.assert_close(one.flatten(0, 1), expected_features(name, network, image), rtol=1e-4, atol=1e-5)


def ramp(height, width):
    """Brighter to the right and to the bottom, as finely sampled as asked for."""
    y, x = ((torch.arange(count) + 0.5) / count for count in (height, width))
    return torch.stack([y[:, None].expand(height, width), x.expand(height, width), (y[:, None] + x) / 2], dim=-1)[None]


def test_any_size_is_brought_to_a_multiple_of_the_patch(published):
    """The grid covers all of the image: features do not depend on how finely it is sampled, as those of a part of it do."""
    name, folder, _ = published
    teacher = load_dense_teacher(f"{name}:{folder / 'model.safetensors'}")
    patch = teacher.stride
    assert teacher.encode_dense(IMAGES).shape[1:3] == (round(45 / patch), round(72 / patch))
    assert teacher.encode_dense(IMAGES[:, :3, :5]).shape[1:3] == (1, 1)
    exact = teacher.encode_dense(ramp(2 * patch, 3 * patch))
    finer = ramp(2 * patch + 5, 3 * patch + 6)
    resized, cropped = (teacher.encode_dense(image) for image in (finer, finer[:, : 2 * patch, : 3 * patch]))
    assert float((resized - exact).norm()) < 0.05 * float((cropped - exact).norm())
    with pytest.raises(DataError, match="at least one image"):
        teacher.encode_dense(IMAGES[:0])


def test_a_feature_does_not_depend_on_its_neighbours(published):
    name, folder, _ = published
    teacher = load_dense_teacher(f"{name}:{folder}")
    both = teacher.encode_dense(IMAGES)
    assert torch.equal(teacher.encode_dense(IMAGES[1:]), both[1:])
    assert torch.equal(teacher.encode_dense(IMAGES.flip(0)), both.flip(0))
    assert not torch.allclose(both[0], both[1])


def test_the_cache_is_kept_under_the_hash_of_the_weights(published, tmp_path):
    name, folder, _ = published
    teacher = load_dense_teacher(f"{name}:{folder}")
    again = load_dense_teacher(f"{name}:{folder / 'model.safetensors'}")
    assert teacher.hash == again.hash
    state = load_file(folder / "model.safetensors")
    key = next(key for key in state if key.endswith("mlp.fc1.bias"))
    save_file(state | {key: state[key] + 1}, tmp_path / "other.safetensors")
    other = load_dense_teacher(f"{name}:{tmp_path / 'other.safetensors'}")
    assert other.hash != teacher.hash
    cache, changed = (FeatureCache(each, tmp_path / "features") for each in (teacher, other))
    assert cache.folder != changed.folder
    assert not torch.equal(cache.features([IMAGES[0]]), changed.features([IMAGES[0]]))


def test_half_precision_weights_are_read_as_single(published, tmp_path):
    name, folder, _ = published
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in load_file(folder / "model.safetensors").items()
    }
    save_file(state, tmp_path / "half.safetensors")
    features = load_dense_teacher(f"{name}:{tmp_path / 'half.safetensors'}").encode_dense(IMAGES)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, load_dense_teacher(f"{name}:{folder}").encode_dense(IMAGES), rtol=0.05, atol=0.05)


def test_weights_that_do_not_fit_are_named(published, tmp_path, capfd):
    name, folder, _ = published
    state = load_file(folder / "model.safetensors")
    key = next(key for key in state if key.endswith("mlp.fc1.bias"))
    file = tmp_path / "weights.safetensors"
    for changed, message in (
        ({k: v for k, v in state.items() if k != key}, "lacks encoder.layer.0.mlp.fc1.bias"),
        (state | {"extra.weight": torch.zeros(2)}, "also has extra.weight"),
        (state | {key: torch.zeros(3)}, "has another size of encoder.layer.0.mlp.fc1.bias"),
    ):
        save_file(changed, file)
        with pytest.raises(CheckpointError, match=message):
            load_dense_teacher(f"{name}:{file}").encode_dense(IMAGES)
    file.write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_dense_teacher(f"{name}:{file}").encode_dense(IMAGES)
    assert capfd.readouterr().err == ""


def test_another_familys_weights_are_refused(published, tmp_path):
    name, folder, _ = published
    other = "radio:tiny" if name.startswith("dinov2") else "dinov2:tiny"
    with pytest.raises(CheckpointError, match="has not the weights of"):
        load_dense_teacher(f"{other}:{folder}").encode_dense(IMAGES)


def test_names_and_files_that_are_not_there(tmp_path, monkeypatch):
    for name in ("dinov2", "dinov2:vits16", "radio:v2.5-g:x.safetensors", "other:vits14"):
        with pytest.raises(CheckpointError, match="no dense teacher"):
            load_dense_teacher(name)
    with pytest.raises(CheckpointError, match="there is no file"):
        load_dense_teacher(f"dinov2:vits14:{tmp_path}")
    with pytest.raises(CheckpointError, match="Pickles are not opened"):
        load_dense_teacher("radio:v2.5-b:radio.pth.tar")
    config = PretrainConfig(scenes=("x",), out=str(tmp_path), teacher="dinov2:vits14")
    assert config.weights().semantic == 10.0
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CheckpointError, match=r"splatsense\[dense\]"):
        load_dense_teacher("dinov2:vits14")


def test_weights_that_cannot_be_fetched(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    teacher = dinov2.load_dinov2("dinov2:vitb14")  # not through `load_dense_teacher`, whose type is checked by reading the hash
    with pytest.raises(CheckpointError, match=r"could not be fetched .* model\.safetensors of facebook/dinov2-base"):
        teacher.encode_dense(IMAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_files_as_published_load_completely(name, tmp_path):
    network = make_weights(name, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for key, shape in PUBLISHED[name].items():
        assert tuple(state[key].shape) == shape
    assert (
        sum(value.numel() for key, value in state.items() if "input_cond" not in key and "idxs" not in key) == PARAMETERS[name]
    )
    if name.startswith("radio"):  # heads for RADIO's own teachers come with it
        save_file(state | {"radio_model.adaptors.clip.head_mlp.fc1.weight": torch.zeros(4, 4)}, tmp_path / "model.safetensors")
    teacher = load_dense_teacher(f"{name}:{tmp_path}")
    image = torch.rand(6 * teacher.stride, 8 * teacher.stride, 3, generator=torch.Generator().manual_seed(2))
    found = teacher.encode_dense(image[None])[0].flatten(0, 1)
    torch.testing.assert_close(found, expected_features(name, network, image), rtol=1e-4, atol=1e-5)
